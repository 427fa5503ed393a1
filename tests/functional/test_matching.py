"""Matching against scipy's on written-out costs, and the losses against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from zoo.functional.denoising_queries import denoising_mask, denoising_queries
from zoo.functional.matching import (
    Objects,
    Pairs,
    match,
    paired_iou,
    relative_objects,
    set_losses,
    varifocal,
)

CLASSES = 3


def objects(*counts: int) -> Objects:
    random = torch.Generator().manual_seed(0)
    number = sum(counts)
    centre = 0.3 + 0.4 * torch.rand(number, 2, generator=random, dtype=torch.float64)
    side = 0.1 + 0.3 * torch.rand(number, 2, generator=random, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (number,), generator=random)
    return Objects(labels, torch.cat([centre, side], 1), list(counts))


def predictions(layers: int, images: int, queries: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(layers, images, queries, CLASSES, generator=random, dtype=torch.float64)
    boxes = torch.rand(layers, images, queries, 4, generator=random, dtype=torch.float64) / 2 + 0.1
    return logits, boxes


def edges(box: Tensor) -> tuple[float, float, float, float]:
    cx, cy, w, h = box.tolist()
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def overlap(box: Tensor, other: Tensor) -> tuple[float, float]:
    """IoU and GIoU of two boxes, by their definitions."""
    (a1, b1, a2, b2), (c1, d1, c2, d2) = edges(box), edges(other)
    inside = max(0, min(a2, c2) - max(a1, c1)) * max(0, min(b2, d2) - max(b1, d1))
    union = (a2 - a1) * (b2 - b1) + (c2 - c1) * (d2 - d1) - inside
    around = (max(a2, c2) - min(a1, c1)) * (max(b2, d2) - min(b1, d1))
    return inside / union, inside / union - (around - union) / around


def cost_of(logits: Tensor, box: Tensor, label: int, other: Tensor) -> float:
    p = 1 / (1 + math.exp(-float(logits[label])))
    focal = 0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p)
    return 2 * focal + 5 * float((box - other).abs().sum()) - 2 * overlap(box, other)[1]


def test_each_layer_and_image_is_matched_at_least_cost() -> None:
    true, (logits, boxes) = objects(3, 0, 1, 7), predictions(2, 4, 5)
    pairs, wanted = match(logits, boxes, true), set()
    for layer in range(2):
        for image, start, count in zip(range(4), true.starts, true.counts, strict=True):
            costs = torch.tensor(
                [
                    [
                        cost_of(logits[layer, image, q], boxes[layer, image, q], int(true.labels[t]), true.boxes[t])
                        for t in range(start, start + count)
                    ]
                    for q in range(5)
                ]
            ).reshape(5, count)
            wanted |= {(layer, image, q, start + t) for q, t in zip(*linear_sum_assignment(costs), strict=True)}
    found = {tuple(pair) for pair in torch.stack(pairs, 1).tolist()}
    assert found == wanted
    assert len(found) == 2 * (3 + 0 + 1 + 5)  # five queries for seven objects


def test_matching_without_objects_or_with_nan() -> None:
    logits, boxes = predictions(1, 2, 4)
    assert all(len(part) == 0 for part in match(logits, boxes, objects(0, 0)))
    boxes[0, 0, 1] = math.nan
    pairs = match(logits, boxes, objects(2, 1))
    assert 1 not in pairs.query[pairs.image == 0]


def test_varifocal_s_closed_form() -> None:
    logits = torch.tensor([[-3.0, 0.5], [2.0, -0.1]], dtype=torch.float64, requires_grad=True)
    quality = torch.tensor([[0.0, 0.7], [0.2, 0.0]], dtype=torch.float64)
    p = logits.detach().sigmoid()
    positive = -quality * (quality * p.log() + (1 - quality) * (1 - p).log())
    negative = -0.75 * p**2 * (1 - p).log()
    found = varifocal(logits, quality)
    torch.testing.assert_close(found.detach(), torch.where(quality > 0, positive, negative))
    found.sum().backward()  # the weight itself has no gradient
    torch.testing.assert_close(logits.grad, torch.where(quality > 0, quality, 0.75 * p**2) * (p - quality))


def test_losses_of_pairs_by_their_definitions() -> None:
    true, (logits, boxes) = objects(2, 1), predictions(1, 2, 4)
    pairs = Pairs(*torch.tensor([[0, 0, 3, 1], [0, 1, 2, 2]]).unbind(1))
    quality, l1, giou = torch.zeros_like(logits), 0.0, 0.0
    for _, image, query, target in torch.stack(pairs, 1).tolist():
        box, other = boxes[0, image, query], true.boxes[target]
        iou, generalised = overlap(box, other)
        quality[0, image, query, true.labels[target]] = iou
        l1, giou = l1 + float((box - other).abs().sum()), giou + 1 - generalised
    found = set_losses(logits, boxes, true, pairs, 3.0)
    assert float(found["varifocal"]) == pytest.approx(float(varifocal(logits, quality).sum()) / 3)
    assert float(found["l1"]) == pytest.approx(5 * l1 / 3)
    assert float(found["giou"]) == pytest.approx(2 * giou / 3, rel=1e-5)  # torchvision adds 1e-7 to the areas
    assert overlap(boxes[0, 0, 3], true.boxes[1])[0] > 0
    alike = paired_iou(true.boxes, true.boxes)
    torch.testing.assert_close(alike, torch.ones_like(alike))


def test_objects_relative_to_their_images_without_those_of_no_area() -> None:
    targets = [
        {"boxes": torch.tensor([[10.0, 20.0, 30.0, 60.0], [5.0, 5.0, 5.0, 9.0]]), "labels": torch.tensor([1, 2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    found = relative_objects(targets, [(80, 100), (10, 10)], torch.zeros(1, dtype=torch.bfloat16))
    assert found.counts == [1, 0]
    assert found.labels.tolist() == [1]
    torch.testing.assert_close(found.boxes, torch.tensor([[0.2, 0.5, 0.2, 0.5]]))


# Denoising queries


def test_denoising_queries_are_near_their_objects_or_further_away() -> None:
    torch.manual_seed(0)
    true = objects(3, 0, 1)
    noisy = denoising_queries(true, CLASSES, 3000)
    assert noisy.groups == 1000
    labels, boxes = noisy.labels.view(3, 1000, 2, 3), noisy.boxes.view(3, 1000, 2, 3, 4)
    assert (labels[0] < CLASSES).all()
    assert (labels[1] == CLASSES).all()
    assert (labels[2, ..., 1:] == CLASSES).all()
    # A quarter of the labels are drawn again, a third of these as they were.
    assert float((labels[0] != true.labels[:3]).double().mean()) == pytest.approx(0.25 * 2 / 3, abs=0.02)
    cx, cy, w, h = boxes[0].unbind(-1)
    moved = (torch.stack([cx - w / 2, cy - h / 2], -1) - (true.boxes[:3, :2] - true.boxes[:3, 2:] / 2)).abs()
    share = moved / (true.boxes[:3, 2:] / 2)
    assert (share[:, 0] <= 1 + 1e-9).all()  # positive
    clear = (w[:, 1] > 0) & (h[:, 1] > 0) & (cx[:, 1] > w[:, 1] / 2 + 1e-9) & (cy[:, 1] > h[:, 1] / 2 + 1e-9)
    assert clear.any()
    assert (share[:, 1][clear] >= 1 - 1e-9).all()  # negative
    assert (share[:, 1][clear] <= 2 + 1e-9).all()
    # Each positive query belongs to its object, in each layer.
    pairs = noisy.pairs(2)
    assert len(pairs.query) == 2 * 1000 * 4
    assert set(pairs.layer.tolist()) == {0, 1}
    assert torch.equal(pairs.query % 6 + torch.tensor([0, 0, 3])[pairs.image], pairs.target)
    assert (pairs.query % 6 < 3).all()


def test_denoising_queries_follow_torch_s_generator() -> None:
    first, again, other = (torch.manual_seed(s) and denoising_queries(objects(2), CLASSES, 4) for s in (1, 1, 2))
    assert torch.equal(first.boxes, again.boxes)
    assert not torch.equal(first.boxes, other.boxes)


def test_denoising_mask() -> None:
    mask = denoising_mask(4, 2, 3, torch.device("cpu"))
    seen = (~mask).int().tolist()
    assert seen == [[1, 1, 0, 0, 1, 1, 1]] * 2 + [[0, 0, 1, 1, 1, 1, 1]] * 2 + [[0, 0, 0, 0, 1, 1, 1]] * 3
