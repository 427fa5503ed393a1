"""A run whose loss or weights are no longer finite ends in one line, and leaves no such network as a checkpoint."""

import math
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from running import folder_of, quiet_trainer, write_recipe, zoo
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zoo.__main__ import main
from zoo.errors import RunFailed, UserError
from zoo.training.callbacks import RunCheckpoints
from zoo.training.checkpoints import AtomicCheckpointIO, find_last, read
from zoo.training.finite import RequireFinite, _Step, anomaly_message, not_finite


class Line(LightningModule):
    """A line whose loss is ``bad`` at one batch; the score, which is to be large, is best once the weight is NaN."""

    def __init__(self, bad: float = math.nan, at: int = 4, by_hand: bool = False, silently: bool = False) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)
        self.bad, self.at, self.silently = bad, at, silently
        self.automatic_optimization = not by_hand

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
        loss = self.line(batch).square().mean()
        hit = self.trainer.fit_loop.total_batch_idx == self.at
        if hit and self.silently:
            self.line.weight.register_hook(lambda grad: grad * math.nan)
        elif hit:
            loss = loss * self.bad
        if self.automatic_optimization:
            return loss
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("score", 1.0 if self.line.weight.isnan().any() else 0.1, batch_size=1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.125)


def fit(task: Line, folder: Path, *callbacks: Any, **options: Any) -> str:
    """Train for two epochs of six batches; the message of the failure."""
    batches = DataLoader(torch.ones(6, 1), batch_size=1)
    trainer = quiet_trainer(callbacks=[RequireFinite(folder), *callbacks], default_root_dir=folder, **options)
    with pytest.raises(RunFailed) as failed:
        trainer.fit(task, batches, batches)
    return str(failed.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_run_ends_at_the_first_loss_that_is_not_finite(bad: float, tmp_path: Path) -> None:
    saver = RunCheckpoints(tmp_path / "checkpoints", "score")
    said = fit(Line(bad, at=7), tmp_path, saver)
    assert f"the loss is {bad} at step 8, learning rate 0.125" in said
    assert f"the last good checkpoint is {saver.last}" in said
    assert "gradient_clip_val" in said
    for file in (saver.last, saver.folder / "best.ckpt"):
        assert read(file)["global_step"] == 6


@pytest.mark.parametrize("by_hand", [False, True])
def test_weights_that_are_not_finite_are_never_saved(by_hand: bool, tmp_path: Path) -> None:
    """The loss is finite to the end of the epoch, the gradient of its last batch is not."""
    saver = RunCheckpoints(tmp_path / "checkpoints", "score")
    said = fit(Line(at=5, silently=True, by_hand=by_hand), tmp_path, saver)
    assert "line.weight is no longer finite after step 6" in said
    assert "no checkpoint was saved before" in said
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_recipes_own_checkpoints_are_guarded(tmp_path: Path) -> None:
    own = ModelCheckpoint(tmp_path, monitor="score", mode="max", save_weights_only=True)
    said = fit(Line(at=11, silently=True), tmp_path, own)
    assert own.best_model_score == pytest.approx(0.1)
    assert own.best_model_path in said


def test_where_losses_are_read_together_the_first_bad_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Line, "device", torch.device("meta"))  # on which each check would cost time
    checked: list[int] = []
    check = RequireFinite._check_losses
    monkeypatch.setattr(
        RequireFinite, "_check_losses", lambda self, trainer: (checked.append(len(self._steps)), check(self, trainer))
    )
    assert "the loss is nan at step 3" in fit(Line(at=2), tmp_path, log_every_n_steps=4)
    assert checked == [4]


def test_what_counts_as_finite() -> None:
    module = nn.Module()
    module.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    module.register_buffer("counts", torch.tensor([1, 2]))
    module.fixed = nn.Parameter(torch.tensor([math.inf]), requires_grad=False)
    module.weight = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    assert not_finite(module) is None
    with torch.no_grad():
        module.weight[1] = complex(0, math.inf)
    assert not_finite(module) == "weight"
    module.weight.requires_grad_(False)
    module.mask[0] = math.nan
    assert not_finite(module) == "mask"
    assert not_finite(module, {"mask"}) is None
    module.part = nn.Module()
    module.part.register_buffer("cache", torch.tensor([math.nan]), persistent=False)
    assert not_finite(module, {"mask"}) is None


def test_a_buffer_that_is_nan_from_the_start_does_not_end_the_run(tmp_path: Path) -> None:
    task = Line(at=7)
    task.register_buffer("queue", torch.tensor([math.nan]))
    assert "the loss is nan at step 8" in fit(task, tmp_path)


@pytest.mark.parametrize("rate", ["none", "unset", "tensor"])
def test_an_optimizer_need_not_have_a_number_as_its_rate(rate: str, tmp_path: Path) -> None:
    class Other(Line):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            if rate == "tensor":
                optimizer.param_groups[0]["lr"] = torch.tensor(0.125)
            else:  # as of one that finds its own, whose rate is elsewhere
                optimizer.step = lambda closure: closure()
                optimizer.param_groups[0]["lr"] = None
                if rate == "none":
                    del optimizer.param_groups[0]["lr"]
            return optimizer

    said = fit(Other(at=2), tmp_path)
    assert f"at step 3, learning rate {'0.125' if rate == 'tensor' else 'unknown'}:" in said


@pytest.mark.parametrize("silently", [False, True])
def test_a_save_while_an_error_is_handled_asks_no_other_process(
    silently: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are not finite are left out, others are saved, and the error stays what it was."""

    class Fails(Line):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
            if batch_idx == 2:
                raise LookupError("as an example")
            return super().training_step(batch, batch_idx)

    class Saves(OnExceptionCheckpoint):
        def on_exception(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            monkeypatch.setattr("zoo.training.finite._first", None)
            super().on_exception(trainer)

        def teardown(self, *args: Any, **kwargs: Any) -> None:
            """Keep the file."""

    batches = DataLoader(torch.ones(6, 1), batch_size=1)
    callbacks = [RequireFinite(tmp_path), Saves(tmp_path)]
    trainer = quiet_trainer(
        max_epochs=1, limit_val_batches=0, callbacks=callbacks, plugins=[AtomicCheckpointIO(tmp_path)]
    )
    with pytest.raises(LookupError, match="as an example"):
        trainer.fit(Fails(at=1 if silently else 99, silently=silently), batches)
    assert (tmp_path / "on_exception.ckpt").is_file() is not silently


def test_the_first_of_several_processes_losses_is_named(tmp_path: Path) -> None:
    check = RequireFinite(tmp_path)
    every = torch.tensor([[5.0, math.nan], [math.inf, 0.0], [3.0, math.inf]], dtype=torch.float64)
    trainer: Any = Mock(world_size=3, is_global_zero=True, global_step=6, gradient_clip_val=1, precision="32")
    trainer.strategy.root_device, trainer.strategy.all_gather = "cpu", lambda own: every
    check._steps = [_Step(n, torch.tensor(math.nan if n == 5 else 1.0), (n / 8,)) for n in range(6)]
    with pytest.raises(RunFailed, match=r"the loss is inf at step 3, learning rate 0.375"):
        check._check_losses(trainer)


def test_what_a_link_points_to_may_be_gone(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").symlink_to(tmp_path / "gone.ckpt")
    assert "no checkpoint was saved before" in RequireFinite(tmp_path)._last_good()
    (tmp_path / "best.ckpt").touch()
    assert RequireFinite(tmp_path)._last_good().endswith("best.ckpt")
    with pytest.raises(UserError, match="no such checkpoint"):
        read(tmp_path / "other.ckpt")
    runs = tmp_path / "runs/checkpoints"
    runs.mkdir(parents=True)
    (runs / "last.ckpt").symlink_to(tmp_path / "gone.ckpt")
    with pytest.raises(UserError, match="no whole checkpoint below"):
        find_last(tmp_path / "runs")


RATE = {"class_path": "SGD", "init_args": {"lr": 1e30}}
DIVERGES = {"class_path": "ToyClassification", "init_args": {"architecture": "ToyNet", "optimizer": RATE}}


def test_a_command_ends_in_one_line_with_status_1(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(write_recipe(workspace / "toy.yaml", DIVERGES, {"class_path": "ToyTensors"}))
    assert main(["fit", "--config", recipe]) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert said.startswith("zoo: error: the loss is nan at step 2, learning rate 1e+30: try a smaller learning rate")
    assert not list(folder_of("toy").rglob("*.ckpt"))


def test_the_anomaly_detection_names_the_operation(workspace: Path) -> None:
    recipe = str(write_recipe(workspace / "toy.yaml", DIVERGES, {"class_path": "ToyTensors"}, detect_anomaly=True))
    with pytest.warns(UserWarning, match="Error detected in LogSoftmaxBackward0"), pytest.raises(RunFailed) as failed:
        zoo("fit", "--config", recipe)
    assert "Function 'LogSoftmaxBackward0' returned nan values" in str(failed.value)
    assert "of step 2, learning rate 1e+30" in str(failed.value)
    assert anomaly_message(RuntimeError("something else")) is None
