"""Texture synthesis (Gatys, Ecker and Bethge, "Texture Synthesis Using Convolutional Neural Networks", 2015).

The texture passes through a pretrained network; the Gram matrices of chosen layers describe it. The pixels of a noise
image are optimised until its Gram matrices are the same.

Deviations: any network instead of VGG-19; each layer's distance is relative to the texture's own norm; several scales,
blurred strides and the correlations of neighbouring pixels (``zoo.functional.style.patches``) against the grid that
strided layers leave; the noise has the texture's mean and covariance of colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory
from zoo.facts import Facts
from zoo.functional.style import (
    gram,
    histogram_distance,
    noise_like,
    patch_gram,
    spectrum_distance,
    style_distance,
    total_variation,
    whitened_distance,
    whitener,
)
from zoo.tasks.art.perceptual import layer_shares, scaled
from zoo.tasks.art.pixels import SCALES, PixelTask

Batch = tuple[list[Tensor], list[str]]


class TextureSynthesis(PixelTask):
    """Synthesises a texture from an example.

    Args:
        perceptual: the network whose Gram matrices are compared.
        layers: weights of layers by name, as in ``named_modules``; default: the last layer of each resolution.
        patch_weight: weight of the correlations of neighbouring pixels, in 3x3 patches.
        tv_weight: weight of the total variation, relative to the texture's own.
        scales: fractions of the size, growing to 1; one epoch each.
        optimizer: optimiser of the pixels; default: L-BFGS with ten iterations per step, a line search and a history of
            ten.
        blur_strides: put a blur in front of the network's strided layers.
        perceptual_weights: checkpoint of any task that trained such a network; its weights are loaded.
        grey: whether the network was trained on grey pictures; it then sees the pictures in grey.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        batch: textures, a list of B images in [0, 1], (3, h, w), and their names -> images (B, 3, H, W)
    """

    batch = "texture"
    example: ClassVar[dict[str, Any]] = {"scales": [0.5, 1.0]}

    def __init__(
        self,
        perceptual: ArchitectureFactory,
        layers: dict[str, float] | None = None,
        patch_weight: float = 0.15,
        tv_weight: float = 0.0,
        scales: Sequence[float] = SCALES,
        optimizer: OptimizerFactory | None = None,
        blur_strides: bool = True,
        perceptual_weights: str | None = None,
        grey: bool = False,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        if min(patch_weight, tv_weight) < 0:
            raise UserError(f"model.patch_weight and tv_weight must be at least 0, not {min(patch_weight, tv_weight)}")
        self.layers, self.patch_weight, self.tv_weight = layers, patch_weight, tv_weight

    def build(self) -> None:
        """Build the network, the pictures, and the layers' weights."""
        super().build()
        self.shares = layer_shares(self.perceptual, self.layers, self.stage_layers)

    def start(self, batch: Batch, size: list[int]) -> Tensor:
        """Noise with each texture's mean and covariance of colours."""
        generator = self.noise_generator()
        return torch.cat([noise_like(texture[None], size, generator) for texture in batch[0]])

    def grams(self, images: Tensor) -> list[Tensor]:
        """Gram matrices of each layer, (B, C, C)."""
        return [gram(maps) for maps in self.maps(images, list(self.shares)).values()]

    def targets(self, batch: Batch, scale: float) -> dict[str, Any]:
        """Gram matrices of the textures and of their patches at this scale, and their total variation."""
        textures = [scaled(texture[None], scale) for texture in batch[0]]  # one by one, since sizes differ
        grams = [torch.cat(layer) for layer in zip(*map(self.grams, textures), strict=True)]
        neighbours = torch.cat([patch_gram(texture) for texture in textures])
        variation = torch.cat([total_variation(texture) for texture in textures]).clamp(min=1e-4)
        return {"grams": grams, "patches": neighbours, "white": whitener(neighbours), "variation": variation}

    def style(self, images: Tensor, grams: list[Tensor]) -> Tensor:
        """Squared distance of Gram matrices relative to the texture's, averaged over the layers, (B,)."""
        found = zip(self.grams(images), grams, self.shares.values(), strict=True)
        return torch.stack([share * style_distance(ours, theirs) for ours, theirs, share in found]).sum(0)

    def losses(self, images: Tensor, targets: dict[str, Any]) -> dict[str, Tensor]:
        """The distance of Gram matrices, and the regularisation of the pixels."""
        parts = {"gram": self.style(images, targets["grams"])}
        if self.patch_weight:
            apart = whitened_distance(patch_gram(images), targets["patches"], targets["white"])
            parts["patches"] = self.patch_weight * apart
        if self.tv_weight:
            parts["tv"] = self.tv_weight * total_variation(images) / targets["variation"]
        return parts

    def figures(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Distance of Gram matrices, of histograms (in units of the range), and of spectra (in decibels)."""
        pairs = list(zip(images.split(1), [texture[None] for texture in batch[0]], strict=True))
        return {
            "gram": self.style(images, self.targets(batch, 1.0)["grams"]),
            "histogram": torch.cat([histogram_distance(*pair) for pair in pairs]),
            "spectrum": torch.cat([spectrum_distance(*pair) for pair in pairs]),
        }

    def measured(self, batch: Batch) -> dict[str, Tensor]:
        """Metrics of start and end, and the factor by which the Gram distance has fallen."""
        found = super().measured(batch)
        return found | {"gram_ratio": found["gram_start"] / found["gram"]}
