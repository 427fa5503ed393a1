"""Annotations as PASCAL VOC has them: an XML file for each picture.

Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010; coordinates count pixels from 1, both ends
included, as the development kit states. Objects that are ``difficult`` are neither trained on nor counted in
evaluation: they become crowds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from zoo.data.annotations import Annotations, Builder, Faults
from zoo.data.files import UnreadableImage, upright_size

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
Pair = tuple[str, Path | None]
"""A picture and its XML file; None for a picture without objects."""


def read_voc(pairs: Sequence[Pair], faults: Faults, names: Sequence[str] | None = None) -> Annotations:
    """The annotations of some pictures.

    Args:
        pairs: pictures, and the XML file of each.
        faults: receives what is wrong with entries, which are left out.
        names: the classes; by default those that occur, in alphabetical order.
    """
    reader = _VOCFiles(faults, names)
    for picture, path in pairs:
        reader.add(picture, path)
    return reader.build()


class _VOCFiles:
    def __init__(self, faults: Faults, names: Sequence[str] | None) -> None:
        self.faults, self.builder = faults, Builder(faults)
        self.files: list[Path | None] = []
        self.known = names is not None
        self.labels = {name: label for label, name in enumerate(names or ())}

    def add(self, picture: str, path: Path | None) -> None:
        """A picture and its objects."""
        tree = None if path is None else self._tree(path)
        if path is not None and tree is None:
            return
        try:
            size = _size(tree) or upright_size(picture)
        except UnreadableImage as error:
            self.faults.add(str(error))
            return
        row = self.builder.add_picture(picture, *size)
        self.files.append(path)
        for number, entry in enumerate([] if tree is None else tree.findall("object"), 1):
            try:
                self._object(row, number, entry)
            except (ValueError, OverflowError) as error:
                self.faults.add(f"{path}: object {number}: {error}")

    def _tree(self, path: Path) -> ElementTree.Element | None:
        try:
            return ElementTree.parse(path).getroot()
        except FileNotFoundError:
            self.faults.add(f"{path}: the file is missing")
        except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
            self.faults.add(f"{path}: it is not XML: {error}")
        return None

    def _object(self, row: int, number: int, entry: ElementTree.Element) -> None:
        name = (entry.findtext("name") or "").strip()
        if not name:
            raise ValueError("it has no name")
        if self.known and name not in self.labels:
            raise ValueError(f"its class {name!r} is not declared: there are {', '.join([*self.labels][:20])}")
        box = entry.find("bndbox")
        if box is None:
            raise ValueError("it has no bndbox")
        x1, y1, x2, y2 = (_number(box, key) for key in ("xmin", "ymin", "xmax", "ymax"))
        label = self.labels.setdefault(name, len(self.labels))
        difficult = int((entry.findtext("difficult") or "0").strip() or 0)
        self.builder.add(row, label, (x1 - 1, y1 - 1, x2, y2), None, int(difficult > 0), entry=number)

    def build(self) -> Annotations:
        """All that was added."""
        names = list(self.labels) if self.known else sorted(self.labels)
        places = np.array([names.index(name) for name in self.labels] or [0])
        return self.builder.build(
            names,
            lambda row, number: f"{self.files[row]}: object {number}",
            label_of=lambda given: places[given],
        )


def _size(tree: Any) -> tuple[int, int] | None:
    """Height and width that an XML file states; None if it does not."""
    size = None if tree is None else tree.find("size")
    if size is None:
        return None
    try:
        height, width = int(_number(size, "height")), int(_number(size, "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if min(height, width) > 0 else None


def _number(parent: ElementTree.Element, key: str) -> float:
    text = parent.findtext(key)
    if text is None or not text.strip():
        raise ValueError(f"it has no {key}")
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{key} is {text.strip()[:20]!r}, not a number") from error
