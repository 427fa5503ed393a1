"""Mask R-CNN. He, Gkioxari, Dollár and Girshick, "Mask R-CNN", 2017 (arXiv 1703.06870).

Faster R-CNN with a third head, which predicts each box's mask class by class. Head, loss and initialisation are
torchvision's. Deviations from torchvision are those of ``FasterRCNN``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from zoo.architectures.detector import keep_float32
from zoo.architectures.faster_rcnn import EXAMPLE, MASK_SIDE, FasterRCNN, pool
from zoo.architectures.traceable import Traceable, TraceableMasks
from zoo.factories import ArchitectureFactory


class MaskRCNN(FasterRCNN):
    """Faster R-CNN that also predicts a mask in each box; 44,454,513 parameters over ResNet-50 at 90 classes.

    Args:
        backbone: any architecture with stages; built without classes.
        num_classes: without background.
        in_channels: channels of the images.
        levels: reductions of the backbone's stages in the pyramid, finest first; a finer one gives finer masks.
        extra_level: add a level of half the resolution of the coarsest. Only proposals come from it.
        pyramid_channels: channels of every level.
        anchor_sizes: side in pixels of the square anchors, one for each level.
        aspect_ratios: height / width of the anchors.
        min_size: the shorter side that images are resized to; a list to draw from in training, of which evaluation
            takes the last. None to take images as they are.
        max_size: the longer side at most, where images are resized.
        pooled_levels: how many levels, from the finest, proposals are pooled from; by default all but the extra one.
        box_head_width: length of both hidden layers of the box head.
        mask_head_widths: channels of the mask head's convolutions; its upsampling has the last one's.
        box_samples: proposals that are trained on, per image.
        anchor_samples: anchors that are trained on, per image.
        proposals_train: proposals in training, before suppression per level and after it per image.
        proposals_test: likewise in evaluation.
        score_threshold: detections of a lower score are left out.
        nms_threshold: overlap (IoU) above which the lower of two detections of one class is suppressed.
        detections_per_image: at most.

    Shape:
        as ``Detector``, with ``masks`` (N, H, W) of bool among the targets; detections also have ``masks``, the
        probabilities (N, H, W) of the image's pixels

    Raises:
        UserError: the backbone lacks a stage, ``anchor_sizes`` does not fit the levels, or targets have no masks.
    """

    roles: ClassVar[tuple[str, ...]] = ("instance_segmenter", "detector")
    target_names: ClassVar[tuple[str, ...]] = ("boxes", "labels", "masks")
    tracer: ClassVar[type[Traceable]] = TraceableMasks
    example: ClassVar[dict[str, Any]] = {**EXAMPLE, "mask_head_widths": [8]}

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
        mask_head_widths: Sequence[int] = (256, 256, 256, 256),
        box_samples: int = 512,
        anchor_samples: int = 256,
        proposals_train: int = 2000,
        proposals_test: int = 1000,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        detections_per_image: int = 100,
    ) -> None:
        super().__init__(
            backbone,
            num_classes,
            in_channels,
            levels,
            extra_level,
            pyramid_channels,
            anchor_sizes,
            aspect_ratios,
            min_size,
            max_size,
            pooled_levels,
            box_head_width,
            box_samples,
            anchor_samples,
            proposals_train,
            proposals_test,
            score_threshold,
            nms_threshold,
            detections_per_image,
        )
        heads, width = self.network.roi_heads, mask_head_widths[-1]
        heads.mask_roi_pool = pool(self.pooled, MASK_SIDE)
        heads.mask_head = MaskRCNNHeads(pyramid_channels, mask_head_widths, dilation=1)
        heads.mask_predictor = MaskRCNNPredictor(width, width, num_classes + 1)
        keep_float32(heads.mask_predictor)

    def _from_network(self, found: dict[str, Tensor], size: Sequence[int]) -> dict[str, Tensor]:
        return super()._from_network({**found, "masks": found["masks"][:, 0]}, size)
