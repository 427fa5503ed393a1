"""Augmentations of samples with boxes and masks that torchvision does not have: those that mix several samples, and
large-scale jitter.

- ``CopyPaste`` and ``LargeScaleJitter``: Ghiasi, Cui, Srinivas, Qian, Lin, Cubuk, Le and Zoph, "Simple Copy-Paste is a
  Strong Data Augmentation Method for Instance Segmentation", 2021.
- ``Mosaic``: Bochkovskiy, Wang and Liao, "YOLOv4: Optimal Speed and Accuracy of Object Detection", 2020, section 3.3.
- ``DetectionMixUp``: Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", 2018, for
  boxes as in Ge, Liu, Wang, Li and Sun, "YOLOX: Exceeding YOLO Series in 2021".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import Transform, functional

from zoo.data.object_augmentation import OBJECTS, MixSamples, Sample, Target, masks_of_size, wrapped
from zoo.errors import UserError

GREY = 114  # bytes of pixels without an image, as in YOLOv5 and YOLOX


class CopyPaste(MixSamples):
    """Paste some objects of another image, cut out by their masks, over this one (Ghiasi et al. 2021).

    Each object of the other image is pasted with probability 1/2, at its own place, but for crowds. Masks and boxes of
    what is covered shrink; an object of which less than ``visible`` is left is dropped. The paper jitters both images'
    scales and flips them before: list these transforms before this one. Deviation: no blurring at the edges, which the
    paper found to change nothing.

    Args:
        p: probability of pasting anything.
        visible: least share of its pixels with which an object is kept.
    """

    needs: ClassVar[tuple[str, ...]] = ("boxes", "masks")

    def __init__(self, p: float = 1.0, visible: float = 0.1) -> None:
        super().__init__(p)
        self.visible = _share(visible, self)

    def mix(self, sample: Sample, others: Sequence[Sample]) -> Sample:
        """The first image with objects of the other one."""
        (image, target), (source, pasted) = sample, _placed(others[0], 0, 0, sample[0].shape[-2:])
        chosen = torch.rand(len(pasted["labels"])) < 0.5
        chosen &= pasted["masks"].flatten(1).any(1) & ~_crowds(pasted)
        pasted = _boxed_anew(_some(pasted, chosen), torch.ones(int(chosen.sum()), dtype=torch.bool))
        over = pasted["masks"].any(0)
        before = _pixels(target)
        target = {**target, "masks": target["masks"] & ~over}
        after = _pixels(target)
        left = _some(_boxed_anew(target, after < before), _enough(after, before, self.visible, target))
        return wrapped(torch.where(over, source, image), _joined([left, pasted]))


class Mosaic(MixSamples):
    """Four images around a random point (Bochkovskiy et al. 2020).

    Each image is scaled to fit ``image_size`` and then by a factor drawn once for all four; grey is where none reaches.
    Objects of which the edge or a neighbour leaves less than ``visible`` are dropped. Deviation from YOLOX: no rotation
    and no shear; ``v2.RandomAffine`` behind this transform adds them.

    Args:
        image_size: height and width of the result; default: the data's, if it has one.
        p: probability of a mosaic.
        scale: least and largest factor.
        visible: least share of its area (of its mask, if there is one) with which an object is kept.
    """

    others: ClassVar[int] = 3

    def __init__(
        self, image_size: list[int], p: float = 1.0, scale: Sequence[float] = (0.5, 1.5), visible: float = 0.1
    ) -> None:
        super().__init__(p)
        self.size, self.scale, self.visible = _size(image_size), _scales(scale, self), _share(visible, self)

    def mix(self, sample: Sample, others: Sequence[Sample]) -> Sample:
        """A mosaic: the first image is above and left of the point, the next ones right, below, and below right."""
        zoom = float(torch.empty(()).uniform_(*self.scale))
        # As if a canvas of twice the size, with a point in its middle half, were scaled and cut in its middle.
        y, x = (round(side * (0.5 + zoom * (float(torch.rand(())) - 0.5))) for side in self.size)
        height, width = self.size
        canvas = torch.full_like(sample[0].new_empty((len(sample[0]), height, width)), _grey(sample[0]))
        targets = []
        for number, (image, target) in enumerate([sample, *others]):
            factor = zoom * min(side / length for side, length in zip(self.size, image.shape[-2:], strict=True))
            image, target = scaled = _scaled((image, target), factor)
            h, w = image.shape[-2:]
            top, left = y - h * (number < 2), x - w * (number % 2 == 0)
            tile, cut = _placed(scaled, top, left, self.size)
            window = _window(top, top + h, height), _window(left, left + w, width)
            canvas[:, *window] = tile[:, *window]
            targets.append(_some(cut, _enough(_pixels(cut), _pixels(target), self.visible, cut)))
        return wrapped(canvas, _joined(targets))


class DetectionMixUp(MixSamples):
    """The mean of two images with the objects of both (Zhang et al. 2018, with YOLOX's weight of 1/2).

    The other image is scaled to fit into the first. Deviation from YOLOX: the other's scale is not jittered and it is
    not flipped; transforms before this one do that.

    Args:
        p: probability of mixing.
    """

    def __init__(self, p: float = 1.0) -> None:
        super().__init__(p)

    def mix(self, sample: Sample, others: Sequence[Sample]) -> Sample:
        """Both images in one."""
        image, target = sample
        size, (other, _) = image.shape[-2:], others[0]
        factor = min(side / length for side, length in zip(size, other.shape[-2:], strict=True))
        scaled = _scaled(others[0], factor)
        placed, added = _placed(scaled, 0, 0, size)
        height, width = scaled[0].shape[-2:]
        under = torch.full_like(placed.as_subclass(Tensor), _grey(image))
        under[:, :height, :width] = placed[:, :height, :width]
        mean = (image.as_subclass(Tensor).float() + under.float()) / 2
        return wrapped(mean.to(image.dtype), _joined([target, added]))


class LargeScaleJitter(Transform):
    """Scale by a random factor, then crop or pad to a size (Ghiasi et al. 2021, section 3).

    Factor 1 is where the image fits into the size. What is padded is black; in masks of classes it is ignored.

    Args:
        image_size: height and width of the result; default: the data's, if it has one.
        scale: least and largest factor; the paper's small jitter is from 0.8 to 1.25.
    """

    def __init__(self, image_size: list[int], scale: Sequence[float] = (0.1, 2.0)) -> None:
        super().__init__()
        size = _size(image_size)
        jitter = v2.ScaleJitter((size[1], size[0]), _scales(scale, self))  # torchvision's is a width and a height
        self.steps = v2.Compose([jitter, v2.RandomCrop(size, pad_if_needed=True)])

    def forward(self, *inputs: Any) -> Any:
        """The image, scaled and cut, and with it boxes and masks."""
        return self.steps(*inputs)


# Arguments


def _share(value: float, transform: Transform) -> float:
    if not 0 <= value <= 1:
        raise UserError(f"{type(transform).__name__}: visible is a share from 0 to 1, not {value}")
    return value


def _scales(scale: Sequence[float], transform: Transform) -> tuple[float, float]:
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise UserError(f"{type(transform).__name__}: scale is a least and a largest factor, not {list(scale)}")
    return scale[0], scale[1]


def _size(image_size: Sequence[int]) -> tuple[int, int]:
    if len(image_size) != 2 or min(image_size) < 1:
        raise UserError(f"image_size is a height and a width, not {list(image_size)}")
    return image_size[0], image_size[1]


# Geometry


def _grey(image: Tensor) -> float:
    return GREY / 255 if image.is_floating_point() else GREY


def _window(start: int, end: int, length: int) -> slice:
    return slice(min(max(start, 0), length), max(min(end, length), 0))


def _scaled(sample: Sample, factor: float) -> Sample:
    image, target = sample[0], dict(sample[1])
    size = [max(1, round(length * factor)) for length in image.shape[-2:]]
    target["boxes"] = functional.resize(target["boxes"], size)
    if "masks" in target:
        masks = functional.resize(target["masks"], size).as_subclass(Tensor)
        target["masks"] = tv_tensors.Mask(masks_of_size(masks, *size))
    return functional.resize(image, size), target


def _placed(sample: Sample, top: int, left: int, size: Sequence[int]) -> Sample:
    """A sample on a black canvas of this size, its upper left corner there; what lies outside is cut.

    (torchvision's ``crop`` gives another size if nothing is inside.)
    """
    image, target = sample[0], dict(sample[1])
    rows, columns = (
        _window(start, start + length, side)
        for start, length, side in zip((top, left), image.shape[-2:], size, strict=True)
    )

    def on_canvas(pixels: Tensor) -> Tensor:
        canvas = pixels.as_subclass(Tensor).new_zeros((*pixels.shape[:-2], *size))
        seen = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        canvas[..., rows, columns] = pixels[..., *seen]
        return canvas

    boxes = target["boxes"].as_subclass(Tensor) + torch.tensor([left, top, left, top])
    target["boxes"] = torch.stack([boxes[:, i].clamp(0, size[1 - i % 2]) for i in range(4)], 1)
    if "masks" in target:
        target["masks"] = on_canvas(target["masks"])
    return on_canvas(image), target


# Targets


def _crowds(target: Target) -> Tensor:
    return target["iscrowd"].bool() if "iscrowd" in target else torch.zeros(len(target["labels"]), dtype=torch.bool)


def _pixels(target: Target) -> Tensor:
    """How large each object is: the pixels of its mask, or else its box's area; (N,)."""
    if "masks" in target:
        return target["masks"].as_subclass(Tensor).flatten(1).sum(1).float()
    boxes = target["boxes"].as_subclass(Tensor)
    return (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1)


def _enough(after: Tensor, before: Tensor, share: float, target: Target) -> Tensor:
    """Which objects are kept: those of which this share is left, and whatever is left of a crowd."""
    return (after > 0) & ((after >= share * before) | _crowds(target))


def _some(target: Target, chosen: Tensor) -> Target:
    return {k: v.as_subclass(Tensor)[chosen] if k in OBJECTS else v for k, v in target.items()}


def _boxed_anew(target: Target, chosen: Tensor) -> Target:
    """The target with boxes around the masks of the chosen objects, if something of them is left."""
    masks, boxes = target["masks"].as_subclass(Tensor), target["boxes"].as_subclass(Tensor).clone()
    chosen = chosen & masks.flatten(1).any(1)
    if chosen.any():
        boxes[chosen] = (masks_to_boxes(masks[chosen]) + torch.tensor([0.0, 0.0, 1.0, 1.0])).to(boxes.dtype)
    return {**target, "boxes": boxes}


def _joined(targets: Sequence[Target]) -> Target:
    """The objects of all targets; what else the first one has."""
    first = targets[0]
    rows = {k: torch.cat([one[k].as_subclass(Tensor) for one in targets]) for k in first if k in OBJECTS}
    return {**first, **rows}
