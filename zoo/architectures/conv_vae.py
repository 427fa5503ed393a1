"""A convolutional encoder and decoder for variational autoencoders.

Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, have one hidden layer; these have residual blocks with
group normalisation and Swish at halved resolutions, as the networks of diffusion models have, in sum as Kingma et al.
(2016, "Improved Variational Inference with Inverse Autoregressive Flow", appendix C) without their many latents. A
resolution is doubled by a convolution to four times the channels (Shi et al. 2016). The class, if there are classes,
is added to what the last or first linear layer sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, check_numbers
from zoo.architectures.conditioning import padded
from zoo.architectures.denoising_unet import norm, zeroed
from zoo.errors import UserError

EXAMPLE = {"latent": 6, "width": 4, "multipliers": [1, 2], "blocks": 1}
LARGEST_LOG_VARIANCE = 10.0  # beyond, a step of training that goes astray would end in infinities


class ConvEncoder(Architecture):
    """A Gaussian of the latent for each image.

    Args:
        num_classes: 0 for none.
        in_channels: channels of the images.
        image_size: height and width.
        latent: number of the latent's entries.
        width: channels of the finest level, which has half the image's resolution.
        multipliers: each level's channels, as multiples of the width; each has half the resolution of the one before.
        blocks: residual blocks of a level.

    Shape:
        images (B, C, H, W) in [-1, 1], labels (B,) or None -> mean (B, latent), logarithm of the variance (B, latent)

    Raises:
        UserError: an argument is out of range.
    """

    roles: ClassVar[tuple[str, ...]] = ("encoder",)
    example: ClassVar[dict[str, Any]] = EXAMPLE

    def __init__(
        self,
        num_classes: int = 0,
        in_channels: int = 1,
        image_size: Sequence[int] = (28, 28),
        latent: int = 32,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
    ) -> None:
        super().__init__()
        channels = _channels("ConvEncoder", num_classes, in_channels, latent, width, multipliers, blocks)
        self.latent_shape = (latent,)
        self.step = 2 ** len(channels)
        layers: list[nn.Module] = []
        for before, after in zip([in_channels, *channels[:-1]], channels, strict=True):
            layers += [nn.Conv2d(before, after, 4, 2, 1), *(Block(after) for _ in range(blocks))]
        self.body = nn.Sequential(*layers, norm(channels[-1]), nn.SiLU(), nn.Flatten())
        height, width = _coarsest(image_size, self.step)
        self.label = nn.Embedding(num_classes + 1, channels[-1] * height * width) if num_classes else None
        self.last = nn.Linear(channels[-1] * height * width, 2 * latent)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance."""
        seen = with_class(self.body(padded(images, self.step)), self.label, labels)
        mean, log_variance = self.last(seen).chunk(2, 1)
        return mean, log_variance.clamp(max=LARGEST_LOG_VARIANCE)


class ConvDecoder(Architecture):
    """The parameters of an image's likelihood for each latent.

    Args:
        num_classes: 0 for none.
        in_channels: of the result: the images' channels, times the parameters that the likelihood has.
        image_size: height and width.
        latent: number of the latent's entries.
        width: channels of the finest level, which has half the image's resolution.
        multipliers: each level's channels, finest first, as multiples of the width.
        blocks: residual blocks of a level.

    Shape:
        latents (B, latent), labels (B,) or None -> (B, C, H, W)

    Raises:
        UserError: an argument is out of range.
    """

    roles: ClassVar[tuple[str, ...]] = ("decoder",)
    example: ClassVar[dict[str, Any]] = EXAMPLE

    def __init__(
        self,
        num_classes: int = 0,
        in_channels: int = 1,
        image_size: Sequence[int] = (28, 28),
        latent: int = 32,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
    ) -> None:
        super().__init__()
        channels = _channels("ConvDecoder", num_classes, in_channels, latent, width, multipliers, blocks)[::-1]
        self.latent_shape, self.image_size = (latent,), list(image_size)
        self.coarsest = (channels[0], *_coarsest(image_size, 2 ** len(channels)))
        self.label = nn.Embedding(num_classes + 1, latent) if num_classes else None
        self.first = nn.Linear(latent, torch.Size(self.coarsest).numel())
        layers: list[nn.Module] = []
        for before, after in zip(channels, [*channels[1:], in_channels], strict=True):
            layers += [*(Block(before) for _ in range(blocks)), norm(before), nn.SiLU()]
            layers += [nn.Conv2d(before, 4 * after, 3, padding=1), nn.PixelShuffle(2)]
        self.body = nn.Sequential(*layers)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The parameters."""
        maps = self.first(with_class(z, self.label, labels)).unflatten(1, self.coarsest)
        height, width = self.image_size
        return self.body(maps)[..., :height, :width]


class Block(nn.Module):
    """Two normalised 3×3 convolutions beside a shortcut; at first the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2, self.conv2 = norm(channels), zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps of the same size."""
        return maps + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(maps))))))


def with_class(values: Tensor, embedding: nn.Embedding | None, labels: Tensor | None) -> Tensor:
    """The values (B, D) with the class's embedding added; without labels, that of "no class", the last.

    Raises:
        UserError: labels for a network without classes.
    """
    if embedding is None:
        if labels is not None:
            raise UserError("labels were given to a network without classes: build it with num_classes")
        return values
    if labels is None:
        labels = torch.full((len(values),), embedding.num_embeddings - 1, device=values.device)
    return values + embedding(labels)


def _channels(
    name: str,
    num_classes: int,
    in_channels: int,
    latent: int,
    width: int,
    multipliers: Sequence[int],
    blocks: int,
) -> list[int]:
    check_numbers(name, num_classes, in_channels, width)
    if latent < 1 or blocks < 0 or not multipliers or min(multipliers) < 1:
        raise UserError(
            f"{name}: latent must be at least 1, blocks at least 0; at least one multiplier, each at least 1"
        )
    return [width * m for m in multipliers]


def _coarsest(image_size: Sequence[int], step: int) -> list[int]:
    return [-(-side // step) for side in image_size]
