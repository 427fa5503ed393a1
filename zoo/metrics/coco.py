"""COCO's evaluation protocol (Lin et al. 2014, "Microsoft COCO", and its evaluation code) by the fastest evaluator.

Three packages give the same arrays to the last bits, which the tests verify: hotcoco (in Rust, takes columns),
faster-coco-eval (in C++) and pycocotools, the reference. The fastest that is installed is imported when it is used.
The twelve metrics are taken from the arrays here, so that they cannot differ between evaluators.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UserError
from zoo.metrics.samples import Rle, Samples

Kind = Literal["boxes", "masks"]
AREAS = ("all", "small", "medium", "large")  # below 32², up to 96², above
LIMITS = (1, 10, 100)  # detections of a class in an image


class Curves(NamedTuple):
    """What COCO's evaluation accumulates, -1 where a class has no objects of that size.

    Args:
        precision: (T, R, K, A, M) over ten IoU thresholds 0.5 … 0.95, recall 0, 0.01 … 1, classes, ``AREAS``,
            ``LIMITS``.
        scores: those at which the precision is reached, of the same shape.
        recall: the highest, (T, K, A, M).
    """

    precision: NDArray[np.float64]
    scores: NDArray[np.float64]
    recall: NDArray[np.float64]


def evaluate(samples: Samples, num_classes: int, kind: Kind = "boxes", evaluator: str | None = None) -> Curves:
    """Match detections to objects and accumulate precision and recall.

    Args:
        samples: detections and objects; areas that are not known are those of boxes or masks.
        num_classes: K.
        kind: whether boxes or masks overlap.
        evaluator: one of ``EVALUATORS``; the fastest that is installed, if None.

    Raises:
        UserError: no evaluator is installed.
    """
    return EVALUATORS[evaluator or fastest_evaluator()](samples, num_classes, kind)


def fastest_evaluator() -> str:
    """The fastest evaluator that is installed and usable in this process.

    Raises:
        UserError: there is none.
    """
    for name in EVALUATORS:
        if name == "hotcoco" and _threads_of not in (None, os.getpid()):
            continue
        with contextlib.suppress(ImportError):
            import_module(name)
            return name
    raise UserError(f"COCO's metrics need one of {', '.join(EVALUATORS)}: pip install hotcoco")


def coco_metrics(curves: Curves) -> dict[str, NDArray[np.float64]]:
    """COCO's twelve metrics and each class's AP, -1 where there are no objects to measure it by.

    Returns:
        ``map`` (mean over classes and IoU 0.5 … 0.95), ``map_50``, ``map_75``, ``map_small``, ``map_medium``,
        ``map_large``; the mean recall with at most 1, 10, 100 detections ``mar_1``, ``mar_10``, ``mar_100`` and by
        size ``mar_small``, ``mar_medium``, ``mar_large``; ``map_per_class`` (K,).
    """
    precision, recall = curves.precision, curves.recall
    found = {"map": _mean(precision[..., 0, -1])}
    found |= {f"map_{name}": _mean(precision[t, ..., 0, -1]) for name, t in (("50", 0), ("75", 5))}
    found |= {f"map_{name}": _mean(precision[..., a, -1]) for a, name in enumerate(AREAS) if a}
    found |= {f"mar_{limit}": _mean(recall[..., 0, m]) for m, limit in enumerate(LIMITS)}
    found |= {f"mar_{name}": _mean(recall[..., a, -1]) for a, name in enumerate(AREAS) if a}
    found["map_per_class"] = np.array([_mean(precision[:, :, k, 0, -1]) for k in range(precision.shape[2])])
    return found


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    defined = values[values > -1]
    return np.asarray(defined.mean() if defined.size else -1.0)


def _areas(samples: Samples, kind: Kind) -> NDArray[np.float64]:
    """The objects' areas as their annotations say them, else those of their boxes or masks."""
    area = samples.objects.area
    if not np.isnan(area).any():
        return area
    return np.where(np.isnan(area), _own_areas(samples.objects.boxes, samples.objects.masks, kind), area)


def _own_areas(boxes: NDArray[np.float64], masks: list[Rle], kind: Kind) -> NDArray[np.float64]:
    if kind == "boxes":
        sides = boxes[:, 2:] - boxes[:, :2]
        return sides[:, 0] * sides[:, 1]
    from pycocotools import mask as coco

    # One by one: of a list of more than 255, pycocotools 2.0.11 stops with an OverflowError.
    return np.array([float(coco.area(mask)) for mask in masks])


def _with_sides(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """x y width height of x1 y1 x2 y2."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _images(samples: Samples) -> list[dict[str, Any]]:
    """Without their sizes, which only polygons need; but pycocotools reads them."""
    return [{"id": i + 1, "height": 0, "width": 0} for i in range(samples.images)]


def _categories(num_classes: int) -> list[dict[str, Any]]:
    return [{"id": k + 1, "name": str(k)} for k in range(num_classes)]


# Evaluators

_TYPES = {"boxes": "bbox", "masks": "segm"}
_threads_of: int | None = None  # the process whose threads hotcoco uses; a fork of it would wait for them for ever


def _hotcoco(samples: Samples, num_classes: int, kind: Kind) -> Curves:
    global _threads_of
    from hotcoco import COCO, COCOeval

    _threads_of = os.getpid()
    true, found = samples.objects, samples.detections
    images = _images(samples)
    masks: list[dict[str, Any]] = [{"segmentation": one.masks} if kind == "masks" else {} for one in (true, found)]
    truth = COCO.from_arrays(
        images, _categories(num_classes), true.image + 1, true.label + 1, _with_sides(true.boxes),
        area=_areas(samples, kind), iscrowd=true.crowd, **masks[0],
    )  # fmt: skip
    rows = np.column_stack([found.image + 1, _with_sides(found.boxes), found.score, found.label + 1])
    results = truth.load_res(rows, **masks[1])
    if kind == "masks":  # else they are the boxes'
        results.update_anns(ids=np.arange(1, len(found) + 1), area=_own_areas(found.boxes, found.masks, kind))
    evaluation = COCOeval(truth, results, _TYPES[kind])
    evaluation.evaluate()
    evaluation.accumulate()
    return _curves(evaluation.eval)


def _pycocotools(samples: Samples, num_classes: int, kind: Kind) -> Curves:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _by_dictionaries(COCO, COCOeval, samples, num_classes, kind)


def _faster_coco_eval(samples: Samples, num_classes: int, kind: Kind) -> Curves:
    from faster_coco_eval import COCO, COCOeval_faster

    return _by_dictionaries(COCO, COCOeval_faster, samples, num_classes, kind)


def _by_dictionaries(
    coco: Callable[[], Any], evaluation: Callable[..., Any], samples: Samples, num_classes: int, kind: Kind
) -> Curves:
    """By a package with pycocotools' interface: a dictionary for each object and each detection."""
    true, found = samples.objects, samples.detections
    objects = _annotations(true.image, true.label, true.boxes, _areas(samples, kind), true.masks, kind)
    for one, crowd in zip(objects, true.crowd.tolist(), strict=True):
        one["iscrowd"] = int(crowd)
    areas = _own_areas(found.boxes, found.masks, kind)
    results = _annotations(found.image, found.label, found.boxes, areas, found.masks, kind)
    for one, score in zip(results, found.score.tolist(), strict=True):
        one |= {"score": score, "iscrowd": 0}
    images = _images(samples)
    with contextlib.redirect_stdout(io.StringIO()):
        sets = [coco(), coco()]
        for made, annotations in zip(sets, (objects, results), strict=True):
            made.dataset = {"images": images, "categories": _categories(num_classes), "annotations": annotations}
            made.createIndex()
        run = evaluation(*sets, _TYPES[kind])
        run.evaluate()
        run.accumulate()
    return _curves(run.eval)


def _annotations(
    image: NDArray[np.int64],
    label: NDArray[np.int64],
    boxes: NDArray[np.float64],
    areas: NDArray[np.float64],
    masks: list[Rle],
    kind: Kind,
) -> list[dict[str, Any]]:
    columns = [(image + 1).tolist(), (label + 1).tolist(), _with_sides(boxes).tolist(), areas.tolist()]
    made = [
        {"id": i + 1, "image_id": m, "category_id": k, "bbox": box, "area": area}
        for i, (m, k, box, area) in enumerate(zip(*columns, strict=True))
    ]
    for one, mask in zip(made, masks, strict=True) if kind == "masks" else ():
        one["segmentation"] = mask
    return made


def _curves(found: Any) -> Curves:
    return Curves(*(np.asarray(found[name]) for name in ("precision", "scores", "recall")))


EVALUATORS: dict[str, Callable[[Samples, int, Kind], Curves]] = {
    "hotcoco": _hotcoco,
    "faster_coco_eval": _faster_coco_eval,
    "pycocotools": _pycocotools,
}
