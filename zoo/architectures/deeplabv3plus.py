"""DeepLabV3+. Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", 2018.

The pyramid of DeepLabV3 is upsampled to a quarter of the image and refined there, together with a fine feature map that
is reduced to 48 channels, by two 3×3 convolutions of 256 (sections 3.1 and 4.1).

Deviations: plain convolutions, as the paper's ResNet-101 variant has them (table 3), not separable ones; and the logits
are of a quarter of the image's size, since tasks resize them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP

from zoo.architectures.segmenter import Segmenter, conv_norm
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory

CHANNELS = 256
LOW_CHANNELS = 48  # table 1


class DeepLabV3Plus(Segmenter):
    """Atrous spatial pyramid pooling with a decoder, on a backbone.

    Args:
        backbone: any architecture with stages; the paper's are dilated to a reduction of 16.
        layers: the fine and the coarse layer; by default the stage of a quarter of the image and the last one.
        rates: dilations of the pyramid, for feature maps of a sixteenth of the image (section 4.1).
        num_classes: channels of the logits.
        in_channels: channels of the images.
        image_size: height and width, for backbones that are built for one size.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, h, w) of the fine feature map's size. Batches in
        training have at least two images (batch norm of their means).

    Raises:
        UserError: the backbone has no such layers.
    """

    def __init__(
        self,
        backbone: ArchitectureFactory,
        layers: Sequence[str] | None = None,
        rates: Sequence[int] = (6, 12, 18),
        num_classes: int = 21,
        in_channels: int = 3,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(backbone, in_channels, image_size)
        self.layers = list(layers or (self.stage_at(4).layer, self.backbone.stages[-1].layer))
        if len(self.layers) != 2:
            raise UserError(f"DeepLabV3Plus: layers are a fine and a coarse one, not {', '.join(self.layers)}")
        low, high = self.channels_of(self.layers)
        self.pyramid = ASPP(high, list(rates), CHANNELS)
        self.reduce = conv_norm(low, LOW_CHANNELS, 1)
        self.refine = nn.Sequential(conv_norm(CHANNELS + LOW_CHANNELS, CHANNELS, 3), conv_norm(CHANNELS, CHANNELS, 3))
        self.classifier = nn.Conv2d(CHANNELS, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        low, high = self.backbone.features(images, self.layers).values()
        context = F.interpolate(self.pyramid(high), size=low.shape[2:], mode="bilinear", align_corners=False)
        return self.classifier(self.refine(torch.cat([context, self.reduce(low)], 1)))
