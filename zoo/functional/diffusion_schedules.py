"""Schedules of diffusion and flow: DDPM's betas, times for training, and the times that solvers visit."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from zoo.errors import UserError

# Betas of DDPM


def linear_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """Betas that grow linearly, (steps,) in float64 (Ho et al. 2020, section 4).

    The ends are for 1,000 steps; for fewer or more they are scaled so that the noise at the end stays about the same,
    as in Nichol and Dhariwal's code.

    Raises:
        UserError: so few steps that a beta would reach 1.
    """
    scale = 1000 / steps
    if scale * last >= 1:
        raise UserError(f"a linear schedule needs more than {math.floor(1000 * last)} steps, not {steps}")
    return torch.linspace(scale * first, scale * last, steps, dtype=torch.float64)


def cosine_betas(steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """Betas of an alpha-bar that falls as a squared cosine, (steps,) in float64.

    Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, equation 17.

    Args:
        steps: of the diffusion.
        offset: the paper's s, which keeps the first betas from being too small.
        largest: bound of the betas at the end, where the formula tends to 1.
    """
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = ((t + offset) / (1 + offset) * math.pi / 2).cos().square()
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=largest)


# Times that solvers visit, from noise to image


def even_times(steps: int, first: float = 1.0, last: float = 0.0) -> list[float]:
    """``steps + 1`` times at equal distances."""
    return torch.linspace(first, last, steps + 1, dtype=torch.float64).tolist()


def step_times(steps: int, trained: int) -> list[float]:
    """``steps + 1`` times from 1 to 0 among the ``trained`` ones of a discrete diffusion, ``0, 1/trained, …, 1``.

    They are as equally spaced as that allows, and the first is the last of training, where nothing but noise is left
    (Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024, section 3.3).

    Raises:
        UserError: more steps than were trained.
    """
    if not 1 <= steps <= trained:
        raise UserError(f"a diffusion of {trained} steps can be sampled in 1 to {trained} steps, not {steps}")
    return [round(trained * t) / trained for t in even_times(steps)]


def edm_times(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> list[float]:
    """Standard deviations of the noise, from ``sigma_max`` over ``sigma_min`` to 0, ``steps + 1`` of them.

    Karras et al. 2022, equation 5; the larger rho, the more steps where there is little noise.

    Raises:
        UserError: fewer than two steps.
    """
    if steps < 2:
        raise UserError(f"the noise schedule of Karras et al. needs at least 2 steps, not {steps}")
    roots = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps, dtype=torch.float64)
    return [*(roots**rho).tolist(), 0.0]


def from_strength(times: list[float], strength: float) -> list[float]:
    """The end of a solver's times: what is left when an image is changed only so much.

    Args:
        times: from noise to image.
        strength: share of the steps that are kept, in (0, 1]; at 1 all of them.

    Raises:
        UserError: the strength is out of range.
    """
    if not 0 < strength <= 1:
        raise UserError(f"strength is above 0 and at most 1, not {strength:g}")
    steps = len(times) - 1
    return times[steps - max(1, round(strength * steps)) :]


# Times of training


def training_steps(count: int, trained: int, generator: Generator | None = None) -> Tensor:
    """Times (count,) of a discrete diffusion, each of ``1/trained, 2/trained, …, 1`` as probable as the others."""
    device = None if generator is None else generator.device
    return (torch.randint(trained, (count,), generator=generator, device=device) + 1) / trained


def log_normal_times(count: int, generator: Generator | None = None, mean: float = -1.2, std: float = 1.2) -> Tensor:
    """Standard deviations of noise (count,) whose logarithm is normal (Karras et al. 2022, table 1)."""
    return (mean + std * _normal(count, generator)).exp()


def logit_normal_times(count: int, generator: Generator | None = None, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Times (count,) in (0, 1) whose logit is normal: most in the middle, where the flow is hardest to predict.

    Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024, section 3.1. A
    positive mean favours noise.
    """
    return (mean + std * _normal(count, generator)).sigmoid()


def uniform_times(count: int, generator: Generator | None = None) -> Tensor:
    """Times (count,) in [0, 1), each as probable as the others."""
    device = None if generator is None else generator.device
    return torch.rand(count, generator=generator, device=device)


def _normal(count: int, generator: Generator | None) -> Tensor:
    device = None if generator is None else generator.device
    return torch.randn(count, generator=generator, device=device)
