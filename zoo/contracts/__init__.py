"""Definitions of the forms of batches, the roles of networks and the facts of data.

The conformance kit, export, ``zoo inspect``, tasks and data use these definitions. A plugin adds its own by the
entry-point group ``zoo.contracts``; its entries are ``Form``, ``Role`` or ``Fact`` objects, registered by name:

    [project.entry-points."zoo.contracts"]
    depth_estimation = "zoo_depth.contracts:DEPTH_ESTIMATION"

A class then sets ``batch = "depth_estimation"`` or ``roles = ("depth_estimator",)``, and ``zoo check`` checks it like
the zoo's own classes.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from zoo import registry
from zoo.contracts.base import ContractError as ContractError
from zoo.contracts.base import Form as Form
from zoo.contracts.base import Role as Role
from zoo.contracts.base import expect as expect
from zoo.errors import UserError
from zoo.facts import KNOWN, Fact, Facts


def form(name: str) -> Form:
    """The form of batch of this name.

    Raises:
        UserError: neither the zoo nor a plugin has it, or the plugin's can't be imported.
    """
    return _find(name, Form, "form of batch")


def role(name: str) -> Role:
    """The role of this name.

    Raises:
        UserError: neither the zoo nor a plugin has it, or the plugin's can't be imported.
    """
    return _find(name, Role, "role")


def is_role(name: str) -> bool:
    """Whether there is a role of this name; a plugin is imported only if it registers the name."""
    found = _own().get(name) or next((load(p) for p in registry.contract_points() if p.name == name), None)
    return isinstance(found, Role)


@cache
def facts() -> dict[str, Fact]:
    """Every fact that data may declare, from the zoo and from plugins, by name."""
    found = (load(point) for point in registry.contract_points())
    return {**KNOWN, **{one.name: one for one in found if isinstance(one, Fact)}}


def check_facts(facts: Any, where: str = "model.facts") -> None:
    """Check names, types, ranges and consistency of facts, in linear time.

    Plugins' facts are imported only if they occur.

    Args:
        facts: the facts to check.
        where: their name in error messages.

    Raises:
        UserError: a fact is unknown, or its value is invalid.
    """
    if not isinstance(facts, Mapping):
        raise UserError(f"{where} must be a mapping of facts to values, not {_short(facts)}")
    for name, value in facts.items():
        known = KNOWN.get(name) or _fact_of_a_plugin(name)
        if known is None:
            names = [*KNOWN, *(point.name for point in registry.contract_points())]
            close = registry.did_you_mean(str(name), names) or f": there are {', '.join(KNOWN)}"
            raise UserError(f"{where}.{name}: there is no such fact{close}")
        if not known.check(value, cast(Facts, facts)):
            raise UserError(f"{where}.{name} must be {known.wanted}, not {_short(value)}")


def _fact_of_a_plugin(name: str) -> Fact | None:
    found = (load(point) for point in registry.contract_points() if point.name == name)
    return next((one for one in found if isinstance(one, Fact)), None)


def _short(value: Any) -> str:
    """The value for a message, in bounded time: a long list as its length and its first values."""
    short = reprlib.Repr()
    short.maxlist = short.maxtuple = 2
    short.maxlevel = 3
    if isinstance(value, list | tuple) and len(value) > 8:
        return f"{len(value)} values, {short.repr(list(value[:3]))[:40].replace(', ...]', '')}, …]"
    text = short.repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _find(name: str, kind: type, what: str) -> Any:
    own = _own()
    if isinstance(own.get(name), kind):
        return own[name]
    for point in registry.contract_points():
        if point.name == name and isinstance(found := load(point), kind):
            return found
    known = [n for n, one in own.items() if isinstance(one, kind)]
    points = [point.name for point in registry.contract_points()]
    raise UserError(f"there is no {what} called {name}{registry.did_you_mean(name, [*known, *points])}")


@cache
def _own() -> dict[str, Form | Role]:
    from zoo.contracts.forms import FORMS
    from zoo.contracts.roles import ROLES

    return {one.name: one for one in (*FORMS, *ROLES)}


@cache
def load(point: Any) -> Form | Role | Fact:
    """What an entry point of the group ``zoo.contracts`` registers.

    Raises:
        UserError: it can't be imported, or is none of the three, or has another name than it is registered by.
    """
    package = registry.distribution_of(point)
    try:
        found = point.load()
    except Exception as error:  # a plugin may raise anything; the message must name it
        raise UserError(
            f"{package} registers {point.name} as {point.value}, which can't be imported: {error}"
        ) from error
    if not isinstance(found, Form | Role | Fact) or found.name != point.name:
        raise UserError(
            f"{package} registers {point.name} below zoo.contracts as {point.value}: "
            "expected a zoo.contracts.Form, Role or Fact of that name"
        )
    return found
