"""Tasks with a metric of several numbers: what is logged, on one process and on two, and what it chooses."""

from __future__ import annotations

import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import SGD
from zoo_toys.data import ToyBoxes
from zoo_toys.tasks import ToyDetection

from zoo.training.callbacks import RunCheckpoints
from zoo.training.checkpoints import read

warnings.filterwarnings("ignore", ".*does not have many workers.*")
STILL = partial(SGD, lr=0.0)


class Boxes(ToyBoxes):
    """Batches of four: of each, the second process has the second and the fourth image."""

    def __init__(self, alternate: bool = False) -> None:
        super().__init__(batch_size=4)
        self.alternate = alternate

    def samples(self, split: str) -> Any:
        made = super().samples(split)
        samples = [made[i] for i in range(11)]
        if self.alternate:
            for i in range(1, 11, 2):  # all of the second process's images, and wider ones than all others
                samples[i] = (torch.rand(1, 8, 8), {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()})
        for image, _ in samples:
            torch.manual_seed(image.shape[-1])
            image.copy_(torch.rand(image.shape))
        return samples


class CountsSome(ToyDetection):
    """Its metric is not given images that are eight wide, which are all that a second process has."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, targets = batch
        kept = [i for i, image in enumerate(images) if image.shape[-1] < 8]
        if kept:
            images, targets = [images[i] for i in kept], [targets[i] for i in kept]
            self.count_error.update(images, self._found(images), targets)
        self.log("val/loss", 0.0, sync_dist=True)

    test_step = validation_step


def trainer(**options: Any) -> Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 2, "accelerator": "cpu", "max_epochs": 1}
    return Trainer(**{**quiet, **options})


def validated(cls: type[ToyDetection], alternate: bool, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    task, run = cls(optimizer=STILL), trainer(**options)
    run.fit(task, datamodule=Boxes(alternate))
    return {k: v for k, v in run.callback_metrics.items() if k.startswith("val/")}


NAMES = {"val/count_error", "val/error_by_width/five", "val/error_by_width/six", "val/error_by_width/seven"}


@pytest.mark.parametrize(("cls", "alternate"), [(ToyDetection, False), (CountsSome, True)])
def test_two_processes_log_what_one_logs(cls: type[ToyDetection], alternate: bool) -> None:
    """Six and five images; then the metric of the second process is given none."""
    one = validated(cls, alternate)
    two = validated(cls, alternate, devices=2, strategy="ddp_fork")
    assert set(one) == set(two) == NAMES | {"val/loss", "val/wide"}
    for name in NAMES:
        assert float(two[name]) == pytest.approx(float(one[name]), abs=1e-6), name


def test_undefined_numbers_are_nan_or_left_out() -> None:
    found = validated(CountsSome, True)
    assert math.isnan(float(found["val/wide"]))
    run = trainer()
    (tested,) = run.test(CountsSome(), datamodule=Boxes(), verbose=False)
    assert set(tested) == {"val/loss", "test/count_error"}, "a vector without names, and what was to be skipped"


class BySmallestError(ToyDetection):
    monitor = "val/count_error"
    seen: list[float]

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if not self.trainer.sanity_checking:
            expected = [(self._found([i]) - len(t["boxes"])).abs() for i, t in self.trainer.datamodule.samples("val")]
            self.seen = [*getattr(self, "seen", []), float(torch.stack(expected).mean())]


def test_it_chooses_the_best_checkpoint(tmp_path: Path) -> None:
    """A learning rate that overshoots makes the first epochs not the worst; each epoch's number is its own."""
    torch.manual_seed(0)
    task = BySmallestError(optimizer=partial(SGD, lr=1.2))
    saver = RunCheckpoints(tmp_path, task.monitor, task.monitor_mode)
    run = trainer(max_epochs=6, callbacks=[saver], enable_checkpointing=True)
    run.fit(task, datamodule=Boxes())
    assert len(task.seen) == 6
    best = task.seen.index(min(task.seen))
    assert best < 5, task.seen
    assert read(tmp_path / "best.ckpt")["epoch"] == best
    assert saver.best_score == pytest.approx(min(task.seen), rel=1e-5)
    assert float(run.callback_metrics["val/count_error"]) == pytest.approx(task.seen[-1], rel=1e-5)
