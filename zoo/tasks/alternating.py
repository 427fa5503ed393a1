"""Training of several networks in turns, each with its own optimiser.

Lightning leaves everything to such a task: it refuses to clip and to accumulate, steps no scheduler, and counts every
optimiser's step. Here a step is one turn of each network, and what the trainer was asked for is done as elsewhere.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer, do_nothing_closure
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from zoo.tasks.base import Task


class AlternatingTask(Task):
    """Base of tasks that train several networks in turns, such as a discriminator and a generator.

    In each step the networks of ``turns`` are trained one after the other; a later one's loss sees the earlier ones as
    they are after their steps. With ``trainer.accumulate_grad_batches`` the batches of a step are kept, and then each
    network is trained on all of them: a step is the same as with one large batch, but for what the statistics of a
    batch change. ``trainer.gradient_clip_val`` bounds the gradient of each network by itself.

    Attributes:
        turns: the networks in the order of their turns; the first one is trained at every step.
    """

    turns: ClassVar[Sequence[str]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self._batches: list[tuple[Any, int]] = []
        self._hidden: dict[str, Any] = {}
        self._turn = ""

    # To be defined by a subclass

    @abstractmethod
    def turn_loss(self, turn: str, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a network on a batch; only this network's parameters take gradients.

        Args:
            turn: the network's name.
            batch: as the data gives it.
            batch_idx: its number in the epoch.
        """

    def is_trained(self, turn: str, step: int) -> bool:
        """Whether a network is trained at a step, counted from 0; as it stands, each is at every step."""
        return True

    # Building

    def build_turns(self) -> None:
        """Make the means of the logged losses; for ``build``."""
        self.turn_means = torch.nn.ModuleDict({turn: MeanMetric(dist_sync_on_step=True) for turn in self.turns})

    def configure_optimizers(self) -> Any:
        """Each network's optimiser and scheduler, from ``NAME_optimizer`` and ``NAME_scheduler``, where they are given,
        else from ``optimizer`` and ``scheduler``.
        """
        made = []
        for turn in self.turns:
            self._turn = turn
            optimizer, scheduler = (self._factory_name(kind) for kind in ("optimizer", "scheduler"))
            made.append(self.optimizers_for(getattr(self, turn), optimizer, scheduler))
        return made

    def _factory_name(self, kind: str) -> str:
        own = f"{self._turn}_{kind}"
        return own if self.factories.get(own) is not None else kind

    def _total_steps(self) -> int:
        return sum(self.is_trained(self._turn, step) for step in range(super()._total_steps()))

    # What the trainer does elsewhere

    def configure_callbacks(self) -> list[Callback]:
        """Hide what Lightning would refuse and this task does itself, until Lightning has looked."""
        if self.trainer.state.fn == "fit":
            trainer: Trainer = self.trainer
            self._hidden = {name: getattr(trainer, name) for name in ("gradient_clip_val", "accumulate_grad_batches")}
            trainer.gradient_clip_val, trainer.accumulate_grad_batches = None, 1
        return []

    def setup(self, stage: str) -> None:
        """Put back what was hidden, and tell DDP that a backward pass reaches one network of several."""
        for name, value in self._hidden.items():
            setattr(self.trainer, name, value)
        self._hidden, self._batches = {}, []
        strategy = self.trainer.strategy
        if stage == "fit" and isinstance(strategy, DDPStrategy):
            strategy._ddp_kwargs["find_unused_parameters"] = True

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradients that are about to be applied; a scaler has divided them by its scale already."""
        if limit := self.trainer.gradient_clip_val:
            algorithm = self.trainer.gradient_clip_algorithm
            kind = {} if algorithm is None else {"gradient_clip_algorithm": algorithm}
            self.trainer.precision_plugin.clip_gradients(optimizer, limit, **kind)

    # Steps

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor] | None:
        """Each network's turn, once the batches of a step are there.

        Returns:
            ``loss``, the sum of the networks' losses, and each of them by name; None while batches are gathered.
        """
        self._batches.append((batch, batch_idx))
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches and not self.trainer.is_last_batch:
            return None
        step = self.trainer.global_step
        losses = {turn: self._train(turn) for turn in self.turns if self.is_trained(turn, step)}
        images = sum(_length(batch) for batch, _ in self._batches)
        self._batches = []
        if self.logs_now:
            means = {f"train/{turn}_loss": self.turn_means[turn](loss, images) for turn, loss in losses.items()}
            self.log_dict(means, prog_bar=True)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _train(self, turn: str) -> Tensor:
        """A network's turn; returns the mean of its losses on the gathered batches."""
        optimizer = self.optimizer_of(turn)
        if turn != self.turns[0]:  # a step is counted once
            optimizer._on_before_step = optimizer._on_after_step = do_nothing_closure
        self.toggle_optimizer(optimizer)
        losses = [self._backward(turn, *one) for one in self._batches]
        self.untoggle_optimizer(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        for config in self.trainer.lr_scheduler_configs:
            if config.scheduler.optimizer is optimizer.optimizer and config.interval == "step":
                self.lr_scheduler_step(config.scheduler, None)
        return torch.stack(losses).mean()

    def _backward(self, turn: str, batch: Any, batch_idx: int) -> Tensor:
        strategy, is_last = self.trainer.strategy, batch_idx == self._batches[-1][1]
        waits = isinstance(strategy, ParallelStrategy) and not is_last
        with strategy.block_backward_sync() if waits else nullcontext():  # type: ignore[attr-defined]
            loss = self.turn_loss(turn, batch, batch_idx)
            self.manual_backward(loss / len(self._batches))
        return loss.detach()

    def optimizer_of(self, turn: str) -> LightningOptimizer:
        """A network's optimiser, as the trainer has wrapped it."""
        made: Any = self.optimizers()
        return made[list(self.turns).index(turn)] if isinstance(made, list) else made

    def on_train_epoch_end(self) -> None:
        """Step the schedulers that count epochs."""
        for config in self.trainer.lr_scheduler_configs:
            if config.interval == "epoch" and (self.trainer.current_epoch + 1) % config.frequency == 0:
                self.lr_scheduler_step(config.scheduler, None)


def _length(batch: Any) -> int:
    return len(batch[0]) if isinstance(batch, list | tuple) else len(batch)
