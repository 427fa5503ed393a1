"""ResNet. He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", 2016 (arXiv 1512.03385).

A block computes ``y = relu(F(x) + x)``: its layers F learn the difference from the identity. Two families:

- CIFAR's (section 4.2): 6n+2 layers, three groups of n blocks with 16, 32 and 64 channels; where the channels double,
  the shortcut takes every second pixel and pads with channels of zeros (option A), so that it has no parameters;
- ImageNet's (table 1): four groups; where the channels change, the shortcut is a 1×1 convolution (option B).

Deviations:
- A bottleneck's stride is at its 3×3 convolution, as in torchvision and fb.resnet.torch ("ResNet v1.5"); the paper has
  it at the first 1×1.
- Weights are initialised with variance 2 / fan-out as in torchvision and fb.resnet.torch, but the fan-out takes the
  stride into account; the paper refers to He et al. 2015, which allows fan-in as well. The last layer is initialised
  in the same way, the first with 1 / fan-out, since no ReLU precedes it.
- Narrower or wider networks (``width``) are not the paper's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, Stage, check_numbers, check_size, scaled
from zoo.architectures.initialisation import Init, initialise
from zoo.errors import UserError

CIFAR_CHANNELS = (16, 32, 64)
IMAGENET_CHANNELS = (64, 128, 256, 512)
IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BOTTLENECKS = (50, 101, 152)
EXPANSION = 4  # of a bottleneck's last convolution


class ResNet(Architecture):
    """The residual networks of CIFAR (20, 32, 44, 56, 110, 1202, any 6n+2) and of ImageNet (18, 34, 50, 101, 152).

    ``load_state_dict`` accepts the weights of torchvision's ResNets directly, at the depths that torchvision has.

    Args:
        num_classes: length of the output; 0 omits pooling and the linear layer, for a backbone.
        in_channels: channels of the images.
        depth: number of weight layers on the longest path. 18, 34, 50, 101 and 152 are ImageNet's (50 and 152 are of
            the form 6n+2, too, but always ImageNet's), any other 6n+2 from 8 is CIFAR's.
        width: factor on every layer's channels; 1.0 as in the paper.
        init: initialisation of the weights, see ``zoo.architectures.initialisation``.
        zero_init_residual: initialise every branch's last normalisation with weight 0, so that each block starts as the
            identity (Goyal et al. 2017, section 5.1).

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes), or the last feature map without classes: a quarter
        of the image's size in CIFAR's networks, a 32nd in ImageNet's. Images are at least 4 or 32 pixels, respectively.

    Raises:
        UserError: no network has this depth, a number is out of range, or images are too small.
    """

    example: ClassVar[dict[str, Any]] = {"num_classes": 4, "depth": 8, "width": 0.25}

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        depth: int = 50,
        width: float = 1.0,
        init: Init = "backward",
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        check_numbers("ResNet", num_classes, in_channels, width)
        blocks = IMAGENET_BLOCKS.get(depth) or (cifar_blocks("ResNet", depth, others=tuple(IMAGENET_BLOCKS)),) * 3
        imagenet = depth in IMAGENET_BLOCKS
        widths = [scaled(c, width) for c in (IMAGENET_CHANNELS if imagenet else CIFAR_CHANNELS)]
        self.name = f"ResNet-{depth}"
        self.conv1 = (
            nn.Conv2d(in_channels, widths[0], 7, 2, 3, bias=False) if imagenet else conv3(in_channels, widths[0])
        )
        self.bn1, self.relu = nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        self._stages = [Stage("relu", widths[0], 2)] if imagenet else []
        channels = self._add_groups(blocks, widths, depth in BOTTLENECKS, imagenet)
        self.fc = nn.Linear(channels, num_classes) if num_classes else None
        initialise(self, init, "relu", normalised=True)
        if zero_init_residual:
            for block in self.modules():
                if isinstance(block, Block):
                    nn.init.zeros_(block.branch[-1].get_parameter("weight"))

    def _add_groups(self, blocks: Sequence[int], widths: Sequence[int], bottleneck: bool, imagenet: bool) -> int:
        """``layer1``, ``layer2``, …: groups of blocks, each at half the resolution of the one before."""
        self.groups, channels = [f"layer{i + 1}" for i in range(len(blocks))], widths[0]
        for i, (name, count, middle) in enumerate(zip(self.groups, blocks, widths, strict=True)):
            group = nn.Sequential()
            for k in range(count):
                group.append(Block(channels, middle, 2 if i and not k else 1, bottleneck, projected=imagenet))
                channels = middle * EXPANSION if bottleneck else middle
            self.add_module(name, group)
            self._stages.append(Stage(name, channels, 2**i * (4 if imagenet else 1)))
        return channels

    @property
    def stages(self) -> list[Stage]:
        """The last block at each resolution; in ImageNet's networks also the first layer's output."""
        return self._stages

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last feature map without classes."""
        check_size(self.name, images, self._stages[-1].reduction)
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for name in self.groups:
            maps = self.get_submodule(name)(maps)
        return maps if self.fc is None else self.fc(maps.mean((2, 3)))


class Block(nn.Module):
    """``relu(F(x) + x)``: two 3×3 convolutions, or a bottleneck of 1×1, 3×3 and 1×1, each with batch normalisation.

    Args:
        in_channels: channels of x.
        channels: of the 3×3 convolutions; a bottleneck's last one has four times as many.
        stride: of the first 3×3 convolution.
        bottleneck: whether to use the bottleneck.
        projected: whether a shortcut that changes the shape is a convolution (option B), else option A.

    Attributes:
        branch: F.
        shortcut: the identity, or what gives x the shape of F(x).

    Shape:
        feature maps (B, in_channels, H, W) -> (B, channels or 4 · channels, H / stride, W / stride)
    """

    def __init__(self, in_channels: int, channels: int, stride: int, bottleneck: bool, projected: bool) -> None:
        super().__init__()
        self.branch = (
            _bottleneck(in_channels, channels, stride) if bottleneck else _basic(in_channels, channels, stride)
        )
        out_channels = channels * EXPANSION if bottleneck else channels
        self.shortcut: nn.Module
        if stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif projected:
            self.shortcut = nn.Sequential(conv1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
        else:
            self.shortcut = PaddedShortcut(out_channels - in_channels, stride)
        self.relu = nn.ReLU(inplace=True)
        self.register_load_state_dict_pre_hook(_rename_torchvision_keys)

    def forward(self, x: Tensor) -> Tensor:
        """The branch's output and the shortcut's, added and rectified."""
        return self.relu(self.branch(x) + self.shortcut(x))


class PaddedShortcut(nn.Module):
    """Option A of section 4.1: every ``stride``-th pixel, padded with ``channels`` channels of zeros.

    Shape:
        feature maps (B, C, H, W) -> (B, C + channels, H / stride, W / stride), rounded up
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """The maps, subsampled and padded."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels))


def _basic(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    layers = {
        "conv1": conv3(in_channels, channels, stride),
        "bn1": nn.BatchNorm2d(channels),
        "relu": nn.ReLU(inplace=True),
        "conv2": conv3(channels, channels),
        "bn2": nn.BatchNorm2d(channels),
    }
    return nn.Sequential(OrderedDict(layers))


def _bottleneck(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    layers = {
        "conv1": conv1(in_channels, channels),
        "bn1": nn.BatchNorm2d(channels),
        "relu1": nn.ReLU(inplace=True),
        "conv2": conv3(channels, channels, stride),
        "bn2": nn.BatchNorm2d(channels),
        "relu2": nn.ReLU(inplace=True),
        "conv3": conv1(channels, channels * EXPANSION),
        "bn3": nn.BatchNorm2d(channels * EXPANSION),
    }
    return nn.Sequential(OrderedDict(layers))


def conv3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3×3 convolution without bias, since a normalisation follows; it keeps the size at stride 1."""
    return nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)


def conv1(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """A 1×1 convolution without bias."""
    return nn.Conv2d(in_channels, channels, 1, stride, bias=False)


def cifar_blocks(name: str, depth: int, layers: int = 2, others: Sequence[int] = ()) -> int:
    """Blocks in each of three groups: n of depth = 3 · layers · n + 2.

    Args:
        layers: number of layers in a block.
        others: further valid depths, for the message.

    Raises:
        UserError: n is not an integer.
    """
    step = 3 * layers
    blocks, rest = divmod(depth - 2, step)
    if rest or blocks < 1:
        below = max(1, blocks)
        near = " or ".join(str(step * n + 2) for n in (below, below + 1))
        besides = f", and {', '.join(map(str, others))}" if others else ""
        raise UserError(f"{name} has no depth {depth}: {step}n+2 layers are possible, such as {near}{besides}")
    return blocks


def _rename_torchvision_keys(_block: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """``conv1`` … ``bn3`` are in ``branch`` here, ``downsample`` is ``shortcut``."""
    for key in [k for k in state if k.startswith(prefix)]:
        name = key.removeprefix(prefix)
        if name.startswith(("conv", "bn")):
            state[f"{prefix}branch.{name}"] = state.pop(key)
        elif name.startswith("downsample."):
            state[f"{prefix}shortcut.{name.removeprefix('downsample.')}"] = state.pop(key)
