"""Images larger than a network's input: overlapping windows, and mirrored borders.

Ronneberger et al. 2015 (figure 2) extend images by mirroring; the weights of overlapping windows fall linearly towards
their borders, so that no seam is seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TOGETHER = 8  # windows of an image that are computed as one batch


def mirrored(images: Tensor, vertical: tuple[int, int], horizontal: tuple[int, int]) -> Tensor:
    """Images extended by mirroring at their border pixels, as often as needed.

    Args:
        images: (..., H, W).
        vertical: pixels above and below.
        horizontal: pixels at the left and right.
    """
    for dim, (before, after) in ((-2, vertical), (-1, horizontal)):
        if before or after:
            images = images.index_select(dim, _mirror_places(images.shape[dim], before, after, images.device))
    return images


def _mirror_places(side: int, before: int, after: int, device: torch.device) -> Tensor:
    period = max(1, 2 * (side - 1))
    places = torch.arange(-before, side + after, device=device).abs() % period
    return torch.minimum(places, period - places).clamp(max=side - 1)


def window_starts(side: int, window: int, overlap: float) -> list[int]:
    """Where the fewest evenly spaced windows start that cover a side and overlap by at least this share.

    Args:
        side: pixels.
        window: pixels, at most ``side``.
        overlap: share of a window, from 0 up to, but not including, 1.
    """
    stride = max(1, math.floor(window * (1 - overlap)))
    steps = math.ceil((side - window) / stride)
    return [round(i * (side - window) / max(1, steps)) for i in range(steps + 1)]


def over_windows(images: Tensor, size: Sequence[int], overlap: float, call: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of maps of overlapping windows; of images that are smaller, of the image extended by mirroring.

    Args:
        images: (B, C, H, W).
        size: height and width of a window.
        overlap: least share of a window that the next one covers, too.
        call: from windows (N, C, *size) to maps of their size, (N, K, *size).

    Returns:
        (B, K, H, W)
    """
    height, width = images.shape[2:]
    down, right = (max(0, wanted - side) for side, wanted in zip((height, width), size, strict=True))
    images = mirrored(images, (0, down), (0, right))
    h, w = images.shape[2:]
    places = [(y, x) for y in window_starts(h, size[0], overlap) for x in window_starts(w, size[1], overlap)]
    weight = _falling(size[0], images)[:, None] * _falling(size[1], images)
    total, weights = None, images.new_zeros(h, w)
    for first in range(0, len(places), TOGETHER):
        some = places[first : first + TOGETHER]
        maps = call(torch.cat([images[..., y : y + size[0], x : x + size[1]] for y, x in some]))
        total = maps.new_zeros(len(images), maps.shape[1], h, w) if total is None else total
        for (y, x), found in zip(some, maps.split(len(images)), strict=True):
            total[..., y : y + size[0], x : x + size[1]] += found * weight
            weights[y : y + size[0], x : x + size[1]] += weight
    assert total is not None
    return (total / weights)[..., :height, :width]


def _falling(side: int, like: Tensor) -> Tensor:
    """A triangle above zero, (side,)."""
    places = torch.arange(1, side + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(places, side + 1 - places)
