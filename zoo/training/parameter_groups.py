"""Parameter groups with their own learning rate, weight decay or optimiser, or frozen."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, TypedDict

from torch import nn
from torch.optim import Optimizer

from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.factories import OptimizerFactory, class_of, plain
from zoo.training.optimizers import MultiOptimizer

SETTINGS = ("lr", "lr_factor", "weight_decay", "optimizer")


class ParameterGroup(TypedDict, total=False):
    """A group of a task's parameters with settings of its own.

    Args:
        pattern: regular expression that is searched in the parameter's name; the first matching group wins.
        part: instead of a pattern, ``head``: the network's last layer or layers, as it names them.
        lr: learning rate, instead of the optimiser's.
        lr_factor: what the optimiser's learning rate is multiplied by, so that one number changes all.
        weight_decay: weight decay, instead of the optimiser's.
        optimizer: a separate optimiser for the group.
        frozen: do not train these parameters. Normalisation layers without other parameters also keep their running
            statistics, and use them to normalise.
    """

    pattern: str
    part: Literal["head"]
    lr: float
    lr_factor: float
    weight_decay: float
    optimizer: OptimizerFactory
    frozen: bool


def partial_first(factory: Any, first: Any) -> Any:
    """The factory with its first argument passed by name."""
    name = next(iter(inspect.signature(class_of(factory)).parameters))
    return partial(factory, **{name: first})


def plain_group(group: ParameterGroup) -> ParameterGroup:
    """The group with its own optimiser, if any, reduced to class and plain arguments."""
    return {**group, "optimizer": plain(group["optimizer"], Optimizer)} if "optimizer" in group else group


def split_parameters(network: nn.Module, groups: Sequence[ParameterGroup] = ()) -> list[Any]:
    """The trainable parameters for an optimiser: a plain list, or one dictionary per group.

    Parameters that the network itself freezes are left out, but a pattern may match them.

    Raises:
        UserError: a group's pattern matches no parameter, or none that is left; a frozen group has training settings;
            or every parameter is frozen.
    """
    matched, rest = _matches(network, groups)
    made: list[dict[str, Any]] = []
    for group, found in zip(groups, matched, strict=True):
        _refuse_settings(group)
        if group.get("frozen"):
            for p in found.values():
                p.requires_grad_(False)
        options = {k: v for k, v in group.items() if k in SETTINGS}
        made.append({"params": [p for p in found.values() if p.requires_grad], **options})
    made.append({"params": [p for p in rest.values() if p.requires_grad]})
    made = [group for group in made if group["params"]]
    if not made:
        raise UserError("parameter_groups freezes every parameter: nothing is left to train")
    return made if groups else made[0]["params"]


def _refuse_settings(group: ParameterGroup) -> None:
    """Refuse settings of a group that would have no effect."""
    which = repr(group.get("pattern") or group.get("part"))
    if group.get("frozen") and (meant := sorted(group.keys() & set(SETTINGS))):
        raise UserError(f"parameter_groups: {which} is frozen, so {meant[0]} has no effect there")
    if "lr_factor" in group and (other := sorted(group.keys() & {"lr", "optimizer"})):
        raise UserError(f"parameter_groups: {which} has lr_factor and {other[0]}: give one of them")
    if group.get("lr_factor", 0) < 0:
        raise UserError(f"parameter_groups: lr_factor of {which} must be at least 0")


def _pattern(network: nn.Module, group: ParameterGroup) -> str:
    """The expression for the names of a group's parameters.

    Raises:
        UserError: it is none, there are both a pattern and a part, or neither, or the network has no head.
    """
    if ("pattern" in group) == ("part" in group):
        raise UserError("parameter_groups: each group has either a pattern, or a part (head)")
    if "part" in group:
        layers = network.head_layers if isinstance(network, Architecture) else ()
        if not layers:
            raise UserError(f"parameter_groups: {type(network).__name__} has no head: give a pattern")
        return "^(" + "|".join(re.escape(f"{layer}.") for layer in layers) + ")"
    try:
        re.compile(group["pattern"])
    except re.error as error:
        raise UserError(f"parameter_groups: {group['pattern']!r} is not a regular expression: {error}") from error
    return group["pattern"]


def _matches(
    network: nn.Module, groups: Sequence[ParameterGroup]
) -> tuple[list[dict[str, nn.Parameter]], dict[str, nn.Parameter]]:
    """Each group's parameters by name, and the remaining ones; the first match wins."""
    named = dict(network.named_parameters())
    rest, matched = dict(named), []
    for group in groups:
        pattern = _pattern(network, group)
        if not any(re.search(pattern, name) for name in named):
            raise UserError(f"parameter_groups: no parameter's name has {pattern!r} in it")
        matched.append({name: p for name, p in rest.items() if re.search(pattern, name)})
        if not matched[-1]:
            raise UserError(f"parameter_groups: groups before {pattern!r} have all that it matches")
        rest = {name: p for name, p in rest.items() if name not in matched[-1]}
    return matched, rest


def frozen_norms(network: nn.Module, groups: Sequence[ParameterGroup]) -> list[nn.Module]:
    """Layers with running statistics whose every parameter is frozen by the groups.

    For one without parameters, those of its closest parent module with parameters decide.
    """
    matched, _ = _matches(network, groups)
    parts = zip(groups, matched, strict=True)
    frozen = {id(p) for group, found in parts if group.get("frozen") for p in found.values()}
    judged: dict[str, bool] = {}
    for name, module in network.named_modules():
        own = [id(p) in frozen for p in module.parameters()]
        judged[name] = all(own) if own else judged.get(name.rpartition(".")[0], False)
    modules = network.named_modules()
    return [m for name, m in modules if judged[name] and getattr(m, "running_mean", None) is not None]


def make_optimizer(factory: Any, params: Sequence[Any]) -> Optimizer:
    """The optimiser of these parameters or groups; a ``MultiOptimizer`` if a group has its own.

    Args:
        factory: optimiser of the groups without their own.
        params: as returned by ``split_parameters``.
    """
    own = [group for group in params if isinstance(group, dict) and "optimizer" in group]
    rest = [group for group in params if not (isinstance(group, dict) and "optimizer" in group)]
    made = [factory(rest)] if rest else []
    for group in own:
        made.append(group["optimizer"]([{k: v for k, v in group.items() if k != "optimizer"}]))
    for group in (group for optimizer in made for group in optimizer.param_groups):
        group["lr"] *= group.pop("lr_factor", 1)
    return MultiOptimizer(made) if len(made) > 1 else made[0]
