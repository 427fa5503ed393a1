"""SqueezeNet. Iandola, Han, Moskewicz, Ashraf, Dally and Keutzer, "SqueezeNet: AlexNet-level accuracy with 50x fewer
parameters and <0.5MB model size", arXiv 1602.07360, 2016.

Version 1.0 is the paper's table 1; 1.1 is the authors' later one, with 2.4 times less computation: a smaller first
filter and earlier pooling.

Deviation: weights are initialised as in He et al. 2015 for ReLUs (``init: forward``); the authors' files have Glorot's,
and N(0, 0.01) for the last convolution.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo import Architecture
from zoo.architectures.base import Stage
from zoo.architectures.initialisation import Init, initialise
from zoo.errors import UserError


class _Plan(NamedTuple):
    filters: int
    kernel: int
    pooled: tuple[int, ...]  # the layers followed by pooling


PLANS = {"1.0": _Plan(96, 7, pooled=(1, 4, 8)), "1.1": _Plan(64, 3, pooled=(1, 3, 5))}
SQUEEZED = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}  # table 1's s1x1; the two e's are 4 times that
EXPANSION = 4


class SqueezeNet(Architecture):
    """A convolution, eight fire modules and a convolution to the classes; no fully connected layer.

    1,248,424 parameters in version 1.0, 1,235,496 in version 1.1, at 1,000 classes and three channels.

    Args:
        num_classes: length of the output; 0 omits the last convolution, for a backbone.
        in_channels: channels of the images.
        version: the paper's 1.0, or 1.1; quoted in a recipe.
        dropout: before the last convolution.
        init: see ``zoo.architectures.initialisation.initialise``.

    Shape:
        images (B, C, H, W), normalised, of at least 17 pixels (1.0: 21) -> logits (B, num_classes),
        or the last feature map (B, 512, H', W') without classes

    Raises:
        UserError: a value is out of range, or an image is too small.
    """

    example: ClassVar[dict[str, Any]] = {"num_classes": 4}

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        version: Literal["1.0", "1.1"] = "1.1",
        dropout: float = 0.5,
        init: Init = "forward",
    ) -> None:
        super().__init__()
        if num_classes < 0 or in_channels < 1 or not 0 <= dropout < 1:
            raise UserError("SqueezeNet: num_classes from 0, in_channels from 1, dropout from 0 to below 1")
        plan = PLANS[version]
        self.layers = nn.Sequential()
        self._stages: list[Stage] = []
        self._build_layers(in_channels, plan)
        self.smallest = _smallest(plan)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(self.channels, num_classes, 1) if num_classes else None
        initialise(self, init, "relu")

    def _build_layers(self, channels: int, plan: _Plan) -> None:
        reduction = 2
        self.layers.add_module("conv1", nn.Conv2d(channels, plan.filters, plan.kernel, stride=2))
        self.layers.add_module("act1", nn.ReLU(inplace=True))
        channels, name = plan.filters, "act1"
        for i in range(1, 10):
            if i > 1:
                name = f"fire{i}"
                self.layers.add_module(name, Fire(channels, SQUEEZED[i]))
                channels = 2 * EXPANSION * SQUEEZED[i]
            if i in plan.pooled:
                self._stages.append(Stage(f"layers.{name}", channels, reduction))
                self.layers.add_module(f"pool{i}", nn.MaxPool2d(3, 2, ceil_mode=True))
                reduction *= 2
        self._stages.append(Stage(f"layers.{name}", channels, reduction))
        self.channels = channels

    @property
    def stages(self) -> list[Stage]:
        """The last layer at each resolution, before each pooling."""
        return self._stages

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last feature map without classes."""
        if min(images.shape[-2:]) < self.smallest:
            height, width = images.shape[-2:]
            raise UserError(f"SqueezeNet needs images of at least {self.smallest} pixels a side, not {height}×{width}")
        maps = self.layers(images)
        if self.classifier is None:
            return maps
        return torch.relu(self.classifier(self.dropout(maps))).mean((2, 3))  # section 3.1: no fully connected layer


class Fire(nn.Module):
    """Section 3.2: 1×1 filters squeeze the channels, then 1×1 and 3×3 filters expand them side by side.

    Args:
        channels: of the input.
        squeezed: filters of the squeeze layer.

    Shape:
        (B, channels, H, W) -> (B, 8 * squeezed, H, W)
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1 = nn.Conv2d(squeezed, EXPANSION * squeezed, 1)
        self.expand3 = nn.Conv2d(squeezed, EXPANSION * squeezed, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps of the same size."""
        squeezed = torch.relu(self.squeeze(maps))
        return torch.relu(torch.cat([self.expand1(squeezed), self.expand3(squeezed)], 1))


def _smallest(plan: _Plan) -> int:
    """The smallest side for which the last pooling gets two pixels; each pooling halves, rounding up."""
    return 2 * (2 ** len(plan.pooled) - 1) + plan.kernel
