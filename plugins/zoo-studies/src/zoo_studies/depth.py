"""``zoo study depth``: what happens to plain, residual and identity-skip networks when they get deeper.

The claims: above 10 layers weights must be initialised carefully and batch normalisation helps (Ioffe and Szegedy
2015); above 30, skip connections (He et al. 2015); above 100, identity skips (He et al. 2016). The networks are
CIFAR's, on small digits, so that all of it takes little more than an hour on two cores; ``--full`` trains the papers'
depths on CIFAR-10 by their recipes.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD

from zoo.architectures.base import Architecture
from zoo.architectures.plain import PlainNet
from zoo.architectures.preact_resnet import PreActResNet
from zoo.architectures.resnet import ResNet
from zoo.cli.measure import measure
from zoo.data.cifar import CIFAR10
from zoo.data.mnist import MNIST5k
from zoo.errors import UserError
from zoo.factories import build
from zoo.insight.signal import evenly, measure_signal, residual_blocks
from zoo.tasks.classification import Classification
from zoo.tasks.normalize import Normalize
from zoo.training.acceleration import ChannelsLast
from zoo.training.schedulers import WarmupCosine
from zoo_studies import depth_page
from zoo_studies.book import ResultsFile
from zoo_studies.training import figures_of_test, train

ABOUT = "Plain, residual and identity-skip networks by depth."
POINTS = 60  # number of points of a plotted signal


class Family(NamedTuple):
    """Networks that differ in depth only.

    Args:
        network: the factory, without its depth.
        lr: the highest learning rate; without normalisation training diverges at the usual one.
        skips: whether it is trained at depths where the others can't be trained.
        thousand: a depth of about a thousand layers that the family has.
    """

    network: Any
    lr: float
    skips: bool = False
    thousand: int = 1001


FAMILIES = {
    "plain, no care": Family(partial(PlainNet, norm="none", init="normal"), 0.005),
    "plain, initialised": Family(partial(PlainNet, norm="none", init="backward"), 0.005),
    "plain, batch norm": Family(partial(PlainNet, norm="batch", init="backward"), 0.1),
    "residual": Family(ResNet, 0.1, skips=True, thousand=1004),
    "identity skips": Family(PreActResNet, 0.1, skips=True),
}


@dataclass(frozen=True)
class Settings:
    """Everything that the metrics depend on."""

    depths: Sequence[int] = (8, 14, 20, 32, 56, 110)
    seeds: Sequence[int] = (0, 1)
    signal_depths: Sequence[int] = (110, 1001)
    deep: Sequence[int] = (218,)  # with skips only, and with the first seed only: each takes minutes
    epochs: int = 12
    images: int = 4000
    image_size: int = 16
    batch_size: int = 64
    precision: str = "bf16-mixed"
    rates: Mapping[str, float] = field(default_factory=lambda: {name: f.lr for name, f in FAMILIES.items()})


# The papers' networks and the recipes with their settings: He et al. 2015, table 6; He et al. 2016, tables 4 and 5.
PAPERS = (
    ("plain, batch norm", 20, "cifar10/plain20"),
    ("plain, batch norm", 32, "cifar10/plain20"),
    ("plain, batch norm", 44, "cifar10/plain56"),
    ("plain, batch norm", 56, "cifar10/plain56"),
    ("residual", 20, "cifar10/resnet20"),
    ("residual", 32, "cifar10/resnet20"),
    ("residual", 44, "cifar10/resnet56"),
    ("residual", 56, "cifar10/resnet56"),
    ("residual", 110, "cifar10/resnet110"),
    ("residual", 1202, "cifar10/resnet110"),
    ("identity skips", 110, "cifar10/preact_resnet110"),
    ("identity skips", 164, "cifar10/preact_resnet164"),
    ("identity skips", 1001, "cifar10/preact_resnet1001"),
)
PAPER_SEEDS = (0,)
QUICK = Settings(depths=(8, 14), seeds=(0,), signal_depths=(8, 110), deep=(), epochs=1, images=400, image_size=8)


def main(options: Namespace) -> int:
    """Run or resume the study, and write its rows, plots and page.

    Args:
        options: options of ``zoo study depth``.

    Raises:
        UserError: the folder holds a study with other settings.
    """
    out = Path(options.out)
    if options.full:
        return _run_papers(out, options.root)
    if options.root:
        raise UserError("study depth: --root goes with --full; without it the study trains on digits")
    settings = QUICK if options.quick else Settings()
    book = ResultsFile(out / "depth.json", "zoo study depth" + " --quick" * options.quick, ABOUT, asdict(settings))
    run(book, settings)
    print(write_page(book, out))
    return 0


def _run_papers(out: Path, root: str | None) -> int:
    refuse_papers(root)
    runs = [[name, depth, recipe] for name, depth, recipe in PAPERS]
    book = ResultsFile(out / "depth-full.json", "zoo study depth --full", ABOUT, {"papers": runs, "seeds": PAPER_SEEDS})
    for seed in PAPER_SEEDS:
        for name, depth, recipe in PAPERS:
            key = {"network": name, "depth": depth, "seed": seed}
            book.once(key, partial(train_by_recipe, recipe, depth, seed, root))
    print(write_page(book, out))
    return 0


def refuse_papers(root: str | None) -> None:
    """Raise if the papers' networks can't be trained here.

    Raises:
        UserError: there is no CIFAR-10, or no GPU.
    """
    data = CIFAR10(root=root)
    if missing := data.missing():
        raise UserError(f"study depth --full: {data.folder} has no {missing[0]}; --root names the folder above it")
    if not torch.cuda.is_available():
        raise UserError("study depth --full trains ResNet-1202 and PreActResNet-1001 on CIFAR-10: it needs a GPU")


def train_by_recipe(recipe: str, depth: int, seed: int, root: str | None) -> dict[str, float]:
    """Train and test by ``zoo fit`` with this recipe, at this depth."""
    flags = ["--model.architecture.depth", str(depth), *(["--data.root", root] if root else [])]
    return {"accuracy": measure(recipe, [seed], flags)["figures"]["test/top1"]["mean"]}


def run(book: ResultsFile, settings: Settings) -> None:
    """Run what is not in the results file yet: signals first, then the networks, shallow ones first."""
    for depth in settings.signal_depths:
        for name, family in FAMILIES.items():
            deep = family.thousand if depth == 1001 else depth
            book.once({"network": name, "depth": deep, "what": "signal"}, partial(signal_of, family, deep, settings))
    for depth, seed, name in plan(settings):
        key = {"network": name, "depth": depth, "seed": seed}
        book.once(key, partial(train_one, FAMILIES[name], depth, seed, settings))


def plan(settings: Settings) -> list[tuple[int, int, str]]:
    """Depth, seed and family of every network that is trained, the shallow ones first."""
    most = [(depth, seed, name) for depth in settings.depths for seed in settings.seeds for name in FAMILIES]
    return most + [
        (depth, settings.seeds[0], name) for depth in settings.deep for name, f in FAMILIES.items() if f.skips
    ]


def write_page(book: ResultsFile, out: Path) -> Path:
    """Write plots and tables of the existing rows."""
    pictures = depth_page.draw(book.content, out, book.path.stem)
    text = "\n".join([f"# {ABOUT}\n", *(f"![{name}]({name})\n" for name in pictures), depth_page.tables(book.content)])
    page = book.path.with_suffix(".md")
    page.write_text(text, encoding="utf-8")
    return page


def data_of(settings: Settings) -> MNIST5k:
    """The downscaled digits."""
    held = 1 - settings.images / 4000
    return MNIST5k(
        image_size=settings.image_size, val_fraction=held, batch_size=settings.batch_size, eval_batch_size=500
    )


def train_one(family: Family, depth: int, seed: int, settings: Settings) -> dict[str, Any]:
    """Train and test one network."""
    task = Classification(
        partial(family.network, depth=depth),
        optimizer=partial(SGD, lr=family.lr, momentum=0.9, weight_decay=1e-4, nesterov=True),
        scheduler=partial(WarmupCosine, warmup_fraction=0.1),
    )
    data = data_of(settings)
    trainer, curve = train(task, data, settings.epochs, seed, settings.precision, callbacks=[ChannelsLast()])
    figures = figures_of_test(trainer, task, data)
    return {
        "accuracy": figures["test/top1"],
        "train_loss": curve.losses[-1],
        "train_accuracy": 1 - curve.errors[-1],
        "losses": curve.losses,
    }


# Signal


def signal_of(family: Family, depth: int, settings: Settings) -> dict[str, Any]:
    """Variances by layer of an untrained network on real images."""
    torch.manual_seed(0)
    images, labels, facts = a_batch(settings)
    side = [settings.image_size] * 2
    network: Architecture = build(family.network, num_classes=10, in_channels=1, image_size=side, depth=depth)
    return {"signal": signal(network, Normalize(network, facts)(images), labels)}


def a_batch(settings: Settings, size: int = 32) -> tuple[Tensor, Tensor, Any]:
    """Images in [0, 1] and labels of the test split, and the data's facts."""
    data = data_of(settings)
    data.setup()
    samples = data.samples("test")
    batch = samples.fetch(torch.arange(0, len(samples), max(1, len(samples) // size))[:size])
    return *data.on_after_batch_transfer(batch, 0), data.facts


def signal(network: Architecture, images: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Variance of activations and gradients at positions from the first layer (0) to the logits (1).

    Measured at the weight layers of a plain network, and at the residual sums of a residual one.
    """
    blocks = list(residual_blocks(network))
    found = measure_signal(network, images, labels, ["conv1", *blocks, "fc"] if blocks else None)
    kept = evenly(len(found), POINTS)
    return {
        "position": [n / max(1, len(found) - 1) for n in kept],
        "activation": [found[n].activation for n in kept],
        "gradient": [found[n].gradient for n in kept],
    }
