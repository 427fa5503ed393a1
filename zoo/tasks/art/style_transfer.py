"""Neural style transfer (Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks", 2016).

The picture's feature maps should stay close to the content's in one layer, and its Gram matrices close to the style's
in several; the pixels are optimised. Several styles are mixed by their weights, or each has a mask (Gatys et al.,
"Controlling Perceptual Factors in Neural Style Transfer", 2017, section 3).

Deviations: any network instead of VGG-19; both distances are relative to the target's own scale, so that weights mean
the same for any network; several scales, blurred strides, the correlations of neighbouring pixels and a little total
variation against the grid that strided layers leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory
from zoo.facts import Facts
from zoo.functional.style import (
    content_distance,
    gram,
    histogram_distance,
    keep_colors,
    masked_gram,
    mean_of_layers,
    noise_like,
    patch_gram,
    spectrum_distance,
    style_distance,
    total_variation,
    whitened_distance,
    whitener,
)
from zoo.tasks.art.perceptual import layer_shares, middle, resized, scaled
from zoo.tasks.art.pixels import SCALES, PixelTask

Batch = tuple[Tensor, list[Any]]


class StyleTransfer(PixelTask):
    """Transfers a style to pictures.

    Args:
        perceptual: the network whose feature maps and Gram matrices are compared.
        style_layers: weights of the layers whose Gram matrices are compared; default: the last of each resolution.
        content_layers: weights of the layers whose feature maps are compared; default: the middle one of those.
        content_weight: weight of the feature maps' distance; the style's weight is 1.
        patch_weight: weight of the correlations of neighbouring pixels, in 3x3 patches.
        tv_weight: weight of the total variation, relative to the content's own.
        start: the initial picture: the content, the (first) style, or noise of the style's colours.
        preserve_colors: take only the luminance from the result, and the colours from the content.
        scales: fractions of the size, growing to 1; one epoch each.
        optimizer: optimiser of the pixels; default: L-BFGS with ten iterations per step, a line search and a history of
            ten.
        blur_strides: put a blur in front of the network's strided layers.
        perceptual_weights: checkpoint of any task that trained such a network; its weights are loaded.
        grey: whether the network was trained on grey pictures; it then sees the pictures in grey.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        batch: content in [0, 1], (B, 3, H, W), and a list of ``zoo.data.art.pictures.Style`` -> images (B, 3, H, W)
    """

    batch = "style_transfer"
    may_change = ("preserve_colors",)  # postprocessing
    example: ClassVar[dict[str, Any]] = {"scales": [0.5, 1.0]}

    def __init__(
        self,
        perceptual: ArchitectureFactory,
        style_layers: dict[str, float] | None = None,
        content_layers: dict[str, float] | None = None,
        content_weight: float = 0.3,
        patch_weight: float = 0.1,
        tv_weight: float = 0.05,
        start: Literal["content", "style", "noise"] = "content",
        preserve_colors: bool = False,
        scales: Sequence[float] = SCALES,
        optimizer: OptimizerFactory | None = None,
        blur_strides: bool = True,
        perceptual_weights: str | None = None,
        grey: bool = False,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        if (least := min(content_weight, patch_weight, tv_weight)) < 0:
            raise UserError(f"model.content_weight, patch_weight and tv_weight must be at least 0, not {least}")
        self.style_layers, self.content_layers = style_layers, content_layers
        self.content_weight, self.patch_weight, self.tv_weight = content_weight, patch_weight, tv_weight
        self.begin_with, self.preserve_colors = start, preserve_colors

    def build(self) -> None:
        """Build the network, the pictures, and the layers' weights."""
        super().build()
        self.style_shares = layer_shares(self.perceptual, self.style_layers, self.stage_layers)
        self.content_shares = layer_shares(self.perceptual, self.content_layers, lambda: middle(self.style_shares))

    def start(self, batch: Batch, size: list[int]) -> Tensor:
        """The content, the first style stretched to its shape, or noise."""
        content, styles = batch
        style = styles[0].image[None]
        if self.begin_with == "content":
            return resized(content, size).clamp(0, 1)
        if self.begin_with == "style":
            return resized(style, size).clamp(0, 1).expand(len(content), -1, -1, -1)
        return noise_like(style.expand(len(content), -1, -1, -1), size, self.noise_generator())

    # Distances

    def all_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps of every layer that is used, in one pass."""
        return self.maps(images, [*{**self.style_shares, **self.content_shares}])

    def targets(self, batch: Batch, scale: float) -> dict[str, Any]:
        """The content's feature maps and total variation; for each style the Gram matrices, those of its patches, and
        its mask.
        """
        content = resized(batch[0], self.sizes[self.scales.index(scale)]).clamp(0, 1)
        maps = self.all_maps(content)
        return {
            "maps": {name: maps[name] for name in self.content_shares},
            "variation": total_variation(content).clamp(min=1e-4),
            "styles": [self._style_target(style, scale) for style in batch[1]],
        }

    def _style_target(self, style: Any, scale: float) -> dict[str, Any]:
        image = scaled(style.image[None], scale).clamp(0, 1)
        neighbours, maps = patch_gram(image), self.maps(image, list(self.style_shares))
        return {
            "grams": {name: gram(maps[name]) for name in maps},
            "patches": neighbours,
            "white": whitener(neighbours),
            "mask": None if style.mask is None else style.mask[None],
            "weight": style.weight,
        }

    def style(self, maps: dict[str, Tensor], styles: list[dict[str, Any]]) -> Tensor:
        """Squared distance of Gram matrices relative to the style's, averaged over layers and styles, (B,)."""
        return torch.stack(
            [
                share * style["weight"] * style_distance(_gram(maps[name], style["mask"]), style["grams"][name])
                for style in styles
                for name, share in self.style_shares.items()
            ]
        ).sum(0)

    def content(self, maps: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
        """Squared distance of the feature maps relative to the content's variation, averaged over the layers, (B,)."""
        return mean_of_layers(content_distance, self.content_shares, maps, target)

    def losses(self, images: Tensor, targets: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of style and content, and the regularisation of the pixels."""
        maps = self.all_maps(images)
        parts = {"style": self.style(maps, targets["styles"])}
        parts["content"] = self.content_weight * self.content(maps, targets["maps"])
        if self.patch_weight:
            parts["patches"] = self.patch_weight * _neighbours(images, targets["styles"])
        if self.tv_weight:
            parts["tv"] = self.tv_weight * total_variation(images) / targets["variation"]
        return parts

    # Result

    def finish(self, images: Tensor, batch: Batch) -> Tensor:
        """Restore the content's colours if ``preserve_colors`` is set."""
        return keep_colors(images, batch[0]) if self.preserve_colors else images

    def figures(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Distances to style and content, and those of histogram (in units of the range) and spectrum (in decibels)."""
        maps, targets = self.all_maps(images), self.targets(batch, 1.0)
        figures = {"style": self.style(maps, targets["styles"]), "content": self.content(maps, targets["maps"])}
        for name, distance in (("histogram", histogram_distance), ("spectrum", spectrum_distance)):
            figures[name] = torch.stack([s.weight * distance(images, s.image[None]) for s in batch[1]]).sum(0)
        return figures


def _gram(maps: Tensor, mask: Tensor | None) -> Tensor:
    return gram(maps) if mask is None else masked_gram(maps, mask.to(maps))


def _neighbours(images: Tensor, styles: list[dict[str, Any]]) -> Tensor:
    whole = [patch_gram(images)] if any(s["mask"] is None for s in styles) else []  # once for all such styles
    grams = [whole[0] if s["mask"] is None else patch_gram(images, s["mask"].to(images)) for s in styles]
    apart = [whitened_distance(g, s["patches"], s["white"]) * s["weight"] for g, s in zip(grams, styles, strict=True)]
    return torch.stack(apart).sum(0)
