"""Time to answer of the light commands, as a share of ``python -c "import torch"``; and with 50 plugins installed.

Run: ``python tests/benchmarks/startup.py [--rounds N]``.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from common import report, spread

sys.path.insert(0, str(Path(__file__).parent.parent))
from conftest import write_distribution
from test_startup import BAR, GROWTH, LIGHT, plugin, seconds

ABOUT = (
    "Median of the rounds (smallest to largest) of the whole command, and its share of "
    f'`python -c "import torch"` in the same round. Bars: {BAR} of it, and at most {GROWTH} times '
    "that with 50 plugins installed."
)


def measure(rounds: int, bare: str, full: str) -> list[dict[str, object]]:
    """A row a command."""
    times: dict[str, list[tuple[float, float, float]]] = {" ".join(words): [] for words in LIGHT}
    for _ in range(rounds):
        torch = seconds("-c", "import torch")
        for words in LIGHT:
            alone, crowded = (seconds("-m", "zoo", *words, path=path) for path in (bare, full))
            times[" ".join(words)].append((alone, crowded, torch))
    return [_row(name, found) for name, found in times.items()]


def _row(name: str, found: list[tuple[float, float, float]]) -> dict[str, object]:
    alone, crowded = [a / t for a, _, t in found], [c / t for _, c, t in found]
    return {
        "command": f"`zoo {name}`",
        "ms": spread([1e3 * a for a, _, _ in found], 0),
        "share of import torch": spread(alone, 3),
        "share with 50 plugins": spread(crowded, 3),
        "reached": statistics.median(alone) <= BAR and statistics.median(crowded) <= GROWTH * BAR,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    before = os.environ.get("PYTHONPATH", "")
    with tempfile.TemporaryDirectory() as site:
        for i in range(50):
            write_distribution(Path(site), f"plugin-{i}", **plugin(i))
        rows = measure(options.rounds, before, os.pathsep.join(filter(None, (site, before))))
    report("Start-up", ABOUT, rows)


if __name__ == "__main__":
    main()
