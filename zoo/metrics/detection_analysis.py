"""Where a detector goes wrong: curves, F1 against confidence, confusion with background, and errors by kind.

Functions of ``Samples`` and their ``overlaps``, which are computed once; matching is COCO's at IoU 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.metrics.matching import (
    Matches,
    Overlaps,
    average_precision,
    by_score,
    match,
    precision_recall,
    ranks,
)
from zoo.metrics.samples import Samples


class Curve(NamedTuple):
    """Precision and recall by falling confidence, (D,) each, and the number of objects.

    ``precision[i]`` and ``recall[i]`` are those of the detections whose score is at least ``score[i]``; where scores
    are equal, there is one entry.
    """

    score: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    objects: int
    ap: float

    @property
    def f1(self) -> NDArray[np.float64]:
        """Harmonic mean of precision and recall, (D,)."""
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)

    def best(self) -> tuple[float, float]:
        """The highest F1 and the confidence at which it is reached; NaN without objects, 0 and 1 if none is found."""
        if not self.objects:
            return float("nan"), float("nan")
        if not len(self.score) or not self.f1.max():
            return 0.0, 1.0
        place = int(self.f1.argmax())
        return float(self.f1[place]), float(self.score[place])


def curve(samples: Samples, matches: Matches, label: int | None = None) -> Curve:
    """Of one class, or of all detections together whatever their class, each matched within its class.

    Args:
        samples: detections and objects.
        matches: of ``match``.
        label: the class; all, if None.
    """
    found, true = samples.detections, samples.objects
    chosen = matches.counted if label is None else matches.counted & (found.label == label)
    objects = int((~true.crowd & (True if label is None else true.label == label)).sum())
    order = np.flatnonzero(chosen)
    order = order[by_score(found.score[order])]
    right, score = matches.right[order], found.score[order]
    precision, recall = precision_recall(right, objects)
    last = np.append(np.diff(score) != 0, True)[: len(score)]  # of equal scores
    return Curve(score[last], precision[last], recall[last], objects, average_precision(right, objects))


def curves(samples: Samples, pairs: Overlaps, num_classes: int) -> list[Curve]:
    """One for each class."""
    matches = match(samples, pairs)
    return [curve(samples, matches, k) for k in range(num_classes)]


def confusion(
    samples: Samples, pairs: Overlaps, num_classes: int, confidence: float = 0.25, threshold: float = 0.5
) -> NDArray[np.int64]:
    """The confusion matrix with background as its last row and column, int64 (K + 1, K + 1).

    Rows are the true classes. First detections find objects of their own class, as in COCO's matching; then those that
    are left find, by descending score, the object left that they overlap most, of another class. What is left then is
    background: an object that was missed (last column), a detection of nothing or of an object found already (last
    row). Crowds and what lies in a crowd of its class are left out.

    Args:
        samples: detections and objects.
        pairs: their ``overlaps``.
        num_classes: K.
        confidence: detections with a lower score are left out.
        threshold: least IoU.
    """
    found, true = samples.detections, samples.objects
    pairs = pairs.where((found.score[pairs.detection] >= confidence) & (pairs.iou >= threshold))
    matches = match(samples, pairs, threshold)
    counted = matches.counted & (found.score >= confidence)
    matched, seen = np.where(counted, matches.object, -1), matches.found(samples)
    left = pairs.where((counted & (matched < 0))[pairs.detection] & ~(seen | true.crowd)[pairs.object])
    order = np.lexsort((left.object, -left.iou, ranks(found.score)[left.detection]))
    for d, o in zip(left.detection[order].tolist(), left.object[order].tolist(), strict=True):
        if matched[d] < 0 and not seen[o]:
            matched[d], seen[o] = o, True
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    classes = np.append(true.label, num_classes)  # -1 is no object: background
    np.add.at(matrix, (classes[matched[counted]], found.label[counted]), 1)
    matrix[:num_classes, num_classes] = np.bincount(true.label[~seen & ~true.crowd], minlength=num_classes)
    return matrix


KINDS = ("class", "place", "both", "duplicate", "background", "missed")


@dataclass
class Errors:
    """Errors by kind.

    Args:
        ap: the mean over the classes of AP at IoU 0.5, in [0, 1].
        counts: how many errors there are of each kind.
        cost: by how much AP would be higher without the errors of a kind, in [0, 1]; the parts don't add up.
        of_detection: index into ``KINDS`` of each detection's error, -1 for none, (D,).
        missed: whether an object is missed, bool (N,).
    """

    ap: float
    counts: dict[str, int]
    cost: dict[str, float]
    of_detection: NDArray[np.int64]
    missed: NDArray[np.bool_]


def errors(samples: Samples, pairs: Overlaps, found_at: float = 0.5, background: float = 0.1) -> Errors:
    """Errors by kind, and what each kind costs: Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object
    Detection Errors", sections 2.2 and 2.3.

    A wrong detection is one of ``place`` (it overlaps an object of its class by more than ``background``, less than
    ``found_at``), ``class`` (an object of another class by at least ``found_at``), ``duplicate`` (its object is found
    already), ``background`` (it overlaps nothing) or ``both`` (the rest), in this order. An object is ``missed`` if
    neither a detection finds it nor a mistake of class or place is about it.

    Deviation: a class whose objects are all missed has, without them, an AP of 1 if nothing else is detected as that
    class; the authors' code leaves it at 0. Classes without objects don't count.

    Args:
        samples: detections and objects.
        pairs: their ``overlaps``, from ``background`` on.
        found_at: IoU from which an object is found, t_f.
        background: IoU up to which a detection is of the background, t_b.
    """
    found, true = samples.detections, samples.objects
    matches = match(samples, pairs, found_at)
    used = matches.found(samples)
    pairs = pairs.where(~true.crowd[pairs.object])
    same = found.label[pairs.detection] == true.label[pairs.object]
    own_iou, own = pairs.where(same).best(len(found))
    other_iou, other = pairs.where(~same).best(len(found))
    used_iou, _ = pairs.where(same & used[pairs.object]).best(len(found))
    any_iou, _ = pairs.best(len(found))
    wrong = matches.counted & (matches.object < 0)
    tests = {
        "place": (own >= 0) & (own_iou >= background) & (own_iou <= found_at),
        "class": other_iou >= found_at,
        "duplicate": used_iou >= found_at,
        "background": any_iou <= background,
    }
    kind = np.where(wrong, KINDS.index("both"), -1)
    for name, test in reversed(tests.items()):
        kind[wrong & test] = KINDS.index(name)
    about = np.where(kind == KINDS.index("class"), other, np.where(kind == KINDS.index("place"), own, -1))
    missed = ~used & ~true.crowd
    missed[about[about >= 0]] = False
    return _costs(samples, matches, kind, about, missed)


def _costs(
    samples: Samples, matches: Matches, kind: NDArray[np.int64], about: NDArray[np.int64], missed: NDArray[np.bool_]
) -> Errors:
    found, true = samples.detections, samples.objects
    counts = {name: int((kind == i).sum()) for i, name in enumerate(KINDS)} | {"missed": int(missed.sum())}
    plain = _mean_ap(samples, matches.counted, matches.right, found.label, ~true.crowd)
    cost = {}
    for i, name in enumerate(KINDS):
        counted, right, label, wanted = matches.counted & (kind != i), matches.right.copy(), found.label, ~true.crowd
        if name in ("class", "place"):  # put right, if the object is not found already, and the best of several
            mended = _first_of_each(samples, np.flatnonzero(kind == i), about, matches.found(samples))
            counted[mended], right[mended] = True, True
            label = label.copy()
            label[mended] = true.label[about[mended]]
        if name == "missed":
            wanted = wanted & ~missed
        cost[name] = _mean_ap(samples, counted, right, label, wanted) - plain
    return Errors(plain, counts, cost, kind, missed)


def _first_of_each(
    samples: Samples, chosen: NDArray[np.int64], about: NDArray[np.int64], used: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Of the chosen detections those with the highest score about each object that is not found already."""
    chosen = chosen[~used[about[chosen]]]
    chosen = chosen[by_score(samples.detections.score[chosen])]
    return chosen[np.unique(about[chosen], return_index=True)[1]]


def _mean_ap(
    samples: Samples,
    counted: NDArray[np.bool_],
    right: NDArray[np.bool_],
    label: NDArray[np.int64],
    wanted: NDArray[np.bool_],
) -> float:
    """Mean AP of the classes that have objects, with so many ``wanted``."""
    true = samples.objects
    order = by_score(samples.detections.score)
    order = order[counted[order]]
    found = []
    for k in np.unique(true.label[~true.crowd]):
        hits, objects = right[order[label[order] == k]], int((wanted & (true.label == k)).sum())
        found.append(average_precision(hits, objects) if objects else float(not len(hits)))
    return float(np.mean(found)) if found else float("nan")


def image_ap(samples: Samples, pairs: Overlaps) -> NDArray[np.float64]:
    """Each image's AP at IoU 0.5, of all its detections together, matched within their classes; NaN without objects."""
    found, true = samples.detections, samples.objects
    matches = match(samples, pairs)
    objects = np.bincount(true.image[~true.crowd], minlength=samples.images)
    order = np.lexsort((ranks(found.score), found.image))
    order = order[matches.counted[order]]
    ends = np.searchsorted(found.image[order], np.arange(samples.images + 1))
    right = matches.right[order]
    return np.array([average_precision(right[a:b], int(n)) for a, b, n in zip(ends, ends[1:], objects, strict=False)])
