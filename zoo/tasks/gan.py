"""Generative adversarial networks.

Goodfellow et al., "Generative Adversarial Nets", 2014; conditional on the class: Mirza and Osindero 2014. Losses and
penalties: ``zoo.functional.adversarial``. With ``loss: wasserstein``, ``gradient_penalty: 10`` and
``discriminator_steps: 5`` it is WGAN-GP (Gulrajani et al. 2017); with ``loss: relativistic``, ``r1`` and ``r2`` it is
R3GAN (Huang et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.optim import Adam
from torchmetrics import MeanMetric

from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts
from zoo.functional.adversarial import LOSSES, Name, between, one_centred_penalty, zero_centred_penalty
from zoo.functional.differentiable_augmentation import KINDS, augmented
from zoo.functional.samplers import Callback
from zoo.functional.seeded_noise import normal_like
from zoo.metrics.computing import compute_and_reset
from zoo.metrics.generation import GenerationMetrics
from zoo.tasks.alternating import AlternatingTask
from zoo.tasks.generation import Generation
from zoo.tasks.given_pictures import seed_of
from zoo.tasks.judge import Judged

ADAM = partial(Adam, lr=2e-4, betas=(0.5, 0.999))  # Radford, Metz and Chintala 2016
POOLED = 8  # pixels of a side by which samples are compared without a judge
VALIDATED = ("frechet", "frechet_floor", "class_accuracy", "spread")


class GAN(AlternatingTask, Generation):
    """Trains a generator to make images that a discriminator takes for real, and the discriminator to tell them apart.

    After each validation ``val/frechet`` says how far as many samples are from the held-out images: in the judge's
    features, or without one by their pixels, averaged to 8×8. It chooses the best checkpoint, since no loss says how
    good the samples are.

    Args:
        generator: noise to images in [-1, 1].
        discriminator: images to a score.
        optimizer: any optimiser of torch or of a plugin, for each network one.
        discriminator_optimizer: another one for the discriminator.
        scheduler: learning-rate scheduler, for each optimiser one; one that takes ``total_steps`` is stepped after
            every optimiser step.
        loss: ``non_saturating``, ``hinge``, ``relativistic`` or ``wasserstein``.
        r1: factor of half the squared norm of the discriminator's gradient at real images.
        r2: the same at samples.
        gradient_penalty: factor of the squared distance of that norm from 1, between real images and samples.
        discriminator_steps: of it for each of the generator; a step takes a new batch.
        augment: what is done to all that the discriminator sees, for small data: ``colour``, ``translation``,
            ``cutout`` (Zhao et al. 2020).
        conditional: whether it learns to generate by class.
        judge: the classifier that judges samples; left out, none does.
        judge_epochs: of its training, before the first step; one with pretrained weights is used as it is.
        test_samples: number of samples that a test makes for it.
        weights: a checkpoint whose tensors are loaded where name and shape agree.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        batch: images (B, C, H, W) in [0, 1], labels (B,) -> samples (B, C, H, W) in [0, 1]
    """

    turns = ("discriminator", "generator")
    averaged = ("generator",)
    monitor = "val/frechet"
    may_change = ("weights", "test_samples")

    def __init__(
        self,
        generator: ArchitectureFactory,
        discriminator: ArchitectureFactory,
        optimizer: OptimizerFactory = ADAM,
        discriminator_optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        loss: Name = "non_saturating",
        r1: float = 0.0,
        r2: float = 0.0,
        gradient_penalty: float = 0.0,
        discriminator_steps: int = 1,
        augment: list[str] | None = None,
        conditional: bool = False,
        judge: ArchitectureFactory | None = None,
        judge_epochs: int = 8,
        test_samples: int = 1000,
        weights: str | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        self.take_judging(judge_epochs, test_samples)
        self.take_adversary(loss, r1, r2, gradient_penalty, discriminator_steps, augment)
        self.conditional = conditional

    def take_adversary(
        self,
        loss: str,
        r1: float,
        r2: float,
        gradient_penalty: float,
        discriminator_steps: int,
        augment: Sequence[str] | None,
    ) -> None:
        """Check and keep the arguments that say how the networks are trained; for the constructor.

        Raises:
            UserError: one of them is out of range.
        """
        if loss not in LOSSES:
            raise UserError(f"model.loss is one of {', '.join(LOSSES)}, not {loss}")
        if min(r1, r2, gradient_penalty) < 0 or discriminator_steps < 1:
            raise UserError(
                "model.r1, model.r2 and model.gradient_penalty must be at least 0, model.discriminator_steps at least 1"
            )
        if unknown := [kind for kind in augment or () if kind not in KINDS]:
            raise UserError(f"model.augment is a list of {', '.join(KINDS)}; it has {unknown[0]}")
        self.loss, self.discriminator_steps, self.augment = LOSSES[loss], discriminator_steps, tuple(augment or ())
        self.r1, self.r2, self.gradient_penalty = r1, r2, gradient_penalty

    # Building

    def build(self) -> None:
        """Build the networks and the metrics."""
        classes = self.classes_for(self.conditional)
        needs = ("num_classes",) if classes else ()
        self.generator: Architecture = self.make("generator", needs, num_classes=classes)
        self.discriminator: Architecture = self.make("discriminator", needs, num_classes=classes)
        self.build_turns()
        self.build_evaluation()

    def build_evaluation(self) -> None:
        """Build the judge and the metrics; for ``build``."""
        self.build_judge()
        self.val_quality = GenerationMetrics(self.judge is not None and self.judge.knows_classes)
        stages = [f"{stage}_{turn}" for stage in ("val", "test") for turn in self.turns]
        self.evaluated = torch.nn.ModuleDict({name: MeanMetric() for name in stages})

    # Training

    def is_trained(self, turn: str, step: int) -> bool:
        """The generator at every ``discriminator_steps``-th step."""
        return turn == "discriminator" or (step + 1) % self.discriminator_steps == 0

    def turn_loss(self, turn: str, batch: Any, batch_idx: int) -> Tensor:
        """The loss of one of the networks, with as many new samples as there are images, of their classes."""
        images, labels = self.scaled(batch[0]), self.labels_of(batch)
        z = torch.randn(len(images), *self.generator.latent_shape, device=self.device, dtype=images.dtype)
        with torch.set_grad_enabled(turn == "generator"):
            made = self.generator(z, labels)
        if turn == "generator":
            real = self.discriminator(self.seen(images), labels) if self.loss.paired else None
            return self.generator_loss(self.discriminator(self.seen(made), labels), real)
        (real, r1), (fake, r2) = self._judged(images, labels, self.r1), self._judged(made, labels, self.r2)
        loss = self.discriminator_loss(real, fake, batch) + r1 + r2
        if not self.gradient_penalty:
            return loss
        middle = between(images, made.to(images.dtype), torch.rand(len(images)).to(images))
        return loss + self._judged(middle, labels, self.gradient_penalty, one_centred_penalty)[1]

    def discriminator_loss(self, real: Tensor, made: Tensor, batch: Any) -> Tensor:
        """The discriminator's loss, without penalties, of its outputs (B, n) for images and for samples.

        Args:
            real: for real images.
            made: for samples.
            batch: as the data gives it.
        """
        return self.loss.discriminator(real[:, :1].to(self.dtype), made[:, :1].to(self.dtype))

    def generator_loss(self, made: Tensor, real: Tensor | None) -> Tensor:
        """The generator's loss, of the discriminator's outputs (B, n) for samples.

        Args:
            made: for samples.
            real: for real images; None where the loss does not need them.
        """
        return self.loss.generator(made[:, :1].to(self.dtype), None if real is None else real[:, :1].to(self.dtype))

    def seen(self, images: Tensor) -> Tensor:
        """Images as the discriminator sees them in training."""
        return augmented(images, self.augment)

    def _judged(
        self,
        images: Tensor,
        labels: Tensor | None,
        factor: float,
        penalty: Callable[[Tensor, Tensor], Tensor] = zero_centred_penalty,
    ) -> tuple[Tensor, Tensor]:
        """The discriminator's outputs, and a penalty on their gradient times a factor.

        With a penalty in full precision, since 16 bits are too few for gradients of gradients without a scale of their
        own.
        """
        if not factor:
            return self.discriminator(self.seen(images), labels), images.new_zeros(())
        with torch.autocast(images.device.type, enabled=False):
            images = images.detach().to(self.dtype).requires_grad_()
            found = self.discriminator(self.seen(images), labels)
            return found, factor * penalty(found[:, :1], images)

    # Evaluation

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Both losses and, for ``val/frechet``, the images and samples of their classes, one for each."""
        made = self._evaluate(batch, "val")
        for images, real in ((batch[0], True), (self.unscaled(made), False)):
            found = self._compared(images)
            self.val_quality.update(found.features, found.log_probs, self.labels_of(batch), real=real)

    def on_validation_epoch_end(self) -> None:
        """Compare samples and images."""
        found = compute_and_reset(self.val_quality)
        self.log_values("val", {name: found[name] for name in VALIDATED if name in found})

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Both losses."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Any, stage: str) -> Tensor:
        """Log both losses, of samples from noise that is a function of each image; returns the samples in [-1, 1]."""
        images, labels = self.scaled(batch[0]), self.labels_of(batch)
        generators = [Generator().manual_seed(seed_of(image)) for image in batch[0]]
        made = self.generate(self.noise(generators), labels, generators)
        real, fake = self.discriminator(images, labels), self.discriminator(made, labels)
        losses = (self.discriminator_loss(real, fake, batch), self.generator_loss(fake, real))
        for turn, loss in zip(self.turns, losses, strict=True):
            mean = self.evaluated[f"{stage}_{turn}"]
            mean.update(loss, len(images))  # type: ignore[operator]
            self.log(f"{stage}/{turn}_loss", mean)  # type: ignore[arg-type]
        self.log_outputs(stage, real, batch)
        return made

    def log_outputs(self, stage: str, real: Tensor, batch: Any) -> None:
        """Log what else the discriminator's outputs (B, n) for real images of an evaluation say; nothing here."""

    def _compared(self, images: Tensor) -> Judged:
        """What samples and images in [0, 1] are compared by."""
        if self.judge is not None:
            return self.judge(images)
        height, width = images.shape[2:]
        size = (min(height, POOLED), min(width, POOLED))
        return Judged(F.adaptive_avg_pool2d(images, size).flatten(1), images.new_zeros(len(images), 1))

    # Samples

    def noise(self, generators: Sequence[Generator]) -> Tensor:
        """Of the shape that the generator takes."""
        return normal_like(torch.empty(len(generators), *self.generator.latent_shape, device=self.device), generators)

    def generate(
        self,
        noise: Tensor,
        labels: Tensor | None,
        generators: Sequence[Generator],
        callback: Callback | None = None,
    ) -> Tensor:
        """Images in [-1, 1], in one step."""
        return self.generator(noise.to(self.dtype), labels)
