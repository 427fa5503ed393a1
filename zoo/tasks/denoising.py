"""What diffusion and flow share: a network learns to tell image from noise, and a solver makes images with it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.facts import class_index, class_names
from zoo.functional.diffusion import Denoiser, Path, Prediction, guided, target
from zoo.functional.diffusion_likelihood import bits_per_dimension, dequantized, log_likelihood
from zoo.functional.diffusion_schedules import from_strength
from zoo.functional.editing import invert, keep_known, noised_at
from zoo.functional.samplers import Callback, Solver, make_solver, sample, start
from zoo.functional.seeded_noise import normal_like
from zoo.tasks.denoiser_export import exported_denoiser
from zoo.tasks.exported import Exported
from zoo.tasks.generation import Generated, Generation
from zoo.tasks.given_pictures import generators_for, noise_file, read_mask, seed_of

SAMPLING = (
    "solver",
    "solver_options",
    "steps",
    "guidance",
    "guidance_interval",
    "strength",
    "mask",
    "invert",
    "given_class",
    "likelihood_steps",
    "test_samples",
)


class Denoising(Generation):
    """Base of ``Diffusion``, ``EDM`` and ``FlowMatching``, which say what their paths, times and losses are.

    A subclass has the arguments that ``take_sampling`` and ``build`` use, under the same names.
    """

    averaged = ("denoiser",)
    may_change = SAMPLING  # used for samples only
    example: ClassVar[dict[str, Any]] = {"steps": 2}
    path: Path
    prediction: Prediction

    def take_sampling(
        self,
        conditional: bool,
        drop_label: float,
        solver: str,
        solver_options: Mapping[str, Any] | None,
        steps: int,
        guidance: float,
        guidance_interval: Sequence[float] | None,
        strength: float,
        likelihood_steps: int,
    ) -> None:
        """Check and keep the arguments that all these tasks have; for the constructor.

        Raises:
            UserError: one of them is out of range.
        """
        if not 0 <= drop_label < 1:
            raise UserError(f"model.drop_label is a share of the labels, at least 0 and below 1, not {drop_label:g}")
        if guidance != 1 and not (conditional and drop_label):
            raise UserError("model.guidance needs model.conditional and a model.drop_label above 0; without, it is 1")
        if steps < 1 or likelihood_steps < 0 or not 0 < strength <= 1:
            raise UserError(
                "model.steps must be at least 1, model.likelihood_steps at least 0, model.strength in (0, 1]"
            )
        if guidance_interval is not None and len(guidance_interval) != 2:
            raise UserError("model.guidance_interval is two times, from and to")
        self.solver: Solver = make_solver(solver, **(solver_options or {}))
        self.conditional, self.drop_label, self.guidance = conditional, drop_label, guidance
        self.interval = None if guidance_interval is None else (guidance_interval[0], guidance_interval[1])
        self.steps, self.strength, self.likelihood_steps = steps, strength, likelihood_steps
        self.sampling_times(steps)

    def take_given(self, mask: str | None, invert: bool, given_class: str | int | None) -> None:
        """Check and keep the arguments that say what becomes of given pictures; for the constructor, at its end.

        Raises:
            UserError: they contradict each other.
        """
        if mask is not None and invert:
            raise UserError("model.mask and model.invert exclude each other: a picture is filled in, or inverted")
        if given_class is not None and not self.conditional:
            raise UserError("model.given_class needs model.conditional")
        if invert and not self.solver.is_deterministic:
            raise UserError("model.invert needs a model.solver that adds no noise, such as heun or ddim")
        self.mask, self.invert, self.given_class = mask, invert, given_class

    # To be defined by a subclass

    @abstractmethod
    def training_times(self, count: int, generator: Generator | None) -> Tensor:
        """Random times of training, (count,); on the CPU, from torch's own generator where none is given."""

    @abstractmethod
    def sampling_times(self, steps: int) -> list[float]:
        """The times that a solver visits, from noise to image.

        Raises:
            UserError: that many steps can't be taken.
        """

    @property
    @abstractmethod
    def least_time(self) -> float:
        """Where an image counts as one without noise, above 0 if the network says nothing at 0."""

    @property
    def timestep(self) -> list[float]:
        """Factor and offset that make a step of the papers' code of a time: for networks that are told such steps."""
        return [1000.0, 0.0]

    def likelihood_times(self, steps: int) -> list[float]:
        """The times of the probability-flow equation, from image to noise; close to each other near the image."""
        return [self.least_time + (1 - self.least_time) * (i / steps) ** 2 for i in range(steps + 1)]

    def weight(self, t: Tensor) -> Tensor:
        """Weights of the squared errors at times (B,)."""
        return torch.ones_like(t)

    def coupled(self, images: Tensor, noise: Tensor) -> Tensor:
        """The noise of a training batch in another order, if it is to be chosen for the images."""
        return noise

    def predicted(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The prediction for x at times (B,), in the type of x; as it stands, the network's output."""
        return self.denoiser(x.to(self.dtype), t, labels).to(x.dtype)

    # Training

    def build(self) -> None:
        """Build the network and the metrics."""
        classes = self.classes_for(self.conditional)
        needs = ("num_classes",) if classes else ()
        self.denoiser: Architecture = self.make("denoiser", needs, num_classes=classes, timestep=self.timestep)
        self.val_loss, self.test_loss, self.test_bits = MeanMetric(), MeanMetric(), MeanMetric()
        self.build_judge()

    def losses(self, images: Tensor, noise: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The loss (B,) of scaled images with their noise and times."""
        x = self.path.noised(images, noise, t)
        alpha, sigma = self.path.factors(t, x)
        wanted = target(self.prediction, images, noise, alpha, sigma)
        errors = F.mse_loss(self.predicted(x, t, labels).float(), wanted.float(), reduction="none")
        return self.weight(t) * errors.flatten(1).mean(1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The mean loss at random times, with random noise, some labels dropped."""
        images, labels = self.scaled(batch[0]), self.labels_of(batch)
        noise = self.coupled(images, torch.randn_like(images))
        t = self.training_times(len(images), None).to(self.device)
        if labels is not None and self.drop_label:
            dropped = torch.rand(len(labels), device=self.device) < self.drop_label
            labels = labels.masked_fill(dropped, self.class_count)
        loss = self.losses(images, noise, t, labels).mean()
        if self.logs_now:
            self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def _evaluated(self, batch: Any) -> Tensor:
        """The loss (B,) at times and with noise that are functions of each image."""
        images = batch[0]
        generators = [Generator().manual_seed(seed_of(image)) for image in images]
        t = torch.cat([self.training_times(1, generator) for generator in generators]).to(self.device)
        scaled = self.scaled(images)
        return self.losses(scaled, normal_like(scaled, generators), t, self.labels_of(batch))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The loss; the same times and noise at every validation."""
        self.val_loss.update(self._evaluated(batch))
        self.log("val/loss", self.val_loss, prog_bar=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """The loss, and bits per dimension if ``likelihood_steps`` is above 0."""
        self.test_loss.update(self._evaluated(batch))
        self.log("test/loss", self.test_loss)
        if self.likelihood_steps:
            self.test_bits.update(self.bits(batch[0], self.labels_of(batch)))
            self.log("test/bits_per_dimension", self.test_bits)

    def configure_optimizers(self) -> Any:
        """The network's optimiser and scheduler."""
        return self.optimizers_for(self.denoiser)

    # Samples

    def denoiser_for(self, labels: Tensor | None) -> Denoiser:
        """The network as solvers see it, with guidance where there are classes."""
        if labels is None:
            return Denoiser(lambda x, t: self.predicted(x, t, None), self.path, self.prediction)
        guide = guided(self.predicted, labels, self.class_count, self.guidance, self.interval)
        return Denoiser(guide, self.path, self.prediction)

    def generate(
        self,
        noise: Tensor,
        labels: Tensor | None,
        generators: Sequence[Generator],
        callback: Callback | None = None,
    ) -> Tensor:
        """Images in [-1, 1] by the solver."""
        denoiser, times = self.denoiser_for(labels), self.sampling_times(self.steps)
        return sample(denoiser, start(denoiser, noise, times[0]), times, self.solver, generators, callback)

    @property
    def sampling_steps(self) -> int:
        """Those of the solver."""
        return len(self.sampling_times(self.steps)) - 1

    def shown_step(self, index: int, x: Tensor) -> Tensor:
        """The samples with their noise, with less contrast where that would be darker or brighter than can be shown."""
        alpha, sigma = self.path.at(self.sampling_times(self.steps)[index + 1])
        return self.unscaled(x / max(1.0, math.hypot(alpha, sigma)))

    # Given images

    def inverted(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The noise (B, C, H, W) that ``generate`` turns into these images in [0, 1], without guidance.

        Raises:
            UserError: the solver adds noise.
        """
        denoiser = self._unguided(labels)
        times = [self.least_time, *self.sampling_times(self.steps)[-2::-1]]
        times = sorted(set(times))
        return invert(denoiser, self.scaled(images), times, self.solver, self._watched(times))

    def _unguided(self, labels: Tensor | None) -> Denoiser:
        return Denoiser(lambda x, t: self.predicted(x, t, labels), self.path, self.prediction)

    def edited(self, images: Tensor, names: Sequence[str]) -> list[Generated]:
        """Pictures inverted and made again from their noise, filled in, or varied, as the arguments say."""
        labels = self._given_labels(len(images))
        if self.invert:
            return self._inverted(images, labels, names)
        if self.mask is not None:
            mask = read_mask(self.mask, self.facts["image_size"], names).to(self.device)
            return self._results(self.inpainted(images, mask, labels), labels, names)
        return self._results(self.varied(images, self.strength, labels), labels, names)

    @torch.no_grad()
    def _inverted(self, images: Tensor, labels: Tensor | None, names: Sequence[str]) -> list[Generated]:
        noise, denoiser, times = self.inverted(images, labels), self._unguided(labels), self.sampling_times(self.steps)
        again = sample(denoiser, start(denoiser, noise, times[0]), times, self.solver, callback=self._watched(times))
        results = self._results(self.unscaled(again), labels, names)
        for result, name, own in zip(results, names, noise.float().cpu(), strict=True):
            result.noise, result.noise_file = own, noise_file(name)
        return results

    def _given_labels(self, count: int) -> Tensor | None:
        """The class of given pictures; None for none.

        Raises:
            UserError: there is no such class, or the network has learnt nothing but classes.
        """
        if self.given_class is not None:
            label = class_index(str(self.given_class), class_names(self.facts))
            return torch.full((count,), label, device=self.device)
        if self.conditional and not self.drop_label:
            raise UserError("model.given_class must be given: with model.drop_label 0 the network needs a class")
        return None

    def _watched(self, times: Sequence[float]) -> Callback | None:
        return self.watched(len(times) - 1)

    @torch.no_grad()
    def varied(self, images: Tensor, strength: float, labels: Tensor | None = None, seed: int = 0) -> Tensor:
        """Image to image: pictures in [0, 1] that keep the more of these, the lower the strength.

        Args:
            images: in [0, 1], (B, C, H, W).
            strength: share of the steps that are taken, in (0, 1].
            labels: what they are to become, (B,); None for no class.
            seed: of the noise, which is a function of it and of each picture.
        """
        generators = generators_for(images, seed)
        denoiser, times = self.denoiser_for(labels), from_strength(self.sampling_times(self.steps), strength)
        x = noised_at(denoiser, self.scaled(images), times[0], generators)
        return self.unscaled(sample(denoiser, x, times, self.solver, generators, self._watched(times)))

    @torch.no_grad()
    def inpainted(self, images: Tensor, mask: Tensor, labels: Tensor | None = None, seed: int = 0) -> Tensor:
        """Pictures whose missing parts are filled in.

        Args:
            images: in [0, 1], (B, C, H, W).
            mask: broadcast with them: 1 where something is missing.
            labels: what they are of, (B,); None for no class.
            seed: of the noise, which is a function of it and of each picture.
        """
        generators = generators_for(images, seed)
        denoiser, times = self.denoiser_for(labels), self.sampling_times(self.steps)
        x = start(denoiser, self.noise(generators), times[0])
        known = keep_known(denoiser, self.scaled(images), mask, generators)
        return self.unscaled(sample(denoiser, x, times, self.solver, generators, self._watched(times), known))

    def exported(self) -> Exported:
        """The denoiser and a step of the sampler, each with guidance."""
        return exported_denoiser(self)

    # Likelihood

    def bits(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Bits per dimension (B,) of 8-bit images in [0, 1], by the probability-flow equation without guidance.

        An estimate by one random direction and one random offset within the pixels' steps for each image, which are
        functions of the image.
        """
        with torch.inference_mode(False), torch.enable_grad():
            images = images.float().clone()
            labels = None if labels is None else labels.clone()
            generators = [Generator().manual_seed(seed_of(image)) for image in images]
            uniform = torch.stack([torch.rand(images.shape[1:], generator=g) for g in generators]).to(images)
            times = self.likelihood_times(self.likelihood_steps or self.steps)
            alpha = self.path.at(times[0])[0]
            x = alpha * dequantized(images, uniform)
            density = log_likelihood(self._unguided(labels), x, times, generators) + x[0].numel() * math.log(alpha)
        return bits_per_dimension(density, x[0].numel())
