"""What a recipe's callbacks, loggers, profilers, plugins and strategy write lies in the run's folder.

Their arguments are looked at before anything is built, what they have become is looked at again afterwards, and
checkpoints are checked as they are written (``AtomicCheckpointIO``), since a file's name may be a format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import AsyncCheckpointIO, CheckpointIO

from zoo.errors import UserError
from zoo.training.checkpoints import AtomicCheckpointIO
from zoo.training.run_folder import inside, refuse_remote


def keep_inside(part: Any, folder: Path) -> None:
    """Where a callback, profiler, plugin or strategy says where it writes, that lies in the run's folder.

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
    for key, value in arguments_of(part).items():
        for text in _texts(value):
            refuse_path(key, text)
    args: Any = part.get("init_args") or Namespace()
    if args.get("dirpath") is not None:
        args["dirpath"] = str(folder / args["dirpath"])


def arguments_of(part: Namespace) -> dict[str, Any]:
    """All that the class of a spec is given."""
    found: dict[str, Any] = {}
    for name in ("init_args", "dict_kwargs"):
        given = part.get(name) or {}
        found |= vars(given) if isinstance(given, Namespace) else dict(given)
    return found


def refuse_path(key: str, text: str) -> None:
    """Refuse a text that, taken as a path, leaves the folder below which it is laid.

    Raises:
        UserError: it does.
    """
    try:
        refuse_remote(text)
        leaves = Path(text).is_absolute() or text.startswith(("~", "\\")) or ".." in text.replace("\\", "/").split("/")
    except UserError:
        leaves = True
    if leaves:
        raise UserError(f"trainer: {key} {text} lies outside the run's folder; give a path below it")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str | os.PathLike):
        yield os.fspath(value)
    elif isinstance(value, Namespace):
        yield from _texts(vars(value))
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "class_path":
                yield from _texts(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _texts(inner)


def with_own_checkpoint_io(plugins: Any, strategy: Any, folder: Path) -> list[Any]:
    """The plugins, with the zoo's own reading and writing of checkpoints.

    Args:
        plugins: the recipe's, built: one, several or None.
        strategy: the recipe's, built or by its name.
        folder: the run's.

    Raises:
        UserError: the recipe brings another CheckpointIO, which might run what it reads, or write elsewhere.
    """
    given = list(plugins) if isinstance(plugins, list | tuple) else [p for p in (plugins,) if p is not None]
    own: CheckpointIO = AtomicCheckpointIO(folder)
    wrapped = False
    for plugin in (p for p in given if isinstance(p, CheckpointIO)):
        if type(plugin) is not AsyncCheckpointIO or plugin.checkpoint_io is not None:
            raise _foreign(plugin)
        wrapped = True
    if (foreign := getattr(strategy, "_checkpoint_io", None)) is not None:
        raise _foreign(foreign)
    return [*(p for p in given if not isinstance(p, CheckpointIO)), AsyncCheckpointIO(own) if wrapped else own]


def _foreign(io: CheckpointIO) -> UserError:
    inner = getattr(io, "checkpoint_io", None) or io
    return UserError(
        f"trainer: {type(inner).__name__} is not allowed: the zoo reads and writes checkpoints itself, as data "
        "(trainer.plugins may hold AsyncCheckpointIO without arguments)"
    )


def check_built(trainer: Trainer, folder: Path) -> None:
    """Look at where the trainer's writers have come to write, after formats, variables and defaults.

    Raises:
        UserError: one of them writes outside the run's folder.
    """
    io = trainer.strategy.checkpoint_io
    if not isinstance(getattr(io, "checkpoint_io", io), AtomicCheckpointIO):
        raise _foreign(io)
    writers = [*trainer.loggers, *trainer.callbacks, trainer.profiler]  # type: ignore[attr-defined]
    for writer in writers:
        for name in ("log_dir", "save_dir", "root_dir", "dirpath"):
            place = getattr(writer, name, None)
            if isinstance(place, str | os.PathLike):
                inside(os.fspath(place), folder)
