"""Augmentation of samples with boxes and masks by torchvision's v2 transforms, and by ours that mix several samples.

Each sample is transformed by itself, as it is read. All draws are from torch's default generator, which the loader
seeds with the sample's key, so that a sample depends on seed, epoch and index alone: on no other sample of its batch,
and on no process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms.v2 import Transform

from zoo.data.augmentation import MIXING
from zoo.data.loading import EpochSamples
from zoo.data.transforms import BatchTransform
from zoo.errors import UserError
from zoo.factories import TransformFactory, build, class_of

Target = dict[str, Any]
Sample = tuple[Tensor, Target]
OBJECTS = ("boxes", "labels", "masks", "iscrowd", "area")  # entries of a target with one row for each object


class MixSamples(Transform):
    """Base of transforms that mix a sample with others, drawn at random from the training samples.

    The others pass the transforms before this one, with draws of their own.

    Args:
        p: probability of mixing; otherwise the sample stays as it is.

    Attributes:
        others: how many other samples it takes.
        needs: entries that the targets must have.
    """

    others: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ("boxes",)

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise UserError(f"{type(self).__name__}: p is a probability, not {p}")
        self.p = p

    def mix(self, sample: Sample, others: Sequence[Sample]) -> Sample:
        """A new sample; those given, whose images are bytes (C, H, W) of any size, stay unchanged."""
        raise NotImplementedError

    def forward(self, *inputs: Any) -> Any:
        """Refused: a single sample can't be mixed."""
        raise UserError(f"{type(self).__name__} mixes samples with boxes: it can't be part of another transform")


class ObjectAugmentation:
    """The transforms of a data set with boxes, masks or classes of pixels.

    Args:
        augment: transforms of every epoch.
        strong: transforms that precede them in the first epochs.
        strong_epochs: number of these epochs; default: all.
        facts: passed to the transforms that take them, as ``image_size``.
    """

    def __init__(
        self,
        augment: Sequence[TransformFactory],
        strong: Sequence[TransformFactory] = (),
        strong_epochs: int | None = None,
        **facts: Any,
    ) -> None:
        self.strong_epochs = strong_epochs
        self._usual, self._strong = ([_built(one, facts) for one in some] for some in (augment, strong))

    def transforms(self, epoch: int) -> list[Transform]:
        """Those of an epoch, counted from 0."""
        strong = self.strong_epochs is None or epoch < self.strong_epochs
        return [*self._strong, *self._usual] if strong else self._usual

    def check(self, sample: Sample) -> None:
        """Try all transforms on a sample, mixed with itself.

        Raises:
            UserError: one fails; the message says which and why.
        """
        with torch.random.fork_rng(devices=[]):
            for transform in self.transforms(0):
                _check_needs(transform, sample[1])
                try:
                    made = transformed(transform, sample, repeat(sample))
                except UserError:
                    raise
                except Exception as error:  # torchvision's transforms raise whatever they stumble on
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                    raise UserError(f"data.augment: {type(transform).__name__} fails: {reason}") from error
                sample = sanitized(*made)


def _built(factory: TransformFactory, facts: dict[str, Any]) -> Transform:
    try:
        made = build(factory, labels_getter=rows_of_objects, **facts)
    except TypeError as error:  # an argument that only the recipe can give
        raise UserError(f"data.augment: {class_of(factory).__name__}: {str(error).partition('() ')[2]}") from error
    name = type(made).__name__
    if isinstance(made, BatchTransform):
        raise UserError(f"data.augment: {name} knows no boxes and masks: use one of torchvision.transforms.v2")
    if isinstance(made, MIXING):
        raise UserError(f"data.augment: {name} mixes labels of whole images: use DetectionMixUp for boxes")
    return made


def _check_needs(transform: Transform, target: Target) -> None:
    if isinstance(transform, MixSamples) and (missing := [name for name in transform.needs if name not in target]):
        raise UserError(f"data.augment: {type(transform).__name__} needs {missing[0]}, which this data does not have")


def rows_of_objects(inputs: Any) -> tuple[Tensor, ...]:
    """What ``v2.SanitizeBoundingBoxes`` has to filter with the boxes of a sample: labels, ``iscrowd`` and ``area``."""
    target = inputs[1]
    return tuple(target[name] for name in ("labels", "iscrowd", "area") if name in target)


class AugmentedSamples(EpochSamples):
    """Samples that are augmented as they are read.

    Args:
        samples: map-style, of pairs of an image, (C, H, W) as stored, and a target: ``boxes`` (N, 4) as x1, y1, x2, y2
            with ``labels`` (N,) and, where there are some, ``masks`` (N, H, W), ``iscrowd`` (N,), ``area`` (N,); or
            ``mask`` (H, W), bytes: the class of each pixel, 255 for those that are ignored, as what is padded will be.
        augmentation: the transforms.
        size: height and width that every image must have in the end; default: any.
    """

    def __init__(self, samples: Any, augmentation: ObjectAugmentation, size: Sequence[int] | None = None) -> None:
        self.samples, self.augmentation, self.size = samples, augmentation, None if size is None else list(size)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        image, target = self._through(index, self.augmentation.transforms(self.epoch))
        if self.size is not None and list(image.shape[-2:]) != self.size:
            found, wanted = ("x".join(map(str, size)) for size in (image.shape[-2:], self.size))
            raise UserError(f"data.augment makes images of {found}, wanted are {wanted}: end with a crop or a resize")
        return unwrapped(image, _shifted(target, -1))

    def _through(self, index: int, transforms: Sequence[Transform]) -> Sample:
        image, target = self.samples[index]
        sample = wrapped(image, _shifted(target, 1))
        for i, transform in enumerate(transforms):
            sample = transformed(transform, sample, self._others(transforms[:i]))
        return sanitized(*sample) if transforms else sample

    def _others(self, transforms: Sequence[Transform]) -> Iterator[Sample]:
        while True:
            yield self._through(int(torch.randint(len(self.samples), ())), transforms)


def _shifted(target: Target, by: int) -> Target:
    """The target with another number for each class of pixels: transforms pad masks with 0, which ``by`` 1 makes the
    number of ignored pixels, 255.
    """
    return {**target, "mask": target["mask"].to(torch.uint8) + by} if "mask" in target else target


def transformed(transform: Transform, sample: Sample, others: Iterator[Sample]) -> Sample:
    """A sample after a transform; one that mixes samples takes as many of the others as it needs."""
    if not isinstance(transform, MixSamples):
        return transform(*sample)
    if float(torch.rand(())) >= transform.p:
        return sample
    return transform.mix(sanitized(*sample), list(islice(others, transform.others)))


def wrapped(image: Tensor, target: Target) -> Sample:
    """A sample whose tensors tell torchvision what they are."""
    made, size = dict(target), tuple(image.shape[-2:])
    if "boxes" in target:
        made["boxes"] = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
    for name in ("mask", "masks"):
        if name in target:
            made[name] = tv_tensors.Mask(target[name])
    return tv_tensors.Image(image), made


def unwrapped(image: Tensor, target: Target) -> Sample:
    """A sample of plain tensors."""
    plain = {k: v.as_subclass(Tensor) if isinstance(v, Tensor) else v for k, v in target.items()}
    return image.as_subclass(Tensor), plain


def sanitized(image: Tensor, target: Target) -> Sample:
    """A sample after geometric transforms: boxes within the image and around what is left of the masks, areas anew,
    and without the objects of which nothing is left.
    """
    if "boxes" not in target:
        return image, target
    height, width = image.shape[-2:]
    boxes = target["boxes"].as_subclass(Tensor).clone()
    boxes[:, ::2].clamp_(0, width)
    boxes[:, 1::2].clamp_(0, height)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    if "masks" in target:
        masks = masks_of_size(target["masks"].as_subclass(Tensor), height, width).bool()
        kept &= masks.flatten(1).any(1)
        boxes[kept] = _within_masks(boxes[kept], masks[kept])
        target = {**target, "masks": masks}
    made = {k: v.as_subclass(Tensor)[kept] if k in OBJECTS else v for k, v in {**target, "boxes": boxes}.items()}
    if "area" in made:
        made["area"] = _areas(made).to(made["area"].dtype)
    return wrapped(image, made)


def masks_of_size(masks: Tensor, height: int, width: int) -> Tensor:
    """The masks; without objects those of the image's size, which torchvision's resizing leaves as they were."""
    return masks if len(masks) else masks.new_zeros(0, height, width)


def _within_masks(boxes: Tensor, masks: Tensor) -> Tensor:
    """Boxes cut down to their masks, but for a pixel: annotators' boxes and rasterised outlines differ by less."""
    if not len(boxes):
        return boxes
    around = masks_to_boxes(masks) + torch.tensor([-1.0, -1.0, 2.0, 2.0])
    return torch.cat([torch.maximum(boxes[:, :2], around[:, :2]), torch.minimum(boxes[:, 2:], around[:, 2:])], 1)


def _areas(target: Target) -> Tensor:
    if "masks" in target:
        return target["masks"].as_subclass(Tensor).flatten(1).sum(1)
    return (target["boxes"].as_subclass(Tensor)[:, 2:] - target["boxes"].as_subclass(Tensor)[:, :2]).prod(1)
