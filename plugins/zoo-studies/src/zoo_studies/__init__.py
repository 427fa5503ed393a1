"""Experiments that measure what the zoo's documentation claims, rerun by one command: ``zoo study``.

A study writes into its folder: a file with one row per finished run, from which an interrupted study resumes; plots;
and a page of tables and plots made from the rows. The documentation's tables are made from the same rows.
"""

from __future__ import annotations

from importlib import import_module

from zoo.cli.parser import Parser
from zoo.errors import UserError

# Each is a module of this package, imported when it is run.
STUDIES = {
    "depth": "Plain, residual and identity-skip networks by depth: accuracy, loss, signal.",
    "ingredients": "Leave AlexNet's ingredients out, one at a time; race ReLU against tanh.",
    "initialisation": "The variance of the signal by layer, for each way to draw the weights.",
}
HELP = """\
usage: zoo study STUDY [options]

Rerun an experiment of the documentation: write its rows, pictures and tables.

  depth           plain, residual and identity-skip networks of 8 to 218 layers
  ingredients     what each part of AlexNet does for its error
  initialisation  the variance of the signal by layer and initialisation

`zoo study STUDY --help` says more. An interrupted study resumes.
"""


def main(argv: list[str]) -> int:
    """``zoo study depth``: rerun a page's experiment.

    Args:
        argv: the arguments after ``zoo study``.

    Raises:
        UserError: there is no such study, or it can't run here.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if argv[0] not in STUDIES:
        from zoo.registry import did_you_mean

        raise UserError(f"no study {argv[0]}{did_you_mean(argv[0], STUDIES)} (`zoo study --help` lists them)")
    options = parser().parse_args(argv)
    return import_module(f"{__name__}.{options.study}").main(options)


def parser() -> Parser:
    """The options of all studies, each a subcommand."""
    made = Parser("study", "Rerun an experiment of the documentation: write its rows, pictures and tables.")
    studies = made.add_subparsers(dest="study", required=True, metavar="STUDY")
    own = {name: studies.add_parser(name, description=about) for name, about in STUDIES.items()}
    for name, study in own.items():
        study.add_argument("--out", default=f"runs/study-{name}", metavar="FOLDER", help="of rows, pictures and page")
    depth, ingredients = (own[name].add_mutually_exclusive_group() for name in ("depth", "ingredients"))
    depth.add_argument("--quick", action="store_true", help="two depths, a few images: a minute, to see that it runs")
    depth.add_argument("--full", action="store_true", help="the papers' depths on CIFAR-10: days on a GPU")
    own["depth"].add_argument("--root", metavar="FOLDER", help="of --full: that has cifar-10-batches-py")
    ingredients.add_argument("--full", action="store_true", help="all training images, not a fixed 10,000: takes hours")
    ingredients.add_argument("--quick", action="store_true", help="a few images: a minute, to see that it runs")
    text = "that has cifar-10-batches-py; left out, digits are used"
    own["ingredients"].add_argument("--root", metavar="FOLDER", help=text)
    return made
