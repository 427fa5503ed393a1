"""AlexNet. Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012.

The network of section 3: five convolutions and three fully connected layers, with the connection pattern of two GPUs
(groups in layers 2, 4 and 5), ReLU (3.1), response normalisation (3.3), overlapping pooling (3.4) and dropout (4.2).

Deviations and readings:
- Images are 227×227: the 224 that the paper writes does not give the 55×55 feature maps that it states.
- Below 128 pixels the first stride is 2, not 4, and a feature map smaller than a pooling window is not pooled.
- The paper's N(0, 0.01) weights are too small to start learning in a much narrower network on small images;
  ``init: forward`` (see ``zoo.architectures.initialisation``; biases 0) is meant for these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional as F

from zoo.architectures.base import Architecture, Stage
from zoo.architectures.initialisation import Init, initialise
from zoo.errors import UserError


class _Convolution(NamedTuple):
    channels: int
    kernel: int
    groups: int = 1
    bias: float = 0.0
    normed: bool = False
    pooled: bool = False


# Sizes from section 3.5; section 5 has biases of one, so that the ReLUs start with positive inputs.
CONVOLUTIONS = (
    _Convolution(96, 11, normed=True, pooled=True),
    _Convolution(256, 5, groups=2, bias=1.0, normed=True, pooled=True),
    _Convolution(384, 3),
    _Convolution(384, 3, groups=2, bias=1.0),
    _Convolution(256, 3, groups=2, bias=1.0, pooled=True),
)
HIDDEN = 4096


class AlexNet(Architecture):
    """Five convolutional and three fully connected layers; 60,965,224 parameters at 1,000 classes and 227×227.

    Args:
        num_classes: length of the output; 0 omits the fully connected layers, for a backbone.
        in_channels: channels of the images.
        image_size: height and width of the images.
        width: factor on every hidden layer's channels; 1.0 as in the paper.
        activation: the paper's ReLU, or tanh, with which the paper compares it.
        overlapping_pooling: pooling windows of 3 pixels with stride 2; else windows of 2.
        response_norm: local response normalisation after layers 1 and 2.
        dropout: of the inputs of the first two fully connected layers; 0 for none.
        init: the paper's N(0, 0.01) with some biases of one, or one of ``zoo.architectures.initialisation``, for
            narrow networks on small images.
        stride: of the first convolution; by default 4, and 2 below 128 pixels.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes), or the last feature map (B, C', H', W') without
        classes

    Raises:
        UserError: the image is smaller than the first filter, or a value is out of range.
    """

    example: ClassVar[dict[str, Any]] = {"num_classes": 4, "image_size": [32, 32], "width": 0.0625, "init": "forward"}

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: Sequence[int] = (227, 227),
        width: float = 1.0,
        activation: Literal["relu", "tanh"] = "relu",
        overlapping_pooling: bool = True,
        response_norm: bool = True,
        dropout: float = 0.5,
        init: Literal["paper", Init] = "paper",
        stride: int | None = None,
    ) -> None:
        super().__init__()
        stride = stride if stride is not None else 2 if min(image_size) < 128 else 4
        _check(num_classes, in_channels, image_size, width, dropout, stride)
        self.activation: Literal["relu", "tanh"] = activation
        self.window = 3 if overlapping_pooling else 2
        self.layers = nn.Sequential()
        self._stages: dict[int, Stage] = {}
        self._build_layers(in_channels, image_size, width, stride, response_norm)
        features = self.channels * self.map_size[0] * self.map_size[1]
        self.classifier = self._head(features, _scaled(HIDDEN, width), num_classes, dropout) if num_classes else None
        self._initialise(init)

    def _build_layers(self, channels: int, size: Sequence[int], width: float, stride: int, response_norm: bool) -> None:
        reduction = stride
        for i, layer in enumerate(CONVOLUTIONS, start=1):
            filters, padding = _scaled(layer.channels, width), layer.kernel // 2 if i > 1 else 0
            conv = nn.Conv2d(channels, filters, layer.kernel, stride if i == 1 else 1, padding, groups=layer.groups)
            size = [(n + 2 * padding - layer.kernel) // conv.stride[0] + 1 for n in size]
            channels = filters
            self.layers.add_module(f"conv{i}", conv)
            self._append(f"act{i}", _activation(self.activation), channels, reduction)
            if layer.normed and response_norm:
                self._append(f"norm{i}", ResponseNorm(), channels, reduction)
            if layer.pooled and min(size) >= self.window:
                reduction *= 2
                size = [(n - self.window) // 2 + 1 for n in size]
                self._append(f"pool{i}", nn.MaxPool2d(self.window, 2), channels, reduction)
        self.channels, self.map_size = channels, (size[0], size[1])

    def _append(self, name: str, layer: nn.Module, channels: int, reduction: int) -> None:
        """Add a layer; the last one of each resolution is a stage."""
        self.layers.add_module(name, layer)
        self._stages[reduction] = Stage(f"layers.{name}", channels, reduction)

    def _head(self, features: int, hidden: int, num_classes: int, dropout: float) -> nn.Sequential:
        head = nn.Sequential()
        for i, inputs in ((6, features), (7, hidden)):
            if dropout:
                head.add_module(f"drop{i}", nn.Dropout(dropout))
            head.add_module(f"fc{i}", nn.Linear(inputs, hidden))
            head.add_module(f"act{i}", _activation(self.activation))
        head.add_module("fc8", nn.Linear(hidden, num_classes))
        return head

    def _initialise(self, init: Literal["paper", Init]) -> None:
        initialise(self, "normal" if init == "paper" else init, self.activation)
        if init == "paper":
            ones = {f"conv{i}" for i, layer in enumerate(CONVOLUTIONS, start=1) if layer.bias} | {"fc6", "fc7"}
            for name, parameter in self.named_parameters():
                if name.endswith(".bias") and name.split(".")[1] in ones:
                    nn.init.ones_(parameter)

    @property
    def stages(self) -> list[Stage]:
        """The last layer at each resolution: before each pooling, and the last pooling."""
        return list(self._stages.values())

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last feature map without classes."""
        maps = self.layers(images)
        if self.classifier is None:
            return maps
        if maps.shape[-2:] != self.map_size:
            height, width = images.shape[-2:]
            raise UserError(f"images are {height}×{width}, which is not the image_size that this AlexNet was built for")
        return self.classifier(maps.flatten(1))


class ResponseNorm(nn.Module):
    """Local response normalisation of section 3.3; see ``response_norm``."""

    def __init__(self, k: float = 2.0, n: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> None:
        super().__init__()
        self.k, self.n, self.alpha, self.beta = k, n, alpha, beta

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps of the same shape."""
        return response_norm(maps, self.k, self.n, self.alpha, self.beta)


def response_norm(maps: Tensor, k: float = 2.0, n: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> Tensor:
    """Each value divided by ``(k + alpha * (sum of squares over the n nearest channels)) ** beta``.

    ``torch.nn.LocalResponseNorm`` divides its alpha by n, so it needs 5e-4 for the same; this is also about four
    times as fast on a CPU, where that layer takes a third of a step.

    Args:
        maps: feature maps (B, C, H, W).
        n: odd.
    """
    return _ResponseNorm.apply(maps, k, n, alpha, beta)


class _ResponseNorm(Function):
    """A custom derivative: ``d/dx`` needs one more sum over channels, where autograd would store eight tensors."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, k: float, n: int, alpha: float, beta: float) -> Tensor:
        base = _channel_sum(maps * maps, n) * alpha + k
        factor = (base.log() * -beta).exp_()  # a third of the time of base**-beta
        ctx.save_for_backward(maps, base, factor)
        ctx.constants = n, alpha, beta
        return maps * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        maps, base, factor = ctx.saved_tensors
        n, alpha, beta = ctx.constants
        shared = _channel_sum(grad * maps * factor / base, n)
        return grad * factor - 2 * alpha * beta * maps * shared, None, None, None, None


def _channel_sum(maps: Tensor, n: int) -> Tensor:
    channels = maps.shape[1]
    padded = F.pad(maps, (0, 0, 0, 0, n // 2, n // 2))
    total = padded[:, :channels].clone()
    for shift in range(1, n):
        total += padded[:, shift : shift + channels]
    return total


def _activation(name: str) -> nn.Module:
    return nn.ReLU(inplace=True) if name == "relu" else nn.Tanh()


def _scaled(channels: int, width: float) -> int:
    """The scaled number of channels, even for the two groups."""
    return 2 * max(1, round(channels * width / 2))


def _check(
    num_classes: int, in_channels: int, image_size: Sequence[int], width: float, dropout: float, stride: int
) -> None:
    if len(image_size) != 2:
        raise UserError(f"AlexNet: image_size is height and width, not {list(image_size)}")
    if min(image_size) < (smallest := CONVOLUTIONS[0].kernel):
        height, across = image_size
        raise UserError(f"AlexNet needs images of at least {smallest}×{smallest} pixels, not {height}×{across}")
    if num_classes < 0 or in_channels < 1 or stride < 1:
        raise UserError("AlexNet: num_classes must be at least 0, in_channels and stride at least 1")
    if not width > 0:
        raise UserError(f"AlexNet: width must be above 0, not {width}")
    if not 0 <= dropout < 1:
        raise UserError(f"AlexNet: dropout must be at least 0 and below 1, not {dropout}")
