"""Finding the pictures in folders as people have them: linked, mixed with other files, with parts of many names.

Links are followed, but no folder is read twice below a class, so that loops end. Whatever is left out is counted with
its reason. Files are recognised by name, without opening them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from zoo.data.files import picture_suffixes
from zoo.data.walk import (
    BROKEN_LINKS,
    HIDDEN,
    LOOPS,
    OTHER,
    SPECIAL,
    LeftOut,
    entries_of,
    is_folder,
    is_system,
    walk,
    with_parents,
)
from zoo.errors import UserError

OUTSIDE, NO_PART = "files outside the class folders", "folders that are not a part"

PARTS = {  # the names that people give to the folders of parts, in lower case
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


def class_folders(folder: Path, left_out: LeftOut | None = None) -> list[str]:
    """Names of the folders in a folder, sorted; without hidden ones, system folders, and links that lead back."""
    if not folder.is_dir():
        return []
    left_out = LeftOut() if left_out is None else left_out
    above, names = with_parents(folder), []
    for entry in entries_of(folder):
        if is_folder(entry):
            if is_system(entry.name):
                left_out.add(HIDDEN, entry.name)
            elif entry.is_symlink() and os.path.realpath(entry.path) in above:
                left_out.add(LOOPS, entry.name)
            else:
                names.append(entry.name)
        else:
            left_out.add(HIDDEN if is_system(entry.name) else OUTSIDE, "" if is_system(entry.name) else entry.name)
    return names


def pictures_below(folder: Path, left_out: LeftOut | None = None) -> list[str]:
    """Paths of the pictures at any depth, sorted.

    Raises:
        UserError: a folder can't be read.
    """
    left_out = LeftOut() if left_out is None else left_out
    entries = (entry for _, files in walk(folder, left_out) for entry in files)
    return sorted(entry.path for entry in entries if _is_picture(entry, left_out))


def part_folders(root: Path, left_out: LeftOut | None = None) -> dict[str, Path]:
    """The folders of the parts, by ``train``, ``val`` and ``test``, whatever they are called; empty without a training
    part.

    Raises:
        UserError: there is no such folder, two folders are the same part, or there are other parts than training
            without a training part.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"the folder {root} {what}: give the pictures' folder by --data.root")
    left_out = LeftOut() if left_out is None else left_out
    folders = class_folders(root, left_out)
    found: dict[str, Path] = {}
    for part, known in PARTS.items():
        names = [name for name in folders if name.lower() in known]
        if len(names) > 1:  # an empty one may be left from somewhere
            names = [name for name in names if class_folders(root / name)] or names[:1]
        if len(names) > 1:
            raise UserError(f"{root} holds {' and '.join(names)}, which are the same part: rename or remove one")
        if names:
            found[part] = root / names[0]
    if "train" in found and class_folders(found["train"]):
        for name in sorted(set(folders) - {folder.name for folder in found.values()}):
            left_out.add(NO_PART, name)
        return found
    _check_no_parts(root, folders, found)
    return {}


def _check_no_parts(root: Path, folders: Sequence[str], found: dict[str, Path]) -> None:
    """A folder such as ``val`` beside class folders may be a class, unless it holds the classes' names itself."""
    if len(found) > 1 and len(found) == len(folders):
        reason = "holds no class folders" if "train" in found else "is missing"
        name = found.get("train", root / "train").name
        raise UserError(f"{root} holds parts ({', '.join(folders)}), but {name} {reason}: give one folder per class")
    for folder in found.values():
        if shared := sorted(set(class_folders(folder)) & set(folders)):
            raise UserError(
                f"{folder} looks like a part (it holds the class {shared[0]}), but there is no {root / 'train'}: "
                "put the training classes there, or move it away"
            )


def _is_picture(entry: os.DirEntry[str], left_out: LeftOut) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  a Path per file would double the time
    try:
        regular = entry.is_file()
    except OSError:
        regular = False
    if regular and suffix in picture_suffixes():
        return True
    if not regular:
        left_out.add(BROKEN_LINKS if entry.is_symlink() else SPECIAL, entry.name)
    else:
        left_out.add(OTHER, suffix or entry.name)
    return False
