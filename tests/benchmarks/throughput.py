"""Training steps a second of ``zoo fit``, with its default callbacks and logger, against a plain PyTorch loop.

Same network, optimiser, batch size and data in memory; both turn bytes into normalised floats. Rounds alternate, so
that a busy machine is busy for both. ``step_profile.py`` shows where the rest of the tiny network's step goes.
Run: ``python tests/benchmarks/throughput.py [--rounds N] [--only tiny|resnet18]``.
"""

import argparse
import contextlib
import os
import pty
import statistics
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

from common import WARM_UP, fit, own_folder, report, spread

ABOUT = (
    "Steps a second of `zoo fit` divided by those of a plain loop over the same network, optimiser, batch and data in "
    "memory, both in the same run: median of the rounds (smallest to largest)."
)


class Case(NamedTuple):
    """One line of the table."""

    name: str
    network: str
    side: int
    batch_size: int
    steps: int
    threads: int | None
    terminal: bool
    bar: float


CASES = {
    "resnet18": Case("ResNet-18 at 32×32", "ResNet18At32", 32, 64, 25, None, False, 0.97),
    "tiny": Case("tiny network", "TinyNet", 8, 32, 2000, 1, False, 0.3),
    "tiny-bar": Case("tiny network, bar on a terminal", "TinyNet", 8, 32, 2000, 1, True, 0.3),
}


def zoo_seconds(case: Case) -> tuple[float, float]:
    """Seconds a step of ``zoo fit``."""
    import zoo_bench

    zoo_bench.WATCH.start(WARM_UP, case.steps - 1)
    words = ["--model=Classification", f"--model.architecture={case.network}", "--model.optimizer=SGD"]
    words += ["--model.optimizer.lr=0.01", "--model.optimizer.momentum=0.9", "--data=RandomImages"]
    words += [f"--data.image_size={case.side}", f"--data.batch_size={case.batch_size}", "--data.val_fraction=0"]
    words += [f"--data.count={case.batch_size * case.steps}", "--trainer.max_epochs=1", "--no-test"]
    fit(*words)
    return zoo_bench.WATCH.per_step()


def plain_seconds(case: Case) -> tuple[float, float]:
    """Seconds a step of the loop that one would write by hand."""
    import torch
    import zoo_bench
    from torch.nn import functional as F

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = (t.to(device) for t in zoo_bench.random_images(case.batch_size * case.steps, case.side))
    network = getattr(zoo_bench, case.network)().to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    order = torch.randperm(len(images), device=device)
    zoo_bench.WATCH.start(WARM_UP, case.steps - 1)
    for rows in order.split(case.batch_size):
        zoo_bench.WATCH.tick()
        batch = (images.index_select(0, rows).float().div_(255) - 0.5) / 0.25
        loss = F.cross_entropy(network(batch), labels.index_select(0, rows))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return zoo_bench.WATCH.per_step()


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Standard output is a terminal of 100 columns, which nobody looks at."""
    reader, writer = pty.openpty()
    before, sys.stdout = sys.stdout, os.fdopen(writer, "w")
    os.environ.update(TERM="xterm-256color", COLUMNS="100")
    threading.Thread(target=_drain, args=(reader,), daemon=True).start()
    try:
        yield
    finally:
        sys.stdout.close()
        sys.stdout = before


def _drain(reader: int) -> None:
    with contextlib.suppress(OSError):  # the other end was closed
        while os.read(reader, 65536):
            pass


def measure(case: Case, rounds: int) -> dict[str, object]:
    """A row: both times and their ratio."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(case.threads or before)
    ours, plain = [], []
    for _ in range(rounds):
        plain.append(plain_seconds(case))
        with terminal() if case.terminal else contextlib.nullcontext():
            ours.append(zoo_seconds(case))
    torch.set_num_threads(before)
    by_wall = [b[0] / a[0] for a, b in zip(ours, plain, strict=True)]
    row = {
        "network": case.name,
        "plain loop, ms a step": spread([1e3 * wall for wall, _ in plain]),
        "zoo fit, ms a step": spread([1e3 * wall for wall, _ in ours]),
        "ratio": spread(by_wall),
    }
    if case.threads == 1:  # a busy machine disturbs this clock less
        row["ratio of CPU time"] = spread([b[1] / a[1] for a, b in zip(ours, plain, strict=True)])
    return {**row, "bar": case.bar, "reached": statistics.median(by_wall) >= case.bar}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(CASES))
    options = parser.parse_args()
    chosen = [CASES[options.only]] if options.only else list(CASES.values())
    with own_folder():
        rows = [measure(case, options.rounds) for case in chosen]
    report("Training throughput", ABOUT, rows)


if __name__ == "__main__":
    main()
