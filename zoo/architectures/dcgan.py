"""Generator and discriminator of strided convolutions.

Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", 2016: transposed and strided convolutions instead of pooling, batch normalisation except at the images, ReLU
and tanh in the generator, leaky ReLU in the discriminator, and weights of standard deviation 0.02. Classes: the
generator's noise is followed by an embedding (Mirza and Osindero 2014), and the discriminator projects its features on
one (Miyato and Koyama 2018). Spectral normalisation: Miyato et al. 2018.

Deviations: filters of 4×4, as in the authors' code (5×5 in their figure); images of any size: the generator's are
cropped, the discriminator's extended.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from zoo.architectures.base import Architecture, check_numbers
from zoo.architectures.conditioning import padded
from zoo.architectures.generating import ClassEmbedding, WithClass, check_widths, coarsest, cropped
from zoo.errors import UserError

Normalisation = Literal["batch", "spectral", "none"]
STD, SLOPE = 0.02, 0.2


class DCGANGenerator(Architecture):
    """Noise to images, by transposed convolutions that double the maps.

    As it stands it is the authors' for 64×64: maps of 4×4 with 512 channels, 8×8 with 256, 16×16 and 32×32.

    Args:
        num_classes: 0 for none.
        in_channels: channels of the images.
        image_size: height and width of the images.
        latent: length of the noise.
        widths: channels of the maps, from the coarsest to the finest, which has half the images' size.

    Shape:
        z (B, latent), labels (B,) or None -> images in [-1, 1], (B, in_channels, *image_size)

    Raises:
        UserError: an argument is out of range.
    """

    roles: ClassVar[tuple[str, ...]] = ("generator",)
    example: ClassVar[dict[str, Any]] = {"latent": 6, "widths": [8, 4]}

    def __init__(
        self,
        num_classes: int = 0,
        in_channels: int = 3,
        image_size: Sequence[int] = (64, 64),
        latent: int = 100,
        widths: Sequence[int] = (512, 256, 128, 64),
    ) -> None:
        super().__init__()
        check_numbers("DCGANGenerator", num_classes, in_channels, 1)
        check_widths("DCGANGenerator", widths, latent)
        self.image_size, self.latent_shape = list(image_size), (latent,)
        self.told = WithClass(num_classes, latent)
        self.coarse = (widths[0], *coarsest(image_size, 2 ** len(widths)))
        self.first = nn.Linear(self.told.size, self.coarse[0] * self.coarse[1] * self.coarse[2], bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False) for before, after in pairwise(widths)
        )
        self.last = nn.ConvTranspose2d(widths[-1], in_channels, 4, 2, 1)
        _initialise(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images, cropped to their size where that is no multiple of the coarsest maps'."""
        maps = self.first(self.told(z, labels)).view(-1, *self.coarse)
        for norm, doubled in zip(self.norms, [*self.doublings, self.last], strict=True):
            maps = doubled(F.relu(norm(maps)))
        return torch.tanh(cropped(maps, self.image_size))


class DCGANDiscriminator(Architecture):
    """Images to a score, by convolutions that halve the maps.

    Args:
        num_classes: 0 for none.
        in_channels: channels of the images.
        image_size: height and width of the images.
        widths: channels of the maps, from the finest, which has half the images' size, to the coarsest.
        norm: ``batch`` in all layers but the first and the last; ``spectral``, of all weights; or ``none``, which a
            gradient penalty of each image by itself asks for (Gulrajani et al. 2017).
        outputs: numbers for each image; the class has a say in the first.

    Shape:
        images in [-1, 1], (B, in_channels, *image_size), labels (B,) or None -> (B, outputs)

    Raises:
        UserError: an argument is out of range.
    """

    roles: ClassVar[tuple[str, ...]] = ("discriminator",)
    example: ClassVar[dict[str, Any]] = {"widths": [4, 8]}

    def __init__(
        self,
        num_classes: int = 0,
        in_channels: int = 3,
        image_size: Sequence[int] = (64, 64),
        widths: Sequence[int] = (64, 128, 256, 512),
        norm: Normalisation = "batch",
        outputs: int = 1,
    ) -> None:
        super().__init__()
        check_numbers("DCGANDiscriminator", num_classes, in_channels, 1)
        check_widths("DCGANDiscriminator", widths)
        if norm not in ("batch", "spectral", "none"):
            raise UserError(f"DCGANDiscriminator: norm is batch, spectral or none, not {norm}")
        batch = norm == "batch"
        self.halvings = nn.ModuleList(
            nn.Conv2d(before, after, 4, 2, 1, bias=not batch or not number)
            for number, (before, after) in enumerate(pairwise([in_channels, *widths]))
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(width) if batch and number else nn.Identity() for number, width in enumerate(widths)
        )
        height, width = coarsest(image_size, 2 ** len(widths))
        self.score = nn.Linear(widths[-1] * height * width, outputs)
        self.told = ClassEmbedding(num_classes, self.score.in_features, STD)
        _initialise(self)
        if norm == "spectral":
            for layer in (*self.halvings, self.score, *(() if self.told.table is None else (self.told.table,))):
                spectral_norm(layer)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Scores, higher for what looks real."""
        maps = padded(images, 2 ** len(self.halvings))
        for halved, norm in zip(self.halvings, self.norms, strict=True):
            maps = F.leaky_relu(norm(halved(maps)), SLOPE)
        features = maps.flatten(1)
        scores = self.score(features)
        if labels is None:
            return scores
        matching = (features * self.told(labels)).sum(1, keepdim=True)
        return torch.cat([scores[:, :1] + matching, scores[:, 1:]], 1)


def _initialise(network: nn.Module) -> None:
    """Weights of mean 0, normalisations' factors of mean 1, with the paper's standard deviation."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, std=STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, STD)
