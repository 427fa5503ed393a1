"""Every file that a run with accumulated gradients and validations in mid-epoch saves resumes exactly."""

import logging
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from running import different, quiet_trainer, state
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


class StopAt(Callback):
    """Asks for a stop at one batch, as a timer does, or at one validation, as early stopping does."""

    def __init__(self, batch: int, at_validation: bool) -> None:
        self.batch, self.at_validation = batch, at_validation

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.should_stop |= not self.at_validation and trainer.fit_loop.total_batch_idx >= self.batch

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.should_stop |= self.at_validation and trainer.fit_loop.total_batch_idx >= self.batch


def fit(
    folder: Path,
    resumed: Path | None,
    accumulated: int,
    interval: int,
    max_steps: int = -1,
    stop: StopAt | None = None,
    scheduled: dict[int, int] | None = None,
) -> None:
    """Two epochs of six batches."""
    seed_everything(0, verbose=False)
    quiet_trainer(
        max_steps=max_steps,
        limit_val_batches=1,
        callbacks=[
            *([stop] if stop else []),
            *([GradientAccumulationScheduler(scheduled)] if scheduled else []),
            ResumeAtEpochEnd(),
            RunCheckpoints(folder, "val/loss") if resumed or stop else EachSafePoint(folder),
        ],
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


def test_an_epoch_goes_on_with_its_own_accumulation(tmp_path: Path) -> None:
    fit(tmp_path / "whole", None, 1, 6, scheduled={0: 3, 1: 2})
    *saves, end = sorted((tmp_path / "whole").glob("[0-9]*.ckpt"))
    assert [state(save)["global_step"] for save in saves] == [1, 2, 3, 4]
    for save in saves:
        fit(tmp_path / save.stem, save, 1, 6, scheduled={0: 3, 1: 2})
        assert not different(state(end), state(tmp_path / save.stem / "last.ckpt")), save.name


@pytest.mark.parametrize("max_steps", [12, 11])
def test_an_epoch_that_has_ended_is_counted_once_with_both_limits(max_steps: int, tmp_path: Path) -> None:
    fit(tmp_path / "whole", None, 1, 3, max_steps)
    *saves, end = sorted((tmp_path / "whole").glob("[0-9]*.ckpt"))
    assert any(state(save)["global_step"] == 6 for save in saves)
    for save in (save for save in saves if state(save)["global_step"] < max_steps):
        fit(tmp_path / save.stem, save, 1, 3, max_steps)
        assert not different(state(end), state(tmp_path / save.stem / "last.ckpt")), save.name


def steps_logged(path: Path) -> int:
    loops = torch.load(path, weights_only=True)["loops"]["fit_loop"]
    return loops["epoch_loop.state_dict"]["_batches_that_stepped"]


@pytest.mark.parametrize("at_validation", [False, True])
@pytest.mark.parametrize("accumulated", [1, 3])
def test_a_run_that_a_callback_stopped_in_mid_epoch_goes_on_there(
    accumulated: int, at_validation: bool, tmp_path: Path
) -> None:
    fit(tmp_path / "whole", None, accumulated, 2)
    whole = tmp_path / "whole/last.ckpt"
    for batch in (0, 1, 3, 7):
        stopped, again = tmp_path / f"{batch}", tmp_path / f"{batch}-again"
        fit(stopped, None, accumulated, 2, stop=StopAt(batch, at_validation))
        assert state(stopped / "last.ckpt")["global_step"] < state(whole)["global_step"]
        fit(again, stopped / "last.ckpt", accumulated, 2)
        assert not different(state(whole), state(again / "last.ckpt")), batch
        assert steps_logged(whole) == steps_logged(again / "last.ckpt"), batch


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(("accumulated", "max_steps"), [(1, 3), (1, 4), (1, 6), (1, 9), (3, 1), (3, 3)])
def test_a_run_that_max_steps_stopped_goes_on_there(
    accumulated: int, max_steps: int, earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of earlier versions say that the epoch has ended."""
    fit(tmp_path / "whole", None, accumulated, 2)
    with monkeypatch.context() as patched:
        if earlier:
            patched.setattr(ResumeAtEpochEnd, "on_save_checkpoint", Callback.on_save_checkpoint)
        fit(tmp_path / "stopped", None, accumulated, 2, max_steps)
    for then in (-1, 20):
        fit(tmp_path / str(then), tmp_path / "stopped/last.ckpt", accumulated, 2, then)
        assert not different(state(tmp_path / "whole/last.ckpt"), state(tmp_path / str(then) / "last.ckpt"))
        if not earlier:
            assert steps_logged(tmp_path / "whole/last.ckpt") == steps_logged(tmp_path / str(then) / "last.ckpt")


def test_the_best_file_is_not_written_for_a_score_of_earlier_weights(tmp_path: Path) -> None:
    saver = RunCheckpoints(tmp_path, "val/x", minutes=99)
    written: list[float | None] = []
    trainer: Any = Mock(
        world_size=1, global_step=0, accumulate_grad_batches=2, is_last_batch=False, sanity_checking=False
    )
    trainer.state.fn, trainer.should_stop = "fit", False
    trainer.save_checkpoint = lambda path: (written.append(saver.best_score), path.touch())
    for batch, score in [(1, 0.5), (2, 0.9), (3, 0.4), (4, 0.3), (5, 0.6)]:
        trainer.fit_loop.batch_idx, trainer.callback_metrics = batch, {"val/x": score}
        saver.on_validation_end(trainer, trainer.lightning_module)
    assert written == [0.5, 0.6]
    assert saver.best_score == 0.6


def test_an_epoch_left_between_two_steps_keeps_the_earlier_file(tmp_path: Path) -> None:
    """As a task's own hook leaves it, which no callback can put off."""
    saver = RunCheckpoints(tmp_path, None)
    trainer: Any = Mock(world_size=1, global_step=1, accumulate_grad_batches=2, is_last_batch=False)
    trainer.fit_loop.batch_idx = 2
    saver.on_train_epoch_end(trainer, trainer.lightning_module)
    assert trainer.save_checkpoint.call_count == 1, "a file is better than none"
    saver.on_train_epoch_end(trainer, trainer.lightning_module)
    assert trainer.save_checkpoint.call_count == 1
    trainer.fit_loop.batch_idx = 3
    saver.on_train_epoch_end(trainer, trainer.lightning_module)
    assert trainer.save_checkpoint.call_count == 2


def test_a_stop_that_was_put_off_is_asked_for_once(tmp_path: Path) -> None:
    saver = RunCheckpoints(tmp_path, None)
    trainer: Any = Mock(accumulate_grad_batches=3, is_last_batch=False, should_stop=True)
    saver._put_off_stop(trainer, 0)
    assert trainer.should_stop is False
    saver._put_off_stop(trainer, 2)
    assert trainer.should_stop is True
    trainer.should_stop = False  # as each new fit starts
    saver._put_off_stop(trainer, 2)
    assert trainer.should_stop is False
