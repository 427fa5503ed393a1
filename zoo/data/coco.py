"""COCO's instances, and own pictures that are annotated in the same format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from zoo.data.annotations import Annotations, Faults
from zoo.data.base import data_root
from zoo.data.coco_files import read_coco
from zoo.data.detection_files import DetectionFiles
from zoo.data.example_scenes import example_scene, write_picture
from zoo.data.images import Part
from zoo.data.part_files import Found, Sought, part_files

OTHERS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")  # COCO's files of other kinds
INSTANCES = Sought("annotations", "instances", OTHERS, published="annotations/instances_train2017.json")


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
    return part_files(root, INSTANCES, annotations)


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
