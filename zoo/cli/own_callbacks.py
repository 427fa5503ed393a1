"""What becomes of the callbacks that a recipe brings: its own checkpoints are kept in the run's folder and found again;
those that change the recipe while it runs are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Checkpoint,
    LearningRateFinder,
    ModelCheckpoint,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
)

from zoo.errors import UserError
from zoo.training.callbacks import RunCheckpoints
from zoo.training.checkpoints import RUN_KEY

# Callbacks that change a value of the recipe during the run, by what they change.
CHANGES = ((LearningRateFinder, "the learning rate", "lr"), (BatchSizeFinder, "data.batch_size", "batch_size"))


def refuse_finders(callbacks: Sequence[Any]) -> None:
    """A run's recipe says with what it was trained, and a resumed run goes on with the same.

    Raises:
        UserError: a callback would choose such a value by itself.
    """
    for callback in callbacks:
        for cls, what, name in CHANGES:
            if isinstance(callback, cls):
                raise UserError(
                    f"trainer.callbacks: {type(callback).__name__} is not allowed: it would change {what} while the "
                    f"recipe says another; try several by flags (--…{name} VALUE) with a small --trainer.max_steps"
                )


def say_inexact(callbacks: Sequence[Any]) -> None:
    """Print which of a resumed run's callbacks do not go on exactly: their state is not in the checkpoint."""
    for callback in callbacks:
        if isinstance(callback, StochasticWeightAveraging):
            print(
                f"zoo: {type(callback).__name__} does not go on exactly: Lightning restores no schedule of it "
                "(WeightAveraging, as in the recipe trainer/ema, goes on exactly)",
                flush=True,
            )


def saves(callback: Any) -> bool:
    """Whether it keeps the run's checkpoints."""
    return isinstance(callback, Checkpoint) and not isinstance(callback, OnExceptionCheckpoint)


def place_checkpoints(callbacks: Sequence[Any], folder: Path) -> None:
    """A recipe's ``ModelCheckpoint`` writes into ``checkpoints/`` of the run unless it says where, and no metric's
    ``/`` makes a folder of its own.
    """
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = callback.dirpath or str(folder / "checkpoints")
            if callback.filename and callback.auto_insert_metric_name:
                callback.filename = flat(callback.filename)
                callback.auto_insert_metric_name = False


def flat(filename: str) -> str:
    """A format with the metrics' names written out, as ``ModelCheckpoint`` would, but ``-`` for ``/`` in them."""
    return re.sub(r"\{([^}:]+)", lambda m: f"{m[1].replace('/', '-')}={{{m[1]}", filename)


class RecordRun(Callback):
    """Adds what a checkpoint says of its run, where a recipe's own callback writes it.

    Args:
        record: as plain data.
    """

    def __init__(self, record: Callable[[], dict[str, Any]]) -> None:
        self.record = record

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add it."""
        checkpoint[RUN_KEY] = {**checkpoint.get(RUN_KEY, {}), **self.record()}


class SaveWhenStopped(RunCheckpoints):
    """Beside a recipe's own checkpoints: ``last.ckpt`` at the safe point where a signal stops the run, and no other.

    Args:
        folder: where the file goes.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, monitor=None)

    def _safe_point(self, trainer: Trainer, always: bool = False) -> None:
        stop, _ = self._agreed(trainer)
        if stop:
            self._save(trainer)
            self._leave(trainer, stop)


def chosen_by(callbacks: Sequence[Any]) -> Path | None:
    """The best checkpoint of a recipe's own ``ModelCheckpoint``, else its last; None if it has written none."""
    own = [c for c in callbacks if isinstance(c, ModelCheckpoint)]
    paths = [*(c.best_model_path for c in own), *(c.last_model_path for c in own)]
    return next((Path(path) for path in paths if path and Path(path).is_file()), None)
