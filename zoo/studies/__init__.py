"""Experiments that measure what the documentation claims, rerun by one command: ``zoo study``.

A study writes into its folder: a file of rows, one a finished run, from which an interrupted study goes on; pictures;
and a page of tables and pictures that is made from the rows. The documentation's tables are made from the same rows.
"""

from __future__ import annotations

from importlib import import_module

from zoo.errors import UserError

STUDIES = {
    "depth": "zoo.studies.depth",
    "ingredients": "zoo.studies.ingredients",
    "initialisation": "zoo.studies.initialisation",
}
HELP = """\
usage: zoo study STUDY [options]

Rerun an experiment of the documentation: write its rows, pictures and tables.

  depth           plain, residual and identity-skip networks of 8 to 218 layers
  ingredients     what each part of AlexNet does for its error
  initialisation  the variance of the signal by layer and initialisation

`zoo study STUDY --help` says more. An interrupted study goes on.
"""


def main(argv: list[str]) -> int:
    """Run a study.

    Args:
        argv: the words behind ``zoo study``.

    Raises:
        UserError: there is no such study, or it can't run here.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    name, *rest = argv
    if name not in STUDIES:
        from zoo.registry import did_you_mean

        raise UserError(f"no study {name}{did_you_mean(name, STUDIES)} (`zoo study --help` lists them)")
    return import_module(STUDIES[name]).main(rest)
