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
        until: training error at which training stops; it also stops if the loss is not finite.
    """

    def __init__(self, until: float = 0.0) -> None:
        self.until = until
        self.losses: list[float] = []
        self.errors: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the metrics and reset."""
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
    """Train with this seed, without validation and without writing files.

    Args:
        task: a task that is not built yet.
        data: with a training split.
        epochs: maximum number of epochs.
        seed: seed of weights, order and augmentation.
        precision: Lightning's name of it.
        until: training error at which training stops.
        test_batches: maximum number of batches in later tests; by default all.
        callbacks: further callbacks.

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
    """The task's metrics on the test split, with these test-time crops."""
    task.views = views
    return _figures(trainer.test(task, datamodule=data, verbose=False))


def figures_of_training(task: Classification, data: Data, precision: Any = "32-true") -> dict[str, float]:
    """The task's metrics on the validation split of ``watching`` data: training images without augmentation."""
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(devices=1, precision=precision, enable_model_summary=False, **options)
    return _figures(trainer.validate(task, datamodule=data, verbose=False))


def _figures(found: Sequence[Any]) -> dict[str, float]:
    return {key: float(value) for key, value in found[0].items()}


def watching(kind: type[AnyData]) -> type[AnyData]:
    """The same data with the training images, without augmentation, as validation split, to measure their error."""

    def samples(self: AnyData, split: Split) -> Any:
        return kind.samples(self, "train" if split == "val" else split)

    return type(kind.__name__, (kind,), {"samples": samples, "__doc__": kind.__doc__, "__module__": kind.__module__})


def epochs_to(errors: Sequence[float], level: float, start: float) -> float | None:
    """Epochs until the training error has fallen to this level, interpolated; None if it never does.

    Args:
        errors: mean over each epoch, assigned to the epoch's middle.
        level: the training error to reach.
        start: the error before training, by chance.
    """
    points = [(0.0, start), *((n + 0.5, error) for n, error in enumerate(errors))]
    for (before, high), (after, low) in pairwise(points):
        if low <= level:
            return before if high <= level else before + (after - before) * (high - level) / (high - low)
    return None
