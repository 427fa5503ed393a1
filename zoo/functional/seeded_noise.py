"""Gaussian noise from given generators, and interpolation between two noises."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

Randomness = Generator | Sequence[Generator]


def normal_like(x: Tensor, generator: Randomness | None) -> Tensor:
    """Standard normal noise of a batch's shape, type and device.

    Args:
        x: (B, ...).
        generator: one for the batch, or one for each sample, so that a sample's noise does not depend on its batch;
            drawn on its own device, so that a CPU generator gives the same on every device. None for torch's own.
    """
    if isinstance(generator, Sequence):
        drawn = torch.stack([_normal(x.shape[1:], x.dtype, one) for one in generator])
        return drawn.to(x.device)
    if generator is None:
        return torch.randn_like(x)
    return _normal(x.shape, x.dtype, generator).to(x.device)


def _normal(shape: torch.Size, dtype: torch.dtype, generator: Generator) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=generator, device=generator.device)


def slerp(a: Tensor, b: Tensor, weight: float | Tensor) -> Tensor:
    """Spherical interpolation between noises, sample by sample: it keeps a Gaussian's norm where a mean shrinks it.

    Shoemake, "Animating Rotation with Quaternion Curves", 1985; the lengths are interpolated linearly.

    Args:
        a: (B, ...), the result at weight 0, to the last bit.
        b: like a, the result at weight 1, likewise.
        weight: in [0, 1]; one, or one for each sample, (B,).
    """
    weight = torch.as_tensor(weight, dtype=a.dtype, device=a.device).view(-1, 1)
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    length_a, length_b = flat_a.norm(dim=1, keepdim=True), flat_b.norm(dim=1, keepdim=True)
    unit_a, unit_b = flat_a / length_a, flat_b / length_b
    angle = (unit_a * unit_b).sum(1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin().clamp(min=torch.finfo(a.dtype).tiny)
    turned = ((1 - weight) * angle).sin() / sine * unit_a + (weight * angle).sin() / sine * unit_b
    straight = torch.lerp(unit_a, unit_b, weight)
    unit = torch.where(angle < 1e-4, straight, turned)
    found = torch.lerp(length_a, length_b, weight) * unit
    return torch.where(weight == 0, flat_a, torch.where(weight == 1, flat_b, found)).view_as(a)
