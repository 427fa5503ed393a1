"""RetinaNet. Lin, Goyal, Girshick, He and Dollár, "Focal Loss for Dense Object Detection", 2017 (arXiv 1708.02002).

Head, losses, matching and their initialisation are torchvision's. Over our ``ResNet``, weights and outputs equal those
of ``torchvision.models.detection.retinanet_resnet50_fpn``, whose level P6 is computed from P5 where the paper has C5.

Deviations from torchvision: images are normalised by the task, not here; there is no background class (torchvision's
COCO weights have an unused one); in mixed precision, anchors and boxes stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from zoo.architectures.detector import Detector, Resize, keep_float32
from zoo.architectures.pyramid import FeaturePyramid
from zoo.architectures.resnet import ResNet
from zoo.architectures.traceable import Traceable, TraceableOneStage
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory


class RetinaNet(Detector):
    """One stage: at every level, each anchor is classified with the focal loss and moved to its object.

    34,068,119 parameters over ResNet-50 at 91 classes (torchvision's 34,014,999 without those of the backbone's
    normalisation, which it has frozen). The defaults are torchvision's.

    Args:
        backbone: any architecture with stages; built without classes.
        num_classes: without background.
        in_channels: channels of the images.
        levels: reductions of the backbone's stages in the pyramid, finest first.
        extra_levels: add two coarser levels by strided convolutions.
        pyramid_channels: channels of every level.
        anchor_sizes: side in pixels of the smallest square anchor, one for each level.
        anchors_per_octave: anchors of one shape from this size to below its double.
        aspect_ratios: height / width of the anchors.
        min_size: the shorter side that images are resized to; a list to draw from in training, of which evaluation
            takes the last. None to take images as they are.
        max_size: the longer side at most, where images are resized.
        score_threshold: detections of a lower score are left out.
        nms_threshold: overlap (IoU) above which the lower of two detections of one class is suppressed.
        detections_per_image: at most.
        candidates: detections per level that suppression looks at, at most.

    Shape:
        as ``Detector``: images, targets -> losses; images -> detections

    Raises:
        UserError: the backbone lacks a stage, or ``anchor_sizes`` does not fit the levels.
    """

    background: ClassVar[int] = 0
    tracer: ClassVar[type[Traceable]] = TraceableOneStage
    example: ClassVar[dict[str, Any]] = {
        "backbone": partial(ResNet, depth=8, width=0.25),
        "levels": [4],
        "pyramid_channels": 8,
        "anchor_sizes": [8, 12, 16],
        "min_size": None,
    }

    def __init__(
        self,
        backbone: ArchitectureFactory,
        num_classes: int = 80,
        in_channels: int = 3,
        levels: Sequence[int] = (8, 16, 32),
        extra_levels: bool = True,
        pyramid_channels: int = 256,
        anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
        anchors_per_octave: int = 3,
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        min_size: int | list[int] | None = 800,
        max_size: int = 1333,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        detections_per_image: int = 300,
        candidates: int = 1000,
    ) -> None:
        super().__init__()
        extra = LastLevelP6P7(pyramid_channels, pyramid_channels) if extra_levels else None
        pyramid = FeaturePyramid(backbone, levels, pyramid_channels, extra, in_channels)
        count = len(levels) + 2 * extra_levels
        if len(anchor_sizes) != count:
            raise UserError(f"anchor_sizes: expected one for each of {count} levels, got {list(anchor_sizes)}")
        sizes = (tuple(int(s * 2 ** (k / anchors_per_octave)) for k in range(anchors_per_octave)) for s in anchor_sizes)
        self.network = detection.RetinaNet(
            pyramid,
            num_classes,
            anchor_generator=AnchorGenerator(tuple(sizes), (tuple(aspect_ratios),) * count),
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=detections_per_image,
            topk_candidates=candidates,
        )
        self.network.transform = Resize(min_size, max_size, pyramid.divisor)
        keep_float32(self.network.head)
