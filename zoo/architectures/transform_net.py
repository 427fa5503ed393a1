"""The image transform network: image-to-image in one forward pass, at any size.

Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", 2016, section 3.1 and
table 1 of its supplement: two strided convolutions, residual blocks at a quarter of the size, and upsampling. Instance
normalisation instead of batch normalisation is Ulyanov, Vedaldi and Lempitsky's ("Instance Normalization: The
Missing Ingredient for Fast Stylization", 2016).

Deviations: feature maps are upsampled bilinearly and then convolved, instead of transposed convolutions, which leave
a checkerboard (Odena, Dumoulin and Olah, "Deconvolution and Checkerboard Artifacts", 2016; nearest neighbours left a
faint one); every convolution pads by reflection, instead of blocks that crop and one large margin; sizes that are not
multiples of four are restored at the output; a sigmoid gives the range [0, 1].
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from zoo.architectures.base import Architecture, check_numbers, check_size, scaled
from zoo.architectures.initialisation import Init, initialise
from zoo.errors import UserError

CHANNELS = (32, 64, 128)  # at the full, half and quarter size
SMALLEST = 8


class TransformNet(Architecture):
    """Encoder, residual blocks and decoder; 1,679,235 parameters at full width.

    Args:
        in_channels: channels of the input and output images.
        width: factor on every layer's channels; 1.0 as in the paper.
        blocks: number of residual blocks.
        init: initialisation of the weights; see ``zoo.architectures.initialisation``.

    Shape:
        images (B, C, H, W) of at least 8×8 pixels, normalised -> images in [0, 1], (B, C, H, W)

    Raises:
        UserError: a number is out of range, or images are too small.
    """

    roles: ClassVar[tuple[str, ...]] = ("transform",)
    example: ClassVar[dict[str, Any]] = {"width": 0.25, "blocks": 2}
    mean, std = (0.5,), (0.25,)

    def __init__(self, in_channels: int = 3, width: float = 1.0, blocks: int = 5, init: Init = "forward") -> None:
        super().__init__()
        check_numbers("TransformNet", 0, in_channels, width)
        if blocks < 0:
            raise UserError(f"TransformNet: blocks must be at least 0, not {blocks}")
        full, half, quarter = (scaled(n, width) for n in CHANNELS)
        self.first = Layer(in_channels, full, 9)
        self.down = nn.ModuleList([Layer(full, half, 3, stride=2), Layer(half, quarter, 3, stride=2)])
        self.blocks = nn.Sequential(*(Residual(quarter) for _ in range(blocks)))
        self.up = nn.ModuleList([Layer(quarter, half, 3), Layer(half, full, 3)])
        self.last = MirroredConv(full, in_channels, 9)
        initialise(self, init, normalised=True)

    def forward(self, images: Tensor) -> Tensor:
        """The transformed images."""
        check_size("TransformNet", images, SMALLEST)
        maps, sizes = self.first(images), []
        for layer in self.down:
            sizes.append(maps.shape[2:])
            maps = layer(maps)
        maps = self.blocks(maps)
        for layer, size in zip(self.up, sizes[::-1], strict=True):
            maps = layer(interpolate(maps, size, mode="bilinear", align_corners=False))
        return self.last(maps).to(images.dtype).sigmoid()  # bfloat16 has 128 steps between 0.5 and 1


class Layer(nn.Sequential):
    """Convolution, instance normalisation with scale and shift, ReLU."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        norm = nn.InstanceNorm2d(channels, affine=True)
        super().__init__(MirroredConv(in_channels, channels, kernel, stride), norm, nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3×3 convolutions with an identity shortcut; no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        norm = nn.InstanceNorm2d(channels, affine=True)
        self.branch = nn.Sequential(Layer(channels, channels, 3), MirroredConv(channels, channels, 3), norm)
        self.shortcut = nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps of the same shape."""
        return self.shortcut(maps) + self.branch(maps)


class MirroredConv(nn.Conv2d):
    """A convolution with reflection padding; it keeps the size, or divides it by its stride."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(in_channels, channels, kernel, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps of the same size, divided by the stride."""
        margin = [self.kernel_size[0] // 2] * 4
        with torch.autocast(maps.device.type, enabled=False):  # autocast would pad in float32, in twice the time
            maps = pad(maps, margin, mode="reflect")
        return super().forward(maps)
