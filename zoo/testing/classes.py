"""Checks of every class, whatever its kind: no misspelt hook, no argument that a checkpoint can't hold."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn

from zoo.testing.checks import accepted, as_plain, check, expect

KINDS = ("architectures", "tasks", "data")
CLOSE = 0.86  # difflib's ratio above which a name counts as a misspelt hook
_BASES = (LightningModule, LightningDataModule, nn.Module)


def hooks_are_spelt_right(case: Any) -> None:
    """No method that its module never calls has almost the name of a hook: it would be that hook, misspelt."""
    library = [base for base in case.cls.__mro__ if base in _BASES or base.__module__.endswith(".base")]
    hooks = {name for base in library for name in dir(base) if not name.startswith("_")}
    for base in _own(case.cls, library):
        for name in sorted({name for name, value in vars(base).items() if _is_method(name, value)} - hooks):
            close = difflib.get_close_matches(name, hooks, n=1, cutoff=CLOSE)
            meant = close and not re.search(rf"\.{name}\b", _source(base))
            expect(not meant, f"its method {name} is never called: is {''.join(close)} meant?")


def _own(cls: type, library: list[type]) -> list[type]:
    package = cls.__module__.partition(".")[0]
    return [base for base in cls.__mro__ if base.__module__.partition(".")[0] == package and base not in library]


def _is_method(name: str, value: Any) -> bool:
    return not name.startswith("_") and (callable(value) or isinstance(value, property))


def _source(cls: type) -> str:
    try:
        return inspect.getsource(sys.modules[cls.__module__])
    except (OSError, TypeError):  # compiled, or defined interactively
        return ""


def defaults_are_plain(case: Any) -> None:
    """Defaults of its arguments can be saved in a checkpoint: plain data or classes, not functions."""
    for base in case.cls.__mro__:
        if "__init__" not in vars(base) or base in _BASES:
            continue
        for name, parameter in inspect.signature(vars(base)["__init__"]).parameters.items():
            if parameter.default is not parameter.empty and name in accepted(case.cls):
                as_plain(parameter.default, f"{case.cls.__name__}'s default of {name}")


for kind in KINDS:
    check(kind, needs_building=False)(hooks_are_spelt_right)
    check(kind, needs_building=False)(defaults_are_plain)
