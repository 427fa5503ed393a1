"""Counts per class in memory that grows with the classes, or with what was seen, and never with their square.

torchmetrics 1.9 counts true and false positives per class by a confusion matrix: at ImageNet-21k's 21,841 classes, 3.8
GB for each update of each metric. The averages over these counts are torchmetrics' own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassF1Score, MulticlassPrecision, MulticlassRecall
from torchmetrics.utilities.data import dim_zero_cat

_WAITING = 64  # updates between two merges of the counts: merging costs a sort


def count_per_class(preds: Tensor, target: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """True positives, false positives, true negatives and false negatives of each class, int64 (classes,).

    Args:
        preds: scores (B, classes), or class numbers (B,).
        target: class numbers, (B,).
        classes: their number.
    """
    preds = preds.argmax(1) if preds.dim() == 2 else preds
    hits = torch.bincount(target[preds == target], minlength=classes)
    false_positives = torch.bincount(preds, minlength=classes) - hits
    false_negatives = torch.bincount(target, minlength=classes) - hits
    return hits, false_positives, len(target) - hits - false_positives - false_negatives, false_negatives


class F1Score(MulticlassF1Score):
    """torchmetrics' score per class or averaged over the classes, from ``count_per_class``."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        self._update_state(*count_per_class(preds, target, self.num_classes or 1))


class Precision(MulticlassPrecision):
    """torchmetrics' precision per class or averaged over the classes, from ``count_per_class``."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        self._update_state(*count_per_class(preds, target, self.num_classes or 1))


class Recall(MulticlassRecall):
    """torchmetrics' recall per class or averaged over the classes, from ``count_per_class``."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        self._update_state(*count_per_class(preds, target, self.num_classes or 1))


class ConfusionCounts(Metric):
    """The confusion matrix as a sparse tensor: its memory grows with the pairs of classes that occur.

    Args:
        num_classes: K.
        kwargs: as for every metric.
    """

    full_state_update = False
    pairs: list[Tensor]
    counts: list[Tensor]

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.add_state("pairs", [], dist_reduce_fx="cat")  # true class * K + predicted class
        self.add_state("counts", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: scores (B, K) or class numbers (B,), and the true class numbers (B,)."""
        preds = preds.argmax(1) if preds.dim() == 2 else preds
        pairs, counts = (target.long() * self.num_classes + preds).unique(return_counts=True)
        self.pairs.append(pairs)
        self.counts.append(counts)
        if len(self.pairs) > _WAITING:
            pairs, counts = self._merged()
            self.pairs, self.counts = [pairs], [counts]

    def _merged(self) -> tuple[Tensor, Tensor]:
        if not len(self.pairs):
            empty = torch.zeros(0, dtype=torch.int64, device=self.device)
            return empty, empty
        pairs, places = dim_zero_cat(self.pairs).long().unique(return_inverse=True)
        counts = dim_zero_cat(self.counts).long()
        return pairs, torch.zeros_like(pairs).index_add_(0, places, counts)

    def compute(self) -> Tensor:
        """Counts, int64 (K, K), sparse and on the CPU; rows are the true classes."""
        pairs, counts = (t.cpu() for t in self._merged())
        places = torch.stack([pairs // self.num_classes, pairs % self.num_classes])
        return torch.sparse_coo_tensor(places, counts, (self.num_classes,) * 2).coalesce()
