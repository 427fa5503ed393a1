"""Paths from images to noise, what a network may predict on them, and the posteriors between two times.

On every path ``x_t = alpha(t) image + sigma(t) noise``, and t grows with the noise:

- ``VariancePreserving``: Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020; t = step / steps.
- ``VarianceExploding``: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022; t is
  the standard deviation of the noise.
- ``StraightPath``: Liu et al., "Flow Straight and Fast" (rectified flow), 2023, and Lipman et al., "Flow Matching for
  Generative Modeling", 2023; t in [0, 1]. Both papers have their noise at 0; here it is at 1, as in Esser et al. 2024
  ("Scaling Rectified Flow Transformers"), so that all paths agree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.errors import UserError

Prediction = Literal["noise", "image", "velocity", "flow"]
Predict = Callable[[Tensor, Tensor], Tensor]

# Paths


class Path(ABC):
    """``x_t = alpha(t) image + sigma(t) noise`` with a signal-to-noise ratio that falls as t grows."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The images' factor at these times, of the times' shape."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise's factor at these times, of the times' shape."""

    def at(self, t: float) -> tuple[float, float]:
        """Alpha and sigma at one time, in float64."""
        return _factors_at(self, t)

    def factors(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma of times (B,), shaped to be multiplied with a batch (B, ...)."""
        shape = (-1, *(1 for _ in like.shape[1:]))
        return self.alpha(t).view(shape).to(like.dtype), self.sigma(t).view(shape).to(like.dtype)

    def noised(self, images: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``x_t`` of a batch, each image at its own time (B,)."""
        alpha, sigma = self.factors(t, images)
        return alpha * images + sigma * noise

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio ``alpha² / sigma²`` at these times."""
        return (self.alpha(t) / self.sigma(t)).square()


@lru_cache(maxsize=10_000)  # solvers ask for the same times again and again
def _factors_at(path: Path, t: float) -> tuple[float, float]:
    time = torch.tensor(t, dtype=torch.float64)
    return float(path.alpha(time)), float(path.sigma(time))


class VariancePreserving(Path):
    """DDPM's path: ``alpha² + sigma² = 1``, by a table of betas.

    Between the steps log(alpha²) is interpolated linearly, so that solvers may use any time in [0, 1].

    Args:
        betas: variances of the steps 1 to T, (T,), as ``linear_betas`` or ``cosine_betas`` give them.
    """

    def __init__(self, betas: Tensor) -> None:
        self.betas = betas.double().cpu()
        self.steps = len(betas)
        kept = torch.log1p(-self.betas).cumsum(0)
        self._tables = {(torch.device("cpu"), torch.float64): torch.cat([kept.new_zeros(1), kept])}

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """Logarithm of the paper's alpha-bar, ``alpha²``, at times in [0, 1]."""
        table = self._table(t)
        place = (t * self.steps).clamp(0, self.steps)
        low = place.floor().long().clamp(max=self.steps - 1)
        return torch.lerp(table[low], table[low + 1], place - low)

    def _table(self, t: Tensor) -> Tensor:
        key = (t.device, t.dtype)
        if key not in self._tables:
            first = next(iter(self._tables.values()))
            self._tables[key] = first.to(t.dtype).to(t.device)
        return self._tables[key]

    def alpha(self, t: Tensor) -> Tensor:
        """Square root of the paper's alpha-bar."""
        return (self.log_alpha_bar(t) / 2).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """Square root of one minus the paper's alpha-bar."""
        return (-torch.expm1(self.log_alpha_bar(t))).sqrt()


class VarianceExploding(Path):
    """Karras et al.'s path: noise of standard deviation t is added to the images."""

    def alpha(self, t: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """The time itself."""
        return t


class StraightPath(Path):
    """Rectified flow's path: the straight line from image (t = 0) to noise (t = 1)."""

    def alpha(self, t: Tensor) -> Tensor:
        """``1 - t``."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """``t``."""
        return t


# What a network predicts


class Estimate(NamedTuple):
    """A denoiser's estimate of the image and of the noise in ``x_t = alpha image + sigma noise``."""

    image: Tensor
    noise: Tensor


def target(prediction: Prediction, image: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a network is trained to predict.

    Args:
        prediction: ``noise``; ``image``; ``velocity``: ``alpha noise - sigma image`` (Salimans and Ho, "Progressive
            Distillation for Fast Sampling of Diffusion Models", 2022, section 4); ``flow``: ``noise - image``, the
            derivative of x_t on the straight path.
        image: (B, ...).
        noise: like the image.
        alpha: broadcast with them.
        sigma: broadcast with them.
    """
    if prediction == "noise":
        return noise
    if prediction == "image":
        return image
    return alpha * noise - sigma * image if prediction == "velocity" else noise - image


def split(
    prediction: Prediction, predicted: Tensor, x: Tensor, alpha: float | Tensor, sigma: float | Tensor
) -> Estimate:
    """Image and noise from what a network has predicted of ``x = alpha image + sigma noise``.

    Factors may be tensors that are broadcast with x; these are not checked.

    Raises:
        UserError: the prediction says nothing at this time, such as the image where there is no noise.
    """
    if prediction == "noise":
        _refuse_zero(alpha, "noise", "there is nothing but noise")
        return Estimate((x - sigma * predicted) / alpha, predicted)
    if prediction == "image":
        _refuse_zero(sigma, "image", "there is no noise")
        return Estimate(predicted, (x - alpha * predicted) / sigma)
    if prediction == "velocity":
        total = alpha**2 + sigma**2
        return Estimate((alpha * x - sigma * predicted) / total, (sigma * x + alpha * predicted) / total)
    total = alpha + sigma
    return Estimate((x - sigma * predicted) / total, (x + alpha * predicted) / total)


def _refuse_zero(factor: float | Tensor, prediction: str, where: str) -> None:
    if not isinstance(factor, Tensor) and factor == 0:
        raise UserError(f"a prediction of the {prediction} can't be used at a time at which {where}")


@dataclass(frozen=True)
class Denoiser:
    """A network as solvers see it: at a time, an estimate of image and noise.

    Args:
        predict: takes x (B, ...) and times (B,); gives the prediction, like x.
        path: the path that it was trained on.
        prediction: what it predicts.
        clip: bound the estimated image to [-1, 1], as Ho et al. do in each step; the noise then follows from it.
    """

    predict: Predict
    path: Path
    prediction: Prediction = "noise"
    clip: bool = False

    def estimate(self, x: Tensor, t: float) -> Estimate:
        """Image and noise in a batch that is at time t.

        Raises:
            UserError: the prediction says nothing at this time.
        """
        alpha, sigma = self.path.at(t)
        predicted = self.predict(x, x.new_full((len(x),), t))
        found = split(self.prediction, predicted, x, alpha, sigma)
        if not self.clip or sigma == 0:
            return found
        image = found.image.clamp(-1, 1)
        return Estimate(image, (x - alpha * image) / sigma)


def guided(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    labels: Tensor,
    no_class: int,
    guidance: float = 1.0,
    interval: tuple[float, float] | None = None,
) -> Predict:
    """Classifier-free guidance: ``without + guidance (with - without)``, of predictions with and without the class.

    Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022, whose weight w is ``guidance - 1``; within an interval
    of noise: Kynkäänniemi et al., "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in
    Diffusion Models", 2024. Every kind of prediction can be combined so, as all are affine in one another.

    Args:
        predict: takes x, times and labels.
        labels: of the samples, (B,).
        no_class: the label that says nothing.
        guidance: 1 for none, which costs one call instead of one on twice the batch.
        interval: times, both included, outside of which there is no guidance.
    """

    def combined(x: Tensor, t: Tensor) -> Tensor:
        if guidance == 1 or (interval is not None and not interval[0] <= float(t[0]) <= interval[1]):
            return predict(x, t, labels)
        both = torch.cat([labels, torch.full_like(labels, no_class)])
        known, unknown = predict(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return torch.lerp(unknown, known, guidance)

    return combined


# Between two times


class Transition(NamedTuple):
    """A Gaussian step on a path: mean ``on_x x + on_image image``, and its standard deviation."""

    on_x: float
    on_image: float
    std: float


def forward_variance(path: Path, s: float, t: float) -> float:
    """Variance of x_s, given x_t at an earlier time t < s; DDPM's beta for neighbouring steps."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = path.at(s), path.at(t)
    return sigma_s**2 - (alpha_s / alpha_t * sigma_t) ** 2


def posterior(path: Path, s: float, t: float) -> Transition:
    """The distribution of x_t, given x_s at a later time s > t and the image (Ho et al. 2020, equations 6 and 7)."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = path.at(s), path.at(t)
    variance = forward_variance(path, s, t)
    on_x = alpha_s / alpha_t * (sigma_t / sigma_s) ** 2
    return Transition(on_x, alpha_t * variance / sigma_s**2, sigma_t / sigma_s * variance**0.5)


# Weights of the loss


def min_snr_weight(prediction: Prediction, path: Path, t: Tensor, gamma: float = 5.0) -> Tensor:
    """Weights (B,) of the squared errors of a prediction at times (B,), for which the image's error counts min(SNR, γ).

    Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023; γ = 5 is theirs.
    """
    alpha, sigma = path.alpha(t), path.sigma(t)
    bounded = path.snr(t).clamp(max=gamma)
    if prediction == "image":
        return bounded
    if prediction == "noise":
        return (gamma / path.snr(t)).clamp(max=1)
    return bounded * (sigma / (alpha**2 + sigma**2 if prediction == "velocity" else alpha + sigma)).square()
