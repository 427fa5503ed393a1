"""How denoisers are told the time and the class, and sides that are no multiple of a step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import UserError

UNITS = 1000  # positions in a time of 1: DDPM's steps


def sinusoids(t: Tensor, size: int, longest: float = 10_000.0) -> Tensor:
    """Cosines and sines of times (B,) in ``size // 2`` frequencies each, (B, size).

    The embedding of positions of Vaswani et al. (2017), for the position ``1000 t`` (Ho et al. 2020, appendix B).
    """
    half = size // 2
    frequencies = torch.exp(-math.log(longest) / half * torch.arange(half, device=t.device, dtype=torch.float32))
    angles = UNITS * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


class TimeAndClass(nn.Module):
    """The sum of an embedding of the time, by two layers, and one of the class.

    Args:
        num_classes: 0 for a network without classes; else the embedding has one more, the last, for "no class".
        frequencies: size of the time's sinusoids; even.
        size: of the result.

    Shape:
        times (B,), labels (B,) up to and with num_classes, or None for "no class" -> (B, size)
    """

    def __init__(self, num_classes: int, frequencies: int, size: int) -> None:
        super().__init__()
        self.num_classes, self.frequencies = num_classes, frequencies
        self.time = nn.Sequential(nn.Linear(frequencies, size), nn.SiLU(), nn.Linear(size, size))
        self.label = nn.Embedding(num_classes + 1, size) if num_classes else None

    def forward(self, t: Tensor, labels: Tensor | None) -> Tensor:
        """The embedding.

        Raises:
            UserError: labels for a network without classes.
        """
        time = self.time(sinusoids(t, self.frequencies).to(next(self.time.parameters()).dtype))
        if self.label is None:
            if labels is not None:
                raise UserError("labels were given to a network without classes: build it with num_classes")
            return time
        if labels is None:
            labels = torch.full_like(t, self.num_classes, dtype=torch.long)
        return time + self.label(labels)


def padded(x: Tensor, step: int) -> Tensor:
    """The images (B, C, H, W), extended at the right and the bottom by their last pixels to sides that step divides."""
    height, width = x.shape[2:]
    missing = (-width % step, -height % step)
    return F.pad(x, (0, missing[0], 0, missing[1]), mode="replicate") if any(missing) else x
