"""Variational inference: likelihoods of images, divergence from the prior, and bounds on the evidence.

Kingma and Welling, "Auto-Encoding Variational Bayes", 2014; the bound by several samples: Burda, Grosse and
Salakhutdinov, "Importance Weighted Autoencoders", 2016.

All likelihoods say how probable 8-bit values are (binary ones for ``Bernoulli``), in nats, so that their bounds can be
compared.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.functional.diffusion_likelihood import PIXEL_STEPS, dequantized

LikelihoodName = Literal["gaussian", "bernoulli", "logistic"]
LEAST_LOG_SCALE = -7.0  # of a value in [-1, 1]; a pixel's step has -4.8

# Likelihoods


class Likelihood(ABC):
    """Distribution of an image's values, each on its own, given parameters.

    Attributes:
        parameters: how many a value has; they are next to each other along the channels, all of the first kind first.
    """

    parameters: ClassVar[int] = 2

    def observed(self, images: Tensor, uniform: Tensor) -> Tensor:
        """What is observed of images in [0, 1], by numbers in [0, 1) like the images; it is in [-1, 1]."""
        return 2 * images - 1

    @abstractmethod
    def log_prob(self, parameters: Tensor, observed: Tensor) -> Tensor:
        """Logarithm of the probability (B,) of what is observed (B, C, ...), in nats.

        Args:
            parameters: (B, C · parameters, ...).
            observed: as ``observed`` gives it.
        """

    @abstractmethod
    def mean(self, parameters: Tensor) -> Tensor:
        """The image in [-1, 1], or somewhat beyond, that is expected, (B, C, ...)."""


class Gaussian(Likelihood):
    """A mean and a logarithm of the standard deviation for each value.

    Its density is one of continuous values: the 8-bit values are spread evenly over their steps by uniform noise, and
    the density is multiplied by a step, which makes the result a bound (Theis, van den Oord and Bethge 2016).
    """

    def observed(self, images: Tensor, uniform: Tensor) -> Tensor:
        """In [-1, 1], with the noise within a pixel's step added."""
        return dequantized(images, uniform)

    def log_prob(self, parameters: Tensor, observed: Tensor) -> Tensor:
        """Of the step that the value lies in."""
        mean, log_scale = parameters.chunk(2, 1)
        log_scale = log_scale.clamp(min=LEAST_LOG_SCALE)
        squares = ((observed - mean) * (-log_scale).exp()).square()
        density = -(squares + math.log(2 * math.pi)) / 2 - log_scale
        return (density + math.log(2 / PIXEL_STEPS)).flatten(1).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean."""
        return parameters.chunk(2, 1)[0]


class Bernoulli(Likelihood):
    """A logit for each value, of binary images.

    Grey values are the probabilities by which these are drawn (Salakhutdinov and Murray, "On the Quantitative Analysis
    of Deep Belief Networks", 2008).
    """

    parameters = 1

    def observed(self, images: Tensor, uniform: Tensor) -> Tensor:
        """-1 and 1."""
        return 2 * (uniform < images).to(images.dtype) - 1

    def log_prob(self, parameters: Tensor, observed: Tensor) -> Tensor:
        """Of the binary image."""
        return -F.binary_cross_entropy_with_logits(parameters, (observed + 1) / 2, reduction="none").flatten(1).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        """The probabilities, scaled."""
        return 2 * parameters.sigmoid() - 1


class DiscretizedLogistic(Likelihood):
    """A location and a logarithm of the scale for each value, of a logistic distribution in the pixels' 256 steps.

    Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", 2016, section 5; the first and
    the last step reach to infinity (Salimans et al., "PixelCNN++", 2017, section 2.1).
    """

    def log_prob(self, parameters: Tensor, observed: Tensor) -> Tensor:
        """``log(F(b) - F(a))`` of the ends of the step, as ``log F(b) + log(1 - F(a)) + log(1 - exp(a - b))``."""
        location, log_scale = parameters.chunk(2, 1)
        sharpness = (-log_scale.clamp(min=LEAST_LOG_SCALE)).exp()
        half, centred = 1 / (PIXEL_STEPS - 1), observed - location
        last, first = observed > 1 - half, observed < half - 1
        below = F.logsigmoid((centred + half) * sharpness).masked_fill(last, 0)
        above = F.logsigmoid((half - centred) * sharpness).masked_fill(first, 0)
        within = (-torch.expm1(-2 * half * sharpness)).log().masked_fill(first | last, 0)
        return (below + above + within).flatten(1).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        """The location."""
        return parameters.chunk(2, 1)[0]


LIKELIHOODS: dict[LikelihoodName, type[Likelihood]] = {
    "gaussian": Gaussian,
    "bernoulli": Bernoulli,
    "logistic": DiscretizedLogistic,
}

# Latents


def reparametrized(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A sample of a Gaussian with independent entries, by standard normal noise; differentiable in its parameters."""
    return torch.addcmul(mean, (log_variance / 2).exp(), noise)


def gaussian_log_prob(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Logarithm of the density (B,) of a Gaussian with independent entries."""
    squares = (z - mean).square() * (-log_variance).exp()
    return -(squares + log_variance + math.log(2 * math.pi)).flatten(1).sum(1) / 2


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence (B,) from the standard normal prior, in nats (Kingma and Welling, appendix B).

    Args:
        mean: of the Gaussian with independent entries, (B, ...).
        log_variance: like the mean.
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1) / 2


# Bounds on the logarithm of the evidence


def importance_bound(log_weights: Tensor) -> Tensor:
    """The bound (B,) by several samples, which grows with their number and tends to the evidence.

    Args:
        log_weights: ``log p(x, z) - log q(z | x)`` of the samples, (samples, B).
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def bits_per_dimension(log_evidence: Tensor, dimensions: int) -> Tensor:
    """Bits per pixel and channel.

    Args:
        log_evidence: logarithm of the probability of 8-bit or binary images, in nats, or a bound on it.
        dimensions: numbers in an image.
    """
    return -log_evidence / (dimensions * math.log(2))
