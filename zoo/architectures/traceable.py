"""torchvision's detectors on one image of one size, as tensors in and tensors out, so that they can be exported.

torchvision's own ``forward`` takes lists, and branches on how many boxes there are, which an exporter can't follow.
Here anchors are constants of the image's size, as many candidates as there may be are taken in any case, and those
below the threshold are left out after suppression, which gives the same detections. Suppression itself is one
operator, which becomes ONNX's ``NonMaxSuppression``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, clip_boxes_to_image, nms, roi_align

SMALLEST_PROPOSAL, SMALLEST_BOX = 1e-3, 1e-2  # sides in pixels that torchvision keeps
ALWAYS = [[-2.0, -2.0, -1.0, -1.0], [-4.0, -4.0, -3.0, -3.0]]  # boxes outside every image that overlap none
ASIDE = [-6.0, -6.0, -5.0, -5.0]  # where candidates below the threshold go
Size = tuple[int, int]


class Traceable(nn.Module):
    """What both kinds have in common: resizing, padding, anchors and suppression.

    Args:
        network: a detector of torchvision, in evaluation mode.
        image_size: height and width.

    Shape:
        images (1, C, *image_size), normalised -> boxes (N, 4) in their pixels, scores (N,), highest first, and labels
        (N,) as the network numbers them
    """

    anchors: Tensor

    def __init__(self, network: Any, image_size: Sequence[int]) -> None:
        super().__init__()
        self.network, self.image_size = network, (int(image_size[0]), int(image_size[1]))
        weight = next(network.parameters())
        blank = weight.new_zeros(self.channels, *self.image_size)
        with torch.no_grad():
            batch, _ = network.transform([blank])
            maps = list(network.backbone(batch.tensors).values())
            self.size: Size = batch.image_sizes[0]
            self.padded: Size = tuple(batch.tensors.shape[-2:])
            anchors = self.anchor_generator(ImageList(batch.tensors, [self.size]), maps)[0]
        self.cells = [m.shape[-2] * m.shape[-1] for m in maps]
        self.register_buffer("anchors", anchors.detach().clone(), persistent=False)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return next(m for m in self.network.backbone.modules() if isinstance(m, nn.Conv2d)).in_channels

    @property
    def anchor_generator(self) -> Any:
        """The network's."""
        return self.network.anchor_generator

    def resized(self, images: Tensor) -> Tensor:
        """Images in the network's size, padded."""
        if self.size != self.image_size:
            images = F.interpolate(images, self.size, mode="bilinear", align_corners=False)
        return F.pad(images, (0, self.padded[1] - self.size[1], 0, self.padded[0] - self.size[0]))

    def levels_of_anchors(self) -> list[int]:
        """Number of anchors of each level."""
        each = len(self.anchors) // sum(self.cells)
        return [cells * each for cells in self.cells]

    def in_pixels(self, boxes: Tensor) -> Tensor:
        """Boxes in the pixels of the image as it was given."""
        (height, width), (h, w) = self.image_size, self.size
        return torch.stack([boxes[:, 0::2] * (width / w), boxes[:, 1::2] * (height / h)], 2).flatten(1)

    def suppressed(self, boxes: Tensor, scores: Tensor, labels: Tensor, settings: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The detections that remain, highest score first.

        Args:
            boxes: candidates (N, 4), inside the image.
            scores: (N,).
            labels: (N,); boxes of different labels do not suppress each other.
            settings: has ``score_thresh``, ``nms_thresh`` and ``detections_per_img``.
        """
        good = scores > settings.score_thresh
        apart = boxes + (labels.to(boxes.dtype) * (max(self.padded) + 1))[:, None]
        apart = torch.where(good[:, None], apart, apart.new_tensor(ASIDE))  # these suppress each other
        good = good & survive(apart, scores, settings.nms_thresh)
        best, row = torch.where(good, scores, -1).topk(min(settings.detections_per_img, len(scores)))
        row = row[best >= 0]
        return boxes[row], scores[row], labels[row]


class OwnLabels(nn.Module):
    """The same detections with the data's labels.

    Args:
        network: gives boxes, scores, labels and maybe masks.
        labels: gives the data's labels for the network's.
    """

    def __init__(self, network: Traceable, labels: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.labels = network, labels

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """As the network gives them."""
        boxes, scores, labels, *masks = self.network(images)
        return boxes, scores, self.labels(labels), *masks


class TraceableOneStage(Traceable):
    """RetinaNet and FCOS: the best candidates of each level."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels."""
        network = self.network
        outputs = network.head(list(network.backbone(self.resized(images)).values()))
        scores, deltas = self.scores(outputs), outputs["bbox_regression"][0]
        count, found = self.levels_of_anchors(), []
        for score, delta, anchors in zip(
            scores.split(count), deltas.split(count), self.anchors.split(count), strict=True
        ):
            classes = score.shape[1]
            best, place = score.flatten().topk(min(network.topk_candidates, score.numel()))
            row = torch.div(place, classes, rounding_mode="floor")
            found.append((self.decode(delta[row], anchors[row]), best, place % classes))
        boxes, best, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        boxes, best, labels = self.suppressed(clip_boxes_to_image(boxes, self.size), best, labels, network)
        return self.in_pixels(boxes), best, labels

    def scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """Of every anchor and class."""
        return outputs["cls_logits"][0].sigmoid()

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes."""
        return self.network.box_coder.decode_single(deltas, anchors)


class TraceableFCOS(TraceableOneStage):
    """FCOS, whose scores are the geometric mean of class and centre-ness."""

    def scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """Of every place and class."""
        return (super().scores(outputs) * outputs["bbox_ctrness"][0].sigmoid()).sqrt()

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes."""
        return self.network.box_coder.decode(deltas, anchors)


class TraceableSSD(TraceableOneStage):
    """SSD: the best candidates of each class, of all levels."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels."""
        network = self.network
        outputs = network.head(list(network.backbone(self.resized(images)).values()))
        boxes = clip_boxes_to_image(self.decode(outputs["bbox_regression"][0], self.anchors), self.size)
        scores = outputs["cls_logits"][0].softmax(1)[:, 1:]
        best, row = scores.topk(min(network.topk_candidates, len(scores)), 0)
        labels = torch.arange(1, 1 + scores.shape[1], device=row.device).expand_as(row)
        found = self.suppressed(boxes[row.flatten()], best.flatten(), labels.flatten(), network)
        return self.in_pixels(found[0]), *found[1:]


class TraceableTwoStage(Traceable):
    """Faster R-CNN: as many proposals in any case, of which those that were suppressed are left out at the end."""

    @property
    def anchor_generator(self) -> Any:
        """The proposals'."""
        return self.network.rpn.anchor_generator

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Boxes, scores and labels."""
        return self.detected(images)[:3]

    def detected(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Boxes in the image's pixels, scores, labels; boxes in the network's pixels, and the pyramid."""
        heads, maps = self.network.roi_heads, self.network.backbone(self.resized(images))
        proposals, real = self.proposals(list(maps.values()))
        logits, deltas = heads.box_predictor(heads.box_head(pooled(heads.box_roi_pool, maps, proposals)))
        scores = logits.softmax(1)[:, 1:] * real[:, None]
        boxes = clip_boxes_to_image(heads.box_coder.decode(deltas, [proposals])[:, 1:], self.size)
        scores = scores * _wide(boxes, SMALLEST_BOX)
        labels = torch.arange(1, 1 + scores.shape[1], device=scores.device).expand_as(scores)
        # Scores add up to 1, so that no more classes of a proposal than these can be above the threshold.
        most = min(scores.shape[1], int(1 / max(heads.score_thresh, 1e-6)))
        best, row = scores.flatten().topk(most * len(proposals))
        candidates = boxes.flatten(0, 1)[row], best, labels.flatten()[row]
        boxes, best, found = self.suppressed(*candidates, heads)
        return self.in_pixels(boxes), best, found, boxes, maps

    def proposals(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Proposals (P, 4), highest first, and which of them (P,) are real."""
        rpn = self.network.rpn
        logits, deltas = (_flat(outputs, channels) for outputs, channels in zip(rpn.head(maps), (1, 4), strict=True))
        boxes, scores, levels = [], [], []
        count = self.levels_of_anchors()
        parts = zip(logits[:, 0].split(count), deltas.split(count), self.anchors.split(count), strict=True)
        for level, (score, delta, anchors) in enumerate(parts):
            best, row = score.topk(min(rpn.pre_nms_top_n(), len(score)))
            boxes.append(rpn.box_coder.decode_single(delta[row], anchors[row]))
            scores.append(best.sigmoid())
            levels.append(torch.full_like(row, level))
        box, score = clip_boxes_to_image(torch.cat(boxes), self.size), torch.cat(scores)
        apart = torch.cat(levels).to(box.dtype) * (max(self.padded) + 1)
        score = torch.where(_wide(box, SMALLEST_PROPOSAL) & (score >= rpn.score_thresh), score, -1)
        alive = survive(box + apart[:, None], score, rpn.nms_thresh)
        best, row = torch.where(alive, score, -1).topk(min(rpn.post_nms_top_n(), len(score)))
        return box[row], best >= 0


class TraceableMasks(TraceableTwoStage):
    """Mask R-CNN: as Faster R-CNN, and the probabilities of each box's pixels (N, H, W).

    Masks are computed of as many boxes as there may be, since a file's convolutions can't take none.
    """

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Boxes, scores, labels and masks."""
        heads = self.network.roi_heads
        boxes, scores, labels, cells, maps = self.detected(images)
        rows = torch.arange(labels.shape[0], device=labels.device)
        count = heads.detections_per_img
        filled = cells.new_zeros(count, 4).index_copy(0, rows, cells)
        of_class = labels.new_zeros(count).index_copy(0, rows, labels)[:, None, None, None]
        logits = heads.mask_predictor(heads.mask_head(pooled(heads.mask_roi_pool, maps, filled)))
        mask = logits.sigmoid().gather(1, of_class.expand(-1, 1, *logits.shape[2:]))[:, 0]
        return boxes, scores, labels, pasted(mask, self.in_pixels(filled), self.image_size)[rows]


def survive(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Which boxes (N, 4) are not suppressed, (N,).

    Two boxes that always survive come along: torchvision tells the exporter that at least two do, and a file of
    ``torch.export`` fails where that is not so.
    """
    boxes, scores = torch.cat([boxes, boxes.new_tensor(ALWAYS)]), torch.cat([scores, scores.new_tensor([-2.0, -2.0])])
    return torch.zeros_like(scores).index_fill(0, nms(boxes, scores, threshold), 1)[:-2] > 0


def _wide(boxes: Tensor, least: float) -> Tensor:
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides >= least).all(-1)


def _flat(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Maps (1, A · channels, h, w) of all levels as rows (anchors, channels)."""
    return torch.cat([m[0].unflatten(0, (-1, channels)).permute(2, 3, 0, 1).reshape(-1, channels) for m in maps])


def pooled(pool: MultiScaleRoIAlign, maps: dict[str, Tensor], boxes: Tensor) -> Tensor:
    """The boxes' crops, each of its level; every level is asked for every box, so that no size depends on the values.

    Shape:
        maps (1, C, h, w) by name, boxes (N, 4) -> (N, C, side, side)
    """
    assert pool.scales is not None
    assert pool.map_levels is not None
    level = pool.map_levels([boxes])[:, None, None, None]
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
    crops: Any = 0
    for i, (name, scale) in enumerate(zip(pool.featmap_names, pool.scales, strict=True)):
        crop = roi_align(maps[name], rois, pool.output_size, scale, pool.sampling_ratio)
        crops = crops + crop * (level == i) if len(pool.scales) > 1 else crop
    return crops


def pasted(masks: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """Masks of boxes in the image, as torchvision pastes them: resized bilinearly to the box's whole pixels.

    Shape:
        masks (N, M, M), boxes (N, 4) -> (N, *size)
    """
    side = masks.shape[-1] + 2  # padded by a cell, and the boxes with them
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * (side / (side - 2))
    first, last = (middle - half).trunc(), (middle + half).trunc()
    along_x, along_y = (_weights(first[:, i], last[:, i], size[1 - i], side) for i in (0, 1))
    return along_y @ F.pad(masks, (1, 1, 1, 1)) @ along_x.transpose(1, 2)


def _weights(first: Tensor, last: Tensor, pixels: int, side: int) -> Tensor:
    """Weight (N, pixels, side) of each cell for each pixel between the first and last, along one axis."""
    place = torch.arange(pixels, device=first.device, dtype=first.dtype)[None] - first[:, None]
    count = (last - first + 1).clamp(min=1)[:, None]
    cell = ((place + 0.5) * (side / count) - 0.5).clamp(0, side - 1)
    near = (1 - (cell[..., None] - torch.arange(side, device=first.device, dtype=first.dtype)).abs()).clamp(min=0)
    return near * ((place >= 0) & (place < count))[..., None]
