"""One-to-one matching of a detection transformer's queries with objects, and the losses of what is matched.

Carion et al., "End-to-End Object Detection with Transformers", 2020 (DETR), section 3.1 and appendix A.2, with the
terms and weights of RT-DETR (Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection", 2024, appendix). The cost
of a match has the form of the focal loss, as in Zhu et al., "Deformable DETR", 2021; the loss of classes is the
varifocal loss of Zhang et al., "VarifocalNet", 2021, whose target for an object's class is the IoU of box and object.

Predictions of several decoder layers are stacked, (L, B, Q, …); each layer is matched on its own. Boxes are
``cx, cy, w, h`` relative to the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss

WEIGHTS = {"varifocal": 1.0, "l1": 5.0, "giou": 2.0}  # of the losses
CLASS_COST, L1_COST, GIOU_COST = 2.0, 5.0, 2.0
FOCAL_ALPHA, VARIFOCAL_ALPHA, GAMMA = 0.25, 0.75, 2.0
FORBIDDEN = 1e6  # cost of a prediction that is not a number, so that the matching of the others is defined


class Objects(NamedTuple):
    """The objects of a batch, those of all images one after the other.

    Args:
        labels: int64 (N,).
        boxes: (N, 4), ``cx, cy, w, h`` relative to the image.
        counts: number of objects in each of the B images; they add up to N.
    """

    labels: Tensor
    boxes: Tensor
    counts: list[int]

    @property
    def starts(self) -> list[int]:
        """Index of each image's first object."""
        return [0, *accumulate(self.counts)][:-1]


class Pairs(NamedTuple):
    """Matched predictions and objects: M indices each, int64 (M,)."""

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor


def relative_objects(
    targets: Sequence[Mapping[str, Tensor]], sizes: Sequence[tuple[int, int]], like: Tensor
) -> Objects:
    """The objects of images of these sizes (height, width), without those of no area.

    Args:
        targets: ``boxes`` (N, 4) as x1, y1, x2, y2 in pixels and ``labels`` (N,) of each image.
        like: gives the device, and the dtype if that has at least 32 bits.
    """
    dtype, boxes, labels = torch.promote_types(like.dtype, torch.float32), [], []
    for target, (height, width) in zip(targets, sizes, strict=True):
        given = target["boxes"].to(like.device, dtype)
        kept = (given[:, 2:] > given[:, :2]).all(1)
        boxes.append(given[kept] / given.new_tensor([width, height, width, height]))
        labels.append(target["labels"].to(like.device)[kept])
    return Objects(torch.cat(labels), box_convert(torch.cat(boxes), "xyxy", "cxcywh"), [*map(len, boxes)])


def corners(boxes: Tensor) -> Tensor:
    """Boxes ``cx, cy, w, h`` as ``x1, y1, x2, y2``."""
    return box_convert(boxes, "cxcywh", "xyxy")


# Matching


def matching_cost(logits: Tensor, boxes: Tensor, objects: Objects) -> Tensor:
    """Cost of matching each prediction with each object of the batch.

    Args:
        logits: (..., num_classes).
        boxes: (..., 4).

    Returns:
        (..., N)
    """
    chosen = logits[..., objects.labels]
    p = chosen.sigmoid()
    positive = FOCAL_ALPHA * (1 - p) ** GAMMA * -F.logsigmoid(chosen)
    negative = (1 - FOCAL_ALPHA) * p**GAMMA * -F.logsigmoid(-chosen)
    l1 = (boxes[..., None, :] - objects.boxes).abs().sum(-1)
    giou = generalized_box_iou(corners(boxes.flatten(0, -2)), corners(objects.boxes)).view_as(l1)
    return CLASS_COST * (positive - negative) + L1_COST * l1 - GIOU_COST * giou


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, objects: Objects) -> Pairs:
    """The matching of least cost for every layer and image, by the Hungarian algorithm.

    An image has min(Q, its objects) pairs in each layer. The costs are moved to the CPU once for all layers.

    Args:
        logits: (L, B, Q, num_classes).
        boxes: (L, B, Q, 4).
    """
    cost = matching_cost(logits, boxes, objects).nan_to_num(FORBIDDEN, FORBIDDEN, FORBIDDEN).cpu().numpy()
    found: list[tuple[int, int, int, int]] = []
    for image, (start, count) in enumerate(zip(objects.starts, objects.counts, strict=True)):
        for layer, costs in enumerate(cost[:, image, :, start : start + count]):
            queries, targets = linear_sum_assignment(costs)
            found += [(layer, image, int(q), start + int(t)) for q, t in zip(queries, targets, strict=True)]
    return Pairs(*torch.tensor(found, dtype=torch.int64, device=logits.device).reshape(-1, 4).unbind(1))


# Losses


def varifocal(logits: Tensor, quality: Tensor, alpha: float = VARIFOCAL_ALPHA, gamma: float = GAMMA) -> Tensor:
    """Varifocal loss, element by element (equation 2 of its paper).

    Binary cross-entropy with the quality as its target, weighted by the quality q where it is above 0, else by
    alpha · p^gamma.

    Args:
        logits: of any shape.
        quality: of the same shape, in [0, 1]: the IoU for an object's class, 0 for all others.
    """
    weight = torch.where(quality > 0, quality, alpha * logits.detach().sigmoid() ** gamma)
    return F.binary_cross_entropy_with_logits(logits, quality, weight, reduction="none")


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of each box with the one at the same place, (M, 4) and (M, 4) -> (M,); 0 for two boxes without area."""
    a, b = corners(boxes), corners(others)
    inside = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    union = boxes[:, 2:].prod(1) + others[:, 2:].prod(1) - inside
    return inside / union.clamp(min=torch.finfo(union.dtype).tiny)


def set_losses(logits: Tensor, boxes: Tensor, objects: Objects, pairs: Pairs, count: float) -> dict[str, Tensor]:
    """Weighted losses of predictions whose objects are known, summed over layers, images and queries.

    Args:
        logits: (L, B, Q, num_classes).
        boxes: (L, B, Q, 4).
        count: number of objects to divide by.

    Returns:
        ``varifocal``, ``l1`` and ``giou``, one number each
    """
    at = pairs.layer, pairs.image, pairs.query
    found, wanted = boxes[at], objects.boxes[pairs.target]
    quality = torch.zeros_like(logits)
    quality[(*at, objects.labels[pairs.target])] = paired_iou(found.detach(), wanted).to(quality.dtype)
    sums = {
        "varifocal": varifocal(logits, quality).sum(),
        "l1": (found - wanted).abs().sum(),
        "giou": generalized_box_iou_loss(corners(found), corners(wanted), reduction="sum"),
    }
    return {name: WEIGHTS[name] * value / count for name, value in sums.items()}
