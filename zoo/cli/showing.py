"""``zoo show``: one class or recipe in full.

Classes are imported to be shown; one that can't be imported is shown from its source, with the reason.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from zoo import registry
from zoo.cli.listing import claims, known_names, leading_comment, read_text, refuse_options, wants_help
from zoo.errors import UserError
from zoo.registry import Entry, Recipe
from zoo.source import Parameter, SourceError, definition, module_tree, parameters

HELP = """\
usage: zoo show NAME

A class (AlexNet, zoo.data.MNIST5k) with its package, paper, arguments and the
recipes that use it; or a recipe (alexnet, package:name) with its file; or, by
the name slurm, a batch script for that scheduler (zoo show slurm > job.sh).
"""


def main(argv: list[str]) -> int:
    """Print one class or recipe in full; all of them if the name is claimed twice.

    Args:
        argv: one name, or the full path of a class, or ``package:name`` of a recipe.

    Raises:
        UserError: nothing has this name.
    """
    if wants_help(argv):
        print(HELP, end="")
        return 0
    refuse_options("show", argv)
    if len(argv) != 1:
        raise UserError("zoo show takes one name (`zoo list` shows them all)")
    entries, recipes = _entries_of(argv[0]), registry.named_recipes(argv[0])
    if not entries and not recipes and argv == ["slurm"]:
        print(Path(__file__).with_name("slurm.sh").read_text(encoding="utf-8"), end="")
        return 0
    if not entries and not recipes:
        raise UserError(
            f"nothing called {argv[0]} is installed{registry.did_you_mean(argv[0], known_names())}"
            " (`zoo list` shows all)"
        )
    pages = [*map(_class_page, entries), *map(_recipe_page, recipes)]
    pages = [*claims(argv[0]), *pages]
    print(("\n\n" + "-" * 80 + "\n\n").join(pages))
    return 0


def _entries_of(text: str) -> list[Entry]:
    name = text.rpartition(".")[2]
    return [e for e in registry.find(name) if text in (e.name, e.full_path, e.stable_path, f"zoo.{e.kind}.{e.name}")]


class _View(NamedTuple):
    """The contents of a page on a class, from the class itself or from its source."""

    docs: list[str]
    arguments: list[Parameter]
    meanings: dict[str, str]
    notes: dict[str, str]


def _class_page(entry: Entry) -> str:
    try:
        view, problem = view_of_class(entry.load()), ""
    except UserError as error:
        view, problem = _view_of_source(entry), str(error)
    uses = [r.label for r in registry.recipes() if names(r, entry)]
    facts = {
        "kind": {"architectures": "architecture", "tasks": "task", "parts": "part"}.get(entry.kind, entry.kind),
        "package": entry.distribution,
        "path": entry.stable_path,
        "defined in": entry.full_path,
        **view.notes,
        "recipes": ", ".join(uses) or "none",
    }
    parts = [
        f"{entry.name}\n" + _aligned(facts),
        f"It can't be used: {problem}" if problem else "",
        *map(_fitted, view.docs),
        _argument_list(entry, view),
    ]
    return "\n\n".join(part for part in parts if part)


def _aligned(facts: dict[str, str]) -> str:
    column = max(map(len, facts))
    return "\n".join(
        _wrapped(value, f"  {key:<{column}}  ", " " * (column + 4)) for key, value in facts.items() if value
    )


def _wrapped(text: str, first: str, rest: str) -> str:
    import textwrap

    return textwrap.fill(
        text, 80, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


_ENTRY = re.compile(r" +\w+: ")  # ``UserError: …`` below ``Raises:``, whose next lines are indented by four more


def _fitted(doc: str) -> str:
    """A docstring for 80 columns: wider paragraphs and list items are wrapped again."""
    blocks: list[list[str]] = []
    hang = -1
    for line in doc.splitlines():
        item = re.match(r" *(?:[-*]|\d+\.) +", line)
        indent = len(line) - len(line.lstrip())
        if item or indent != hang or not line.strip():
            blocks.append([])
            hang = len(item[0]) if item else indent + 4 * bool(_ENTRY.match(line)) if line.strip() else -1
        blocks[-1].append(line)
    return "\n".join(_fitted_block(lines) for lines in blocks)


def _fitted_block(lines: list[str]) -> str:
    if max(map(len, lines)) <= 80:
        return "\n".join(lines)
    start = re.match(r" *(?:(?:[-*]|\d+\.) +)?", lines[0])
    first = start[0] if start else ""
    rest = len(first) + 4 * bool(_ENTRY.match(lines[0]))
    return _wrapped(" ".join(" ".join(lines)[len(first) :].split()), first, " " * rest)


def view_of_class(cls: type) -> _View:
    """What ``zoo show`` prints for an imported class."""
    import inspect

    home = inspect.getmodule(cls)
    module = inspect.getdoc(home) if home else None
    own = inspect.cleandoc(cls.__doc__ or "")
    docs = [getattr(c, "__doc__", None) for c in cls.__mro__] + [c.__init__.__doc__ for c in cls.__mro__]  # type: ignore[misc]
    meanings: dict[str, str] = {}
    for doc in docs:
        meanings = {**_meanings(inspect.cleandoc(doc or "")), **meanings}
    return _View([_without_arguments(own), module or ""], _signature(cls), meanings, _notes(cls))


def _signature(cls: type) -> list[Parameter]:
    """Arguments of the class; if it passes ``**`` arguments on, those of its base classes, too."""
    import inspect

    found: dict[str, Parameter] = {}
    for above in cls.__mro__:
        function = above.__dict__.get("__init__")
        if function is None:
            continue
        arguments = list(inspect.signature(function).parameters.values())[1:]
        for a in arguments:
            if a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD):
                found.setdefault(a.name, _parameter(a, sys.modules.get(above.__module__)))
        if all(a.kind != a.VAR_KEYWORD for a in arguments):
            break
    return list(found.values())


def _parameter(argument: Any, module: Any) -> Parameter:
    import inspect

    kind = argument.annotation
    written = "" if kind is argument.empty else kind if isinstance(kind, str) else inspect.formatannotation(kind)
    written = re.sub(r"(?<![\w.'\"])\w+\b", lambda word: _choices(getattr(module, word[0], None)) or word[0], written)
    default = argument.default
    shown = default.__name__ if isinstance(default, type) else repr(default)
    return Parameter(argument.name, written, None if default is argument.empty else shown)


def _choices(alias: Any) -> str | None:
    """A named ``Literal``, written out."""
    import typing

    return str(alias).replace("typing.", "") if typing.get_origin(alias) is typing.Literal else None


def _notes(cls: type) -> dict[str, str]:
    """The class's other properties, if it declares them."""
    channels = getattr(cls, "fixed_channels", None)
    return {
        "roles": ", ".join(getattr(cls, "roles", ())),
        "about": getattr(cls, "about", "") or "",
        "licence": getattr(cls, "licence", "") or "",
        "channels": f"{channels}, fixed" if channels else "",
    }


def _view_of_source(entry: Entry) -> _View:
    import ast

    name = entry.full_path.rpartition(".")[2]
    try:
        module, node = definition(entry.module, name)
        own = ast.get_docstring(node) or ""
        docs = [_without_arguments(own), ast.get_docstring(module_tree(module)) or ""]
        return _View(docs, parameters(module, name), _meanings(own), {})
    except SourceError as error:
        return _View([f"Nor can its source be shown: {error}."], [], {}, {})


# A section of a docstring, its title at the margin and the rest indented.
_ARGUMENTS = re.compile(r"^(?:Args|Arguments|Parameters):\n((?:[ \t]+.*(?:\n|\Z)|\n)*)", re.MULTILINE)


def _without_arguments(doc: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", _ARGUMENTS.sub("\n", doc)).strip()


def _meanings(doc: str) -> dict[str, str]:
    """The descriptions of arguments in a docstring."""
    found: dict[str, str] = {}
    names: list[str] = []
    section = _ARGUMENTS.search(doc)
    for line in (section[1] if section else "").splitlines():
        item = re.match(r" {4}(\*{0,2}\w[\w, *]*?)(?: \([^)]*\))?:(.*)", line)
        names = [name.strip(" *") for name in item[1].split(",")] if item else names
        for name in names:
            found[name] = f"{found.get(name, '')} {item[2] if item else line}".strip()
    return {name: " ".join(text.split()) for name, text in found.items()}


# Arguments of architectures that recipes leave out, and what fills them in.
FILLED = {
    **dict.fromkeys(("num_classes", "in_channels", "image_size", "vocabulary_size"), "from the data"),
    "timestep": "from the task",
}


def _argument_list(entry: Entry, view: _View) -> str:
    filled = FILLED if entry.kind == "architectures" else {}
    lines = []
    for name, annotation, default in view.arguments:
        kind = f": {annotation}" if annotation else ""
        value = "(required)" if default is None else f"= {default}"
        lines.append(_wrapped(f"{name}{kind} {f'({filled[name]})' if name in filled else value}", "  ", "      "))
        if meaning := view.meanings.get(name):
            lines.append(_wrapped(meaning, "      ", "      "))
    return "\n".join(["Arguments", *lines]) if lines else ""


def names(recipe: Recipe, entry: Entry) -> bool:
    """Whether a recipe has the class as a value."""
    paths = "|".join(re.escape(path) for path in {entry.label, entry.stable_path, entry.full_path})
    text = re.sub(r"(?:^|(?<=\s))#.*", "", read_text(recipe.path))
    return re.search(rf"(?:[:,-]\s+|\[\s*)[\"']?(?:{paths})[\"']?\s*(?:$|[,}}\]])", text, re.MULTILINE) is not None


def _recipe_page(recipe: Recipe) -> str:
    text = read_text(recipe.path)
    comment = leading_comment(recipe.path)
    body = "\n".join(text.splitlines()[len(comment) :]).strip()
    whole = re.search(r"^model:", text, re.MULTILINE) is not None
    facts = {
        "kind": "recipe" if whole else "overlay, to lay on top of a recipe",
        "package": recipe.package,
        "path": str(recipe.path),
        "run it": f"zoo fit {'' if whole else '--config RECIPE '}--config {shlex.quote(recipe.label)}",
    }
    parts = (f"{recipe.name}\n" + _aligned(facts), _fitted("\n".join(comment)), body)
    return "\n\n".join(part for part in parts if part)
