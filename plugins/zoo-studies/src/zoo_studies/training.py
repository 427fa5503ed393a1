"""One network trained and tested in this process: a study has too many runs to start a process for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from zoo.cli.lightning import quiet
from zoo.data.base import Data, Split
from zoo.functional.views import Views
from zoo.tasks.classification import Classification

AnyData = TypeVar("AnyData", bound=Data)


class Curve(Callback):
    """The training loss and error of each epoch: the task's own metrics, over all of the epoch's batches.

    Args:
        until: training error at which it is enough; training also ends where the loss is no number any more.
    """

    def __init__(self, until: float = 0.0) -> None:
        self.until = until
        self.losses: list[float] = []
        self.errors: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the metrics and begin anew."""
        assert isinstance(pl_module, Classification)
        self.losses.append(float(pl_module.train_loss.compute()))
        self.errors.append(1 - float(pl_module.train_top1.compute()))
        pl_module.train_loss.reset()
        pl_module.train_top1.reset()
        if self.errors[-1] <= self.until or not math.isfinite(self.losses[-1]):
            trainer.should_stop = True


def train(
    task: Classification,
    data: Data,
    epochs: int,
    seed: int,
    precision: Any = "32-true",
    until: float = 0.0,
    test_batches: int | None = None,
    callbacks: Sequence[Callback] = (),
) -> tuple[Trainer, Curve]:
    """Train from this seed; nothing is written, and nothing is validated.

    Args:
        task: yet to be built.
        data: with a training part.
        epochs: at most.
        seed: of weights, order and augmentation.
        precision: Lightning's name of it.
        until: training error at which it is enough.
        test_batches: at most, in tests that follow; left out, all.
        callbacks: what else is to be done.

    Raises:
        KeyboardInterrupt: the user ended it.
    """
    quiet()
    seed_everything(seed, verbose=False)
    curve = Curve(until)
    trainer = Trainer(
        max_epochs=epochs,
        devices=1,
        precision=precision,
        callbacks=[curve, *callbacks],
        limit_val_batches=0,
        limit_test_batches=test_batches,
        log_every_n_steps=1,  # so that the curve holds every batch
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    _interruptible(trainer, lambda: trainer.fit(task, datamodule=data))
    return trainer, curve


def _interruptible(trainer: Trainer, work: Any) -> None:
    try:
        work()
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def figures_of_test(trainer: Trainer, task: Classification, data: Data, views: Views = "center") -> dict[str, float]:
    """The task's figures on the test part, by these views."""
    task.views = views
    return _figures(trainer.test(task, datamodule=data, verbose=False))


def figures_of_training(task: Classification, data: Data, precision: Any = "32-true") -> dict[str, float]:
    """The task's figures on what ``watching`` data calls validation: its training images, as evaluation sees them."""
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(devices=1, precision=precision, enable_model_summary=False, **options)
    return _figures(trainer.validate(task, datamodule=data, verbose=False))


def _figures(found: Sequence[Any]) -> dict[str, float]:
    return {key: float(value) for key, value in found[0].items()}


def watching(kind: type[AnyData]) -> type[AnyData]:
    """The same data, but validation sees the training images, without augmentation, to measure the error on them."""

    def samples(self: AnyData, split: Split) -> Any:
        return kind.samples(self, "train" if split == "val" else split)

    return type(kind.__name__, (kind,), {"samples": samples, "__doc__": kind.__doc__, "__module__": kind.__module__})


def epochs_to(errors: Sequence[float], level: float, start: float) -> float | None:
    """Epochs until the training error has fallen to this level, interpolated; None where it never does.

    Args:
        errors: of each epoch, a mean over it: it stands for the epoch's middle.
        level: what is to be reached.
        start: the error before training, that of guessing.
    """
    points = [(0.0, start), *((n + 0.5, error) for n, error in enumerate(errors))]
    for (before, high), (after, low) in pairwise(points):
        if low <= level:
            return before if high <= level else before + (after - before) * (high - level) / (high - low)
    return None
