"""DeepLabV3. Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, as torchvision has it.

The head is torchvision's: atrous spatial pyramid pooling (a 1×1 convolution, three dilated 3×3 convolutions and the
mean of the feature map, section 3.3), a 3×3 convolution, and the classifier. With ``TorchVision`` as the backbone,
``resnet50`` or ``resnet101`` and the options ``{replace_stride_with_dilation: [false, true, true]}``, the network is
torchvision's, and its weights fit.

Deviations: torchvision's from the paper (a 3×3 convolution after the pyramid; an auxiliary head); and the logits are of
the feature map's size, since tasks resize them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from zoo.architectures.segmenter import AuxiliarySegmenter
from zoo.factories import ArchitectureFactory


class DeepLabV3(AuxiliarySegmenter):
    """Atrous spatial pyramid pooling on a backbone; 42,004,074 parameters as torchvision's DeepLabV3-R50.

    Args:
        backbone: any architecture with stages; dilated for fine feature maps.
        layer: whose feature map the head takes; by default the last stage.
        aux_layer: whose feature map an auxiliary head, FCN's, takes in training, as ``network.layer3`` of torchvision's
            ResNets; None for no auxiliary head.
        rates: dilations of the pyramid; these are for feature maps of an eighth of the image, half of them for a
            sixteenth (section 3.3).
        weights: torchvision's, as ``DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1``, downloaded once; with another
            number of classes the last layers are initialised near zero. None leaves the backbone's.
        num_classes: channels of the logits.
        in_channels: channels of the images.
        image_size: height and width, for backbones that are built for one size.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, h, w) of the feature map's size; in training, with an
        auxiliary head, a pair of these. Batches in training have at least two images (batch norm of their means).

    Raises:
        UserError: the backbone has no such layer, or the weights are not for this network or can't be downloaded.
    """

    licence: ClassVar[str | None] = "BSD-3-Clause (torchvision)"
    published: ClassVar[tuple[str, ...]] = ("deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large")

    def __init__(
        self,
        backbone: ArchitectureFactory,
        layer: str | None = None,
        aux_layer: str | None = None,
        rates: Sequence[int] = (12, 24, 36),
        weights: str | None = None,
        num_classes: int = 21,
        in_channels: int = 3,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(backbone, layer, aux_layer, in_channels, image_size)
        self.add_heads(
            lambda channels: DeepLabHead(channels, num_classes, rates), lambda channels: FCNHead(channels, num_classes)
        )
        heads: list[Any] = [self.classifier, self.aux_classifier]
        self.load_published(weights, in_channels, [head[-1] for head in heads if head is not None])
