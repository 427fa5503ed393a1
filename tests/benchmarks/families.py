"""A training step of each family against the same network of torchvision, or one written by hand where it has none.

The same images, labels and optimiser; forward, loss, backward and update. Rounds alternate, so that a busy machine is
busy for both. Then the ways to make our networks faster or smaller, each against the network without it: channels
last, bfloat16, compiled, DenseNet's memory-saving mode. Takes the GPU where there is one.
Run: ``python tests/benchmarks/families.py [--rounds N] [--only WORD]``, with WORD in the row's first column.
"""

import argparse
import math
import statistics
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from common import report, spread
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BAR = 0.97
BLOCK = 0.25  # seconds of one measurement, at least: short, since a machine is busy for seconds at a time
CLASSES = 10
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ALONE = DEVICE.type == "cpu" and torch.get_num_threads() == 1
CLOCK = time.process_time if ALONE else time.perf_counter  # a busy machine disturbs that of the CPU less
ABOUT = (
    "Time of a training step (forward, loss, backward, update by SGD with momentum) of the other network, divided by "
    "that of ours: above 1, ours is faster. Median of the rounds (smallest to largest), alternating in one run. The "
    "network by hand has a few lines of plain PyTorch, since torchvision has no residual networks for 32×32 images. "
    "In the rows without a bar, ours is measured against itself without what the row names. Memory is the peak of what "
    "the step allocates, activations and gradients, as a share of the other's." + " CPU time of one thread." * ALONE
)


class Side(NamedTuple):
    """One of the two that are compared."""

    name: str
    build: Callable[[], nn.Module]
    dtype: torch.dtype = torch.float32


class Case(NamedTuple):
    """One row: ours against the other, on so many images of so many pixels."""

    ours: Side
    other: Side
    batch_size: int
    pixels: int
    bar: float | None = BAR
    memory: bool = False


# The other networks


class BlockByHand(nn.Module):
    """Two 3×3 convolutions and a shortcut without parameters; after the sum a ReLU, or nothing where ``preact``."""

    def __init__(self, inputs: int, outputs: int, preact: bool) -> None:
        super().__init__()
        self.preact, self.more = preact, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if self.more else 1, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs if preact else outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more)) if self.more else x
        if self.preact:
            x = self.conv1(F.relu(self.bn1(x), inplace=True))
            return self.conv2(F.relu(self.bn2(x), inplace=True)) + skip
        x = self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return F.relu(self.bn2(x) + skip, inplace=True)


def by_hand(depth: int, preact: bool = False) -> nn.Module:
    """CIFAR's residual network as one would write it for this benchmark only."""
    first = [] if preact else [nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    blocks, inputs = [], 16
    for outputs in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            blocks.append(BlockByHand(inputs, outputs, preact))
            inputs = outputs
    last = [nn.BatchNorm2d(64), nn.ReLU(inplace=True)] if preact else []
    conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    return nn.Sequential(conv, *first, *blocks, *last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def torchvisions(name: str) -> Side:
    """torchvision's network of this name."""
    from torchvision.models import get_model

    return Side(f"torchvision's {name}", lambda: get_model(name, num_classes=CLASSES))


def timms(name: str) -> Side:
    """timm's network of this name."""
    import timm

    return Side(f"timm's {name}", lambda: timm.create_model(name, num_classes=CLASSES))


def ours(title: str, entry: str, *accelerations: str, dtype: torch.dtype = torch.float32, **arguments: Any) -> Side:
    """The zoo's architecture of this name, with callbacks of ``zoo.training.acceleration``."""

    def build() -> nn.Module:
        from zoo import acceleration, architectures

        network = getattr(architectures, entry)(num_classes=CLASSES, **arguments).to(DEVICE)
        for name in accelerations:
            getattr(acceleration, name)().change(network, DEVICE)
        return network

    return Side(title, build, dtype)


def cases() -> Iterator[Case]:
    """All rows."""
    for depth in (18, 50):
        yield Case(ours(f"ResNet-{depth}", "ResNet", depth=depth), torchvisions(f"resnet{depth}"), 16, 64)
    for depth in (20, 110):
        side = Side("by hand", lambda depth=depth: by_hand(depth))
        yield Case(ours(f"ResNet-{depth}", "ResNet", depth=depth), side, 64 if depth < 100 else 16, 32)
    preact = ours("PreActResNet-110", "PreActResNet", depth=110)
    yield Case(preact, Side("by hand", lambda: by_hand(110, preact=True)), 16, 32)
    yield Case(ours("DenseNet-121", "DenseNet", depth=121), torchvisions("densenet121"), 16, 64)
    yield Case(ours("VGG-11, batch norm", "VGG", depth=11, norm="batch"), torchvisions("vgg11_bn"), 8, 64)
    yield Case(ours("VGG-16", "VGG", depth=16), torchvisions("vgg16"), 8, 64)
    yield Case(ours("TorchVision: resnet18", "TorchVision", name="resnet18"), torchvisions("resnet18"), 16, 64)
    yield Case(ours("Timm: resnet18", "Timm", name="resnet18"), timms("resnet18"), 16, 64)
    yield from accelerated("ResNet-18", 16, 64, depth=18)
    yield from accelerated("ResNet-20", 64, 32, depth=20)
    saving = ours("DenseNet-121, memory saved", "DenseNet", depth=121, memory_efficient=True)
    yield Case(saving, ours("without", "DenseNet", depth=121), 16, 64, bar=None, memory=True)


def accelerated(title: str, batch_size: int, pixels: int, **arguments: Any) -> Iterator[Case]:
    """A ResNet with each means alone and with all of them, against itself without any."""
    plain, half = ours("without", "ResNet", **arguments), torch.bfloat16
    ways: list[tuple[str, tuple[str, ...], torch.dtype]] = [
        ("channels last", ("ChannelsLast",), torch.float32),
        ("compiled", ("Compile",), torch.float32),
        ("bfloat16", (), half),
        ("bfloat16, channels last", ("ChannelsLast",), half),
        ("bfloat16, channels last, compiled", ("ChannelsLast", "Compile"), half),
    ]
    for name, callbacks, dtype in ways:
        side = ours(f"{title}, {name}", "ResNet", *callbacks, dtype=dtype, **arguments)
        yield Case(side, plain, batch_size, pixels, bar=None)


# Measuring


class Trained:
    """A network in training on one batch.

    Args:
        side: the network and its precision.
        case: the batch.
    """

    def __init__(self, side: Side, case: Case) -> None:
        torch.manual_seed(0)
        self.network, self.dtype = side.build().to(DEVICE).train(), side.dtype
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-3, momentum=0.9)
        self.images = torch.randn(case.batch_size, 3, case.pixels, case.pixels, device=DEVICE)
        self.labels = torch.arange(case.batch_size, device=DEVICE) % CLASSES

    def step(self) -> None:
        """One training step."""
        with torch.autocast(DEVICE.type, self.dtype, enabled=self.dtype is not torch.float32):
            logits = self.network(self.images)
        loss = F.cross_entropy(logits.float(), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def seconds(self, steps: int) -> float:
        """Seconds a step, of so many."""
        _finish()
        start = CLOCK()
        for _ in range(steps):
            self.step()
        _finish()
        return (CLOCK() - start) / steps

    def peak(self) -> int:
        """Bytes that a step allocates, at most at one time: activations, gradients."""
        self.optimizer.zero_grad()
        if DEVICE.type != "cuda":
            with Allocations() as allocations:
                self.step()
            return allocations.peak
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self.step()
        return torch.cuda.max_memory_allocated() - before


def _finish() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


class Allocations(TorchDispatchMode):
    """Adds up the tensors that operations make, for as long as they live; not what a kernel needs inside itself."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _storages((args, kwargs))
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made) - given:
            if storage not in self.seen:
                self._add(storage)
        return made

    def _add(self, storage: Any) -> None:
        self.seen.add(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, storage.nbytes())

    def _drop(self, size: int) -> None:
        self.now -= size


def _storages(values: Any) -> set[Any]:
    return {value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)}


def measure(case: Case, rounds: int) -> dict[str, object]:
    """A row."""
    ours, other = Trained(case.ours, case), Trained(case.other, case)
    sizes = [sum(p.numel() for p in one.network.parameters()) for one in (ours, other)]
    if sizes[0] != sizes[1]:
        raise RuntimeError(f"{case.ours.name} has {sizes[0]} parameters, {case.other.name} {sizes[1]}: not the same")
    for one in (ours, other):
        one.seconds(2)  # compiles, chooses kernels, makes the optimiser's state
    steps = [max(1, math.ceil(BLOCK / one.seconds(1))) for one in (ours, other)]
    times = []
    for i in range(rounds):  # the first of a round has the colder caches, so each is it in turn
        if i % 2:
            b, a = other.seconds(steps[1]), ours.seconds(steps[0])
        else:
            a, b = ours.seconds(steps[0]), other.seconds(steps[1])
        times.append((a, b))
    ratios = [b / a for a, b in times]
    row = {
        "ours": case.ours.name,
        "against": case.other.name,
        "images": f"{case.batch_size} × {case.pixels}×{case.pixels}",
        "ours, ms": spread([1e3 * a for a, _ in times], 0),
        "other, ms": spread([1e3 * b for _, b in times], 0),
        "ratio": spread(ratios),
    }
    if case.memory:
        row["memory"] = f"{ours.peak() / other.peak():.2f}"
    if case.bar is not None:
        row |= {"bar": case.bar, "reached": statistics.median(ratios) >= case.bar}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", default="", metavar="WORD")
    options = parser.parse_args()
    chosen = [case for case in cases() if options.only in case.ours.name]
    rows = []
    for case in chosen:
        rows.append(measure(case, options.rounds))
        print(rows[-1], file=sys.stderr, flush=True)
    report("Training steps of the families", ABOUT, rows)


if __name__ == "__main__":
    main()
