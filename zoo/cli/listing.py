"""``zoo list``: what is installed, read from sources; nothing of it is imported."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from zoo import registry
from zoo.errors import UserError
from zoo.registry import KINDS, OURS
from zoo.source import SourceError, summary

SECTIONS = (*KINDS, "recipes")
CLAIMED = ", name claimed twice"

HELP = """\
usage: zoo list [architectures|tasks|data|parts|recipes] [WORD…]

Everything that is installed, with the first line of what it says of itself.
WORDs leave only what has all of them in its name, that line or its package;
case does not matter. A name in [brackets] is that of its plugin. What
has a name that is claimed twice is listed by its path or package:name, which
recipes take; the zoo's own keep their names.
"""


class _Row(NamedTuple):
    name: str
    text: str
    package: str

    def has(self, words: list[str]) -> bool:
        everything = " ".join(self).lower()
        return all(word.lower() in everything for word in words)


def main(argv: list[str]) -> int:
    """Print what is installed.

    Args:
        argv: at most one section, then words to filter by.

    Raises:
        UserError: nothing has these words, or an option is given.
    """
    if wants_help(argv):
        print(HELP, end="")
        return 0
    sections, words = (argv[:1], argv[1:]) if argv and argv[0] in SECTIONS else (list(SECTIONS), argv)
    refuse_options("list", words)
    found = {section: [row for row in _rows(section) if row.has(words)] for section in sections}
    if words and not any(found.values()):
        raise UserError(
            f"nothing installed has {' and '.join(words)} in its name, summary or package"
            f"{registry.did_you_mean(words[0], known_names())} (`zoo list` shows all)"
        )
    shown = {section: rows for section, rows in found.items() if rows or not words}
    print("\n\n".join(_table(section, rows) for section, rows in shown.items()))
    return 0


def _rows(section: str) -> list[_Row]:
    found: list[tuple[registry.Entry | registry.Recipe, str, str]]
    if section == "recipes":
        found = [(r, r.name, (leading_comment(r.path) or [""])[0]) for r in registry.recipes()]
    else:
        found = [(e, e.name, _summary(e)) for e in registry.entries() if e.kind == section]
    return [_Row(it.label, text, it.package + CLAIMED * (it.label != name)) for it, name, text in found]


def _summary(entry: registry.Entry) -> str:
    try:
        return summary(entry)
    except SourceError as error:
        return f"({error})"


def leading_comment(path: Path) -> list[str]:
    """The lines of a file's leading comment, without their signs."""
    lines = []
    for line in read_text(path).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return lines


def read_text(path: Path) -> str:
    """A recipe's text, or the reason as a comment if it can't be read, so that the listing goes through."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        return f"# (can't be read: {error.strerror})\n"


def _table(section: str, rows: list[_Row]) -> str:
    width = shutil.get_terminal_size((80, 24)).columns
    column = min(max((len(row.name) for row in rows), default=0), 32)
    return "\n".join([f"{section} ({len(rows)})", *(_line(row, column, width) for row in rows)])


def _line(row: _Row, column: int, width: int) -> str:
    package = "" if row.package == OURS else f"  [{row.package}]"
    room = width - 4 - max(column, len(row.name)) - len(package)
    text = row.text if len(row.text) <= room else _cut(row.text, room)
    return f"  {row.name:<{column}}  {text}{package}".rstrip()


def _cut(text: str, room: int) -> str:
    """The words that fit, with an ellipsis if some are cut."""
    return text[: max(room - 1, 0)].rpartition(" ")[0].rstrip(" ,;:.") + " …"


def claims(name: str) -> list[str]:
    """The note on a class name that several distributions claim; empty for any other."""
    if (claimed := registry.clash(name)) is not None:
        return [claimed]
    others = [entry for entry in registry.find(name) if not entry.has_name]
    return [f"{name} is the zoo's own; that of {e.package} needs its full path, {e.full_path}" for e in others]


def known_names() -> list[str]:
    """Names of every class and recipe, for suggestions."""
    return [*(e.name for e in registry.entries()), *(r.name for r in registry.recipes())]


def wants_help(argv: list[str]) -> bool:
    """Whether the words ask for the command's help."""
    return any(word in ("-h", "--help") for word in argv)


def refuse_options(command: str, words: list[str]) -> None:
    """Check that no option is given to a command without options.

    Raises:
        UserError: one is given.
    """
    for word in words:
        if word.startswith("-"):
            raise UserError(f"zoo {command} has no option {word} (`zoo {command} --help`)")
