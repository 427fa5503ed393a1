"""LeNet-5. LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998, II.B.

Layers C1, S2, C3, S4, C5 and F6 as in the paper, with its connection table, its trainable subsampling and its scaled
tanh: 60,000 parameters. Weights are initialised as in appendix A, uniform within 2.4 / fan-in (``init: paper``).

Deviations: the output is a linear layer of logits, for the cross-entropy, not distances to the paper's ten fixed
bitmaps (850 parameters more at ten classes). Subsampling uses the same scaled tanh as the other layers; the paper says
a sigmoid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, Stage
from zoo.architectures.initialisation import Init, initialise, weight_layers
from zoo.errors import UserError

# Table I: the channels of S2 that each of C3's 16 channels is connected to.
TABLE = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class LeNet(Architecture):
    """LeNet-5: two convolutions with subsampling, a third over the whole feature map, two linear layers.

    Args:
        num_classes: length of the output; 0 omits C5 and what follows, for a backbone.
        in_channels: channels of the images.
        image_size: height and width of the images; the paper centres 28×28 digits in 32×32.
        init: the paper's, or one of ``zoo.architectures.initialisation`` for C1, C5, F6 and the output, assuming a
            variance of 1 before each, for which the scaled tanh is designed; C3 and the subsampling always use the
            paper's.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes), or the feature maps of S4 (B, 16, H', W') without
        classes

    Raises:
        UserError: the image is smaller than 16×16, or a number is out of range.
    """

    example: ClassVar[dict[str, Any]] = {"num_classes": 4, "in_channels": 1, "image_size": [32, 32]}

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: Sequence[int] = (32, 32),
        init: Literal["paper", Init] = "paper",
    ) -> None:
        super().__init__()
        if len(image_size) != 2 or min(image_size) < 16:
            raise UserError(f"LeNet needs an image_size of at least 16×16 pixels, not {list(image_size)}")
        if num_classes < 0 or in_channels < 1:
            raise UserError("LeNet: num_classes must be at least 0 and in_channels at least 1")
        # Twice: a 5×5 filter removes 4 pixels, then pooling halves.
        height, width = (((n - 4) // 2 - 4) // 2 for n in image_size)
        self.c1 = nn.Sequential(nn.Conv2d(in_channels, 6, 5), ScaledTanh())
        self.s2 = Subsampling(6)
        self.c3 = nn.Sequential(TableConv2d(6, TABLE, 5), ScaledTanh())
        self.s4 = Subsampling(16)
        self.map_size = (height, width)
        self.classifier = _head(self.map_size, num_classes) if num_classes else None
        if init != "paper":
            initialise(self, init, "scaled_tanh", normalised=True)
            return
        for layer in weight_layers(self):
            _initialise(layer.weight, layer.weight[0].numel(), layer.bias)

    @property
    def stages(self) -> list[Stage]:
        """The last layer at each resolution."""
        return [Stage("c1", 6, 1), Stage("c3", 16, 2), Stage("s4", 16, 4)]

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the feature maps of S4 without classes."""
        maps = self.s4(self.c3(self.s2(self.c1(images))))
        if self.classifier is None:
            return maps
        if maps.shape[-2:] != self.map_size:
            height, width = images.shape[-2:]
            raise UserError(f"images are {height}×{width}, which is not the image_size that this LeNet was built for")
        return self.classifier(maps)


def _head(size: tuple[int, int], num_classes: int) -> nn.Sequential:
    c5, f6 = nn.Conv2d(16, 120, size), nn.Linear(120, 84)
    return nn.Sequential(c5, ScaledTanh(), nn.Flatten(), f6, ScaledTanh(), nn.Linear(84, num_classes))


class ScaledTanh(nn.Module):
    """``A tanh(S a)`` with A = 1.7159 and S = 2/3, so that 1 maps to 1 and -1 to -1 (equation 6, appendix A)."""

    def forward(self, a: Tensor) -> Tensor:
        """Values of the same shape."""
        return 1.7159 * torch.tanh(2 / 3 * a)


class Subsampling(nn.Module):
    """The sum over windows of 2×2, times a trainable coefficient, plus a trainable bias, then the scaled tanh.

    Shape:
        feature maps (B, C, H, W) -> (B, C, H // 2, W // 2)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.squash = ScaledTanh()
        _initialise(self.coefficient, 4)

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps of half the size."""
        total = 4 * F.avg_pool2d(maps, 2)
        return self.squash(total * self.coefficient.view(-1, 1, 1) + self.bias.view(-1, 1, 1))


class TableConv2d(nn.Module):
    """A convolution whose output channels use some of the input channels; only connected filters are parameters.

    Args:
        in_channels: number of input channels.
        table: for each output channel, the input channels that it uses.
        kernel: side of the filters.

    Shape:
        feature maps (B, in_channels, H, W) -> (B, len(table), H - kernel + 1, W - kernel + 1)
    """

    places: Tensor

    def __init__(self, in_channels: int, table: Sequence[Sequence[int]], kernel: int) -> None:
        super().__init__()
        self.shape = (len(table), in_channels, kernel, kernel)
        places = torch.tensor([out * in_channels + one for out, seen in enumerate(table) for one in seen])
        self.register_buffer("places", places, persistent=False)
        self.weight = nn.Parameter(torch.empty(len(places), kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(len(table)))
        fan_in = torch.tensor([len(seen) * kernel**2 for seen in table for _ in seen]).view(-1, 1, 1)
        _initialise(self.weight, fan_in)

    def forward(self, maps: Tensor) -> Tensor:
        """An ordinary convolution, with zeros for the missing connections."""
        out, into, kernel, _ = self.shape
        dense = self.weight.new_zeros(out * into, kernel, kernel).index_copy(0, self.places, self.weight)
        return F.conv2d(maps, dense.view(self.shape), self.bias)


def _initialise(weight: Tensor, fan_in: int | Tensor, bias: Tensor | None = None) -> None:
    with torch.no_grad():
        weight.uniform_(-1, 1).mul_(2.4 / fan_in)
        if bias is not None:
            bias.zero_()
