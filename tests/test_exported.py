"""What a task says is exported: noise in, several inputs and outputs, what follows the network; and what is refused."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from zoo import Architecture, ArchitectureFactory, Facts, Task
from zoo.__main__ import main
from zoo.architectures.alexnet import AlexNet
from zoo.cli.export import _report
from zoo.errors import UserError
from zoo.export import Written, export, write
from zoo.export_formats import SUFFIXES, Port
from zoo.tasks.classification import Classification
from zoo.tasks.exported import Exported

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

FACTS: Any = {"num_classes": 2, "in_channels": 3, "image_size": [6, 8]}


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "toys"))
    from zoo_toys import networks, tasks

    return type("Toys", (), {**vars(networks), **vars(tasks)})


class Conditional(Architecture):
    """Noise and a class to an image."""

    roles = ("generator",)
    latent_shape = (5,)

    def __init__(self, num_classes: int = 4, in_channels: int = 3) -> None:
        super().__init__()
        self.classes, self.net = nn.Embedding(num_classes, 5), nn.Linear(5, in_channels * 48)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        z = z if labels is None else z + self.classes(labels)
        return torch.sigmoid(self.net(z)).unflatten(1, (-1, 6, 8))


class Probabilities(nn.Module):
    """A classifier's softmax and most probable class."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.classifier(images).softmax(1)
        return {"probabilities": found, "best": found.argmax(1)}


class WithSoftmax(Classification):
    """Classification whose file gives probabilities."""

    def exported(self) -> Exported:
        names = ("probabilities", "best")
        return replace(super().exported(), network=Probabilities(self), outputs=names, resize=[40, 45])


class FirstBox(Task):
    """A detector without an export of its own."""

    batch = "detection"
    predict_view = "native"

    def __init__(self, architecture: ArchitectureFactory, facts: Facts | None = None) -> None:
        super().__init__()

    def build(self) -> None:
        self.architecture = self.make("architecture")

    def forward(self, images: list[Tensor]) -> Any:
        return self.architecture(images)


class OneImage(nn.Module):
    """A detector's call for a single image."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        (found,) = self.detector([image])
        return found["boxes"], found["scores"], found["labels"]


class DetectionOfOne(FirstBox):
    """A detector that says how it is exported."""

    def exported(self) -> Exported:
        size = [10, 12]

        def inputs(count: int, generator: Generator) -> dict[str, Tensor]:
            return {"image": torch.rand(3, *size, generator=generator)}

        names, about = ("boxes", "scores", "labels"), "boxes x1 y1 x2 y2 in pixels, best first"
        return Exported(OneImage(self.architecture), inputs, names, about, batched=(), image_size=size)


def gan(toys: Any, generator: Any, **facts: Any) -> Any:
    torch.manual_seed(0)
    task = toys.ToyGAN(generator, facts={**FACTS, **facts})
    task.configure_model()
    return task.eval()


def run_advice(format: str, written: Written, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """The names that the printed lines leave behind."""
    text = "\n".join(_report(format, written))
    names: dict[str, Any] = {k: v.numpy() if format == "onnx" else v for k, v in inputs.items()}
    exec("\n".join(line.strip() for line in text.split("use it\n")[1].splitlines()), names)
    return {name: torch.as_tensor(names[name]).detach() for name in (port.name for port in written.outputs)}


@pytest.mark.parametrize("format", SUFFIXES)
def test_noise_and_labels_in(toys: Any, tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str]) -> None:
    task, path = gan(toys, Conditional, num_classes=4), tmp_path / f"net{SUFFIXES[format]}"
    written = write(task, path, format)  # type: ignore[arg-type]
    assert written.inputs == [
        Port("z", "float32", ["batch", 5], "standard normal noise"),
        Port("labels", "int64", ["batch"], "from 0 to 3"),
    ]
    assert written.outputs == [Port("images", "float32", ["batch", 3, 6, 8], "")]
    assert json.loads(written.described["inputs"])[1]["name"] == "labels"
    assert json.loads(written.described["architecture"])["class_path"].endswith("Conditional")
    assert "preprocessing" not in written.described
    given = {"z": torch.randn(7, 5), "labels": torch.arange(7) % 4}
    with torch.no_grad():
        wanted = task.generator(given["z"], given["labels"])
    torch.testing.assert_close(run_advice(format, written, given)["images"], wanted, rtol=1e-4, atol=1e-5)
    assert "images" in capsys.readouterr().out  # the meaning of the outputs


def test_the_command_exports_a_generator_without_classes(
    toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, content = gan(toys, toys.ToyGenerator), {}
    content["state_dict"] = task.state_dict()
    task.on_save_checkpoint(content)
    torch.save(content, tmp_path / "gan.ckpt")
    assert main(["export", "--ckpt_path", str(tmp_path / "gan.ckpt"), "--out", "gan.pt2"]) == 0
    text = capsys.readouterr().out
    assert "input    z, float32 (any, 5), standard normal noise\n" in text
    assert "images = network(z)\n" in text


@pytest.mark.parametrize("format", SUFFIXES)
def test_a_detector_that_declares_three_outputs(toys: Any, tmp_path: Path, format: str) -> None:
    torch.manual_seed(0)
    task, path = DetectionOfOne(toys.ToyDetector, facts=FACTS), tmp_path / f"net{SUFFIXES[format]}"
    task.configure_model()
    written = write(task.eval(), path, format)  # type: ignore[arg-type]
    assert written.inputs == [Port("image", "float32", [3, 10, 12], "")]
    assert [port.name for port in written.outputs] == ["boxes", "scores", "labels"]
    assert written.described["preprocessing"].startswith("resize all of it to 10x12")
    image = torch.rand(3, 10, 12)
    with torch.no_grad():
        (wanted,) = task([image])
    found = run_advice(format, written, {"image": image})
    for name in ("boxes", "scores", "labels"):
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="takes the one number of samples"):
        export(task, tmp_path / "other.onnx", batch_size=2)


def classifier(cls: type[Classification] = WithSoftmax) -> Classification:
    torch.manual_seed(0)
    facts: Any = {"num_classes": 4, "in_channels": 3, "image_size": [32, 36], "mean": [0.4], "std": [0.2]}
    task = cls(partial(AlexNet, width=0.0625, init="forward"), facts=facts)
    task.configure_model()
    return task.eval()


@pytest.mark.parametrize("format", SUFFIXES)
def test_what_follows_the_network_is_inside(tmp_path: Path, format: str) -> None:
    task, path = classifier(), tmp_path / f"net{SUFFIXES[format]}"
    written = write(task, path, format)  # type: ignore[arg-type]
    assert written.outputs[1] == Port("best", "int64", ["batch"], "")
    assert "resize to 40x45" in written.described["preprocessing"]  # what the task says
    images = torch.rand(5, 3, 32, 36)
    with torch.no_grad():
        wanted = torch.softmax(task.architecture((images - 0.4) / 0.2), 1)
    found = run_advice(format, written, {"images": images})
    torch.testing.assert_close(found["probabilities"], wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(found["best"], wanted.argmax(1))


def test_a_difference_in_any_output_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in whole numbers: the network's classes are counted from the other end once the file is written."""
    from zoo import export_formats as formats

    task, write_file = classifier(), formats.WRITERS["torch_export"]

    def write_then_break(*arguments: Any) -> None:
        write_file(*arguments)
        monkeypatch.setattr(Tensor, "argmax", lambda self, dim: 3 - self.max(dim).indices)

    monkeypatch.setitem(formats.WRITERS, "torch_export", write_then_break)
    with pytest.raises(UserError, match="does not agree"):
        export(task, tmp_path / "net.pt2", "torch_export")


def test_what_cannot_be_exported_is_refused_in_a_line(toys: Any) -> None:
    from zoo.architectures.cppn import CPPN
    from zoo.tasks.art.image_fitting import ImageFitting

    refused: list[tuple[Task, str]] = [
        (FirstBox(toys.ToyDetector, facts=FACTS), "FirstBox can't be exported: a detector can't be traced by itself"),
        (toys.ToyDetection(facts=FACTS), "ToyDetection can't be exported: a detector"),
        (ImageFitting(CPPN, facts={"num_images": 1}), "its product is pictures"),
        (toys.ToyClassification(toys.ToyNet, facts={"num_classes": 3, "in_channels": 1}), "image_size of its images"),
    ]
    for task, words in refused:
        with pytest.raises(UserError) as caught:
            export(task, "net.onnx")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "`exported` of its own" in str(caught.value) or "image_size" in words
    assert not Path("net.onnx").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outputs": ("images", "best")}, "'images' is not a name of one input or output alone"),
        ({"outputs": ("the best", "best")}, "'the best' is not a name"),
        ({"outputs": ("a", "b", "c")}, "gives 2 outputs, but names a, b, c"),
        ({"batched": ("z",)}, "batched names z, but the inputs are images"),
    ],
)
def test_a_wrong_declaration_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    task = classifier()
    declared = replace(task.exported(), **changes)
    monkeypatch.setattr(WithSoftmax, "exported", lambda self: declared)
    with pytest.raises(UserError, match=words):
        export(task, "net.onnx")
