"""``zoo predict``: a picture an image and one JSON file; what can't be read is named, and the exit status says so."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from running import folder_of, write_recipe, zoo

from zoo.training.predicting import PredictionFiles

FIT = {
    "class_path": "Classification",
    "init_args": {"architecture": "ToyNet", "optimizer": "SGD"},
}


@pytest.fixture
def checkpoint(workspace: Path) -> Path:
    recipe = write_recipe(workspace / "toy.yaml", FIT, {"class_path": "Digits"}, max_epochs=1, limit_train_batches=2)
    assert zoo("fit", "--config", str(recipe), "--no_test") == 0
    return folder_of("toy") / "checkpoints/last.ckpt"


def test_predictions_of_own_pictures(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    for i, mode in enumerate(("L", "RGB", "RGBA", "P", "1")):
        Image.fromarray(np.full((40, 30 + i), 90, np.uint8)).convert(mode).save(f"photos/{i}.png")
    argv = ["predict", "--ckpt_path", str(checkpoint), "--data.files", "['photos/*.png']"]
    assert zoo(*argv) == 0
    folder = folder_of("predict-toy")
    rows = json.loads((folder / "predictions.json").read_text())
    assert [Path(r["name"]).name for r in rows] == [f"{i}.png" for i in range(5)]
    for row in rows:
        assert 0 <= row["confidence"] <= 1
        assert row["class"] in [str(d) for d in range(10)]
        with Image.open(folder / row["picture"]) as picture:
            assert picture.width > 20
    capsys.readouterr()
    Path("photos/broken.png").write_bytes(b"no picture")
    assert zoo(*argv) == 1, "the exit status tells that something was not done"
    assert "broken.png" in capsys.readouterr().out
    assert len(json.loads((folder_of("predict-toy") / "predictions.json").read_text())) == 5


def test_folders_below_stay_apart(checkpoint: Path) -> None:
    for i, name in enumerate(("a/1.png", "b/1.png")):
        Path("photos", name).parent.mkdir(parents=True)
        Image.new("L", (20, 20 + i)).save(Path("photos", name))
    assert zoo("predict", "--ckpt_path", str(checkpoint), "--data.files", "photos/**/*.png", "--out", "here") == 0
    rows = json.loads(Path("here/predictions.json").read_text())
    assert [row["name"] for row in rows] == ["photos/a/1.png", "photos/b/1.png"]
    assert [row["picture"] for row in rows] == ["pictures/a/00-00000-1.png", "pictures/b/00-00001-1.png"]
    assert all(Path("here", row["picture"]).is_file() for row in rows)


def test_a_pattern_as_typed(checkpoint: Path) -> None:
    Image.new("L", (20, 20)).save("one.png")
    assert zoo("predict", "--ckpt_path", str(checkpoint), "--data.files", "one.png", "--out", "here") == 0
    assert Path("here/predictions.json").is_file()


def test_other_data_than_the_checkpoints(checkpoint: Path) -> None:
    Image.new("RGB", (20, 20)).save("one.png")
    argv = ["--data", "ImageFolder", "--data.root", "nowhere", "--data.files", "one.png"]
    assert zoo("predict", "--ckpt_path", str(checkpoint), *argv, "--out", "here") == 0
    assert len(json.loads(Path("here/predictions.json").read_text())) == 1


def test_every_process_names_what_it_could_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def gather(parts: list[Any], own: Any) -> None:
        parts[:] = [own, ([{"name": "b"}], ["broken.png"])]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    files = PredictionFiles(tmp_path)
    files.rows = [{"name": "a"}]
    trainer: Any = SimpleNamespace(world_size=2, is_global_zero=True, datamodule=SimpleNamespace(unreadable=[]))
    summed: list[Any] = []
    files.on_predict_end(trainer, SimpleNamespace(write_summary=lambda *given: summed.append(given)))  # type: ignore[arg-type]
    files.report()
    assert "broken.png" in capsys.readouterr().out
    assert [row["name"] for row in json.loads((tmp_path / "predictions.json").read_text())] == ["a", "b"]
    assert summed == [(tmp_path, [{"name": "a"}, {"name": "b"}])], "a task's summary has the rows of all processes"


def test_a_task_writes_files_of_its_own(tmp_path: Path) -> None:
    class Writes:
        def as_json(self, results: Any) -> Any:
            return [{"name": str(n)} for n in results]

        def draw(self, images: Any, results: Any) -> Any:
            return [Image.new("L", (4, 4)) for _ in results]

        def write_files(self, folder: Path, results: Any) -> None:
            (folder / "further.txt").write_text(" ".join(results))

    files = PredictionFiles(tmp_path / "out")
    trainer: Any = SimpleNamespace(global_rank=0)
    files.write_on_batch_end(trainer, Writes(), ["x/a.png"], None, (None, ["x/a.png"]), 0, 0)  # type: ignore[arg-type]
    assert (tmp_path / "out" / "further.txt").read_text() == "x/a.png"
    assert files.rows == [{"name": "x/a.png", "picture": "pictures/00-00000-a.png"}]


def test_lists_of_images(workspace: Path) -> None:
    recipe = str(write_recipe(workspace / "boxes.yaml", {"class_path": "ToyDetection"}, {"class_path": "ToyBoxes"}))
    assert zoo("predict", "--config", recipe) == 0
    rows = json.loads((folder_of("predict-boxes") / "predictions.json").read_text())
    assert len(rows) == 22
    assert rows[2]["boxes"][1] == [0.0, 0.0, 2.0, 2.0]
