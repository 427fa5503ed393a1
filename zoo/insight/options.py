"""The options of ``zoo inspect``, except the classes and recipes that choose a network.

They are added to jsonargparse's parser, and to a plain one that shell completion reads without importing torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from zoo.cli.parser import Parser

TAKES_IMAGE = ("activations", "attribution")


def parser(about: dict[str, str]) -> Parser:
    """Subcommands with the names of all options, without type checks.

    Args:
        about: one sentence per subcommand.
    """
    made = Parser("inspect", "Look inside a network: pictures, and the numbers as JSON.")
    subcommands = made.add_subparsers(metavar="WHAT")
    for what, text in about.items():
        plain = subcommands.add_parser(what, description=text)
        plain.add_argument("-c", "--config")
        for name in ("--architecture", "--model", "--data", "--seed_everything"):
            plain.add_argument(name)
        add_common_options(plain)
        add_own_options(plain, what)
    return made


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """The options of every subcommand."""
    parser.add_argument("--ckpt_path", help="Checkpoint, run folder, or: last")
    parser.add_argument("--network", help="Which one, of a task with several networks")
    parser.add_argument("--out", help="Folder; default: runs/inspect-<recipe>/<time>/")
    parser.add_argument("--wandb", action="store_true", help="Log numbers and pictures to W&B, too")


def add_own_options(parser: argparse.ArgumentParser, what: str, count: Callable[[str], Any] = int) -> None:
    """The options of one subcommand.

    Args:
        parser: the parser to add them to.
        what: the subcommand.
        count: the type of a number above 0.
    """
    if what in TAKES_IMAGE:
        text = "Picture; default: the data's first test image, else a photograph of a cat"
        parser.add_argument("--image", help=text)
        text = "All of the picture, not its central part; for networks that take any size"
        parser.add_argument("--whole", action="store_true", help=text)
    if what in ("activations", "signal"):
        parser.add_argument("--layers", nargs="+", metavar="NAME", help="Names of layers")
    if what == "signal":
        text = "Images of the test part for accuracies, 512, with many blocks fewer; variances are of 128 of them"
        parser.add_argument("--images", type=count, help=text)
    if what == "attribution":
        parser.add_argument("--class", help="Name or number; default: the most probable")
        parser.add_argument("--layer", help="For Grad-CAM; default: the last stage")
