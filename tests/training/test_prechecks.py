"""What would fail late is told before the first step."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from timm.optim import NvNovoGrad
from torch import nn
from torch.utils.data import DataLoader

from zoo.data.digits import Digits
from zoo.data.loading import Loader, TensorSource
from zoo.errors import UserError
from zoo.training.prechecks import (
    CheckBatchNorm,
    CheckMonitors,
    CheckOptimizerStates,
    reason_for_one,
    refuse_incomplete,
)


def trainer_with(
    count: int,
    batch_size: int,
    drop_last: bool = False,
    world: int = 1,
    batches: int = 99,
    max_steps: int = -1,
    accumulated: int = 1,
) -> Trainer:
    found = SimpleNamespace(world_size=world, global_rank=0, current_epoch=0, fit_loop=SimpleNamespace(batch_idx=-1))
    found.max_steps, found.accumulate_grad_batches = max_steps, accumulated
    loader = Loader(TensorSource(torch.zeros(count, 1)), batch_size, found, train=True, drop_last=drop_last)
    found.train_dataloader, found.num_training_batches = loader, min(batches, len(loader))
    return found


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"count": 28, "batch_size": 27}, "data.batch_size 27 leaves one image to the last batch of an epoch (28 im"),
        ({"count": 28, "batch_size": 27, "drop_last": True}, ""),
        ({"count": 28, "batch_size": 27, "batches": 1}, ""),
        ({"count": 28, "batch_size": 9, "max_steps": 3}, ""),
        ({"count": 28, "batch_size": 9, "max_steps": 4}, "data.batch_size 9 leaves one image"),
        ({"count": 28, "batch_size": 9, "max_steps": 1, "accumulated": 3}, ""),
        ({"count": 28, "batch_size": 9, "max_steps": 2, "accumulated": 3}, "data.batch_size 9 leaves one image"),
        ({"count": 29, "batch_size": 27}, ""),
        ({"count": 29, "batch_size": 27, "world": 2}, "leaves one image for each of 2 processes"),
        ({"count": 28, "batch_size": 1}, "data.batch_size 1 is one image"),
        ({"count": 28, "batch_size": 3, "world": 2}, "data.batch_size 3 is one image for each of 2 processes"),
        ({"count": 28, "batch_size": 14}, ""),
    ],
)
def test_when_a_batch_has_one_image(given, says) -> None:
    reason = reason_for_one(trainer_with(**given))
    assert reason.startswith(says) if says.startswith("data") else says in reason
    assert bool(reason) == bool(says)


class Norms(LightningModule):
    """A batch norm over pixels, which one image is enough for, and one over images alone."""

    def __init__(self, deep: bool) -> None:
        super().__init__()
        self.wide, self.deep, self.steps = nn.BatchNorm2d(1), nn.BatchNorm1d(1) if deep else nn.Identity(), 0
        self.net = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self.net(self.deep(self.wide(batch[0].float()).mean((2, 3)))).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Norms, batch_size: int) -> None:
    settings = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    data = Digits(batch_size=batch_size)
    trainer = Trainer(max_epochs=1, callbacks=[CheckBatchNorm()], limit_val_batches=0, **settings)
    trainer.fit(module, data)


def test_a_batch_norm_of_one_value_is_told_before_the_first_step() -> None:
    data = Digits()
    data.setup("fit")
    count = len(data.samples("train"))
    size = next(n for n in range(200, count) if count % n == 1)
    module = Norms(deep=True)
    before = [p.clone() for p in module.parameters()]
    with pytest.raises(UserError, match=r"of which deep \(BatchNorm1d\) would see one value.*drop_last true"):
        fit(module, size)
    assert module.steps == 1
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    module = Norms(deep=False)
    fit(module, size)
    assert module.steps == count // size + 1


WHOLE = {"loops": {"fit_loop": {}}, "callbacks": {}, "optimizer_states": [{}], "lr_schedulers": []}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"loops": 3}, "no usable loops"),
        ({"loops": {}}, "no usable loops.fit_loop"),
        ({"loops": {"fit_loop": [1]}}, "no usable loops.fit_loop"),
        ({"callbacks": None, "lr_schedulers": {}}, "no usable callbacks and lr_schedulers"),
        ({"optimizer_states": []}, "no usable optimizer_states"),
    ],
)
def test_an_incomplete_checkpoint_is_not_resumed(change, says) -> None:
    path = Path("my runs/last.ckpt")
    if not says:
        refuse_incomplete({**WHOLE, **change}, path)
        return
    with pytest.raises(UserError, match=says) as raised:
        refuse_incomplete({**WHOLE, **change}, path)
    assert "--model.weights 'my runs/last.ckpt' starts a new run" in str(raised.value)


def test_the_state_of_another_optimizer_is_not_resumed() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.ones(3)
    adam, sgd = torch.optim.Adam([parameter]), torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    adam.step()
    sgd.step()
    check = CheckOptimizerStates(Path("last.ckpt"))

    def resume(given: torch.optim.Optimizer, cls: type, width: int) -> None:
        own = cls([nn.Parameter(torch.zeros(width))], lr=0.1)
        trainer = SimpleNamespace(optimizers=[own])
        check.on_fit_start(trainer, None)
        own.load_state_dict(given.state_dict())
        check.on_train_start(trainer, None)

    resume(adam, torch.optim.Adam, 3)
    resume(sgd, torch.optim.SGD, 3)
    with pytest.raises(UserError, match=r"last.ckpt can't be resumed: SGD's state there has no dampening"):
        resume(adam, torch.optim.SGD, 3)
    with pytest.raises(UserError, match=r"has exp_avg of shape \[3\] for a parameter of shape \[2\]"):
        resume(adam, torch.optim.Adam, 2)
    novograd = NvNovoGrad([parameter], lr=0.1)
    novograd.step()
    assert novograd.state[parameter]["exp_avg_sq"].shape == ()
    resume(novograd, NvNovoGrad, 3)


class Late(LightningModule):
    """Gives its own metric only over all data, and one that is always given."""

    monitor = "val/late"

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.net(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", 1.0, batch_size=1)
        if batch_idx == 2:
            self.log_dict({"val/late": 1.0, "val/later": 1.0}, batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def stopping_by(monitor: str) -> Trainer:
    data = DataLoader(torch.ones(3, 1))
    callbacks = [CheckMonitors(), EarlyStopping(monitor)]
    settings = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=2, num_sanity_val_steps=1, enable_model_summary=False, callbacks=callbacks, **settings)
    trainer.fit(Late(), data, data)
    return trainer


@pytest.mark.filterwarnings("ignore:The .*_dataloader")
def test_a_metric_over_all_data_may_be_waited_for(recwarn: pytest.WarningsRecorder) -> None:
    assert stopping_by("val/late").current_epoch == 2
    assert not [w for w in recwarn if "waits for" in str(w.message)]
    assert stopping_by("val/later").current_epoch == 2
    assert [w for w in recwarn if "waits for val/later" in str(w.message)]
    with pytest.raises(UserError, match=r"EarlyStopping waits for val/never.*it gives .*val/late"):
        stopping_by("val/never")
