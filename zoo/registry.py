"""Names to classes and recipes, from entry points. Standard library only, so that a listing never imports torch.

An entry's name is its class's name. Nothing is imported before it is used; a failed import is recorded
and reported only if the name is needed. Start-up time matters here: named tuples instead of dataclasses
(which import ``inspect``), one pass over the installed distributions, and modules located without their parents.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import UserError

KINDS = ("architectures", "tasks", "data", "parts")
GROUPS = (*KINDS, "recipes", "commands", "contracts")  # of entry points, without the prefix ``zoo.``
OURS = "lightning-zoo"  # its entries keep their names, even if a plugin uses the same ones


class Entry(NamedTuple):
    """A class that a distribution registers in the group ``zoo.<kind>``; a function in ``zoo.commands``."""

    kind: str
    point: EntryPoint

    @property
    def name(self) -> str:
        """The class's name."""
        return self.point.name

    @property
    def module(self) -> str:
        """The module that it is imported from."""
        return self.point.value.partition(":")[0].strip()

    @property
    def full_path(self) -> str:
        """Where the class is defined: ``package.module.Class``."""
        return self.point.value.partition("[")[0].strip().replace(":", ".")

    @property
    def has_name(self) -> bool:
        """Whether its name is unambiguous: false if the zoo or another plugin has the same name."""
        return holder(self.name, self.kind) == self

    @property
    def label(self) -> str:
        """Its name in recipes: the class's name, or the full path if the name is ambiguous."""
        return self.name if self.has_name else self.full_path

    @property
    def stable_path(self) -> str:
        """Its registry path, ``zoo.architectures.Class``, or the full path if the name is ambiguous."""
        return f"zoo.{self.kind}.{self.name}" if self.has_name else self.full_path

    @property
    def package(self) -> str:
        """The installed distribution's name."""
        return _identity(self.point.dist)[0] if self.point.dist else "unknown distribution"

    @property
    def distribution(self) -> str:
        """The installed distribution, as ``name version``."""
        return distribution_of(self.point)

    def imported(self) -> Any:
        """Import the object that the entry points to.

        Raises:
            UserError: it cannot be imported.
        """
        try:
            return self.point.load()
        except (Exception, SystemExit) as error:  # a plugin may raise anything; the message must name it
            raise UserError(
                f"{self.name} is registered by {self.distribution} as {self.point.value}, "
                f"which can't be imported: {type(error).__name__}: {error}"
            ) from error

    def load(self) -> type:
        """Import the class.

        Raises:
            UserError: it cannot be imported, is not a class, or its name differs from its entry's.
        """
        found = self.imported()
        if not isinstance(found, type) or found.__name__ != self.name:
            raise UserError(
                f"{self.distribution} registers {self.name} as {self.point.value}, which is {found!r}: "
                f"it must be a class called {self.name}"
            )
        return found


@cache
def _identity(dist: Distribution) -> tuple[str, str]:
    """Name and version, read line by line, ten times as fast as the standard library's parser."""
    headers = {"Name": "unknown distribution", "Version": ""}
    for line in (dist.read_text("METADATA") or dist.read_text("PKG-INFO") or "").splitlines():
        key, _, value = line.partition(":")
        if key in headers:
            headers[key] = value.strip()
        if not line:
            break
    return headers["Name"], headers["Version"]


class _Scan(NamedTuple):
    points: tuple[EntryPoint, ...]
    unreadable: tuple[str, ...]


@cache
def _scan() -> _Scan:
    """Entry points of the zoo's groups. If a distribution is on the path twice, the first counts, as in imports."""
    points: dict[str, list[EntryPoint]] = {}
    unreadable = []
    for dist in distributions():
        text = dist.read_text("entry_points.txt") or ""
        if "[zoo." not in text:
            continue
        name = _identity(dist)[0].lower().replace("_", "-").replace(".", "-")
        try:
            points.setdefault(name, [point for point in dist.entry_points if point.group.startswith("zoo.")])
        except Exception as error:  # a malformed file must not hide the other distributions
            unreadable.append(f"{' '.join(_identity(dist))}: its entry_points.txt can't be read: {error}")
    return _Scan(tuple(point for found in points.values() for point in found), tuple(unreadable))


def unreadable() -> tuple[str, ...]:
    """The distributions whose entry points are malformed, each with the reason."""
    return _scan().unreadable


@cache
def entries() -> tuple[Entry, ...]:
    """Every registered class, by kind and name."""
    found = {Entry(kind, point) for kind in KINDS for point in _scan().points if point.group == f"zoo.{kind}"}
    return tuple(sorted(found, key=lambda e: (KINDS.index(e.kind), e.name.lower(), e.full_path)))


@cache
def commands() -> tuple[Entry, ...]:
    """The subcommands that plugins add to the command line, by name."""
    found = {Entry("commands", point) for point in _scan().points if point.group == "zoo.commands"}
    return tuple(sorted(found, key=lambda e: (e.name, e.full_path)))


def unknown_groups() -> tuple[EntryPoint, ...]:
    """Entry points of groups that the zoo does not read (``zoo.networks``)."""
    return tuple(point for point in _scan().points if point.group.removeprefix("zoo.") not in GROUPS)


def clear() -> None:
    """Clear the caches, so that newly installed packages are found (after an installation in this process)."""
    for function in (_identity, _scan, entries, commands, _by_name, recipes, locate):
        function.cache_clear()
    _failures.clear()
    _imported.clear()


@cache
def _by_name() -> dict[str, tuple[Entry, ...]]:
    names: dict[str, tuple[Entry, ...]] = {}
    for entry in entries():
        names[entry.name] = (*names.get(entry.name, ()), entry)
    return names


def find(name: str, kind: str | None = None) -> tuple[Entry, ...]:
    """The entries with this name, of one kind or of all."""
    return tuple(e for e in _by_name().get(name, ()) if kind in (None, e.kind))


def holder(name: str, kind: str) -> Entry | None:
    """The entry of a kind that this name refers to: the only one, else the zoo's; None if two plugins claim it."""
    found = find(name, kind)
    ours = [entry for entry in found if entry.package == OURS]
    return found[0] if len(found) == 1 else ours[0] if len(ours) == 1 else None


def clash(name: str, kind: str | None = None) -> str | None:
    """An error message if several plugins claim this name, else None."""
    for candidate in KINDS if kind is None else (kind,):
        found = find(name, candidate)
        if len(found) > 1 and holder(name, candidate) is None:
            return f"{name} is claimed by {' and '.join(e.full_path for e in found)}; use one of these paths"
    return None


def suggest(name: str, names: Iterable[str] | None = None) -> list[str]:
    """At most three registered names (or of ``names``) that look like this one, closest first."""
    import difflib

    spellings: dict[str, list[str]] = {}
    for known in dict.fromkeys(_by_name() if names is None else names):
        spellings.setdefault(known.lower(), []).append(known)
    close = difflib.get_close_matches(name.lower(), spellings, n=3, cutoff=0.6)
    return [known for match in close for known in spellings[match]][:3]


def did_you_mean(name: str, names: Iterable[str] | None = None) -> str:
    """The suggestions as the end of a sentence; empty if no name is close."""
    close = suggest(name, names)
    return f"; did you mean {' or '.join(close)}?" if close else ""


_failures: dict[str, str] = {}
_imported: set[str] = set()


def import_named(text: str) -> None:
    """Import the entry with this name or path; do nothing for any other text. A failure is kept for ``failure``.

    For a name that is claimed twice nothing is imported, since its meaning would depend on which import succeeds.
    """
    if text in _imported:
        return
    _imported.add(text)
    if (claimed := clash(text)) is not None:
        _failures[text] = claimed
        return
    for entry in mentioned(text):
        try:
            entry.load()
        except UserError as error:
            _failures[text] = _failures[entry.label] = str(error)


def mentioned(text: str) -> tuple[Entry, ...]:
    """The entries that this text refers to by name, full path or stable path.

    If the zoo and a plugin have the same name, the zoo's.
    """
    found = find(text.rpartition(".")[2])
    return tuple(e for e in found if text in (e.full_path, e.stable_path) or (text == e.name and e.has_name))


def failure(name: str) -> str | None:
    """Why the entry of this name could not be imported when it was mentioned."""
    return _failures.get(name)


def stable(full_path: str) -> str:
    """The registry path of this class, or the path itself for a class that is not registered."""
    for entry in find(full_path.rpartition(".")[2]):
        if full_path in (entry.full_path, entry.stable_path):
            return entry.stable_path
    return full_path


def attribute_access(kind: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for the package ``zoo.<kind>``: all its registered classes."""

    def get(name: str) -> Any:
        if (found := holder(name, kind)) is not None:
            return found.load()
        if (claimed := clash(name, kind)) is not None:
            raise AttributeError(claimed)
        raise AttributeError(f"zoo.{kind} has nothing called {name}{did_you_mean(name)}")

    return get, lambda: sorted({e.name for e in entries() if e.kind == kind})


@cache
def locate(module: str) -> ModuleSpec | None:
    """The module's spec, found without importing it or its parents; None if there is no such module."""
    loaded = sys.modules.get(module)
    if loaded is not None and loaded.__spec__ is not None:
        return loaded.__spec__
    parent, _, tail = module.rpartition(".")
    places: list[str] | None = None
    if parent:
        above = locate(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        places = list(above.submodule_search_locations)
    for finder in (finder for finder in sys.meta_path if hasattr(finder, "find_spec")):
        try:
            spec = finder.find_spec(module, places)
        except KeyError:  # a folder without __init__.py: Python's finder requires the parent to be imported
            spec = _folder(module, [str(Path(place, tail)) for place in places or ()])
        if spec is not None:
            return spec
    return None


def _folder(module: str, places: list[str]) -> ModuleSpec | None:
    spec = ModuleSpec(module, None, is_package=True)
    spec.submodule_search_locations = [place for place in places if Path(place).is_dir()]
    return spec if spec.submodule_search_locations else None


def contract_points() -> tuple[EntryPoint, ...]:
    """The entry points of forms, roles and facts."""
    return tuple(point for point in _scan().points if point.group == "zoo.contracts")


def distribution_of(point: EntryPoint) -> str:
    """The installed distribution that registers an entry point, as ``name version``."""
    return " ".join(_identity(point.dist)) if point.dist else "unknown distribution"


class Recipe(NamedTuple):
    """A YAML file of a distribution; its name is its path without ``.yaml``.

    ``package`` is the name of the entry point, by convention the distribution's; ``ours`` is true for the zoo's own.
    """

    name: str
    package: str
    path: Path
    ours: bool = False

    @property
    def label(self) -> str:
        """The shortest unambiguous name of this recipe."""
        return self.name if meant_recipe(named_recipes(self.name)) == self else self.qualified

    @property
    def qualified(self) -> str:
        """The unique name with its package: ``package:name``."""
        return f"{self.package}:{self.name}"


def recipe_packages() -> tuple[EntryPoint, ...]:
    """The entry points that name packages of recipes."""
    return tuple(point for point in _scan().points if point.group == "zoo.recipes")


def recipe_folders(point: EntryPoint) -> list[Path]:
    """The folders of an entry point's recipes; empty if its package can't be found, which ``zoo doctor`` reports."""
    spec = locate(point.value.strip())
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def yaml_files(folder: Path) -> list[Path]:
    """All YAML files below a folder, four times as fast as ``Path.rglob``."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names if name.endswith(".yaml")]


@cache
def recipes() -> tuple[Recipe, ...]:
    """Every installed recipe, the zoo's first, then by package and name."""
    found = {
        Recipe(
            str(path)[len(str(folder)) + 1 : -len(".yaml")].replace(os.sep, "/"),
            point.name,
            path,
            Entry("recipes", point).package == OURS,
        )
        for point in recipe_packages()
        for folder in recipe_folders(point)
        for path in yaml_files(folder)
    }
    return tuple(sorted(found, key=lambda r: (not r.ours, r.package, r.name, r.path)))


def named_recipes(text: str) -> list[Recipe]:
    """The installed recipes of that name or ``package:name``, with or without ``.yaml``."""
    package, _, name = text.rpartition(":")
    return [r for r in recipes() if r.name == name.removesuffix(".yaml") and package in ("", r.package)]


def meant_recipe(found: list[Recipe]) -> Recipe | None:
    """The recipe that a shared name refers to: the only one, else the zoo's."""
    ours = [recipe for recipe in found if recipe.ours]
    return found[0] if len(found) == 1 else ours[0] if len(ours) == 1 else None


def find_recipe(text: str) -> Path:
    """The file of a recipe: an existing file, a name (the zoo's own first), or ``package:name``.

    Raises:
        UserError: there is none, or two plugins have one of this name.
    """
    if Path(text).is_file():
        return Path(text)
    found = named_recipes(text)
    if (meant := meant_recipe(found)) is not None:
        return meant.path
    if found:
        packages = {r.package for r in found}
        choices = [r.qualified if len(packages) == len(found) else str(r.path) for r in found]
        raise UserError(f"several packages have a recipe {found[0].name}: say {' or '.join(choices)}")
    name = text.rpartition(":")[2].removesuffix(".yaml").removeprefix("recipes/")
    raise UserError(
        f"no recipe {text}: neither a file nor an installed recipe{did_you_mean(name, [r.name for r in recipes()])}"
        " (`zoo list recipes` shows them)"
    )
