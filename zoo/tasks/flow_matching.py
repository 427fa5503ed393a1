"""Flow matching on straight paths (rectified flow).

Liu, Gong and Liu, "Flow Straight and Fast", 2023; Lipman et al., "Flow Matching for Generative Modeling", 2023;
logit-normal times: Esser et al. 2024; minibatch couplings: Tong et al. 2024, Pooladian et al. 2023; guidance: Ho and
Salimans 2022.

Deviation: time runs from the image (0) to noise (1), as in diffusion and in Esser et al.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Generator, Tensor
from torch.optim import AdamW

from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts
from zoo.functional.couplings import nearest_noise
from zoo.functional.diffusion import StraightPath
from zoo.functional.diffusion_schedules import even_times, logit_normal_times, uniform_times
from zoo.tasks.denoising import Denoising


class FlowMatching(Denoising):
    """Trains a network to predict the direction from image to noise.

    Args:
        denoiser: the network, told times in [0, 1].
        optimizer: any optimiser of torch or of a plugin.
        scheduler: learning-rate scheduler; one that takes ``total_steps`` is stepped after every optimiser step.
        times: distribution of the times in training; ``logit_normal`` has most in the middle.
        couple: give each image of a training batch the noise that is nearest, over the whole batch; paths then cross
            less, and fewer steps are needed.
        conditional: whether it learns to generate by class.
        drop_label: share of the training labels that are dropped, for guidance.
        solver: ``heun``, ``euler``, ``midpoint``, ``dpm``, ``ddim``, ``ddpm``, or a solver of a plugin.
        solver_options: of its class, for the zoo's in ``zoo.functional.samplers``.
        steps: of the solver.
        guidance: strength of the class in samples; 1 for none.
        guidance_interval: times, from and to, between which there is guidance; left out, everywhere.
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

    path = StraightPath()
    prediction = "flow"
    least_time = 0.0

    def __init__(
        self,
        denoiser: ArchitectureFactory,
        optimizer: OptimizerFactory = AdamW,
        scheduler: SchedulerFactory | None = None,
        times: Literal["logit_normal", "uniform"] = "logit_normal",
        couple: bool = False,
        conditional: bool = False,
        drop_label: float = 0.1,
        solver: str = "heun",
        solver_options: dict[str, Any] | None = None,
        steps: int = 15,
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
        self.times, self.couple = times, couple
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

    def training_times(self, count: int, generator: Generator | None) -> Tensor:
        """Logit-normal or uniform."""
        return (logit_normal_times if self.times == "logit_normal" else uniform_times)(count, generator)

    def sampling_times(self, steps: int) -> list[float]:
        """Equally spaced."""
        return even_times(steps)

    def coupled(self, images: Tensor, noise: Tensor) -> Tensor:
        """The nearest noise, if that is wanted."""
        return nearest_noise(images, noise) if self.couple else noise
