"""Names to classes and recipes, from entry points. Standard library only, so that a listing never imports torch.

An entry's name is its class's name. Nothing is imported before it is named; a failed import is remembered and
told only if the name turns out to be needed.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from zoo.errors import UserError

KINDS = ("architectures", "tasks", "data", "parts")


@dataclass(frozen=True)
class Entry:
    """One class that a distribution registers.

    Args:
        kind: its group without the ``zoo.`` in front.
        point: the entry point itself.
    """

    kind: str
    point: EntryPoint

    @property
    def name(self) -> str:
        """The class's name."""
        return self.point.name

    @property
    def full_path(self) -> str:
        """Where the class is defined: ``package.module.Class``."""
        return f"{self.point.module}.{self.point.attr}"

    @property
    def stable_path(self) -> str:
        """Where the registry gives it: ``zoo.architectures.Class``. The full path where the name is claimed twice."""
        return f"zoo.{self.kind}.{self.name}" if len(find(self.name, self.kind)) == 1 else self.full_path

    @property
    def distribution(self) -> str:
        """The installed distribution, as ``name version``."""
        return f"{self.point.dist.name} {self.point.dist.version}" if self.point.dist else "unknown distribution"

    def load(self) -> type:
        """Import the class.

        Raises:
            UserError: it cannot be imported, or is called otherwise than its entry.
        """
        try:
            found = self.point.load()
        except Exception as error:  # whatever a plugin raises, it must be named
            raise UserError(
                f"{self.name} is registered by {self.distribution} as {self.point.value}, "
                f"which can't be imported: {type(error).__name__}: {error}"
            ) from error
        if getattr(found, "__name__", None) != self.name:
            raise UserError(f"{self.distribution} registers {self.name} but its class is {found!r}: the names must agree")
        return found


@cache
def entries() -> tuple[Entry, ...]:
    """Every registered class, by kind and name; a distribution that lies on the path twice counts once."""
    found = {
        (kind, point.name, point.value): Entry(kind, point) for kind in KINDS for point in entry_points(group=f"zoo.{kind}")
    }
    return tuple(sorted(found.values(), key=lambda e: (KINDS.index(e.kind), e.name.lower(), e.full_path)))


@cache
def _by_name() -> dict[str, tuple[Entry, ...]]:
    names: dict[str, tuple[Entry, ...]] = {}
    for entry in entries():
        names[entry.name] = (*names.get(entry.name, ()), entry)
    return names


def find(name: str, kind: str | None = None) -> tuple[Entry, ...]:
    """The entries of that name, of one kind or of all."""
    return tuple(e for e in _by_name().get(name, ()) if kind in (None, e.kind))


def suggest(name: str, names: Iterator[str] | list[str] | None = None) -> list[str]:
    """At most three registered names (or of ``names``) that look like this one, closest first."""
    lower = {known.lower(): known for known in (_by_name() if names is None else names)}
    return [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]


def did_you_mean(name: str, names: Iterator[str] | list[str] | None = None) -> str:
    """The suggestions as the end of a sentence; empty where nothing is close."""
    close = suggest(name, names)
    return f"; did you mean {' or '.join(close)}?" if close else ""


_failures: dict[str, str] = {}
_imported: set[str] = set()


def import_named(text: str) -> None:
    """Import what registers this name; do nothing for any other text. A failure is kept for ``failure``."""
    if text in _imported:
        return
    for entry in find(text):
        try:
            entry.load()
        except UserError as error:
            _failures[text] = str(error)
    _imported.add(text)


def failure(name: str) -> str | None:
    """Why the entry of this name could not be imported when it was mentioned."""
    return _failures.get(name)


def stable(full_path: str) -> str:
    """The path under which the registry gives this class, or the path itself for a class that is not registered."""
    for entry in find(full_path.rpartition(".")[2]):
        if full_path in (entry.full_path, entry.stable_path):
            return entry.stable_path
    return full_path


def attribute_access(kind: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for the package ``zoo.<kind>``: every registered class of it, plugins' too."""

    def get(name: str) -> Any:
        found = find(name, kind)
        if len(found) == 1:
            return found[0].load()
        if found:
            paths = " and ".join(e.full_path for e in found)
            raise AttributeError(f"{name} is claimed by {paths}; use one of these paths")
        raise AttributeError(f"zoo.{kind} has nothing called {name}{did_you_mean(name)}")

    return get, lambda: sorted({e.name for e in entries() if e.kind == kind})


@dataclass(frozen=True)
class Recipe:
    """A YAML file that a distribution brings: its name is its path without ``.yaml``."""

    name: str
    package: str
    path: Path


@cache
def recipes() -> tuple[Recipe, ...]:
    """Every installed recipe, the zoo's first, then by package and name. Broken recipe packages are left out."""
    found: list[Recipe] = []
    for point in entry_points(group="zoo.recipes"):
        try:
            spec = importlib.util.find_spec(point.value)
        except Exception:  # noqa: S112  a plugin's parent package that can't be imported; `zoo doctor` tells
            continue
        for folder in (spec.submodule_search_locations or []) if spec else []:
            root = Path(folder)
            for path in sorted(root.rglob("*.yaml")):
                found.append(Recipe(path.relative_to(root).with_suffix("").as_posix(), point.name, path))
    unique = {(recipe.name, recipe.package): recipe for recipe in found}
    return tuple(sorted(unique.values(), key=lambda r: (r.package != "lightning-zoo", r.package, r.name)))


def find_recipe(text: str) -> Path:
    """The file of a recipe that is given as an existing file, a name, or ``package:name``.

    Raises:
        UserError: there is none, or two packages bring one of that name.
    """
    if Path(text).is_file():
        return Path(text)
    package, _, name = text.rpartition(":")
    name = name.removesuffix(".yaml")
    found = [r for r in recipes() if r.name == name and package in ("", r.package)]
    if len(found) == 1:
        return found[0].path
    if found:
        choices = " or ".join(f"{r.package}:{r.name}" for r in found)
        raise UserError(f"several packages have a recipe {name}: say {choices}")
    raise UserError(
        f"no recipe {text}: neither a file nor an installed recipe{did_you_mean(name, [r.name for r in recipes()])}"
        " (`zoo list recipes` shows them)"
    )
