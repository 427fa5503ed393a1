"""Select checks for entries and run them: for the command, and for the tests of the zoo and of plugins."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from zoo import registry
from zoo.architectures.base import Architecture
from zoo.data.base import Data
from zoo.errors import UserError
from zoo.registry import Entry
from zoo.tasks.base import Task
from zoo.testing import architectures, backbones, captioners, classes, data, denoisers, tasks
from zoo.testing.architectures import ArchitectureCase
from zoo.testing.checks import CHECKS, Check, Failed, Skipped, expect, first_line
from zoo.testing.reading import DataCase
from zoo.testing.task_case import TaskCase

STATED = (
    architectures,
    backbones,
    captioners,
    classes,
    data,
    denoisers,
    tasks,
)  # importing them registers their checks
BASES: dict[str, type] = {"architectures": Architecture, "tasks": Task, "data": Data}
CASES: dict[str, Any] = {"architectures": ArchitectureCase, "tasks": TaskCase, "data": DataCase}


def loads(entry: Entry) -> None:
    """It can be imported, is a class of its kind, and has a docstring."""
    try:
        found = entry.load()
    except UserError as error:
        raise Failed(str(error)) from error
    base = BASES.get(entry.kind, object)
    expect(issubclass(found, base), f"registered below zoo.{entry.kind}: expected a subclass of {base.__name__}")
    expect(found.__doc__ and found.__doc__ != base.__doc__, "expected a docstring")


@dataclass(frozen=True)
class Item:
    """One check of one entry in one role.

    Args:
        entry: the entry to check.
        role: the role; empty if the check applies to all roles.
        case: the check's argument.
        check: the check.
    """

    entry: Entry
    role: str
    case: Any
    check: Check

    def __str__(self) -> str:
        return f"{self.entry.label}-{self.role}-{self.check.name}" if self.role else f"{self.entry.label}-loads"

    def run(self) -> None:
        """Run the check without output and without changing the random generators.

        Raises:
            Failed, Skipped: the check failed or could not be made.
        """
        with _quiet():
            torch.manual_seed(0)
            self.check.run(self.case)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "torch.export")]
    levels, environment, threads = [logger.level for logger in loggers], dict(os.environ), torch.get_num_threads()
    states = random.getstate(), np.random.get_state()
    output = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), output[0], output[1]:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)  # more threads do not help with small tensors, and are slow on shared cores
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            random.setstate(states[0])
            np.random.set_state(states[1])
            os.environ.clear()
            os.environ.update(environment)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def items_of(entry: Entry) -> list[Item]:
    """The checks of an entry, by role; only ``loads`` if it can't be loaded."""
    found = [Item(entry, "", entry, Check(entry.kind, ("*",), (), loads))]
    try:
        cls = entry.load()
    except UserError:
        return found
    if entry.kind not in CASES or not issubclass(cls, BASES[entry.kind]):
        return found
    case_type = CASES[entry.kind]
    for role in case_type.roles(cls):
        case = case_type(cls, role)
        found += [Item(entry, role, case, c) for c in CHECKS if c.kind == entry.kind and c.is_for(role)]
    return found


def entries_of(names: Sequence[str] = ()) -> list[Entry]:
    """The entries with these names, paths or distributions; by default all installed ones.

    Raises:
        UserError: nothing has this name.
    """
    found: list[Entry] = []
    for name in names:
        same = [e for e in registry.entries() if name in (e.name, e.full_path, e.stable_path) or _is_from(e, name)]
        if not same:
            raise UserError(f"nothing installed is called {name}{registry.did_you_mean(name)} (`zoo list` shows all)")
        found += [entry for entry in same if entry not in found]
    return found if names else list(registry.entries())


def _is_from(entry: Entry, distribution: str) -> bool:
    return _normalised(entry.package) == _normalised(distribution)


def _normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@dataclass(frozen=True)
class Outcome:
    """The result of a check: ``passed``, ``failed`` or ``skipped``, and why."""

    item: Item
    status: Literal["passed", "failed", "skipped"]
    reason: str = ""

    def __str__(self) -> str:
        role = f" ({self.item.role})" if self.item.role else ""
        return f"{self.status.upper()} {self.item.entry.label}{role} {self.item.check.name}: {self.reason}"


def outcome(item: Item, wanting: set[str]) -> Outcome:
    """Run one check; skip it if a check that it depends on did not pass."""
    if stands_on := wanting.intersection(item.check.after):
        return Outcome(item, "skipped", f"{min(stands_on)} did not pass")
    try:
        item.run()
    except Skipped as reason:
        return Outcome(item, "skipped", str(reason))
    except Failed as error:
        return Outcome(item, "failed", " ".join(str(error).split()))
    except Exception as error:
        return Outcome(item, "failed", f"expected it to run, it raised {first_line(error)}")
    return Outcome(item, "passed")


def check_items(items: Sequence[Item]) -> list[Outcome]:
    """Run checks of one entry, in order."""
    outcomes: list[Outcome] = []
    for item in items:
        wanting = {o.item.check.name for o in outcomes if o.status != "passed" and o.item.role == item.role}
        outcomes.append(outcome(item, wanting))
    return outcomes


def check_entry(entry: Entry) -> list[Outcome]:
    """Run every check of one entry, in order."""
    return check_items(items_of(entry))


def conformance(*names: str) -> Callable[[Item], None]:
    """A parametrised test with every check of a distribution's entries (or of named ones), for a plugin's test file.

    >>> test_everything = conformance("my-plugin")
    """
    import pytest

    items = [item for entry in entries_of(names) for item in items_of(entry)]

    @pytest.mark.parametrize("item", items, ids=str)
    def test_conformance(item: Item) -> None:
        try:
            item.run()
        except Skipped as reason:
            pytest.skip(str(reason))

    return test_conformance
