"""VOC's and YOLO's annotations: what is read is what their definitions say, and what is wrong is said, all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision import datasets

from zoo.data.annotations import Faults
from zoo.data.detection_folder import DetectionFolder
from zoo.data.voc import VOCDetection
from zoo.data.voc_files import read_voc
from zoo.data.yolo_files import read_yolo
from zoo.errors import UserError

ALONE: dict[str, Any] = {"val_fraction": 0, "test_fraction": 0, "augment": []}


def picture(path: Path, size: tuple[int, int] = (20, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 30)).save(path)
    return path


def thing(name: str, box: Any, more: str = "") -> str:
    ends = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><bndbox>{ends}</bndbox>{more}</object>"


def xml(path: Path, *objects: str, size: str = "<size><width>20</width><height>16</height></size>") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
    return path


def folder(root: Path, **arguments: Any) -> DetectionFolder:
    data = DetectionFolder(root=str(root), **{**ALONE, **arguments})
    data.setup("fit")
    return data


def test_voc_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    arguments = VOCDetection.write_example(tmp_path)
    data = VOCDetection(**{**arguments, **ALONE})
    data.setup("fit")
    crowds = 0
    for split, name in (("train", "train"), ("test", "val")):
        reference, samples = datasets.VOCDetection(str(tmp_path), "2012", name), data.samples(split)
        assert len(samples) == len(reference)
        for (image, target), (wanted, content) in zip(
            (samples[i] for i in range(len(samples))), reference, strict=True
        ):
            assert (image.shape[2], image.shape[1]) == wanted.size
            objects = content["annotation"].get("object", [])
            assert [data.class_names[label] for label in target["labels"]] == [one["name"] for one in objects]
            assert target["iscrowd"].tolist() == [one["difficult"] == "1" for one in objects]
            for box, one in zip(target["boxes"].tolist(), objects, strict=True):
                x1, y1, x2, y2 = (int(one["bndbox"][k]) for k in ("xmin", "ymin", "xmax", "ymax"))
                assert box == [x1 - 1, y1 - 1, x2, y2], "pixels are counted from 1, the last one is included"
            crowds += int(target["iscrowd"].sum())
    assert crowds > 0
    assert len(data.class_names) == 20
    assert "masks" not in target


def test_voc_names_the_set_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*VOC2007/ImageSets/Main/trainval.txt: unpack VOC 2007"):
        VOCDetection(root=str(tmp_path)).setup("fit")
    with pytest.raises(UserError, match="a year and the name of a list"):
        VOCDetection(root=str(tmp_path), train=["trainval"]).setup("fit")


def test_wrong_xml_is_said_at_once(tmp_path: Path) -> None:
    files = {
        "a": xml(
            tmp_path / "a.xml", thing("dog", (1, 1, 20, 16)), thing("cat", (1, 2, 3, 4)), thing("dog", (1, 1, 40, 9))
        ),
        "b": xml(tmp_path / "b.xml", thing("dog", (1, "x", 3, 4)), "<object><name>dog</name></object>", "<object/>"),
        "c": xml(tmp_path / "c.xml", thing("dog", (5, 5, 4, 9))),
        "e": tmp_path / "e.xml",
    }
    (tmp_path / "d.xml").write_text("<annotation>")
    files["d"] = tmp_path / "d.xml"
    faults = Faults()
    found = read_voc([(str(picture(tmp_path / f"{k}.png")), path) for k, path in files.items()], faults, ["dog"])
    wanted = [
        "a.xml: object 2: its class 'cat' is not declared: there are dog",
        "b.xml: object 1: ymin is 'x', not a number",
        "b.xml: object 2: it has no bndbox",
        "b.xml: object 3: it has no name",
        "e.xml: the file is missing",
        "d.xml: it is not XML: no element found",
        "a.xml: object 3: its box (x1 y1 x2 y2: 0, 0, 40, 9) is outside of the picture of 20x16 pixels",
        "c.xml: object 1: its box (x1 y1 x2 y2: 4, 4, 4, 9) has no area",
    ]
    assert len(faults.lines) == len(wanted)
    for line, part in zip(faults.lines, wanted, strict=True):
        assert line.startswith(f"{tmp_path}/{part}")
    assert found.boxes.tolist() == [[0, 0, 20, 16]]


def test_own_xml_beside_pictures_or_in_folders(tmp_path: Path) -> None:
    side = tmp_path / "side"
    for place in ("x", "y"):
        picture(side / place / "1.jpg")
        xml(side / place / "1.xml", thing(f"on {place}", (2, 2, 9, 9)), size="")
    picture(side / "none.jpg")
    data = folder(side)
    assert data.class_names == ["on x", "on y"]
    samples = data.samples("train")
    labels = {Path(samples.path(i)).parent.name: samples[i][1]["labels"].tolist() for i in range(3)}
    assert labels == {"side": [], "x": [0], "y": [1]}
    assert "3 train pictures (1 without) with 2 objects" in data.summary()
    apart = tmp_path / "apart"
    for name, part in (("1", "train"), ("2", "val")):
        picture(apart / "JPEGImages" / f"{name}.jpg")
        xml(apart / "Annotations" / f"{name}.xml", thing("dog", (2, 2, 9, 9)))
        listed = apart / "ImageSets" / "Main" / f"{part}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text(f"{name}\n")
    data = folder(apart)
    assert [Path(data.annotated(split).path(0)).stem for split in ("train", "val")] == ["1", "2"]
    xml(apart / "Annotations" / "3.xml", thing("dog", (2, 2, 9, 9)))
    (apart / "ImageSets" / "Main" / "train.txt").write_text("1\n3\n4\n")
    with pytest.raises(
        UserError, match=r"3.xml: its picture is missing; .*the picture 4, which a list names, is missing"
    ):
        folder(apart)


def yolo(root: Path, lines: dict[str, str], names: str = "[car, dog]") -> Path:
    for name, text in lines.items():
        picture(root / "images" / f"{name}.png")
        path = root / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "data.yaml").write_text(f"train: images\nnames: {names}\n")
    return root


def test_yolo_boxes_and_polygons(tmp_path: Path) -> None:
    root = yolo(tmp_path, {"1": "1 0.5 0.5 0.2 0.25\n\n0 0.1 0.125 0.6 0.125 0.6 0.75\n", "2": ""})
    picture(root / "images" / "3.png")
    data = folder(root, masks=False)
    target = data.samples("train")[0][1]
    torch.testing.assert_close(target["boxes"], torch.tensor([[8.0, 6, 12, 10], [2, 2, 12, 12]]))
    assert target["labels"].tolist() == [1, 0]
    assert "area" not in target
    assert "3 train pictures (2 without) with 2 objects" in data.summary()
    data = folder(yolo(tmp_path / "polygons", {"1": "0 0.1 0.125 0.6 0.125 0.6 0.75 0.1 0.75"}))
    mask = data.samples("train")[0][1]["masks"][0]
    assert mask[2:12, 2:12].all()
    assert int(mask.sum()) == 100


def test_wrong_lines_are_said_at_once(tmp_path: Path) -> None:
    root = yolo(
        tmp_path, {"1": "2 .5 .5 .1 .1\n0 .5 .5 .1\n0 a .5 .1 .1\n0 .9 .5 .4 .1\n0.5 .5 .5 .1 .1\n1 .5 .5 0 .1"}
    )
    faults = Faults()
    read_yolo([str(root / "images" / "1.png")], ["car", "dog"], faults)
    wanted = [
        "line 1: its class 2 is not declared: there are 0 to 1",
        "line 2: it has 4 numbers: expected a class and the 4 of a box or x y x y … of a polygon",
        "line 3: 'a' is not a number",
        "line 5: its class 0.5 is not declared: there are 0 to 1",
        "line 4: its box (x1 y1 x2 y2: 0.7, 0.45, 1.1, 0.55) is outside of the picture (in fractions of it)",
        "line 6: its box (x1 y1 x2 y2: 0.5, 0.45, 0.5, 0.55) has no area",
    ]
    assert faults.lines == [f"{root / 'labels' / '1.txt'}: {line}" for line in wanted]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("names: !!python/object/apply:os.system ['true']", "can't be read as plain YAML"),
        ("names: {0: car, 2: dog}", "names must be the list of the classes"),
        ("names: {0: car, x: dog}", "names must be the list of the classes"),
        ("names: [car]\ntrain: 3", "train must be a folder, a list of pictures, or several of these"),
        ("names: [car]\ntrain: images/1.png", "1.png is neither a folder nor a list of pictures"),
        ("[1, 2]", "expected a mapping with names"),
        ("names: [car]\ntrain: nowhere", "there is no .*nowhere"),
    ],
)
def test_wrong_data_yaml_is_one_line(content: str, says: str, tmp_path: Path) -> None:
    yolo(tmp_path, {"1": ""})
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(UserError, match=says):
        folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "place", "label"),
    [
        ("names: {0: car, 1: dog}\npath: PATH\ntrain: images/train\nval: images/val", "images/{part}", "labels/{part}"),
        ("names: [car, dog]\ntrain: ../train/images\nval: ../val/images", "{part}/images", "{part}/labels"),
        ("names: [car, dog]\ntrain: train.txt\nval: val.txt", "pics", "pics"),
        (None, "images/{part}", "labels/{part}"),
        (None, "{part}", "{part}"),
    ],
)
def test_yolo_layouts(content: str | None, place: str, label: str, tmp_path: Path) -> None:
    for part in ("train", "val"):
        picture(tmp_path / place.format(part=part) / f"{part}.png")
        path = tmp_path / label.format(part=part) / f"{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1 .5 .5 .5 .5")
        (tmp_path / f"{part}.txt").write_text(f"{place}/{part}.png\n")
    if content is None:
        (tmp_path / "classes.txt").write_text("car\ndog\n")
        for part in ("train", "val"):
            (tmp_path / f"{part}.txt").unlink()
    else:
        (tmp_path / "data.yaml").write_text(content.replace("PATH", str(tmp_path)))
    data = folder(tmp_path, masks=False)
    for split in ("train", "val"):
        samples = data.annotated(split)
        assert [Path(samples.path(i)).stem for i in range(len(samples))] == [split]
        assert samples[0][1]["labels"].tolist() == [1]


def test_the_format_is_found_or_missed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist: give the data.s folder by --data.root"):
        folder(tmp_path / "no")
    picture(tmp_path / "1.png")
    with pytest.raises(UserError, match="holds no annotations: expected COCO's JSON, VOC's XML files, or YOLO's"):
        folder(tmp_path)
    image = {"id": 1, "file_name": "1.png", "width": 20, "height": 16}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "some.json").write_text(json.dumps(content))
    assert folder(tmp_path, masks=False).samples("train")[0][1]["boxes"].tolist() == [[1, 2, 4, 6]]
