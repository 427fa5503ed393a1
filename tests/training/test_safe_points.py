"""Every file that a run with accumulated gradients and validations in mid-epoch saves resumes exactly."""

import logging
import shutil
from pathlib import Path

import pytest
from lightning.pytorch import Trainer, seed_everything
from running import different, state
from zoo_toys.data import ToyTensors
from zoo_toys.tasks import ToyClassification

from zoo.training.callbacks import ResumeAtEpochEnd, RunCheckpoints
from zoo.training.checkpoints import AtomicCheckpointIO

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class EachSafePoint(RunCheckpoints):
    """Saves at each safe point, and keeps each file."""

    kept = 0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "val/loss", minutes=0)

    def _save(self, trainer: Trainer) -> None:
        super()._save(trainer)
        self.kept += 1
        shutil.copy(self.last, self.folder / f"{self.kept:02d}.ckpt")


def fit(folder: Path, resumed: Path | None, accumulated: int, interval: int, max_steps: int = -1) -> None:
    """Two epochs of six batches."""
    seed_everything(0, verbose=False)
    Trainer(
        accelerator="cpu",
        logger=False,
        max_epochs=2,
        max_steps=max_steps,
        num_sanity_val_steps=0,
        limit_val_batches=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[ResumeAtEpochEnd(), RunCheckpoints(folder, "val/loss") if resumed else EachSafePoint(folder)],
        plugins=[AtomicCheckpointIO()],
        accumulate_grad_batches=accumulated,
        val_check_interval=interval,
    ).fit(ToyClassification(), datamodule=ToyTensors(), ckpt_path=resumed, weights_only=True)


@pytest.mark.parametrize("accumulated", range(1, 7))
def test_each_save_resumes_exactly_whatever_the_interval(accumulated: int, tmp_path: Path) -> None:
    for interval in range(1, 7):
        whole = tmp_path / str(interval)
        fit(whole, None, accumulated, interval)
        *saves, end = sorted(whole.glob("[0-9]*.ckpt"))
        assert len(saves) >= 12 // accumulated - 1, "each optimiser step is followed by a safe point"
        for save in saves[:: max(1, len(saves) // 3)]:
            again = tmp_path / f"{interval}-{save.stem}"
            fit(again, save, accumulated, interval)
            found = different(state(end), state(again / "last.ckpt"))
            assert not found, f"interval {interval}, resumed from {save.name}: {found[:5]}"


@pytest.mark.parametrize("max_steps", [12, 11])
def test_an_epoch_that_has_ended_is_counted_once_with_both_limits(max_steps: int, tmp_path: Path) -> None:
    fit(tmp_path / "whole", None, 1, 3, max_steps)
    *saves, end = sorted((tmp_path / "whole").glob("[0-9]*.ckpt"))
    assert any(state(save)["global_step"] == 6 for save in saves)
    for save in (save for save in saves if state(save)["global_step"] < max_steps):
        fit(tmp_path / save.stem, save, 1, 3, max_steps)
        assert not different(state(end), state(tmp_path / save.stem / "last.ckpt")), save.name
