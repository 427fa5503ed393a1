"""Average precision by the rules of PASCAL VOC (Everingham et al. 2010, section 4.2, and the 2010 development kit).

A detection belongs to the object of its class that it overlaps most, whether that is found already or not: a second
detection of an object is wrong, also where another object is near. Objects marked difficult are ignored, and so are
detections that belong to them. The kit counts pixels inclusively (``xmax - xmin + 1``); here boxes are x1 y1 x2 y2
with x2 behind the last pixel, which is the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zoo.metrics.matching import by_score, interpolated, overlaps, precision_recall
from zoo.metrics.samples import Samples


def voc_metrics(samples: Samples, num_classes: int, threshold: float = 0.5) -> dict[str, NDArray[np.float64]]:
    """Mean AP over the classes, and each class's, -1 for a class without objects.

    Args:
        samples: detections and objects; ``crowd`` means difficult.
        num_classes: K.
        threshold: the least IoU.

    Returns:
        ``voc_2007``, the mean precision at recalls of 0, 0.1 … 1, and ``voc_2010``, the area below the precision made
        monotone; of each class ``voc_2007_per_class`` and ``voc_2010_per_class`` (K,).
    """
    right, counted = _judge(samples, threshold)
    found, true = samples.detections, samples.objects
    order = by_score(found.score)
    rules = {"voc_2007": np.full(num_classes, -1.0), "voc_2010": np.full(num_classes, -1.0)}
    for k in np.unique(true.label[~true.crowd]):
        chosen = order[(found.label[order] == k) & counted[order]]
        curve = precision_recall(right[chosen], int(((true.label == k) & ~true.crowd).sum()))
        rules["voc_2007"][k] = interpolated(*curve, np.linspace(0, 1, 11)).mean()
        rules["voc_2010"][k] = area_below(*curve)
    means = {name: np.asarray(each[each >= 0].mean() if (each >= 0).any() else -1.0) for name, each in rules.items()}
    return means | {f"{name}_per_class": each for name, each in rules.items()}


def _judge(samples: Samples, threshold: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each detection is right, and whether it counts at all."""
    found, true = samples.detections, samples.objects
    ordinary = Samples(samples.images, found, replace(true, crowd=np.zeros(len(true), bool)))  # IoU of difficult, too
    pairs = overlaps(ordinary, least=threshold)
    _, own = pairs.where(found.label[pairs.detection] == true.label[pairs.object]).best(len(found))
    difficult = (own >= 0) & np.append(true.crowd, False)[own]
    order = by_score(found.score)
    claimed = order[(own[order] >= 0) & ~difficult[order]]
    right = np.zeros(len(found), bool)
    right[claimed[np.unique(own[claimed], return_index=True)[1]]] = True  # the first of each object
    return right, ~difficult


def area_below(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    """The area below the precision, made monotone, over the recall."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * envelope).sum())
