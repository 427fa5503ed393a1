"""AdaIN. Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", 2017.

A fixed encoder looks at content and style; the content's maps are given the style's mean and deviation in each channel;
a decoder, the only part that learns, makes a picture of them. Its convolutions mirror the edge, and nothing in it is
normalised (section 6.2).

Deviations:
- Any backbone in the place of VGG-19, and maps of several of its layers instead of one (relu4_1): a cell of an
  efficient network's deep maps keeps so little that a picture can't be made of one layer alone. Each layer's maps are
  renormalised, and enter the decoder at their own resolution.
- The encoder's strided layers have a blur in front of them, and its edges are repeated, as for slow style transfer.
- The decoder has ``width`` channels at full resolution and twice as many at each halving, up to eight times; 64 are the
  paper's. It has two convolutions at each resolution, enlarges linearly (nearest neighbours left a grid of two pixels,
  which the encoder's blur does not see), and starts near grey.
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

PROBE = 64  # pixels of the image that tells the layers' shapes
Maps = dict[str, Tensor]


class AdaIN(Architecture):
    """Gives pictures any style at once; in its recipe the decoder learns 1,528,723 parameters.

    Args:
        encoder: a backbone; its weights and statistics never change.
        layers: those of the encoder whose maps are renormalised, each of a resolution of its own; left out, the last of
            each resolution down to a sixteenth of the image's.
        width: the decoder's channels at full resolution.
        blur_strides: put a blur in front of the encoder's strided layers.
        init: of the decoder's weights; see ``zoo.architectures.initialisation``.

    Shape:
        content in [0, 1], (B, 3, H, W), and style in [0, 1], (1 or B, 3, h, w), of any other size -> images
        (B, 3, H, W), near [0, 1]

    Raises:
        UserError: the encoder has no such layers, or an image is smaller than a cell of the coarsest map.
    """

    roles: ClassVar[tuple[str, ...]] = ("stylizer",)
    fixed_channels = 3
    mean, std = None, None  # it takes images in [0, 1], and normalises them for the encoder itself
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
        """The encoder's weights and statistics from a file, by ``load_part``; all of them, or none.

        Raises:
            UserError: the file has no such network.
        """
        from zoo.training.checkpoints import load_part

        report = load_part(self.encoder, path, whole=True)
        self._normalise_as_encoder()
        return report

    def _normalise_as_encoder(self) -> None:
        """Keep with the weights what the encoder's were trained with, by channel of images in [0, 1]."""
        for name, values in (("mean", self.encoder.mean or (0.0,)), ("std", self.encoder.std or (1.0,))):
            self.register_buffer(f"encoder_{name}", torch.tensor(values).expand(3).reshape(1, 3, 1, 1).clone())

    def _levels(self, layers: Sequence[str] | None) -> list[Stage]:
        """The layers as stages, measured by a pass."""
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
            raise UserError("AdaIN: layers must be at least one, each of a resolution of its own")
        return levels

    @property
    def reduction(self) -> int:
        """Image pixels to a cell of the coarsest map, along one side."""
        return self.levels[0].reduction

    def train(self, mode: bool = True) -> AdaIN:
        """As every module, but the encoder only looks."""
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
            strength: 0 for the content as the decoder gives it, 1 for all of the style (alpha, section 6.5).
            weights: shares of several styles, whose renormalised maps are mixed (section 6.5); left out, all alike.
        """
        styles = [style] if isinstance(style, Tensor) else list(style)
        maps = self.mix(self.encode(content), [self.encode(one) for one in styles], strength, weights)
        return self.decode(maps, content.shape[2:])

    def encode(self, images: Tensor, layers: Sequence[str] = ()) -> Maps:
        """Maps of the encoder, of its own precision whatever the decoder's is, since their statistics are the style.

        Args:
            images: (B, 3, H, W); mirrored to the right and below until the coarsest map has whole cells.
            layers: further ones beside those that are renormalised.
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
        """The content's maps with the styles' statistics, by their shares and by the strength."""
        shares = [1 / len(styles)] * len(styles) if weights is None else list(weights)
        if len(shares) != len(styles):
            raise UserError(f"AdaIN: {len(styles)} styles have {len(shares)} weights")
        mixed = {}
        for name, maps in content.items():
            given = sum(share * adain(maps, style[name]) for share, style in zip(shares, styles, strict=True))
            mixed[name] = strength * given + (1 - strength) * maps
        return mixed

    def decode(self, maps: Mapping[str, Tensor], size: Sequence[int]) -> Tensor:
        """A picture of this height and width of maps, (B, 3, *size)."""
        images = self.decoder([maps[level.layer] for level in self.levels])
        return images[..., : size[0], : size[1]]


class Decoder(nn.Module):
    """Enlarges the coarsest maps step by step to the image, and takes in the finer ones where their resolution is met.

    Args:
        channels: of the maps, by reduction (a power of 2).
        width: channels at full resolution.
        init: of the weights.

    Shape:
        maps, coarsest first, each (B, channels[r], H / r, W / r) -> (B, 3, H, W)
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
        """The images."""
        given = iter(maps)
        x = self.blocks[next(iter(self.blocks))](next(given))
        for name, layers in list(self.blocks.items())[1:]:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = layers(torch.cat([x, next(given)], 1) if name in self.takes else x)
        with torch.autocast(x.device.type, enabled=False):  # halves have 256 steps between 0.5 and 1
            return self.last(x.to(self.last.weight.dtype))


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions."""
    return nn.Sequential(convolution(inputs, outputs), nn.ReLU(), convolution(outputs, outputs), nn.ReLU())


def convolution(inputs: int, outputs: int) -> MirroredConv:
    """3×3 with a reflected edge."""
    return MirroredConv(inputs, outputs, 3)
