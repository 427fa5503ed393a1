"""Classes yet to be built: what each kind of factory is given, and how factories are checked, built and written.

A task receives classes to build, not built objects: a factory is a class or a ``functools.partial`` of one. What
only the data knows (classes, channels, size) is filled in by ``build`` where the class's signature has it, so no
recipe repeats it. ``spec`` writes a factory as plain data (``class_path``, ``init_args``) into a checkpoint, and
``KeepsArguments`` collects what is to be written from a constructor's signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import cache, partial, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, get_args, get_type_hints

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


class KeepsArguments:
    """Keeps the arguments of a data module or a task as its hyper-parameters, so that constructors only state them.

    Kept are the arguments of the object's own class, defaults included and ``**kwargs`` under the names they hold.
    They are in ``hparams`` before the constructor runs, which may change them there. Factories, told by their
    annotation, are checked first and reduced to class and plain arguments; the constructor is given the reduced ones.
    """

    hparams: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _keeping(cls.__init__)  # type: ignore[method-assign]


def _keeping(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor, preceded by the keeping of its arguments, and given reduced factories."""
    signature = inspect.signature(init)

    @wraps(init)  # jsonargparse and help read the constructor's own signature, annotations and source
    def keep_and_init(self: KeepsArguments, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            init(self, *args, **kwargs)  # which says what is wrong with them, and names the class
            raise
        outermost = "_hparams" not in vars(self)
        bound.apply_defaults()
        if outermost:
            self.hparams.update(_by_name(signature, bound.arguments))
        for name, (given, reduced) in _reduced_factories(init, bound.arguments).items():
            bound.arguments[name] = reduced
            if outermost or self.hparams.get(name, ...) is given:  # what a subclass handed on by its **kwargs
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
    """Those arguments that are factories by their annotation: as given, and reduced."""
    bases = {name: factory_base(hint) for name, hint in _hints(init).items()}
    return {
        name: (value, _reduced(value, base))
        for name, value in arguments.items()
        if (base := bases.get(name)) is not None
    }


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Its parameters' annotations, but for those whose names are imported for type checking only."""
    found: dict[str, Any] = {}
    for name, annotation in function.__annotations__.items():
        try:
            one = SimpleNamespace(__annotations__={name: annotation})
            found |= get_type_hints(one, globalns=getattr(function, "__globals__", {}))
        except NameError:
            continue
    return found


def factory_base(annotation: Any) -> type | None:
    """What the factories of an annotated argument build, be it one, several or none; None for other arguments."""
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torchvision.transforms.v2 import Transform

    from zoo.architectures.base import Architecture

    bases: dict[type, type] = {
        ArchitectureFactory: Architecture,
        OptimizerFactory: Optimizer,
        SchedulerFactory: LRScheduler,
        TransformFactory: Transform,
    }
    kinds = (kind for found in _kinds(annotation) for kind in found.__mro__)  # a plugin's protocol has facts of its own
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
        raise UserError(f"{_name(target)} can't be used here: it is not a subclass of {public_path(base)}")
    keywords = _plain_values(target, keywords)
    return partial(target, **keywords) if keywords else target


def public_path(cls: type) -> str:
    """A class's import path without modules that are private to its library."""
    return ".".join(part for part in f"{cls.__module__}.{cls.__qualname__}".split(".") if not part.startswith("_"))


def _parts_of(factory: Any) -> tuple[Any, dict[str, Any]]:
    if not isinstance(factory, partial):
        return factory, {}
    return next((a for a in factory.args if inspect.isclass(a)), factory.func), factory.keywords


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


FORMS = "give numbers, words, lists, or a class to be built with such arguments"


def spec(value: Any, where: str = "") -> Any:
    """The value as plain data that JSON can hold; a factory as ``class_path`` and ``init_args``.

    Raises:
        UserError: it can't be written plainly. Nothing is ever left out.
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


def default_arguments_are_plain(cls: type) -> None:
    """Check that a class that is built with its defaults can be written into a checkpoint.

    Raises:
        UserError: a default can't, such as a function; the argument is named, and what may stand there.
    """
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.default is not parameter.empty:
            spec(parameter.default, f"{cls.__name__}: {name}")


def check_role(factory: Any, role: str, needed_by: str) -> None:
    """Check that an architecture is called as its place calls it.

    Args:
        factory: of the architecture.
        role: one of the contracts' words, or ``backbone``, which every architecture is that states its stages.
        needed_by: what gives it that place, for the message.

    Raises:
        UserError: it is of other roles.
    """
    from zoo.architectures.base import Architecture

    cls = class_of(factory)
    if role in cls.roles or (role == "backbone" and cls.stages is not Architecture.stages):
        return
    roles = " or ".join(cls.roles) or "no role"
    raise UserError(f"{needed_by} needs an architecture of the role {role}, not {cls.__name__}, which is a {roles}")
