"""COCO's instances: what is read equals pycocotools' reading, and what is wrong is said, all at once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from zoo.cli.data import main
from zoo.data import json_stream
from zoo.data.annotations import Faults
from zoo.data.coco import CocoDetection
from zoo.data.coco_files import read_coco
from zoo.data.json_stream import json_members
from zoo.errors import UserError

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 7, "name": "background"}]
TRIANGLE = [2.5, 1.25, 17.7, 3.3, 9.01, 14.6]


def image(number: int, name: str = "", size: tuple[int, int] = (20, 16)) -> dict[str, Any]:
    return {"id": number, "file_name": name or f"{number}.png", "width": size[0], "height": size[1]}


def annotation(number: int, of: int, box: Any = (2, 1, 10, 8), category: int = 18, **more: Any) -> dict[str, Any]:
    made = {"id": number, "image_id": of, "bbox": list(box), "category_id": category, "iscrowd": 0, "area": 50.5}
    return {**made, "segmentation": [TRIANGLE], **more}


def write(folder: Path, images: list[Any], annotations: list[Any], name: str = "mine.json", **more: Any) -> Path:
    """A JSON file, and a picture for each of its images that has none."""
    for one in images:
        path = folder / one["file_name"]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (one["width"], one["height"]), (200, 30, 30)).save(path)
    path = folder / name
    path.write_text(json.dumps({"annotations": annotations, "images": images, "categories": CATEGORIES, **more}))
    return path


def own(folder: Path, **arguments: Any) -> CocoDetection:
    settings = {"val_fraction": 0, "test_fraction": 0, "augment": [], **arguments}
    data = CocoDetection(root=str(folder), **settings)
    data.setup("fit")
    return data


def test_masks_and_boxes_are_those_of_pycocotools(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    blob = (draw.random((16, 20)) > 0.6).astype(np.uint8)
    compressed = coco_mask.encode(np.asfortranarray(blob))
    plain = [len(run) for run in _runs_of(blob.T.ravel())]
    annotations = [
        annotation(1, 6, (2.5, 1.25, 15.2, 13.35)),
        annotation(2, 5, segmentation=[TRIANGLE, [0, 0, 4.5, 0, 4.5, 4.5, 0, 4.5]]),
        annotation(3, 6, category=3, segmentation={"size": [16, 20], "counts": compressed["counts"].decode()}),
        annotation(4, 5, iscrowd=1, segmentation={"size": [16, 20], "counts": plain}),
    ]
    path = write(tmp_path, [image(5), image(6), image(9)], annotations)
    reference, samples = COCO(str(path)), own(tmp_path).samples("train")
    assert len(samples) == 3
    for index, number in enumerate((5, 6, 9)):
        pixels, target = samples[index]
        wanted = reference.imgToAnns[number]
        assert pixels.shape == (3, 16, 20)
        assert target["labels"].tolist() == [{3: 0, 18: 1}[one["category_id"]] for one in wanted]
        assert target["iscrowd"].tolist() == [bool(one["iscrowd"]) for one in wanted]
        assert target["area"].tolist() == [one["area"] for one in wanted]
        for mask, box, one in zip(target["masks"], target["boxes"], wanted, strict=True):
            assert torch.equal(mask, torch.from_numpy(reference.annToMask(one)).bool())
            x, y, width, height = one["bbox"]
            assert box.tolist() == pytest.approx([x, y, x + width, y + height])
    assert target["masks"].shape == (0, 16, 20)
    assert target["boxes"].shape == (0, 4)


def _runs_of(values: np.ndarray) -> list[np.ndarray]:
    """Runs of equal values, beginning with zeros."""
    runs = np.split(values, np.flatnonzero(np.diff(values)) + 1)
    return [np.zeros(0), *runs] if values[0] else runs


def test_facts_and_classes(tmp_path: Path) -> None:
    annotations = [annotation(1, 5), annotation(2, 5, category=3), annotation(3, 6, category=7)]
    annotations.append(annotation(4, 6, category=3, iscrowd=1))
    write(tmp_path, [image(5), image(6)], annotations)
    data = own(tmp_path)
    assert data.facts["class_names"] == ["car", "dog"], "a background class is no class"
    assert data.facts["class_counts"] == [1, 1], "crowds are not counted"
    assert "left out: objects of other classes (1)" in data.summary()
    for classes, names, counts in (
        (["dog"], ["dog"], [1]),
        ({"thing": ["dog", "car"]}, ["thing"], [2]),
        ({"pet": "dog", "vehicle": ["car"]}, ["pet", "vehicle"], [1, 1]),
    ):
        found = own(tmp_path, classes=classes).facts
        assert (found["num_classes"], found["class_names"], found["class_counts"]) == (len(names), names, counts)
    assert len(own(tmp_path, classes=["dog"]).samples("train")) == 2, "pictures without objects stay"
    assert len(own(tmp_path, classes=["dog"], without_objects=False).samples("train")) == 1


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (["dgo"], "data.classes: the data has no class 'dgo'.*dog"),
        ({"a": ["dog"], "b": ["dog", "car"]}, "'dog' is in 'a' and in 'b'"),
        (["dog", "dog"], "names 'dog' twice"),
        ({"a": []}, "'a' stands for no class"),
    ],
)
def test_wrong_classes_are_one_line(classes: Any, says: str, tmp_path: Path) -> None:
    write(tmp_path, [image(5)], [annotation(1, 5)])
    with pytest.raises(UserError, match=says):
        own(tmp_path, classes=classes)


def wrong_file(folder: Path) -> Path:
    """A file in which everything is wrong that can be, and one annotation that is right."""
    images = [image(5), image(6), image(6, "other.png"), image(8, "gone.png"), image(11)]
    images += [{"id": "x", "file_name": "5.png", "width": 20, "height": 16}]
    images += [{"id": 12, "file_name": "5.png", "width": 0, "height": 16}]
    runs = {"size": [20, 16], "counts": [320]}
    annotations = [
        annotation(1, 5),
        annotation(2, 5, category=99),
        annotation(3, 77),
        annotation(4, 5, (15, 1, 10, 8)),
        annotation(5, 5, (2, 1, 0, 8)),
        annotation(6, 5, segmentation=runs),
        annotation(7, 5),
        annotation(7, 5),
        annotation(8, 5, (1, 2, 3)),
        annotation(9, 5, [1, 2, float("nan"), 4]),
        annotation(10, 5, segmentation=[[1, 2, 3, 4]]),
        annotation(11, 5, segmentation=[[1, 2, 3, 4, 900, 6]]),
        annotation(12, 5, segmentation={"size": [16, 20], "counts": [9]}),
        annotation(13, 5, "abcd"),
        annotation(14, 8),
        {"id": 15, "image_id": 5, "category_id": 18, "segmentation": []},
        "no object",
    ]
    path = write(folder, images, annotations, categories=[*CATEGORIES, {"id": 3, "name": "bus"}])
    (folder / "gone.png").unlink()
    return path


WRONG = [
    "an entry of annotations is 'no object', not an object",
    "annotation 8: not enough values to unpack",
    "annotation 10: a polygon has 4 numbers",
    "annotation 12: its run lengths do not add up to the 320 pixels of 20x16",
    "annotation 13: its id, image_id and category_id must be integers, its bbox four numbers",
    "annotation 15: it has no bbox",
    "image 8: its file",
    "image x: it needs an id, which is an integer, and a file_name",
    "image 12: it needs a height and a width, not 16 and 0",
    "category 3: car has this id, too",
    "2 annotations have the id 7",
    "2 images have the id 6",
    "annotation 3: its image_id 77 is not among the images",
    "annotation 2: its category_id 99 is not among the categories",
    "annotation 4 (image 5, 5.png): its box (x1 y1 x2 y2: 15, 1, 25, 9) is outside of the picture of 20x16 pixels",
    "annotation 9 (image 5, 5.png): its box (x1 y1 x2 y2: 1, 2, nan, 6) is not of finite numbers",
    "annotation 11 (image 5, 5.png): its outline (x1 y1 x2 y2: 1, 2, 900, 6) is outside of the picture",
    "annotation 6 (image 5, 5.png): its mask is 16x20 pixels, the picture 20x16",
    "annotation 5 (image 5, 5.png): its box (x1 y1 x2 y2: 2, 1, 2, 9) has no area",
]


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path, faults = wrong_file(tmp_path), Faults()
    found = read_coco(path, [tmp_path], faults)
    lines = faults.lines
    assert all(line.startswith(str(path)) for line in lines)
    missing = [wanted for wanted in WRONG if not any(wanted in line for line in lines)]
    assert not missing, lines
    assert len(lines) == len(WRONG)
    assert (faults.count, faults.count_empty) == (len(WRONG) - 1, 1)
    assert found.counts.tolist()[0] == 3, "annotations 1, 7 and 7"
    with pytest.raises(UserError) as raised:
        own(tmp_path)
    message = str(raised.value)
    assert message.startswith("CocoDetection: 18 annotations are wrong: ")
    assert "; and 8 more (`zoo data check` lists them); repair them, or" in message
    assert "\n" not in message
    data = own(tmp_path, skip_wrong=True)
    assert "left out: objects without area (1), wrong annotations (18)" in data.summary()


def test_objects_without_area_end_no_run(tmp_path: Path) -> None:
    write(tmp_path, [image(5)], [annotation(1, 5), annotation(2, 5, (3, 3, 0, 4)), annotation(3, 5, (-0.6, 1, 21, 3))])
    data = own(tmp_path)
    boxes = data.samples("train")[0][1]["boxes"]
    assert boxes.tolist() == [[2, 1, 12, 9], [0, 1, 20, 4]], "a box may stick out by a pixel, and is clipped"
    data.setup_to_check()
    assert [line.partition(": ")[2] for line in data.check_samples("train")] == [
        "annotation 2 (image 5, 5.png): its box (x1 y1 x2 y2: 3, 3, 3, 7) has no area"
    ]


def test_pictures_of_another_size_are_found(tmp_path: Path) -> None:
    for number in (5, 6):
        turned = Image.Exif()
        turned[0x0112] = 6  # displayed as 16x20
        Image.new("RGB", (20, 16)).save(tmp_path / f"{number}.jpg", exif=turned)
    images = [image(5, "5.jpg"), image(6, "6.jpg", (16, 20)), image(7)]
    write(tmp_path, images, [annotation(1, 5), annotation(2, 6, segmentation=[]), annotation(3, 7)])
    data = own(tmp_path, masks=False)
    samples = data.samples("train")
    assert samples[0][0].shape == (3, 16, 20), "annotated without the rotation"
    assert samples[1][0].shape == (3, 20, 16), "annotated as displayed"
    Image.new("RGB", (30, 16)).save(tmp_path / "7.png")
    with pytest.raises(UserError, match=r"7\.png has 30x16 pixels, but its annotations are for 20x16"):
        samples[2]


def test_resizing_moves_boxes_masks_and_areas(tmp_path: Path) -> None:
    write(tmp_path, [image(5)], [annotation(1, 5, segmentation=[[2, 1, 12, 1, 12, 9, 2, 9]])])
    for arguments, size, (sx, sy) in (
        ({"max_size": 10}, (8, 10), (0.5, 0.5)),
        ({"image_size": 40}, (40, 40), (2, 2.5)),
    ):
        data = own(tmp_path, **arguments)
        pixels, target = data.samples("train")[0]
        assert pixels.shape[1:] == target["masks"].shape[1:] == size
        assert target["boxes"].tolist() == [[2 * sx, 1 * sy, 12 * sx, 9 * sy]]
        assert target["area"].item() == pytest.approx(50.5 * sx * sy)
        rows, columns = target["masks"][0].nonzero().T
        assert [int(columns.min()), int(columns.max()) + 1] == pytest.approx([2 * sx, 12 * sx], abs=0.5)
        assert [int(rows.min()), int(rows.max()) + 1] == pytest.approx([1 * sy, 9 * sy], abs=0.5)
        assert data.facts.get("image_size") == ([40, 40] if "image_size" in arguments else None)
    assert own(tmp_path, max_size=30).samples("train")[0][0].shape == (3, 16, 20), "smaller ones stay"


def test_training_flips_by_default(tmp_path: Path) -> None:
    write(tmp_path, [image(5)], [annotation(1, 5)])
    samples = own(tmp_path, augment=None).samples("train")
    found = set()
    for seed in range(8):
        torch.manual_seed(seed)
        found.add(tuple(samples[0][1]["boxes"][0, ::2].tolist()))
    assert {round(x) for x, _ in found} == {2, 8}
    assert own(tmp_path, augment=None, mirror=False).augment == []


def test_masks_are_drawn_if_the_task_wants_them(tmp_path: Path) -> None:
    write(tmp_path, [image(5), image(6)], [annotation(1, 5), annotation(2, 6, segmentation=[])])
    data = own(tmp_path)
    assert "masks" not in data.samples("train")[0][1], "an object has none"
    for form, has in (("detection", False), ("instance_segmentation", True)):
        data = CocoDetection(root=str(tmp_path), val_fraction=0, test_fraction=0)
        trainer: Any = SimpleNamespace(lightning_module=SimpleNamespace(batch=form))
        data.trainer = trainer
        if has:
            with pytest.raises(
                UserError, match=r"1 objects have no outline, .* \(the first is in .*6.png\): train a task on"
            ):
                data.setup("fit")
            write(tmp_path, [image(5), image(6)], [annotation(1, 5)])
            data._parts = {}
        data.setup("fit")
        assert ("masks" in data.samples("train")[0][1]) is has


def names(data: CocoDetection, split: Any) -> list[str]:
    samples = data.annotated(split)
    return [] if samples is None else [str(Path(samples.path(i)).relative_to(data.root)) for i in range(len(samples))]


@pytest.mark.parametrize(
    ("files", "pictures"),
    [
        ({"train": "annotations/instances_train2017.json", "test": "annotations/instances_val2017.json"}, "{p}2017"),
        ({"train": "train/_annotations.coco.json", "val": "valid/_annotations.coco.json"}, ""),
        ({"train": "annotations/instances_train.json", "val": "annotations/instances_val.json"}, "images/{p}"),
        ({"train": "result.json"}, "images"),
        ({"train": "annotations/instances_default.json"}, ""),
    ],
)
def test_layouts(files: dict[str, str], pictures: str, tmp_path: Path) -> None:
    wanted = {}
    for split, name in files.items():
        part = "val" if "val2017" in name else split
        folder = tmp_path / pictures.format(p=part) if pictures else (tmp_path / name).parent
        folder.mkdir(parents=True, exist_ok=True)
        made = write(folder, [image(5)], [annotation(1, 5)])
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        made.rename(target)
        wanted[split] = [str((folder / "5.png").relative_to(tmp_path))]
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    data = own(tmp_path)
    assert {split: names(data, split) for split in files} == wanted
    assert [split for split in ("train", "val", "test") if data.annotated(split) is not None] == list(files)


def test_parts_are_named_or_held_out(tmp_path: Path) -> None:
    write(tmp_path, [image(i) for i in range(20)], [annotation(1, 5)], "a.json")
    write(tmp_path, [image(5)], [annotation(1, 5)], "b.json")
    with pytest.raises(UserError, match="has 2 JSON files, and none is called train"):
        own(tmp_path)
    data = own(tmp_path, annotations={"train": "a.json", "val": str(tmp_path / "b.json"), "test": "a.json"})
    assert [len(names(data, split)) for split in ("train", "val", "test")] == [20, 1, 20]
    data = own(tmp_path, annotations="a.json", val_fraction=0.25, test_fraction=0.2)
    parts = [names(data, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [12, 4, 4]
    assert len({name for part in parts for name in part}) == 20
    again = own(tmp_path, annotations="a.json", val_fraction=0.25, test_fraction=0.2)
    assert parts == [names(again, split) for split in ("train", "val", "test")]
    with pytest.raises(UserError, match=r"data.val_fraction: 0.5 of 1 pictures is none"):
        own(tmp_path, annotations="b.json", val_fraction=0.5)


def test_a_class_that_the_training_part_lacks_is_wrong(tmp_path: Path) -> None:
    write(tmp_path, [image(5)], [annotation(1, 5)], "train.json")
    cats = [{"id": 1, "name": "dog"}, {"id": 2, "name": "fish"}]
    boxes = [annotation(1, 5, category=1), annotation(2, 5, category=2)]
    write(tmp_path, [image(5)], boxes, "val.json", categories=cats)
    with pytest.raises(UserError, match=r"val\.json: annotation 2: its class 'fish' is not one of the training part"):
        own(tmp_path)
    target = own(tmp_path, skip_wrong=True).samples("val")[0][1]
    assert target["labels"].tolist() == [1], "classes are matched by name"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"images": [{"id": 1,]}', "is not valid JSON at character 21: "),
        ('{"images": [] "a"', "is not valid JSON at character 14: expected a comma or }"),
        ('{"images": [], "categories": [', "is not valid JSON at character 30"),
        ("[1, 2]", r"expected a JSON object \({…}\)"),
        ("", r"expected a JSON object \({…}\)"),
        ('{"annotations": []}', "has no images and no categories: expected instances in COCO's format"),
        ('{"images": [' + "[" * 100_000, "nested too deeply"),
        ('{"images": []} x', "expected nothing behind the object"),
    ],
)
def test_files_that_are_no_instances_are_one_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(UserError, match=says):
        own(tmp_path)
    (tmp_path / "mine.json").write_bytes(b"{\xff")
    with pytest.raises(UserError, match=r"mine\.json is not JSON: it is not UTF-8 text"):
        own(tmp_path)


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_json_is_read_in_pieces_of_any_size(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    content = {"a": 12345, "b": [1.5, {"c": [True, None]}, 'ü\n"]'], "e": [], "f": {"g": [1, 2]}, "h": -1e-7}
    (tmp_path / "some.json").write_text("\ufeff" + json.dumps(content, indent=1) + "\n", encoding="utf-8")
    found: dict[str, Any] = {}
    for key, value in json_members(tmp_path / "some.json"):
        if isinstance(content[key], list):
            found.setdefault(key, []).append(value)
        else:
            found[key] = value
    assert {**found, "e": []} == content


def test_the_check_says_all_and_draws_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, [image(5), image(6)], [annotation(1, 5), annotation(2, 6, category=3, iscrowd=1), annotation(3, 9)])
    argv = ["check", "--data", "CocoDetection", "--data.root", str(tmp_path), "--page", "page.png"]
    parts = ["--data.val_fraction", "0", "--data.test_fraction", "0"]
    assert main([*argv, *parts]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"train: {tmp_path / 'mine.json'}: annotation 3: its image_id 9 is not among the images" in lines
    assert "train: 2 samples, 1 problem" in lines
    assert [line.split() for line in lines if line.startswith("  car") or line.startswith("  dog")] == [
        ["car", "0", "1", "1"],
        ["dog", "1", "1", "0"],
    ]
    assert "  objects in a picture: 1 to 1, on average 1.0" in lines
    assert "  sizes of boxes: 100 % small (below 32x32 pixels), 0 % medium, 0 % large (from 96x96)" in lines
    assert "  width to height of boxes: median 1.25, 90 % from 1.25 to 1.25" in lines
    assert Image.open("page.png").width > 400


def test_damaged_run_lengths_and_what_export_leaves_out_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the first picture is damaged, which augmentation would be tried on."""
    draw = np.random.default_rng(0)
    for side in (3, 40):
        blob = np.asfortranarray(draw.random((side, side)) > 0.5).astype(np.uint8)
        damaged = annotation(1, 5, segmentation={"size": [16, 20], "counts": coco_mask.encode(blob)["counts"].decode()})
        write(tmp_path, [image(5)], [damaged], f"{side}.json")
        with pytest.raises(UserError, match="the run lengths of a mask of 20x16 pixels are damaged"):
            own(tmp_path, annotations=f"{side}.json", masks=True).samples("train")[0]
        (tmp_path / f"{side}.json").unlink()
    write(tmp_path, [image(5), image(6)], [damaged, annotation(2, 6), annotation(3, 6, (0, 0, 99, 9))])
    options = ["--data", "CocoDetection", "--data.root", str(tmp_path), "--data.masks", "true"]
    options += ["--data.val_fraction", "0", "--data.test_fraction", "0"]
    assert main(["check", *options]) == 1
    said = capsys.readouterr().out
    assert "5.png: the run lengths of a mask of 20x16 pixels are damaged" in said
    assert "annotation 3" in said
    boxes = [*options[:-6], *options[-4:], "--data.masks", "false"]
    assert main(["export", *boxes, "--out", str(tmp_path / "out")]) == 0
    assert "left out: wrong annotations (1)" in capsys.readouterr().out
