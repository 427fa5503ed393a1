"""Detection in several views of a picture: flipped, at other scales, and in windows of a large one; and their merging.

Windows with overlap are those of Akyon et al. 2022 ("Slicing Aided Hyper Inference"): the picture is seen whole, too,
for objects that no window holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms, box_area, box_iou

from zoo.functional.windows import window_starts

Detections = dict[str, Tensor]
"""``boxes`` (N, 4) as x1 y1 x2 y2, ``scores`` (N,), ``labels`` (N,); maybe ``masks`` (N, H, W) of probabilities."""
Detect = Callable[[list[Tensor]], list[Detections]]

CUT = 0.5  # share of an object cut off by a window's border that another must cover to take its place
BORDER = 1.0  # pixels from a window's border at which an object counts as cut off


@dataclass(frozen=True)
class DetectionViews:
    """How a picture is seen for its detections.

    Args:
        flip: whether it is also seen mirrored.
        scales: factors of its size; each is a view.
        window: side in pixels of the windows that larger pictures are also seen in; None for none.
        overlap: share of a window that its neighbour sees, too.
        iou: overlap of boxes of one class in different views above which only the one with the best score is kept.
        most: largest number of objects in a picture.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    window: int | None = None
    overlap: float = 0.2
    iou: float = 0.6
    most: int = 100

    def __call__(self, detect: Detect, images: Sequence[Tensor]) -> list[Detections]:
        """The merged detections of each image.

        Args:
            detect: the network.
            images: each (C, H, W).
        """
        if not self._several(images):
            return [best(found, self.most) for found in detect(list(images))]
        return [self._merge(list(self._seen(detect, image)), image.shape[-2:]) for image in images]

    def _several(self, images: Sequence[Tensor]) -> bool:
        windows = self.window is not None and any(max(image.shape[-2:]) > self.window for image in images)
        return self.flip or self.scales != (1.0,) or windows

    def _seen(self, detect: Detect, image: Tensor) -> Iterator[Detections]:
        """Each view's detections, in the image's pixels."""
        for scale in self.scales:
            yield scaled(detect, image, scale)
            if self.flip:
                yield mirrored(scaled(detect, image.flip(-1), scale), image.shape[-1])
        if self.window is not None and max(image.shape[-2:]) > self.window:
            for left, top in windows(image.shape[-2:], self.window, self.overlap):
                yield in_window(detect, image, left, top, self.window)

    def _merge(self, views: list[Detections], size: Sequence[int]) -> Detections:
        """One set of detections of several views: without those cut off that another view has whole, nor duplicates.

        Of a single view, as of a picture no larger than the windows, what the network says of itself stays.
        """
        if len(views) == 1:
            return best(views[0], self.most)
        names = [name for name in views[0] if name != "masks"]
        every = {name: torch.cat([view[name] for view in views]) for name in names}
        cut = torch.cat([view.get("cut", torch.zeros_like(view["labels"], dtype=torch.bool)) for view in views])
        rows = (~(cut & _seen_whole(every, cut))).nonzero().flatten()
        boxes, scores, labels = (every[name][rows] for name in ("boxes", "scores", "labels"))
        rows = rows[batched_nms(boxes.float(), scores.float(), labels, self.iou)[: self.most]]
        merged = {name: values[rows] for name, values in every.items()}
        return merged | ({"masks": _masks_of(views, rows, size)} if "masks" in views[0] else {})


def best(found: Detections, most: int) -> Detections:
    """The detections with the highest scores, at most so many, by descending score."""
    rows = found["scores"].argsort(descending=True, stable=True)[:most]
    return {name: values[rows] for name, values in found.items()}


def _masks_of(views: Sequence[Detections], rows: Tensor, size: Sequence[int]) -> Tensor:
    """Masks (N, H, W) of the chosen detections of all views.

    Those of windows are laid into the picture here, when few are left: all of them would not fit into memory.
    """
    made = views[0]["masks"].new_zeros((len(rows), *size))
    places = [(view, row) for view in views for row in range(len(view["labels"]))]
    for mask, (view, row) in zip(made, (places[i] for i in rows.tolist()), strict=True):
        found = view["masks"][row]
        left, top = view["corner"].tolist() if "corner" in view else (0, 0)
        mask[top : top + found.shape[0], left : left + found.shape[1]] = found
    return made


def _seen_whole(every: Detections, cut: Tensor) -> Tensor:
    """Whether most of each box lies in a whole one of its class, (N,)."""
    boxes, labels = every["boxes"].float(), every["labels"]
    if not cut.any() or cut.all():
        return torch.zeros_like(cut)
    whole = boxes[~cut]
    iou, area = box_iou(boxes, whole), box_area(boxes)[:, None]
    inside = iou * (area + box_area(whole)) / (1 + iou) / area.clamp(min=1e-6)
    same = labels[:, None] == labels[~cut]
    return ((inside > CUT) & same).any(1)


def scaled(detect: Detect, image: Tensor, scale: float) -> Detections:
    """Detections of an image that is resized first, in the pixels of the image itself."""
    if scale == 1:
        return detect([image])[0]
    height, width = image.shape[-2:]
    size = max(1, round(scale * height)), max(1, round(scale * width))
    resized = F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    found = detect([resized])[0]
    times = found["boxes"].new_tensor([width / size[1], height / size[0]] * 2)
    found = {**found, "boxes": found["boxes"] * times}
    if "masks" in found:
        found["masks"] = _resized(found["masks"], (height, width))
    return found


def _resized(masks: Tensor, size: tuple[int, int]) -> Tensor:
    if not len(masks):
        return masks.new_zeros((0, *size))
    return F.interpolate(masks[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]


def mirrored(found: Detections, width: int) -> Detections:
    """Detections of a mirrored image of this width, mirrored back."""
    left, top, right, bottom = found["boxes"].unbind(1)
    found = {**found, "boxes": torch.stack([width - right, top, width - left, bottom], 1)}
    if "masks" in found:
        found["masks"] = found["masks"].flip(-1)
    return found


def windows(size: Sequence[int], window: int, overlap: float) -> list[tuple[int, int]]:
    """Left and upper pixels of the windows that cover a picture of this height and width, evenly spaced."""
    rows, columns = (window_starts(max(length, window), window, overlap) for length in size)
    return [(x, y) for y in rows for x in columns]


def in_window(detect: Detect, image: Tensor, left: int, top: int, window: int) -> Detections:
    """Detections of a window, boxes in the image's pixels; ``cut`` says which of them its border may cut off.

    Masks are the window's, whose left and upper pixel in the image is ``corner``.
    """
    height, width = image.shape[-2:]
    found = detect([image[..., top : top + window, left : left + window]])[0]
    boxes = found["boxes"] + found["boxes"].new_tensor([left, top] * 2)
    cut = _cut_off(boxes, left, top, window, (height, width))
    return {**found, "boxes": boxes, "cut": cut, "corner": torch.tensor([left, top])}


def _cut_off(boxes: Tensor, left: int, top: int, window: int, size: tuple[int, int]) -> Tensor:
    """Whether boxes (N, 4) end at a border of the window that is not the picture's."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(1)
    cut = torch.zeros_like(x1, dtype=torch.bool)
    for inner, near in (
        (left > 0, x1 <= left + BORDER),
        (top > 0, y1 <= top + BORDER),
        (left + window < width, x2 >= left + window - BORDER),
        (top + window < height, y2 >= top + window - BORDER),
    ):
        cut |= near & inner
    return cut
