"""Contrastive denoising queries, which help a detection transformer to converge and are used in training only.

Li et al., "DN-DETR", 2022, and Zhang et al., "DINO", 2023, section 3.3: objects with noise in class and box are given
to the decoder as further queries. Some are near to the object and have to restore it (positive), others further away
have to be recognised as nothing (negative). No matching is needed, and an attention mask keeps the other queries from
seeing them.

A group holds a positive and a negative query for each object; there are several groups with other noise. All noise is
drawn from torch's default generator.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.functional.matching import Objects, Pairs, corners

LABEL_NOISE = 0.5  # half of this share of the labels is replaced by random ones
BOX_NOISE = 1.0  # largest shift of a positive query's edges, relative to half the box's side


class DenoisingQueries(NamedTuple):
    """Noisy objects as queries, D = groups · 2 · most objects of an image (at least 1).

    Args:
        labels: int64 (B, D); ``num_classes`` where an image has fewer objects than another.
        boxes: (B, D, 4), ``cx, cy, w, h`` relative to the image, within it.
        groups: number of groups.
        positive: query and object of each positive query, for one layer.
    """

    labels: Tensor
    boxes: Tensor
    groups: int
    positive: Pairs

    def pairs(self, layers: int) -> Pairs:
        """Query and object of each positive query in each of several decoder layers."""
        layer = torch.arange(layers, device=self.labels.device).repeat_interleave(len(self.positive.image))
        return Pairs(layer, *(index.repeat(layers) for index in self.positive[1:]))


def denoising_queries(objects: Objects, num_classes: int, queries: int) -> DenoisingQueries:
    """Draw the denoising queries of a batch.

    Args:
        queries: number of groups times the most objects in an image of the batch, rounded down, but at least one group.
    """
    most = max(1, *objects.counts)
    groups = max(1, queries // most)
    labels, boxes, index = _padded(objects, num_classes, most)
    labels, boxes, index = (t.repeat(1, 2 * groups, *[1] * (t.dim() - 2)) for t in (labels, boxes, index))
    negative = torch.arange(2 * groups * most, device=labels.device) // most % 2 == 1
    there = labels < num_classes
    image, query = (there & ~negative).nonzero(as_tuple=True)
    positive = Pairs(torch.zeros_like(image), image, query, index[image, query])
    noisy = _noisy_boxes(boxes, negative[:, None])
    return DenoisingQueries(_noisy_labels(labels, there, num_classes), noisy, groups, positive)


def _padded(objects: Objects, num_classes: int, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (B, most), boxes (B, most, 4) and indices of the objects, (B, most)."""
    images = len(objects.counts)
    labels = objects.labels.new_full((images, most), num_classes)
    boxes, index = objects.boxes.new_zeros(images, most, 4), torch.zeros_like(labels)
    for i, (start, count) in enumerate(zip(objects.starts, objects.counts, strict=True)):
        labels[i, :count] = objects.labels[start : start + count]
        boxes[i, :count] = objects.boxes[start : start + count]
        index[i, :count] = torch.arange(start, start + count, device=index.device)
    return labels, boxes, index


def _noisy_labels(labels: Tensor, there: Tensor, num_classes: int) -> Tensor:
    """Random labels in place of some of the objects'."""
    replaced = torch.rand_like(labels, dtype=torch.float32) < LABEL_NOISE / 2
    return torch.where(replaced & there, torch.randint_like(labels, num_classes), labels)


def _noisy_boxes(boxes: Tensor, negative: Tensor) -> Tensor:
    """Boxes with each edge moved by up to half the side, a negative query's by half to the whole side."""
    far = torch.rand_like(boxes) + negative.to(boxes.dtype)
    sign = torch.randint_like(boxes, 2) * 2 - 1
    moved = corners(boxes) + far * sign * BOX_NOISE * boxes[..., 2:].repeat(1, 1, 2) / 2
    x1, y1, x2, y2 = moved.clamp(0, 1).unbind(-1)
    # Where a negative query's edges have changed places, its side is 0: exchanging them could restore the object's box.
    return torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1).clamp(min=0), (y2 - y1).clamp(min=0)], -1)


def denoising_mask(size: int, groups: int, queries: int, device: torch.device) -> Tensor:
    """What self-attention may not see, bool (D + Q, D + Q): True where a row's query does not see a column's.

    Denoising queries see their own group and the Q other queries; these see each other only.

    Args:
        size: number of denoising queries, D.
        groups: number of their groups.
        queries: number of other queries, Q.
    """
    group = torch.arange(size, device=device) // (size // groups)
    group = torch.cat([group, group.new_full((queries,), -1)])
    column = group[None, :]
    return (column >= 0) & (column != group[:, None])
