"""What a run shows: pictures in its folder, and pictures, overlays and tables in its loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from zoo.training.media import Media
from zoo.training.run_folder import unused_path


class PictureWriter(Callback):
    """Writes the task's pictures after each validation and after the test; loggers get its overlays and tables, too.

    Where nothing is validated, after each epoch. The pictures that are a task's product (``finished``) are written at
    the end of its fit, beside the folder.

    Args:
        folder: where the PNG files go.

    Attributes:
        results: paths of the finished pictures.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: list[Path] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pictures of an epoch that no validation follows."""
        if not any(trainer.num_val_batches):
            self._write(trainer, pl_module, f"train-epoch{trainer.current_epoch:03d}-step{trainer.global_step:06d}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The finished pictures."""
        if not trainer.is_global_zero:
            return
        pictures = pl_module.finished()  # type: ignore[operator]
        for i, picture in enumerate(pictures):
            path = unused_path(self.folder.parent / ("result.png" if len(pictures) == 1 else f"result-{i:02d}.png"))
            picture.save(path)
            self.results.append(path)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Let the task look at the batch."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            pl_module.show(batch, batch_idx)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Let the task look at the batch."""
        if trainer.is_global_zero:
            pl_module.show(batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pictures of some validation images."""
        if not trainer.sanity_checking:
            self._write(trainer, pl_module, f"val-epoch{trainer.current_epoch:03d}-step{trainer.global_step:06d}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pictures of the test."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, task: Any, prefix: str) -> None:
        if not trainer.is_global_zero:
            return
        pictures = task.pictures()
        for name, drawn in pictures.items():
            self.folder.mkdir(exist_ok=True)  # not its parents: a run whose folder is gone ends
            for i, picture in enumerate(drawn):
                path = self.folder / (f"{prefix}-{name}.png" if len(drawn) == 1 else f"{prefix}-{name}-{i:02d}.png")
                picture.save(unused_path(path))
        if trainer.loggers:
            media = Media(pictures, task.overlays(), task.tables())
            for logger in trainer.loggers:
                media.give(logger, prefix.partition("-")[0], trainer.global_step)
