"""Losses of dense predictions, and the mean of predictions over test-time scales and flips.

Cross-entropy; focal loss (Lin et al., "Focal Loss for Dense Object Detection", 2017, equation 5, over softmax
probabilities); soft Dice (Milletari, Navab and Ahmadi, "V-Net", 2016, without their squares).

Each loss is given as a sum and its divisor for each image, so that a mean over pixels, or over objects, can be taken
over any number of batches. A pixel of the label 255 has no part in any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.contracts.forms import IGNORED


class Term(NamedTuple):
    """Sums of a loss, and what they are to be divided by, for each image of a batch: (B,) each."""

    sums: Tensor
    divisors: Tensor

    @property
    def mean(self) -> Tensor:
        """Over the batch; 0 where nothing counts."""
        return self.sums.sum() / self.divisors.sum().clamp(min=torch.finfo(self.sums.dtype).tiny)

    @property
    def means(self) -> Tensor:
        """Of each image; 0 where nothing counts."""
        return self.sums / self.divisors.clamp(min=torch.finfo(self.sums.dtype).tiny)


def cross_entropy(logits: Tensor, masks: Tensor, weight: Tensor | None = None, gamma: float = 0.0) -> Term:
    """The cross-entropy of pixels, weighted by class; with ``gamma`` the focal loss.

    Args:
        logits: or log-probabilities, (B, K, H, W).
        masks: classes, int64 (B, H, W).
        weight: factor of each class, (K,).
        gamma: exponent of the factor ``(1 - p)`` of a pixel whose class has the probability p.

    Returns:
        Divided by the sum of the pixels' weights, as torch's ``cross_entropy`` is.
    """
    losses = F.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="none")
    factors = masks.ne(IGNORED).to(losses.dtype)
    if weight is not None:
        factors = factors * weight.to(losses.dtype)[masks.clamp(max=len(weight) - 1)]
    if gamma:
        losses = losses * (1 - torch.exp(-losses)).clamp(min=0) ** gamma
    return Term((losses * factors).sum((1, 2)), factors.sum((1, 2)))


def dice(logits: Tensor, masks: Tensor) -> Term:
    """One minus the soft Dice coefficient of each class that an image has, ``2 sum(p g) / (sum(p) + sum(g))``.

    Args:
        logits: or log-probabilities, (B, K, H, W).
        masks: classes, int64 (B, H, W).

    Returns:
        Divided by the number of classes that are in the image.
    """
    classes = torch.arange(logits.shape[1], device=masks.device)[:, None, None]
    truth = masks[:, None] == classes
    shares = logits.softmax(1) * masks.ne(IGNORED)[:, None]
    overlap, pixels = (shares * truth).sum((2, 3)), truth.sum((2, 3))
    coefficients = 2 * overlap / (shares.sum((2, 3)) + pixels).clamp(min=1)
    present = pixels > 0
    return Term(((1 - coefficients) * present).sum(1), present.sum(1).to(logits.dtype))


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, K, h, w) interpolated bilinearly to this height and width."""
    if list(maps.shape[2:]) == list(size):
        return maps
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=False)


def over_views(images: Tensor, scales: Sequence[float], flip: bool, call: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of maps of an image at several scales, each also flipped.

    Args:
        images: (B, C, H, W).
        scales: of the image's sides.
        flip: whether horizontal flips are included.
        call: from images (B, C, h, w) to maps of their size, (B, K, h, w).

    Returns:
        (B, K, H, W)
    """
    size = images.shape[2:]
    maps: list[Tensor] = []
    for scale in scales:
        scaled = [max(1, round(n * scale)) for n in size]
        seen = images if scaled == list(size) else F.interpolate(images, scaled, mode="bilinear", antialias=True)
        maps.append(resized(call(seen), size))
        if flip:
            maps.append(resized(call(seen.flip(-1)).flip(-1), size))
    return maps[0] if len(maps) == 1 else torch.stack(maps).mean(0)
