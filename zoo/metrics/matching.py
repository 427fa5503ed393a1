"""Which detection finds which object: overlaps, COCO's matching at one IoU threshold, and precision by recall."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.metrics.coco import Kind
from zoo.metrics.samples import Samples

_AT_ONCE = 1_000_000  # pairs whose overlap is computed at once, some 100 MB


class Overlaps(NamedTuple):
    """Pairs of a detection and an object of the same image, whatever their classes, that overlap.

    Args:
        detection: index, int64 (P,).
        object: index, int64 (P,).
        iou: intersection over union, of a crowd over the detection's area, float64 (P,).
    """

    detection: NDArray[np.int64]
    object: NDArray[np.int64]
    iou: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> Overlaps:
        """The chosen pairs."""
        return Overlaps(self.detection[chosen], self.object[chosen], self.iou[chosen])

    def best(self, detections: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Of each detection the largest IoU and its object, the first of equal ones; 0 and -1 without any."""
        iou, found = np.zeros(detections), np.full(detections, -1)
        order = np.lexsort((-self.object, self.iou))  # of several assignments the last one stays
        iou[self.detection[order]] = self.iou[order]
        found[self.detection[order]] = self.object[order]
        return iou, found


def overlaps(samples: Samples, kind: Kind = "boxes", least: float = 0.1) -> Overlaps:
    """All pairs whose IoU is at least ``least``, computed as COCO's evaluation does."""
    parts = list(_of_boxes(samples) if kind == "boxes" else _of_masks(samples))
    found = [part.where(part.iou >= least) for part in parts]
    if not found:
        return Overlaps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Overlaps(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _spans(samples: Samples) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each image's objects start, and how many there are: they are sorted by image."""
    count = np.bincount(samples.objects.image, minlength=samples.images)
    return count.cumsum() - count, count


def _of_boxes(samples: Samples) -> Iterator[Overlaps]:
    starts, counts = _spans(samples)
    image = samples.detections.image
    total = counts[image].cumsum()  # pairs up to each detection
    for chunk in range(int(total[-1]) // _AT_ONCE + 1 if len(total) else 0):
        chosen = np.flatnonzero(total // _AT_ONCE == chunk)
        each = counts[image[chosen]]
        detection = chosen.repeat(each)
        within = np.arange(each.sum()) - (each.cumsum() - each).repeat(each)
        found = starts[image[detection]] + within
        yield Overlaps(detection, found, _box_iou(samples, detection, found))


def _box_iou(samples: Samples, detection: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.float64]:
    one, other = samples.detections.boxes[detection], samples.objects.boxes[found]
    sides = [boxes[:, 2:] - boxes[:, :2] for boxes in (one, other)]
    # COCO's boxes are x y width height: rounding their sum again decides pairs that lie on a threshold.
    high = np.minimum(one[:, :2] + sides[0], other[:, :2] + sides[1])
    both = (high - np.maximum(one[:, :2], other[:, :2])).clip(min=0).prod(1)
    area, true_area = (side.prod(1) for side in sides)
    union = np.where(samples.objects.crowd[found], area, area + true_area - both)
    return np.divide(both, union, out=np.zeros_like(both), where=both > 0)


def _of_masks(samples: Samples) -> Iterator[Overlaps]:
    from pycocotools import mask as coco

    starts, counts = _spans(samples)
    image = samples.detections.image
    firsts = np.searchsorted(image, np.arange(samples.images + 1))
    for i in np.flatnonzero((counts > 0) & (np.diff(firsts) > 0)):
        (a, b), (c, d) = firsts[i : i + 2], (starts[i], starts[i] + counts[i])
        crowd = samples.objects.crowd[c:d].astype(int).tolist()
        iou = np.asarray(coco.iou(samples.detections.masks[a:b], samples.objects.masks[c:d], crowd))
        detection, found = np.indices(iou.shape).reshape(2, -1)
        yield Overlaps(a + detection, c + found, iou.ravel())


class Matches(NamedTuple):
    """What became of the detections at one IoU threshold.

    Args:
        object: the object that each detection found, -1 for none, int64 (D,).
        counted: whether it is right or wrong; False for those in a crowd and for those beyond the limit, bool (D,).
    """

    object: NDArray[np.int64]
    counted: NDArray[np.bool_]

    @property
    def right(self) -> NDArray[np.bool_]:
        """The true positives, bool (D,)."""
        return self.counted & (self.object >= 0)

    def found(self, samples: Samples) -> NDArray[np.bool_]:
        """The objects that a detection found, bool (N,)."""
        made = np.zeros(len(samples.objects), bool)
        made[self.object[self.right]] = True
        return made


def by_score(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices by descending score, of equal scores the first one first."""
    return np.argsort(-scores, kind="stable")


def ranks(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The place of each in ``by_score``."""
    made = np.empty(len(scores), np.int64)
    made[by_score(scores)] = np.arange(len(scores))
    return made


def match(samples: Samples, pairs: Overlaps, threshold: float = 0.5, limit: int = 100) -> Matches:
    """COCO's matching: by descending score, each detection finds the free object of its class that it overlaps most.

    Args:
        samples: detections and objects.
        pairs: their ``overlaps``, at least those from ``threshold`` on.
        threshold: least IoU.
        limit: detections of a class in an image that count.
    """
    found, true = samples.detections, samples.objects
    rank = ranks(found.score)
    within = _within_limit(found.image, found.label, rank, limit)
    same = found.label[pairs.detection] == true.label[pairs.object]
    pairs = pairs.where(same & (pairs.iou >= threshold) & within[pairs.detection])
    crowd = true.crowd[pairs.object]
    # Objects before crowds, large overlaps before small ones; of equal ones COCO takes the last.
    order = np.lexsort((-pairs.object, -pairs.iou, crowd, rank[pairs.detection]))
    matched, taken, is_crowd = [-1] * len(found), bytearray(len(true)), true.crowd.tolist()
    for d, o in zip(pairs.detection[order].tolist(), pairs.object[order].tolist(), strict=True):
        if matched[d] < 0 and (is_crowd[o] or not taken[o]):
            matched[d], taken[o] = o, 1
    matched_to = np.array(matched, np.int64)
    in_crowd = (matched_to >= 0) & true.crowd[matched_to] if len(true) else np.zeros(len(found), bool)
    return Matches(matched_to, within & ~in_crowd)


def _within_limit(
    image: NDArray[np.int64], label: NDArray[np.int64], rank: NDArray[np.int64], limit: int
) -> NDArray[np.bool_]:
    """Whether a detection is among the best of its class in its image."""
    order = np.lexsort((rank, label, image))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(image[order]) != 0) | (np.diff(label[order]) != 0)
    starts = np.flatnonzero(new)
    place = np.arange(len(order)) - starts.repeat(np.diff([*starts, len(order)]))
    made = np.empty(len(order), bool)
    made[order] = place < limit
    return made


def precision_recall(right: NDArray[np.bool_], objects: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall after each detection, (D,) each; NaN as recall where there is no object.

    Args:
        right: whether each is a true positive, by descending score.
        objects: how many there are to be found.
    """
    hits = right.cumsum()
    recall = hits / objects if objects else np.full(len(right), np.nan)
    return hits / np.arange(1, len(right) + 1), recall


def interpolated(
    precision: NDArray[np.float64], recall: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The highest precision at each of these recalls or above, 0 where the recall is not reached."""
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    return envelope[np.searchsorted(recall, points, side="left")]


def average_precision(right: NDArray[np.bool_], objects: int) -> float:
    """COCO's: the mean precision at recalls of 0, 0.01 … 1; NaN without objects."""
    if not objects:
        return float("nan")
    return float(interpolated(*precision_recall(right, objects), np.linspace(0, 1, 101)).mean())
