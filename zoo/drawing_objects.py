"""Boxes and masks drawn on pictures: for detection and segmentation.

A class has the same color in every picture. Text stands on a strip of its class's color, in black or white, so that it
can be read on any background; it stays inside the picture, and texts avoid each other where there is room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from zoo.drawing import (
    NO_CLASS,
    WHITE,
    Boxes,
    Color,
    Overlay,
    captioned,
    class_color,
    fit_text,
    grid,
    text_color,
    to_picture,
)

SIDE = 320  # a picture's longer side in pixels, at least, so that there is room for text
TINT = 0.5  # opacity of a mask's color
_Rectangle = tuple[float, float, float, float]


def draw_objects(
    image: Tensor,
    boxes: Boxes,
    names: Sequence[str] = (),
    masks: Tensor | None = None,
    side: int = SIDE,
) -> Image.Image:
    """A picture of an image with its objects: boxes, texts, and masks half transparent with an outline.

    Args:
        image: in [0, 1], (C, H, W).
        boxes: of the objects; those with the highest scores are drawn last, on top.
        names: of the classes; without them, classes are numbers.
        masks: of the objects, bool (N, H, W).
        side: longer side of the picture in pixels, at least.
    """
    shown = _in_color(image)
    if masks is not None:
        for index in _order(boxes):
            _tint(shown, masks[index].cpu(), class_color(int(boxes.labels[index])))
    picture = to_picture(shown, side)
    draw_boxes(picture, boxes, names, picture.width / image.shape[2])
    return picture


def draw_boxes(picture: Image.Image, boxes: Boxes, names: Sequence[str], times: float = 1.0) -> None:
    """Draw boxes and their texts on a picture.

    Args:
        picture: changed in place.
        boxes: in pixels of the image that the picture was made of.
        names: of the classes.
        times: how many of the picture's pixels one of the image's is wide.
    """
    canvas, order = ImageDraw.Draw(picture), _order(boxes)
    corners = (boxes.corners.cpu() * times).tolist()
    width = max(2, round(max(picture.size) / 250))
    for index in order:
        canvas.rectangle(_upright(corners[index]), outline=class_color(int(boxes.labels[index])), width=width)
    taken: list[_Rectangle] = []
    for index in reversed(order):  # the best find room first
        color = class_color(int(boxes.labels[index]))
        taken.append(_write(canvas, picture.size, boxes.text(index, names), corners[index], color, taken))


def _order(boxes: Boxes) -> list[int]:
    """Indices from the one that is drawn first to the one on top."""
    if boxes.scores is None:
        return list(range(len(boxes.corners)))
    return boxes.scores.argsort(stable=True).tolist()


def _upright(corners: Sequence[float]) -> _Rectangle:
    left, top, right, bottom = corners
    return left, top, max(left, right), max(top, bottom)


def _write(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    text: str,
    corners: Sequence[float],
    color: Color,
    taken: Sequence[_Rectangle],
) -> _Rectangle:
    """Write a box's text where it covers no other, else at the first place; the place that it took."""
    points = max(11, min(16, round(max(size) / 40)))
    text, face = fit_text(text, size[0] - 6, points, min(11, points))
    width, height = face.getlength(text) + 6, points + 5
    places = list(_places(corners, width, height, size))
    left, top = next((p for p in places if not any(_overlap((*p, p[0] + width, p[1] + height), t) for t in taken)),
                     places[0])  # fmt: skip
    place = left, top, left + width, top + height
    canvas.rectangle(place, fill=color)
    canvas.text((left + 3, top + height / 2), text, text_color(color), face, anchor="lm")
    return place


def _places(
    corners: Sequence[float], width: float, height: float, size: tuple[int, int]
) -> Iterator[tuple[float, float]]:
    """Places for a box's text inside the picture: above the box, below it, inside, and to its sides."""
    left, top, right, bottom = corners
    for x, y in (
        (left, top - height),
        (left, bottom),
        (left, top),
        (left, bottom - height),
        (right - width, top - height),
        (right - width, bottom),
        (right, top),
        (left - width, top),
        (right, bottom - height),
    ):
        yield max(0.0, min(x, size[0] - width)), max(0.0, min(y, size[1] - height))


def _overlap(one: _Rectangle, other: _Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _in_color(image: Tensor) -> Tensor:
    """A copy of an image on the CPU with three channels, (3, H, W)."""
    image = image.detach().float().cpu()
    return image[:3].clone() if image.shape[0] >= 3 else image.mean(0, keepdim=True).repeat(3, 1, 1)


def _tint(image: Tensor, mask: Tensor, color: Color) -> None:
    """Lay a color half over the mask and full along its edge, in place, where the mask is."""
    mask = mask.bool()
    rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
    if not len(rows):
        return
    # A pixel more on each side: what lies on the edge of the part is not on the mask's edge for that.
    part = slice(max(0, int(rows[0]) - 1), int(rows[-1]) + 2), slice(max(0, int(columns[0]) - 1), int(columns[-1]) + 2)
    mask, pixels = mask[part], image[:, *part]
    paint = torch.tensor(color).view(3, 1, 1) / 255
    pixels.copy_(torch.where(mask, (1 - TINT) * pixels + TINT * paint, pixels))
    pixels.copy_(torch.where(mask & ~_eroded(mask), paint, pixels))


def _eroded(mask: Tensor) -> Tensor:
    """Pixels of a mask, (H, W), whose four neighbours are in it; the picture's border counts as inside."""
    inner = mask.clone()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return inner


def draw_classes(image: Tensor, classes: Tensor, background: int | None = None, side: int = SIDE) -> Image.Image:
    """A picture of an image with each pixel's class as a color half over it.

    Args:
        image: in [0, 1], (C, H, W).
        classes: (H, W); pixels of ``NO_CLASS`` stay as they are.
        background: a class that stays as it is, too.
        side: longer side of the picture in pixels, at least.
    """
    image, classes = _in_color(image), classes.cpu()
    for label in classes.unique().tolist():
        if label not in (NO_CLASS, background):
            _tint(image, classes == label, class_color(label))
    return to_picture(image, side)


def legend(labels: Sequence[int], names: Sequence[str], width: int) -> Image.Image:
    """Classes with their colors, in rows of a given width, on white.

    Args:
        labels: class numbers.
        names: of all classes.
        width: in pixels.
    """
    entries = [_entry(names[label] if names else str(label), class_color(label), width) for label in labels]
    rows: list[list[Image.Image]] = [[]]
    for entry in entries:
        if rows[-1] and sum(e.width for e in rows[-1]) + entry.width > width:
            rows.append([])
        rows[-1].append(entry)
    height = max((e.height for e in entries), default=1)
    made = Image.new("RGB", (width, height * len(rows)), WHITE)
    for i, row in enumerate(rows):
        left = 0
        for entry in row:
            made.paste(entry, (left, i * height))
            left += entry.width
    return made


def _entry(name: str, color: Color, width: int) -> Image.Image:
    text, face = fit_text(name, width - 26, 13)
    made = Image.new("RGB", (min(width, round(face.getlength(text)) + 32), 22), WHITE)
    canvas = ImageDraw.Draw(made)
    canvas.rectangle((4, 4, 17, 17), fill=color)
    canvas.text((22, 11), text, (0, 0, 0), face, anchor="lm")
    return made


def side_by_side(pictures: Sequence[Image.Image], captions: Sequence[str], color: Color) -> Image.Image:
    """Pictures of one image side by side, each with its caption on a strip of this color."""
    return grid([captioned(p, [c], color) for p, c in zip(pictures, captions, strict=True)], len(pictures), gap=2)


def draw_overlay(overlay: Overlay, side: int = 192) -> Image.Image:
    """An overlay as a picture: the first mask half transparent, the first boxes thick with their texts, others thin."""
    image = _in_color(overlay.image)
    for mask in list(overlay.masks.values())[:1]:
        for label in mask.unique().tolist():
            if label != NO_CLASS:
                _tint(image, mask.cpu() == label, class_color(label))
    picture = to_picture(image, side)
    times, canvas = picture.width / image.shape[2], ImageDraw.Draw(picture)
    for order, boxes in reversed(list(enumerate(overlay.boxes.values()))):
        if not order:
            draw_boxes(picture, boxes, overlay.class_names, times)
            continue
        for i, corners in enumerate((boxes.corners.cpu() * times).tolist()):
            canvas.rectangle(_upright(corners), outline=class_color(int(boxes.labels[i])), width=1)
    return captioned(picture, [overlay.caption]) if overlay.caption else picture
