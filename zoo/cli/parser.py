"""What the small commands beside Lightning's have in common."""

import argparse
from typing import NoReturn

from zoo.errors import UserError


class Parser(argparse.ArgumentParser):
    """Arguments without abbreviations, whose errors end in one line.

    Args:
        command: the word behind ``zoo``.
        description: one sentence on what it does.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(f"zoo {command}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say it as every other mistake is said."""
        raise UserError(f"{self.prog}: {message} (`{self.prog} --help` says more)")
