"""Instance segmentation: detection with a mask for each object."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from zoo.metrics.coco import Kind
from zoo.metrics.detection import DetectionMetrics
from zoo.tasks.detected import Detected, write_masks
from zoo.tasks.detection import Detection


class InstanceSegmentation(Detection):
    """Trains a network to find objects: their boxes, classes and masks.

    It takes the arguments of ``Detection``. Evaluation gives the figures of the boxes and, as ``mask_map`` and so on,
    those of the masks; the masks' mean average precision chooses the best checkpoint.

    Shape:
        list of images (C, H, W) in [0, 1] of any sizes -> list of dictionaries with ``boxes`` (N, 4), ``scores`` (N,),
        ``labels`` (N,) and ``masks`` (N, H, W) as probabilities
    """

    batch = "instance_segmentation"
    monitor = "val/mask_map"
    overlap_of: ClassVar[Kind] = "masks"

    def new_metrics(self) -> DetectionMetrics:
        """The metrics of an evaluation, of boxes and of masks."""
        return DetectionMetrics(self.facts["num_classes"], masks=True, voc=self.voc)

    def write_files(self, folder: Path, results: list[Detected]) -> None:
        """Each picture's objects as YOLO's text in ``labels``, and its masks as an indexed PNG in ``masks``."""
        super().write_files(folder, results)
        for result in results:
            write_masks(folder, result)
