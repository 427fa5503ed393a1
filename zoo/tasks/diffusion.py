"""Diffusion in discrete steps.

Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020; cosine schedule: Nichol and Dhariwal 2021;
prediction of the velocity: Salimans and Ho 2022; weighting by min-SNR: Hang et al. 2023; guidance: Ho and Salimans
2022, within an interval: Kynkäänniemi et al. 2024.

Deviation: the variances of the steps back are fixed, as in Ho et al., not learnt.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Generator, Tensor
from torch.optim import AdamW

from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts
from zoo.functional.diffusion import Denoiser, VariancePreserving, min_snr_weight
from zoo.functional.diffusion_schedules import cosine_betas, linear_betas, step_times, training_steps
from zoo.tasks.denoising import Denoising


class Diffusion(Denoising):
    """Trains a network to take noise away, step by step.

    Args:
        denoiser: the network, told times in [0, 1].
        optimizer: any optimiser of torch or of a plugin.
        scheduler: learning-rate scheduler; one that takes ``total_steps`` is stepped after every optimiser step.
        schedule: of the noise.
        trained_steps: steps of the diffusion.
        prediction: what the network predicts.
        weighting: of the prediction's squared errors: ``simple`` weighs all times alike; ``min_snr`` bounds the weight
            of times with little noise.
        conditional: whether it learns to generate by class.
        drop_label: share of the training labels that are dropped, for guidance.
        solver: ``ddpm``, ``ddim``, ``dpm``, ``euler``, ``midpoint``, ``heun``, or a solver of a plugin.
        solver_options: of its class, for the zoo's in ``zoo.functional.samplers``.
        steps: of the solver.
        guidance: strength of the class in samples; 1 for none.
        guidance_interval: times, from and to, between which there is guidance; left out, everywhere.
        clip: bound the estimated images to [-1, 1] in every step.
        strength: for given pictures, the share of the steps that are taken, and so how much changes.
        mask: for given pictures, the file of a mask whose white part is filled in.
        invert: for given pictures, write the noise that leads to them, and what it leads to, without guidance.
        given_class: name or number of the class that given pictures have or get; left out, none.
        likelihood_steps: of the bits per dimension at test; 0 leaves them out.
        judge: the classifier that judges a test's samples; left out, none does.
        judge_epochs: of its training, before the first step; one with pretrained weights is used as it is.
        test_samples: number of samples that a test makes for it.
        weights: a checkpoint whose tensors are loaded where name and shape agree.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        batch: images (B, C, H, W) in [0, 1], labels (B,) -> samples (B, C, H, W) in [0, 1]
    """

    def __init__(
        self,
        denoiser: ArchitectureFactory,
        optimizer: OptimizerFactory = AdamW,
        scheduler: SchedulerFactory | None = None,
        schedule: Literal["linear", "cosine"] = "cosine",
        trained_steps: int = 1000,
        prediction: Literal["noise", "image", "velocity"] = "velocity",
        weighting: Literal["simple", "min_snr"] = "min_snr",
        conditional: bool = False,
        drop_label: float = 0.1,
        solver: str = "dpm",
        solver_options: dict[str, Any] | None = None,
        steps: int = 20,
        guidance: float = 1.0,
        guidance_interval: list[float] | None = None,
        clip: bool = True,
        strength: float = 0.5,
        mask: str | None = None,
        invert: bool = False,
        given_class: str | int | None = None,
        likelihood_steps: int = 0,
        judge: ArchitectureFactory | None = None,
        judge_epochs: int = 8,
        test_samples: int = 1000,
        weights: str | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        betas = linear_betas(trained_steps) if schedule == "linear" else cosine_betas(trained_steps)
        self.path: VariancePreserving = VariancePreserving(betas)
        self.prediction, self.weighting, self.clip = prediction, weighting, clip
        self.take_judging(judge_epochs, test_samples)
        self.take_sampling(
            conditional,
            drop_label,
            solver,
            solver_options,
            steps,
            guidance,
            guidance_interval,
            strength,
            likelihood_steps,
        )
        self.take_given(mask, invert, given_class)

    @property
    def least_time(self) -> float:
        """The first step."""
        return 1 / self.path.steps

    @property
    def timestep(self) -> list[float]:
        """Counted from 0, as in Ho et al.'s code: the first step of noise is 0."""
        return [float(self.path.steps), -1.0]

    def training_times(self, count: int, generator: Generator | None) -> Tensor:
        """Each step as often as any other."""
        return training_steps(count, self.path.steps, generator)

    def sampling_times(self, steps: int) -> list[float]:
        """Steps of training, equally spaced."""
        return step_times(steps, self.path.steps)

    def weight(self, t: Tensor) -> Tensor:
        """One, or min-SNR's."""
        if self.weighting == "simple":
            return torch.ones_like(t)
        return min_snr_weight(self.prediction, self.path, t)

    def denoiser_for(self, labels: Tensor | None) -> Denoiser:
        """With bounded images, if that is wanted."""
        made = super().denoiser_for(labels)
        return Denoiser(made.predict, made.path, made.prediction, self.clip)
