"""A feature pyramid for semantic segmentation. Kirillov, Girshick, He and Dollár, "Panoptic Feature Pyramid Networks",
2019, over any backbone.

As in Lin et al.'s pyramid, each of the backbone's feature maps is projected to the same number of channels and added to
the upsampled coarser one: the way from the coarse maps, which know the classes, to the logits is a sum, so that the
network learns with few images.

Deviations, all for small images and few computations, where each pixel of an outline counts:

- The paper upsamples each level by a branch of its own and adds them at a quarter of the image. Here the pyramid goes
  down to the stage of half the image, and each level is refined by one 3×3 convolution, whose result is added to it.
- The projections have batch norm, since feature maps of a backbone differ in scale.
- The image itself enters the finest level: the pixels of each place as channels, behind a 3×3 convolution.
- The logits of each place's pixels are channels of the classifier (Shi et al., "Real-Time Single Image and Video
  Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", 2016), in place of bilinear upsampling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.segmenter import Segmenter, conv_norm
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory
from zoo.functional.segmentation import resized


class SemanticFPN(Segmenter):
    """A feature pyramid whose finest level gives the classes of the pixels.

    Args:
        backbone: any architecture with stages.
        stride: reduction of the finest stage that is used; the coarser ones all are.
        channels: of every level.
        num_classes: channels of the logits.
        in_channels: channels of the images.
        image_size: height and width, for backbones that are built for one size.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W)

    Raises:
        UserError: the backbone has no stage of this reduction, or the channels are not at least 1.
    """

    def __init__(
        self,
        backbone: ArchitectureFactory,
        stride: int = 2,
        channels: int = 128,
        num_classes: int = 21,
        in_channels: int = 3,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(backbone, in_channels, image_size)
        if channels < 1:
            raise UserError(f"SemanticFPN: channels must be at least 1, not {channels}")
        known = [stage.reduction for stage in self.backbone.stages]
        if stride not in known:
            name, told = type(self.backbone).__name__, ", ".join(map(str, known))
            raise UserError(f"SemanticFPN: stride is the reduction of a stage of {name}, {told}, not {stride}")
        stages = sorted((s for s in self.backbone.stages if s.reduction >= stride), key=lambda s: -s.reduction)
        self.stride, pixels = stride, (self.backbone.fixed_channels or in_channels) * stride**2
        self.layers = [stage.layer for stage in stages]
        self.project = nn.ModuleList(conv_norm(stage.channels, channels, 1)[:-1] for stage in stages)
        self.refine = nn.ModuleList(conv_norm(channels, channels, 3) for _ in stages)
        self.pixels = conv_norm(pixels, channels, 3)
        self.classifier = nn.Conv2d(channels, num_classes * stride**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % self.stride, 0, -height % self.stride))
        pixels = self.pixels(F.pixel_unshuffle(padded, self.stride))
        maps = list(self.backbone.features(images, self.layers).values())
        levels = [project(found) for project, found in zip(self.project, maps, strict=True)]
        levels[-1] = resized(levels[-1], pixels.shape[2:]) + pixels  # some backbones round sizes down
        x = torch.zeros_like(levels[0])
        for level, refine in zip(levels, self.refine, strict=True):
            x = F.relu(level + resized(x, level.shape[2:]))
            x = x + refine(x)
        return F.pixel_shuffle(self.classifier(x), self.stride)[..., :height, :width]
