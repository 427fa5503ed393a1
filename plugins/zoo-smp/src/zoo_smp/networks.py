"""The networks of segmentation-models-pytorch (Iakubovskii), under its names with ``Smp`` in front.

Each is a decoder over an encoder: see ``zoo_smp.adapter.SmpSegmenter`` for what they share. The zoo's own networks
over a backbone (``BackboneUNet``, ``DeepLabV3Plus``, ``SegFormer``, …) take any of the zoo's architectures instead, and
start from its checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import segmentation_models_pytorch as smp

from zoo.architectures.base import refuse_bad_size
from zoo_smp.adapter import SmpSegmenter
from zoo_smp.encoders import TIMM

STRIDE = 32  # of the coarsest map of DPT's decoder

# A small encoder and small decoders, for tests.
TINY: dict[str, Any] = {"encoder_name": "tu-test_resnet"}
FIVE_BLOCKS: dict[str, Any] = {**TINY, "options": {"decoder_channels": [24, 16, 16, 8, 8]}}


class SmpUnet(SmpSegmenter):
    """U-Net over an encoder. Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image
    Segmentation", 2015.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W)
    """

    library = smp.Unet
    example: ClassVar[dict[str, Any]] = FIVE_BLOCKS


class SmpUnetPlusPlus(SmpSegmenter):
    """U-Net++. Zhou, Siddiquee, Tajbakhsh and Liang, "UNet++: A Nested U-Net Architecture for Medical Image
    Segmentation", 2018: the skip connections are dense blocks. Not over the encoders ``mit_b0`` to ``mit_b5``.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W)
    """

    library = smp.UnetPlusPlus
    example: ClassVar[dict[str, Any]] = FIVE_BLOCKS


class SmpMAnet(SmpSegmenter):
    """MA-Net. Fan, Wang, Li and Wang, "MA-Net: A Multi-Scale Attention Network for Liver and Tumor Segmentation", 2020:
    a U-Net with attention between positions at its bottom and between channels at its skip connections.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W)
    """

    library = smp.MAnet
    example: ClassVar[dict[str, Any]] = {
        # With a fifth stage, attention between the positions of small images would have only one; and with the tiny
        # encoder's few channels, attention between channels would have two hidden units, which may both be zero.
        "encoder_name": "resnet18",
        "options": {"encoder_depth": 4, "decoder_channels": [32, 16, 16, 16], "decoder_pab_channels": 8},
    }


class SmpLinknet(SmpSegmenter):
    """LinkNet. Chaurasia and Culurciello, "LinkNet: Exploiting Encoder Representations for Efficient Semantic
    Segmentation", 2017: skip connections are added. Not over the encoders ``mit_b0`` to ``mit_b5``.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W)
    """

    library = smp.Linknet
    example: ClassVar[dict[str, Any]] = TINY


class SmpFPN(SmpSegmenter):
    """A feature pyramid whose levels are summed up at a quarter of the image. Kirillov, Girshick, He and Dollár,
    "Panoptic Feature Pyramid Networks", 2019.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W)
    """

    library = smp.FPN
    example: ClassVar[dict[str, Any]] = {
        **TINY,
        "options": {"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 64},
    }


class SmpPSPNet(SmpSegmenter):
    """PSPNet. Zhao, Shi, Qi, Wang and Jia, "Pyramid Scene Parsing Network", 2017: means over regions of several sizes,
    on feature maps of an eighth of the image.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W)
    """

    library = smp.PSPNet
    example: ClassVar[dict[str, Any]] = {**TINY, "options": {"psp_out_channels": 32}}


class SmpDeepLabV3(SmpSegmenter):
    """DeepLabV3. Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation",
    2017. The encoder has to be one that can be dilated.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W). Batches in training have at least two images
        (batch norm of their means).
    """

    library = smp.DeepLabV3
    example: ClassVar[dict[str, Any]] = {**TINY, "options": {"decoder_channels": 16}}


class SmpDeepLabV3Plus(SmpSegmenter):
    """DeepLabV3+. Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution for
    Semantic Image Segmentation", 2018. The encoder has to be one that can be dilated.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W). Batches in training have at least two images
        (batch norm of their means).
    """

    library = smp.DeepLabV3Plus
    example: ClassVar[dict[str, Any]] = {**TINY, "options": {"decoder_channels": 16}}


class SmpPAN(SmpSegmenter):
    """PAN. Li, Xiong, An and Wang, "Pyramid Attention Network for Semantic Segmentation", 2018. The encoder has to be
    one that can be dilated.

    Its attention halves the last feature map three times, so that images below 128 pixels are padded to 128.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W). Batches in training have at least two images
        (batch norm of their means).
    """

    library = smp.PAN
    smallest_map: ClassVar[int] = 8
    example: ClassVar[dict[str, Any]] = {**TINY, "options": {"decoder_channels": 16}}


class SmpUPerNet(SmpSegmenter):
    """UPerNet. Xiao, Liu, Zhou, Jiang and Sun, "Unified Perceptual Parsing for Scene Understanding", 2018: a pyramid of
    means over regions, and a feature pyramid.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W). Batches in training have at least two images
        (batch norm of their means).
    """

    library = smp.UPerNet
    example: ClassVar[dict[str, Any]] = {**TINY, "options": {"decoder_channels": 16}}


class SmpSegFormer(SmpSegmenter):
    """SegFormer. Xie, Wang, Yu, Anandkumar, Alvarez and Luo, "SegFormer: Simple and Efficient Design for Semantic
    Segmentation with Transformers", 2021; its encoders are ``mit_b0`` to ``mit_b5``.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W)
    """

    library = smp.Segformer
    example: ClassVar[dict[str, Any]] = {**TINY, "options": {"decoder_segmentation_channels": 16}}


class SmpDPT(SmpSegmenter):
    """DPT. Ranftl, Bochkovskiy and Koltun, "Vision Transformers for Dense Prediction", 2021: maps of four blocks of a
    vision transformer of timm, with patches of 8, 16 or 32 pixels.

    Args:
        image_size: height and width of the images, for which position embeddings are made; by default the encoder's
            own. Images of other sizes get them interpolated.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes, H, W)
    """

    library = smp.DPT
    example: ClassVar[dict[str, Any]] = {
        "encoder_name": "tu-test_vit",
        "options": {"decoder_intermediate_channels": [8, 8, 8, 8], "decoder_fusion_channels": 16},
    }

    def __init__(
        self,
        encoder_name: str = "tu-vit_base_patch16_224.augreg_in21k",
        encoder_weights: str | None = None,
        options: dict[str, Any] | None = None,
        num_classes: int = 21,
        in_channels: int = 3,
        image_size: Sequence[int] | None = None,
    ) -> None:
        sizes: dict[str, Any] = {"dynamic_img_size": True} if encoder_name.startswith(TIMM) else {}
        if sizes and image_size is not None:
            sizes["img_size"] = tuple(-(-side // STRIDE) * STRIDE for side in image_size)
        super().__init__(encoder_name, encoder_weights, {**sizes, **(options or {})}, num_classes, in_channels)
        if image_size is not None:
            refuse_bad_size(self, type(self).__name__, in_channels, image_size)

    def multiple(self, network: Any) -> int:
        """The coarsest of the decoder's maps has a 32nd of the image's size."""
        return STRIDE
