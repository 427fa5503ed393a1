"""The decoder of RT-DETR: choice of queries, and their refinement by deformable attention.

Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection", 2024, section 4.3; layers and refinement of boxes as in
Zhu et al., "Deformable DETR", 2021, and Zhang et al., "DINO", 2023.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.architectures.deformable import DeformableAttention
from zoo.architectures.hybrid_encoder import conv_norm
from zoo.functional.denoising_queries import DenoisingQueries, denoising_mask

ANCHOR = 0.05  # side of the finest map's initial boxes, relative to the image; twice as large on each coarser map
MARGIN = 0.01  # pixels whose centre is nearer to the image's border are not chosen as queries
PRIOR = 0.01  # initial score of every class
EPSILON = 1e-5  # least distance from 0 and 1 of what the logit is taken of


class Decoded(NamedTuple):
    """What the decoder gives; boxes are ``cx, cy, w, h`` relative to the image.

    Args:
        logits: of the layers (in evaluation of the last alone), (L, B, Q, num_classes).
        boxes: of the same, (L, B, Q, 4).
        noisy_logits: of the denoising queries, (L, B, D, num_classes).
        noisy_boxes: of the same, (L, B, D, 4).
        chosen_logits: of the pixels that became queries, (B, Q, num_classes).
        chosen_boxes: of the same, (B, Q, 4).
    """

    logits: Tensor
    boxes: Tensor
    noisy_logits: Tensor
    noisy_boxes: Tensor
    chosen_logits: Tensor
    chosen_boxes: Tensor


class Decoder(nn.Module):
    """Chooses the queries and refines them (section 4.3); the arguments are those of ``RTDETR``.

    Shape:
        maps (B, width, H, W), finest first, and in training denoising queries -> ``Decoded``
    """

    def __init__(
        self,
        num_classes: int,
        width: int,
        heads: int,
        mlp_width: int,
        levels: int,
        layers: int,
        points: int,
        num_queries: int,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.projections = nn.ModuleList(conv_norm(width, width, 1, activation=False) for _ in range(levels))
        self.memory = nn.Sequential(OrderedDict(linear=nn.Linear(width, width), norm=nn.LayerNorm(width)))
        self.choice_classes, self.choice_boxes = nn.Linear(width, num_classes), mlp(width, width, width, 4)
        self.position = mlp(4, 2 * width, width)
        self.noisy_classes = nn.Embedding(num_classes + 1, width, padding_idx=num_classes)
        self.layers = nn.ModuleList(DecoderLayer(width, heads, mlp_width, levels, points) for _ in range(layers))
        self.classes = nn.ModuleList(nn.Linear(width, num_classes) for _ in range(layers))
        self.boxes = nn.ModuleList(mlp(width, width, width, 4) for _ in range(layers))
        for layer in (self.choice_classes, *self.classes):
            nn.init.constant_(layer.bias, -math.log(1 / PRIOR - 1))
        for layers_of_boxes in (self.choice_boxes, *self.boxes):
            nn.init.zeros_(layers_of_boxes[-1].weight)
            nn.init.zeros_(layers_of_boxes[-1].bias)
        for part in (*self.memory, *self.position):
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)

    def forward(self, maps: Sequence[Tensor], noisy: DenoisingQueries | None = None) -> Decoded:
        """Logits and boxes of queries and denoising queries."""
        maps = [project(one) for project, one in zip(self.projections, maps, strict=True)]
        queries, chosen_logits, references = self.choose(maps)
        chosen_boxes, mask, size = references.sigmoid(), None, 0
        queries, boxes = queries.detach(), chosen_boxes.detach()
        if noisy is not None:
            size = noisy.labels.shape[1]
            queries = torch.cat([self.noisy_classes(noisy.labels).to(queries.dtype), queries], 1)
            boxes = torch.cat([noisy.boxes, boxes], 1)
            mask = denoising_mask(size, noisy.groups, self.num_queries, boxes.device)
        logits, refined = self.refine(queries, boxes, maps, mask)
        (noisy_logits, logits), (noisy_boxes, boxes) = (
            (every[:, :, :size], every[:, :, size:]) for every in (logits, refined)
        )
        return Decoded(logits, boxes, noisy_logits, noisy_boxes, chosen_logits, chosen_boxes)

    def choose(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The pixels whose best class scores highest: their features, logits of classes, and logits of boxes."""
        pixels = torch.cat([one.flatten(2).transpose(1, 2) for one in maps], 1)
        anchors, inside = anchor_logits([one.shape[2:] for one in maps], pixels)
        memory = self.memory(pixels)
        logits = self.choice_classes(memory)
        scores = logits.amax(-1).masked_fill(~inside, torch.finfo(logits.dtype).min)
        index = scores.topk(self.num_queries).indices
        queries, logits, anchors = (
            take(values, index) for values in (memory, logits, anchors.expand(index.shape[0], -1, -1))
        )
        return queries, logits, self.choice_boxes(queries) + anchors

    def refine(
        self, queries: Tensor, boxes: Tensor, maps: Sequence[Tensor], mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Logits and boxes of each layer (in evaluation of the last), (L, B, Q, num_classes) and (L, B, Q, 4).

        Each layer corrects the boxes of the one before. Those that the next layer starts from are detached, but the
        loss of its boxes reaches the layer before, too (DINO's "look forward twice").
        """
        found: list[tuple[Tensor, Tensor]] = []
        before = boxes
        for layer, classes, to_box in zip(self.layers, self.classes, self.boxes, strict=True):
            queries = layer(queries, self.position(boxes.to(queries.dtype)), boxes, maps, mask)
            correction = to_box(queries)
            found.append((classes(queries), (correction + logit(before)).sigmoid()))
            before = (correction + logit(boxes)).sigmoid()
            boxes = before.detach()
        logits, refined = zip(*(found if self.training else found[-1:]), strict=True)
        return torch.stack(logits), torch.stack(refined)


class DecoderLayer(nn.Module):
    """Self-attention among the queries, deformable attention to the feature maps, and an MLP, each normalised after.

    Shape:
        queries and their position (B, Q, width), boxes (B, Q, 4), maps (B, width, H, W) -> (B, Q, width)
    """

    def __init__(self, width: int, heads: int, mlp_width: int, levels: int, points: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.deformable = DeformableAttention(width, heads, levels, points)
        self.mlp = mlp(width, mlp_width, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(
        self, queries: Tensor, position: Tensor, boxes: Tensor, maps: Sequence[Tensor], mask: Tensor | None
    ) -> Tensor:
        """The queries after this layer."""
        x, placed = queries, queries + position
        x = self.norm1(x + self.attention(placed, placed, x, attn_mask=mask, need_weights=False)[0])
        x = self.norm2(x + self.deformable(x + position, boxes, maps))
        return self.norm3(x + self.mlp(x))


# Small parts


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def logit(x: Tensor) -> Tensor:
    """The inverse of the sigmoid, finite at 0 and 1."""
    return x.logit(EPSILON)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows of (B, N, C) at (B, Q), as (B, Q, C)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def anchor_logits(sizes: Sequence[Sequence[int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """The initial box of each pixel of the feature maps: its centre, and a side that doubles from map to map.

    Args:
        sizes: height and width of the maps.

    Returns:
        logits of ``cx, cy, w, h``, (pixels, 4), and whether the centre is inside the margin, (pixels,)
    """
    boxes = []
    for level, (height, width) in enumerate(sizes):
        rows, columns = ((torch.arange(n, device=like.device) + 0.5) / n for n in (height, width))
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        side = torch.full_like(x, ANCHOR * 2**level)
        boxes.append(torch.stack([x, y, side, side], -1).flatten(0, 1))
    found = torch.cat(boxes)
    inside = ((found > MARGIN) & (found < 1 - MARGIN)).all(-1)
    return logit(found).to(torch.promote_types(like.dtype, torch.float32)), inside
