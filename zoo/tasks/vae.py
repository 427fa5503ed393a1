"""Variational autoencoders.

Kingma and Welling, "Auto-Encoding Variational Bayes", 2014; β: Higgins et al., "β-VAE", 2017; with classes: Sohn, Lee
and Yan, "Learning Structured Output Representation using Deep Conditional Generative Models", 2015; the bound by
several samples: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Generator, Tensor, nn
from torch.optim import AdamW
from torchmetrics import MeanMetric

from zoo import drawing
from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts
from zoo.functional.samplers import Callback
from zoo.functional.seeded_noise import normal_like
from zoo.functional.variational import (
    LIKELIHOODS,
    LikelihoodName,
    bits_per_dimension,
    gaussian_kl,
    gaussian_log_prob,
    importance_bound,
    reparametrized,
)
from zoo.tasks.exported import Exported
from zoo.tasks.generation import SIDE, Generation
from zoo.tasks.given_pictures import seed_of

PAIRS, WAY = 8, 10  # pictures in a row of reconstructions and rows of interpolations; pictures of one of these
LOGGED = ("loss", "bits_per_dimension", "divergence")


class VAE(Generation):
    """Trains an encoder and a decoder to raise the bound on the images' evidence.

    Args:
        encoder: gives a Gaussian of the latent for each image.
        decoder: gives the parameters of the likelihood for each latent.
        optimizer: any optimiser of torch or of a plugin; of both.
        scheduler: learning-rate scheduler; one that takes ``total_steps`` is stepped after every optimiser step.
        likelihood: ``gaussian``, with a standard deviation for each value; ``bernoulli``, of binary images that are
            drawn by the grey values; or ``logistic``, discretised to the values of 8 bits.
        beta: weight of the divergence from the prior in training; 1 for the bound itself.
        conditional: whether it learns to generate by class.
        drop_label: share of the training labels that are dropped, for pictures whose class is not known.
        importance_samples: of the bound at test; with several it is nearer to the evidence.
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

    averaged = ("encoder", "decoder")
    may_change = ("weights", "importance_samples", "test_samples")
    example: ClassVar[dict[str, Any]] = {"importance_samples": 2}

    def __init__(
        self,
        encoder: ArchitectureFactory,
        decoder: ArchitectureFactory,
        optimizer: OptimizerFactory = AdamW,
        scheduler: SchedulerFactory | None = None,
        likelihood: LikelihoodName = "logistic",
        beta: float = 1.0,
        conditional: bool = False,
        drop_label: float = 0.1,
        importance_samples: int = 1,
        judge: ArchitectureFactory | None = None,
        judge_epochs: int = 8,
        test_samples: int = 1000,
        weights: str | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        if likelihood not in LIKELIHOODS:
            raise UserError(f"model.likelihood is one of {', '.join(LIKELIHOODS)}, not {likelihood}")
        if beta < 0 or importance_samples < 1 or not 0 <= drop_label < 1:
            raise UserError(
                "model.beta must be at least 0, model.importance_samples at least 1, model.drop_label at least 0 and "
                "below 1"
            )
        self.likelihood = LIKELIHOODS[likelihood]()
        self.beta, self.importance_samples = beta, importance_samples
        self.conditional, self.drop_label = conditional, drop_label
        self.take_judging(judge_epochs, test_samples)

    def build(self) -> None:
        """Build both networks and the metrics.

        Raises:
            UserError: their latents differ.
        """
        classes = self.classes_for(self.conditional)
        needs = ("num_classes",) if classes else ()
        self.encoder: Architecture = self.make("encoder", needs, num_classes=classes)
        channels = self.likelihood.parameters * self.facts["in_channels"]
        self.decoder: Architecture = self.make("decoder", needs, num_classes=classes, in_channels=channels)
        if self.encoder.latent_shape != self.decoder.latent_shape:
            raise UserError(
                f"model.encoder has a latent of {_by(self.encoder.latent_shape)}, model.decoder one of "
                f"{_by(self.decoder.latent_shape)}: they must be the same"
            )
        self.metrics = nn.ModuleDict(
            {stage: nn.ModuleDict({name: MeanMetric() for name in LOGGED}) for stage in ("val", "test")}
        )
        self.build_judge()

    def configure_optimizers(self) -> Any:
        """One optimiser and scheduler for both networks."""
        return self.optimizers_for(nn.ModuleDict({"encoder": self.encoder, "decoder": self.decoder}))

    # Training

    def terms(self, observed: Tensor, labels: Tensor | None, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the likelihood at one sample of the latent, and divergence from the prior, (B,) each, in nats.

        Args:
            observed: as the likelihood observes images, in [-1, 1], (B, C, H, W).
            labels: (B,); None for no class.
            noise: standard normal, of the latents' shape.
        """
        mean, log_variance = self.encoded(observed, labels)
        likelihood = self._log_likelihood(observed, labels, reparametrized(mean, log_variance, noise))
        return likelihood, gaussian_kl(mean, log_variance)

    def encoded(self, scaled: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latents (B, *latent_shape) of images in [-1, 1]."""
        mean, log_variance = self.encoder(scaled.to(self.dtype), labels)
        return mean.float(), log_variance.float()

    def _log_likelihood(self, observed: Tensor, labels: Tensor | None, z: Tensor) -> Tensor:
        return self.likelihood.log_prob(self.decoder(z.to(self.dtype), labels).float(), observed.float())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The negative bound in bits per dimension, with the divergence's weight; some labels dropped."""
        images, labels = batch[0], self.labels_of(batch)
        if labels is not None and self.drop_label:
            dropped = torch.rand(len(labels), device=self.device) < self.drop_label
            labels = labels.masked_fill(dropped, self.class_count)
        noise = torch.randn(len(images), *self.encoder.latent_shape, device=self.device)
        observed = self.likelihood.observed(images, torch.rand_like(images))
        likelihood, divergence = self.terms(observed, labels, noise)
        loss = bits_per_dimension(likelihood - self.beta * divergence, images[0].numel()).mean()
        if self.logs_now:
            self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    # Evaluation

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The loss, the bound and the divergence; the same noise at every validation."""
        self._evaluate("val", batch, 1)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """The same, with the bound by several samples if ``importance_samples`` is above 1."""
        self._evaluate("test", batch, self.importance_samples)

    def _evaluate(self, stage: str, batch: Any, samples: int) -> None:
        images, labels = batch[0], self.labels_of(batch)
        generators = [Generator().manual_seed(seed_of(image)) for image in images]
        uniform = torch.stack([torch.rand(images.shape[1:], generator=g) for g in generators]).to(images)
        observed, noises = self.likelihood.observed(images, uniform), [self.noise(generators) for _ in range(samples)]
        likelihood, divergence = self.terms(observed, labels, noises[0])
        bound = self._importance_bound(observed, labels, noises) if samples > 1 else likelihood - divergence
        size = images[0].numel()
        values = {
            "loss": bits_per_dimension(likelihood - self.beta * divergence, size),
            "bits_per_dimension": bits_per_dimension(bound, size),
            "divergence": bits_per_dimension(-divergence, size),
        }
        for name, metric in self.metrics[stage].items():  # type: ignore[operator]  # a ModuleDict
            metric.update(values[name])
            self.log(f"{stage}/{name}", metric, prog_bar=name == "loss")

    def _importance_bound(self, observed: Tensor, labels: Tensor | None, noises: Sequence[Tensor]) -> Tensor:
        mean, log_variance = self.encoded(observed, labels)
        weights = []
        for noise in noises:
            z = reparametrized(mean, log_variance, noise)
            prior = gaussian_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))
            likelihood = self._log_likelihood(observed, labels, z)
            weights.append(likelihood + prior - gaussian_log_prob(z, mean, log_variance))
        return importance_bound(torch.stack(weights))

    # Samples

    def noise(self, generators: Sequence[Generator]) -> Tensor:
        """Latents from the prior, from each one's own generator."""
        return normal_like(torch.empty(len(generators), *self.decoder.latent_shape, device=self.device), generators)

    def generate(
        self,
        noise: Tensor,
        labels: Tensor | None,
        generators: Sequence[Generator],
        callback: Callback | None = None,
    ) -> Tensor:
        """The images that are expected of latents, without the likelihood's noise."""
        return self.likelihood.mean(self.decoder(noise.to(self.dtype), labels).float())

    @torch.no_grad()
    def from_images(self, images: Tensor) -> Tensor:
        """Reconstructions of pictures of whatever class."""
        return self.reconstructed(images)

    @torch.no_grad()
    def reconstructed(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """What is left of pictures (B, C, H, W) in [0, 1] on the way through the mean of their latents."""
        return self.unscaled(self.generate(self.encoded(self.scaled(images), labels)[0], labels, []))

    @torch.no_grad()
    def between(self, first: Tensor, second: Tensor, count: int, labels: Tensor | None = None) -> Tensor:
        """Pictures (B, count, C, H, W) in [0, 1] on the straight ways between the latents of given ones.

        Args:
            first: in [0, 1], (B, C, H, W), of the starts.
            second: of the ends.
            count: of pictures on each way, both ends included; at least 2.
            labels: of each way, (B,); None for no class.
        """
        start, end = (self.encoded(self.scaled(images), labels)[0] for images in (first, second))
        weights = torch.linspace(0, 1, count).tolist()
        return torch.stack([self.unscaled(self.generate(torch.lerp(start, end, w), labels, [])) for w in weights], 1)

    # What can be watched

    @torch.no_grad()
    def show(self, batch: Any, batch_idx: int) -> None:
        """Make samples, and reconstructions of the batch's first pictures and ways between them."""
        super().show(batch, batch_idx)
        if batch_idx == 0:
            images, labels = batch[0][: PAIRS + 1], self.labels_of(batch)
            labels = None if labels is None else labels[: PAIRS + 1]
            self._pairs = [images.cpu(), self.reconstructed(images, labels).cpu()]
            self._ways = self.between(images[:-1], images[1:], WAY).cpu()

    def pictures(self) -> dict[str, list[Image.Image]]:
        """The grid of samples; pictures above their reconstructions; ways from each to the next, one per row."""
        if not self._pairs:
            return super().pictures()
        pairs = torch.cat([part[:PAIRS] for part in self._pairs])
        made = {"reconstructions": _grid(pairs, min(PAIRS, len(self._pairs[0])))}
        if len(self._ways):
            made["interpolations"] = _grid(self._ways.flatten(0, 1), WAY)
        return {**super().pictures(), **{name: [picture] for name, picture in made.items()}}

    _pairs: Sequence[Tensor] = ()
    _ways: Tensor = torch.empty(0)

    def exported(self) -> Exported:
        """The decoder, up to the expected image in [0, 1]."""
        shape = self.decoder.latent_shape

        def inputs(count: int, generator: Generator) -> dict[str, Tensor]:
            made = {"z": torch.randn(count, *shape, generator=generator)}
            if self.class_count:
                made["labels"] = torch.randint(self.class_count, (count,), generator=generator)
            return made

        notes = {"z": "standard normal noise", "images": "in [0, 1]"}
        if self.class_count:
            notes["labels"] = f"from 0 to {self.class_count - 1}"
        return Exported(Expected(self), inputs, ("images",), "latents -> images", notes=notes, part="decoder")


class Expected(nn.Module):
    """The decoder and what follows it.

    Args:
        task: the decoder's.
    """

    def __init__(self, task: VAE) -> None:
        super().__init__()
        self.decoder, self.likelihood = task.decoder, task.likelihood

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images in [0, 1]."""
        return VAE.unscaled(self.likelihood.mean(self.decoder(z, labels)))


def _grid(images: Tensor, columns: int) -> Image.Image:
    return drawing.grid([drawing.to_picture(image, SIDE) for image in images], columns, 2)


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
