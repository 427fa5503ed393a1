"""Fast style transfer, one network per style.

Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", 2016.

A transform network learns from many pictures what optimisation finds for a single one: the feature maps of its results
should stay close to the content's in one layer, and their Gram matrices close to the style's in several.

Deviations: any network instead of VGG-16; both distances are relative to the target's own scale, so that weights mean
the same for any network; blurred strides, the correlations of neighbouring pixels and total variation against the grid
that strided layers leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor
from torch.optim import Adam

from zoo import drawing
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts
from zoo.functional.style import (
    content_distance,
    gram,
    histogram_distance,
    mean_of_layers,
    patch_gram,
    spectrum_distance,
    style_distance,
    total_variation,
    whitened_distance,
    whitener,
)
from zoo.tasks.art.perceptual import PerceptualTask, layer_shares, middle
from zoo.tasks.art.stylization import Batch, Stylization
from zoo.tasks.exported import Exported
from zoo.tasks.normalize import Normalize

PROBE = 64  # side in pixels of the image that is used to find the layers' channels
SHOWN = 3  # number of contents in the picture of an evaluation
PARTS = ("style", "content", "patches", "tv")
Maps = dict[str, Tensor]


@runtime_checkable
class HasStyles(Protocol):
    """Data with pictures of the style to be learnt."""

    def whole_styles(self) -> Sequence[Any]:
        """All of them: ``image`` (3, h, w) in [0, 1], and ``weight``, its share."""


class FastStyleTransfer(Stylization, PerceptualTask):
    """Trains a network that applies one style to pictures.

    The style comes from the data; for several pictures it is the weighted mean of their Gram matrices. It is saved with
    the task, so that a checkpoint is self-contained.

    Args:
        architecture: of the role ``transform``: images in, images in [0, 1] out.
        perceptual: the network whose feature maps and Gram matrices are compared.
        style_layers: weights of the layers whose Gram matrices are compared; default: the last of each resolution.
        content_layers: weights of the layers whose feature maps are compared; default: the middle one of those.
        content_weight: weight of the feature maps' distance; the style's weight is 1.
        patch_weight: weight of the correlations of neighbouring pixels, in 3x3 patches.
        tv_weight: weight of the total variation, relative to the content's own.
        strength: strength of the style at test and prediction: the weight of the result in a pixel-wise mean with the
            content; 0 gives the content.
        optimizer: optimiser of the transform network.
        scheduler: learning-rate scheduler.
        blur_strides: put a blur in front of the perceptual network's strided layers.
        perceptual_weights: checkpoint of any task that trained such a network; its weights are loaded.
        grey: whether the perceptual network was trained on grey pictures; it then sees the pictures in grey.
        weights: checkpoint of another style, to start from.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        batch: contents in [0, 1], (B, 3, H, W), and styles, which are ignored -> images (B, 3, H, W)
    """

    needs = ("in_channels",)
    network = "transform"
    holds_style = True
    gram_patches: Tensor

    def __init__(
        self,
        architecture: ArchitectureFactory,
        perceptual: ArchitectureFactory,
        style_layers: dict[str, float] | None = None,
        content_layers: dict[str, float] | None = None,
        content_weight: float = 0.3,
        patch_weight: float = 0.1,
        tv_weight: float = 0.02,
        strength: float = 1.0,
        optimizer: OptimizerFactory = Adam,
        scheduler: SchedulerFactory | None = None,
        blur_strides: bool = True,
        perceptual_weights: str | None = None,
        grey: bool = False,
        weights: str | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        if (least := min(content_weight, patch_weight, tv_weight)) < 0:
            raise UserError(f"model.content_weight, patch_weight and tv_weight must be at least 0, not {least}")
        self.style_layers, self.content_layers = style_layers, content_layers
        self.content_weight, self.patch_weight, self.tv_weight = content_weight, patch_weight, tv_weight

    def build(self) -> None:
        """Build both networks, the layers' weights, the buffers of the style, and the metrics."""
        super().build()
        self.architecture = self.make("architecture")
        self.adjust = Normalize(self.architecture, self.facts)
        self.style_shares = layer_shares(self.perceptual, self.style_layers, self.stage_layers)
        self.content_shares = layer_shares(self.perceptual, self.content_layers, lambda: middle(self.style_shares))
        with torch.no_grad():
            found = self._measure_style(torch.full((1, self.facts["in_channels"], PROBE, PROBE), 0.5))
        for name, value in found.items():
            self.register_buffer(name, torch.zeros_like(value))
        self.build_metrics(PARTS)

    # The style

    def on_fit_start(self) -> None:
        """Compute the style from the data's pictures."""
        super().on_fit_start()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, HasStyles):
            raise UserError(f"FastStyleTransfer needs the style's pictures, but {type(data).__name__} has none")
        self.take_style([(style.image[None], style.weight) for style in data.whole_styles()])

    @torch.no_grad()
    def take_style(self, styles: Sequence[tuple[Tensor, float]]) -> None:
        """Store the mean of the styles' Gram matrices.

        Args:
            styles: images in [0, 1], (1, 3, h, w), with their weights, which sum to 1.
        """
        found = [(self._measure_style(image.to(self.device)), share) for image, share in styles]
        for name in found[0][0]:
            getattr(self, name).copy_(torch.stack([share * values[name] for values, share in found]).sum(0))

    def _measure_style(self, image: Tensor) -> dict[str, Tensor]:
        """Gram matrices by the names of their buffers."""
        maps = self.maps(image, list(self.style_shares))
        grams = {f"gram_{i}": gram(found) for i, found in enumerate(maps.values())}
        return {**grams, "gram_patches": patch_gram(image)}

    # Distances

    def look(self, images: Tensor) -> Maps:
        """Feature maps of every layer that is used, in one pass."""
        return self.maps(images, [*{**self.style_shares, **self.content_shares}], margin=0)

    def style(self, maps: Maps) -> Tensor:
        """Squared distance of Gram matrices relative to the style's, averaged over the layers, (B,)."""
        shares = enumerate(self.style_shares.items())
        kept = [share * style_distance(gram(maps[name]), getattr(self, f"gram_{i}")) for i, (name, share) in shares]
        return torch.stack(kept).sum(0)

    def content(self, maps: Maps, target: Maps) -> Tensor:
        """Squared distance of the feature maps relative to the content's variation, averaged over the layers, (B,)."""
        return mean_of_layers(content_distance, self.content_shares, maps, target)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of style and content, and the regularisation of the pixels."""
        contents, images = batch[0], self(batch[0])
        with torch.no_grad():
            target = self.look(contents)
        maps = self.look(images)
        with torch.autocast(images.device.type, enabled=False):
            apart = whitened_distance(patch_gram(images), self.gram_patches, whitener(self.gram_patches))
            return {
                "style": self.style(maps),
                "content": self.content_weight * self.content(maps, target),
                "patches": self.patch_weight * apart,
                "tv": self.tv_weight * total_variation(images) / total_variation(contents).clamp(min=1e-4),
            }

    def figures(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Distances to style and content, and those of histogram (in units of the range) and spectrum (in decibels)."""
        contents, styles = batch
        maps = self.look(images)
        return {
            "style": self.style(maps),
            "content": self.content(maps, self.look(contents)),
            "histogram": histogram_distance(images, styles),
            "spectrum": spectrum_distance(images, styles),
        }

    # Results

    def forward(self, images: Tensor) -> Tensor:
        """Images in [0, 1], (B, 3, H, W), in the style, at full strength."""
        return self.architecture(self.adjust(images))

    def exported(self) -> Exported:
        """The call, whose images are normalised for the transform network, not for the perceptual one."""
        return replace(super().exported(), normalize=self.adjust)

    def stylize(self, contents: Tensor, styles: Sequence[Tensor] = (), weights: Sequence[float] = ()) -> Tensor:
        """Contents in the style, mixed with themselves where the strength is below 1."""
        return torch.lerp(contents, self(contents).to(contents.dtype), self.strength)

    @torch.no_grad()
    def pictures(self) -> dict[str, list[Image.Image]]:
        """A few contents above their results, from the last evaluation if there was one."""
        if self._shown is None:
            return {}
        contents = self._shown[0][:SHOWN]
        shown = [drawing.to_picture(image) for image in [*contents, *self.stylize(contents)]]
        return {"stylised": [drawing.grid(shown, len(contents))]}
