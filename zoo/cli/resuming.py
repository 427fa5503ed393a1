"""Resuming a run: the settings in its checkpoint, what must not change, and a restarted job's checkpoint."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

from zoo import registry
from zoo.errors import UserError
from zoo.factories import class_of, takes
from zoo.tasks.base import Task
from zoo.training import checkpoints
from zoo.training.jobs import current_job

# Arguments that a schedule over the whole run depends on.
LENGTH = ("max_epochs", "max_steps", "accumulate_grad_batches", "limit_train_batches")


def base_of(checkpoint: dict[str, Any], path: Path, command: str) -> dict[str, Any]:
    """The settings that a checkpoint provides for this command: task, data if known, and trainer for a fit."""
    record = checkpoints.run_record(checkpoint)
    keys = ("seed_everything", "trainer", "data") if command == "fit" else ("data",)
    return {
        "model": checkpoints.task_spec(checkpoint, path),
        **{k: record[k] for k in keys if record.get(k) is not None},
    }


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], checkpoint: Path) -> None:
    """Check that a resumed run's recipe differs from its checkpoint's only where it may.

    Args:
        before: the settings in the checkpoint (``base_of``).
        now: the resolved recipe.
        checkpoint: its file, for the message.

    Raises:
        UserError: it differs.
    """
    changed = next(changes(before, now), None)
    if changed is not None:
        name, old, new = changed
        raise UserError(
            f"{name} can't change when a run is resumed: {_short(old)} in the checkpoint, {_short(new)} now "
            f"(--model.weights {shlex.quote(str(checkpoint))} starts a new run from these weights)"
        )


Change = tuple[str, Any, Any]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """Differences that the classes do not allow, as name, old and new value.

    Each class of a task, of data or of a network says by ``may_change`` which of its arguments a resumed run may
    change. Arguments that only one of the two has come from another version of the class.
    """
    if before.get("seed_everything", now.get("seed_everything")) != now.get("seed_everything"):
        yield "seed_everything", before["seed_everything"], now["seed_everything"]
    for key in ("model", "data"):
        if before.get(key) is not None:
            yield from _changed(before[key], now.get(key), key)


def _changed(old: Any, new: Any, name: str) -> Iterator[Change]:
    if not (_is_spec(old) and _is_spec(new)) or not _same_class(old["class_path"], new["class_path"]):
        if not _alike(old, new):
            yield name, old, new
        return
    given, found = old.get("init_args") or {}, new.get("init_args") or {}
    free = {"facts", *may_change(_class_at(old["class_path"]))}  # facts are compared once the data's are known
    for key in sorted(given.keys() & found.keys() - free):
        yield from _changed(given[key], found[key], f"{name}.{key}")


def _same_class(old: str, new: str) -> bool:
    """Whether two paths are the same class: a checkpoint has its defining module, a recipe may have another path."""
    return old == new or ((cls := _class_at(old)) is not None and cls is _class_at(new))


def _is_spec(value: Any) -> bool:
    return isinstance(value, Mapping) and "class_path" in value


def _alike(old: Any, new: Any) -> bool:
    """Whether two values are the same, including specs in lists."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return all(next(_changed(a, b, ""), None) is None for a, b in zip(old, new, strict=True))
    if isinstance(old, Mapping) and isinstance(new, Mapping) and not _is_spec(old):
        return old.keys() == new.keys() and all(next(_changed(old[k], new[k], ""), None) is None for k in old)
    return bool(old == new)


def may_change(cls: Any) -> set[str]:
    """The arguments that a resumed run may change, from a class and its bases."""
    return {name for base in getattr(cls, "__mro__", ()) for name in vars(base).get("may_change", ())}


def _class_at(path: str) -> Any:
    """The class of this path, which the parser has imported."""
    for entry in registry.mentioned(path):
        return entry.load()
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def refuse_another_length(task: Task, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a resumed run keeps the number of steps if its schedule depends on it.

    Args:
        task: the built task.
        before: the settings in the checkpoint (``base_of``).
        now: the resolved recipe.

    Raises:
        UserError: the schedule depends on the run's length, which differs.
    """
    factory = task.factories.get("scheduler")
    if factory is None or not takes(factory, "total_steps"):
        return
    old, new = before.get("trainer") or {}, now["trainer"]
    for key in LENGTH:
        if key in old and old[key] != new[key]:
            raise UserError(
                f"trainer.{key} can't change when a run is resumed with {class_of(factory).__name__}, whose schedule "
                f"depends on the number of steps: {old[key]} in the checkpoint, {new[key]} now"
            )


def checkpoint_after_restart(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run whose job has been started again; None for every other run.

    Raises:
        UserError: all of its checkpoints are damaged.
    """
    job = current_job()
    if job is None or not job.restarted or not any(folder.glob("checkpoints/*.ckpt")):
        return None
    return checkpoints.find_last(folder)


def say_if_nothing_left(trainer: Trainer, checkpoint: dict[str, Any], path: Path) -> None:
    """Print why a resumed run has trained nothing, if it has not.

    Args:
        trainer: after the fit.
        checkpoint: the content of the file that it was resumed from.
        path: this file.
    """
    done = checkpoint.get("global_step")
    if trainer.global_step == done:
        print(f"zoo: nothing to train: {path} is at step {done}, and {_limit_reached(trainer)}", flush=True)


def _limit_reached(trainer: Trainer) -> str:
    timers = [c for c in trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
    if any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers):
        return "trainer.max_time is over (--trainer.max_time TIME, counted over all of the run, trains longer)"
    for name, at in (("max_steps", trainer.global_step), ("max_epochs", trainer.current_epoch)):
        limit = getattr(trainer, name)
        if limit is not None and 0 <= limit <= at:
            return f"trainer.{name} {limit} is reached (--trainer.{name} N trains longer)"
    return "its run has ended"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 100 else f"{text[:97]}..."
