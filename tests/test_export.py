"""What is exported runs without the zoo, gives the network's outputs, and says how it is to be used."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo import load
from zoo.__main__ import main
from zoo.architectures.alexnet import AlexNet
from zoo.errors import UserError
from zoo.export import export, preprocessing
from zoo.export_formats import EXTRA_FILE, SUFFIXES
from zoo.tasks.classification import Classification

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

SIZE = [32, 36]  # not square, so that height and width can't be mixed up
FACTS: dict[str, Any] = {
    "num_classes": 4,
    "class_names": ["ant", "bee", "cat", "dog"],
    "in_channels": 3,
    "image_size": SIZE,
    "mean": [0.1, 0.2, 0.3],
    "std": [0.4, 0.5, 0.6],
}


def small_task() -> Classification:
    torch.manual_seed(0)
    task = Classification(partial(AlexNet, width=0.0625, init="forward"), facts=FACTS)
    task.configure_model()
    return task.eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = small_task()
    content: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(content)
    content["zoo"] = {"recipe_name": "alexnet", "data": {"class_path": "X", "init_args": {"resize": 40}}}
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def files(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    made = {name: folder / f"net{suffix}" for name, suffix in SUFFIXES.items()}
    for name, path in made.items():
        assert export(checkpoint, path, name) < 1e-5  # type: ignore[arg-type, operator]
    return made


def images(count: int) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(count))


def expected(checkpoint: Path, batch: Tensor) -> Tensor:
    """By hand from the weights: the normalisation of the facts, then the network alone."""
    mean, std = (torch.tensor(FACTS[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return load(checkpoint).architecture((batch - mean) / std)  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("count", [1, 5])
def test_onnx_gives_the_networks_logits(files: dict[str, Path], checkpoint: Path, count: int) -> None:
    session = onnxruntime.InferenceSession(files["onnx"], providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images(count).numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected(checkpoint, images(count)), rtol=1e-4, atol=1e-4)


def test_program_runs_where_there_is_no_zoo(files: dict[str, Path], checkpoint: Path, tmp_path: Path) -> None:
    batch, result = tmp_path / "images.pt", tmp_path / "logits.pt"
    torch.save(images(5), batch)
    code = (
        "import sys; sys.modules['zoo'] = None; sys.modules['lightning'] = None\n"
        "import torch\n"
        f"network = torch.export.load({str(files['torch_export'])!r}).module()\n"
        f"torch.save(network(torch.load({str(batch)!r})).detach(), {str(result)!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    torch.testing.assert_close(torch.load(result), expected(checkpoint, images(5)), rtol=1e-4, atol=1e-4)


def told(files: dict[str, Path]) -> dict[str, dict[str, str]]:
    props = onnx.load(files["onnx"], load_external_data=False).metadata_props
    extra = {EXTRA_FILE: ""}
    torch.export.load(str(files["torch_export"]), extra_files=extra)
    return {"onnx": {p.key: p.value for p in props}, "torch_export": json.loads(extra[EXTRA_FILE])}


def test_both_formats_describe_themselves(files: dict[str, Path]) -> None:
    from zoo import __version__

    for said in told(files).values():
        assert said["zoo_version"] == __version__
        assert said["task"] == "zoo.tasks.Classification"
        assert json.loads(said["class_names"]) == FACTS["class_names"]
        assert json.loads(said["image_size"]) == SIZE
        assert json.loads(said["in_channels"]) == 3
        assert json.loads(said["mean"]) == FACTS["mean"]
        assert json.loads(said["std"]) == FACTS["std"]
        assert json.loads(said["architecture"])["class_path"] == "zoo.architectures.AlexNet"
        assert "32x36" in said["preprocessing"]


def test_preprocessing_tells_the_crop_only_where_there_is_one() -> None:
    cropped = preprocessing([64, 64], [72, 72], 1)
    assert "resize to 72x72" in cropped
    assert "crop the central 64x64" in cropped
    assert "grey" in cropped
    whole = preprocessing([64, 64], [64, 64], 3)
    assert "resize to 64x64" in whole
    assert "crop the central 64" not in whole
    assert "RGB" in whole


def test_the_axis_of_images_is_free_unless_fixed(files: dict[str, Path], checkpoint: Path, tmp_path: Path) -> None:
    free = onnxruntime.InferenceSession(files["onnx"]).get_inputs()[0]
    assert (free.name, free.shape) == ("images", ["batch", 3, *SIZE])
    export(checkpoint, tmp_path / "two.onnx", batch_size=2)
    assert onnxruntime.InferenceSession(tmp_path / "two.onnx").get_inputs()[0].shape == [2, 3, *SIZE]


def test_command_writes_into_a_run_folder_and_its_advice_works(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--ckpt_path", str(checkpoint)]) == 0
    (path,) = Path("runs/export-alexnet").glob("*/model.onnx")
    text = capsys.readouterr().out
    assert str(path) in text
    assert "agrees with the network" in text
    advice = "\n".join(line.strip() for line in text.split("use it\n")[1].splitlines())
    names: dict[str, Any] = {"images": images(2).numpy()}
    exec(advice, names)
    assert names["logits"].shape == (2, 4)
    assert "resize to 40x40" in capsys.readouterr().out  # what the run's data did


def test_name_of_the_file_chooses_the_format(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--ckpt_path", str(checkpoint), "--out", "deep/net.pt2"]) == 0
    advice = "\n".join(line.strip() for line in capsys.readouterr().out.split("use it\n")[1].splitlines())
    names: dict[str, Any] = {"images": images(2)}
    exec(advice, names)
    torch.testing.assert_close(names["logits"].detach(), expected(checkpoint, images(2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ckpt_path", "nowhere.ckpt"], ["no such checkpoint", "nowhere.ckpt"]),
        (["--ckpt_path", "CKPT", "--out", "net.pt2", "--format", "onnx"], ["--out net.pt2", "--format is onnx"]),
        (["--ckpt_path", "CKPT", "--batch_size", "many"], ["--batch_size", "dynamic", "many"]),
        (["--ckpt_path", "CKPT", "--batch_size", "0"], ["batch_size", "at least 1"]),
        (["--ckpt_path", "CKPT", "--format", "tflite"], ["tflite", "onnx"]),
        (["--ckpt_path", "CKPT", "--out", "there.onnx"], ["there.onnx", "nothing is overwritten"]),
        ([], ["--ckpt_path"]),
    ],
)
def test_mistakes_end_in_one_line(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    Path("there.onnx").write_text("mine")
    assert main(["export", *(str(checkpoint) if a == "CKPT" else a for a in arguments)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in words), line
    assert Path("there.onnx").read_text() == "mine"
    assert not list(Path().rglob("runs/*/*"))


def test_what_is_not_installed_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.export.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnxscript: pip install 'lightning-zoo\[export\]'"):
        export(checkpoint, "net.onnx")


def test_says_that_nothing_was_checked(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("zoo.export.find_spec", lambda name: None if name == "onnxruntime" else object())
    assert main(["export", "--ckpt_path", str(checkpoint), "--out", "net.onnx"]) == 0
    assert "onnxruntime is not installed" in capsys.readouterr().out


def test_a_file_that_does_not_agree_is_refused_and_removed(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo import export_formats as formats
    from zoo.export import _plan, _traced

    other = small_task()
    torch.nn.init.normal_(other.architecture.layers.conv1.weight)  # type: ignore[union-attr, arg-type]
    wrong = _traced(_plan(other, other.exported(), None))
    write = formats.WRITERS["torch_export"]
    monkeypatch.setitem(formats.WRITERS, "torch_export", lambda program, *rest: write(wrong, *rest))
    with pytest.raises(UserError, match="does not agree"):
        export(checkpoint, Path("out/net.pt2"), "torch_export")
    assert not list(Path("out").iterdir())


def test_weights_that_need_a_second_file_are_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.export_formats.ONNX_BYTES", 2**10)
    with pytest.raises(UserError, match="one ONNX file holds at most"):
        export(checkpoint, Path("out/net.onnx"))
    assert not list(Path("out").iterdir())


def test_a_task_in_training_stays_as_it_is(tmp_path: Path) -> None:
    task = small_task().to(torch.bfloat16).train()
    export(task, tmp_path / "net.pt2", "torch_export")
    assert task.training
    assert {p.dtype for p in task.parameters()} == {torch.bfloat16}
