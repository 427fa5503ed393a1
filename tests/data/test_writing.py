"""Written data sets, read by pycocotools and by hand: the same boxes, labels and masks."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from tests.data.test_object_augmentation import Squares
from zoo.cli.data import main
from zoo.data.coco import CocoDetection
from zoo.data.detection_folder import DetectionFolder
from zoo.data.writing import CocoWriter, VocWriter, YoloWriter, outline, run_lengths, voc_palette
from zoo.data.yolo_files import YoloSet
from zoo.errors import UserError

NAMES = ["one", "two", "three", "four"]
SAMPLES = Squares()


def ring() -> np.ndarray:
    mask = np.zeros((9, 12), bool)
    mask[1:6, 2:7] = True
    mask[3, 4] = False
    mask[0:3, 9:12] = True
    return mask


@pytest.mark.parametrize("mask", [ring(), ~ring(), np.zeros((4, 5), bool), np.ones((4, 5), bool)])
def test_run_lengths_are_pycocotools(mask: np.ndarray) -> None:
    rle = {"size": [*mask.shape], "counts": run_lengths(mask)}
    assert sum(rle["counts"]) == mask.size
    assert (coco_masks.decode(coco_masks.frPyObjects(rle, *mask.shape)) == mask).all()


def test_an_outline_has_all_parts_and_no_holes() -> None:
    filled = ring()
    filled[3, 4] = True
    polygon = outline(ring())
    assert polygon.min(0).tolist() == [2, 0]
    assert polygon.max(0).tolist() == [12, 6]
    found = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects([polygon.ravel().tolist()], 9, 12)))
    assert (found != filled).sum() <= 8, "corners are cut by half a pixel"


def test_coco_files_load_in_pycocotools(tmp_path: Path) -> None:
    assert CocoWriter(tmp_path, NAMES).write("train", SAMPLES) == 6
    coco = COCO(str(tmp_path / "annotations" / "instances_train.json"))
    for index, info in enumerate(coco.loadImgs(coco.getImgIds())):
        image, target = SAMPLES[index]
        pixels = np.asarray(Image.open(tmp_path / "train" / info["file_name"]))
        assert (pixels == image.permute(1, 2, 0).numpy()).all()
        entries = coco.loadAnns(coco.getAnnIds(info["id"]))
        assert [NAMES.index(coco.cats[one["category_id"]]["name"]) for one in entries] == target["labels"].tolist()
        for one, mask, box in zip(entries, target["masks"], target["boxes"].tolist(), strict=True):
            assert (coco.annToMask(one) == mask.numpy()).all()
            x, y, width, height = one["bbox"]
            assert [x, y, x + width, y + height] == box
        assert [bool(one["iscrowd"]) for one in entries] == target["iscrowd"].tolist()


def test_a_round_trip_through_coco_changes_nothing(tmp_path: Path) -> None:
    writer = CocoWriter(tmp_path, NAMES)
    for split in ("train", "test"):
        writer.write(split, SAMPLES)
    data = CocoDetection(root=str(tmp_path), val_fraction=0, masks=True)
    data.setup()
    read = data.annotated("test")
    assert data.facts["class_names"] == NAMES
    for index in range(len(SAMPLES)):
        (image, target), (again, found) = SAMPLES[index], read[index]
        assert torch.equal(image, again)
        for name, values in target.items():
            assert torch.equal(found[name].to(values.dtype), values), name


def test_yolo_lines_are_polygons_or_boxes(tmp_path: Path) -> None:
    for name, samples in (("polygons", SAMPLES), ("boxes", Squares(masks=False))):
        writer = YoloWriter(tmp_path / name, NAMES)
        writer.write("val", samples)
        assert writer.left_out == {"crowds": 4}
        assert 'val: images/val\nnames:\n  0: "one"\n' in (tmp_path / name / "data.yaml").read_text()
        image, target = samples[3]
        lines = (tmp_path / name / "labels" / "val" / "val-000003.txt").read_text().splitlines()
        kept = (~target["iscrowd"]).nonzero().flatten().tolist()
        assert [int(line.split()[0]) for line in lines] == kept
        for line, i in zip(lines, kept, strict=True):
            numbers = np.array(line.split()[1:], float).reshape(-1, 2) * [image.shape[2], image.shape[1]]
            low, high = numbers.min(0), numbers.max(0)
            if name == "boxes":
                low, high = numbers[0] - numbers[1] / 2, numbers[0] + numbers[1] / 2
            assert np.abs([*low, *high] - target["boxes"][i].numpy()).max() < 1e-4


def test_voc_files_count_from_one(tmp_path: Path) -> None:
    VocWriter(tmp_path, NAMES, "jpg").write("test", SAMPLES)
    _, target = SAMPLES[3]
    entries = ElementTree.parse(tmp_path / "Annotations" / "test-000003.xml").findall("object")
    assert [entry.findtext("name") for entry in entries] == NAMES
    assert [entry.findtext("difficult") == "1" for entry in entries] == target["iscrowd"].tolist()
    corners = [[float(c.text or "") for c in entry.find("bndbox") or ()] for entry in entries]
    assert corners == (target["boxes"] + torch.tensor([1.0, 1.0, 0.0, 0.0])).tolist()
    for folder in ("SegmentationObject", "SegmentationClass"):
        picture = Image.open(tmp_path / folder / "test-000003.png")
        assert picture.mode == "P"
        for i, mask in enumerate(target["masks"].numpy(), 1):
            assert (np.asarray(picture)[mask] == i).all()
    assert (tmp_path / "ImageSets" / "Main" / "test.txt").read_text().split()[3] == "test-000003"
    assert voc_palette()[3:6] == [128, 0, 0]
    assert voc_palette()[-3:] == [224, 224, 192]


def test_voc_files_with_masks_are_read_again(tmp_path: Path) -> None:
    """The masks beside ``JPEGImages`` are no further pictures."""
    VocWriter(tmp_path, NAMES).write("train", SAMPLES)
    data = DetectionFolder(root=str(tmp_path), val_fraction=0, test_fraction=0)
    data.setup()
    read = data.annotated("train")
    assert len(read) == len(SAMPLES)
    assert all(torch.equal(read[i][1]["boxes"], SAMPLES[i][1]["boxes"]) for i in range(len(SAMPLES)))


def test_voc_masks_hold_254_objects(tmp_path: Path) -> None:
    image, target = SAMPLES[3]
    many = {name: rows[:1].repeat(255, *[1] * (rows.dim() - 1)) for name, rows in target.items()}
    with pytest.raises(UserError, match="an indexed picture holds at most 254 objects"):
        VocWriter(tmp_path, NAMES).add("train", "1", image, many)


def test_yolo_names_are_plain_yaml(tmp_path: Path) -> None:
    names = ["кот", 'a "b": c', "\U0001f600", "no"]
    YoloWriter(tmp_path, names).write("train", SAMPLES)
    assert YoloSet(tmp_path).names == names


def test_scenes_are_exported_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--data.image_size", "64", "--data.train_size", "3", "--data.val_size", "0", "--data.test_size", "2"]
    out = tmp_path / "out"
    assert main(["export", "--data", "Scenes", *sizes, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"train: 3 pictures\nval: none\ntest: 2 pictures\ncoco  {out}\n"
    assert len(COCO(str(out / "annotations" / "instances_test.json")).imgs) == 2
    assert len(json.loads((out / "annotations" / "instances_train.json").read_text())["categories"]) == 13
    for argv, says in (
        (["--data", "Scenes"], "exists already, and nothing is overwritten"),
        (["--data", "MNIST5k"], "MNIST5k has neither boxes nor classes of pixels"),
    ):
        with pytest.raises(UserError, match=says):
            main(["export", *argv, "--out", str(out)])
    masks = ["export", "--data", "SceneMasks", *sizes, "--out", str(tmp_path / "masks")]
    with pytest.raises(UserError, match="classes of pixels can be written as voc only"):
        main(masks)
    assert main([*masks, "--format", "voc"]) == 0
