"""Pictures with masks: values and colours become classes, and what does not fit is said, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from zoo.data.mask_files import MaskTable
from zoo.data.mask_folder import MaskFolder, VOCSegmentation
from zoo.data.segmentation_files import chosen_pixels
from zoo.errors import UserError

ALONE: dict[str, Any] = {"val_fraction": 0, "test_fraction": 0, "augment": [], "image_size": 8}
CLASSES = np.array([[0, 1, 2, 255], [2, 2, 1, 0]], np.uint8).repeat(4, 0).repeat(3, 1)  # (8, 12)


def write(root: Path, name: str, mask: Image.Image, place: str = "") -> None:
    for kind, picture in (("images", Image.new("RGB", (12, 8), (90, 90, 90))), ("masks", mask)):
        (root / place / kind).mkdir(parents=True, exist_ok=True)
        picture.save(root / place / kind / f"{name}.png")


def colored(classes: Any) -> Image.Image:
    return Image.fromarray(
        np.array([[0, 0, 0], [128, 64, 128], [9, 8, 7], *[[224, 224, 192]] * 253], np.uint8)[classes]
    )


def indexed(classes: Any) -> Image.Image:
    made = Image.fromarray(classes, "P")
    made.putpalette([*range(255, -1, -1)] * 3)
    return made


def folder(root: Path, **arguments: Any) -> MaskFolder:
    data = MaskFolder(root=str(root), **{**ALONE, **arguments})
    data.setup("fit")
    return data


NAMES = ["sky", "road", "car"]
VALUES: dict[str, Any] = dict(zip(NAMES, (0, 1, 2), strict=True))
COLORS: dict[str, Any] = dict(zip(NAMES, ([0, 0, 0], [128, 64, 128], [9, 8, 7]), strict=True))


@pytest.mark.parametrize(
    ("mask", "arguments"),
    [
        (Image.fromarray(CLASSES), {"table": VALUES}),
        (indexed(CLASSES), {"table": VALUES}),
        (Image.fromarray(CLASSES).convert("RGB"), {"table": VALUES}),
        (
            Image.fromarray(CLASSES.astype(np.uint16) * 257),
            {"table": {"sky": 0, "road": 257, "car": 514}, "ignored": [65535]},
        ),
        (colored(CLASSES), {"table": COLORS, "ignored": [[224, 224, 192]]}),
        (colored(CLASSES).quantize(8), {"table": COLORS, "ignored": [[224, 224, 192]]}),
    ],
)
def test_every_kind_of_mask_gives_the_same_classes(mask: Any, arguments: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, "a", mask)
    data = folder(tmp_path, **arguments, augment=None)
    image, target = data.annotated("train")[0]
    assert image.shape == (3, 8, 12)
    assert torch.equal(target["mask"], torch.from_numpy(CLASSES))
    assert data.facts["class_names"] == NAMES
    assert data.facts["class_counts"] == [(label == CLASSES).sum() for label in range(3)]


def test_classes_are_chosen_and_merged() -> None:
    table = ["background", "car", "bus", "dog"]
    for classes, names, labels in (
        (None, table, [0, 1, 2, 3]),
        (["dog"], ["background", "dog"], [0, 0, 0, 1]),
        ({"vehicle": ["car", "bus"], "none": "background"}, ["vehicle", "none"], [1, 0, 0, 1]),
    ):
        made, new = chosen_pixels(table, classes)  # type: ignore[arg-type]
        assert (made, new.tolist()) == (names, labels)
    made, new = chosen_pixels(table[1:], ["dog"])
    assert (made, new.tolist()) == (["dog"], [255, 255, 0])


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"a": 0, "b": [1, 2, 3]}, "give each class one value, or each one red, green and blue"),
        ({"a": 1, "b": 1}, "two classes have the same value"),
        ({"a": [0, 0, 300]}, "a is .*, not a value from 0"),
    ],
)
def test_wrong_tables_are_one_line(table: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        MaskTable(table)
    assert int(MaskTable({"a": 0, "thing": 255}).classes[255]) == 1, "a class of 255 is not ignored"


def test_batches(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").parent.mkdir(exist_ok=True)
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    for part in ("train", "valid"):
        write(tmp_path, "a", Image.fromarray(CLASSES), part)
        write(tmp_path, "b", Image.fromarray(CLASSES[:, :6]), part)
        Image.new("RGB", (6, 8)).save(tmp_path / part / "images" / "b.png")
    data = folder(tmp_path, image_size=10, augment=None)
    images, masks = next(iter(data.val_dataloader()))
    assert images.shape == (2, 3, 10, 12), "padded to the largest, and to image_size"
    assert torch.equal(masks[0, :8], torch.from_numpy(CLASSES).long())
    assert (masks[0, 8:] == 255).all()
    assert (masks[1, :, 6:] == 255).all()
    assert not images[1, :, :, 6:].any()
    images, masks = next(iter(data.train_dataloader()))
    assert images.shape[2:] == masks.shape[1:] == (10, 10)
    whole = folder(tmp_path, image_size=4).annotated("train")[0]
    assert torch.equal(whole[1]["mask"], torch.from_numpy(CLASSES[1::2, 1::3])), "an empty augment resizes all of it"


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    write(tmp_path, "good", Image.fromarray(CLASSES))
    write(tmp_path, "value", Image.fromarray(CLASSES + 7))
    write(tmp_path, "size", Image.fromarray(CLASSES[:, :9]))
    write(tmp_path, "broken", Image.fromarray(CLASSES))
    (tmp_path / "masks" / "broken.png").write_bytes(b"no")
    write(tmp_path, "color", colored(CLASSES))
    with pytest.raises(UserError) as raised:
        folder(tmp_path, table=VALUES)
    message = str(raised.value)
    assert message.startswith("MaskFolder: 4 masks are wrong: ")
    for part in (
        "value.png has pixels of the value 6, the value 7, the value 8, the value 9, which is none of the 3 classes",
        "size.png has 9x8 pixels, its picture size.png has 12x8",
        "broken.png can't be read as a mask",
        "color.png can't be read as a mask: it is coloured: say by data.table",
    ):
        assert part in message
    (tmp_path / "masks" / "value.png").unlink()
    write(tmp_path, "x", Image.fromarray(CLASSES))
    (tmp_path / "images" / "x.png").unlink()
    with pytest.raises(
        UserError, match=r"2 masks are wrong: .*value.png: there is no mask .*; .*x.png: there is no picture"
    ):
        folder(tmp_path, table=VALUES)
    data = MaskFolder(root=str(tmp_path), table=VALUES, **ALONE)
    data.setup_to_check()
    assert len(data.check_samples("train")) == 5
    assert len(data.sample_pictures("train", 9)) == 1


def test_voc_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    data = VOCSegmentation(**{**VOCSegmentation.write_example(tmp_path), **ALONE})
    data.setup("fit")
    reference = datasets.VOCSegmentation(str(tmp_path), "2012", "train")
    samples = data.annotated("test"), datasets.VOCSegmentation(str(tmp_path), "2012", "val")
    assert len(data.annotated("train")) == len(reference)
    for index, (picture, mask) in enumerate(samples[1]):
        image, target = samples[0][index]
        assert torch.equal(image, torch.from_numpy(np.array(picture)).permute(2, 0, 1))
        assert torch.equal(target["mask"], torch.from_numpy(np.array(mask)))
        assert (target["mask"][0] == 255).all()
    assert data.facts["num_classes"] == 21
