"""Walking folders as people have them: links are followed without loops, and what is left out is counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import UserError

# What file servers, archives and systems add by themselves, in lower case; hidden ones are left out anyway.
SYSTEM = (
    "@eadir",
    "@tmp",
    "@recycle",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "ehthumbs.db",
    "lost+found",
    "system volume information",
    "thumbs.db",
)
HIDDEN, BROKEN_LINKS, SPECIAL = "hidden or system entries", "broken links", "not regular files"
LOOPS, OTHER = "links to folders already read", "not pictures"


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


def walk(folder: Path | str, left_out: LeftOut) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """A folder and those below it at any depth, each with its files; hidden and system ones are left out.

    No folder is read twice, whatever links lead to it.

    Raises:
        UserError: a folder can't be read.
    """
    seen = with_parents(Path(os.path.abspath(folder)).parent)  # noqa: PTH100  links stay as they are
    folders, links = [str(folder)], list[str]()
    while folders or links:
        # Links come last and in order, so that a folder's own path is preferred, on every machine.
        place = folders.pop() if folders else links.pop(0)
        if (real := os.path.realpath(place)) in seen:
            left_out.add(LOOPS, os.path.relpath(place, folder))
            continue
        seen.add(real)
        files = []
        for entry in entries_of(place):
            if is_system(entry.name):
                left_out.add(HIDDEN)
            elif is_folder(entry):
                (links if entry.is_symlink() else folders).append(entry.path)
            else:
                files.append(entry)
        links.sort()
        yield place, files


def with_parents(folder: Path | str) -> set[str]:
    """Real paths of a folder and of all that it lies in, to which a link would lead back."""
    real = Path(os.path.realpath(folder))
    return {str(real), *map(str, real.parents)}


def entries_of(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, by name.

    Raises:
        UserError: it can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} can't be read: {error.strerror}") from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle of links
        return False
