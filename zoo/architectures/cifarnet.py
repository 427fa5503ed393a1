"""The small network of fast CIFAR-10 training. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024.

A fixed whitening convolution in front (section 3.2, after tysam-code's hlb-CIFAR10), convolutions that start as the
identity where they can (3.3), and, as in the author's code, batch norm without a learnt scale and with a short memory:
1,972,792 parameters at ten classes.

Deviations: the maximum at the end is over the whole map, which at 32×32 is the paper's 3×3 window, so that any size of
images fits; the numbers of channels have one factor; the whitening's bias is a parameter like any other (the author
trains it in the first 3 of 8 epochs).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, Stage, check_numbers, check_size, scaled
from zoo.architectures.initialisation import Init, initialise

CHANNELS = (64, 256, 256)
SEEN = 5000  # training images that the whitening is computed from
SMALLEST = 9  # pixels: a map of 8×8 after the whitening, halved three times


class CifarNet(Architecture):
    """Whitening, three groups of two convolutions, the maximum over the map, a linear layer without bias.

    Args:
        num_classes: length of the output; 0 leaves out what follows the last group, for a backbone.
        in_channels: channels of the images.
        width: factor on every group's channels.
        init: the paper's (the first filters of each convolution pass their channel on, the others are PyTorch's own;
            the linear layer has standard deviation 1), or one of ``zoo.architectures.initialisation``.

    Attributes:
        wants_images: how many training images it wants to see before its first step, none when it has seen them.

    Shape:
        images (B, C, H, W), normalised, 9×9 or larger -> logits (B, num_classes), or (B, 256 width, H // 8 or one
        less, W likewise) without classes
    """

    example: ClassVar[dict[str, Any]] = {"num_classes": 4, "in_channels": 3, "width": 0.125}
    whitened: Tensor

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, width: float = 1.0, init: Literal["paper", Init] = "paper"
    ) -> None:
        super().__init__()
        check_numbers("CifarNet", num_classes, in_channels, width)
        first, *rest = self.channels = [scaled(n, width) for n in CHANNELS]
        self.whiten = nn.Conv2d(in_channels, 2 * 4 * in_channels, 2)
        self.whiten.weight.requires_grad_(False)
        self.group1 = Group(self.whiten.out_channels, first)
        self.group2 = Group(first, rest[0])
        self.group3 = Group(rest[0], rest[1])
        self.head = nn.Linear(rest[1], num_classes, bias=False) if num_classes else None
        self.register_buffer("whitened", torch.tensor(False))
        if init == "paper":
            self._initialise()
        else:
            initialise(self, init, "gelu", normalised=True)

    def _initialise(self) -> None:
        with torch.no_grad():
            for group in (self.group1, self.group2, self.group3):
                for conv in (group.conv1, group.conv2):
                    nn.init.dirac_(conv.weight[: conv.in_channels])
            if self.head is not None:
                self.head.weight.div_(self.head.weight.std())

    @property
    def wants_images(self) -> int:
        """Training images, normalised, for ``see``."""
        return 0 if self.whitened else SEEN

    def see(self, images: Tensor) -> None:
        """Take the whitening of these images' patches as the first layer's filters; they are kept with the weights.

        Args:
            images: normalised, (N, C, H, W).
        """
        with torch.no_grad():
            self.whiten.weight.copy_(whitening(images))
            self.whitened.fill_(True)

    @property
    def stages(self) -> list[Stage]:
        """The whitening, and each group."""
        groups = [Stage(f"group{i + 1}", n, 2 ** (i + 1)) for i, n in enumerate(self.channels)]
        return [Stage("whiten", self.whiten.out_channels, 1), *groups]

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last group's maps where there are no classes."""
        check_size("CifarNet", images, SMALLEST)
        maps = self.group3(self.group2(self.group1(F.gelu(self.whiten(images)))))
        if self.head is None:
            return maps
        return self.head(F.adaptive_max_pool2d(maps, 1).flatten(1)) / self.head.in_features


class Group(nn.Module):
    """Convolution, half the size, normalisation, GELU; convolution, normalisation, GELU.

    Shape:
        maps (B, in_channels, H, W) -> (B, out_channels, H // 2, W // 2)
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = shift_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = shift_norm(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of half the size."""
        maps = F.gelu(self.norm1(F.max_pool2d(self.conv1(maps), 2)))
        return F.gelu(self.norm2(self.conv2(maps)))


def shift_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with a learnt shift only; its running statistics remember few batches, which a short run needs."""
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


def whitening(images: Tensor, size: int = 2, eps: float = 5e-4, chunk: int = 500) -> Tensor:
    """Filters whose outputs over these images are uncorrelated and of variance about 1; and their negatives.

    The eigenvectors of the second moments of the images' patches, each divided by the root of its eigenvalue.

    Args:
        images: with a mean of about 0, (N, C, H, W).
        size: side of the patches.
        eps: added to the eigenvalues, so that what hardly varies is not blown up.
        chunk: images at a time, which bounds the memory.

    Returns:
        (2 C size², C, size, size), of the images' type and device
    """
    channels = images.shape[1]
    moments, count = torch.zeros(channels * size**2, channels * size**2, dtype=torch.float64), 0
    for part in images.split(chunk):
        patches = F.unfold(part.float(), size).transpose(1, 2).flatten(0, 1)
        moments += (patches.T @ patches).double().cpu()
        count += len(patches)
    values, vectors = torch.linalg.eigh(moments / count)
    filters = (vectors / (values + eps).sqrt()).T.reshape(-1, channels, size, size)
    return torch.cat((filters, -filters)).to(images)
