"""RT-DETR's efficient hybrid encoder. Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection", 2024, section 4.2.

Self-attention within the coarsest feature map (AIFI), then fusion of neighbouring maps by convolutions, from coarse to
fine and back (CCFF, in the first version of the paper CCFM).

Deviation: the two branches of a RepVGG block (Ding et al., "RepVGG", 2021) stay apart in evaluation; the authors merge
them into one convolution, which computes the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TEMPERATURE = 10000.0  # of the positional encoding


class HybridEncoder(nn.Module):
    """Feature maps of a backbone -> fused feature maps of equal width.

    Args:
        channels: of the backbone's feature maps, finest first; each map has half the resolution of the one before.
        width: channels of all fused maps; a multiple of 4 and of the heads.
        heads: number of heads of self-attention.
        mlp_width: hidden width of the layer of self-attention.
        blocks: number of RepVGG blocks in each fusion.

    Shape:
        maps (B, C, H, W), (B, C', H / 2, W / 2), … -> as many maps of these sizes, each with ``width`` channels
    """

    def __init__(self, channels: Sequence[int], width: int, heads: int, mlp_width: int, blocks: int) -> None:
        super().__init__()
        steps = range(len(channels) - 1)
        self.projections = nn.ModuleList(conv_norm(c, width, 1, activation=False) for c in channels)
        self.attention = MapAttention(width, heads, mlp_width)
        self.lateral = nn.ModuleList(conv_norm(width, width, 1) for _ in steps)
        self.down_fusions = nn.ModuleList(Fusion(width, blocks) for _ in steps)
        self.strided = nn.ModuleList(conv_norm(width, width, 3, stride=2) for _ in steps)
        self.up_fusions = nn.ModuleList(Fusion(width, blocks) for _ in steps)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The fused maps, finest first."""
        *finer, coarsest = (project(one) for project, one in zip(self.projections, maps, strict=True))
        to_fine = [self.attention(coarsest)]
        for fine, lateral, fusion in zip(reversed(finer), self.lateral, self.down_fusions, strict=True):
            to_fine[-1] = lateral(to_fine[-1])
            to_fine.append(fusion(F.interpolate(to_fine[-1], fine.shape[2:]), fine))
        fused = [to_fine.pop()]
        for strided, fusion in zip(self.strided, self.up_fusions, strict=True):
            fused.append(fusion(strided(fused[-1]), to_fine.pop()))
        return fused


class MapAttention(nn.Module):
    """AIFI: one layer of a transformer's encoder over the pixels of a feature map, normalised after each sum.

    Shape:
        (B, width, H, W) -> (B, width, H, W)
    """

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, maps: Tensor) -> Tensor:
        """The map after attention of each pixel to all."""
        height, width = maps.shape[2:]
        x = maps.flatten(2).transpose(1, 2)
        placed = x + position_encoding(height, width, maps.shape[1], maps)
        x = self.norm1(x + self.attention(placed, placed, x, need_weights=False)[0])
        x = self.norm2(x + self.mlp(x))
        return x.transpose(1, 2).unflatten(2, (height, width))


def position_encoding(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Sines and cosines of a pixel's column, then of its row, at a quarter of the channels' number of frequencies.

    Returns:
        (height · width, channels), with the dtype and on the device of ``like``
    """
    frequency = TEMPERATURE ** -torch.linspace(0, 1, channels // 4 + 1, device=like.device)[:-1]
    y, x = torch.meshgrid(*(torch.arange(n, device=like.device) for n in (height, width)), indexing="ij")
    parts = [f(place.reshape(-1, 1) * frequency) for place in (x, y) for f in (torch.sin, torch.cos)]
    return torch.cat(parts, 1).to(like)


class Fusion(nn.Module):
    """Fusion block: two maps side by side through RepVGG blocks, and around them through a 1×1 convolution.

    Shape:
        two maps (B, width, H, W) -> (B, width, H, W)
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv_norm(2 * width, width, 1), *(RepVGGBlock(width) for _ in range(blocks)))
        self.around = conv_norm(2 * width, width, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The fused map."""
        both = torch.cat([x, y], 1)
        return self.branch(both) + self.around(both)


class RepVGGBlock(nn.Module):
    """The sum of a 3×3 and a 1×1 convolution, each normalised, and SiLU.

    Shape:
        (B, width, H, W) -> (B, width, H, W)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv3 = conv_norm(width, width, 3, activation=False)
        self.conv1 = conv_norm(width, width, 1, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        """The rectified sum."""
        return F.silu(self.conv3(x) + self.conv1(x))


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, activation: bool = True) -> nn.Sequential:
    """Convolution, batch normalisation and, unless switched off, SiLU."""
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        "norm": nn.BatchNorm2d(outputs),
    }
    return nn.Sequential(OrderedDict(layers | ({"act": nn.SiLU()} if activation else {})))
