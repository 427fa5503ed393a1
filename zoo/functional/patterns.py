"""Pictures as functions of their coordinates: where pixels lie, and how a function of them is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

AT_ONCE = 2**16  # pixels per forward pass: 64 MB per layer of 256 units


def places_of(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Coordinates of pixel centres; the longer side goes from -1 to 1, and the image's centre is 0.

    Args:
        pixels: flat indices, row by row from the upper left, (…).
        size: height and width of the image.

    Returns:
        x (to the right) and y (downwards), (…, 2)
    """
    height, width = size
    rows, columns = pixels.div(width, rounding_mode="floor"), pixels % width
    return torch.stack([2 * columns + 1 - width, 2 * rows + 1 - height], -1) / max(height, width)


def grid(size: Sequence[int]) -> Tensor:
    """Coordinates of all pixel centres of an image of this height and width, (H, W, 2)."""
    height, width = size
    return places_of(torch.arange(height * width), size).view(height, width, 2)


@torch.no_grad()
def render(network: nn.Module, size: Sequence[int]) -> Tensor:
    """Render a pattern at any size, in chunks, so that memory does not grow with the size.

    Args:
        network: a pattern.
        size: height and width.

    Returns:
        in [0, 1], (3, H, W), on the CPU
    """
    height, width = size
    made = torch.empty(3, height * width)
    like = next(network.parameters())
    for start, stop in _parts(height * width):
        places = places_of(torch.arange(start, stop, device=like.device), size)
        made[:, start:stop] = network(places.to(like.dtype)).T.cpu()
    return made.view(3, height, width)


def _parts(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE))
