"""Classes yet to be built: what each kind of factory is given, and how factories are checked, built and written.

A task receives classes to build, not built objects: a factory is a class or a ``functools.partial`` of one. What
only the data knows (classes, channels, size) is filled in by ``build`` where the class's signature has it, so no
recipe repeats it. ``spec`` writes a factory as plain data (``class_path``, ``init_args``) into a checkpoint.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zoo import registry
from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torchvision.transforms.v2 import Transform

    from zoo.architectures.base import Architecture


class ArchitectureFactory(Protocol):
    """A network yet to be built; keywords are the facts that it may accept."""

    def __call__(
        self, *, num_classes: int, in_channels: int, image_size: list[int], vocabulary_size: int
    ) -> Architecture:
        """The network."""
        ...


class OptimizerFactory(Protocol):
    """An optimiser yet to be given its parameters."""

    def __call__(self, params: Iterable[Tensor]) -> Optimizer:
        """The optimiser."""
        ...


class SchedulerFactory(Protocol):
    """A learning-rate scheduler yet to be given its optimiser; ``total_steps`` is the run's optimiser steps."""

    def __call__(self, optimizer: Optimizer, *, total_steps: int) -> LRScheduler:
        """The scheduler."""
        ...


class TransformFactory(Protocol):
    """A transform of batches yet to be built."""

    def __call__(self, *, num_classes: int, image_size: list[int]) -> Transform:
        """The transform."""
        ...


def plain(factory: Any, base: type) -> Any:
    """A factory reduced to its class and plain arguments.

    What jsonargparse hands over also holds the whole command line; a deep copy (weight averaging) would copy the
    trainer and the data with it.

    Args:
        factory: a class, a ``functools.partial`` of one, or what jsonargparse makes of a ``class_path``.
        base: what the class must be a subclass of.

    Raises:
        UserError: it is no class of that kind. Functions are refused: a recipe is data, and must not choose calls.
    """
    target, keywords = _parts_of(factory)
    if not (inspect.isclass(target) and issubclass(target, base)):
        raise UserError(f"{_name(target)} is no {base.__name__}: only subclasses of {base.__name__} are accepted here")
    keywords = {k: _plain_value(v) for k, v in keywords.items()}
    return partial(target, **keywords) if keywords else target


def _parts_of(factory: Any) -> tuple[Any, dict[str, Any]]:
    if not isinstance(factory, partial):
        return factory, {}
    return next((a for a in factory.args if inspect.isclass(a)), factory.func), factory.keywords


def _plain_value(value: Any) -> Any:
    if not isinstance(value, partial) and not inspect.isfunction(value):
        return value
    target, keywords = _parts_of(value)
    if not inspect.isclass(target):
        raise UserError(f"{_name(target)} is a function; only classes are accepted in a recipe")
    return partial(target, **{k: _plain_value(v) for k, v in keywords.items()})


def _name(target: Any) -> str:
    return getattr(target, "__qualname__", None) or repr(target)


def build(factory: Any, needs: tuple[str, ...] = (), **facts: Any) -> Any:
    """Build with those of the facts that the class takes and that its recipe leaves open.

    Raises:
        UserError: the class does not take a fact that is needed.
    """
    target, given = _parts_of(factory)
    accepted = inspect.signature(target).parameters
    if missing := [name for name in needs if name not in accepted]:
        raise UserError(f"{target.__name__} takes no {missing[0]}, which is needed here")
    return factory(**{k: v for k, v in facts.items() if k in accepted and k not in given})


def pretrained_classes(factory: Any) -> list[str]:
    """Names of the classes that a network's own weights tell apart; empty where it is built without, or for others."""
    target, given = _parts_of(factory)
    names = target.pretrained_classes(given)
    return names if given.get("num_classes", len(names)) == len(names) else []


def class_of(factory: Any) -> Any:
    """The class that a factory builds."""
    return _parts_of(factory)[0]


def takes(factory: Any, name: str) -> bool:
    """Whether the factory's class has an argument of this name."""
    return name in inspect.signature(class_of(factory)).parameters


def spec(value: Any, where: str = "") -> Any:
    """The value as plain data that JSON can hold; a factory as ``class_path`` and ``init_args``.

    Raises:
        UserError: it can't be written plainly. Nothing is ever left out.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {
            str(k): registry.stable(v) if k in ("class_path", "_class_path") else spec(v, f"{where}.{k}".strip("."))
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [spec(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if inspect.isclass(value) or isinstance(value, partial):
        target, keywords = _parts_of(value)
        if inspect.isclass(target):
            path = registry.stable(f"{target.__module__}.{target.__qualname__}")
            return {"class_path": path, "init_args": {k: spec(v, f"{where}.{k}") for k, v in keywords.items()}}
    raise UserError(f"{where or 'a value'} is a {type(value).__name__}, which a checkpoint can't hold as plain data")
