"""U-Net. Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015.

23 convolutions (figure 1): two 3×3 convolutions at each of five levels down and four up, four transposed ones between
them, and the classifier. Dropout at the end of the contracting path and weights from N(0, 2 / N) (section 3.1); the
rate of 0.5 is of the authors' code.

Without padding, each convolution takes a pixel off every side, so that 572 pixels give logits of the central 388. To
segment a whole image, the paper extends it by mirroring (figure 2); ``padding: mirror`` does so, also to the next size
whose feature maps can all be halved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from zoo.architectures.base import Architecture, check_numbers, scaled
from zoo.architectures.initialisation import fans, weight_layers
from zoo.errors import UserError
from zoo.functional.windows import mirrored

CHANNELS = (64, 128, 256, 512, 1024)
STEP = 2 ** (len(CHANNELS) - 1)  # how often a side is halved
SMALLEST = 188  # without padding: four pixels of logits
MARGIN = 92  # pixels without logits at each side, without padding

Padding = Literal["valid", "mirror", "same"]


class UNet(Architecture):
    """The paper's U-Net; 31,030,658 parameters with one channel in and two classes.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the images.
        image_size: height and width; a task gives them.
        padding: ``valid`` is the paper's network, whose logits are of the centre; ``mirror`` extends the image by
            mirroring, so that they are of the whole image; ``same`` pads the convolutions by zeros, for less
            computation. By default ``valid``, but ``mirror`` where ``image_size`` is given, since a task needs logits
            of the whole image.
        width: factor on every layer's channels.
        norm: normalisation after each 3×3 convolution, which the paper has not.
        dropout: rate behind the two coarsest levels of the contracting path.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W), or, for ``valid``,
        (B, num_classes, H - 184, W - 184): 572 -> 388

    Raises:
        UserError: an argument is out of range; or, for ``valid``, a side can't be halved four times.
    """

    roles: ClassVar[tuple[str, ...]] = ("segmenter",)
    example: ClassVar[dict[str, Any]] = {"padding": "same", "width": 0.03, "norm": "batch", "dropout": 0.0}

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 1,
        image_size: Sequence[int] | None = None,
        padding: Padding | None = None,
        width: float = 1.0,
        norm: Literal["none", "batch"] = "none",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_numbers("UNet", num_classes, in_channels, width)
        self.padding = padding or ("valid" if image_size is None else "mirror")
        for name, value, known in (("padding", self.padding, get_args(Padding)), ("norm", norm, ("none", "batch"))):
            if value not in known:
                raise UserError(f"UNet: {name} is one of {', '.join(known)}, not {value}")
        if not 0 <= dropout < 1:
            raise UserError(f"UNet: dropout must be at least 0 and below 1, not {dropout}")
        channels = [scaled(c, width) for c in CHANNELS]
        pad, normed = int(self.padding == "same"), norm == "batch"
        pairs = zip([in_channels, *channels], channels, strict=False)
        self.down = nn.ModuleList(_two_convolutions(before, after, pad, normed) for before, after in pairs)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        for before, after in zip(channels[:0:-1], channels[-2::-1], strict=True):
            self.up.append(nn.ConvTranspose2d(before, after, 2, stride=2))
            self.merge.append(_two_convolutions(2 * after, after, pad, normed))
        self.classifier = nn.Conv2d(channels[0], num_classes, 1)
        self._initialise()

    def _initialise(self) -> None:
        """N(0, 2 / N) with N incoming nodes of a neuron, and biases of zero."""
        for layer in weight_layers(self):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / fans(layer).into))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        height, width = images.shape[2:]
        if self.padding == "valid":
            _check_sides(height, width)
            return self._logits(images)
        margin = MARGIN if self.padding == "mirror" else 0
        rest = [_missing(side, margin) for side in (height, width)]
        extended = mirrored(images, (margin, margin + rest[0]), (margin, margin + rest[1]))
        return self._logits(extended)[..., :height, :width]

    def _logits(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            x = self.dropout(x) if level >= len(self.down) - 2 else x
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = up(x)
            x = merge(torch.cat([_centre(skip, x.shape[2:]), x], 1))
        return self.classifier(x)


def _two_convolutions(inputs: int, outputs: int, padding: int, normed: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(nn.Conv2d(channels, outputs, 3, padding=padding, bias=not normed))
        layers += [nn.BatchNorm2d(outputs)] if normed else []
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _centre(maps: Tensor, size: Sequence[int]) -> Tensor:
    top, left = ((n - wanted) // 2 for n, wanted in zip(maps.shape[2:], size, strict=True))
    return maps[..., top : top + size[0], left : left + size[1]]


def _missing(side: int, margin: int) -> int:
    """Pixels that an extended side lacks to the next one that the network can take."""
    least = max(side + 2 * margin, SMALLEST if margin else STEP)
    first = SMALLEST if margin else STEP
    return least + (first - least) % STEP - side - 2 * margin


def _check_sides(height: int, width: int) -> None:
    if min(height, width) < SMALLEST or (height - SMALLEST) % STEP or (width - SMALLEST) % STEP:
        raise UserError(
            f"UNet without padding takes sides of {SMALLEST}, {SMALLEST + STEP}, … pixels (572 in the paper), not "
            f"{height}×{width}: give padding mirror or same"
        )
