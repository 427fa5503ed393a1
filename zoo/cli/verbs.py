"""The table of verbs: read by the command line itself, its help, shell completion and the page of commands.

A plugin adds a verb by the entry-point group ``zoo.commands``: the entry's name is the verb, its value a function that
takes the words behind the verb and returns the exit status. The first line of its docstring, ``EXAMPLE``: summary,
is shown in the help. It is read from the source: no plugin is imported before its verb is called. Shell completion uses
the module's ``parser()``, if it has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import NamedTuple

from zoo import registry
from zoo.errors import UserError
from zoo.registry import Entry
from zoo.source import SourceError, function_summary


class Verb(NamedTuple):
    """A command.

    Args:
        name: the word after ``zoo``.
        target: ``module:function``, which takes the words after the verb and returns the exit status.
        summary: what it does, in a few words.
        example: a command line.
        trains: whether it is one of Lightning's commands, whose arguments include the verb.
        entry: the plugin's entry point; None for the zoo's own.
    """

    name: str
    target: str
    summary: str
    example: str
    trains: bool = False
    entry: Entry | None = None

    @property
    def module(self) -> str:
        """The module of its function, and of its ``parser`` if it has one."""
        return self.target.partition(":")[0]

    def function(self) -> Callable[[list[str]], int]:
        """Import it.

        Raises:
            UserError: it is a plugin's and can't be imported, or is not a function.
        """
        if self.entry is None:
            return getattr(import_module(self.module), self.target.partition(":")[2])
        found = self.entry.imported()
        if not callable(found):
            raise UserError(
                f"{self.entry.distribution} registers {self.name} as {self.target}, which is not a function"
            )
        return found


# What a beginner needs first, then the rest.
FIRST = (
    Verb("fit", "zoo.cli.lightning:run", "train a recipe, then test it", "zoo fit --config alexnet", True),
    Verb("validate", "zoo.cli.lightning:run", "validate a checkpoint", "zoo validate --ckpt_path FILE", True),
    Verb("test", "zoo.cli.lightning:run", "test a checkpoint", "zoo test --ckpt_path FILE", True),
    Verb(
        "predict",
        "zoo.cli.lightning:run",
        "results for your own files",
        "zoo predict --ckpt_path FILE --data.files 'photos/*.jpg'",
        True,
    ),
    Verb("export", "zoo.cli.export:main", "write ONNX or torch.export", "zoo export --ckpt_path FILE"),
)
OTHERS = (
    Verb("list", "zoo.cli.listing:main", "what is installed", "zoo list architectures"),
    Verb("show", "zoo.cli.showing:main", "one class or recipe in detail", "zoo show AlexNet"),
    Verb("inspect", "zoo.insight:main", "look inside a network", "zoo inspect signal -c plain"),
    Verb("doctor", "zoo.cli.doctor:main", "what works on this machine", "zoo doctor"),
    Verb("check", "zoo.cli.check:main", "conformance of a class", "zoo check AlexNet"),
    Verb("data", "zoo.cli.data:main", "check or convert a data set", "zoo data check -c RECIPE"),
    Verb("measure", "zoo.cli.measure:main", "run recipes, keep the metrics", "zoo measure alexnet"),
    Verb("schema", "zoo.cli.schema:main", "JSON Schema of recipes", "zoo schema"),
    Verb("new-plugin", "zoo.cli.new_plugin:main", "write a plugin's package", "zoo new-plugin NAME"),
    Verb("completion", "zoo.cli.completion:main", "completion for your shell", "zoo completion bash"),
)
OWN = {verb.name: verb for verb in (*FIRST, *OTHERS)}

HELP = """\
usage: zoo COMMAND [options]

Train, test and use the networks of the zoo and of its plugins.

{table}

`zoo COMMAND --help` says more. `--debug` shows the traceback of an error.
"""


def plugin_verbs() -> dict[str, Verb]:
    """The verbs that plugins add, by the word to type: the name, or ``package:name`` if the name is taken."""
    return {called(entry): _verb_of(entry) for entry in registry.commands()}


def called(entry: Entry) -> str:
    """The word for a plugin's verb: its name, unless the zoo or another plugin has one of this name."""
    claims = sum(other.name == entry.name for other in registry.commands())
    return entry.name if claims == 1 and entry.name not in OWN else f"{entry.package}:{entry.name}"


def _verb_of(entry: Entry) -> Verb:
    try:
        line = function_summary(entry.module, entry.full_path.rpartition(".")[2])
    except SourceError as error:
        line = f"({error})"
    said = _SUMMARY.fullmatch(line)
    example, text = said.groups() if said else (f"zoo {called(entry)}", line)
    return Verb(called(entry), entry.point.value, text.rstrip("."), example, entry=entry)


_SUMMARY = re.compile(r"``(zoo [^`]+)``: (.+)")


def find(name: str) -> Verb | None:
    """The verb of this name, the zoo's own first; None if there is none."""
    if name in OWN or not registry.commands():
        return OWN.get(name)
    return plugin_verbs().get(name)


def names() -> list[str]:
    """All verbs, the zoo's own first."""
    return [*OWN, *map(called, registry.commands())]


# Help


def help_text() -> str:
    """What ``zoo --help`` prints, in 80 columns."""
    groups = [FIRST, OTHERS, tuple(plugin_verbs().values())]
    return HELP.format(table="\n\n".join("\n".join(_line(verb) for verb in group) for group in groups if group))


def _line(verb: Verb) -> str:
    """Name, summary and example; a plugin's with its package."""
    package = f" [{verb.entry.package}]" if verb.entry else ""
    summary = list(_wrapped(verb.summary, 31))
    example = list(_wrapped(verb.example + package, 33))
    lines = []
    for i in range(max(len(summary), len(example))):
        cells = (verb.name if i == 0 else "", *(column[i] if i < len(column) else "" for column in (summary, example)))
        lines.append("  {:<11} {:<31} {}".format(*cells).rstrip())
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Lines of whole words, all but the first indented. (``textwrap`` costs a tenth of the command's time.)"""
    line = ""
    for word in text.split():
        if line.strip() and len(line) + 1 + len(word) > width:
            yield line
            line = "  " + word
        else:
            line = f"{line} {word}" if line else word
    yield line
