"""FCOS. Tian, Shen, Chen and He, "FCOS: Fully Convolutional One-Stage Object Detection", 2019 (arXiv 1904.01355).

Head, losses, matching and their initialisation are torchvision's. Over our ``ResNet``, weights and outputs equal those
of ``torchvision.models.detection.fcos_resnet50_fpn``.

Deviations from torchvision: images are normalised by the task, not here; there is no background class (torchvision's
COCO weights have an unused one); in mixed precision, boxes stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from zoo.architectures.detector import Detector, Resize, keep_float32
from zoo.architectures.pyramid import FeaturePyramid
from zoo.architectures.resnet import ResNet
from zoo.architectures.traceable import Traceable, TraceableFCOS
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory

GROUPS = 32  # of the heads' group normalisation


class FCOS(Detector):
    """One stage without anchors: each place of a level predicts the class and the four sides of the box around it.

    32,322,720 parameters over ResNet-50 at 91 classes (torchvision's 32,269,600 without those of the backbone's
    normalisation, which it has frozen). The defaults are torchvision's.

    Args:
        backbone: any architecture with stages; built without classes.
        num_classes: without background.
        in_channels: channels of the images.
        levels: reductions of the backbone's stages in the pyramid, finest first. A level is for objects of 4 to 8 times
            its reduction, the first and the last also for smaller and larger ones.
        extra_levels: add two coarser levels by strided convolutions.
        pyramid_channels: channels of every level, a multiple of 32.
        head_depth: convolutions of each branch of the head.
        center_radius: places within so many cells of an object's centre learn it.
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
        UserError: the backbone lacks a stage, or ``pyramid_channels`` is no multiple of 32.
    """

    background: ClassVar[int] = 0
    tracer: ClassVar[type[Traceable]] = TraceableFCOS
    example: ClassVar[dict[str, Any]] = {
        "backbone": partial(ResNet, depth=8, width=0.25),
        "levels": [2, 4],
        "extra_levels": False,
        "pyramid_channels": 32,
        "head_depth": 1,
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
        head_depth: int = 4,
        center_radius: float = 1.5,
        min_size: int | list[int] | None = 800,
        max_size: int = 1333,
        score_threshold: float = 0.2,
        nms_threshold: float = 0.6,
        detections_per_image: int = 100,
        candidates: int = 1000,
    ) -> None:
        super().__init__()
        if pyramid_channels % GROUPS:
            raise UserError(f"FCOS: pyramid_channels must be a multiple of {GROUPS}, not {pyramid_channels}")
        extra = LastLevelP6P7(pyramid_channels, pyramid_channels) if extra_levels else None
        pyramid = FeaturePyramid(backbone, levels, pyramid_channels, extra, in_channels)
        cells = [*levels, *((2 * levels[-1], 4 * levels[-1]) if extra_levels else ())]
        self.network = detection.FCOS(
            pyramid,
            num_classes,
            anchor_generator=AnchorGenerator(tuple((cell,) for cell in cells), ((1.0,),) * len(cells)),
            head=FCOSHead(pyramid_channels, 1, num_classes, head_depth),
            center_sampling_radius=center_radius,
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=detections_per_image,
            topk_candidates=candidates,
        )
        self.network.transform = Resize(min_size, max_size, pyramid.divisor)
        keep_float32(self.network.head)
