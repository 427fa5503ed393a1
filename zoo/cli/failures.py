"""What libraries raise during a command, in one line that says at what: key, file, layer, step.

Where an error came from is read from its traceback, after the fact: nothing is watched while a run goes on.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from zoo.errors import RunFailed, UserError
from zoo.parsing_errors import shortened, user_error_behind, user_message
from zoo.training import storage
from zoo.training.acceleration import compile_error_message
from zoo.training.callbacks import Stopped
from zoo.training.finite import anomaly_message

LOG = "error.log"  # in the run's folder
LONGEST = 400  # characters of a library's message
# What their classes say of a value during the run, their arguments are to blame for; a plugin's may be wrong itself.
OF_LIBRARIES = ("lightning.pytorch.callbacks.", "torch.optim.")
OF_VALUES = (ValueError, TypeError, ZeroDivisionError, MisconfigurationException)  # not of memory, devices, files


# What a constructor raises over its arguments or surroundings; anything else is likelier its own fault.
OF_ARGUMENTS = (*OF_VALUES, ArgumentError, ImportError, OSError)


@dataclass
class Context:
    """What is known of a command.

    Args:
        config: its parsed configuration.
        checkpoint: the file that it starts from.
        folder: the run's.
        trainer: once it is built.
        model: once it is built.
    """

    config: Namespace | None = None
    checkpoint: Path | None = None
    folder: Path | None = None
    trainer: Trainer | None = None
    model: nn.Module | None = None


@contextmanager
def explaining(context: Context) -> Iterator[None]:
    """End what libraries raise in here in one line.

    A broken pipe is a failure, too: it is a lost worker's or service's, since a reader of the output may leave
    (``zoo.cli.streams``).

    Raises:
        UserError: instead of an error of a library or a plugin.
    """
    try:
        yield
    except (UserError, Stopped):
        raise
    except Exception as error:
        raise explained(error, context) from error


def explained(error: Exception, context: Context) -> UserError:
    """An error of a library or a plugin in one line; its traceback goes to the run's folder.

    A mistake that ends the command before the run has written anything leaves no folder behind.

    Args:
        error: what was raised.
        context: what is known of the command.

    Returns:
        With exit status 2 if a key of the recipe, a flag or a file is at fault, else 1.
    """
    if (line := anomaly_message(error)) is not None:
        write_log(error, context.folder)
        return RunFailed(line)
    if (mistake := _mistake(error, context)) is not None:
        if has_begun(context.folder):
            write_log(error, context.folder)
        return mistake
    where = ", ".join(filter(None, (_step(error, context.trainer), _layer(error, context.model))))
    log = write_log(error, context.folder)
    shown = f"the traceback is in {log}" if log else "--debug shows the traceback"
    return RunFailed(f"{f'{where}: ' if where else ''}{message_of(error)} ({shown})")


def _mistake(error: Exception, context: Context) -> UserError | None:
    """An error that the user can correct; None for any other."""
    if (line := compile_error_message(error)) is not None:
        return UserError(line)
    if (line := storage.message(error, context.folder)) is not None:
        return UserError(line)
    said = message_of(error)
    if _within(error, "_CheckpointConnector.res") and context.checkpoint is not None:
        return UserError(f"{context.checkpoint} can't be resumed, it is incomplete or another run's: {said}")
    if (found := blamed(error, context.config)) is not None:
        key, raised = found
        return UserError(f"{key}: {message_of(raised)}")
    if user_error_behind(error) or isinstance(error, MisconfigurationException | FileNotFoundError | PermissionError):
        return UserError(said)
    return None


def message_of(error: BaseException) -> str:
    """Kind and text of an error in one line of bounded length; the text alone where the user's mistake is behind it."""
    reports = isinstance(error, ArgumentError | ValueError | TypeError | ImportError)  # of jsonargparse, nested
    text = user_message(error) if reports or user_error_behind(error) else str(error)
    if "Traceback (most recent call last)" in str(error):  # a worker process's, whose last line is the message
        text = str(error).strip().splitlines()[-1]
    text = " ".join(text.split())
    text = shortened(text, LONGEST)
    kind = type(error).__name__
    if user_error_behind(error) or isinstance(error, MisconfigurationException | ArgumentError):
        return text
    return f"{kind}: {text}" if text else kind


def has_begun(folder: Path | None) -> bool:
    """Whether the run's folder holds a file: an empty one is removed at the end."""
    return folder is not None and any(path.is_file() for path in folder.rglob("*"))


def write_log(error: BaseException, folder: Path | None) -> Path | None:
    """Add the traceback to the run's log; None where that is not possible."""
    if folder is None or not folder.is_dir():
        return None
    path = folder / LOG
    try:
        with path.open("a", encoding="utf-8") as log:
            log.write("".join(traceback.format_exception(error)) + "\n")
    except OSError:  # a full disk must not hide the error
        return None
    return path


# Where it was raised


def _frames(error: BaseException) -> list[tuple[str, TracebackType]]:
    """The functions that it passed through, by their qualified names, the innermost last."""
    found, at = [], error.__traceback__
    while at is not None:
        found.append((at.tb_frame.f_code.co_qualname, at))
        at = at.tb_next
    return found


def _within(error: BaseException, start: str) -> bool:
    return any(name.startswith(start) for name, _ in _frames(error))


def _step(error: BaseException, trainer: Trainer | None) -> str:
    """``step 3 (epoch 0)`` or ``validation``."""
    if trainer is None:
        return ""
    if _within(error, "_EvaluationLoop."):
        return "test" if str(trainer.state.fn) == "TrainerFn.TESTING" else "validation"
    if _within(error, "_PredictionLoop."):
        return "prediction"
    if _within(error, "_TrainingEpochLoop."):
        return f"step {trainer.global_step + 1} (epoch {trainer.current_epoch})"
    return ""


def _layer(error: BaseException, model: nn.Module | None) -> str:
    """The name of the innermost layer that it was raised in."""
    names = {id(module): name for name, module in model.named_modules() if name} if model is not None else {}
    for _, at in reversed(_frames(error)):
        module = at.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module) and id(module) in names:
            return f"layer {names[id(module)]} ({type(module).__name__})"
    return ""


# Which key is at fault


def refused(error: Exception, config: Namespace, folder: Path | None = None) -> UserError:
    """What a class said when it was built, with its key; the traceback goes to the run's folder if it holds a run."""
    if has_begun(folder):
        write_log(error, folder)
    found = blamed(error, config)
    if found is None or user_error_behind(error):
        return UserError(message_of(error))
    key, raised = found
    said = message_of(raised)
    hint = "" if isinstance(raised, OF_ARGUMENTS) or has_begun(folder) else " (--debug shows the traceback)"
    return UserError(f"{said if said.startswith(key) else f'{key}: {said}'}{hint}")


def blamed(error: BaseException, config: Namespace | None) -> tuple[str, BaseException] | None:
    """The key at fault, and the error that says so: this one, or one behind it; None where no key is."""
    raised: BaseException | None = error
    while raised is not None:
        if (key := key_of(raised, config)) is not None:
            return key, raised
        raised = raised.__cause__ or raised.__context__
    key = _of_a_named_class(str(error), config)
    return (key, error) if key else None


def _of_a_named_class(text: str, config: Namespace | None) -> str | None:
    """The key of the class that jsonargparse could not build; it keeps nothing of the error but its text."""
    named = re.findall(r"Problem with given class_path '([\w.]+)'", text)
    return next((key for key, path, _ in _specs(config, "") if path == named[-1]), None) if named else None


def key_of(error: BaseException, config: Namespace | None) -> str | None:
    """The key of the class that refused its arguments, with the argument if the message tells its value."""
    if _within(error, "seed_everything"):
        return "seed_everything"
    if config is None:
        return None
    specs = {path: (key, args) for key, path, args in _specs(config, "")}
    homes = {base: path for path in reversed(specs) for base in _bases(path)}
    frames = _frames(error)
    for name, at in reversed(frames):
        cls, _, function = name.rpartition(".")
        home = f"{_module(at)}.{cls}"
        if home in homes and (function == "__init__" or (at is frames[-1][1] and _of_a_value(error, homes[home]))):
            key, args = specs[homes[home]]
            return f"{key}{_argument(str(error), args)}"
    if _within(error, "Trainer.__init__"):
        return "trainer"
    return _trainer_key(error, config) if frames and _module(frames[-1][1]).startswith("lightning.") else None


def _of_a_value(error: BaseException, path: str) -> bool:
    """Whether a library's class raised it over a value that it was given, not for want of memory or a device."""
    of_a_callback = path.startswith("lightning.") and type(error) is RuntimeError  # such as EarlyStopping's monitor
    return path.startswith(OF_LIBRARIES) and (isinstance(error, OF_VALUES) or of_a_callback)


def _trainer_key(error: BaseException, config: Namespace) -> str | None:
    """The trainer's argument that Lightning's message names."""
    names = vars(config.get("trainer") or Namespace())
    return next((f"trainer.{name}" for name in re.findall(r"`(\w+)`", str(error)) if name in names), None)


def _module(at: TracebackType) -> str:
    return str(at.tb_frame.f_globals.get("__name__"))


def _specs(node: Any, where: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every class of a configuration: its key as a flag has it, its path, its arguments."""
    if isinstance(node, list):
        for one in node:
            yield from _specs(one, where)
    node = vars(node) if isinstance(node, Namespace) else node
    if not isinstance(node, dict):
        return
    args = node.get("init_args") or {}
    if isinstance(path := node.get("class_path"), str):
        yield where, path, dict(vars(args) if isinstance(args, Namespace) else args)
    for key, value in node.items():
        yield from _specs(value, where if key == "init_args" else f"{where}.{key}".lstrip("."))


def _bases(path: str) -> list[str]:
    """Where a class and its bases are defined; empty where there is no such class.

    Nothing is imported: the classes that a run has built are there, and a free mapping may name anything.
    """
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if not isinstance(found, type):
        return []
    cls: Any = found
    own = [base for base in cls.__mro__ if base.__init__ is cls.__init__ or base is cls]
    return [f"{base.__module__}.{base.__qualname__}" for base in own]


def _argument(text: str, args: dict[str, Any]) -> str:
    """``.lr`` if the message names one of the arguments, or else shows the value of one alone."""
    quoted = [name for name in args if re.search(rf"[`'\"]{re.escape(name)}[`'\"]", text)]
    words = {word.lower() for word in re.findall(r"\w+", text)}
    named = quoted or [name for name in args if name.lower() in words]
    shown = [
        name
        for name, value in args.items()
        if isinstance(value, int | float | str)
        and value not in (0, 1)  # which messages give as the ends of a range
        and re.search(rf"(?<![\w.-]){re.escape(str(value))}(?![\w.])", text)
    ]
    found = named or shown
    return f".{found[0]}" if len(found) == 1 else ""
