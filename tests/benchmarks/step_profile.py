"""Where a step of ``zoo fit`` goes for a network that takes almost no time: shares of the profiled time, by owner.

Run: ``python tests/benchmarks/step_profile.py [--rounds N]``. ``--functions`` prints the single functions instead.
"""

import argparse
import cProfile
import pstats
import re
from collections import defaultdict

from common import own_folder, report, spread
from throughput import CASES, Case, zoo_seconds

ABOUT = (
    "Share of the time of a training step of the tiny network, by whose code it is spent in, as cProfile has it. The "
    "profiler slows Python's functions and not torch's operations, so the latter's true share is larger."
)
OWNERS = (
    (
        "torch's operations: forward, backward, update",
        r"torch\._C|TensorBase|_EngineBase|torch\._ops|torch\.\w+>?\}|built-in method torch",
    ),
    ("Lightning's loops, hooks and strategy", r"/lightning(_utilities)?/"),
    ("torch's Python: modules, optimiser, autograd", r"/torch/|/torchvision/"),
    ("torchmetrics", r"/torchmetrics/"),
    ("W&B", r"/wandb/"),
    ("zoo: data, task, callbacks", r"/zoo/|/zoo_bench/"),
)


def profiled(case: Case) -> pstats.Stats:
    """The functions of the steps behind the warm-up, without start-up and end."""
    import zoo_bench

    profiler = cProfile.Profile()
    zoo_bench.WATCH.profiler = profiler
    zoo_seconds(case)
    zoo_bench.WATCH.profiler = None
    return pstats.Stats(profiler)


def shares(stats: pstats.Stats) -> dict[str, float]:
    """Share of the time, by owner."""
    found: dict[str, float] = defaultdict(float)
    for (file, _, name), (_, _, own, _, _) in stats.stats.items():
        found[next((owner for owner, marks in OWNERS if re.search(marks, f"{file}:{name}")), "Python")] += own
    return {owner: time / sum(found.values()) for owner, time in found.items()}


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--functions", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with own_folder():
        found = [profiled(CASES["tiny"]) for _ in range(1 if options.functions else options.rounds)]
    if options.functions:
        found[0].sort_stats("tottime").print_stats(40)
        return
    each = [shares(stats) for stats in found]
    owners = sorted(each[0], key=lambda owner: -each[0][owner])
    report(
        "Where a step goes", ABOUT, [{"whose": o, "%": spread([100 * s.get(o, 0) for s in each], 0)} for o in owners]
    )


if __name__ == "__main__":
    main()
