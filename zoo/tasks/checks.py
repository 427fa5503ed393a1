"""Checks of a task's inputs: the facts of the data, the roles of networks, and their first output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zoo import contracts
from zoo.errors import UserError
from zoo.factories import check_role

if TYPE_CHECKING:
    from zoo.tasks.base import Task


def merged_facts(task: Task) -> dict[str, Any]:
    """The task's facts, completed by those of the trainer's data.

    Raises:
        UserError: the data has another form of batch, or another value of a fact that the task needs.
    """
    trainer = task._trainer
    data = trainer.datamodule if trainer is not None else None  # type: ignore[attr-defined]
    said, known = dict(getattr(data, "facts", None) or {}), dict(task.facts)
    contracts.check_facts(said, f"{type(data).__name__}.facts")
    if trainer is not None and trainer.predicting:
        return known or said  # predicted files: facts that the task knows take precedence over the data's
    _check_form(task, data)
    for name in task.needs:
        if name in said and name in known and said[name] != known[name]:
            raise UserError(
                f"{type(task).__name__} was made for {name} {_short(known[name])}, the data has {_short(said[name])}"
            )
    return {**said, **known}


def _check_form(task: Task, data: Any) -> None:
    found = getattr(data, "batch", task.batch)  # a data module of another library declares none
    if found != task.batch and found not in contracts.form(task.batch).accepts:
        raise UserError(f"{type(task).__name__} wants data for {task.batch}, {type(data).__name__} is for {found}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."


def check_network(task: Task, name: str) -> None:
    """Refuse a network of another role than the one that the task has for it.

    Args:
        task: has the factory.
        name: the argument that the factory was given as.

    Raises:
        UserError: it has another role, or the argument's annotation does not say that it is a factory.
    """
    if name not in task.factories:
        raise UserError(
            f"{type(task).__name__} has no factory {name}: its argument of this name must be annotated as "
            "an ArchitectureFactory"
        )
    if wanted := task.role_of(name):
        check_role(task.factories[name], wanted, type(task).__name__)


def check_first_output(task: Task, name: str, sizes: dict[str, Any]) -> None:
    """Check a network's first output by its role, so that a wrong shape ends in a one-line error.

    Args:
        task: its attribute named like the factory is the network.
        name: the argument that the factory was given as.
        sizes: the facts that the network was built with.
    """
    network, wanted = getattr(task, name, None), task.role_of(name)
    if not wanted or not isinstance(network, nn.Module):
        return
    role = contracts.role(wanted)

    def check(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling() or (module.training and not role.smooth):
            return
        handle.remove()
        try:
            role.check(output, inputs, sizes)
        except contracts.ContractError as error:
            raise UserError(f"{type(module).__name__}, {type(task).__name__}'s {name}, gives {error}") from error

    handle = network.register_forward_hook(check)
