"""COCO's instances, and own pictures that are annotated in the same format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from zoo.data.annotations import Annotations, Faults
from zoo.data.base import data_root
from zoo.data.coco_files import read_coco
from zoo.data.detection_files import PARTS, DetectionFiles
from zoo.data.example_scenes import example_scene, write_picture
from zoo.data.images import Part
from zoo.data.scan import PARTS as PART_NAMES
from zoo.errors import UserError

OTHERS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")  # COCO's files of other kinds
Found = dict[Part, tuple[Path, list[Path]]]
"""For each part its JSON file, and the folders in which the pictures may be."""


class CocoDetection(DetectionFiles):
    """COCO (118,287 and 5,000 photographs in 80 classes), or own pictures annotated in COCO's format.

    The published files are expected in ``root`` as ``annotations/instances_train2017.json``,
    ``annotations/instances_val2017.json``, ``train2017/`` and ``val2017/``. They are not downloaded (19 GB, from
    cocodataset.org). The test part is val2017, for which papers state their results, since the published test has no
    annotations; validation is held out of training.

    Own pictures: ``annotations`` names the JSON file, or one for each part. Otherwise a file whose name contains
    ``train`` (and ``val``, ``test``) is found by itself in ``root``, ``annotations`` or a folder of that part; so is
    the only JSON file. Pictures are found by their ``file_name`` in the part's folder, ``root``, ``images`` or beside
    the file.

    Args:
        root: the folder; default: ``coco`` in the environment variable ``ZOO_DATA``'s folder, else in ``data``.
        annotations: JSON file of all pictures, or of each part (``train``, ``val``, ``test``), below ``root`` or not.
        kwargs: as for every data set of picture files with boxes.
    """

    licence: ClassVar[str] = "annotations CC BY 4.0 (COCO Consortium); the photographs are their owners' (Flickr)"
    about: ClassVar[str] = "80 classes, 860,001 objects in 118,287 photographs to train, 36,781 in 5,000 to test"
    example: ClassVar[dict[str, Any]] = {"batch_size": 4, "val_fraction": 0.2}

    def __init__(self, root: str | None = None, annotations: str | dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = (data_root(root) if root else data_root(None) / "coco").expanduser()
        self.annotations = annotations
        self._found: Found = {}

    def read(self, part: Part, names: Sequence[str] | None, faults: Faults) -> Annotations | None:
        """A JSON file."""
        if part == "train":
            self._found = coco_parts(self.root, self.annotations)
        if part not in self._found:
            return None
        path, folders = self._found[part]
        return read_coco(path, folders, faults, names)

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Ten small photographs to train on and five for the test, in the published layout."""
        for part, numbers in (("train2017", range(10)), ("val2017", range(10, 15))):
            write_coco_example(root / "annotations" / f"instances_{part}.json", root / part, numbers)
        return {**cls.example, "root": str(root)}


def coco_parts(root: Path, annotations: str | Mapping[str, str] | None = None) -> Found:
    """The JSON files of a folder, by part.

    Args:
        root: the folder.
        annotations: files that the user named, by part, or one for all.

    Raises:
        UserError: there is none, or several of one part.
    """
    if not root.is_dir():
        raise UserError(f"the folder {root} does not exist: give the data's folder by --data.root")
    if annotations is not None:
        given = {"train": annotations} if isinstance(annotations, str) else annotations
        if "train" not in given or (unknown := set(given) - set(PARTS)):
            wrong = f", not {sorted(unknown)[0]}" if "train" in given else ""
            raise UserError(f"data.annotations names files of train, and perhaps of val and test{wrong}")
        paths = {part: _named(root, given[part]) for part in PARTS if part in given}
    else:
        paths = _found_files(root)
    return {part: (path, _picture_folders(root, path, part)) for part, path in paths.items()}


def _named(root: Path, name: str) -> Path:
    path = Path(name).expanduser()
    return path if path.is_absolute() or path.is_file() else root / path


def _found_files(root: Path) -> dict[Part, Path]:
    files = [path for folder in _searched(root) for path in sorted(folder.glob("*.json")) if _is_candidate(path)]
    found: dict[Part, Path] = {}
    for part in PARTS:
        matching = [path for path in files if part in (_part_of(path.stem), _folder_part(root, path))]
        instances = [path for path in matching if path.stem.startswith("instances")]
        if len(some := instances or matching) > 1:
            raise UserError(
                f"{root}: {some[0]} and {some[1]} are both of the {part} part: name one by data.annotations"
            )
        if some:
            found[part] = some[0]
    if "train" not in found and len(files) == 1:
        return {"train": files[0]}
    if "train" not in found:
        what = f"{len(files)} JSON files, and none is called train" if files else "no annotations"
        raise UserError(
            f"{root} has {what}: expected {root / 'annotations' / 'instances_train2017.json'}, or name your file by "
            "--data.annotations"
        )
    if "val" in found and "test" not in found and re.search(r"val20\d\d$", found["val"].stem):
        found["test"] = found.pop("val")
    return found


def _folder_part(root: Path, path: Path) -> Part | None:
    return None if path.parent == root else _part_of(path.parent.name)


def _searched(root: Path) -> list[Path]:
    folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _part_of(folder.name)]
    return [root / "annotations", root, *folders]


def _is_candidate(path: Path) -> bool:
    return path.is_file() and not path.name.startswith((".", *OTHERS))


def _part_of(name: str) -> Part | None:
    """The part that a file's or folder's name contains as a word, perhaps with a year."""
    words = {re.sub(r"\d{4}$", "", word) for word in re.split(r"[_.\- ]+", name.lower())}
    return next((part for part in PARTS if words & set(PART_NAMES[part])), None)


def _picture_folders(root: Path, path: Path, part: Part) -> list[Path]:
    """Where the pictures of a JSON file may be, the likeliest first."""
    own = [root / word for word in re.split(r"[_.\- ]+", path.stem)]
    own += [folder for folder in (*sorted(root.iterdir()), *_inside(root / "images")) if _part_of(folder.name) == part]
    own += [folder / "images" for folder in own]
    places = [*own, root, root / "images", path.parent, path.parent / "images"]
    return list(dict.fromkeys(place for place in places if place.is_dir()))


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def write_coco_example(path: Path, folder: Path, numbers: Sequence[int]) -> None:
    """Scenes as small photographs and a JSON file; every fifth has none but a crowd, given by run lengths."""
    images, annotations = [], list[dict[str, Any]]()
    for number in numbers:
        scene = example_scene(number)
        name = f"{number:012}.png"
        write_picture(folder / name, scene)
        height, width = scene.pixels.shape[:2]
        images.append({"id": number + 100, "file_name": name, "height": height, "width": width})
        for label, (x1, y1, x2, y2) in zip(scene.labels, scene.boxes, strict=True):
            crowd = number % 5 == 4
            runs = {"size": [height, width], "counts": _runs(height, width, (x1, y1, x2, y2))}
            polygon = [float(v) for v in (x1, y1, x2, y1, x2, y2, x1, y2)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 100,
                    "category_id": (3, 7)[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(crowd),
                    "segmentation": runs if crowd else [polygon],
                }
            )
    categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content), encoding="utf-8")


def _runs(height: int, width: int, box: tuple[int, int, int, int]) -> list[int]:
    """Run lengths of a box, column by column."""
    x1, y1, x2, y2 = box
    counts = [x1 * height + y1]
    for _ in range(x2 - x1):
        counts += [y2 - y1, height - (y2 - y1)]
    counts[-1] = (width - x2) * height + height - y2
    return counts
