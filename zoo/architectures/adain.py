"""AdaIN. Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", 2017.

A fixed encoder encodes content and style. The content's feature maps are given the style's mean and standard deviation
in each channel, and a decoder, the only trained part, decodes them to an image. Its convolutions use reflection
padding, and it has no normalisation (section 6.2).

Deviations:
- Any backbone instead of VGG-19, and feature maps of several layers instead of one (relu4_1): the deep feature maps of
  an efficient network keep too little for decoding an image from one layer alone. Each layer's feature maps are
  renormalised and enter the decoder at their resolution.
- The encoder's strided layers are preceded by a blur, and it pads by replication, as for optimisation-based style
  transfer.
- The decoder has ``width`` channels at full resolution and twice as many at each halving, up to eight times; 64 are the
  paper's. It has two convolutions at each resolution, upsamples bilinearly (nearest neighbours left a grid of two
  pixels, which the encoder's blur does not see), and its output starts near grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, Stage, check_size
from zoo.architectures.frozen import freeze
from zoo.architectures.initialisation import Init, initialise
from zoo.architectures.transform_net import MirroredConv
from zoo.architectures.weights import Report
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, build, plain
from zoo.functional.style import adain

PROBE = 64  # side in pixels of the image that the layers' shapes are measured with
Maps = dict[str, Tensor]


class AdaIN(Architecture):
    """Arbitrary style transfer in one pass; in its recipe the decoder has 1,528,723 parameters.

    Args:
        encoder: a backbone; its weights and statistics never change.
        layers: the encoder's layers whose feature maps are renormalised, each of a different resolution; by default
            the last layer of each resolution down to a sixteenth of the image's.
        width: the decoder's channels at full resolution.
        blur_strides: blur the input of the encoder's strided layers.
        init: initialisation of the decoder's weights; see ``zoo.architectures.initialisation``.

    Shape:
        content in [0, 1], (B, 3, H, W), and style in [0, 1], (1 or B, 3, h, w), of any other size -> images
        (B, 3, H, W), near [0, 1]

    Raises:
        UserError: the encoder has no such layers, or an image is smaller than the encoder's reduction.
    """

    roles: ClassVar[tuple[str, ...]] = ("stylizer",)
    fixed_channels = 3
    mean, std = None, None  # it takes images in [0, 1] and normalises them for the encoder
    example: ClassVar[dict[str, object]] = {"width": 4}
    encoder_mean: Tensor
    encoder_std: Tensor

    def __init__(
        self,
        encoder: ArchitectureFactory,
        layers: Sequence[str] | None = None,
        width: int = 16,
        blur_strides: bool = True,
        init: Init = "forward",
    ) -> None:
        super().__init__()
        if width < 1:
            raise UserError(f"AdaIN: width must be at least 1, not {width}")
        network: Architecture = build(plain(encoder, Architecture), num_classes=0, in_channels=3)
        self.encoder = freeze(network, blur_strides)
        self._normalise_as_encoder()
        self.levels = sorted(self._levels(layers), key=lambda level: -level.reduction)
        self.decoder = Decoder({level.reduction: level.channels for level in self.levels}, width, init)

    def load_encoder(self, path: str) -> Report:
        """Load the encoder's weights and statistics from a file by ``load_part``; all of them or none.

        Raises:
            UserError: the file does not hold this network.
        """
        from zoo.training.checkpoints import load_part

        report = load_part(self.encoder, path, whole=True)
        self._normalise_as_encoder()
        return report

    def _normalise_as_encoder(self) -> None:
        """Keep the mean and std that the encoder was trained with as buffers, per channel of images in [0, 1]."""
        for name, values in (("mean", self.encoder.mean or (0.0,)), ("std", self.encoder.std or (1.0,))):
            self.register_buffer(f"encoder_{name}", torch.tensor(values).expand(3).reshape(1, 3, 1, 1).clone())

    def statistics(self) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
        """The encoder's."""
        return {"encoder": (self.encoder_mean.flatten().tolist(), self.encoder_std.flatten().tolist())}

    def _levels(self, layers: Sequence[str] | None) -> list[Stage]:
        """The layers as stages, measured by a forward pass."""
        names = [s.layer for s in self.encoder.stages if s.reduction <= 16] if layers is None else list(layers)
        with torch.no_grad():
            found = self.encoder.features(torch.zeros(1, 3, PROBE, PROBE), names)
        levels = [Stage(name, maps.shape[1], PROBE // maps.shape[-1]) for name, maps in found.items()]
        for level in levels:
            if found[level.layer].shape[2:] != (PROBE // level.reduction,) * 2 or level.reduction & (
                level.reduction - 1
            ):
                raise UserError(f"AdaIN: layer {level.layer} does not halve the image a whole number of times")
        if not levels or len({level.reduction for level in levels}) < len(levels):
            raise UserError("AdaIN: give at least one layer, each of a different resolution")
        return levels

    @property
    def reduction(self) -> int:
        """Image pixels per pixel of the coarsest feature map, along one side."""
        return self.levels[0].reduction

    def train(self, mode: bool = True) -> AdaIN:
        """Set the mode of the decoder; the encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(
        self,
        content: Tensor,
        style: Tensor | Sequence[Tensor],
        strength: float = 1.0,
        weights: Sequence[float] | None = None,
    ) -> Tensor:
        """The content in the style.

        Args:
            content: (B, 3, H, W).
            style: (1 or B, 3, h, w), or several of these, of any sizes.
            strength: 0 reconstructs the content, 1 applies the style fully (alpha, section 6.5).
            weights: shares of several styles, whose renormalised feature maps are mixed (section 6.5); by default
                equal.
        """
        styles = [style] if isinstance(style, Tensor) else list(style)
        maps = self.mix(self.encode(content), [self.encode(one) for one in styles], strength, weights)
        return self.decode(maps, content.shape[2:])

    def encode(self, images: Tensor, layers: Sequence[str] = ()) -> Maps:
        """Feature maps of the encoder, in its precision whatever the decoder's is, since their statistics are the
        style.

        Args:
            images: (B, 3, H, W); padded by reflection at the right and bottom to a multiple of the reduction.
            layers: further layers besides those that are renormalised.
        """
        check_size("AdaIN", images, self.reduction)
        names = [*{**dict.fromkeys(level.layer for level in self.levels), **dict.fromkeys(layers)}]
        down, right = (-n % self.reduction for n in images.shape[2:])
        images = F.pad(images, (0, right, 0, down), mode="reflect") if down or right else images
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(self.encoder_mean.dtype)
            return self.encoder.features((images - self.encoder_mean) / self.encoder_std, names)

    def mix(
        self, content: Maps, styles: Sequence[Maps], strength: float = 1.0, weights: Sequence[float] | None = None
    ) -> Maps:
        """The content's feature maps with the styles' statistics, mixed by the shares and the strength."""
        shares = [1 / len(styles)] * len(styles) if weights is None else list(weights)
        if len(shares) != len(styles):
            raise UserError(f"AdaIN: {len(styles)} styles have {len(shares)} weights")
        mixed = {}
        for name, maps in content.items():
            given = sum(share * adain(maps, style[name]) for share, style in zip(shares, styles, strict=True))
            mixed[name] = strength * given + (1 - strength) * maps
        return mixed

    def decode(self, maps: Mapping[str, Tensor], size: Sequence[int]) -> Tensor:
        """Decode feature maps to images of this height and width, (B, 3, *size)."""
        images = self.decoder([maps[level.layer] for level in self.levels])
        return images[..., : size[0], : size[1]]


class Decoder(nn.Module):
    """Upsamples the coarsest feature maps step by step and adds the finer ones at their resolution.

    Args:
        channels: of the feature maps, by reduction (a power of 2).
        width: channels at full resolution.
        init: initialisation of the weights.

    Shape:
        feature maps, coarsest first, each (B, channels[r], H / r, W / r) -> (B, 3, H, W)
    """

    def __init__(self, channels: Mapping[int, int], width: int, init: Init = "forward") -> None:
        super().__init__()
        self.blocks = nn.ModuleDict()
        before, reduction = 0, max(channels)
        while reduction >= 1:
            after = min(width * reduction, 8 * width)
            self.blocks[str(reduction)] = block(before + channels.get(reduction, 0), after)
            before, reduction = after, reduction // 2
        self.last = convolution(before, 3)
        initialise(self, init)
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            self.last.bias.fill_(0.5)  # type: ignore[union-attr]
        self.takes = frozenset(str(r) for r in channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode the feature maps."""
        given = iter(maps)
        x = self.blocks[next(iter(self.blocks))](next(given))
        for name, layers in list(self.blocks.items())[1:]:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = layers(torch.cat([x, next(given)], 1) if name in self.takes else x)
        with torch.autocast(x.device.type, enabled=False):  # half precision has 256 steps between 0.5 and 1
            return self.last(x.to(self.last.weight.dtype))


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions."""
    return nn.Sequential(convolution(inputs, outputs), nn.ReLU(), convolution(outputs, outputs), nn.ReLU())


def convolution(inputs: int, outputs: int) -> MirroredConv:
    """A 3×3 convolution with reflection padding."""
    return MirroredConv(inputs, outputs, 3)
