"""PlainNet. The plain networks of He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2.

CIFAR's ResNet without its shortcuts: 3×3 convolutions in three groups of 16, 32 and 64 channels, each group at half
the resolution of the one before, global average pooling, a linear layer. With batch normalisation after every
convolution, as in the paper, or without any, to study the effect of depth without both.

Deviations: any depth, not only 6n+2 (convolutions that do not divide by three go to the first groups); other
activations. Without normalisation, convolutions have biases. The last layer is initialised like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor, nn

from zoo.architectures.base import Architecture, Stage, check_numbers, check_size, scaled
from zoo.architectures.initialisation import Init, initialise
from zoo.architectures.resnet import CIFAR_CHANNELS
from zoo.errors import UserError

Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu"]
Norm = Literal["batch", "none"]
SHALLOWEST = 5  # the first convolution, one in each group, the linear layer


class PlainNet(Architecture):
    """A chain of ``depth - 1`` convolutions and a linear layer; 269,722 parameters at 20 layers and ten classes.

    Args:
        num_classes: length of the output; 0 omits pooling and the linear layer, for a backbone.
        in_channels: channels of the images.
        depth: number of weight layers, at least 5.
        width: factor on every layer's channels; 1.0 as in the paper.
        norm: ``batch`` after every convolution, or ``none``.
        activation: the activation.
        init: initialisation of the weights, for this activation; see ``zoo.architectures.initialisation``.
        image_size: height and width of the images that the weights are initialised for. Without normalisation, the
            signal lost at the margins of small feature maps adds up with depth. Other sizes can be used, too.

    Shape:
        images (B, C, H, W) of at least 4×4 pixels, normalised -> logits (B, num_classes), or the last feature map
        (B, C', H / 4, W / 4) without classes

    Raises:
        UserError: the activation or norm is unknown, a number is out of range, or images are too small.
    """

    example: ClassVar[dict[str, Any]] = {"num_classes": 4, "depth": 9, "width": 0.25}

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        depth: int = 20,
        width: float = 1.0,
        norm: Norm = "batch",
        activation: Activation = "relu",
        init: Init = "backward",
        image_size: Sequence[int] = (32, 32),
    ) -> None:
        super().__init__()
        check_numbers("PlainNet", num_classes, in_channels, width)
        _check(depth, norm, activation)
        self.layers, self._stages = nn.Sequential(), list[Stage]()
        channels = in_channels
        for i, (count, middle) in enumerate(zip(group_sizes(depth), CIFAR_CHANNELS, strict=True)):
            for k in range(count):
                self._add_layer(channels, scaled(middle, width), 2 if i and not k else 1, norm, activation)
                channels = scaled(middle, width)
            self._stages.append(Stage(f"layers.{len(self.layers) - 1}", channels, 2**i))
        self.fc = nn.Linear(channels, num_classes) if num_classes else None
        shape = (in_channels, *image_size) if norm == "none" else None
        initialise(self, init, activation, normalised=norm == "batch", image_shape=shape)

    def _add_layer(self, in_channels: int, channels: int, stride: int, norm: Norm, activation: Activation) -> None:
        self.layers.append(nn.Conv2d(in_channels, channels, 3, stride, 1, bias=norm == "none"))
        if norm == "batch":
            self.layers.append(nn.BatchNorm2d(channels))
        self.layers.append(_activation(activation))

    @property
    def stages(self) -> list[Stage]:
        """The last activation at each resolution."""
        return self._stages

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last feature map without classes."""
        check_size("PlainNet", images, 4)
        maps = self.layers(images)
        return maps if self.fc is None else self.fc(maps.mean((2, 3)))


def group_sizes(depth: int) -> list[int]:
    """Convolutions in each of the three groups; including the network's first one in the first group."""
    each, rest = divmod(depth - 2, 3)
    return [each + 1 + (rest > 0), each + (rest > 1), each]


def _activation(name: Activation) -> nn.Module:
    in_place = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "silu": nn.SiLU}
    if name in in_place:
        return in_place[name](inplace=True)
    return {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}[name]()


def _check(depth: int, norm: str, activation: str) -> None:
    if depth < SHALLOWEST:
        raise UserError(f"PlainNet: depth must be at least {SHALLOWEST}, not {depth}")
    for what, value, known in (("norm", norm, get_args(Norm)), ("activation", activation, get_args(Activation))):
        if value not in known:
            raise UserError(f"PlainNet: {what} is one of {', '.join(known)}, not {value!r}")
