"""Any style at once (Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization").

A decoder learns to turn feature maps that were given a style's statistics into pictures (section 6). The encoder's
feature maps of the picture should be close to these feature maps in a deep layer, and should have the style's mean and
standard deviation in several layers (equations 11 to 13).

Deviations: both distances are relative to the target's own scale, so that weights mean the same for any encoder. A
small part of the loss is the distance between the correlations of neighbouring pixels: it preserves colours, which an
efficient network hardly responds to, and suppresses woven patterns. Values outside [0, 1] are penalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor
from torch.optim import Adam

from zoo import drawing
from zoo.architectures.base import should_load_pretrained
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts
from zoo.functional.style import (
    content_distance,
    histogram_distance,
    mean_of_layers,
    out_of_range,
    patch_gram,
    spectrum_distance,
    statistics_distance,
    whitened_distance,
    whitener,
)
from zoo.tasks.art.perceptual import layer_shares, say_if_random
from zoo.tasks.art.stylization import Batch, Stylization
from zoo.tasks.exported import Exported

RANGE = 30.0  # weight of the mean squared distance from pixels to [0, 1]
SHOWN = 3  # contents, and styles, in the picture of an evaluation
PARTS = ("style", "content", "patches", "range")
Maps = dict[str, Tensor]


class AdaptiveStyleTransfer(Stylization):
    """Trains a network that applies any style to pictures.

    Args:
        architecture: of the role ``stylizer``: a fixed encoder and a decoder; only the decoder is trained.
        style_layers: weights of the encoder's layers whose means and standard deviations should match the style's;
            default: those that the network renormalises.
        content_layers: weights of the layers whose feature maps should match the renormalised content's; default: the
            coarsest of those that the network renormalises.
        style_weight: weight of the distance of means and standard deviations; the content's weight is 1.
        patch_weight: weight of the correlations of neighbouring pixels, and so of colours, in 3x3 patches.
        strength: strength of the style at test and prediction: 0 for the content as the decoder reconstructs it, 1 for
            the full style.
        optimizer: optimiser of the decoder's parameters.
        scheduler: learning-rate scheduler.
        encoder_weights: checkpoint of any task that trained a network like the encoder; its weights are loaded.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        batch: contents in [0, 1], (B, 3, H, W), and styles, likewise -> images (B, 3, H, W)
    """

    network = "stylizer"
    may_change = ("encoder_weights",)  # which are in the checkpoint

    def __init__(
        self,
        architecture: ArchitectureFactory,
        style_layers: dict[str, float] | None = None,
        content_layers: dict[str, float] | None = None,
        style_weight: float = 10.0,
        patch_weight: float = 0.1,
        strength: float = 1.0,
        optimizer: OptimizerFactory = Adam,
        scheduler: SchedulerFactory | None = None,
        encoder_weights: str | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        if (least := min(style_weight, patch_weight)) < 0:
            raise UserError(f"model.style_weight and patch_weight must be at least 0, not {least}")
        self.style_layers, self.content_layers = style_layers, content_layers
        self.style_weight, self.patch_weight = style_weight, patch_weight
        self.encoder_weights = encoder_weights

    def build(self) -> None:
        """The network, the layers' shares and the metrics."""
        self.architecture = self.make("architecture")
        network = self.architecture
        if self.encoder_weights and should_load_pretrained():
            network.load_encoder(self.encoder_weights).show()
        elif should_load_pretrained() and (
            factory := getattr(self.factories["architecture"], "keywords", {}).get("encoder")
        ):
            say_if_random(network.encoder, factory, "architecture.encoder", "encoder_weights")
        self.hparams["encoder_weights"] = None  # the task's own checkpoints contain them
        mixed = [level.layer for level in network.levels]
        self.style_shares = layer_shares(network.encoder, self.style_layers, lambda: mixed)
        self.content_shares = layer_shares(network.encoder, self.content_layers, lambda: mixed[:1])
        self.build_metrics(PARTS)

    # Distances

    def look(self, images: Tensor) -> Maps:
        """Feature maps of every layer that is used, in one pass."""
        return self.architecture.encode(images, [*self.style_shares, *self.content_shares])

    def style(self, maps: Maps, styles: Maps) -> Tensor:
        """Distance of means and standard deviations relative to the style's own, averaged over the layers, (B,)."""
        return mean_of_layers(statistics_distance, self.style_shares, maps, styles)

    def content(self, maps: Maps, target: Maps) -> Tensor:
        """Squared distance of the feature maps relative to the target's variation, averaged over the layers, (B,)."""
        return mean_of_layers(content_distance, self.content_shares, maps, target)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Parts of the loss by name, weighted, each (B,)."""
        contents, styles = batch
        seen, wanted = self._look_at_both(contents, styles)
        target = self.architecture.mix(seen, [wanted])
        images = self.architecture.decode(target, contents.shape[2:])
        with torch.autocast(images.device.type, enabled=False):
            found, near = self.look(images), patch_gram(styles)
            return {
                "style": self.style_weight * self.style(found, wanted),
                "content": self.content(found, target),
                "patches": self.patch_weight * whitened_distance(patch_gram(images), near, whitener(near)),
                "range": RANGE * out_of_range(images),
            }

    def _look_at_both(self, contents: Tensor, styles: Tensor) -> tuple[Maps, Maps]:
        """Feature maps of contents and styles, which have the same size in training, in one pass."""
        maps, count = self.look(torch.cat([contents, styles])), len(contents)
        return {k: m[:count] for k, m in maps.items()}, {k: m[count:] for k, m in maps.items()}

    def figures(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Distances to style and content, and those of histogram (in units of the range) and spectrum (in decibels)."""
        contents, styles = batch
        seen, wanted = self._look_at_both(contents, styles)
        found, target = self.look(images), self.architecture.mix(seen, [wanted])
        return {
            "style": self.style(found, wanted),
            "content": self.content(found, target),
            "histogram": histogram_distance(images, styles),
            "spectrum": spectrum_distance(images, styles),
        }

    # Results

    def forward(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Contents in [0, 1], (B, 3, H, W), in the styles, (1 or B, 3, h, w), at the task's strength."""
        return self.stylize(contents, [styles], [1.0])

    def exported(self) -> Exported:
        """The call with contents and styles, both in the size of the training's images."""
        given, size = super().exported(), self.facts["image_size"]

        def inputs(count: int, generator: torch.Generator) -> dict[str, Tensor]:
            return {name: torch.rand(count, 3, *size, generator=generator) for name in ("contents", "styles")}

        notes = {"contents": "in [0, 1]", "styles": "in [0, 1]"}
        return replace(given, inputs=inputs, notes=notes, image_size=size)

    def stylize(self, contents: Tensor, styles: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Contents in the styles, whose renormalised feature maps are mixed, at the task's strength."""
        return self.architecture(contents, styles, self.strength, weights).clamp(0, 1)

    @torch.no_grad()
    def pictures(self) -> dict[str, list[Image.Image]]:
        """From the last evaluation: a few contents, one per row, in a few styles, which are shown in the first row."""
        if self._shown is None:
            return {}
        contents, styles = self._shown[0][:SHOWN], self._shown[1][:SHOWN].unique(dim=0)
        rows = [torch.ones_like(contents[:1]), *styles.split(1)]
        for content in contents.split(1):
            rows += [content, *(self(content, style) for style in styles.split(1))]
        shown = [drawing.to_picture(image[0]) for image in rows]
        return {"stylised": [drawing.grid(shown, 1 + len(styles))]}
