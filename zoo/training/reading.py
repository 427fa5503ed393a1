"""Reading checkpoints as data, and finding them: the best or last of a run, the newest, the whole ones beside a damaged
one.
"""

from __future__ import annotations

import pickletools
import shlex
import zipfile
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from zoo.errors import UserError
from zoo.home import with_home
from zoo.training.run_folder import refuse_remote
from zoo.training.storage import newest_first, reason


def read(path: str | Path, map_location: Any = "cpu", verify: bool = True) -> dict[str, Any]:
    """The content of a checkpoint, as data.

    Args:
        path: the file.
        map_location: where its tensors go.
        verify: compare the checksums of the archive first, so that a damaged tensor is found.

    Raises:
        UserError: the file does not exist, is damaged, holds more than data, or is not a checkpoint; whole ones beside
            it are named.
    """
    refuse_remote(path)
    path = Path(with_home(path))
    try:
        return _read(path, map_location, verify)
    except UserError as error:
        raise UserError(f"{error}{_offer(path)}") from error


def _read(path: Path, map_location: Any = "cpu", verify: bool = True) -> dict[str, Any]:
    if path.is_dir() and path.name:
        raise UserError(f"no such checkpoint: the folder {path} holds no best.ckpt or last.ckpt")
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}")
    try:
        _verify(path, checksums=verify)
        found = torch.load(path, map_location=map_location, weights_only=True, mmap=not verify)
    except UserError:
        raise
    except Exception as error:  # torch and pickle raise many types of errors for a bad file
        raise UserError(f"{path} can't be read as a checkpoint: {_explain(error)}") from error
    if not (isinstance(found, dict) and isinstance(found.get("state_dict"), dict)):
        raise UserError(f"{path} is not a checkpoint of a task: it has no state_dict")
    return found


def _verify(path: Path, checksums: bool = True) -> None:
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is damaged or not a checkpoint: it is not a complete archive")
    with zipfile.ZipFile(path) as archive:
        _refuse_larger_inside(path, archive.infolist())
        if checksums and (bad := archive.testzip()) is not None:
            raise UserError(f"{path} is damaged: {bad} in it does not match its checksum")
        for entry in archive.infolist():
            if entry.filename.endswith(".pkl"):
                _refuse_reservations(path, archive.read(entry))


def _refuse_larger_inside(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Torch stores entries uncompressed, one after another; a compressed or shared entry may unpack to any size."""
    compressed = any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries)
    if compressed or sum(e.file_size for e in entries) > path.stat().st_size:
        raise UserError(f"{path} is refused: it would unpack to more than its own size, which a checkpoint never does")


def _refuse_reservations(path: Path, pickled: bytes) -> None:
    """``weights_only`` lets a few bytes allocate an array of any size; plain data contains no ``bytearray``."""
    if b"bytearray" not in pickled:
        return
    named = (arg for op, arg, _ in pickletools.genops(pickled) if op.name in ("GLOBAL", "STACK_GLOBAL"))
    if any("bytearray" in str(arg) for arg in named):
        raise UserError(f"{path} is refused: it holds a bytearray, which a checkpoint never does")


def _explain(error: BaseException) -> str:
    text = str(error)
    if "weights_only" in text or "Weights only" in text or "Unsupported" in text:
        return "it holds more than plain data and tensors, and such files are refused because they could run code"
    return reason(error)


def resolve(path: str | Path) -> Path:
    """The checkpoint file: the path itself, or the best (else last) of a run folder."""
    refuse_remote(path)
    path = Path(with_home(path))
    for name in ("best.ckpt", "last.ckpt"):
        for folder in (path, path / "checkpoints"):
            if path.is_dir() and (folder / name).is_file():
                return folder / name
    return path


def find_last(runs: Path) -> Path:
    """The newest complete checkpoint below a folder; damaged ones are reported and skipped.

    Raises:
        UserError: there is none.
    """
    for file in newest_first(runs.rglob("checkpoints/*.ckpt")):
        try:
            _read(file)
            return file
        except UserError as error:
            print(f"zoo: {error}; looking for an older one", flush=True)
    raise UserError(f"no whole checkpoint below {runs}")


def _offer(path: Path) -> str:
    """What to add to the message about a file that can't be read: up to three whole ones beside it, newest first."""
    folder = path if path.is_dir() else path.parent
    files = [f for f in (*folder.glob("*.ckpt"), *folder.glob("checkpoints/*.ckpt")) if f != path and f.is_file()]
    steps = {file: step for file in newest_first(files)[:30] if (step := _step(file)) is not None}
    newest = sorted(steps, key=lambda file: steps[file], reverse=True)  # stable: of one step, by the time of writing
    whole = list(islice(filter(_is_whole, newest), 3))
    if not whole:
        return ""
    names = ", ".join(f"{file.name} (step {steps[file]})" for file in whole)
    return f"; whole beside it: {names}: --ckpt_path {shlex.quote(str(whole[0]))}"


def _step(file: Path) -> int | None:
    """The number of optimiser steps in a checkpoint; None where it can't be read."""
    try:
        step = _read(file, verify=False).get("global_step")
    except UserError:
        return None
    return step if isinstance(step, int) else 0


def _is_whole(file: Path) -> bool:
    try:
        _read(file)
    except UserError:
        return False
    return True
