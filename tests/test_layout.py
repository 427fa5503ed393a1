"""The house: no import cycle, imports point one way, and no file that is longer than a reader's patience."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from zoo import registry

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 400
KINDS = ("architectures", "tasks", "data")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    files = [p for p in (ROOT / "zoo").rglob("*.py") if "plugin-template" not in p.parts]
    return {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in files}


def named(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in modules() else node.module


def imports(module: str) -> set[str]:
    """Every module of the zoo that this one imports anywhere."""
    return {name for node in ast.walk(modules()[module]) for name in named(node) if name in modules()}


def imported_at_once(module: str) -> set[str]:
    """Those that are imported when it is: not inside functions, nor for type checking alone."""
    body = [n for n in modules()[module].body if isinstance(n, ast.Import | ast.ImportFrom)]
    return {name for node in body for name in named(node) if name in modules()} - {module}


def test_there_is_no_import_cycle() -> None:
    waiting = {module: imported_at_once(module) for module in modules()}
    while free := [module for module, needed in waiting.items() if not needed]:
        for module in free:
            del waiting[module]
        for needed in waiting.values():
            needed -= set(free)
    assert not waiting, f"these import each other: {sorted(waiting)}"


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_know_nothing_of_each_others_classes(kind: str) -> None:
    others = {e.module for e in registry.entries() if e.kind in KINDS and e.kind != kind and e.module in modules()}
    for module in (m for m in modules() if m.startswith(f"zoo.{kind}.")):
        assert not imports(module) & others, module


def test_only_commands_know_the_command_line() -> None:
    above = ("zoo.cli", "zoo.insight", "zoo.__main__")
    for module in modules():
        if not module.startswith(above):
            assert not {name for name in imports(module) if name.startswith("zoo.cli")}, module


def test_nothing_imports_a_plugin() -> None:
    plugins = {path.name for path in (ROOT / "plugins").glob("*/src/*")}
    for module, tree in modules().items():
        roots = {name.partition(".")[0] for node in ast.walk(tree) for name in named(node)}
        assert not roots & plugins, module


def test_no_file_is_too_long() -> None:
    files = [*(ROOT / "zoo").rglob("*.py"), *(ROOT / "plugins").glob("*/src/**/*.py")]
    long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > LONGEST}
    assert not long
