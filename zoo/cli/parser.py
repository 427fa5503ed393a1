"""What the small commands beside Lightning's have in common."""

import argparse
from typing import Any, NoReturn

from zoo.errors import UserError


class Parser(argparse.ArgumentParser):
    """Arguments without abbreviations, whose errors end in one line.

    Args:
        command: the word behind ``zoo``; left out where ``add_subparsers`` makes it, which gives ``prog``.
        description: one sentence on what it does.
        others: as argparse's.
    """

    def __init__(self, command: str = "", description: str | None = None, **others: Any) -> None:
        super().__init__(**{"prog": f"zoo {command}", "description": description, "allow_abbrev": False, **others})

    def error(self, message: str) -> NoReturn:
        """Say it as every other mistake is said."""
        raise UserError(f"{self.prog}: {message} (`{self.prog} --help` says more)")
