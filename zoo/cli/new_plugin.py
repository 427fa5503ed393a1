"""``zoo new-plugin NAME``: a complete plugin, with tests that pass, to start your own from.

The template in ``plugin-template`` is itself a working plugin called zoo-example; a new plugin is a copy of it with the
three spellings of that name replaced. So the generated code is linted, typed and tested here.
"""

from __future__ import annotations

import keyword
import re
import shlex
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from zoo import registry
from zoo.cli.parser import Parser
from zoo.errors import UserError

TEMPLATE = Path(__file__).parent / "plugin-template"
CLASSES = ("Net", "Bars", "Task")  # suffixes of the template's class names
TASK_FILES = ("task.py", "test_task.py", "zoo-example-task.yaml")
TASK_WORDS = (*TASK_FILES, "ExampleTask", '"zoo.tasks"')  # lines with one of these belong to the task


def new_plugin(name: str, parent: Path = Path(), task: bool = False) -> Path:
    """Write a plugin's package.

    Args:
        name: the distribution's name: lower-case words joined by hyphens.
        parent: the folder in which the package's folder is created.
        task: whether to include a task with its recipe and test.

    Returns:
        The package's folder, ``parent/name``.

    Raises:
        UserError: the name is invalid or taken, or the folder exists already or can't be written.
    """
    _check(name)
    folder = parent / name
    try:
        folder.mkdir(parents=True)
        for source, target in _files(name, task):
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text(encoding="utf-8")
            path.write_text(_renamed(text if task else _without_task(text), name), encoding="utf-8")
    except FileExistsError:
        raise UserError(f"{folder} is there already, and nothing is overwritten: give another name or --out") from None
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error.strerror}") from error
    return folder


def _files(name: str, task: bool) -> Iterator[tuple[Path, str]]:
    """Each file of the template, and its path in the package."""
    for source in sorted(TEMPLATE.rglob("*")):
        if source.is_file() and "__pycache__" not in source.parts and (task or source.name not in TASK_FILES):
            yield source, _renamed(source.relative_to(TEMPLATE).as_posix(), name)


def _without_task(text: str) -> str:
    kept = [line for line in text.splitlines(keepends=True) if not any(word in line for word in TASK_WORDS)]
    return re.sub(r"\n{3}\[", "\n\n[", "".join(kept))  # the empty line after the removed section


def _renamed(text: str, name: str) -> str:
    return text.replace("zoo-example", name).replace("zoo_example", _module(name)).replace("Example", _prefix(name))


def _module(name: str) -> str:
    return name.replace("-", "_")


def _prefix(name: str) -> str:
    """The prefix of its class names: ``Flowers`` for flowers and for zoo-flowers."""
    words = name.split("-")
    if len(words) > 1 and words[0] == "zoo" and words[1][0].isalpha():
        words = words[1:]
    return "".join(word.capitalize() for word in words)


def _check(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        close = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        advice = f"; {close} would do" if close else ""
        raise UserError(f"a plugin's name is lower-case words joined by hyphens, not {name!r}{advice}")
    module = _module(name)
    if keyword.iskeyword(module) or find_spec(module) is not None:
        raise UserError(f"{name} won't do: Python has a {module} already; choose another name, such as zoo-{name}")
    for ending in CLASSES:
        if taken := registry.find(_prefix(name) + ending):
            raise UserError(
                f"{name} won't do: its class {taken[0].name} would have the name of one of {taken[0].package}; "
                "choose another name"
            )


def main(argv: Sequence[str]) -> int:
    """``zoo new-plugin NAME``: write the package, and print the next steps.

    Returns:
        0.

    Raises:
        UserError: as ``new_plugin``.
    """
    options = parser().parse_args(argv)
    folder = new_plugin(options.name, Path(options.out), options.task)
    print(f"wrote {folder}, a plugin that works; {folder / 'README.md'} says what to change")
    print("next")
    installed = shlex.quote(f"{_here(folder)}[test]")
    for line in (
        f"pip install -e {installed}",
        f"pytest {shlex.quote(str(folder))}",
        f"zoo fit --config {options.name}",
    ):
        print(f"  {line}")
    return 0


def parser() -> Parser:
    """The command's options."""
    made = Parser("new-plugin", "Write a plugin's package: a network, a data set, a recipe, and tests that pass.")
    made.add_argument("name", metavar="NAME", help="of the package, such as zoo-flowers")
    made.add_argument("--task", action="store_true", help="a task of its own, too, with its recipe and test")
    made.add_argument("--out", metavar="DIR", default=".", help="folder in which NAME is made; default: this one")
    return made


def _here(folder: Path) -> str:
    """The folder, written so that pip does not take it for a package name."""
    return str(folder) if folder.is_absolute() or ".." in folder.parts else f"./{folder}"
