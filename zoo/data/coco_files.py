"""COCO's instances: JSON with images, annotations and categories.

Lin et al., "Microsoft COCO: Common Objects in Context", 2014; the format as published at cocodataset.org. A file is
read in pieces, so that hundreds of thousands of pictures take little memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.annotations import Annotations, Builder, Faults
from zoo.data.json_stream import json_members
from zoo.data.picture_places import PicturePlaces
from zoo.errors import UserError

LISTS = ("images", "annotations", "categories")


def read_coco(path: Path, folders: Sequence[Path], faults: Faults, names: Sequence[str] | None = None) -> Annotations:
    """The annotations of a JSON file.

    Args:
        path: the file.
        folders: the pictures may be in any of them.
        faults: receives what is wrong with entries, which are left out.
        names: the classes, if another part has set them; by default the file's categories in the order of their ids.

    Raises:
        UserError: the file can't be read, or is of another kind.
    """
    return _CocoFile(path, folders, faults).read(names)


class _CocoFile:
    def __init__(self, path: Path, folders: Sequence[Path], faults: Faults) -> None:
        self.path, self.faults = path, faults
        self.pictures = PicturePlaces(folders)
        self.builder = Builder(faults)
        self.image_ids: list[int] = []
        self.left_out: list[int] = []
        self.categories: dict[int, str] = {}
        self.annotation_ids = array("q")

    def read(self, names: Sequence[str] | None) -> Annotations:
        readers = {"images": self._image, "annotations": self._annotation, "categories": self._category}
        found = set()
        for key, entry in json_members(self.path):
            if key not in readers:
                continue
            found.add(key)
            if isinstance(entry, dict):
                readers[key](entry)
            else:
                self.faults.add(f"{self.path}: an entry of {key} is {str(entry)[:40]!r}, not an object")
        if missing := [key for key in ("images", "categories") if key not in found]:
            raise UserError(f"{self.path} has no {' and no '.join(missing)}: expected instances in COCO's format")
        ids = sorted(self.categories)
        self._twice(np.array(self.annotation_ids, np.int64), "annotations")
        self._twice(np.array(self.image_ids, np.int64), "images")
        classes = [self.categories[one] for one in ids] if names is None else list(names)
        return self.builder.build(classes, self._where, self._rows, lambda given: self._labels(given, ids, classes))

    def _wrong(self, kind: str, entry: dict[str, Any], what: str) -> None:
        self.faults.add(f"{self.path}: {kind} {str(entry.get('id', '(without id)'))[:40]}: {what}")

    def _image(self, entry: dict[str, Any]) -> None:
        number, name = entry.get("id"), entry.get("file_name")
        height, width = entry.get("height"), entry.get("width")
        if type(number) is not int or not isinstance(name, str) or not name:
            self._wrong("image", entry, "it needs an id, which is an integer, and a file_name")
        elif not (_is_length(height) and _is_length(width)):
            self._wrong("image", entry, f"it needs a height and a width, not {str(height)[:20]} and {str(width)[:20]}")
        elif (found := self.pictures.find(name)) is None:
            self._wrong("image", entry, f"its file {self.pictures.expected(name)} is missing")
        else:
            self.builder.add_picture(found, int(height), int(width))  # type: ignore[arg-type]
            self.image_ids.append(number)
            return
        if type(number) is int:  # its annotations are not wrong, too
            self.left_out.append(number)

    def _category(self, entry: dict[str, Any]) -> None:
        number, name = entry.get("id"), entry.get("name")
        if type(number) is not int or not isinstance(name, str) or not name:
            self._wrong("category", entry, "it needs an id, which is an integer, and a name")
        elif number in self.categories:
            self._wrong("category", entry, f"{self.categories[number]} has this id, too")
        elif name in self.categories.values():
            self._wrong("category", entry, f"another category is called {name}, too")
        else:
            self.categories[number] = name

    def _annotation(self, entry: dict[str, Any]) -> None:
        try:
            number = entry.get("id", -1)
            crowd, outline = entry.get("iscrowd") or 0, entry.get("segmentation")
            area = float("nan") if entry.get("area") is None else entry["area"]
            x, y, width, height = entry["bbox"] if "bbox" in entry else _box_around(outline)
            box = (x, y, x + width, y + height)
            self.builder.add(entry["image_id"], entry["category_id"], box, outline, crowd, area, number)
            self.annotation_ids.append(number)
        except KeyError as error:
            self._wrong("annotation", entry, f"it has no {error.args[0]}")
        except TypeError:
            self._wrong("annotation", entry, "its id, image_id and category_id must be integers, its bbox four numbers")
        except (ValueError, OverflowError) as error:
            self._wrong("annotation", entry, str(error))

    def _twice(self, numbers: NDArray[np.int64], kind: str) -> None:
        found, counts = np.unique(numbers[numbers >= 0], return_counts=True)
        repeated = found[counts > 1]
        times = dict(zip(repeated.tolist(), counts[counts > 1].tolist(), strict=True))
        self.faults.add_each(repeated, lambda i: f"{self.path}: {times[i]} {kind} have the id {i}")

    def _where(self, row: int, entry: int) -> str:
        return f"{self.path}: annotation {entry} (image {self.image_ids[row]}, {Path(self.builder.paths[row]).name})"

    def _rows(self, given: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pictures' rows of image ids; -1 for those that are not among the images."""
        rows = _places(given, self.image_ids)
        unknown = np.flatnonzero((rows < 0) & ~np.isin(given, self.left_out))
        self._report_unknown(unknown, given, "image_id", "images")
        return rows

    def _labels(self, given: NDArray[np.int64], ids: list[int], classes: list[str]) -> NDArray[np.int64]:
        """Labels of category ids; -1 for those that are not among the categories."""
        number = {name: label for label, name in enumerate(classes)}
        labels = np.array([number.get(self.categories[one], -1) for one in ids] + [-1])
        places = _places(given, ids)
        self._report_unknown(np.flatnonzero(places < 0), given, "category_id", "categories")
        other = np.flatnonzero((places >= 0) & (labels[places] < 0))
        self.faults.add_each(
            other,
            lambda i: f"{self._entry(i)}: its class {self.categories[int(given[i])]!r} is not one of the training part",
        )
        found: NDArray[np.int64] = labels[places]
        return found

    def _report_unknown(self, which: NDArray[np.int64], given: NDArray[np.int64], key: str, kind: str) -> None:
        self.faults.add_each(which, lambda i: f"{self._entry(i)}: its {key} {given[i]} is not among the {kind}")

    def _entry(self, index: int) -> str:
        return f"{self.path}: annotation {self.annotation_ids[index]}"


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and value >= 1 and value == int(value)


def _box_around(outline: Any) -> list[float]:
    """The box around polygons, for an annotation without one.

    Raises:
        ValueError: there are no polygons.
    """
    if not isinstance(outline, list) or not outline:
        raise ValueError("it has no bbox")
    points = [value for polygon in outline for value in polygon]
    left, top = min(points[::2]), min(points[1::2])
    return [left, top, max(points[::2]) - left, max(points[1::2]) - top]


def _places(given: NDArray[np.int64], known: Sequence[int]) -> NDArray[np.int64]:
    """The index of each number among the known ones; -1 for others."""
    numbers = np.array(known, np.int64)
    if not len(numbers):
        return np.full(len(given), -1)
    order = np.argsort(numbers, kind="stable")
    at = np.searchsorted(numbers, given, sorter=order).clip(max=len(numbers) - 1)
    found = order[at]
    return np.where(numbers[found] == given, found, -1)
