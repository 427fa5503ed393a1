"""Factories: the protocols of each kind, and functions to check, build and serialise them.

A task receives classes to build, not built objects: a factory is a class or a ``functools.partial`` of one. What
only the data knows (classes, channels, size) is passed by ``build`` if the class's signature has it, so no
recipe repeats it. ``spec`` writes a factory as plain data (``class_path``, ``init_args``) into a checkpoint, and
``KeepsArguments`` collects the arguments of a constructor to be saved.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import cache, partial, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, get_args, get_type_hints

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchvision.transforms.v2 import Transform

from zoo import registry
from zoo.architectures.base import Architecture
from zoo.errors import UserError

# Not below a check for type checking: the parser would read and parse this file again for each protocol that it meets.


class ArchitectureFactory(Protocol):
    """Builds a network; keywords are the facts that it may accept.

    ``timestep`` is what a denoiser of a library that counts steps needs: factor and offset that make such a step of the
    time that it is told.
    """

    def __call__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: list[int],
        vocabulary_size: int,
        timestep: list[float],
    ) -> Architecture:
        """The network."""
        ...


class OptimizerFactory(Protocol):
    """Builds an optimiser from parameters."""

    def __call__(self, params: Iterable[Tensor]) -> Optimizer:
        """The optimiser."""
        ...


class SchedulerFactory(Protocol):
    """Builds a learning-rate scheduler; ``total_steps`` is the run's number of optimiser steps."""

    def __call__(self, optimizer: Optimizer, *, total_steps: int) -> LRScheduler:
        """The scheduler."""
        ...


class TransformFactory(Protocol):
    """Builds a transform of batches."""

    def __call__(self, *, num_classes: int, image_size: list[int]) -> Transform:
        """The transform."""
        ...


class KeepsArguments:
    """Saves the arguments of a data module's or a task's constructor as hyper-parameters.

    Saved are the arguments of the object's class, including defaults and the contents of ``**kwargs``. They are in
    ``hparams`` before the constructor runs, which may change them there. Factories, recognised by their annotation,
    are checked first and reduced to class and plain arguments; the constructor gets the reduced ones.
    """

    hparams: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _keeping(cls.__init__)  # type: ignore[method-assign]


def _keeping(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap a constructor to save its arguments first and to pass it reduced factories."""
    signature = inspect.signature(init)

    @wraps(init)  # jsonargparse and help read the constructor's own signature, annotations and source
    def keep_and_init(self: KeepsArguments, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            init(self, *args, **kwargs)  # it raises a TypeError that names the class
            raise
        outermost = "_hparams" not in vars(self)
        bound.apply_defaults()
        if outermost:
            self.hparams.update(_by_name(signature, bound.arguments))
        for name, (given, reduced) in _reduced_factories(init, bound.arguments).items():
            bound.arguments[name] = reduced
            if outermost or self.hparams.get(name, ...) is given:  # passed on by a subclass's **kwargs
                self.hparams[name] = reduced
        init(*bound.args, **bound.kwargs)

    return keep_and_init


def _by_name(signature: inspect.Signature, arguments: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in [*arguments.items()][1:]:  # without self
        many = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        found |= value if many else {name: value}
    return found


def _reduced_factories(init: Callable[..., None], arguments: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The arguments that are factories by their annotation: as given, and reduced."""
    bases = {name: factory_base(hint) for name, hint in _hints(init).items()}
    return {
        name: (value, _reduced(value, base))
        for name, value in arguments.items()
        if (base := bases.get(name)) is not None
    }


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Its parameters' annotations, except names that are imported for type checking only."""
    found: dict[str, Any] = {}
    for name, annotation in function.__annotations__.items():
        try:
            one = SimpleNamespace(__annotations__={name: annotation})
            found |= get_type_hints(one, globalns=getattr(function, "__globals__", {}))
        except NameError:
            continue
    return found


def factory_base(annotation: Any) -> type | None:
    """The class that an annotated argument's factories build; None if the argument is not a factory."""
    bases: dict[type, type] = {
        ArchitectureFactory: Architecture,
        OptimizerFactory: Optimizer,
        SchedulerFactory: LRScheduler,
        TransformFactory: Transform,
    }
    kinds = (kind for found in _kinds(annotation) for kind in found.__mro__)  # a plugin's protocol may add facts
    return next((bases[kind] for kind in kinds if kind in bases), None)


@cache
def factory_arguments(cls: Any) -> tuple[str, ...]:
    """Names of the arguments of a class's constructor that are factories by their annotation."""
    return tuple(name for name, hint in _hints(cls.__init__).items() if factory_base(hint) is not None)


def _kinds(annotation: Any) -> Iterator[Any]:
    if inspect.isclass(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


def _reduced(value: Any, base: type) -> Any:
    if value is None or isinstance(value, list | tuple):
        return None if value is None else [plain(factory, base) for factory in value]
    return plain(value, base)


def plain(factory: Any, base: type) -> Any:
    """A factory reduced to its class and plain arguments.

    jsonargparse's factories hold references to the whole configuration; a deep copy (weight averaging) would copy
    the trainer and the data, too.

    Args:
        factory: a class, a ``functools.partial`` of one, or what jsonargparse makes of a ``class_path``.
        base: what the class must be a subclass of.

    Raises:
        UserError: it is not a class of that kind. Functions are refused: a recipe must not choose functions to call.
    """
    target, keywords = _parts_of(factory)
    if not (inspect.isclass(target) and issubclass(target, base)):
        raise UserError(f"{_name(target)} can't be used here: it is not a subclass of {public_path(base)}")
    keywords = _plain_values(target, keywords)
    return partial(target, **keywords) if keywords else target


def public_path(cls: type) -> str:
    """A class's import path without private modules."""
    return ".".join(part for part in f"{cls.__module__}.{cls.__qualname__}".split(".") if not part.startswith("_"))


def _parts_of(factory: Any) -> tuple[Any, dict[str, Any]]:
    """A factory's class and its arguments by name.

    Raises:
        UserError: it has positional arguments that its class does not name.
    """
    if not isinstance(factory, partial):
        return factory, {}
    if inspect.isclass(factory.func):
        return factory.func, {**_named(factory), **factory.keywords}
    # What jsonargparse makes of a class_path: a function of its own that is called with the class, maybe in layers.
    inner = next((a for a in factory.args if inspect.isclass(a) or isinstance(a, partial)), factory.func)
    target, given = _parts_of(inner)
    return target, {**given, **factory.keywords}


def _named(factory: partial[Any]) -> dict[str, Any]:
    if not factory.args:
        return {}
    signature = inspect.signature(factory.func)
    try:
        bound = signature.bind_partial(*factory.args).arguments
    except TypeError as error:
        raise UserError(f"{_name(factory.func)}: {error}") from error
    if any(signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL for name in bound):
        raise UserError(f"{_name(factory.func)}: give its arguments by name")
    return bound


def _plain_values(target: type, keywords: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain_value(value, f"{target.__name__}: {name}") for name, value in keywords.items()}


def _plain_value(value: Any, where: str) -> Any:
    if inspect.isroutine(value):
        raise UserError(_refusal_of_function(where, value))
    if not isinstance(value, partial):
        return value
    target, keywords = _parts_of(value)
    if not inspect.isclass(target):
        raise UserError(_refusal_of_function(where, target))
    return partial(target, **_plain_values(target, keywords))


def _refusal_of_function(where: str, function: Any) -> str:
    name = _name(function).rpartition(".")[2]
    return f"{where} is a function, {name}; give a class, such as torch.nn.ReLU, or a word"


def _name(target: Any) -> str:
    return getattr(target, "__qualname__", None) or repr(target)


def build(factory: Any, needs: tuple[str, ...] = (), **facts: Any) -> Any:
    """Build with the facts that the class takes and that the recipe does not set.

    Raises:
        UserError: the class does not take a fact that is needed.
    """
    target, given = _parts_of(factory)
    accepted = inspect.signature(target).parameters
    if missing := [name for name in needs if name not in accepted]:
        raise UserError(f"{target.__name__} takes no {missing[0]}, which is needed here")
    return factory(**{k: v for k, v in facts.items() if k in accepted and k not in given})


def pretrained_classes(factory: Any) -> list[str]:
    """Names of the pretrained classes of a network; empty without pretrained weights or for other classes."""
    target, given = _parts_of(factory)
    names = target.pretrained_classes(given)
    return names if given.get("num_classes", len(names)) == len(names) else []


def class_of(factory: Any) -> Any:
    """The class that a factory builds."""
    return _parts_of(factory)[0]


def takes(factory: Any, name: str) -> bool:
    """Whether the factory's class has an argument of this name."""
    return name in inspect.signature(class_of(factory)).parameters


FORMS = "give numbers, words, lists, or a class to be built with such arguments"


def spec(value: Any, where: str = "") -> Any:
    """The value as plain data that JSON can hold; a factory as ``class_path`` and ``init_args``.

    Raises:
        UserError: it can't be written as plain data. Nothing is omitted silently.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.name  # as a recipe has it
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
    if inspect.isroutine(value) or isinstance(value, partial):
        raise UserError(_refusal_of_function(where or "a value", value.func if isinstance(value, partial) else value))
    kind = type(value).__name__
    raise UserError(f"{where or 'a value'} is a {kind}, which a checkpoint can't hold as plain data; {FORMS}")


def check_role(factory: Any, role: str, needed_by: str) -> None:
    """Check that an architecture has the required role.

    Args:
        factory: of the architecture.
        role: name of a role, or ``backbone``, the role of every architecture with stages.
        needed_by: what requires the role, for the message.

    Raises:
        UserError: it has other roles.
    """
    cls = class_of(factory)
    if role in cls.roles or (role == "backbone" and cls.stages is not Architecture.stages):
        return
    roles = " or ".join(cls.roles) or "no role"
    raise UserError(f"{needed_by} needs an architecture of the role {role}, not {cls.__name__}, which is a {roles}")
