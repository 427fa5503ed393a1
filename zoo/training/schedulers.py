"""Learning-rate schedules that torch does not have as a single scheduler."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zoo.errors import UserError


class WarmupCosine(LRScheduler):
    """Linear warm-up to the optimiser's learning rate, then cosine or linear decay; stepped after every optimiser step.

    The warm-up of Goyal et al. 2017 ("Accurate, Large Minibatch SGD", section 2.2) before the cosine of Loshchilov and
    Hutter 2017 ("SGDR", without restarts). Every group's learning rate is scaled by the same factor.

    Args:
        optimizer: has the learning rates reached at the end of the warm-up.
        total_steps: optimiser steps of the whole run; the task fills it in.
        warmup_fraction: fraction of the steps used for the warm-up.
        warmup_steps: the same as a number of steps; replaces the fraction.
        final_fraction: final learning rate as a fraction of the optimiser's.
        anneal: whether the decay is cosine or linear.

    Raises:
        UserError: a fraction is not in [0, 1], or the warm-up is as long as the run.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup_fraction: float = 0.05,
        warmup_steps: int | None = None,
        final_fraction: float = 0.0,
        anneal: Literal["cosine", "linear"] = "cosine",
    ) -> None:
        if not (0 <= warmup_fraction <= 1 and 0 <= final_fraction <= 1):
            raise UserError("WarmupCosine: warmup_fraction and final_fraction must be from 0 to 1")
        warmup = round(warmup_fraction * total_steps) if warmup_steps is None else warmup_steps
        if not 0 <= warmup < total_steps:
            raise UserError(f"WarmupCosine: a warm-up of {warmup} steps does not fit in a run of {total_steps}")
        self.total_steps, self.warmup_steps, self.final_fraction = total_steps, warmup, final_fraction
        self.anneal = anneal
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rates of the next step, one per group."""
        factor = warmup_cosine(self.last_epoch, self.total_steps, self.warmup_steps, self.final_fraction, self.anneal)
        return [base * factor for base in self.base_lrs]


def warmup_cosine(
    step: int,
    total_steps: int,
    warmup_steps: int,
    final_fraction: float = 0.0,
    anneal: Literal["cosine", "linear"] = "cosine",
) -> float:
    """Factor on the learning rate: ``(step + 1) / warmup_steps`` at first, ``final_fraction`` in the last step.

    Args:
        step: counted from 0.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
    left = 1 - progress if anneal == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return final_fraction + (1 - final_fraction) * left


class WarmupSteps(LRScheduler):
    """A small learning rate at first, then the optimiser's, multiplied by ``gamma`` at each milestone; stepped every
    step.

    The schedule of He et al. 2016 ("Deep Residual Learning", section 4.2): 0.01 for about 400 of 64,000 steps, for a
    network that is too deep to start with 0.1, and a tenth of the learning rate after 32,000 and after 48,000. Here all
    are fractions, so that a shorter run has the same schedule on a smaller scale. Every group's learning rate is scaled
    by the same factor.

    Args:
        optimizer: has the learning rates after the warm-up.
        total_steps: optimiser steps of the whole run; the task fills it in.
        milestones: increasing fractions of the run after which the learning rate is multiplied by ``gamma``.
        gamma: the factor.
        warmup_fraction: fraction of the run at the small learning rate.
        warmup_factor: the small learning rate as a fraction of the optimiser's.

    Raises:
        UserError: milestones do not increase from the warm-up's end to below 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        milestones: Sequence[float] = (0.5, 0.75),
        gamma: float = 0.1,
        warmup_fraction: float = 0.0,
        warmup_factor: float = 0.1,
    ) -> None:
        places = [warmup_fraction, *milestones, 1.0]
        if places != sorted(set(places)) or warmup_fraction < 0:
            given = f"milestones {list(milestones)} must rise from warmup_fraction {warmup_fraction} to below 1"
            raise UserError(f"WarmupSteps: {given}")
        self.warmup_steps, *self.milestones = (round(place * total_steps) for place in places[:-1])
        self.gamma, self.warmup_factor = gamma, warmup_factor
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rates of the next step, one per group."""
        step = self.last_epoch
        factor = self.warmup_factor if step < self.warmup_steps else self.gamma ** bisect_right(self.milestones, step)
        return [base * factor for base in self.base_lrs]
