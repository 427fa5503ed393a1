"""Metrics of detectors as torchmetrics has them: COCO's of boxes and masks, VOC's, and F1 against confidence.

Detections and objects are moved to the CPU at each update and evaluated together at the end of the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.metrics.coco import Kind, coco_metrics, evaluate
from zoo.metrics.detection_analysis import curve
from zoo.metrics.matching import match, overlaps
from zoo.metrics.samples import Columns, Samples, detection_columns, join, object_columns
from zoo.metrics.voc import voc_metrics

MISSING = -1.0  # COCO's value of a metric that no object defines
NOT_LOGGED = ("samples",)  # of what ``compute`` gives

_FOUND = ("boxes", "labels", "scores")
_TRUE = ("boxes", "labels", "crowd", "area")
_MASKS = ("masks", "counts", "size")


class DetectionMetrics(Metric):
    """COCO's metrics of boxes, on request of masks as well, and VOC's; for one class or two, the best F1.

    Crowds and objects to be ignored (``iscrowd``) are neither to be found nor is it wrong to find them. Log with
    ``missing=MISSING, skip=NOT_LOGGED``.

    5,000 images with 500,000 boxes take 252 MB at the evaluation's peak (pycocotools: 2,145; measured by
    ``tests/benchmarks/detection_metrics.py``). A mask is kept as run lengths, some hundred bytes.

    Args:
        num_classes: K, without background.
        masks: whether masks are evaluated, too.
        voc: whether to add ``voc_metrics``, in which ``iscrowd`` means difficult.
        kwargs: as for every metric.
    """

    full_state_update = False
    image_ids: list[Tensor]

    def __init__(self, num_classes: int, masks: bool = False, voc: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes, self.masks, self.voc = num_classes, masks, voc
        for name in self._columns(_FOUND):
            self.add_state(f"found_{name}", [], dist_reduce_fx=None)
        for name in self._columns(_TRUE):
            self.add_state(f"true_{name}", [], dist_reduce_fx=None)
        self.add_state("image_ids", [], dist_reduce_fx=None)

    def _columns(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return names + _MASKS if self.masks else names

    def update(self, detections: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]]) -> None:
        """Add a batch: a dictionary for each image.

        Args:
            detections: ``boxes`` x1 y1 x2 y2 in pixels (N, 4), ``scores`` (N,), ``labels`` (N,) from 0; with
                ``masks`` also these, bool or probabilities (N, H, W).
            targets: ``boxes`` (M, 4) and ``labels`` (M,); with ``masks`` also these, bool (M, H, W); optional are
                ``iscrowd`` bool (M,), ``area`` (M,), which else is the box's or the mask's, and ``image_id``. If all
                images have an id, they are evaluated in its order, by which COCO settles ties of scores; then several
                processes give what one gives to the last bit.

        Raises:
            ValueError: columns of one image differ in length.
        """
        for found, true in zip(detections, targets, strict=True):
            self._append("found", detection_columns(found, self.masks))
            self._append("true", object_columns(true, self.masks))
            self.image_ids.append(torch.as_tensor(true.get("image_id", -1)).detach().cpu().reshape(()))

    def _append(self, which: str, columns: Columns) -> None:
        for name, column in columns.items():
            getattr(self, f"{which}_{name}").append(column)

    def samples(self) -> Samples:
        """What was added, in columns; in the order of the images' ids if all have one."""
        ids = [int(one) for one in self.image_ids]
        order = sorted(range(len(ids)), key=ids.__getitem__) if min(ids, default=-1) >= 0 else list(range(len(ids)))
        return join(*(self._of_images(which, names, order) for which, names in (("found", _FOUND), ("true", _TRUE))))

    def _of_images(self, which: str, names: tuple[str, ...], order: list[int]) -> list[Columns]:
        states = {name: getattr(self, f"{which}_{name}") for name in self._columns(names)}
        return [{name: state[i].cpu() for name, state in states.items()} for i in order]

    def compute(self) -> dict[str, Any]:
        """``coco_metrics`` of boxes, those of masks as ``mask_map`` …, and ``samples``, for the analysis.

        With one class or two also ``f1``, the highest of boxes at IoU 0.5, and ``f1_threshold``, the confidence at
        which it is reached. Numbers are float64 tensors on the CPU, -1 where no object defines them;
        ``map_per_class`` is (K,).
        """
        samples = self.samples()
        values = self._coco(samples, "boxes")
        if self.masks:
            values |= {f"mask_{name}": value for name, value in self._coco(samples, "masks").items()}
        if self.voc:
            values |= voc_metrics(samples, self.num_classes)
        if self.num_classes <= 2:
            values |= _best_f1(samples)
        return {name: torch.as_tensor(value) for name, value in values.items()} | {"samples": samples}

    def _coco(self, samples: Samples, kind: Kind) -> dict[str, Any]:
        return coco_metrics(evaluate(samples, self.num_classes, kind))


def _best_f1(samples: Samples) -> dict[str, Any]:
    pairs = overlaps(samples, least=0.5)
    found = np.array(curve(samples, match(samples, pairs)).best())
    return dict(zip(("f1", "f1_threshold"), np.nan_to_num(found, nan=MISSING), strict=True))
