"""``zoo study initialisation``: the variance of the signal, layer by layer, for each way to draw the weights."""

from __future__ import annotations

from pathlib import Path

from zoo.cli.parser import Parser


def main(argv: list[str]) -> int:
    """Measure and draw; needs no training.

    Args:
        argv: the words behind ``zoo study initialisation``.
    """
    parser = Parser("study initialisation", "The variance of the signal by layer, for each way to draw the weights.")
    parser.add_argument("--out", default="runs/study-initialisation", metavar="FOLDER", help="of rows and pictures")
    out = Path(parser.parse_args(argv).out)
    from zoo.studies import signal_by_init

    out.mkdir(parents=True, exist_ok=True)
    signal_by_init.run(out)
    print(f"written  {out}")
    return 0
