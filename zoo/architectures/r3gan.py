"""A generator and a discriminator of plain residual blocks without normalisation.

Huang, Gokaslan, Kuleshov and Tompkin, "The GAN is dead; long live the GAN! A Modern Baseline GAN", 2024, section 4:
blocks of a 1×1, a grouped 3×3 and a 1×1 convolution with leaky ReLU between them, an inverted bottleneck of twice the
channels, and an initialisation after Fixup (Zhang, Dauphin and Ma 2019), by which each block begins as the identity;
maps are resized by interpolation. The generator begins at, and the discriminator ends in, coarse maps, each weighted by
what is told or seen: a learned basis. The class: an embedding behind the noise, and a projection in the discriminator.

Deviations: interpolation is torch's bilinear one, and halving the mean of 2×2 pixels (the authors' filters are [1, 2,
1]); the number of channels a group is given, so that it holds at any width; images of any size: the generator's
are cropped, the discriminator's extended; with ``patch``, pixels are put into channels (Shi et al. 2016), for speed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, check_numbers
from zoo.architectures.conditioning import padded
from zoo.architectures.generating import ClassEmbedding, WithClass, check_widths, coarsest, cropped
from zoo.errors import UserError

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)
SLOPE, EXPANSION = 0.2, 2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # of leaky ReLU: keeps the variance


class R3GANGenerator(Architecture):
    """Noise to images, by residual blocks and bilinear doublings.

    As it stands it is the authors' for CIFAR-10.

    Args:
        num_classes: 0 for none.
        in_channels: channels of the images.
        image_size: height and width of the images.
        latent: length of the noise, and of the classes' embedding.
        widths: channels of the maps, from the coarsest to those of the images' size.
        patch: pixels along a side that are channels of the finest maps, for speed.
        blocks: residual blocks at each size.
        group_width: channels of a group of the 3×3 convolutions, of twice as many as the maps'.

    Shape:
        z (B, latent), labels (B,) or None -> images about in [-1, 1], (B, in_channels, *image_size)

    Raises:
        UserError: an argument is out of range.
    """

    roles: ClassVar[tuple[str, ...]] = ("generator",)
    example: ClassVar[dict[str, Any]] = {"latent": 6, "widths": [8, 4], "blocks": 1, "group_width": 4}

    def __init__(
        self,
        num_classes: int = 0,
        in_channels: int = 3,
        image_size: Sequence[int] = (32, 32),
        latent: int = 64,
        widths: Sequence[int] = (768, 768, 768, 768),
        blocks: int = 2,
        group_width: int = 16,
        patch: int = 1,
    ) -> None:
        super().__init__()
        check_numbers("R3GANGenerator", num_classes, in_channels, 1)
        _check("R3GANGenerator", widths, blocks, group_width, latent, patch)
        self.image_size, self.latent_shape = list(image_size), (latent,)
        self.told = WithClass(num_classes, latent)
        self.patch, reduction = patch, patch * 2 ** (len(widths) - 1)
        self.basis = nn.Parameter(torch.randn(widths[0], *coarsest(image_size, reduction)))
        self.first = scaled(nn.Linear(self.told.size, widths[0], bias=False))
        self.levels = nn.ModuleList(_level(width, blocks, group_width, blocks * len(widths)) for width in widths)
        self.doublings = nn.ModuleList(_resized(before, after) for before, after in pairwise(widths))
        self.last = scaled(nn.Conv2d(widths[-1], in_channels * patch**2, 1, bias=False))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images, cropped to their size where that is no multiple of the coarsest maps'."""
        maps = self.basis * self.first(self.told(z, labels))[:, :, None, None]
        maps = self.levels[0](maps)
        for change, level in zip(self.doublings, self.levels[1:], strict=True):
            maps = level(F.interpolate(change(maps), scale_factor=2, mode="bilinear"))
        return cropped(F.pixel_shuffle(self.last(maps), self.patch), self.image_size)


class R3GANDiscriminator(Architecture):
    """Images to a score, by residual blocks and halvings.

    As it stands it is the authors' for CIFAR-10.

    Args:
        num_classes: 0 for none.
        in_channels: channels of the images.
        image_size: height and width of the images.
        embedding: length of the classes' embedding.
        widths: channels of the maps, from those of the images' size to the coarsest.
        patch: pixels along a side that become channels of the finest maps, for speed.
        blocks: residual blocks at each size.
        group_width: channels of a group of the 3×3 convolutions, of twice as many as the maps'.

    Shape:
        images in [-1, 1], (B, in_channels, *image_size), labels (B,) or None -> (B, 1)

    Raises:
        UserError: an argument is out of range.
    """

    roles: ClassVar[tuple[str, ...]] = ("discriminator",)
    example: ClassVar[dict[str, Any]] = {"embedding": 6, "widths": [4, 8], "blocks": 1, "group_width": 4}

    def __init__(
        self,
        num_classes: int = 0,
        in_channels: int = 3,
        image_size: Sequence[int] = (32, 32),
        embedding: int = 64,
        widths: Sequence[int] = (768, 768, 768, 768),
        blocks: int = 2,
        group_width: int = 16,
        patch: int = 1,
    ) -> None:
        super().__init__()
        check_numbers("R3GANDiscriminator", num_classes, in_channels, 1)
        _check("R3GANDiscriminator", widths, blocks, group_width, embedding, patch)
        self.first = scaled(nn.Conv2d(in_channels * patch**2, widths[0], 1, bias=False))
        self.levels = nn.ModuleList(_level(width, blocks, group_width, blocks * len(widths)) for width in widths)
        self.halvings = nn.ModuleList(_resized(before, after) for before, after in pairwise(widths))
        self.patch, self.reduction = patch, patch * 2 ** (len(widths) - 1)
        kernel = coarsest(image_size, self.reduction)
        self.basis = scaled(nn.Conv2d(widths[-1], widths[-1], kernel, groups=widths[-1], bias=False))
        self.last = scaled(nn.Linear(widths[-1], embedding if num_classes else 1, bias=False))
        self.told = ClassEmbedding(num_classes, embedding, 1 / math.sqrt(embedding))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Scores, higher for what looks real; without a class, by the mean of the classes' embeddings."""
        maps = self.levels[0](self.first(F.pixel_unshuffle(padded(images, self.reduction), self.patch)))
        for change, level in zip(self.halvings, self.levels[1:], strict=True):
            maps = level(change(F.avg_pool2d(maps, 2)))
        found = self.last(self.basis(maps).flatten(1))
        table = self.told.table
        if labels is None:
            return found if table is None else (found * table.weight.mean(0)).sum(1, keepdim=True)
        return (found * self.told(labels)).sum(1, keepdim=True)


class Block(nn.Module):
    """A residual block: 1×1, grouped 3×3, 1×1, with biased leaky ReLU between.

    Args:
        width: channels of the maps.
        group_width: channels of a group of the 3×3 convolution.
        depth: residual blocks of the whole network, by which the initial weights are scaled.
    """

    def __init__(self, width: int, group_width: int, depth: int) -> None:
        super().__init__()
        inner, gain = EXPANSION * width, GAIN * depth ** (-1 / 4)  # 1 / (2 m - 2) for the three layers
        self.conv1 = scaled(nn.Conv2d(width, inner, 1), gain)
        self.conv2 = scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group_width), gain)
        self.conv3 = scaled(nn.Conv2d(inner, width, 1, bias=False), 0)

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps of the same size."""
        inner = F.leaky_relu(self.conv1(maps), SLOPE)
        return maps + self.conv3(F.leaky_relu(self.conv2(inner), SLOPE))


def scaled(layer: Layer, gain: float = 1.0) -> Layer:
    """The layer with normal weights that multiply a signal's standard deviation by the gain, and no bias."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _level(width: int, blocks: int, group_width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width, group_width, depth) for _ in range(blocks)))


def _resized(before: int, after: int) -> nn.Module:
    """What changes the number of channels where maps are resized."""
    return nn.Identity() if before == after else scaled(nn.Conv2d(before, after, 1, bias=False))


def _check(name: str, widths: Sequence[int], blocks: int, group_width: int, size: int, patch: int) -> None:
    check_widths(name, widths, size)
    if min(blocks, group_width, patch) < 1:
        raise UserError(f"{name}: blocks, group_width and patch must be at least 1")
    if uneven := [width for width in widths if EXPANSION * width % group_width]:
        raise UserError(f"{name}: {EXPANSION * uneven[0]} channels can't be divided into groups of {group_width}")
