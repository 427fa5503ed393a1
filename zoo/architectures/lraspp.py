"""Lite R-ASPP. Howard et al., "Searching for MobileNetV3", 2019, section 6.4, as torchvision has it.

A coarse feature map is scaled by its mean and added to a finer one, each as logits. With ``TorchVision`` as the
backbone, ``mobilenet_v3_large`` and the options ``{dilated: true}``, and the layers ``network.features.4`` and
``network.features.16``, the network is torchvision's, and its weights fit.

Deviations: torchvision's from the paper (the mean of the whole feature map instead of pooling by 49×49 with strides);
and the logits are of the finer feature map's size, since tasks resize them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torchvision.models.segmentation.lraspp import LRASPPHead

from zoo.architectures.segmenter import Segmenter
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory


class LRASPP(Segmenter):
    """A light head on a backbone; 3,221,538 parameters as torchvision's LR-ASPP MobileNetV3-Large.

    Args:
        backbone: any architecture with stages.
        layers: the fine and the coarse layer; by default the stage of an eighth of the image and the last one.
        channels: of the coarse feature map's branch.
        weights: torchvision's, ``LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1``, downloaded once; with
            another number of classes the last layers are initialised near zero. None leaves the backbone's.
        num_classes: channels of the logits.
        in_channels: channels of the images.
        image_size: height and width, for backbones that are built for one size.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, h, w) of the fine feature map's size

    Raises:
        UserError: the backbone has no such layers, or the weights are not for this network or can't be downloaded.
    """

    licence: ClassVar[str | None] = "BSD-3-Clause (torchvision)"
    published: ClassVar[tuple[str, ...]] = ("lraspp_mobilenet_v3_large",)

    def __init__(
        self,
        backbone: ArchitectureFactory,
        layers: Sequence[str] | None = None,
        channels: int = 128,
        weights: str | None = None,
        num_classes: int = 21,
        in_channels: int = 3,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(backbone, in_channels, image_size)
        self.layers = list(layers or (self.stage_at(8).layer, self.backbone.stages[-1].layer))
        if len(self.layers) != 2:
            raise UserError(f"LRASPP: layers are a fine and a coarse one, not {', '.join(self.layers)}")
        self.classifier = LRASPPHead(*self.channels_of(self.layers), num_classes, channels)
        last = [self.classifier.low_classifier, self.classifier.high_classifier]
        self.load_published(weights, in_channels, last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        low, high = self.backbone.features(images, self.layers).values()
        return self.classifier({"low": low, "high": high})
