"""Augmentation of whole training batches on the device, for every task whose images are squares of one size.

torchvision's transforms draw once per call. Those that draw are therefore called for each picture; those that don't, or
that mix the pictures of a batch, for the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import Transform

from zoo.data.pixels import Range, as_floats
from zoo.data.transforms import BatchTransform, GeometricTransform, move
from zoo.errors import UserError
from zoo.factories import TransformFactory, build

# torchvision's mixing transforms and the base that they share, which third-party ones derive from, too.
MIXING = tuple({base for cls in (v2.MixUp, v2.CutMix) for base in cls.__mro__ if base not in Transform.__mro__})
CONTAINERS = (v2.Compose, v2.RandomApply, v2.RandomChoice, v2.RandomOrder)
# torchvision's transforms that draw nothing, or for each pixel. A subclass may draw, so only these exact classes.
UNIFORM = {
    v2.CenterCrop,
    v2.GaussianNoise,
    v2.Grayscale,
    v2.Identity,
    v2.LinearTransformation,
    v2.Normalize,
    v2.Pad,
    v2.Resize,
    v2.RGB,
    v2.ToDtype,
    v2.ToImage,
    v2.ToPureTensor,
}


class PerPicture(Transform):
    """Transforms that are applied in turn to each picture of a batch, with draws of its own.

    Args:
        transforms: take a picture (C, H, W) and its label.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.transforms = list(transforms)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The transformed batch.

        Raises:
            UserError: the pictures are no longer of one size.
        """
        done = [_apply(self.transforms, *one) for one in zip(images, labels, strict=True)]
        shapes = sorted({"x".join(map(str, image.shape)) for image, _ in done})
        if len(shapes) > 1:
            names = ", ".join(type(transform).__name__ for transform in self.transforms)
            raise UserError(
                f"data.augment: pictures differ in size after {names} ({shapes[0]}, {shapes[1]}): "
                "add a crop or resize to data.image_size behind it"
            )
        return torch.stack([image for image, _ in done]), torch.stack([label for _, label in done])


def arranged(transforms: Iterable[Transform]) -> list[Transform]:
    """The transforms with every run of those that draw for a whole call in a ``PerPicture``.

    Raises:
        UserError: a container both mixes pictures, which needs the batch, and draws for each picture.
    """
    made: list[Transform] = []
    run: list[Transform] = []
    for transform in [*_flattened(transforms), None]:
        if transform is not None and not _needs_batch(transform):
            run.append(transform)
            continue
        draws = any(type(one) not in UNIFORM for one in run)
        made += [PerPicture(run)] if draws else run
        made += [] if transform is None else [transform]
        run = []
    return made


def _flattened(transforms: Iterable[Transform]) -> Iterator[Transform]:
    for transform in transforms:
        if type(transform) is v2.Compose:
            yield from _flattened(transform.transforms)
        else:
            yield transform


def _needs_batch(transform: Any) -> bool:
    """Whether it mixes the pictures of a batch, or is one of ours, which draw for each picture themselves."""
    if not isinstance(transform, CONTAINERS):
        return isinstance(transform, BatchTransform) or _mixes(transform)
    inside = list(transform.transforms)
    mixing = [one for one in inside if _mixes(one) or (isinstance(one, CONTAINERS) and _needs_batch(one))]
    others = [one for one in inside if one not in mixing]
    if mixing and others:
        raise UserError(
            f"data.augment: {type(transform).__name__} holds {type(mixing[0]).__name__}, which mixes a batch, and "
            f"{type(others[0]).__name__}, which is for each picture: list them separately"
        )
    return bool(mixing)


def _mixes(transform: Any) -> bool:
    """Whether it mixes the pictures of a batch: a MixUp, a CutMix, or a third party's that says so by
    ``takes_batch = True``.
    """
    return isinstance(transform, MIXING) or bool(getattr(transform, "takes_batch", False))


class BatchAugmentation:
    """The transforms of a data set, applied in order.

    Args:
        factories: build the transforms; ``image_size`` and ``num_classes`` are passed to those that take them. Those
            that draw once per call are called for each picture.
        channels: number of channels of the images.
        image_size: side of the output images.
        start: side of the input images if a transform crops; otherwise it is ``image_size``.
        num_classes: number of classes of the labels.

    Raises:
        UserError: a transform is in the wrong place, or a container holds transforms that don't go together.
    """

    def __init__(
        self, factories: Sequence[TransformFactory], channels: int, image_size: int, start: int, num_classes: int
    ) -> None:
        self.channels, self.image_size = channels, image_size
        size = [image_size] * 2
        self.transforms = arranged(build(f, image_size=size, num_classes=num_classes) for f in factories)
        for transform in self.transforms[1:]:
            if isinstance(transform, BatchTransform) and transform.must_be_first:
                name = type(transform).__name__
                raise UserError(f"data.augment: {name} identifies images by their pixels, so it must be the first")
        self.start = start
        self.size = image_size  # side that batches are resized to first; set by ``fit``

    @property
    def _ours(self) -> list[BatchTransform]:
        return [transform for transform in self.transforms if isinstance(transform, BatchTransform)]

    @property
    def unfitted(self) -> list[BatchTransform]:
        """The transforms that need training images first."""
        return [transform for transform in self._ours if transform.needs_fit]

    def find_size(self) -> None:
        """Find the side that batches are resized to first: ``start`` if a transform crops from it.

        Tried out with two black images.

        Raises:
            UserError: a transform fails, or the output has another size.
        """
        outcomes = {}
        wanted = (self.channels, self.image_size, self.image_size)
        for side in dict.fromkeys((self.start, self.image_size)):
            shape = self._shape_of(side)
            if shape == wanted:
                self.size = side
                return
            outcomes[side] = f"{'x'.join(map(str, shape))} of {side}x{side}"
        raise UserError(f"data.augment makes {' and '.join(outcomes.values())}, data.image_size is {self.image_size}")

    def _shape_of(self, side: int) -> torch.Size:
        images = torch.zeros(2, self.channels, side, side)
        try:
            with torch.random.fork_rng(devices=[]):
                made, _ = _apply(self.transforms, images, torch.zeros(2, dtype=torch.int64))
                return made.shape[1:]
        except UserError:
            raise
        except Exception as error:  # any, by transform; also where it makes no tensor
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise UserError(f"data.augment fails on images of {side}x{side}: {reason}") from error

    def start_epoch(self, epoch: int, seed: int) -> None:
        """Pass the current epoch, counted from 0, and the run's seed to the transforms."""
        for transform in self._ours:
            transform.start_epoch(epoch, seed)

    def __call__(
        self, images: Tensor, labels: Tensor, dtype: torch.dtype = torch.float32, value_range: Range | None = None
    ) -> tuple[Tensor, Tensor]:
        """An augmented training batch.

        Args:
            images: as stored, (B, C, H, W).
            labels: int64, (B,).
            dtype: dtype of the result.
            value_range: stored values of black and white; default: those of the dtype.
        """
        size, transforms = torch.Size((self.size, self.size)), self.transforms
        if images.dtype == torch.uint8 and images.shape[-2:] == size:  # moving bytes costs a third of moving floats
            moves = list(takewhile(lambda transform: isinstance(transform, GeometricTransform), transforms))
            images, transforms = move(images, moves), transforms[len(moves) :]
            size = images.shape[-2:]
        images = as_floats(images, size, torch.promote_types(dtype, torch.float32), value_range)
        images, labels = _apply(transforms, images, labels)
        return images.to(dtype), labels.to(dtype) if labels.is_floating_point() else labels


def _apply(transforms: Sequence[Transform], images: Tensor, labels: Any) -> tuple[Tensor, Any]:
    for transform in transforms:
        images, labels = transform(images, labels)
    return images, labels
