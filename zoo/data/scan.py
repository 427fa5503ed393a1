"""Finding the pictures in folders as people have them: linked, mixed with other files, with parts of many names.

Links are followed, but no folder is read twice below a class, so that loops end. Whatever is left out is counted with
its reason. Files are recognised by name, without opening them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from zoo.data.files import picture_suffixes
from zoo.errors import UserError

PARTS = {  # the names that people give to the folders of parts, in lower case
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# Folders that file servers, archives and systems add by themselves, in lower case; hidden ones are left out anyway.
SYSTEM = (
    "@eadir",
    "@tmp",
    "@recycle",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "__macosx",
    "__pycache__",
    "lost+found",
    "system volume information",
)
HIDDEN, BROKEN_LINKS, SPECIAL = "hidden or system entries", "broken links", "not regular files"
LOOPS, OTHER = "links to folders already read", "not pictures"
OUTSIDE, NO_PART = "files outside the class folders", "folders that are not a part"


class LeftOut:
    """Counts what is left out, by reason."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._details: dict[str, dict[str, None]] = {}

    def add(self, reason: str, detail: str = "", count: int = 1) -> None:
        """Count something; the first details of each reason are kept for the message."""
        self._counts[reason] += count
        details = self._details.setdefault(reason, {})
        if detail and len(details) < 3:
            details[detail] = None

    def __str__(self) -> str:
        """Each reason, how often, and examples: ``broken links (3: a.png, b.png, c.png)``."""
        return ", ".join(
            f"{reason} ({': '.join([f'{count:,}', *filter(None, [', '.join(self._details[reason])])])})"
            for reason, count in sorted(self._counts.items())
        )


def is_system(name: str) -> bool:
    """Whether a file's or folder's name is hidden, or one that systems add by themselves."""
    return name.startswith(".") or name.lower() in SYSTEM


def class_folders(folder: Path, left_out: LeftOut | None = None) -> list[str]:
    """Names of the folders in a folder, sorted; without hidden ones, system folders, and links that lead back."""
    if not folder.is_dir():
        return []
    left_out = LeftOut() if left_out is None else left_out
    above, names = _with_parents(folder), []
    for entry in _entries(folder):
        if _is_folder(entry):
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
    seen = _with_parents(folder.parent)
    found: list[str] = []
    folders: list[str] = [str(folder)]
    links: list[str] = []
    while folders or links:
        # Links come last and in order, so that a folder's own path is preferred, on every machine.
        place = folders.pop() if folders else links.pop(0)
        if (real := os.path.realpath(place)) in seen:
            left_out.add(LOOPS, os.path.relpath(place, folder))
            continue
        seen.add(real)
        for entry in _entries(place):
            if is_system(entry.name):
                left_out.add(HIDDEN)
            elif _is_folder(entry):
                (links if entry.is_symlink() else folders).append(entry.path)
            elif _is_picture(entry, left_out):
                found.append(entry.path)
        links.sort()
    return sorted(found)


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


def _with_parents(folder: Path | str) -> set[str]:
    real = Path(os.path.realpath(folder))
    return {str(real), *map(str, real.parents)}


def _entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} can't be read: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle of links
        return False


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
    elif entry.name.lower() == "thumbs.db":
        left_out.add(HIDDEN)
    else:
        left_out.add(OTHER, suffix or entry.name)
    return False
