"""Test-time crops ("views") of a batch, and the mean of their softmaxes.

Four corners, the centre and their reflections: Krizhevsky et al. 2012, section 4.1; shifts by a pixel: Jordan 2024
("94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import UserError

Views = Literal["center", "five", "ten", "shifted"]


def at_least_float32(values: Tensor) -> Tensor:
    """Halves as float32, wider types as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def mean_softmax(logits: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Logarithm of the mean of several softmaxes (B, K), computed without leaving the logarithm.

    Args:
        logits: each (B, K).
        weights: of each; left out, all weigh the same.
    """
    each = torch.stack([at_least_float32(one).log_softmax(1) for one in logits])
    share = each.new_tensor([1.0] * len(logits) if weights is None else weights)
    return (each + (share / share.sum()).log()[:, None, None]).logsumexp(0)


def seen_views(
    images: Tensor, size: Sequence[int], views: Views = "center", mirror: bool = True
) -> list[tuple[Tensor, float]]:
    """The views of a batch with their weights: ``crops``, all alike, or the centre and, at half weight, its shifts.

    Args:
        images: (B, C, H, W).
        size: height and width that the network wants.
        mirror: leave reflections out where False.
    """
    if views != "shifted":
        return [(view, 1.0) for view in crops(images, size, views, mirror)]
    (center,) = crops(images, size)
    padded = F.pad(center, (1, 1, 1, 1), mode="reflect")
    shifts = [padded[..., :-2, :-2], padded[..., 2:, 2:]]
    seen = [(center, 1.0), *((shift, 0.5) for shift in shifts)]
    return seen + [(view.flip(-1), weight) for view, weight in seen] if mirror else seen


def crops(images: Tensor, size: Sequence[int], views: Views = "center", mirror: bool = True) -> list[Tensor]:
    """The views of a batch: windows of ``size`` at the centre, the four corners, and their reflections.

    Args:
        images: (B, C, H, W).
        size: height and width of a window; images of exactly this size have only one.
        mirror: leave the reflections of ``ten`` out where False.

    Raises:
        UserError: the images are smaller than the windows.
    """
    (height, width), (h, w) = images.shape[-2:], size
    down, right = height - h, width - w
    if down < 0 or right < 0:
        raise UserError(f"images are {height}×{width}, smaller than the {h}×{w} that the network was made for")
    places = [(down // 2, right // 2)]
    if views != "center" and down + right > 0:
        places += [(0, 0), (0, right), (down, 0), (down, right)]
    seen = [images[..., y : y + h, x : x + w] for y, x in places]
    return seen + [view.flip(-1) for view in seen] if views == "ten" and mirror else seen
