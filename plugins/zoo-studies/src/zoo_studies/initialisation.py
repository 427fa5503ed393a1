"""``zoo study initialisation``: the variance of the signal, layer by layer, for each initialisation."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from zoo_studies import signal_by_init


def main(options: Namespace) -> int:
    """Measure and plot; nothing is trained.

    Args:
        options: options of ``zoo study initialisation``.
    """
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    signal_by_init.run(out)
    print(f"written  {out}")
    return 0
