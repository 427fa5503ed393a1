"""U-Net over any backbone: the decoder of Ronneberger et al. 2015 on a classification network's feature maps.

From the coarsest feature map on, each step doubles the size, appends the backbone's feature map of that size if it has
one, and convolves twice, up to the size of the image.

Deviations: padded convolutions with batch norm, bilinear upsampling in place of transposed convolutions, and a batch
norm on each of the backbone's feature maps. Of EfficientNet-Lite0's, the fine ones have two to four times the standard
deviation of the coarsest; unscaled, they leave 2 to 4 % of a step's variance to what comes from the coarser maps, which
know the classes, and nearly nothing of it reaches the logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.segmenter import Segmenter, conv_norm
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory

WIDEST = 16  # times the width, at most


class BackboneUNet(Segmenter):
    """A U-Net whose contracting path is a backbone.

    Args:
        backbone: any architecture with stages.
        width: the decoder's channels at the size of the image; they double with each halving, up to 16 times.
        num_classes: channels of the logits.
        in_channels: channels of the images.
        image_size: height and width, for backbones that are built for one size.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W)

    Raises:
        UserError: the width is not at least 1, or a stage's reduction is not a power of two.
    """

    def __init__(
        self,
        backbone: ArchitectureFactory,
        width: int = 16,
        num_classes: int = 21,
        in_channels: int = 3,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(backbone, in_channels, image_size)
        if width < 1:
            raise UserError(f"BackboneUNet: width must be at least 1, not {width}")
        skips = {stage.reduction: stage for stage in self.backbone.stages}
        if odd := [r for r in skips if r & (r - 1)]:
            raise UserError(f"BackboneUNet: {type(self.backbone).__name__} has a stage of reduction {odd[0]}, not 2ⁿ")
        self.reductions = [2**n for n in reversed(range(max(skips).bit_length() - 1))]
        self.layers = {reduction: stage.layer for reduction, stage in skips.items()}
        self.norms = nn.ModuleDict({str(r): nn.BatchNorm2d(stage.channels) for r, stage in skips.items()})
        self.blocks = nn.ModuleList()
        channels = skips[max(skips)].channels
        for reduction in self.reductions:
            given = skips[reduction].channels if reduction in skips else 0
            outputs = width * min(reduction, WIDEST)
            self.blocks.append(nn.Sequential(conv_norm(channels + given, outputs, 3), conv_norm(outputs, outputs, 3)))
            channels = outputs
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        found = self.backbone.features(images, list(self.layers.values()))
        maps = {reduction: self.norms[str(reduction)](found[layer]) for reduction, layer in self.layers.items()}
        x = maps[max(maps)]
        for reduction, block in zip(self.reductions, self.blocks, strict=True):
            skip = maps.get(reduction)
            size = [-(-n // reduction) for n in images.shape[2:]] if skip is None else skip.shape[2:]
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            x = block(x if skip is None else torch.cat([x, skip], 1))
        return self.classifier(x)
