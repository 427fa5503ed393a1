"""Overlays and tables of a task in each logger: as W&B's own boxes, masks and tables, drawn for TensorBoard."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from training.test_wandb import records
from zoo_toys.data import ToyBoxes
from zoo_toys.tasks import ToyDetection

from zoo.drawing import Boxes, Overlay, Table, class_color, to_picture
from zoo.drawing_objects import draw_overlay
from zoo.training.media import Media
from zoo.training.pictures import PictureWriter

warnings.filterwarnings("ignore", ".*does not have many workers.*")


def run_with(logger: Logger, folder: Path) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    options |= {"enable_checkpointing": False, "max_epochs": 1, "log_every_n_steps": 1}
    run = Trainer(logger=logger, callbacks=[PictureWriter(folder / "pictures")], **options)
    task, data = ToyDetection(), ToyBoxes()
    run.fit(task, datamodule=data)
    run.test(task, datamodule=data, verbose=False)
    assert {p.name[:5] for p in (folder / "pictures").iterdir()} == {"val-e", "test-"}, "pictures stay in the folder"


def test_wandb_has_boxes_masks_and_tables(workspace: Path) -> None:
    run_with(WandbLogger(save_dir=workspace, offline=True), workspace)
    wandb.finish()
    found: dict[str, Any] = {}
    written = records(workspace)
    tables = [r.artifact for r in written if r.WhichOneof("record_type") == "artifact"]
    assert {bytes(f"{stage}/counts", "ascii") in b"".join(t.SerializeToString() for t in tables)
            for stage in ("val", "test")} == {True}  # fmt: skip
    assert all(b"media/images/" in t.SerializeToString() for t in tables)
    for record in written:
        for item in record.history.item:
            name, *entry = item.nested_key or [item.key]
            found.setdefault(name, {})[".".join(entry)] = json.loads(item.value_json)
    for stage in ("val", "test"):
        images, table = found[f"{stage}/predictions"], found[f"{stage}/counts"]
        assert (images["count"], images["height"], images["width"]) == (16, 7, 7), "padded to the largest"
        assert images["captions"][:2] == ["0-0", "0-1"]
        (media,) = workspace.rglob(Path(images["filenames"][0]).name)
        assert media.is_file()
        boxes = [json.loads(next(workspace.rglob(Path(b["prediction"]["path"]).name)).read_text())
                 for b in images["all_boxes"][:3]]  # fmt: skip
        assert [len(b["box_data"]) for b in boxes] == [0, 1, 2]
        assert boxes[2]["box_data"][1] == {
            "position": {"minX": 0.0, "minY": 0.0, "maxX": 2.0, "maxY": 2.0},
            "domain": "pixel",
            "class_id": 0,
            "box_caption": "a 50%",
            "scores": {"score": 0.5},
        }
        assert boxes[2]["class_labels"] == {"0": "a", "1": "b", "2": "c"}
        assert set(images["all_boxes"][0]) == {"prediction", "truth"}
        assert len(images["all_masks"]) == 16
        rows = json.loads(next(workspace.rglob(Path(table["path"]).name)).read_text())
        assert rows["columns"] == ["name", "boxes", "picture"]
        assert rows["data"][1][:2] == ["0-1", 1]
        assert rows["data"][1][2] == "Image", "W&B's own pictures, which lie in the table's artifact"


def test_tensorboard_has_drawn_boxes_and_text(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    run_with(logger, tmp_path)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0, "tensors": 0}).Reload()
    assert {"val/predictions/0", "test/predictions/15"} <= set(events.Tags()["images"])
    assert events.Images("val/predictions/1")[0].width == 192
    text = events.Tensors("test/counts/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.splitlines()[:4] == [
        "| name | boxes | picture |",
        "| --- | --- | --- |",
        "| 0-0 | 0 |  |",
        "| 0-1 | 1 |  |",
    ]


def test_other_loggers_get_nothing(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    run_with(logger, tmp_path)
    text = (Path(logger.log_dir) / "metrics.csv").read_text()
    assert "val/count_error" in text
    assert "predictions" not in text


class Recorder(CSVLogger):
    """A logger of pictures alone, as a plugin's may be."""

    def log_image(self, key: str, images: list[Any]) -> None:
        self.seen = [*getattr(self, "seen", []), (key, len(images))]


def test_a_logger_of_pictures_gets_the_finished_ones(tmp_path: Path) -> None:
    logger, picture = Recorder(tmp_path), to_picture(torch.rand(3, 8, 8))
    overlay = Overlay(torch.rand(3, 8, 8))
    Media({"predictions": [picture]}, {"predictions": [overlay] * 3}, {}).give(logger, "val", 0)
    assert logger.seen == [("val/predictions", 1)]


# Drawing


def test_boxes_are_drawn_at_their_places() -> None:
    first = Boxes(torch.tensor([[2.0, 3.0, 10.0, 12.0]]), torch.tensor([1]), torch.tensor([0.9]))
    truth = Boxes(torch.tensor([[12.0, 3.0, 15.0, 14.0]]), torch.tensor([2]))
    plain = np.asarray(draw_overlay(Overlay(torch.zeros(1, 16, 16))))
    drawn = np.asarray(draw_overlay(Overlay(torch.zeros(1, 16, 16), {"prediction": first, "truth": truth})))
    assert drawn.shape == plain.shape == (192, 192, 3)
    assert tuple(drawn[100, 24]) == class_color(1) == tuple(drawn[100, 25])
    assert tuple(drawn[100, 144]) == class_color(2)
    assert tuple(drawn[100, 146]) == (0, 0, 0), "the second are thin"
    assert (drawn[60:140, 130:140] == 0).all()


def test_masks_tint_their_pixels() -> None:
    mask = torch.full((16, 16), 255)
    mask[:, 8:] = 3
    drawn = np.asarray(draw_overlay(Overlay(torch.zeros(3, 16, 16), masks={"truth": mask})))
    assert (drawn[:, :96] == 0).all()
    np.testing.assert_allclose(drawn[60, 150], np.array(class_color(3)) / 2, atol=1)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="corners, labels and scores of"):
        Boxes(torch.zeros(2, 4), torch.zeros(3))
    with pytest.raises(ValueError, match="mask truth of"):
        Overlay(torch.zeros(3, 4, 4), masks={"truth": torch.zeros(4, 5)})
    with pytest.raises(ValueError, match="a row of 1 cells under 2 columns"):
        Table(["a", "b"], [[1]])
