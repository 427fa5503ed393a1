"""SSDlite. Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018
(arXiv 1801.04381), section 6.2, over MobileNetV3 with a reduced tail (Howard et al. 2019, arXiv 1905.02244, 6.3).

Blocks, losses, matching and their initialisation are torchvision's (``ssdlite320_mobilenet_v3_large``).

Deviations from torchvision: images are normalised by the task, not here; ``size`` may be another than 320, since the
anchors are relative to it; in mixed precision, boxes stay in float32.
"""

from __future__ import annotations

from typing import Any, ClassVar

from zoo.architectures.detector import Resize
from zoo.architectures.torchvision_detector import TorchVisionDetector

NAME = "ssdlite320_mobilenet_v3_large"


class SSDlite(TorchVisionDetector):
    """One stage with depthwise convolutions, for small devices; 3,440,060 parameters at 90 classes.

    Args:
        weights: ``COCO_V1`` or ``DEFAULT`` of torchvision, downloaded once; None for random weights. With other than
            COCO's 80 classes the last layers are new.
        num_classes: without background.
        in_channels: channels of the images.
        size: side in pixels of the square that images are resized to, whatever their proportions.
        score_threshold: detections of a lower score are left out.
        nms_threshold: overlap (IoU) above which the lower of two detections of one class is suppressed.
        detections_per_image: at most.
        candidates: detections per class that suppression looks at, at most.

    Shape:
        as ``Detector``: images, targets -> losses; images -> detections

    Raises:
        UserError: there are no such weights, or they can't be downloaded.
    """

    example: ClassVar[dict[str, Any]] = {"num_classes": 4, "size": 64}

    def __init__(
        self,
        weights: str | None = None,
        num_classes: int = 80,
        in_channels: int = 3,
        size: int = 320,
        score_threshold: float = 0.001,
        nms_threshold: float = 0.55,
        detections_per_image: int = 300,
        candidates: int = 300,
    ) -> None:
        super().__init__(NAME, weights, num_classes, in_channels)
        self.network.score_thresh, self.network.nms_thresh = score_threshold, nms_threshold
        self.network.detections_per_img, self.network.topk_candidates = detections_per_image, candidates
        self.network.transform = Resize(size, size, 1, (size, size))

    @classmethod
    def pretrained_classes(cls, arguments: Any) -> list[str]:
        """COCO's 80 classes, in the order of their ids."""
        return TorchVisionDetector.pretrained_classes({**arguments, "name": NAME})
