"""Diffusion as in Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022.

Preconditioned network, noise of a log-normal distribution in training, and Heun's sampler on their schedule.
"""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor
from torch.optim import AdamW

from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts
from zoo.functional.diffusion import VarianceExploding
from zoo.functional.diffusion_schedules import edm_times, log_normal_times
from zoo.functional.edm import edm_weight, preconditioned
from zoo.tasks.denoising import Denoising


class EDM(Denoising):
    """Trains a preconditioned network to take away noise of any size.

    Times are standard deviations of the noise, of images in [-1, 1].

    Args:
        denoiser: the network, told a quarter of the logarithm of the noise's standard deviation.
        optimizer: any optimiser of torch or of a plugin.
        scheduler: learning-rate scheduler; one that takes ``total_steps`` is stepped after every optimiser step.
        sigma_data: standard deviation of the images.
        sigma_min: the smallest noise in sampling.
        sigma_max: the largest, in which nothing of the image is left.
        rho: the larger, the more steps where there is little noise.
        noise_mean: mean of the logarithm of the noise in training.
        noise_std: its standard deviation.
        conditional: whether it learns to generate by class.
        drop_label: share of the training labels that are dropped, for guidance.
        solver: ``heun``, ``euler``, ``midpoint``, ``dpm``, ``ddim``, ``ddpm``, or a solver of a plugin.
        solver_options: of its class, for the zoo's in ``zoo.functional.samplers``; ``churn`` and more for ``heun``.
        steps: of the solver.
        guidance: strength of the class in samples; 1 for none.
        guidance_interval: noise, from and to, between which there is guidance; left out, everywhere.
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

    Raises:
        UserError: a number is out of range.
    """

    path = VarianceExploding()
    prediction = "image"

    def __init__(
        self,
        denoiser: ArchitectureFactory,
        optimizer: OptimizerFactory = AdamW,
        scheduler: SchedulerFactory | None = None,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        noise_mean: float = -1.2,
        noise_std: float = 1.2,
        conditional: bool = False,
        drop_label: float = 0.1,
        solver: str = "heun",
        solver_options: dict[str, Any] | None = None,
        steps: int = 18,
        guidance: float = 1.0,
        guidance_interval: list[float] | None = None,
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
        if not 0 < sigma_min < sigma_max or min(sigma_data, rho, noise_std) <= 0:
            raise UserError("EDM: sigma_min must be above 0 and below sigma_max; sigma_data, rho and noise_std above 0")
        self.sigma_data, self.schedule = sigma_data, (sigma_min, sigma_max, rho)
        self.noise_mean, self.noise_std = noise_mean, noise_std
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
        """The smallest noise."""
        return self.schedule[0]

    @property
    def timestep(self) -> list[float]:
        """The paper's code tells the network a quarter of the logarithm as it is."""
        return [1.0, 0.0]

    def training_times(self, count: int, generator: Generator | None) -> Tensor:
        """Log-normal."""
        return log_normal_times(count, generator, self.noise_mean, self.noise_std)

    def sampling_times(self, steps: int) -> list[float]:
        """The paper's schedule."""
        return edm_times(steps, *self.schedule)

    def likelihood_times(self, steps: int) -> list[float]:
        """The paper's schedule backwards, from the smallest noise."""
        return edm_times(steps + 1, *self.schedule)[-2::-1]

    def weight(self, t: Tensor) -> Tensor:
        """The paper's, by which the network's own error counts the same at all times."""
        return edm_weight(t, self.sigma_data)

    def predicted(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The image."""
        plain = super().predicted
        return preconditioned(lambda into, c_noise: plain(into, c_noise, labels), self.sigma_data)(x, t)
