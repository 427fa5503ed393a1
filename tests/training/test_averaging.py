"""The moving average of some of a task's networks: by its formula, in checkpoints, validated, and after a resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from running import different, quiet_trainer, state
from torch import Tensor
from zoo_toys.data import ToyTensors
from zoo_toys.networks import ToyGenerator
from zoo_toys.tasks import ToyGAN

from zoo.errors import UserError
from zoo.training.averaging import MovingAverage
from zoo.training.callbacks import ResumeAtEpochEnd, RunCheckpoints
from zoo.training.checkpoints import AtomicCheckpointIO

BATCH = 4


class AveragedGAN(ToyGAN):
    averaged = ("generator",)


class Watch(Callback):
    """Keeps the generator's and the discriminator's weights after each step, and those that are validated."""

    def __init__(self) -> None:
        self.weights: dict[str, list[Tensor]] = {"generator": [], "discriminator": []}
        self.validated: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, task: Any, *args: Any) -> None:
        for name, kept in self.weights.items():
            kept.append(first(getattr(task, name)))

    def on_validation_batch_start(self, trainer: Trainer, task: Any, *args: Any) -> None:
        self.validated.append(first(task.generator))


def first(network: Any) -> Tensor:
    return next(network.parameters()).detach().clone()


def fit(folder: Path, average: MovingAverage, *callbacks: Callback, resumed: Path | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    task = AveragedGAN(ToyGenerator)
    trainer = quiet_trainer(
        callbacks=[average, *callbacks, ResumeAtEpochEnd(), RunCheckpoints(folder, None)],
        plugins=[AtomicCheckpointIO()],
        **{"max_epochs": 2, "limit_val_batches": 1, **options},
    )
    trainer.fit(task, datamodule=ToyTensors(BATCH), ckpt_path=resumed, weights_only=True)
    return task


@pytest.mark.parametrize("ramp_up", [None, 0.5])
def test_by_the_formula(ramp_up: float | None, tmp_path: Path) -> None:
    watch, half_life = Watch(), 10.0
    task = fit(tmp_path, MovingAverage(half_life, ramp_up), watch)
    every = watch.weights["generator"]
    average = every[0].double()
    for step, weights in enumerate(every[1:], 2):
        # Lightning counts each of two optimisers' steps, and a batch of 4 has been seen at each.
        life = half_life if ramp_up is None else min(half_life, ramp_up * 2 * step * BATCH)
        keep = 0.5 ** (BATCH / life)
        average = keep * average + (1 - keep) * weights.double()
    torch.testing.assert_close(first(task.generator).double(), average, rtol=1e-5, atol=1e-6)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.testing.assert_close(saved["state_dict"]["generator.net.weight"].double(), average, rtol=1e-5, atol=1e-6)
    assert torch.equal(saved["current_model_state"]["generator.net.weight"], every[-1])
    assert {name.partition(".")[0] for name in saved["current_model_state"]} == {"generator"}, "kept once"
    assert torch.equal(saved["state_dict"]["discriminator.conv.weight"], watch.weights["discriminator"][-1])


def test_what_is_validated_is_the_average(tmp_path: Path) -> None:
    watch = Watch()
    task = fit(tmp_path, MovingAverage(1e9, None), watch)
    assert not torch.equal(watch.validated[-1], watch.weights["generator"][-1])
    torch.testing.assert_close(watch.validated[-1], watch.weights["generator"][0], rtol=1e-6, atol=1e-6)
    assert torch.equal(watch.validated[-1], first(task.generator)), "and so is what the fit leaves"


@pytest.mark.parametrize("steps", [1, 3, 6, 9])
def test_a_resumed_average_goes_on_exactly(steps: int, tmp_path: Path) -> None:
    def average() -> MovingAverage:
        return MovingAverage(20.0, 0.5, every_n_steps=2)

    fit(tmp_path / "whole", average())
    fit(tmp_path / "part", average(), max_steps=2 * steps)
    fit(tmp_path / "part", average(), resumed=tmp_path / "part" / "last.ckpt")
    assert not different(state(tmp_path / "whole" / "last.ckpt"), state(tmp_path / "part" / "last.ckpt"))


def test_values_out_of_range_are_refused() -> None:
    for wrong in ({"half_life": 0}, {"ramp_up": 0}, {"every_n_steps": 0}):
        with pytest.raises(UserError, match="MovingAverage takes"):
            MovingAverage(**wrong)
