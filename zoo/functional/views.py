"""Test-time crops ("views") of a batch, and the mean of their softmaxes.

Four corners, the centre and their horizontal flips: Krizhevsky et al. 2012, section 4.1; shifts by a pixel: Jordan 2024
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
    """Half precision as float32, other types unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def mean_softmax(logits: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Logarithm of the mean of several softmaxes (B, K), computed in log space.

    Args:
        logits: each (B, K).
        weights: one per element of logits; by default equal.
    """
    each = torch.stack([at_least_float32(one).log_softmax(1) for one in logits])
    share = each.new_tensor([1.0] * len(logits) if weights is None else weights)
    return (each + (share / share.sum()).log()[:, None, None]).logsumexp(0)


def seen_views(
    images: Tensor, size: Sequence[int], views: Views = "center", mirror: bool = True
) -> list[tuple[Tensor, float]]:
    """The test-time crops of a batch with their weights: equal for ``crops``; half for the shifts of the centre crop.

    Args:
        images: (B, C, H, W).
        size: height and width that the network takes.
        mirror: whether to include horizontal flips.
    """
    if views != "shifted":
        return [(view, 1.0) for view in crops(images, size, views, mirror)]
    (center,) = crops(images, size)
    padded = F.pad(center, (1, 1, 1, 1), mode="reflect")
    shifts = [padded[..., :-2, :-2], padded[..., 2:, 2:]]
    seen = [(center, 1.0), *((shift, 0.5) for shift in shifts)]
    return seen + [(view.flip(-1), weight) for view, weight in seen] if mirror else seen


def crops(images: Tensor, size: Sequence[int], views: Views = "center", mirror: bool = True) -> list[Tensor]:
    """The test-time crops of a batch: of ``size`` at the centre and the four corners, and their horizontal flips.

    Args:
        images: (B, C, H, W).
        size: height and width of a crop; images of exactly this size have only one.
        mirror: whether ``ten`` includes horizontal flips.

    Raises:
        UserError: the images are smaller than the crops.
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
