"""A task from its checkpoint alone: rebuilt under the import allowlist of recipes, with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError

from zoo.architectures.base import skip_pretrained
from zoo.errors import UserError
from zoo.parsing import from_spec
from zoo.parsing_errors import user_message
from zoo.tasks.base import Task
from zoo.training.checkpoints import facts_in, read, resolve, task_spec


def load(path: str | Path, map_location: Any = "cpu") -> Task:
    """The task in a checkpoint, built and with its weights, in evaluation mode.

    Args:
        path: a checkpoint file, or a run folder (its best checkpoint, else its last).
        map_location: the device that its tensors go to.

    Raises:
        UserError: the file is missing, damaged, or names a class that is not allowed.
    """
    path = resolve(path)
    checkpoint = read(path, map_location)
    task = build_task(checkpoint, path)
    task.on_load_checkpoint(checkpoint)
    try:
        task.load_state_dict(checkpoint["state_dict"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return task.to(map_location).eval()


def build_task(checkpoint: dict[str, Any], path: Path) -> Task:
    """The task that a checkpoint's hyper-parameters describe, built, with random weights."""
    try:
        task = from_spec(Task, task_spec(checkpoint, path))
    except (ArgumentError, TypeError, ValueError) as error:
        raise UserError(f"{path} can't be rebuilt: {user_message(error)}") from error
    try:
        task.add_facts(facts_in(checkpoint))
    except UserError as error:
        raise UserError(f"{path} can't be rebuilt: {error}") from error
    with skip_pretrained():
        task.configure_model()
    return task
