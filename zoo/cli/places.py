"""What a recipe's callbacks, loggers and profilers write lies in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from zoo.errors import UserError

# Arguments of callbacks, loggers and profilers that say where they write.
PLACES = ("dirpath", "dir", "root_dir", "filename", "name", "version", "sub_dir", "prefix", "id")


def keep_inside(part: Any, folder: Path) -> None:
    """Where a callback, logger or profiler says where it writes, that lies in the run's folder.

    Args:
        part: the parsed spec of one, or a list of them; a relative ``dirpath`` is laid below the folder.
        folder: the run's.

    Raises:
        UserError: it is to lie elsewhere.
    """
    for one in part if isinstance(part, list) else ():
        keep_inside(one, folder)
    if not isinstance(part, Namespace):
        return
    args: Any = part.get("init_args") or Namespace()
    for key in PLACES:
        value = args.get(key)
        if not isinstance(value, str) or value == str(folder):
            continue
        if Path(value).is_absolute() or ".." in Path(value).parts:
            raise UserError(f"trainer: {key} {value} lies outside the run's folder; give a path below it")
        if key == "dirpath":
            args[key] = str(folder / value)
