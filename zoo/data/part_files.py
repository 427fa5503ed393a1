"""Finding files of annotations and the folders of their pictures, by part, as people have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zoo.data.images import Part
from zoo.data.scan import PARTS as PART_NAMES
from zoo.errors import UserError

PARTS: tuple[Part, ...] = ("train", "val", "test")
Found = dict[Part, tuple[Path, list[Path]]]
"""For each part its file, and the folders in which the pictures may be."""


@dataclass(frozen=True)
class Sought:
    """Which files are sought.

    Args:
        argument: by which users name one.
        preferred: how the names of published files begin; of several candidates, such files are taken.
        others: how the names of files of other kinds begin.
        suffixes: endings of names.
        published: a published file, below the folder.
    """

    argument: str
    preferred: str
    others: tuple[str, ...]
    suffixes: tuple[str, ...] = (".json",)
    published: str = ""

    def accepts(self, path: Path) -> bool:
        """Whether a file may be one."""
        known = path.suffix.lower() in self.suffixes and not path.name.startswith((".", *self.others))
        return known and path.is_file()


def part_files(root: Path, sought: Sought, given: str | Mapping[str, str] | None = None) -> Found:
    """The files of annotations of a folder, by part.

    Args:
        root: the folder.
        sought: which files.
        given: files that the user named, by part, or one for all.

    Raises:
        UserError: there is none, or several of one part.
    """
    if not root.is_dir():
        raise UserError(f"the folder {root} does not exist: give the data's folder by --data.root")
    if given is not None:
        given = {"train": given} if isinstance(given, str) else given
        if "train" not in given or (unknown := set(given) - set(PARTS)):
            wrong = f", not {sorted(unknown)[0]}" if "train" in given else ""
            raise UserError(f"data.{sought.argument} names files of train, and perhaps of val and test{wrong}")
        paths = {part: _named(root, given[part]) for part in PARTS if part in given}
    else:
        paths = _found_files(root, sought)
    return {part: (path, picture_folders(root, path, part)) for part, path in paths.items()}


def _named(root: Path, name: str) -> Path:
    path = Path(name).expanduser()
    return path if path.is_absolute() or path.is_file() else root / path


def candidates(root: Path, sought: Sought) -> list[Path]:
    """The files of a folder, of its folder ``annotations`` and of those of parts that may be of the kind."""
    folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and part_of(folder.name)]
    places = [place for place in (root / "annotations", root, *folders) if place.is_dir()]
    return [path for place in places for path in sorted(filter(sought.accepts, place.iterdir()))]


def _found_files(root: Path, sought: Sought) -> dict[Part, Path]:
    files = candidates(root, sought)
    found: dict[Part, Path] = {}
    for part in PARTS:
        matching = [path for path in files if part in (part_of(path.stem), _folder_part(root, path))]
        preferred = [path for path in matching if path.stem.startswith(sought.preferred)]
        if len(some := preferred or matching) > 1:
            raise UserError(
                f"{root}: {some[0]} and {some[1]} are both of the {part} part: name one by data.{sought.argument}"
            )
        if some:
            found[part] = some[0]
    if "train" not in found and len(files) == 1:
        return {"train": files[0]}
    if "train" not in found:
        kind = "JSON files" if sought.suffixes == (".json",) else "files"
        what = f"{len(files)} {kind}, and none is called train" if files else "no annotations"
        expected = f"expected {root / sought.published}, or name" if sought.published else "name"
        raise UserError(f"{root} has {what}: {expected} your file by --data.{sought.argument}")
    if "val" in found and "test" not in found and re.search(r"val20\d\d$", found["val"].stem):
        found["test"] = found.pop("val")
    return found


def _folder_part(root: Path, path: Path) -> Part | None:
    return None if path.parent == root else part_of(path.parent.name)


def part_of(name: str) -> Part | None:
    """The part that a file's or folder's name contains as a word, perhaps with a year."""
    words = {re.sub(r"\d{4}$", "", word) for word in re.split(r"[_.\- ]+", name.lower())}
    return next((part for part in PARTS if words & set(PART_NAMES[part])), None)


def picture_folders(root: Path, path: Path, part: Part) -> list[Path]:
    """Where the pictures of a file of annotations may be, the likeliest first."""
    own = [root / word for word in re.split(r"[_.\- ]+", path.stem)]
    own += [folder for folder in (*sorted(root.iterdir()), *_inside(root / "images")) if part_of(folder.name) == part]
    own += [folder / "images" for folder in own]
    named = [folder for folder in sorted(root.iterdir()) if folder.name.lower() in ("images", "photos", "pictures")]
    places = [*own, root, root / "images", *named, path.parent, path.parent / "images"]
    return list(dict.fromkeys(place for place in places if place.is_dir()))


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
