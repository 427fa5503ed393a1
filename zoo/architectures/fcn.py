"""FCN. Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", 2015.

The head is torchvision's: a 3×3 convolution to a quarter of the channels, batch norm, ReLU, dropout, and the
classifier. With ``TorchVision`` as the backbone, ``resnet50`` or ``resnet101`` and the options
``{replace_stride_with_dilation: [false, true, true]}``, the network is torchvision's, and its weights fit.

Deviations: torchvision's from the paper (one dilated feature map in place of sums of three; batch norm); and the logits
are of the feature map's size, since tasks resize them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torchvision.models.segmentation.fcn import FCNHead

from zoo.architectures.segmenter import AuxiliarySegmenter
from zoo.factories import ArchitectureFactory


class FCN(AuxiliarySegmenter):
    """A fully convolutional head on a backbone; 35,322,218 parameters as torchvision's FCN-R50 with its auxiliary head.

    Args:
        backbone: any architecture with stages; dilated for fine feature maps.
        layer: whose feature map the head takes; by default the last stage.
        aux_layer: whose feature map an auxiliary head takes in training, as ``network.layer3`` of torchvision's
            ResNets; None for no auxiliary head.
        weights: torchvision's, as ``FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1``, downloaded once; with another
            number of classes the last layers are initialised near zero. None leaves the backbone's.
        num_classes: channels of the logits.
        in_channels: channels of the images.
        image_size: height and width, for backbones that are built for one size.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, h, w) of the feature map's size; in training, with an
        auxiliary head, a pair of these

    Raises:
        UserError: the backbone has no such layer, or the weights are not for this network or can't be downloaded.
    """

    licence: ClassVar[str | None] = "BSD-3-Clause (torchvision)"
    published: ClassVar[tuple[str, ...]] = ("fcn_resnet50", "fcn_resnet101")

    def __init__(
        self,
        backbone: ArchitectureFactory,
        layer: str | None = None,
        aux_layer: str | None = None,
        weights: str | None = None,
        num_classes: int = 21,
        in_channels: int = 3,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(backbone, layer, aux_layer, in_channels, image_size)
        self.add_heads(lambda channels: FCNHead(channels, num_classes), lambda channels: FCNHead(channels, num_classes))
        heads: list[Any] = [self.classifier, self.aux_classifier]
        self.load_published(weights, in_channels, [head[-1] for head in heads if head is not None])
