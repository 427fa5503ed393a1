"""Annotations as YOLO's programs have them: a text file for each picture, one line for each object.

A line is the class's number and a box (middle x, middle y, width, height), or a polygon (x, y, x, y, …), in fractions
of the picture. ``data.yaml`` names the classes and the folders; it is read as plain data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from zoo.data.annotations import Annotations, Builder, Faults
from zoo.data.scan import PARTS, pictures_below
from zoo.errors import UserError

CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt")


def read_yolo(pictures: Sequence[str], names: Sequence[str], faults: Faults) -> Annotations:
    """The annotations of some pictures; a picture without a text file has no objects.

    Args:
        pictures: their files.
        names: of the classes.
        faults: receives what is wrong with lines, which are left out.
    """
    builder, files = Builder(faults), [label_file(picture) for picture in pictures]
    for picture, path in zip(pictures, files, strict=True):
        row = builder.add_picture(picture)
        for number, line in enumerate(_lines(path, faults), 1):
            if words := line.split():
                try:
                    _add(builder, row, number, words, len(names))
                except (ValueError, OverflowError) as error:
                    faults.add(f"{path}: line {number}: {error}")
    return builder.build(list(names), lambda row, number: f"{files[row]}: line {number}")


def label_file(picture: str) -> Path:
    """The text file of a picture: in ``labels`` in the place of the last ``images`` of its path, else beside it."""
    path = Path(picture)
    parts = path.parts
    for place in reversed(range(len(parts) - 1)):
        if parts[place] == "images":
            found = Path(*parts[:place], "labels", *parts[place + 1 :]).with_suffix(".txt")
            return found if found.is_file() or not path.with_suffix(".txt").is_file() else path.with_suffix(".txt")
    return path.with_suffix(".txt")


def _lines(path: Path, faults: Faults) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        faults.add(f"{path}: it can't be read as text: {error}")
        return []


def _add(builder: Builder, row: int, number: int, words: list[str], classes: int) -> None:
    values = [_number(word) for word in words]
    label = int(values[0])
    if label != values[0] or not 0 <= label < classes:
        raise ValueError(f"its class {words[0]} is not declared: there are 0 to {classes - 1}")
    if len(values) == 5:
        x, y, width, height = values[1:]
        builder.add(row, label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), entry=number)
    elif len(values) >= 7 and len(values) % 2:
        xs, ys = values[1::2], values[2::2]
        builder.add(row, label, (min(xs), min(ys), max(xs), max(ys)), [values[1:]], entry=number)
    else:
        raise ValueError(f"it has {len(values)} numbers: expected a class and the 4 of a box or x y x y … of a polygon")


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise ValueError(f"{word[:20]!r} is not a number") from error


class YoloSet:
    """The classes and the pictures of each part.

    Args:
        root: holds ``data.yaml`` (or another YAML file), or the classes' names in ``classes.txt``, one per line.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        found = sorted([*root.glob("*.yaml"), *root.glob("*.yml")], key=lambda path: (path.stem != "data", path))
        self.file = found[0] if found else None
        self.content = _plain(self.file) if self.file else {}
        self.names = self._named()

    def _named(self) -> list[str]:
        names = self.content.get("names")
        if isinstance(names, dict) and set(names) == set(range(len(names))):
            names = [names[number] for number in range(len(names))]
        if isinstance(names, list) and names and all(isinstance(name, str | int) for name in names):
            return [str(name) for name in names]
        if self.file:
            raise UserError(f"{self.file}: names must be the list of the classes, or a mapping of 0, 1, … to them")
        for name in CLASS_FILES:
            if (self.root / name).is_file():
                return [line.strip() for line in (self.root / name).read_text("utf-8").splitlines() if line.strip()]
        raise UserError(f"{self.root} has neither data.yaml nor classes.txt, which names the classes")

    def pictures(self, part: str) -> list[str] | None:
        """The pictures of a part; None if there is no such part."""
        if self.file:
            given = self.content.get(part, self.content.get("valid") if part == "val" else None)
            if isinstance(given, str):
                given = [given]
            if given and not isinstance(given, list):
                raise UserError(f"{self.file}: {part} must be a folder, a list of pictures, or several of these")
            return self._listed(given) if given else None
        for name in PARTS[part]:
            for folder in (self.root / "images" / name, self.root / name / "images", self.root / name):
                if folder.is_dir():
                    return pictures_below(folder)
        folder = self.root / "images"
        return pictures_below(folder if folder.is_dir() else self.root) if part == "train" else None

    def _listed(self, given: Sequence[Any]) -> list[str]:
        found: list[str] = []
        for name in given:
            place = self._place(str(name))
            if place.is_dir():
                found += pictures_below(place)
            else:  # a list of pictures, one per line
                try:
                    lines = [line.strip() for line in place.read_text("utf-8").splitlines() if line.strip()]
                except (OSError, UnicodeDecodeError) as error:
                    raise UserError(f"{self.file}: {place} is neither a folder nor a list of pictures") from error
                found += [str(place.parent / line) for line in lines]
        return found

    def _place(self, name: str) -> Path:
        """A folder or list; Roboflow's paths begin with ``../`` though the folder is beside the file."""
        assert self.file is not None
        here, path = self.file.parent, str(self.content.get("path") or ".")
        places = [Path(path) / name, here / path / name, here / name, here / name.removeprefix("../")]
        for place in places:
            if place.is_absolute() and place.exists():
                return place
        for place in places[1:]:
            if place.exists():
                return place
        raise UserError(f"{self.file}: there is no {places[1]}")


def _plain(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} can't be read as plain YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping with names and the folders train and val")
    return content
