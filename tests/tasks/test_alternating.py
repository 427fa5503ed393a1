"""Networks trained in turns, as by plain loops: accumulation, clipping, schedulers, one and two processes."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from running import quiet_trainer
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, TensorDataset
from zoo_toys.networks import ToyGenerator

from zoo import Architecture, ArchitectureFactory, Facts
from zoo.factories import OptimizerFactory, SchedulerFactory
from zoo.tasks.alternating import AlternatingTask

COUNT, BATCH, LATENT = 20, 4, 5
RATES = {"discriminator": 0.05, "generator": 0.01}
DESCENT, ADAM = partial(SGD, lr=RATES["discriminator"]), partial(Adam, lr=RATES["generator"])


class Judge(Architecture):
    """Images to a number; as many batches in one give the same, for want of batch statistics."""

    roles = ("discriminator",)

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.net(images)


def loss_of(turn: str, generator: nn.Module, discriminator: nn.Module, images: Tensor) -> Tensor:
    z = images.flatten(1)[:, :LATENT]  # noise that a batch's cutting does not change
    fakes = generator(z)
    if turn == "generator":
        return -discriminator(fakes).mean()
    return (discriminator(fakes.detach()) - discriminator(images)).square().mean()


class Adversarial(AlternatingTask):
    batch = "images"
    turns = ("discriminator", "generator")

    def __init__(
        self,
        generator: ArchitectureFactory = ToyGenerator,
        discriminator: ArchitectureFactory = Judge,
        discriminator_optimizer: OptimizerFactory = DESCENT,
        generator_optimizer: OptimizerFactory = ADAM,
        scheduler: SchedulerFactory | None = None,
        every: int = 1,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        self.every = every

    def build(self) -> None:
        torch.manual_seed(3)
        self.generator, self.discriminator = ToyGenerator(), Judge()
        self.build_turns()

    def is_trained(self, turn: str, step: int) -> bool:
        return turn == "discriminator" or step % self.every == 0

    def turn_loss(self, turn: str, batch: Any, batch_idx: int) -> Tensor:
        other = self.generator if turn == "discriminator" else self.discriminator
        assert not any(p.requires_grad for p in other.parameters())
        return loss_of(turn, self.generator, self.discriminator, batch[0])


class Pictures(LightningDataModule):
    batch = "images"

    def __init__(self, batch_size: int = BATCH) -> None:
        super().__init__()
        self.size = batch_size

    def train_dataloader(self) -> Any:
        images = torch.rand(COUNT, 1, 6, 6, generator=torch.Generator().manual_seed(1))
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(TensorDataset(images[rank::world]), self.size)


def trained(batch_size: int = BATCH, every: int = 1, **options: Any) -> Adversarial:
    task = Adversarial(every=every, facts={"in_channels": 1, "image_size": [6, 6]})
    task.configure_model()  # here, so that a forked process has something to give its weights to
    trainer = quiet_trainer(max_epochs=2, log_every_n_steps=1, **options)
    trainer.fit(task, datamodule=Pictures(batch_size))
    task.steps = trainer.global_step
    return task


def by_hand(batches: Sequence[Tensor], every: int = 1, clip: float | None = None) -> dict[str, nn.Module]:
    torch.manual_seed(3)
    networks = {"generator": ToyGenerator(), "discriminator": Judge()}
    optimizers = {
        "discriminator": SGD(networks["discriminator"].parameters(), RATES["discriminator"]),
        "generator": Adam(networks["generator"].parameters(), RATES["generator"]),
    }
    for step, images in enumerate([*batches, *batches]):
        for turn, optimizer in optimizers.items():
            if turn == "generator" and step % every:
                continue
            for network in networks.values():
                network.zero_grad()
            loss_of(turn, **networks, images=images).backward()
            if clip:
                clip_grad_norm_(networks[turn].parameters(), clip)
            optimizer.step()
    return networks


def assert_same(task: Adversarial, networks: dict[str, nn.Module], tolerance: float = 0.0) -> None:
    for name, network in networks.items():
        for found, expected in zip(getattr(task, name).parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def images(batch_size: int) -> list[Tensor]:
    return [batch[0] for batch in Pictures(batch_size).train_dataloader()]


@pytest.mark.parametrize("every", [1, 3])
def test_as_a_plain_loop(every: int) -> None:
    task = trained(every=every)
    assert_same(task, by_hand(images(BATCH), every))
    assert task.steps == 10, "a step is one, however many networks are trained"


def test_gathered_batches_are_as_one_and_a_rest_is_not_lost() -> None:
    # Batches of 4 by threes: 12 and the epoch's rest of 8.
    task = trained(accumulate_grad_batches=3)
    whole = torch.cat(images(BATCH))
    assert_same(task, by_hand([whole[:12], whole[12:]]), 1e-6)
    assert task.steps == 4


def test_each_network_is_clipped_by_itself() -> None:
    task = trained(gradient_clip_val=0.02)
    assert_same(task, by_hand(images(BATCH), clip=0.02))
    free = by_hand(images(BATCH))
    assert not torch.equal(next(free["discriminator"].parameters()), next(task.discriminator.parameters()))


def test_max_steps_counts_steps() -> None:
    assert trained(max_steps=3).steps == 3


class Halved(ExponentialLR):
    def __init__(self, optimizer: Any, total_steps: int) -> None:
        Halved.totals.append(total_steps)
        super().__init__(optimizer, 0.5)

    totals: list[int] = []


def test_schedulers_step_with_their_optimisers() -> None:
    Halved.totals = []
    task = Adversarial(scheduler=Halved, every=2, facts={"in_channels": 1, "image_size": [6, 6]})
    trainer = quiet_trainer(max_epochs=2, accumulate_grad_batches=2)
    trainer.fit(task, datamodule=Pictures())
    # Five batches by twos: three steps an epoch; the generator is trained at the first, third and fifth of six.
    assert Halved.totals == [6, 3]
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == [RATES["discriminator"] * 0.5**6, RATES["generator"] * 0.5**3]


@pytest.mark.slow
def test_two_processes_by_plain_ddp_are_as_one() -> None:
    # Every other picture for each, two at a time: together the batches of one process.
    task = trained(BATCH // 2, devices=2, strategy="ddp_fork")
    assert_same(task, by_hand(images(BATCH)), 1e-5)
