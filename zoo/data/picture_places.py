"""Where the pictures are that annotations name: looked up in listings of folders, quicker than one by one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from zoo.data.walk import entries_of


class PicturePlaces:
    """Finds files in some folders.

    Args:
        folders: they are looked for in each, in this order.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [str(folder) for folder in folders]
        self._listings: dict[str, frozenset[str]] = {}

    def find(self, name: str) -> str | None:
        """The path of a file, which may be given with folders, also as Windows writes them; None if there is none."""
        names = [name, PureWindowsPath(name).as_posix()] if "\\" in name else [name]
        for one in names:
            for folder in self.folders:
                place, _, last = f"{folder}/{one}".rpartition("/")
                if last in self._listing(place):
                    return f"{place}/{last}"
        return None

    def expected(self, name: str) -> str:
        """Where it was looked for first."""
        return f"{self.folders[0]}/{name}"

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._listings:
            entries = entries_of(folder) if os.path.isdir(folder) else ()  # noqa: PTH112
            self._listings[folder] = frozenset(entry.name for entry in entries if entry.is_file())
        return self._listings[folder]
