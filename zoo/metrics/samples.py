"""Detections and true objects of many images in columns: what the evaluators and the analysis take.

An image that is nowhere in the columns has no objects and no detections. Arrays are numpy's, on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rle = dict[str, Any]  # COCO's run lengths: ``size`` [height, width], ``counts`` compressed to bytes


@dataclass
class Objects:
    """The true objects.

    Args:
        image: index of each object's image, int64 (N,).
        label: class numbers from 0, int64 (N,).
        boxes: x1 y1 x2 y2 in pixels, float64 (N, 4).
        crowd: a crowd or an object to be ignored, bool (N,).
        area: in pixels, float64 (N,), as the annotation says it; NaN where it says none.
        masks: their run lengths, N of them, or none at all.
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    boxes: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    masks: list[Rle] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.image)


@dataclass
class Detections:
    """What was detected; the columns are those of ``Objects``.

    Args:
        image: index of each detection's image, int64 (N,).
        label: class numbers from 0, int64 (N,).
        boxes: x1 y1 x2 y2 in pixels, float64 (N, 4).
        score: float64 (N,).
        masks: their run lengths, N of them, or none at all.
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    boxes: NDArray[np.float64]
    score: NDArray[np.float64]
    masks: list[Rle] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.image)


class Samples:
    """The detections and the objects of so many images.

    Not a dataclass: torchmetrics would copy what ``compute`` gives, mask by mask.
    """

    def __init__(self, images: int, detections: Detections, objects: Objects) -> None:
        self.images, self.detections, self.objects = images, detections, objects


def as_samples(
    detections: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]], masks: bool = False
) -> Samples:
    """Columns of lists with one dictionary for each image.

    Args:
        detections: ``boxes`` (N, 4), ``scores`` (N,), ``labels`` (N,), with ``masks`` also these, bool or
            probabilities (N, H, W).
        targets: ``boxes`` (M, 4), ``labels`` (M,), optional ``iscrowd`` (M,) and ``area`` (M,), with ``masks`` also
            these (M, H, W).
        masks: whether masks are read.
    """
    found = [detection_columns(one, masks) for one in detections]
    true = [object_columns(one, masks) for one in targets]
    return join(found, true)


Columns = dict[str, Tensor]  # of one image, on the CPU


def detection_columns(one: Mapping[str, Tensor], masks: bool = False) -> Columns:
    """One image's detections as columns on the CPU, masks as run lengths.

    Those whose score or box is not finite are left out: they match nothing, and behind all others they don't change
    precision either; evaluators differ in what they make of them.

    Raises:
        ValueError: the numbers of boxes, scores, labels and masks differ.
    """
    scores, boxes = _floats(one["scores"]), _floats(one["boxes"]).reshape(-1, 4)
    made = {"boxes": boxes, "labels": one["labels"].detach().cpu(), "scores": scores}
    _check_lengths(made | ({"masks": one["masks"]} if masks else {}))
    finite = scores.isfinite() & boxes.isfinite().all(1)
    if finite.all():
        return made | (_run_lengths(one["masks"]) if masks else {})
    made = {name: column[finite] for name, column in made.items()}
    return made | (_run_lengths(one["masks"][finite.to(one["masks"].device)]) if masks else {})


def object_columns(one: Mapping[str, Tensor], masks: bool = False) -> Columns:
    """One image's true objects as columns on the CPU, masks as run lengths; ``area`` is NaN where there is none.

    Raises:
        ValueError: the numbers of boxes, labels and masks differ.
    """
    made = {"boxes": _floats(one["boxes"]).reshape(-1, 4), "labels": one["labels"].detach().cpu()}
    count = len(made["labels"])
    crowd, area = one.get("iscrowd"), one.get("area")
    made["crowd"] = torch.zeros(count, dtype=torch.bool) if crowd is None else crowd.detach().cpu().bool()
    made["area"] = torch.full((count,), torch.nan) if area is None else _floats(area)
    _check_lengths(made | ({"masks": one["masks"]} if masks else {}))
    return made | (_run_lengths(one["masks"]) if masks else {})


def _floats(values: Tensor) -> Tensor:
    values = values.detach().cpu()
    return values if values.dtype == torch.float64 else values.float()  # numpy has no bfloat16


def _check_lengths(columns: Columns) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected as many of each, got {lengths}")


def _run_lengths(masks: Tensor) -> Columns:
    """Masks (N, H, W) as ``counts``, the compressed bytes of all, ``masks``, the bytes of each, and ``size``."""
    from pycocotools import mask as coco

    masks = masks > 0.5 if masks.is_floating_point() else masks.bool()
    size = torch.tensor(masks.shape[-2:])
    columns = masks.transpose(1, 2).contiguous().cpu().numpy().view(np.uint8)  # COCO counts down the columns
    counts = [rle["counts"] for rle in coco.encode(columns.T)] if len(masks) else []
    joined = torch.frombuffer(bytearray(b"".join(counts)), dtype=torch.uint8) if counts else torch.zeros(0).byte()
    return {"counts": joined, "masks": torch.tensor([len(one) for one in counts], dtype=torch.int64), "size": size}


def join(detections: Sequence[Columns], targets: Sequence[Columns]) -> Samples:
    """The columns of images, one after the other, as columns of all of them."""
    found, true = _joined(detections, "scores"), _joined(targets, "crowd", "area")
    objects = Objects(true["image"], true["labels"], true["boxes"], true["crowd"], true["area"], _masks(targets))
    made = Detections(found["image"], found["labels"], found["boxes"], found["scores"], _masks(detections))
    return Samples(len(targets), made, objects)


_EMPTY = {
    "labels": np.zeros(0, np.int64),
    "boxes": np.zeros((0, 4)),
    "scores": np.zeros(0),
    "area": np.zeros(0),
    "crowd": np.zeros(0, np.bool_),
}


def _joined(images: Sequence[Columns], *names: str) -> dict[str, NDArray[Any]]:
    made: dict[str, NDArray[Any]] = {"image": np.repeat(np.arange(len(images)), [len(one["labels"]) for one in images])}
    for name in ("labels", "boxes", *names):
        empty = _EMPTY[name]
        made[name] = torch.cat([one[name] for one in images]).numpy().astype(empty.dtype) if images else empty
    return made


def _masks(images: Sequence[Columns]) -> list[Rle]:
    made = []
    for one in images:
        if "masks" not in one:
            return []
        size, counts = one["size"].tolist(), one["counts"].numpy().tobytes()
        ends = one["masks"].cumsum(0).tolist()
        made += [{"size": size, "counts": counts[a:b]} for a, b in zip([0, *ends], ends, strict=False)]
    return made
