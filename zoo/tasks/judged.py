"""The images of a test on which a detector did worst, by their AP at IoU 0.5."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_map

from zoo.metrics.detection_analysis import image_ap
from zoo.metrics.matching import overlaps
from zoo.metrics.samples import as_samples
from zoo.tasks.detected import Detected
from zoo.tasks.shown import kept


class Judged(NamedTuple):
    """An image with its detections, its target, and the AP of the ones by the other; on the CPU."""

    image: Tensor
    result: Detected
    target: dict[str, Tensor]
    ap: float


def worst_images(judged: Sequence[Judged], count: int) -> list[Judged]:
    """Those with the lowest AP; of the same AP, the earlier ones."""
    return sorted(judged, key=lambda one: one.ap)[:count]


def judge(
    images: Sequence[Tensor],
    found: Sequence[Mapping[str, Tensor]],
    targets: Sequence[Mapping[str, Tensor]],
    result: Callable[[int], Detected],
    count: int,
) -> list[Judged]:
    """The worst images of a batch, copied to the CPU.

    An image without objects has an AP of 0 if something is shown as found in it, else it is not among them.

    Args:
        images: each (C, H, W).
        found: the network's detections.
        targets: what is true.
        result: gives the plain result of the image of an index.
        count: at most so many.
    """
    samples = as_samples(found, targets)
    aps = image_ap(samples, overlaps(samples)).tolist()
    results = {i: result(i) for i, ap in enumerate(aps) if math.isnan(ap)}
    aps = [(0.0 if len(results[i].boxes) else math.nan) if i in results else ap for i, ap in enumerate(aps)]
    worst = sorted((i for i, ap in enumerate(aps) if not math.isnan(ap)), key=lambda i: aps[i])[:count]
    return [Judged(kept(images[i]), result(i), tree_map(kept, dict(targets[i])), aps[i]) for i in worst]
