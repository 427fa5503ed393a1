"""The argument parser shared by the commands that are not Lightning's."""

import argparse
from typing import Any, NoReturn

from zoo.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations, whose errors are one line.

    Args:
        command: the verb; left out for subparsers, for which argparse sets ``prog``.
        description: one sentence on what it does.
        others: passed to argparse.
    """

    def __init__(self, command: str = "", description: str | None = None, **others: Any) -> None:
        super().__init__(**{"prog": f"zoo {command}", "description": description, "allow_abbrev": False, **others})

    def error(self, message: str) -> NoReturn:
        """Raise a ``UserError``, like every other mistake."""
        raise UserError(f"{self.prog}: {message} (`{self.prog} --help` says more)")
