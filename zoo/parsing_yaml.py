"""Recipes as YAML: what the field's loader takes, but without what it passes over in silence or can't survive.

A key that is given twice (also as ``a: {b: 1}`` and ``a.b: 2``), values that expand without end, NUL characters and
numbers that Python refuses are errors with their line. ``~`` at the start of a text is the home folder.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any

import yaml
from jsonargparse import get_loader
from yaml.constructor import ConstructorError

from zoo.home import with_home

LARGEST = 100_000  # values in one recipe, with aliases expanded

_load = get_loader("yaml")
_UNREADABLE = (ValueError, LookupError, AttributeError, TypeError, OverflowError)  # of values with a tag, or of numbers


def _reason(error: Exception) -> str:
    return str(error).partition(";")[0]  # what follows is advice to programmers


def load_yaml(text: str) -> Any:
    """Plain data from YAML.

    Raises:
        yaml.YAMLError: it is not valid YAML, gives a key twice, or holds values that can't be used.
    """
    try:
        if ":" in text:  # else there are no keys
            yaml.load(text, Loader=_strict_loader())
        value = _load(text)
        if size(value, {}) > LARGEST:
            raise yaml.YAMLError(f"its aliases expand to more than {LARGEST:,} values")
        return _with_homes(value)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except _UNREADABLE as error:
        raise yaml.YAMLError(_reason(error)) from error


@cache
def _strict_loader() -> Any:
    _load("{}")  # jsonargparse makes its loader on first use
    from jsonargparse._loaders_dumpers import get_yaml_default_loader

    return type("StrictLoader", (_Strict, get_yaml_default_loader()), {})


class _Strict:
    """What is added to a safe loader: repeated keys, NUL characters and unreadable values are errors with a line."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)  # type: ignore[call-arg]
        self._checked: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Look at a mapping's own keys, before those that it takes from others by ``<<`` are added."""
        if id(node) not in self._checked:
            self._checked.add(id(node))
            _refuse_repeated(node)
        super().flatten_mapping(node)  # type: ignore[misc]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value, if Python can hold it."""
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
            raise ConstructorError(None, None, "a text holds a NUL character", node.start_mark)
        try:
            return super().construct_object(node, deep)  # type: ignore[misc]
        except _UNREADABLE as error:
            raise ConstructorError(None, None, f"a value can't be read: {_reason(error)}", node.start_mark) from error


def _refuse_repeated(node: yaml.MappingNode) -> None:
    lines: dict[Hashable, int] = {}
    whole = {key.value: key for key, value in node.value if isinstance(value, yaml.MappingNode)}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        for head in (key.value[:at] for at, letter in enumerate(key.value) if letter == "."):
            if head in whole:
                line = whole[head].start_mark.line + 1
                problem = f"the key {key.value} is given beside {head} (line {line}), so one would override the other"
                raise ConstructorError(None, None, problem, key.start_mark)
        name = (key.tag, key.value)
        if name in lines:
            problem = f"the key {key.value} is given twice (first in line {lines[name]})"
            raise ConstructorError(None, None, problem, key.start_mark)
        lines[name] = key.start_mark.line + 1


def explain(error: yaml.YAMLError) -> str:
    """What is wrong, in one line, with the line of the file where it is known."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    context = getattr(error, "context", None)
    return f"line {mark.line + 1}: " + " ".join(f"{f'{context}, ' if context else ''}{problem}".split())


def size(node: Any, known: dict[int, int]) -> int:
    """Number of values in a tree with aliases expanded, without visiting them repeatedly."""
    if id(node) not in known and isinstance(node, dict | list | tuple):
        below = node.values() if isinstance(node, dict) else node
        known[id(node)] = LARGEST + 1  # a recursive alias counts as too large
        known[id(node)] = 1 + sum(size(value, known) for value in below)
    return known.get(id(node), 1)


def _with_homes(value: Any) -> Any:
    """The tree with ``~`` and ``~user`` at the start of a text replaced by the home folder."""
    if isinstance(value, str):
        return with_home(value) if value.startswith("~") else value
    if isinstance(value, dict):
        return {k: _with_homes(v) for k, v in value.items()}
    return [_with_homes(v) for v in value] if isinstance(value, list) else value
