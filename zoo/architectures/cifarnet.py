"""The small network of fast CIFAR-10 training. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024.

A fixed whitening convolution as the first layer (section 3.2, after tysam-code's hlb-CIFAR10), convolutions initialised
as the identity where possible (3.3), and, as in the author's code, batch norm without a learned scale and with a short
averaging window for its statistics: 1,972,792 parameters at ten classes.

Deviations: the last max pooling is over the whole feature map, which at 32×32 is the paper's 3×3 window, so that any
image size works; one width factor scales all numbers of channels; the whitening's bias is an ordinary parameter (the
author trains it in the first 3 of 8 epochs only).
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
SMALLEST = 9  # pixels: a feature map of 8×8 after the whitening, halved three times


class CifarNet(Architecture):
    """Whitening, three groups of two convolutions, global max pooling, a linear layer without bias.

    Args:
        num_classes: length of the output; 0 omits what follows the last group, for a backbone.
        in_channels: channels of the images.
        width: factor on every group's channels.
        init: the paper's (the first filters of each convolution are the identity, the others PyTorch's default; the
            linear layer has standard deviation 1), or one of ``zoo.architectures.initialisation``.

    Attributes:
        wants_images: number of training images needed before the first step; 0 once ``see`` was called.

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
        """Number of normalised training images to pass to ``see``."""
        return 0 if self.whitened else SEEN

    def see(self, images: Tensor) -> None:
        """Set the first layer's filters to the whitening of these images' patches; they are saved with the weights.

        Args:
            images: normalised, (N, C, H, W).
        """
        with torch.no_grad():
            self.whiten.weight.copy_(whitening(images))
            self.whitened.fill_(True)

    @property
    def stages(self) -> list[Stage]:
        """The whitening and each group."""
        groups = [Stage(f"group{i + 1}", n, 2 ** (i + 1)) for i, n in enumerate(self.channels)]
        return [Stage("whiten", self.whiten.out_channels, 1), *groups]

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last group's feature maps without classes."""
        check_size("CifarNet", images, SMALLEST)
        maps = self.group3(self.group2(self.group1(F.gelu(self.whiten(images)))))
        if self.head is None:
            return maps
        return self.head(F.adaptive_max_pool2d(maps, 1).flatten(1)) / self.head.in_features


class Group(nn.Module):
    """Convolution, 2×2 max pooling, normalisation, GELU; convolution, normalisation, GELU.

    Shape:
        feature maps (B, in_channels, H, W) -> (B, out_channels, H // 2, W // 2)
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = shift_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = shift_norm(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps of half the size."""
        maps = F.gelu(self.norm1(F.max_pool2d(self.conv1(maps), 2)))
        return F.gelu(self.norm2(self.conv2(maps)))


def shift_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with a learned shift only; its running statistics average few batches, which suits short runs."""
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


def whitening(images: Tensor, size: int = 2, eps: float = 5e-4, chunk: int = 500) -> Tensor:
    """Filters whose outputs on these images are uncorrelated with variance about 1, followed by their negatives.

    They are the eigenvectors of the second moments of the images' patches, each divided by the square root of its
    eigenvalue.

    Args:
        images: with a mean of about 0, (N, C, H, W).
        size: side of the patches.
        eps: added to the eigenvalues, so that directions with little variance are not amplified.
        chunk: images processed at a time, to bound memory.

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
