"""Multi-scale deformable attention. Zhu et al., "Deformable DETR", 2021, section 4.1, in plain PyTorch.

A query looks at a few points around its reference box on each feature map. The offsets of these points and their
weights are linear functions of the query; values between pixels are interpolated bilinearly and are 0 outside the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def deformable_attention(values: Sequence[Tensor], places: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of the values at the places.

    Args:
        values: one feature map per level, each (B, heads, C, H, W), of any sizes.
        places: (B, Q, heads, levels, points, 2), x and y relative to the map, in [0, 1] inside it.
        weights: (B, Q, heads, levels, points).

    Returns:
        (B, Q, heads · C)
    """
    batch, queries, heads, levels, points, _ = places.shape
    grids = (2 * places - 1).permute(3, 0, 2, 1, 4, 5).reshape(levels, batch * heads, queries, points, 2)
    sampled = [
        F.grid_sample(value.flatten(0, 1).to(grid.dtype), grid, align_corners=False)
        for value, grid in zip(values, grids, strict=True)
    ]  # each (B · heads, C, Q, points)
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    found = (torch.cat(sampled, -1) * weights).sum(-1)
    return found.reshape(batch, -1, queries).transpose(1, 2)


class DeformableAttention(nn.Module):
    """Deformable cross-attention of queries with reference boxes to feature maps.

    A query's points start on a star around the centre of its box, a direction per head; an offset of ``points`` is
    half the box's side (as in Deformable DETR's iterative box refinement, appendix A.4).

    Args:
        width: channels of queries and feature maps.
        heads: number of heads; divides the width.
        levels: number of feature maps.
        points: number of points per head and map.

    Shape:
        queries (B, Q, width), boxes (B, Q, 4) as cx, cy, w, h in [0, 1], maps (B, width, H, W) -> (B, Q, width)
    """

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self._initialise()

    def _initialise(self) -> None:
        angles = torch.arange(self.heads) * 2 * math.pi / self.heads
        star = torch.stack([angles.cos(), angles.sin()], -1)
        star = star / star.abs().amax(-1, keepdim=True)  # on the border of a square
        far = torch.arange(1, self.points + 1)
        bias = star[:, None, None] * far[:, None].expand(self.levels, -1, -1)
        with torch.no_grad():
            self.offsets.bias.copy_(bias.flatten())
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.weights.bias)
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, boxes: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """What the queries see of the feature maps."""
        shape = *queries.shape[:2], self.heads, self.levels, self.points
        offsets = self.offsets(queries).view(*shape, 2) / self.points
        weights = self.weights(queries).view(*shape[:3], -1).softmax(-1).view(shape)
        centre, side = (part[:, :, None, None, None] for part in boxes.split(2, -1))
        values = [self._heads(self.value(one.flatten(2).transpose(1, 2)), one.shape[2:]) for one in maps]
        found = deformable_attention(values, centre + offsets * side / 2, weights)
        return self.output(found.to(queries.dtype))

    def _heads(self, values: Tensor, size: Sequence[int]) -> Tensor:
        """(B, H · W, width) as (B, heads, width / heads, H, W)."""
        return values.transpose(1, 2).unflatten(1, (self.heads, -1)).unflatten(3, tuple(size))
