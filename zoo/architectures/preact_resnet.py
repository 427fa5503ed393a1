"""PreActResNet. He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks", 2016 (arXiv 1603.05027).

A block computes ``y = F(x) + x`` and nothing after the sum: normalisation and ReLU come before F's convolutions
("full pre-activation", section 4.1), so that signal and gradient pass between any two blocks unchanged, except where
the resolution changes. This is CIFAR's family: three groups of

- pairs of 3×3 convolutions with 16, 32, 64 channels, 6n+2 layers, up to 110;
- bottlenecks (1×1, 3×3, 1×1) with 64, 128, 256 output channels, 9n+2 layers, from 164.

As in the paper's appendix, the first block's activation also precedes its shortcut, the last block is followed by
another activation, and where bottlenecks change the number of channels the shortcut is a 1×1 convolution of the
activated maps; between groups of pairs, it takes every second pixel and pads with channels of zeros (He et al. 2015,
option A).

Deviations and readings: a bottleneck's stride is at its first 1×1 convolution, as in the authors' code. Weights are
initialised with variance 2 / fan-out, as there; the fan-out takes the stride into account, and the first layer, with no
ReLU before it, has 1 / fan-out. The last layer is initialised in the same way, in the authors' code by Torch's default.
Narrower or wider networks (``width``) are not the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from zoo.architectures.base import Architecture, Stage, check_numbers, check_size, scaled
from zoo.architectures.initialisation import Init, initialise
from zoo.architectures.resnet import (
    CIFAR_CHANNELS,
    EXPANSION,
    PaddedShortcut,
    cifar_blocks,
    conv1,
    conv3,
)

DEEPEST_OF_PAIRS = 110  # deeper networks use bottlenecks


class PreActResNet(Architecture):
    """Residual networks with identity skips: 1.7 M parameters at 110 and at 164 layers, 10.3 M at 1001.

    Table 4 says 10.2 M for 1001: without the 149,216 of batch normalisation.

    Args:
        num_classes: length of the output; 0 omits pooling and the linear layer, for a backbone.
        in_channels: channels of the images.
        depth: number of weight layers on the longest path: 6n+2 from 8 to 110, 9n+2 from 119.
        width: factor on every layer's channels; 1.0 as in the paper.
        init: initialisation of the weights, see ``zoo.architectures.initialisation``.
        zero_init_residual: initialise every branch's last convolution with 0, so that each block starts as the
            identity. (Not its last normalisation, as in ResNet: here a ReLU follows, which would block the gradient.)

    Shape:
        images (B, C, H, W) of at least 4×4 pixels, normalised -> logits (B, num_classes), or the last activated feature
        map (B, C', H / 4, W / 4) without classes

    Raises:
        UserError: no network has this depth, a number is out of range, or images are too small.
    """

    example: ClassVar[dict[str, Any]] = {"num_classes": 4, "depth": 8, "width": 0.25}

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        depth: int = 164,
        width: float = 1.0,
        init: Init = "backward",
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        check_numbers("PreActResNet", num_classes, in_channels, width)
        self.name, bottleneck = f"PreActResNet-{depth}", depth > DEEPEST_OF_PAIRS
        blocks = cifar_blocks("PreActResNet", depth, layers=3 if bottleneck else 2)
        widths = [scaled(c, width) for c in CIFAR_CHANNELS]
        self.conv1 = conv3(in_channels, widths[0])
        self.first = _activation(widths[0])
        channels = self._add_groups(blocks, widths, bottleneck)
        self.last = _activation(channels)
        self._stages[-1] = Stage("last", channels, 4)
        self.fc = nn.Linear(channels, num_classes) if num_classes else None
        initialise(self, init, "relu", normalised=True)
        if zero_init_residual:
            for block in self.modules():
                if isinstance(block, PreActBlock):
                    nn.init.zeros_(block.branch[-1].get_parameter("weight"))

    def _add_groups(self, blocks: int, widths: Sequence[int], bottleneck: bool) -> int:
        """``layer1``, ``layer2``, ``layer3``: each at half the resolution of the one before."""
        self.groups, self._stages, channels = ["layer1", "layer2", "layer3"], list[Stage](), widths[0]
        for i, (name, middle) in enumerate(zip(self.groups, widths, strict=True)):
            group = nn.Sequential()
            for k in range(blocks):
                group.append(PreActBlock(channels, middle, 2 if i and not k else 1, bottleneck, first=i + k == 0))
                channels = middle * EXPANSION if bottleneck else middle
            self.add_module(name, group)
            self._stages.append(Stage(name, channels, 2**i))
        return channels

    @property
    def stages(self) -> list[Stage]:
        """The last sum (before activation) of the first two resolutions, and the last activation."""
        return self._stages

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last activated feature map without classes."""
        check_size(self.name, images, 4)
        maps = self.first(self.conv1(images))
        for name in self.groups:
            maps = self.get_submodule(name)(maps)
        maps = self.last(maps)
        return maps if self.fc is None else self.fc(maps.mean((2, 3)))


class PreActBlock(nn.Module):
    """``F(x) + x``; if the shortcut is a convolution, ``F(a) + shortcut(a)``, where a is the activated x.

    Args:
        in_channels: channels of x.
        channels: of the 3×3 convolutions; a bottleneck's last one has four times as many.
        stride: of the first convolution.
        bottleneck: 1×1, 3×3 and 1×1 convolutions, else two of 3×3.
        first: whether x is already activated.

    Attributes:
        before: the activation that branch and shortcut share, else the identity.
        branch: F.
        shortcut: the identity, or what gives x the shape of F(x).

    Shape:
        feature maps (B, in_channels, H, W) -> (B, channels or 4 · channels, H / stride, W / stride)
    """

    def __init__(self, in_channels: int, channels: int, stride: int, bottleneck: bool, first: bool) -> None:
        super().__init__()
        out_channels = channels * EXPANSION if bottleneck else channels
        projected = bottleneck and in_channels != out_channels
        self.before = _activation(in_channels) if projected and not first else nn.Identity()
        self.branch = nn.Sequential() if projected or first else _activation(in_channels)
        for i, conv in enumerate(_convolutions(in_channels, channels, stride, bottleneck)):
            self.branch.extend([*(_activation(conv.in_channels) if i else ()), conv])
        self.shortcut: nn.Module
        if projected:
            self.shortcut = conv1(in_channels, out_channels, stride)
        elif stride > 1 or in_channels != out_channels:
            self.shortcut = PaddedShortcut(out_channels - in_channels, stride)
        else:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The branch's output and the shortcut's, added."""
        x = self.before(x)
        return self.branch(x) + self.shortcut(x)


def _convolutions(in_channels: int, channels: int, stride: int, bottleneck: bool) -> list[nn.Conv2d]:
    if not bottleneck:
        return [conv3(in_channels, channels, stride), conv3(channels, channels)]
    return [conv1(in_channels, channels, stride), conv3(channels, channels), conv1(channels, channels * EXPANSION)]


def _activation(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
