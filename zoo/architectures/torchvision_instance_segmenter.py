"""torchvision's Mask R-CNN under torchvision's names, with torchvision's weights of COCO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from zoo.architectures.detector import keep_float32
from zoo.architectures.torchvision_detector import TorchVisionDetector


class TorchVisionInstanceSegmenter(TorchVisionDetector):
    """An instance segmenter of torchvision.

    Args:
        name: ``maskrcnn_resnet50_fpn`` or ``maskrcnn_resnet50_fpn_v2``.
        weights: name of torchvision's weights for it, ``COCO_V1`` or ``DEFAULT``, downloaded once from
            download.pytorch.org; None for random weights. With other than COCO's 80 classes the last layers are new.
        num_classes: without background.
        in_channels: channels of the images.
        options: further arguments of torchvision's function, such as ``min_size`` or ``box_score_thresh``.

    Shape:
        as ``MaskRCNN``: images, targets with masks -> losses; images -> detections with masks (N, H, W)

    Raises:
        UserError: torchvision has no such network or weights, they can't be downloaded, or the network can't take the
            options.
    """

    roles: ClassVar[tuple[str, ...]] = ("instance_segmenter", "detector")
    target_names: ClassVar[tuple[str, ...]] = ("boxes", "labels", "masks")
    with_masks: ClassVar[bool] = True
    partly_trained: ClassVar[tuple[str, ...]] = ()
    example: ClassVar[dict[str, Any]] = {
        "name": "maskrcnn_resnet50_fpn",
        "num_classes": 4,
        "options": {"min_size": 32, "max_size": 32, "rpn_post_nms_top_n_train": 20, "rpn_post_nms_top_n_test": 20},
    }

    def __init__(
        self,
        name: str = "maskrcnn_resnet50_fpn",
        weights: str | None = None,
        num_classes: int = 80,
        in_channels: int = 3,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, weights, num_classes, in_channels, options)
        keep_float32(self.network.roi_heads.mask_predictor)

    def _from_network(self, found: dict[str, Tensor], size: Sequence[int]) -> dict[str, Tensor]:
        return super()._from_network({**found, "masks": found["masks"][:, 0]}, size)
