"""SegFormer's head. Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation", 2021.

The all-MLP decoder of section 3.2: every feature map is projected to the same number of channels, upsampled to a
quarter of the image, and all are fused by one more layer. Linear layers on pixels are 1×1 convolutions here.

As in the authors' code, the fusing layer has no bias and is followed by batch norm, ReLU and dropout of 0.1, of which
the paper says nothing.

Deviations: any backbone in place of the paper's encoder MiT; timm's ``pvt_v2`` are the closest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.segmenter import Segmenter, conv_norm
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory


class SegFormer(Segmenter):
    """SegFormer's all-MLP head on a backbone; with MiT-B0's channels and 150 classes, the head has 433,302 parameters.

    Args:
        backbone: any architecture with stages.
        layers: of the feature maps, finest first; by default the stages from a quarter of the image on.
        channels: of the projections; 256 for the paper's B0 and B1, 768 for the larger ones.
        dropout: in front of the classifier.
        num_classes: channels of the logits.
        in_channels: channels of the images.
        image_size: height and width, for backbones that are built for one size.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, h, w) of the finest feature map's size

    Raises:
        UserError: the backbone has no such layers.
    """

    def __init__(
        self,
        backbone: ArchitectureFactory,
        layers: Sequence[str] | None = None,
        channels: int = 256,
        dropout: float = 0.1,
        num_classes: int = 21,
        in_channels: int = 3,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(backbone, in_channels, image_size)
        self.layers = list(layers or (stage.layer for stage in self.backbone.stages if stage.reduction >= 4))
        if not self.layers:
            raise UserError(f"SegFormer: {type(self.backbone).__name__} has no stage below half the image: give layers")
        self.project = nn.ModuleList(nn.Conv2d(found, channels, 1) for found in self.channels_of(self.layers))
        self.fuse = conv_norm(channels * len(self.layers), channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        maps = list(self.backbone.features(images, self.layers).values())
        size = maps[0].shape[2:]
        projected = [layer(found) for layer, found in zip(self.project, maps, strict=True)]
        fine = [F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in projected]
        return self.classifier(self.dropout(self.fuse(torch.cat(fine, 1))))
