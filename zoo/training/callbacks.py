"""What every run does beside training: save at safe points, step plateau schedulers, and say how it goes."""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, GradientAccumulationScheduler
from lightning.pytorch.loops.loop import _Loop
from torch.optim.lr_scheduler import ReduceLROnPlateau

from zoo.data.base import Data
from zoo.errors import UserError
from zoo.training.checkpoints import RUN_KEY
from zoo.training.requeue import RunningJob, job_of


class Stopped(Exception):  # noqa: N818  not an error: the run was asked to stop, has saved, and leaves
    """The run was asked to stop by a signal, and has saved.

    Args:
        number: the signal; the exit status is 128 more.
        path: the checkpoint to go on from.
        requeued: what has become of its job, if that was to be requeued; empty in all processes but the first.
    """

    def __init__(self, number: int, path: Path, requeued: str | None = None) -> None:
        resume = f"resume with: zoo fit --ckpt_path {shlex.quote(str(path))}"
        super().__init__(f"stopped by {signal.Signals(number).name}; {resume}" if requeued is None else requeued)
        self.status, self.ends_job = 128 + number, requeued is not None

    def leave(self) -> int:
        """Say what was done; the exit status."""
        if self.ends_job:  # with a SIGTERM, whose handler Lightning has given back; the loggers have yet to finish
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if str(self):
            print(f"zoo: {self}", flush=True)
        return self.status


class Plateau(Callback):
    """Steps schedulers that wait for a plateau, at the end of each validation.

    Lightning steps them after the epoch's last checkpoint and skips the step of a resumed epoch, so that a resumed run
    would differ.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the monitored value to the scheduler."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step(_monitored(trainer, str(config.monitor)))


def _monitored(trainer: Trainer, name: str) -> float:
    if name not in trainer.callback_metrics:
        known = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
        raise UserError(f"the run waits for {name}, which validation does not give (it gives {known})")
    return float(trainer.callback_metrics[name])


class RequireValidation(Callback):
    """Refuses, before the run has written anything, what waits for a validation in a run that has none."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the schedulers and callbacks.

        Raises:
            UserError: one of them would never be stepped, or fail at the first epoch's end.
        """
        if (waiting := self._waiting(trainer)) and not self._validates(trainer):
            name, monitor = waiting[0]
            raise UserError(f"{name} waits for {monitor}, but this run validates nothing: give it data.val_fraction")

    @staticmethod
    def _validates(trainer: Trainer) -> bool:
        data = trainer.datamodule  # type: ignore[attr-defined]
        return trainer.enable_validation and not (isinstance(data, Data) and data.samples("val") is None)

    @staticmethod
    def _waiting(trainer: Trainer) -> list[tuple[str, str]]:
        plateaus = [c for c in trainer.lr_scheduler_configs if isinstance(c.scheduler, ReduceLROnPlateau)]
        waiting = [(type(c.scheduler).__name__, str(c.monitor)) for c in plateaus]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            monitor = str(getattr(callback, "monitor", ""))
            if monitor.startswith("val/") and not isinstance(callback, RunCheckpoints):
                waiting.append((type(callback).__name__, monitor))
        return waiting


class ResumeAtEpochEnd(Callback):
    """Makes a resumed run go on where an epoch ended, or was left by ``max_steps``, ``max_time`` or early stopping.

    With ``max_steps``, Lightning would take a finished epoch for one that has not ended, and count it twice: with
    ``max_epochs`` too, a run would end an epoch early. An epoch that was left in the middle it would count as finished,
    and leave out the rest of its batches.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write an epoch that is left in the middle as one that goes on."""
        if trainer.state.fn != "fit" or trainer.is_last_batch:
            return
        loops, batch_idx = checkpoint["loops"]["fit_loop"], trainer.fit_loop.batch_idx
        due = _validation_due(trainer, batch_idx)
        # A resumed run counts a step for the loggers once more where a validation was due, else not.
        if _reopen(loops) and due:
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
        elif trainer.validating and not due and _stepped(trainer, batch_idx):
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """The same for files of earlier versions."""
        _reopen(checkpoint.get("loops", {}).get("fit_loop", {}))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell Lightning that the epoch has ended, and how many batches this epoch gathers."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):  # left out where an epoch goes on
                callback.on_train_epoch_start(trainer)
        loop = trainer.fit_loop
        if loop._iteration_based_training() and loop.restarted_on_epoch_end:
            _Loop.restarting.fset(loop, False)  # type: ignore[attr-defined]  # its own setter would make it True again
            loop.reset_restart_stage()
            loop.epoch_progress.increment_completed()


def _reopen(loops: dict[str, Any]) -> bool:
    """Take back that the epoch was counted as processed, if it was left before its last batch; whether it was."""
    if not {"epoch_progress", "epoch_loop.batch_progress"} <= loops.keys():
        return False
    total, current = loops["epoch_progress"]["total"], loops["epoch_progress"]["current"]
    counted = total["completed"] < total["processed"] == total["started"]
    if not counted or loops["epoch_loop.batch_progress"]["is_last_batch"]:
        return False
    for progress in (total, current):
        progress["processed"] -= 1
    return True


class RunCheckpoints(Checkpoint):
    """``last.ckpt`` after each epoch and every few minutes, ``best.ckpt`` by the task's monitor.

    Saves only at safe points, where a resumed run is exact: after a batch whose gradients were applied and at which no
    validation is due, after a validation in mid-epoch, at an epoch's end. A signal only sets a flag; the next safe
    point saves and stops.

    Args:
        folder: where the files go.
        monitor: the metric that chooses the best; None keeps only the last.
        mode: ``max`` or ``min``.
        record: what each file says of its run, as plain data.
        minutes: longest time between two saves.
        every_n_steps: save a file of its own, ``step=N.ckpt``, every so many steps, at the safe point that follows.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str | None,
        mode: str = "max",
        record: Callable[[], dict[str, Any]] = dict,
        minutes: float = 10.0,
        every_n_steps: int | None = None,
    ) -> None:
        self.folder, self.monitor, self.mode, self.record = folder, monitor, mode, record
        self.minutes, self.every_n_steps = minutes, every_n_steps
        self.best_score: float | None = None
        self._pending: float | None = None  # a better score, whose file is not written yet
        self._stop = self._saved = False
        self._signal: int | None = None
        self._saved_at = time.monotonic()
        self._handlers: dict[int, Any] = {}
        self._job: RunningJob | None = None

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "last.ckpt"

    @property
    def chosen(self) -> Path:
        """The best checkpoint where there is a monitor, else the last."""
        best = self.folder / "best.ckpt"
        return best if self.monitor and best.is_file() else self.last

    # Signals

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for a job that can be requeued, before Lightning looks for handlers."""
        if stage == "fit":
            self._job = job_of(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals; Lightning would save, or stop, in the middle of a step."""
        self._saved_at = time.monotonic()
        for number in _asked_to_stop():
            self._handlers[number] = signal.getsignal(number)
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._signal == number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: at once
        self._signal = number
        if int(os.environ.get("LOCAL_RANK") or 0) == 0:
            with suppress(OSError):  # the terminal may be closed
                os.write(2, b"\nzoo: saving at the end of this step, then stopping\n")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back, before Lightning puts back what it found."""
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)

    # Safe points

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A safe point, unless gradients are still gathered or a validation or the epoch's end follows."""
        self._put_off_stop(trainer, batch_idx)
        if _stepped(trainer, batch_idx) and not _validation_due(trainer, batch_idx) and not trainer.is_last_batch:
            self._safe_point(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the score; a safe point where the epoch goes on.

        Between two optimiser steps it is none, since no file holds the gradients gathered so far: what is to be saved
        waits for the next step.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.monitor:
            self._note_score(_monitored(trainer, self.monitor))
        self._put_off_stop(trainer, trainer.fit_loop.batch_idx)
        if _stepped(trainer, trainer.fit_loop.batch_idx) and not trainer.is_last_batch:
            self._safe_point(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A safe point, always saved, unless the epoch was left between two steps and an earlier file is exact."""
        if trainer.is_last_batch or _stepped(trainer, trainer.fit_loop.batch_idx) or not self._saved:
            self._safe_point(trainer, always=True)

    def _put_off_stop(self, trainer: Trainer, batch_idx: int) -> None:
        """Let a callback stop the run after an optimiser step only, since no file holds gathered gradients."""
        asked, now = self._stop or trainer.should_stop, _stepped(trainer, batch_idx) or trainer.is_last_batch
        trainer.should_stop, self._stop = asked and now, asked and not now

    def _note_score(self, score: float) -> None:
        """Keep a better score until its file is written; one of earlier weights is not for this file."""
        better = self.best_score is None or (score > self.best_score if self.mode == "max" else score < self.best_score)
        self._pending = score if better and math.isfinite(score) else None

    def _safe_point(self, trainer: Trainer, always: bool = False) -> None:
        stop, overdue = self._agreed(trainer)
        if improved := self._pending is not None:
            self.best_score = self._pending
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")
        if always or improved or stop or overdue:
            self._save(trainer)
        if stop:
            self._leave(trainer, stop)

    def _leave(self, trainer: Trainer, number: int) -> NoReturn:
        """Requeue the job where this is the signal for it, and leave."""
        if self._job is None or number != self._job.number:
            raise Stopped(number, self.last)
        self._give_back()
        raise Stopped(number, self.last, self._job.requeue(trainer))

    def _agreed(self, trainer: Trainer) -> tuple[int, bool]:
        """The signal and whether a save is overdue, the same for every process."""
        overdue = time.monotonic() - self._saved_at > 60 * self.minutes
        asked = self._job.asked() if self._job else 0
        number = self._signal or asked
        if trainer.world_size == 1:
            return number, overdue
        own = torch.tensor([number, int(overdue)], device=trainer.strategy.root_device)
        every = torch.as_tensor(trainer.strategy.all_gather(own)).view(-1, 2)
        return int(every[:, 0].max()), bool(every[:, 1].max())

    def _save(self, trainer: Trainer) -> None:
        improved, self._pending = self._pending is not None, None
        trainer.save_checkpoint(self.last)
        self._saved = True
        if improved and trainer.is_global_zero:
            _same_file(self.last, self.folder / "best.ckpt")
        self._saved_at = time.monotonic()

    # State

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what the file says of its run."""
        checkpoint[RUN_KEY] = {**checkpoint.get(RUN_KEY, {}), **self.record()}

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score so far."""
        self.best_score = state_dict["best_score"]


def _asked_to_stop() -> list[signal.Signals]:
    """Ctrl-C, what a scheduler sends, and a terminal that closes, unless ``nohup`` asked for that to be ignored."""
    asked = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        asked.append(signal.SIGHUP)
    return asked


def _stepped(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the optimiser has applied all gradients gathered so far."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def _validation_due(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a validation follows this batch; one that is due by the clock is not foreseen."""
    epochs = trainer.check_val_every_n_epoch  # None: batches are counted over all epochs
    this_epoch = epochs is None or (trainer.current_epoch + 1) % epochs == 0
    if not trainer.enable_validation or not this_epoch or trainer.val_check_batch is None:
        return False
    done = 1 + (trainer.fit_loop.total_batch_idx if epochs is None else batch_idx)
    return done % trainer.val_check_batch == 0


def _same_file(source: Path, target: Path) -> None:
    """Give a file a second name, which takes the place of what had it before; a copy where the disk knows no links."""
    import shutil

    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


class EpochLines(Callback):
    """One line per epoch, for a log file without a terminal: epoch, the progress bar's values, time left."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start, self._first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        if not trainer.is_global_zero:
            return
        done = trainer.current_epoch + 1
        said = "  ".join(f"{k} {float(v):.4f}" for k, v in sorted(trainer.progress_bar_metrics.items()))
        print(f"epoch {done}/{_total(trainer)}  {said}{self._left(trainer, done)}", flush=True)

    def _left(self, trainer: Trainer, done: int) -> str:
        passed = time.monotonic() - self._start
        if not trainer.max_epochs or trainer.max_epochs < done:
            return f"  {_clock(passed)}"
        return f"  {_clock(passed / max(1, done - self._first) * (trainer.max_epochs - done))} left"


def _total(trainer: Trainer) -> str:
    return str(trainer.max_epochs) if trainer.max_epochs and trainer.max_epochs > 0 else "?"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def progress() -> Callback:
    """A bar on a terminal, a line per epoch elsewhere."""
    from zoo.training.sampler_bar import SamplerBar

    return SamplerBar(refresh_rate=10) if sys.stdout.isatty() else EpochLines()
