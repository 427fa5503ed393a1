"""Classes read from their source by ``ast``, without importing them: for listings, completion and broken plugins.

Standard library only, since ``zoo list`` uses it.
"""

from __future__ import annotations

import ast
import re
import warnings
from contextlib import suppress
from typing import NamedTuple, TypeVar

from zoo.registry import Entry, locate

Definition = TypeVar("Definition", ast.ClassDef, ast.FunctionDef)


class SourceError(Exception):
    """A class's source can't be read; the text says why."""


class Parameter(NamedTuple):
    """An argument of a class as written in its source; ``default`` is None if it is required."""

    name: str
    annotation: str
    default: str | None


def summary(entry: Entry) -> str:
    """The first line of the class's docstring; empty if it has none.

    Raises:
        SourceError: the module can't be found, or the class in it.
    """
    text = _read(entry.module)
    name = entry.full_path.rpartition(".")[2]
    doc = _quick_docstring(text, name)
    if doc is None:
        doc = ast.get_docstring(definition(entry.module, name)[1], clean=False)  # cleaning imports ``inspect``
    return (doc or "").strip().partition("\n")[0]


def function_summary(module: str, name: str) -> str:
    """The first line of a function's docstring; empty if it has none.

    Raises:
        SourceError: the module can't be found, or the function in it.
    """
    node = _defined(module, name, ast.FunctionDef, "function")[1]
    return (ast.get_docstring(node, clean=False) or "").strip().partition("\n")[0]


# A class statement and its docstring, if both are simple; compiled once for all names.
_HEAD = re.compile(r'\nclass \w+(?:\([^()]*\))?:[^\n]*\n\s+r?"""(?:(?!""")[^\\])*"""')


def _quick_docstring(text: str, name: str) -> str | None:
    """The docstring from these lines alone, in a tenth of the time; None if they are not simple enough."""
    start = max(text.find(f"\nclass {name}("), text.find(f"\nclass {name}:"))
    found = _HEAD.match(text, start) if start >= 0 else None
    if found is None:
        return None
    try:
        node = _parse(found[0]).body[0]
    except SyntaxError:
        return None
    return ast.get_docstring(node, clean=False) if isinstance(node, ast.ClassDef) else None


def mentions(module: str, name: str) -> bool:
    """Whether a module may have this name: it is in the source, or the module defines names dynamically."""
    try:
        text = _read(module)
    except SourceError:
        return True  # compiled: only importing can tell
    return any(re.search(pattern, text) for pattern in (rf"\b{re.escape(name)}\b", r"import \*", "def __getattr__"))


def definition(module: str, name: str) -> tuple[str, ast.ClassDef]:
    """Module and syntax tree of a class, through ``from … import`` if the module only re-exports it.

    Raises:
        SourceError: the module can't be found or parsed, or has no such class.
    """
    return _defined(module, name, ast.ClassDef, "class")


def _defined(module: str, name: str, kind: type[Definition], word: str) -> tuple[str, Definition]:
    for _ in range(10):  # a package that re-exports from a package that re-exports
        tree = module_tree(module)
        for node in tree.body:
            if isinstance(node, kind) and node.name == name:
                return module, node
        origin = _imported_from(tree, module, name)
        if origin is None:
            break
        module, name = origin
    raise SourceError(f"{module} has no {word} {name}")


def module_tree(module: str) -> ast.Module:
    """The module's syntax tree.

    Raises:
        SourceError: it can't be found or parsed.
    """
    try:
        return _parse(_read(module))
    except (SyntaxError, ValueError) as error:
        raise SourceError(f"{module} can't be parsed: {error}") from error


def parameters(module: str, name: str) -> list[Parameter]:
    """Arguments of the class's ``__init__``; if it takes ``**`` arguments or has none, its bases' too.

    Raises:
        SourceError: the module can't be found or parsed, or has no such class.
    """
    found: dict[str, Parameter] = {}
    waiting, visited = [definition(module, name)], set()
    while waiting:
        module, node = waiting.pop(0)
        visited.add((module, node.name))
        function = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        for parameter in _arguments(function.args) if function else ():
            found.setdefault(parameter.name, parameter)
        if function is None or function.args.kwarg is not None:
            waiting += [d for d in _bases(module, node) if (d[0], d[1].name) not in visited]
    return list(found.values())


def _bases(module: str, node: ast.ClassDef) -> list[tuple[str, ast.ClassDef]]:
    found = []
    for base in node.bases:
        with suppress(SourceError):  # a library's class, whose arguments are not listed
            found.append(definition(module, ast.unparse(base)))
    return found


def _arguments(args: ast.arguments) -> list[Parameter]:
    named = [*args.posonlyargs, *args.args][1:]
    defaults = [None] * (len(named) - len(args.defaults)) + list(args.defaults)
    pairs = [*zip(named, defaults, strict=False), *zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return [
        Parameter(a.arg, ast.unparse(a.annotation) if a.annotation else "", ast.unparse(d) if d else None)
        for a, d in pairs
    ]


def _imported_from(tree: ast.Module, module: str, name: str) -> tuple[str, str] | None:
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            if (alias.asname or alias.name) == name:
                return _absolute(node, module), alias.name
    return None


def _absolute(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    spec = locate(module)
    package = module if spec and spec.submodule_search_locations is not None else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a listing ignores invalid escape sequences in a plugin
        return ast.parse(text)


def _read(module: str) -> str:
    spec = locate(module)
    if spec is None:
        raise SourceError(f"no module {module}")
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise SourceError(f"{module} has no Python source")
    try:
        with open(spec.origin, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{module} can't be read: {error}") from error
