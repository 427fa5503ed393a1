"""Results of semantic segmentation: classes in the picture's own pixels, as JSON, as indexed PNGs, and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from zoo import drawing
from zoo.data.predicting import Source
from zoo.drawing_objects import SIDE, draw_classes, legend, side_by_side

LONGEST = 1024  # pixels of the longer side of a drawn prediction, unless the image itself has more
BACKGROUNDS = ("background", "unlabeled", "unlabelled", "void")  # names of classes that are drawn as the picture is


@dataclass
class ClassShare:
    """A class that was found in a picture.

    Args:
        label: its name.
        index: its number.
        share: of the picture's pixels.
        confidence: mean softmax probability of these pixels.
    """

    label: str
    index: int
    share: float
    confidence: float


@dataclass
class Segmented:
    """A segmenter's prediction for an image.

    Args:
        name: the image's file, or its number.
        file: the mask's file, below ``masks``.
        mask: the class of each of the picture's own pixels, uint8 (H, W).
        found: the classes in it, largest first.
    """

    name: str
    file: str
    mask: Tensor
    found: list[ClassShare]


def segmented(probabilities: Tensor, name: str, file: str, names: Sequence[str]) -> Segmented:
    """The result of an image.

    Args:
        probabilities: (K, H, W).
        name: a ``Source`` maps them to the picture's pixels.
        file: the mask's file, below ``masks``.
        names: of the K classes.
    """
    mask, best = classes_and_confidence(probabilities, name)
    pixels = torch.bincount(mask.flatten(), minlength=len(names))
    sums = torch.bincount(mask.flatten(), best.flatten().double(), minlength=len(names))
    found = [
        ClassShare(names[k], k, int(pixels[k]) / mask.numel(), float(sums[k]) / int(pixels[k]))
        for k in pixels.argsort(descending=True, stable=True).tolist()
        if pixels[k]
    ]
    return Segmented(str(name), file, mask, found)


def classes_and_confidence(probabilities: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The most probable class of each pixel and its probability, (H, W) each; of the picture's own pixels for a
    ``Source``, one class after another, since all at once would not fit for a large picture.
    """
    probabilities = probabilities.cpu()
    if not isinstance(name, Source):
        best, mask = probabilities.max(0)
        return mask.to(torch.uint8), best
    best = name.maps_to_picture(probabilities[:1])[0]
    mask = torch.zeros(best.shape, dtype=torch.uint8)
    for label in range(1, len(probabilities)):
        other = name.maps_to_picture(probabilities[label : label + 1])[0]
        better = other > best
        mask[better] = label
        best = torch.where(better, other, best)
    return mask, best


def as_row(result: Segmented) -> dict[str, Any]:
    """``name``, ``mask``, ``height``, ``width``, and the ``classes`` with share and confidence."""
    found = [{"class": f.label, "index": f.index, "share": f.share, "confidence": f.confidence} for f in result.found]
    height, width = result.mask.shape
    return {"name": result.name, "mask": f"masks/{result.file}", "height": height, "width": width, "classes": found}


def write_mask(path: Path, mask: Tensor) -> None:
    """Write an indexed PNG, as VOC has them: the pixels are class numbers, the palette is that of every picture."""
    picture = Image.fromarray(mask.numpy()).convert("L")
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette([value for label in range(256) for value in palette_color(label)])
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def palette_color(label: int) -> drawing.Color:
    """A class's colour; black for pixels without a class."""
    return (0, 0, 0) if label == drawing.NO_CLASS else drawing.class_color(label)


def background_of(names: Sequence[str]) -> int | None:
    """The number of the class that is the background by its name, or None."""
    plain = [name.strip("_ ").lower() for name in names]
    return next((plain.index(name) for name in BACKGROUNDS if name in plain), None)


def draw_segmented(image: Tensor, result: Segmented, names: Sequence[str], truth: Tensor | None) -> Image.Image:
    """The image with its classes, beside the true ones where they are known, above a legend.

    Args:
        image: in [0, 1], (C, H, W); resized where it is not of the mask's proportions.
        result: its prediction.
        names: of the classes.
        truth: classes (H, W).
    """
    size = _drawn_size(image.shape[1:], result.mask.shape)
    image = F.interpolate(image.detach().float().cpu()[None], size, mode="bilinear", antialias=True)[0]
    mask, background = _nearest(result.mask, size), background_of(names)
    shown = {"prediction": mask} | ({} if truth is None else {"truth": _nearest(truth.cpu(), size)})
    drawn = [draw_classes(image, classes, background) for classes in shown.values()]
    picture = drawn[0]
    if truth is not None:
        plain = drawing.to_picture(image, SIDE)
        picture = side_by_side([plain, *drawn], ["image", *shown], drawing.PLAIN)
    labels = sorted({int(v) for classes in shown.values() for v in classes.unique()} - {background, drawing.NO_CLASS})
    return drawing.stacked([picture, legend(labels, names, picture.width)]) if labels else picture


def _drawn_size(image: Sequence[int], mask: Sequence[int]) -> list[int]:
    """The mask's proportions, not larger than both the image and what is good to look at."""
    scale = min(1.0, max(LONGEST, *image) / max(mask))
    return [max(1, round(side * scale)) for side in mask]


def _nearest(mask: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(mask[None, None].float(), list(size), mode="nearest-exact")[0, 0].long()


class Seen(NamedTuple):
    """An image of an evaluation with its classes and its loss, on the CPU.

    Args:
        image: in [0, 1], (C, H, W).
        mask: predicted classes, (H, W).
        truth: (H, W).
        loss: of this image alone.
    """

    image: Tensor
    mask: Tensor
    truth: Tensor
    loss: float

    def draw(self, names: Sequence[str]) -> Image.Image:
        """Image, prediction and truth side by side, with the loss below."""
        result = Segmented("", "", self.mask, [])
        picture = draw_segmented(self.image, result, names, self.truth)
        return drawing.captioned(picture, [f"loss {self.loss:.3f}"])

    def overlay(self, names: Sequence[str]) -> drawing.Overlay:
        """For loggers that show masks themselves."""
        masks = {"prediction": self.mask, "truth": self.truth}
        return drawing.Overlay(self.image, {}, masks, names, f"loss {self.loss:.3f}")


def seen(images: Tensor, masks: Tensor, truth: Tensor, losses: Tensor) -> list[Seen]:
    """Rows of a batch, copied: a row would keep the whole batch."""
    rows = zip(images, masks, truth, losses.tolist(), strict=True)
    return [
        Seen(image.detach().float().cpu().clone(), mask.to("cpu", torch.uint8), true.cpu().clone(), loss)
        for image, mask, true, loss in rows
    ]
