"""Predicted objects as JSON, COCO results, YOLO text and indexed masks: each read back by the format's own reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from zoo.data.predicting import Source
from zoo.tasks.detected import Detected, category_ids, detected, run_lengths, write_coco, write_masks, write_yolo
from zoo.tasks.judged import judge, worst_images

NAMES = ["cat", "dog"]


def result(name: str = "7.jpg", masks: bool = True) -> Detected:
    shapes = torch.zeros(3, 20, 30)
    shapes[0, 2:8, 3:9], shapes[1, 5:15, 5:25], shapes[2, 0:3, 0:3] = 0.9, 0.7, 0.6
    found = {
        "boxes": torch.tensor([[3.0, 2, 9, 8], [5, 5, 25, 15], [0, 0, 3, 3]]),
        "scores": torch.tensor([0.6, 0.9, 0.2]),
        "labels": torch.tensor([0, 1, 1]),
        **({"masks": shapes} if masks else {}),
    }
    return detected(found, name, (20, 30), NAMES, 0.5)


def test_objects_are_sorted_and_thresholded() -> None:
    found = result()
    assert found.names == ["dog", "cat"]
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.masks is not None
    assert found.masks.dtype == torch.bool
    assert found.masks.sum((1, 2)).tolist() == [200, 36]


def test_json_holds_everything() -> None:
    row = json.loads(json.dumps(result().as_json(), allow_nan=False))
    assert (row["name"], row["width"], row["height"]) == ("7.jpg", 30, 20)
    assert [one["class"] for one in row["objects"]] == ["dog", "cat"]
    assert row["objects"][1]["box"] == [3, 2, 9, 8]
    decoded = coco_mask.decode(row["objects"][0]["segmentation"])
    assert decoded.sum() == 200
    assert decoded[5:15, 5:25].all()
    assert "segmentation" not in result(masks=False).as_json()["objects"][0]


def test_run_lengths_are_cocos() -> None:
    mask = torch.rand(17, 23) > 0.5
    assert (coco_mask.decode(run_lengths(mask)) == mask.numpy()).all()


def test_coco_results_load_in_cocos_own_reader(tmp_path: Path) -> None:
    rows = [result("000000000139.jpg").as_json(), result("000000000285.jpg").as_json()]
    write_coco(tmp_path / "results.json", rows, category_ids(NAMES))
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i, "width": 30, "height": 20} for i in (139, 285)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(str(tmp_path / "results.json"))
    assert len(loaded.anns) == 4
    first = loaded.loadAnns(loaded.getAnnIds(imgIds=285))[1]
    assert first["bbox"] == [3, 2, 6, 6]
    assert first["category_id"] == 1


@pytest.mark.parametrize(
    "names", [["a.jpg", "b.jpg"], ["x/1.jpg", "y/1.jpg"], ["01.jpg", "1.jpg"], ["1.jpg", "²"], ["1.png", "cat.png"]]
)
def test_names_that_are_no_numbers_are_counted(names: list[str], tmp_path: Path) -> None:
    write_coco(tmp_path / "results.json", [result(name).as_json() for name in names], [1, 2])
    found = json.loads((tmp_path / "results.json").read_text())
    assert [one["image_id"] for one in found] == [1, 1, 2, 2]
    assert [one["file_name"] for one in found[::2]] == names


def test_yolo_text(tmp_path: Path) -> None:
    write_yolo(tmp_path, result(Source("photos/holiday/7.jpg", name="holiday/7.jpg")))
    lines = (tmp_path / "labels" / "holiday" / "7.txt").read_text().splitlines()
    label, *numbers = lines[0].split()
    assert label == "1"
    assert [float(n) for n in numbers] == pytest.approx([15 / 30, 10 / 20, 20 / 30, 10 / 20, 0.9], abs=1e-6)
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    write_yolo(tmp_path, detected(none, "none.jpg", (5, 5), NAMES, 0.5))
    assert (tmp_path / "labels" / "none.txt").read_text() == ""


def test_files_that_differ_by_their_ending_alone_are_kept_apart(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        write_yolo(tmp_path, result(name))
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["a.png.txt", "a.txt"]


def test_masks_are_an_indexed_png(tmp_path: Path) -> None:
    write_masks(tmp_path, result("a.jpg"))
    picture = Image.open(tmp_path / "masks" / "a.png")
    assert picture.mode == "P"
    pixels = np.asarray(picture)
    assert pixels[10, 10] == 1
    assert pixels[3, 4] == 2
    assert pixels[6, 6] == 1, "the more confident one is on top"
    assert pixels[19, 0] == 0


def test_cocos_classes_have_cocos_ids() -> None:
    known = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    names = [name for name in known if name not in ("N/A", "__background__")]
    assert len(names) == 80
    ids = category_ids(names)
    assert (ids[0], ids[-1], ids[names.index("traffic light")]) == (1, 90, 10)
    assert category_ids(names[:3]) == [1, 2, 3], "a set of one's own counts by itself"


def test_results_of_a_resized_picture_are_in_its_own_pixels() -> None:
    """A picture of 40 x 90 that the network saw at 20 x 30."""
    source = Source("photos/7.jpg", name="7.jpg", picture_size=(40, 90), image_size=(20, 30))
    found = result(source)
    assert found.size == (40, 90)
    assert found.boxes[1].tolist() == [9, 4, 27, 16]
    assert found.masks is not None
    assert found.masks.shape == (2, 40, 90)
    assert found.masks[1].sum() == 36 * 6
    boxes, masks = found.drawn((20, 30))
    assert boxes.corners[1].tolist() == [3, 2, 9, 8]
    assert masks is not None
    assert masks.sum((1, 2)).tolist() == [200, 36]


def test_images_without_objects_are_worst_where_something_was_found() -> None:
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    one = {"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": torch.tensor([0])}
    found = {**one, "scores": torch.tensor([0.9])}
    nothing = {**none, "scores": torch.zeros(0)}
    images = [torch.rand(3, 10, 10) for _ in range(4)]
    every, targets = [found, nothing, found, nothing], [one, one, none, none]
    judged = judge(images, every, targets, lambda i: detected(every[i], str(i), (10, 10), NAMES, 0.5), 3)
    assert [(j.result.name, j.ap) for j in judged] == [("1", 0.0), ("2", 0.0), ("0", 1.0)]
    assert [j.result.name for j in worst_images(judged, 2)] == ["1", "2"]
