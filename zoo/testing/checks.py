"""A check: a small function that tests one requirement for every entry of a kind."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from zoo.errors import UserError
from zoo.factories import spec


class Failed(AssertionError):  # noqa: N818  a finding; its text is used in the report
    """An entry does not do what it must; the text is one line: what was found, and what was expected."""


class Skipped(Exception):  # noqa: N818  not an error: it is counted, with its reason
    """A check could not be made; the text is the reason."""


@dataclass(frozen=True)
class Check:
    """One requirement for entries of a kind.

    Args:
        kind: ``architectures``, ``tasks``, ``data`` or ``parts``.
        roles: roles that it applies to. ``*`` is all, ``-role`` excludes one.
        after: checks that it depends on; if one of them has failed, this one is skipped.
        run: takes a case, and raises ``Failed`` or ``Skipped``.
    """

    kind: str
    roles: tuple[str, ...]
    after: tuple[str, ...]
    run: Callable[[Any], None]

    @property
    def name(self) -> str:
        """The function's name, which says what must be true."""
        return self.run.__name__

    def is_for(self, role: str) -> bool:
        """Whether it applies to this role."""
        general = "*" in self.roles and f"-{role}" not in self.roles
        return role in self.roles or (general and role not in ONLY_PREDICTED)


CHECKS: list[Check] = []
ONLY_PREDICTED = ("requests",)  # forms of data that nothing is trained on: a check names them to apply to them


# The checks that all others of a kind depend on.
FIRST = {"architectures": "is_built", "tasks": "is_built", "data": "is_set_up"}


def check(
    kind: str, roles: tuple[str, ...] = ("*",), after: tuple[str, ...] = (), needs_building: bool = True
) -> Callable[[Any], Any]:
    """Register a check; the function is returned unchanged. Fields as in ``Check``.

    Args:
        needs_building: it depends on the first check of its kind; False if it only uses the class.
    """

    def add(run: Callable[[Any], None]) -> Callable[[Any], None]:
        first = (FIRST[kind],) if needs_building and run.__name__ != FIRST[kind] else ()
        CHECKS.append(Check(kind, roles, (*first, *after), run))
        return run

    return add


def expect(true: Any, message: str) -> None:
    """Raise ``Failed`` with the message unless it is true."""
    if not true:
        raise Failed(message)


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in a nested structure, in order."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def difference(a: Any, b: Any) -> float:
    """Largest difference of two structures of tensors, relative to the larger magnitude.

    Infinite for different shapes and for values that are not finite.
    """
    first, second = tensors(a), tensors(b)
    if [t.shape for t in first] != [t.shape for t in second]:
        return math.inf
    worst = [0.0]
    for x, y in zip(first, second, strict=True):
        if x.numel():
            scale = max(float(x.abs().max()), float(y.abs().max()), 1e-12)
            worst.append(float((x.double() - y.double()).abs().max()) / scale)
    return max(worst) if all(math.isfinite(w) for w in worst) else math.inf


def expect_same(found: Any, expected: Any, what: str, tolerance: float = 1e-5) -> None:
    """Fail unless two structures of tensors agree to a relative tolerance."""
    apart = difference(found, expected)
    expect(apart <= tolerance, f"{what}: expected equal values, they are {apart:.1g} apart (relative)")


def same_bits(a: Any, b: Any) -> bool:
    """Whether two structures hold the same tensors, bit for bit."""
    first, second = tensors(a), tensors(b)
    return len(first) == len(second) and all(
        x.shape == y.shape and x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(first, second, strict=True)
    )


def as_plain(value: Any, where: str) -> Any:
    """The value written as JSON and read back.

    Raises:
        Failed: it is not plain data.
    """
    try:
        return json.loads(json.dumps(spec(value, where)))
    except (UserError, TypeError, ValueError) as error:
        raise Failed(f"{where} must be plain data that a checkpoint can hold: {error}") from error


def accepted(cls: type) -> set[str]:
    """Names of the arguments of a class, including those that ``**kwargs`` passes to its bases."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


@contextmanager
def one_line(doing: str, must: bool = True) -> Iterator[None]:
    """The block must raise a ``UserError`` of one line; with ``must=False`` it may also succeed."""
    try:
        yield
    except UserError as error:
        text = str(error)
        expect(text.strip() and "\n" not in text.strip(), f"{doing}: expected an error of one line, got {text!r}")
        return
    except (Failed, Skipped):
        raise
    except Exception as error:
        raise Failed(f"{doing}: expected a UserError of one line, got {first_line(error)}") from error
    if must:
        raise Failed(f"{doing}: expected a UserError of one line, it was accepted")


def first_line(error: BaseException) -> str:
    """Type and first line of an exception."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
