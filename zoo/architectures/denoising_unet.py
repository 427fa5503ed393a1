"""The U-Net of diffusion models.

Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020, appendix B: residual blocks with group
normalisation and Swish, the time added in each, self-attention at one resolution, strided convolutions down, and
convolutions behind an enlargement up. Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021,
section 3: the time and the class scale and shift the normalised maps (adaptive group normalisation), and attention has
several heads. The last convolution of each block, of attention and of the network starts at zero.

Deviations: at least four channels a group of the normalisation, for small widths; with ``patch``, pixels of the image
are first put into channels (Shi et al. 2016), for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, check_numbers
from zoo.architectures.conditioning import TimeAndClass, padded
from zoo.errors import UserError

MakeLayer = Callable[[int, int, int], "Layer"]  # of channels before and after, and the resolution


class DenoisingUNet(Architecture):
    """A U-Net that is told a time and, optionally, a class.

    As it stands it is Ho et al.'s for CIFAR-10, but for ``scale`` and ``heads``; with ``scale: false`` it has their
    35.7 million parameters.

    Args:
        num_classes: 0 for none.
        in_channels: channels of the images.
        width: channels of the finest level; even.
        multipliers: each level's channels, as multiples of the width.
        blocks: residual blocks of a level on the way down; there is one more on the way up.
        attention: the resolutions with self-attention, as image pixels per pixel of the feature map, along one side.
        heads: of self-attention.
        patch: pixels along a side that become channels before the first convolution.
        scale: whether time and class scale the maps and shift them (Dhariwal and Nichol), or only shift them (Ho).
        dropout: in the residual blocks.

    Shape:
        x_t (B, C, H, W), t (B,), labels (B,) or None -> (B, C, H, W)

    Raises:
        UserError: an argument is out of range.
    """

    roles: ClassVar[tuple[str, ...]] = ("denoiser",)
    example: ClassVar[dict[str, Any]] = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "patch": 2}

    def __init__(
        self,
        num_classes: int = 0,
        in_channels: int = 3,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (2,),
        heads: int = 4,
        patch: int = 1,
        scale: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_numbers("DenoisingUNet", num_classes, in_channels, width)
        channels = [width * m for m in multipliers]
        reductions = [patch * 2**level for level in range(len(channels))]
        _check(width, channels, blocks, attention, reductions, heads, patch)
        told = 4 * width
        self.patch = patch
        self.told = TimeAndClass(num_classes, width, told)
        self.first = nn.Conv2d(in_channels * patch**2, width, 3, padding=1)

        def layer(before: int, after: int, reduction: int) -> Layer:
            return Layer(before, after, told, heads if reduction in attention else 0, scale, dropout)

        skips = self._add_down(channels, reductions, blocks, layer)
        last = channels[-1]
        self.middle = Layer(last, last, told, heads, scale, dropout)
        self.end_of_middle = Layer(last, last, told, 0, scale, dropout)
        self._add_up(channels[::-1], reductions[::-1], blocks + 1, layer, skips)
        self.norm, self.last = norm(channels[0]), zeroed(nn.Conv2d(channels[0], in_channels * patch**2, 3, padding=1))

    def _add_down(self, channels: Sequence[int], reductions: Sequence[int], blocks: int, layer: MakeLayer) -> list[int]:
        """Make the way down; returns the channels of all maps that the way up will take."""
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        skips = [self.first.out_channels]
        for after, reduction in zip(channels, reductions, strict=True):
            if len(self.down):
                self.shrink.append(nn.Conv2d(skips[-1], skips[-1], 3, 2, 1))
                skips.append(skips[-1])
            befores = [skips[-1], *(after for _ in range(blocks - 1))]
            self.down.append(nn.ModuleList(layer(before, after, reduction) for before in befores))
            skips += [after] * blocks
        return skips

    def _add_up(
        self, channels: Sequence[int], reductions: Sequence[int], blocks: int, layer: MakeLayer, skips: list[int]
    ) -> None:
        self.up, self.enlarge = nn.ModuleList(), nn.ModuleList()
        last = channels[0]
        for after, reduction in zip(channels, reductions, strict=True):
            if len(self.up):
                self.enlarge.append(nn.Conv2d(last, last, 3, padding=1))
            befores = [last, *(after for _ in range(blocks - 1))]
            self.up.append(nn.ModuleList(layer(before + skips.pop(), after, reduction) for before in befores))
            last = after

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the task trains it to predict."""
        told = F.silu(self.told(t, labels))
        maps = self.first(F.pixel_unshuffle(padded(x_t, self.patch), self.patch))
        skips = [maps]
        for level, layers in enumerate(self.down):
            if level:
                maps = self.shrink[level - 1](maps)
                skips.append(maps)
            for layer in layers:  # type: ignore[attr-defined]  # a list of layers
                maps = layer(maps, told)
                skips.append(maps)
        maps = self.end_of_middle(self.middle(maps, told), told)
        for level, layers in enumerate(self.up):
            if level:
                maps = self.enlarge[level - 1](F.interpolate(maps, skips[-1].shape[2:], mode="nearest"))
            for layer in layers:  # type: ignore[attr-defined]
                maps = layer(torch.cat([maps, skips.pop()], 1), told)
        found = F.pixel_shuffle(self.last(F.silu(self.norm(maps))), self.patch)
        return found[..., : x_t.shape[2], : x_t.shape[3]]


class Layer(nn.Module):
    """A residual block, and self-attention behind it if there are heads."""

    def __init__(self, before: int, after: int, told: int, heads: int, scale: bool, dropout: float) -> None:
        super().__init__()
        self.block = Block(before, after, told, scale, dropout)
        self.attention = SelfAttention(after, heads) if heads else nn.Identity()

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        """Feature maps of the same size."""
        return self.attention(self.block(maps, told))


class Block(nn.Module):
    """Two normalised 3×3 convolutions; what is told scales and shifts, or only shifts, the maps between them."""

    def __init__(self, before: int, after: int, told: int, scale: bool, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(before), nn.Conv2d(before, after, 3, padding=1)
        self.told = nn.Linear(told, 2 * after if scale else after)
        self.norm2, self.dropout = norm(after), nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(after, after, 3, padding=1))
        self.shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        self.scale = scale

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        """Feature maps of the same size."""
        inner, told = self.conv1(F.silu(self.norm1(maps))), self.told(told)[:, :, None, None]
        if self.scale:
            factor, shift = told.chunk(2, 1)
            inner = torch.addcmul(shift, self.norm2(inner), 1 + factor)
        else:
            inner = self.norm2(inner + told)
        return self.shortcut(maps) + self.conv2(self.dropout(F.silu(inner)))


class SelfAttention(nn.Module):
    """Each place of the maps looks at all others; added to the maps."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv = norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps of the same size."""
        split = self.qkv(self.norm(maps)).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-1, -2)
        seen = F.scaled_dot_product_attention(*split.unbind(1))
        return maps + self.out(seen.transpose(-1, -2).reshape(maps.shape))


def norm(channels: int) -> nn.GroupNorm:
    """Normalisation in 32 groups, or in fewer, so that each has four channels."""
    most = max(1, min(32, channels // 4))
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The convolution with weights and bias of zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _check(
    width: int,
    channels: Sequence[int],
    blocks: int,
    attention: Sequence[int],
    reductions: Sequence[int],
    heads: int,
    patch: int,
) -> None:
    if width % 2 or not channels or min(channels) < 1 or blocks < 1 or patch < 1 or heads < 1:
        raise UserError(
            "DenoisingUNet: width must be even; at least one multiplier, and multipliers, blocks, heads and patch at "
            "least 1"
        )
    if other := [a for a in attention if a not in reductions]:
        raise UserError(
            f"DenoisingUNet has no resolution {other[0]}; its levels have {', '.join(map(str, reductions))}"
        )
    looking = {c for c, r in zip(channels, reductions, strict=True) if r in attention} | {channels[-1]}
    if uneven := sorted(c for c in looking if c % heads):
        raise UserError(f"DenoisingUNet: {uneven[0]} channels can't be divided among {heads} heads")
