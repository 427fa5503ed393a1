"""DenseNet. Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks", 2017.

Within a block each layer sees the concatenation of the block's input and of all layers before it, and adds k feature
maps (k is the growth rate): ``x_l = H_l([x_0, x_1, …, x_{l-1}])``, equation 2. H is batch norm, ReLU and a 3×3
convolution, with a bottleneck preceded by batch norm, ReLU and a 1×1 convolution to 4k channels. A transition between
two blocks is batch norm, ReLU, a 1×1 convolution and an average pooling; compression reduces the channels.

Depths 121, 161, 169 and 201 are ImageNet's networks (table 1), every other depth is CIFAR's: three blocks of equal
length after one 3×3 convolution (section 3, "Implementation Details").

The memory-saving mode is that of Pleiss, Chen, Huang, Li, van der Maaten and Weinberger, "Memory-Efficient
Implementation of DenseNets", 2017: concatenations and their normalised values are not stored for the backward pass but
recomputed. The authors share buffers and store the 1×1 convolution's output; here PyTorch's checkpointing recomputes
that convolution, too. Running statistics are updated in the forward pass only (torchvision updates them twice).

Deviations and readings:
- Convolutions have no biases, as in the authors' code.
- Weights are He et al.'s (2015) by fan-in, ``init: forward``; the authors' code takes the fan-out, ``backward``.
- ImageNet's 161 has a growth rate of 48 (the authors' code; not in the paper's final version).
- The dropout of 0.2 that the paper has for training without augmentation is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from zoo.architectures.base import Architecture, Stage, check_size
from zoo.architectures.initialisation import Init, initialise
from zoo.errors import UserError


class _Size(NamedTuple):
    growth_rate: int
    blocks: tuple[int, int, int, int]


# Table 1; 161 is the authors' code's.
IMAGENET = {
    121: _Size(32, (6, 12, 24, 16)),
    161: _Size(48, (6, 12, 36, 24)),
    169: _Size(32, (6, 12, 32, 32)),
    201: _Size(32, (6, 12, 48, 32)),
}
CIFAR_GROWTH_RATE = 12
EXPANSION = 4  # of a bottleneck, in growth rates; section 3


class DenseNet(Architecture):
    """Each layer takes the outputs of all layers before it; 7,978,856 parameters at depth 121 and 1,000 classes.

    CIFAR's: 1.0 M at depth 40 without bottleneck and compression, 0.8 M at 100, 15.3 M at 250 with a growth rate of 24,
    25.6 M at 190 with 40. torchvision's weights of ImageNet's networks can be loaded directly; see
    ``rename_torchvision``.

    Args:
        num_classes: length of the output; 0 omits the linear layer, for a backbone.
        in_channels: channels of the images.
        depth: 121, 161, 169 or 201 for ImageNet's networks, else CIFAR's: 6n + 4, or 3n + 4 without bottleneck.
        growth_rate: channels that a layer adds, k; by default 32 (48 at depth 161), and 12 in CIFAR's networks.
        bottleneck: a 1×1 convolution to 4k channels before each 3×3 convolution.
        compression: share of the channels that a transition keeps; 1 for all.
        memory_efficient: recompute concatenations in the backward pass instead of storing them; in training mode only.
        init: see ``zoo.architectures.initialisation.initialise``; by default He et al.'s with fan-in.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes), or the last feature map (B, C', H', W') without
        classes

    Raises:
        UserError: there is no such depth, a number is out of range, or an image is smaller than the poolings need (4
            pixels, 29 in ImageNet's networks).
    """

    may_change = ("memory_efficient",)
    example: ClassVar[dict[str, Any]] = {"num_classes": 4, "depth": 10, "growth_rate": 4}

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        depth: int = 121,
        growth_rate: int | None = None,
        bottleneck: bool = True,
        compression: float = 0.5,
        memory_efficient: bool = False,
        init: Init = "forward",
    ) -> None:
        super().__init__()
        standard, blocks = _size(depth, bottleneck)
        k = standard if growth_rate is None else growth_rate
        _check(num_classes, in_channels, k, compression)
        self.depth, self.imagenet = depth, depth in IMAGENET
        self._stages: list[Stage] = []
        # ImageNet's networks and CIFAR's DenseNet-BC start with 2k maps, CIFAR's others with 16 (section 3).
        channels = 2 * k if self.imagenet or (bottleneck and compression < 1) else 16
        self.layers = _imagenet_stem(in_channels, channels) if self.imagenet else _cifar_stem(in_channels, channels)
        if self.imagenet:
            self._stages.append(Stage("layers.relu0", channels, 2))
        channels = self._build_blocks(channels, blocks, k, bottleneck, compression, memory_efficient)
        self.classifier = nn.Linear(channels, num_classes) if num_classes else None
        initialise(self, init, "relu", normalised=True)
        self.register_load_state_dict_pre_hook(rename_torchvision)

    def _build_blocks(
        self, channels: int, blocks: tuple[int, ...], k: int, bottleneck: bool, compression: float, lean: bool
    ) -> int:
        reduction = 4 if self.imagenet else 1
        for i, length in enumerate(blocks, start=1):
            self.layers.add_module(f"denseblock{i}", DenseBlock(channels, length, k, bottleneck, lean))
            channels += length * k
            if i < len(blocks):
                self._stages.append(Stage(f"layers.denseblock{i}", channels, reduction))
                kept = max(1, int(channels * compression))
                self.layers.add_module(f"transition{i}", Transition(channels, kept, lean))
                channels, reduction = kept, 2 * reduction
        last = len(blocks) + 1
        self.layers.add_module(f"norm{last}", nn.BatchNorm2d(channels))
        self.layers.add_module(f"relu{last}", nn.ReLU(inplace=True))
        self._stages.append(Stage(f"layers.relu{last}", channels, reduction))
        return channels

    @property
    def stages(self) -> list[Stage]:
        """ImageNet's stem, each block before its transition, and the last block after its normalisation."""
        return self._stages

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last feature map without classes."""
        check_size(f"DenseNet-{self.depth}", images, 29 if self.imagenet else 4)
        maps = self.layers(images)
        return maps if self.classifier is None else self.classifier(F.adaptive_avg_pool2d(maps, 1).flatten(1))


def _imagenet_stem(in_channels: int, channels: int) -> nn.Sequential:
    stem = nn.Sequential()
    stem.add_module("conv0", nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False))
    stem.add_module("norm0", nn.BatchNorm2d(channels))
    stem.add_module("relu0", nn.ReLU(inplace=True))
    stem.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))
    return stem


def _cifar_stem(in_channels: int, channels: int) -> nn.Sequential:
    stem = nn.Sequential()
    stem.add_module("conv0", nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))
    return stem


class DenseBlock(nn.ModuleDict):
    """Layers that each take the block's input and the outputs of all layers before them.

    Args:
        channels: of the block's input.
        length: number of layers.
        growth_rate: channels that each layer adds.
        bottleneck: whether each layer starts with a 1×1 convolution.
        memory_efficient: as the layers'.

    Shape:
        (B, channels, H, W) -> (B, channels + length * growth_rate, H, W)
    """

    def __init__(
        self, channels: int, length: int, growth_rate: int, bottleneck: bool, memory_efficient: bool = False
    ) -> None:
        super().__init__()
        kind = BottleneckLayer if bottleneck else DenseLayer
        for i in range(length):
            self[f"denselayer{i + 1}"] = kind(channels + i * growth_rate, growth_rate, memory_efficient)

    def forward(self, maps: Tensor) -> Tensor:
        """The block's input and all layers' outputs, concatenated."""
        outputs = [maps]
        for layer in self.values():
            outputs.append(layer(outputs))
        return torch.cat(outputs, 1)


class DenseLayer(nn.Module):
    """H of equation 2: concatenation, batch norm, ReLU, and a 3×3 convolution.

    Args:
        channels: of all inputs in total.
        growth_rate: channels of the output.
        memory_efficient: store only the inputs for the backward pass; in training mode only.

    Shape:
        list of (B, C_i, H, W) with sum of C_i = ``channels`` -> (B, growth_rate, H, W)
    """

    def __init__(self, channels: int, growth_rate: int, memory_efficient: bool = False) -> None:
        super().__init__()
        self.memory_efficient = memory_efficient
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = self.first_convolution(channels, growth_rate)

    def first_convolution(self, channels: int, growth_rate: int) -> nn.Conv2d:
        """The convolution that takes the concatenation."""
        return nn.Conv2d(channels, growth_rate, 3, padding=1, bias=False)

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """The feature maps that this layer adds."""
        if self.memory_efficient and self.training:
            return computed_again(self.collect, self.norm1, *outputs)
        return self.collect(*outputs)

    def collect(self, *outputs: Tensor) -> Tensor:
        """The first convolution of the normalised, rectified concatenation."""
        return self.conv1(self.relu1(self.norm1(torch.cat(outputs, 1))))


class BottleneckLayer(DenseLayer):
    """H of DenseNet-B: a 1×1 convolution to 4k channels, then batch norm, ReLU and the 3×3 convolution to k."""

    def __init__(self, channels: int, growth_rate: int, memory_efficient: bool = False) -> None:
        super().__init__(channels, growth_rate, memory_efficient)
        self.norm2 = nn.BatchNorm2d(EXPANSION * growth_rate)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(EXPANSION * growth_rate, growth_rate, 3, padding=1, bias=False)

    def first_convolution(self, channels: int, growth_rate: int) -> nn.Conv2d:
        """The bottleneck."""
        return nn.Conv2d(channels, EXPANSION * growth_rate, 1, bias=False)

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """The feature maps that this layer adds."""
        return self.conv2(self.relu2(self.norm2(super().forward(outputs))))


class Transition(nn.Sequential):
    """The layers between two blocks: batch norm, ReLU, a 1×1 convolution, and 2×2 average pooling.

    Shape:
        (B, channels, H, W) -> (B, kept, H // 2, W // 2)
    """

    def __init__(self, channels: int, kept: int, memory_efficient: bool = False) -> None:
        super().__init__()
        self.memory_efficient = memory_efficient
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, kept, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, maps: Tensor) -> Tensor:
        """Fewer channels at half the size."""
        if self.memory_efficient and self.training:
            return computed_again(super().forward, self.norm, maps)
        return super().forward(maps)


def computed_again(function: Callable[..., Tensor], norm: nn.Module, *inputs: Tensor) -> Tensor:
    """``function(*inputs)``, recomputed in the backward pass: only the inputs are stored.

    Args:
        function: must be deterministic.
        norm: the normalisation in it, whose running statistics are updated once.
    """
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if not torch.compiler.is_compiling():  # a compiled program updates buffers once, at its end, and takes no contexts
        contexts = nullcontext(), KeptStatistics(norm)
        options["context_fn"] = lambda: contexts
    return cast(Tensor, checkpoint(function, *inputs, **options))


class KeptStatistics:
    """In this context a normalisation updates copies of its running statistics, which are then discarded."""

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm

    def __enter__(self) -> None:
        self.own = dict(self.norm.named_buffers(recurse=False))
        for name, buffer in self.own.items():
            setattr(self.norm, name, buffer.clone())

    def __exit__(self, *error: object) -> None:
        for name, buffer in self.own.items():
            setattr(self.norm, name, buffer)


def rename_torchvision(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename torchvision's tensors in place: ``features`` is a method here, and torchvision's files contain old names
    such as ``norm.1``.

    Registered as a ``load_state_dict`` pre-hook, so that this works::

        DenseNet().load_state_dict(torchvision.models.DenseNet121_Weights.DEFAULT.get_state_dict())
    """
    for name in [name for name in state if name.startswith(f"{prefix}features.")]:
        own = re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", name.removeprefix(f"{prefix}features."))
        state[f"{prefix}layers.{own}"] = state.pop(name)


def _size(depth: int, bottleneck: bool) -> tuple[int, tuple[int, ...]]:
    """Default growth rate, and number of layers in each block."""
    if depth in IMAGENET:
        if not bottleneck:
            raise UserError(f"DenseNet-{depth} is ImageNet's, which has bottlenecks; bottleneck: false is for CIFAR's")
        return IMAGENET[depth]
    step = 6 if bottleneck else 3
    if depth < step + 4 or (depth - 4) % step:
        below = max(1, (depth - 4) // step) * step + 4
        which = "with" if bottleneck else "without"
        raise UserError(
            f"DenseNet: CIFAR's networks {which} bottleneck have a depth of {step}n + 4, not {depth}; "
            f"next are {below} and {below + step} (ImageNet's are {', '.join(map(str, IMAGENET))})"
        )
    return CIFAR_GROWTH_RATE, ((depth - 4) // step,) * 3


def _check(num_classes: int, in_channels: int, growth_rate: int, compression: float) -> None:
    if num_classes < 0 or in_channels < 1 or growth_rate < 1:
        raise UserError("DenseNet: num_classes must be at least 0, in_channels and growth_rate at least 1")
    if not 0 < compression <= 1:
        raise UserError(f"DenseNet: compression must be above 0 and at most 1, not {compression}")
