"""What went wrong with the disk, in words, and which file is the newest."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


def reason(error: BaseException) -> str:
    """Why a file could not be written: what the system reported, behind whatever a library made of it."""
    if (cause := _of_the_system(error)) is not None:
        words = str(cause.strerror)
        return f"the disk is full, or your quota on it used up ({words})" if cause.errno in _FULL else words
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _of_the_system(error: BaseException) -> OSError | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def message(error: BaseException, folder: Path | None) -> str | None:
    """One line for an error that a full disk or the loss of the run's folder caused; None for any other.

    Args:
        error: as it was raised.
        folder: the run's, if it has one already.
    """
    if (cause := _of_the_system(error)) is None:
        return None
    if folder is not None and not folder.is_dir():
        return gone(folder)
    if cause.errno not in _FULL:
        return None
    what = f"{cause.filename} could not be written" if cause.filename else f"nothing can be written to {folder}"
    return f"{what}: {reason(error)}; free some space, or give a folder on another disk (--out FOLDER)"


def gone(folder: Path) -> str:
    """One line for a run whose folder is no longer there."""
    return f"the run's folder {folder} is gone: it was removed or renamed, or its disk is no longer there"


def newest_first(files: Iterable[Path]) -> list[Path]:
    """Those that are files, by their time; of one time, ``last.ckpt`` first. Others may come and go meanwhile."""
    return sorted(filter(os.path.isfile, files), key=lambda file: (_time(file), file.name == "last.ckpt"), reverse=True)


def _time(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
