"""Moving averages of the weights of those networks of a task that are to be averaged, by the number of images seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from zoo.errors import UserError


class MovingAverage(WeightAveraging):
    """Validates, tests and keeps an exponential moving average of the weights, as is usual for generators.

    The average is of the networks that the task names in ``averaged``, of the whole task if it names none; buffers are
    those of training. Half of its weight lies on the last ``half_life`` images, and in the beginning on the last
    ``ramp_up`` of all images seen, so that the first weights are soon forgotten (Karras et al. 2022, "Elucidating the
    design space of diffusion-based generative models", appendix F.1). A checkpoint's ``state_dict`` has the average;
    the weights of training lie beside it, of these networks alone.

    Args:
        half_life: in images.
        ramp_up: share of the images seen so far that ``half_life`` may not exceed; None for no such limit.
        every_n_steps: steps from one update to the next.

    Raises:
        UserError: a value is out of its range.
    """

    def __init__(self, half_life: float = 500_000.0, ramp_up: float | None = 0.05, every_n_steps: int = 1) -> None:
        if half_life <= 0 or every_n_steps < 1 or (ramp_up is not None and ramp_up <= 0):
            raise UserError(
                "MovingAverage takes a half_life and a ramp_up above 0 and every_n_steps of at least 1, not "
                f"{half_life}, {ramp_up} and {every_n_steps}"
            )
        super().__init__(use_buffers=False)
        self.half_life, self.ramp_up, self.every_n_steps = half_life, ramp_up, every_n_steps
        self._images = self._seen = 0  # of a step; up to this update
        self._names: Sequence[str] = ()

    def decay(self, seen: int) -> float:
        """The share of the average that an update keeps.

        Args:
            seen: number of images, this update's included.
        """
        half_life = self.half_life if self.ramp_up is None else min(self.half_life, self.ramp_up * seen)
        return 0.5 ** (self._images * self.every_n_steps / half_life)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin with the weights as they are."""
        if stage != "fit":
            return
        pl_module.configure_model()
        self._names = pl_module.averaged  # type: ignore[assignment]
        self._average_model = AveragedModel(self._networks(pl_module), pl_module.device, multi_avg_fn=self._update)
        self._images = trainer.datamodule.batch_size * trainer.accumulate_grad_batches  # type: ignore[attr-defined]

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Every ``every_n_steps`` steps."""
        return step_idx is not None and (step_idx + 1) % self.every_n_steps == 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after a step."""
        step = trainer.global_step
        if step > self._latest_update_step and self.should_update(step_idx=step - 1):
            self._seen = step * self._images
            self._average.update_parameters(self._networks(pl_module))
            self._latest_update_step = step

    def _networks(self, task: LightningModule) -> nn.Module:
        """Those that are averaged, as one module whose names are those of the task's."""
        if not self._names:
            return task
        holder = nn.Module()
        for name in self._names:
            holder.add_module(name, getattr(task, name))
        return holder

    @property
    def _average(self) -> AveragedModel:
        assert self._average_model is not None
        return self._average_model

    def _update(self, averages: Any, weights: Any, updates: Tensor | int) -> None:
        """Of all parameters at once. The number of updates is on their device, where reading it would cost time."""
        torch._foreach_lerp_(averages, weights, 1 - self.decay(self._seen))

    # What Lightning's does with the whole module

    def _swap_models(self, pl_module: LightningModule) -> None:
        for average, current in self._pairs(pl_module):
            kept = average.data.clone()
            average.data.copy_(current.data)
            current.data.copy_(kept)

    def _copy_average_to_current(self, pl_module: LightningModule) -> None:
        for average, current in self._pairs(pl_module):
            current.data.copy_(average.data)

    def _pairs(self, task: LightningModule) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self._average.module.parameters(), self._networks(task).parameters(), strict=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the average in the place of the weights, and these beside it."""
        if self._average_model is None:
            return
        state, averages = checkpoint["state_dict"], dict(self._average.module.named_parameters())
        checkpoint["current_model_state"] = {name: state[name] for name in averages}
        checkpoint["averaging_state"] = {"n_averaged": self._average.n_averaged}
        checkpoint["state_dict"] = {**state, **{name: value.detach() for name, value in averages.items()}}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with both; from a file without an average, with its weights as the average."""
        if self._average_model is None:
            return
        state, current = checkpoint["state_dict"], checkpoint.get("current_model_state", {})
        with torch.no_grad():
            for name, average in self._average.module.named_parameters():
                average.copy_(state[name])
            own = dict(pl_module.named_parameters())
            for name, value in current.items():
                own[name].copy_(value)
        self._average.n_averaged.fill_(int(checkpoint.get("averaging_state", {}).get("n_averaged", 0)))
