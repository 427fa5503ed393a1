"""Faster R-CNN. Ren, He, Girshick and Sun, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", 2015 (arXiv 1506.01497), with the feature pyramid of Lin et al. 2017 (arXiv 1612.03144).

Heads, losses, matching and their initialisation are torchvision's, which ``load_state_dict`` accepts directly where the
backbone is our ``ResNet``. Over it, outputs equal those of ``torchvision.models.detection.fasterrcnn_resnet50_fpn``.

Deviations from torchvision:
- Images are normalised by the task, not here.
- The scale that boxes are pooled with is the level's own. torchvision estimates it once from the first images and their
  unpadded size, which is wrong for images much smaller than the padding, and is not saved.
- In mixed precision, anchors and boxes stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from zoo.architectures.detector import Detector, Resize, keep_float32
from zoo.architectures.pyramid import FeaturePyramid
from zoo.architectures.resnet import ResNet
from zoo.architectures.traceable import Traceable, TraceableTwoStage
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory

SAMPLES_PER_BIN = 2  # of bilinear interpolation, along each side
BOX_SIDE, MASK_SIDE = 7, 14  # cells along each side of a pooled box
EXAMPLE = {
    "backbone": partial(ResNet, depth=8, width=0.25),
    "levels": [2, 4],
    "pyramid_channels": 8,
    "anchor_sizes": [8, 16, 24],
    "min_size": None,
    "box_head_width": 16,
}


class FasterRCNN(Detector):
    """Proposals from anchors at every level, then a head that classifies and refines each proposal.

    41,808,406 parameters over ResNet-50 at 90 classes (torchvision's 41,755,286 without those of the backbone's
    normalisation, which it has frozen). The defaults are torchvision's.

    Args:
        backbone: any architecture with stages; built without classes.
        num_classes: without background.
        in_channels: channels of the images.
        levels: reductions of the backbone's stages in the pyramid, finest first.
        extra_level: add a level of half the resolution of the coarsest. Only proposals come from it.
        pyramid_channels: channels of every level.
        anchor_sizes: side in pixels of the square anchors, one for each level.
        aspect_ratios: height / width of the anchors.
        min_size: the shorter side that images are resized to; a list to draw from in training, of which evaluation
            takes the last. None to take images as they are.
        max_size: the longer side at most, where images are resized.
        pooled_levels: how many levels, from the finest, proposals are pooled from; by default all but the extra one.
        box_head_width: length of both hidden layers of the head.
        box_samples: proposals that are trained on, per image.
        anchor_samples: anchors that are trained on, per image.
        proposals_train: proposals in training, before suppression per level and after it per image.
        proposals_test: likewise in evaluation.
        score_threshold: detections of a lower score are left out.
        nms_threshold: overlap (IoU) above which the lower of two detections of one class is suppressed.
        detections_per_image: at most.

    Shape:
        as ``Detector``: images, targets -> losses; images -> detections

    Raises:
        UserError: the backbone lacks a stage, or ``anchor_sizes`` does not fit the levels.
    """

    tracer: ClassVar[type[Traceable]] = TraceableTwoStage
    example: ClassVar[dict[str, Any]] = EXAMPLE

    def __init__(
        self,
        backbone: ArchitectureFactory,
        num_classes: int = 80,
        in_channels: int = 3,
        levels: Sequence[int] = (4, 8, 16, 32),
        extra_level: bool = True,
        pyramid_channels: int = 256,
        anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        min_size: int | list[int] | None = 800,
        max_size: int = 1333,
        pooled_levels: int | None = None,
        box_head_width: int = 1024,
        box_samples: int = 512,
        anchor_samples: int = 256,
        proposals_train: int = 2000,
        proposals_test: int = 1000,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        detections_per_image: int = 100,
    ) -> None:
        super().__init__()
        extra = LastLevelMaxPool() if extra_level else None
        pyramid = FeaturePyramid(backbone, levels, pyramid_channels, extra, in_channels)
        self.pooled = _pooled(pyramid, pooled_levels)
        self.network = detection.FasterRCNN(
            pyramid,
            box_head=TwoMLPHead(pyramid_channels * BOX_SIDE**2, box_head_width),
            box_predictor=FastRCNNPredictor(box_head_width, num_classes + 1),
            box_roi_pool=pool(self.pooled, BOX_SIDE),
            rpn_anchor_generator=_anchors(anchor_sizes, aspect_ratios, len(levels) + extra_level),
            rpn_pre_nms_top_n_train=proposals_train,
            rpn_post_nms_top_n_train=proposals_train,
            rpn_pre_nms_top_n_test=proposals_test,
            rpn_post_nms_top_n_test=proposals_test,
            rpn_batch_size_per_image=anchor_samples,
            box_batch_size_per_image=box_samples,
            box_score_thresh=score_threshold,
            box_nms_thresh=nms_threshold,
            box_detections_per_img=detections_per_image,
        )
        self.network.transform = Resize(min_size, max_size, pyramid.divisor)
        keep_float32(self.network.rpn.head, self.network.roi_heads.box_predictor)


def _pooled(pyramid: FeaturePyramid, count: int | None) -> list[int]:
    """Reductions of the levels that boxes are pooled from."""
    reductions = [stage.reduction for stage in pyramid.stages]
    if count is not None and not 1 <= count <= len(reductions):
        raise UserError(f"pooled_levels must be from 1 to {len(reductions)}, the number of levels, not {count}")
    return reductions[:count]


def pool(reductions: Sequence[int], side: int) -> MultiScaleRoIAlign:
    """Crops of ``side`` cells of the level that fits a box's size (equation 1 of the feature pyramid's paper).

    Args:
        reductions: of the levels, finest first, each twice the one before.
        side: height and width of a crop, in cells.
    """
    made = MultiScaleRoIAlign([str(i) for i in range(len(reductions))], side, SAMPLES_PER_BIN)
    made.scales = [1 / reduction for reduction in reductions]
    made.map_levels = initLevelMapper(reductions[0].bit_length() - 1, reductions[-1].bit_length() - 1)
    return made


def _anchors(sizes: Sequence[int], ratios: Sequence[float], levels: int) -> AnchorGenerator:
    if len(sizes) != levels:
        raise UserError(f"anchor_sizes: expected one for each of {levels} levels, got {list(sizes)}")
    return AnchorGenerator(tuple((size,) for size in sizes), (tuple(ratios),) * levels)
