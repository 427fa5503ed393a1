"""Metrics of semantic segmentation from one confusion matrix over all pixels: IoU, Dice and pixel accuracy.

The matrix is accumulated over the whole set before any ratio is taken, as in PASCAL VOC and Cityscapes; the mean over
images of each image's IoU is another number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def count_pixels(preds: Tensor, masks: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """The confusion matrix of pixels, int64 (K, K); rows are the true classes.

    Args:
        preds: class numbers below K (B, H, W), or logits (B, K, H, W) of the masks' size.
        masks: true class numbers, int64 (B, H, W).
        num_classes: K.
        ignore_index: the label of pixels that are not counted.

    Raises:
        ValueError: a mask holds a class that is neither below K nor ignored.
    """
    preds = preds.argmax(1) if preds.dim() == masks.dim() + 1 else preds
    counted = masks != ignore_index
    counts = torch.bincount(masks[counted] * num_classes + preds[counted], minlength=num_classes**2)
    if len(counts) > num_classes**2:
        found = int(masks[counted].max())
        raise ValueError(f"a mask holds class {found}, expected 0 to {num_classes - 1}, or {ignore_index} for ignored")
    return counts.view(num_classes, num_classes)


def segmentation_scores(matrix: Tensor) -> dict[str, Tensor]:
    """IoU, Dice and accuracy of a confusion matrix.

    A class that is neither in the masks nor predicted has no IoU and no Dice: NaN, and the means leave it out. One that
    is predicted but nowhere in the masks has 0 for both; its accuracy is NaN.

    Args:
        matrix: counts of pixels (K, K); rows are the true classes.

    Returns:
        Float64 in [0, 1]: ``miou`` and ``mdice``, means over the classes; ``pixel_accuracy``, the share of all pixels
        that is right; and over the classes (K,) ``iou`` = TP / (TP + FP + FN), ``dice`` = 2 TP / (2 TP + FP + FN) and
        ``accuracy`` = TP / (TP + FN).
    """
    matrix = matrix.double()
    hits, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    iou, dice = hits / (truth + predicted - hits), 2 * hits / (truth + predicted)
    return {
        "miou": iou.nanmean(),
        "mdice": dice.nanmean(),
        "pixel_accuracy": hits.sum() / matrix.sum(),
        "iou": iou,
        "dice": dice,
        "accuracy": hits / truth,
    }


class SegmentationMetrics(Metric):
    """``segmentation_scores`` of all pixels seen, accumulated on the device: 8 K² bytes, whatever the set's size.

    Args:
        num_classes: K.
        ignore_index: the label of pixels that are not counted.
        kwargs: as for every metric.
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, num_classes: int, ignore_index: int = 255, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        empty = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrix", empty, dist_reduce_fx="sum")

    def update(self, preds: Tensor, masks: Tensor) -> None:
        """Add a batch: class numbers (B, H, W) or logits (B, K, H, W), and the true classes (B, H, W)."""
        self.matrix += count_pixels(preds, masks, self.num_classes, self.ignore_index)

    def compute(self) -> dict[str, Tensor]:
        """``segmentation_scores``, on the CPU, and ``confusion``: the matrix, int64 (K, K), rows are the true classes.

        Log with ``skip=("confusion",)``.
        """
        matrix = self.matrix.cpu()  # not every accelerator has float64
        return segmentation_scores(matrix) | {"confusion": matrix}
