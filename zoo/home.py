"""The home folder in paths that no shell has seen: in recipes, in quotes, behind ``--out=``, in Python."""

from __future__ import annotations

import os


def with_home(path: str | os.PathLike[str]) -> str:
    """The path with ``~`` or ``~user`` at its start replaced by the home folder; as it is where there is none."""
    return os.path.expanduser(path)  # noqa: PTH111  Path.expanduser raises where there is no such user
