"""Augmentation of all that a discriminator sees, through which gradients reach the generator.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020: with few images, a discriminator
learns them by heart; augmenting the real ones alone would teach the generator the augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SHIFT, CUT = 1 / 8, 1 / 2  # shares of a side, at most and exactly


def augmented(images: Tensor, kinds: Sequence[str]) -> Tensor:
    """Images (B, C, H, W) with the kinds of augmentation one after the other, drawn anew for each image.

    Args:
        images: in [-1, 1]; colour may lead beyond.
        kinds: of ``KINDS``.
    """
    for kind in kinds:
        images = KINDS[kind](images)
    return images


def colour(images: Tensor) -> Tensor:
    """Brightness shifted by up to 0.5, saturation times 0 to 2, contrast times 0.5 to 1.5."""
    drawn = torch.rand(3, len(images), 1, 1, 1, dtype=images.dtype, device=images.device)
    brightness, saturation, contrast = drawn
    images = images + brightness - 0.5
    images = torch.lerp(images.mean(1, keepdim=True), images, 2 * saturation)
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, 0.5 + contrast)


def translation(images: Tensor) -> Tensor:
    """Moved by whole pixels, up to an eighth of each side; what comes in is 0."""
    for dim in (2, 3):
        side = images.shape[dim]
        most = int(SHIFT * side + 0.5)
        source = _places(images, dim) + _integers(images, -most, most)
        inside = _along(dim, (source >= 0) & (source < side))
        images = images.gather(dim, _along(dim, source.clamp(0, side - 1)).expand_as(images)) * inside
    return images


def cutout(images: Tensor) -> Tensor:
    """A rectangle of half each side is 0; its centre is anywhere in the image, so that it may be partly outside."""
    hit = []
    for dim in (2, 3):
        side = images.shape[dim]
        size = int(CUT * side + 0.5)
        first = _integers(images, 0, side - size % 2) - size // 2
        places = _places(images, dim)
        hit.append(_along(dim, (places >= first) & (places < first + size)))
    return images * ~(hit[0] & hit[1])


KINDS = {"colour": colour, "translation": translation, "cutout": cutout}


def _integers(images: Tensor, low: int, high: int) -> Tensor:
    """One for each image, (B, 1), from low to high."""
    return torch.randint(low, high + 1, (len(images), 1), device=images.device)


def _places(images: Tensor, dim: int) -> Tensor:
    return torch.arange(images.shape[dim], device=images.device)


def _along(dim: int, values: Tensor) -> Tensor:
    """Values (B, side) as an axis of images, (B, 1, side, 1) or (B, 1, 1, side)."""
    return values[:, None, :, None] if dim == 2 else values[:, None, None]
