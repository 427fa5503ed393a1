"""Resuming a run: what its checkpoint brings along, what may not change, and how a restarted job finds its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.factories import class_of, takes
from zoo.tasks.base import Task
from zoo.training import checkpoints

# What a resumed run must not change: its optimiser's state, its splits or their order would no longer be its own; how
# weights start, it would not heed.
FIXED_ON_RESUME = (
    "model.class_path",
    "model.init_args.architecture.init_args.init",
    "model.init_args.optimizer",
    "model.init_args.scheduler",
    "model.init_args.parameter_groups",
    "data.class_path",
    "data.init_args.batch_size",
    "data.init_args.drop_last",
    "data.init_args.val_fraction",
    "data.init_args.test_fraction",
    "data.init_args.split_seed",
    "data.init_args.repeat_below",
    "data.init_args.samples_per_epoch",
    "seed_everything",
)
# What a schedule over the whole run depends on.
LENGTH = ("max_epochs", "max_steps", "accumulate_grad_batches", "limit_train_batches")


def base_of(checkpoint: dict[str, Any], path: Path, command: str) -> dict[str, Any]:
    """What a checkpoint says for this command: the task always, the data where it is known, the trainer for a fit."""
    record = checkpoints.run_record(checkpoint)
    keys = ("seed_everything", "trainer", "data") if command == "fit" else ("data",)
    return {
        "model": checkpoints.task_spec(checkpoint, path),
        **{k: record[k] for k in keys if record.get(k) is not None},
    }


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], checkpoint: Path) -> None:
    """Refuse a resumed run whose recipe differs from its checkpoint's where it must not.

    Args:
        before: what the checkpoint says (``base_of``).
        now: the resolved recipe.
        checkpoint: its file, for the message.

    Raises:
        UserError: it differs.
    """
    for key in FIXED_ON_RESUME:
        old, new = _get(before, key), _get(now, key)
        if old is not None and old != new:
            name = key.replace(".init_args", "").replace(".class_path", "")
            raise UserError(
                f"{name} can't change when a run goes on: {_short(old)} in the checkpoint, {_short(new)} now "
                f"(--model.weights {checkpoint} starts a new run from these weights)"
            )


def refuse_another_length(task: Task, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """A schedule over all steps is made for their number: a resumed run can't change it.

    Args:
        task: as it was built.
        before: what the checkpoint says (``base_of``).
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
                f"trainer.{key} can't change when a run goes on with {class_of(factory).__name__}, whose schedule "
                f"is made for all its steps: {old[key]} in the checkpoint, {new[key]} now"
            )


def checkpoint_after_restart(folder: Path) -> Path | None:
    """The last checkpoint of a job that SLURM or torchrun starts again; None for every other run."""
    last = folder / "checkpoints" / "last.ckpt"
    restarted = "SLURM_JOB_ID" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    return last if restarted and last.is_file() else None


def _get(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 100 else f"{text[:97]}..."
