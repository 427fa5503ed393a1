"""Exact likelihood by the probability-flow equation, for any denoiser on any path.

Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021, appendix D.2: the
logarithm of a sample's density is that of the noise it flows to, plus the divergence of the flow on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from zoo.functional.diffusion import Denoiser
from zoo.functional.seeded_noise import Randomness, normal_like

PIXEL_STEPS = 256  # values of a pixel


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float],
    generator: Randomness | None = None,
    exact: bool = False,
) -> Tensor:
    """Logarithm of the density (B,) of samples, in nats, by Heun's method.

    Args:
        denoiser: of images scaled as x is.
        x: samples at the first time, (B, ...).
        times: from the smallest noise to the largest, where the samples count as Gaussian noise of that size.
        generator: of Hutchinson's random signs, drawn once for a sample; one, or one for each sample.
        exact: compute the divergence exactly, with as many backward passes as a sample has numbers.
    """
    probes = _basis(x) if exact else [_signs(x, generator)]
    total = x.new_zeros(len(x))
    for s, t in pairwise(times):
        first, growth = _increment(denoiser, x, (s, t), s, probes)
        second, more = _increment(denoiser, x + first, (s, t), t, probes)
        x, total = x + (first + second) / 2, total + (growth + more) / 2
    return total + _normal_log_density(x, denoiser.path.at(times[-1])[1])


def bits_per_dimension(log_density: Tensor, dimensions: int) -> Tensor:
    """Bits per pixel and channel of 8-bit images that were scaled to [-1, 1].

    Args:
        log_density: in nats, of images with uniform noise of one pixel step added (``dequantized``), which makes the
            result a bound on that of the 8-bit images.
        dimensions: numbers in an image.
    """
    return -log_density / (dimensions * math.log(2)) + math.log2(PIXEL_STEPS / 2)


def dequantized(images: Tensor, uniform: Tensor) -> Tensor:
    """Images in [0, 1] of 8 bits as continuous ones in [-1, 1], by numbers in [0, 1) like the images."""
    return 2 * ((images * (PIXEL_STEPS - 1)).round() + uniform) / PIXEL_STEPS - 1


def _increment(
    denoiser: Denoiser, x: Tensor, ends: tuple[float, float], now: float, probes: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """What Euler's step with the estimate of time ``now`` adds to the samples, and its divergence (B,)."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = (denoiser.path.at(time) for time in ends)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        found = denoiser.estimate(x, now)
        added = (alpha_t - alpha_s) * found.image + (sigma_t - sigma_s) * found.noise
        divergence = x.new_zeros(len(x))
        for probe in probes:
            (backward,) = torch.autograd.grad(added, x, probe, retain_graph=probe is not probes[-1])
            divergence = divergence + (backward * probe).flatten(1).sum(1)
    return added.detach(), divergence.detach()


def _basis(x: Tensor) -> list[Tensor]:
    """Each coordinate's unit vector, for all samples at once."""
    size = x[0].numel()
    return [row.view(x.shape[1:]).expand_as(x) for row in torch.eye(size, dtype=x.dtype, device=x.device)]


def _signs(x: Tensor, generator: Randomness | None) -> Tensor:
    """Hutchinson's probes of Rademacher's distribution, -1 or 1."""
    return torch.where(normal_like(x, generator) < 0, -1.0, 1.0).to(x.dtype)


def _normal_log_density(x: Tensor, std: float) -> Tensor:
    scaled = (x / std).flatten(1)
    return -(scaled.square() + math.log(2 * math.pi)).sum(1) / 2 - scaled.shape[1] * math.log(std)
