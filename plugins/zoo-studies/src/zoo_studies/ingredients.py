"""``zoo study ingredients``: what each part of AlexNet does for its error.

Krizhevsky, Sutskever and Hinton 2012 report it for ReLU (section 3.1), response normalisation (3.3), overlapping
pooling (3.4), crops, horizontal flips, colour shifts and averaged crops (4.1), and dropout (4.2). Here each is left out
of a narrow AlexNet, on a fixed part of CIFAR-10 or on digits, with several seeds.

ReLU and tanh are compared as in the paper's figure 1: epochs to a given training error without any regularisation,
each at its own best learning rate, which is chosen with the first seed.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.transforms.v2 import CenterCrop

from zoo.architectures.alexnet import AlexNet
from zoo.data.cifar import CIFAR10
from zoo.data.images import ImageClassification
from zoo.data.mnist import MNIST5k
from zoo.data.transforms import CropEach, FlipEach, PCAColor
from zoo.errors import UserError
from zoo.tasks.classification import Classification
from zoo_studies import ingredients_page
from zoo_studies.book import ResultsFile
from zoo_studies.ingredients_page import LEVEL, WHOLE
from zoo_studies.training import figures_of_test, figures_of_training, train, watching

ABOUT = "What each part of AlexNet does for its error."
PARTS: dict[str, dict[str, Any]] = {
    "overlapping pooling": {"overlapping_pooling": False},
    "response normalisation": {"response_norm": False},
    "dropout": {"dropout": 0.0},
    "crops and reflections": {},
    "colour shifts": {},
}


@dataclass(frozen=True)
class Settings:
    """Everything that the metrics depend on.

    Images of 33 pixels at a stride of 1 are reduced to 23, 11, 5 and 2 by windows of 2 as by windows of 3, as the
    paper's are by both to 55, 27, 13 and 6: else overlapping pooling would change the size of the network.
    """

    data: str = "CIFAR10"
    images: int = 10_000
    epochs: int = 20
    race_epochs: int = 30
    seeds: Sequence[int] = (0, 1, 2)
    rates: Sequence[float] = (0.01, 0.02, 0.04)
    width: float = 0.25
    image_size: int = 33
    resize: int = 37
    batch_size: int = 128
    lr: float = 0.05
    precision: str = "bf16-mixed"
    test_batches: int | None = None


QUICK: dict[str, Any] = {
    "images": 500,
    "epochs": 1,
    "race_epochs": 1,
    "seeds": (0,),
    "rates": (0.03,),
    "width": 0.1,
    "test_batches": 1,
}
SIZES = {"CIFAR10": 50_000, "MNIST5k": 4_000}


def main(options: Namespace) -> int:
    """Run or resume the study, and write its rows, plot and page.

    Args:
        options: options of ``zoo study ingredients``.

    Raises:
        UserError: the data is not there, or the folder holds a study with other settings.
    """
    settings = settings_of(options.root, options.full, options.quick)
    out = Path(options.out)
    command = (
        "zoo study ingredients"
        + " --root FOLDER" * bool(options.root)
        + " --full" * options.full
        + " --quick" * options.quick
    )
    book = ResultsFile(out / "ingredients.json", command, ABOUT, asdict(settings))
    run(book, settings, options.root)
    print(write_page(book, out))
    return 0


def settings_of(root: str | None, full: bool = False, quick: bool = False) -> Settings:
    """The study's numbers for this data.

    Raises:
        UserError: there is no CIFAR-10 below the folder.
    """
    data = "CIFAR10" if root else "MNIST5k"
    if root and (missing := CIFAR10(root=root).missing()):
        raise UserError(f"{root} has no cifar-10-batches-py/{missing[0]}: --root names the folder above these files")
    settings = replace(Settings(), data=data, **(QUICK if quick else {}))
    return replace(settings, images=SIZES[data] if full else min(settings.images, SIZES[data]))


def run(book: ResultsFile, settings: Settings, root: str | None) -> None:
    """Run what is not in the results file yet, seed by seed."""
    for seed in settings.seeds:
        for without in (WHOLE, *PARTS):
            key = {"without": without, "seed": seed}
            book.once(key, partial(train_without, without, seed, settings, root))
        for activation in ("relu", "tanh"):
            for lr in settings.rates if seed == min(settings.seeds) else best(book, activation):
                key = {"activation": activation, "lr": lr, "seed": seed}
                book.once(key, partial(race, activation, lr, seed, settings, root))


def best(book: ResultsFile, activation: str) -> list[float]:
    """The learning rate that was best with the first seed; empty if none reached the level."""
    rate = ingredients_page.best_rate(book.runs, activation)
    return [] if rate is None else [rate]


def write_page(book: ResultsFile, out: Path) -> Path:
    """Write plot and tables of the existing rows."""
    pictures = ingredients_page.draw(book.content, out)
    parts = [f"# {ABOUT}\n", *(f"![{name}]({name})\n" for name in pictures), ingredients_page.tables(book.content)]
    page = out / "ingredients.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    return page


def data_of(settings: Settings, root: str | None, augment: Sequence[Any]) -> ImageClassification:
    """A fixed part of the training images, also used for validation, and the whole test split."""
    held = 1 - settings.images / SIZES[settings.data]
    common: dict[str, Any] = {
        "image_size": settings.image_size,
        "resize": settings.resize,
        "augment": list(augment),
        "val_fraction": held,
        "batch_size": settings.batch_size,
        "eval_batch_size": 500,
    }
    if settings.data == "CIFAR10":
        return watching(CIFAR10)(root=root, check=False, **common)
    return watching(MNIST5k)(**common)


def augmentation(settings: Settings, without: str) -> list[Any]:
    """Crops and flips, or the centre crop; colour shifts (brightness for grey images). Digits aren't flipped."""
    if without == "crops and reflections":
        moves: list[Any] = [partial(CenterCrop, size=settings.image_size)]
    else:
        moves = [CropEach, FlipEach] if settings.data == "CIFAR10" else [CropEach]
    return moves if without == "colour shifts" else [*moves, PCAColor]


def train_without(without: str, seed: int, settings: Settings, root: str | None) -> dict[str, float]:
    """Errors of a network without one ingredient: on the test part by ten crops and by one, and on training images."""
    task = Classification(
        network(settings, **PARTS.get(without, {})),
        optimizer=partial(SGD, lr=settings.lr, momentum=0.9, weight_decay=5e-4, nesterov=True),
        scheduler=partial(OneCycleLR, max_lr=settings.lr),
    )
    data = data_of(settings, root, augmentation(settings, without))
    trainer, curve = train(task, data, settings.epochs, seed, settings.precision, test_batches=settings.test_batches)
    one, ten = (figures_of_test(trainer, task, data, views) for views in ("center", "ten"))
    again = figures_of_training(task, data, settings.precision)
    return {
        "ten_error": 1 - ten["test/top1"],
        "one_error": 1 - one["test/top1"],
        "train_error": 1 - again["val/top1"],
        "train_loss": curve.losses[-1],
    }


def race(activation: str, lr: float, seed: int, settings: Settings, root: str | None) -> dict[str, Any]:
    """Training errors by epoch, until the level is reached, without regularisation and at a constant learning rate."""
    task = Classification(
        network(settings, activation=activation, dropout=0.0), optimizer=partial(SGD, lr=lr, momentum=0.9)
    )
    data = data_of(settings, root, [partial(CenterCrop, size=settings.image_size)])
    _, curve = train(task, data, settings.race_epochs, seed, settings.precision, until=LEVEL)
    return {"errors": curve.errors, "last_error": curve.errors[-1]}


def network(settings: Settings, **changes: Any) -> Any:
    """This study's AlexNet, with changes."""
    return partial(AlexNet, width=settings.width, stride=1, init="forward", **changes)
