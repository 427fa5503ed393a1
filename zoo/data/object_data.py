"""Bases of data sets whose samples have boxes and masks, or a class for each pixel.

A subclass reads the samples of a split (``annotated``) and knows nothing of augmentation, batches and dtypes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from zoo.data.base import Split
from zoo.data.image_data import ImageData
from zoo.data.object_augmentation import AugmentedSamples, ObjectAugmentation, Sample, wrapped
from zoo.data.pixels import as_floats
from zoo.errors import UserError
from zoo.factories import TransformFactory

TRIED = 10  # samples among which a readable one is sought, to try the transforms on


class AnnotatedImages(ImageData):
    """Base of both.

    Args:
        augment: transforms of the training samples, applied in order: those of ``torchvision.transforms.v2``, which
            move boxes and masks with the image, and ``CopyPaste``, ``Mosaic``, ``DetectionMixUp``,
            ``LargeScaleJitter``. Objects that they cut away are dropped. ``image_size`` is passed to those that take
            it, if the data has one.
        strong_augment: transforms that are applied before these in the first ``strong_epochs`` epochs.
        strong_epochs: number of epochs with ``strong_augment``; default: all.
        files: pictures to predict: a file, folder or glob pattern, or a list of these.
        batch_size: samples per training step, over all processes.
        eval_batch_size: the same for validation, test and prediction; default: ``batch_size``.
        num_workers: processes that read samples.
        drop_last: leave out an incomplete last training batch.
    """

    def __init__(
        self,
        augment: list[TransformFactory] | None = None,
        strong_augment: list[TransformFactory] | None = None,
        strong_epochs: int | None = None,
        files: list[str] | str | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(files, batch_size, eval_batch_size, num_workers, drop_last)
        if strong_epochs is not None and strong_epochs < 0:
            raise UserError(f"data.strong_epochs must be at least 0, not {strong_epochs}")
        if strong_epochs is not None and not strong_augment:
            raise UserError(f"data.strong_epochs is {strong_epochs}, but there is no data.strong_augment")
        self.augment, self.strong_augment = augment or [], strong_augment or []
        self.strong_epochs = strong_epochs
        self._augmentation: ObjectAugmentation | None = None

    @abstractmethod
    def annotated(self, split: Split) -> Any:
        """The split's samples without augmentation, map-style, as ``AugmentedSamples`` takes them; None if there is no
        such split.

        Called more than once: read files in ``setup``. Images are bytes (or floats in [0, 1]) (C, H, W).
        """

    @property
    def training_size(self) -> list[int] | None:
        """Height and width that augmentation must end with; None for any."""
        return None

    @property
    def augmentation(self) -> ObjectAugmentation:
        """The transforms; tried on a training sample before they are first used.

        Raises:
            UserError: one of them can't be used with this data.
        """
        if self._augmentation is None:
            size = self.facts.get("image_size")
            facts = {} if size is None else {"image_size": size}
            made = ObjectAugmentation(self.augment, self.strong_augment, self.strong_epochs, **facts)
            if (sample := self._readable_sample()) is not None:
                made.check(wrapped(*sample))
            self._augmentation = made
        return self._augmentation

    def _readable_sample(self) -> Sample | None:
        samples = self.annotated("train")
        for index in range(min(TRIED, len(samples))):
            with suppress(UserError), torch.random.fork_rng(devices=[]):
                return samples[index]
        return None

    def samples(self, split: Split) -> Any:
        """The split's samples, augmented for training; None if there is no such split; prediction's are the ``files``.

        Raises:
            UserError: a transform can't be used with this data.
        """
        if split == "predict":
            return self.predict_samples()
        found = self.annotated(split)
        if split != "train" or found is None or not (self.augment or self.strong_augment):
            return found
        return AugmentedSamples(found, self.augmentation, self.training_size)

    def has_samples(self, split: Split) -> bool:
        """Whether there is such a split; call after ``setup``."""
        return bool(self.files) if split == "predict" else self.annotated(split) is not None

    def check_samples(self, split: Split) -> list[str]:
        """What is wrong with the split's samples as they are stored, one line for each problem."""
        samples = self.annotated(split)
        return [] if samples is None else self.problems_of(samples)

    def first_images(self, count: int) -> Tensor:
        """The first training images, without augmentation.

        Raises:
            UserError: they differ in size.
        """
        samples = self.annotated("train")
        images = [samples[i][0] for i in range(min(count, len(samples)))]
        if len({image.shape for image in images}) > 1:
            raise UserError(f"the network needs {count} training images of one size, these differ")
        return as_floats(torch.stack(images), images[0].shape[-2:], torch.float32)


class NumberedSamples(Dataset[Any]):
    """Samples whose targets have ``image_id``, their index: evaluation settles ties of scores by it.

    Args:
        samples: images and targets.
    """

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        image, target = self.samples[index]
        return image, {**target, "image_id": torch.tensor(index)}


class ObjectData(AnnotatedImages):
    """Base of data sets for detection and instance segmentation: batches of lists, since images differ in size.

    Shape:
        batch: list of B images (C, H, W) in [0, 1]; list of B dictionaries with ``boxes`` (N, 4) as x1, y1, x2, y2 in
            pixels, ``labels`` int64 (N,), and what else the data has: ``masks`` bool (N, H, W), ``iscrowd`` bool (N,),
            ``area`` (N,); in evaluation ``image_id``
    """

    batch: ClassVar[str] = "detection"

    def samples(self, split: Split) -> Any:
        """As ``AnnotatedImages`` gives them; for evaluation with their index as ``image_id``."""
        found = super().samples(split)
        return found if split in ("train", "predict") or found is None else NumberedSamples(found)

    def collate(self, samples: list[Any]) -> Any:
        """Images and targets, in two lists."""
        images, targets = zip(*samples, strict=True)
        return list(images), list(targets)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Stored pixels to floats in [0, 1] of the module's dtype."""
        if self.predicting:
            return super().on_after_batch_transfer(batch, dataloader_idx)
        images, targets = batch
        return [as_floats(image[None], image.shape[-2:], self.dtype)[0] for image in images], targets


class PixelData(AnnotatedImages):
    """Base of data sets for semantic segmentation. All images of a batch have one size.

    A sample's target has ``mask`` (H, W): the class of each pixel, 255 where it is ignored.

    Shape:
        batch: images (B, C, H, W) in [0, 1]; classes int64 (B, H, W), 255 where ignored
    """

    batch: ClassVar[str] = "semantic_segmentation"

    @property
    def training_size(self) -> list[int] | None:
        """The facts' ``image_size``."""
        return list(self.facts["image_size"])

    def count_pixels(self) -> list[int]:
        """Training pixels of each class, of every training mask."""
        samples, classes = self.annotated("train"), self.facts["num_classes"]
        return counted((samples[i][1]["mask"] for i in range(len(samples))), classes)

    def collate(self, samples: list[Any]) -> Any:
        """Images and the classes of their pixels."""
        return default_collate([(image, target["mask"].long()) for image, target in samples])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Stored pixels to floats in [0, 1] of the module's dtype."""
        if self.predicting:
            return super().on_after_batch_transfer(batch, dataloader_idx)
        images, masks = batch
        return as_floats(images, images.shape[-2:], self.dtype), masks


def counted(masks: Iterable[Tensor], classes: int) -> list[int]:
    """Pixels of each class in masks (H, W); labels from ``classes`` on are not counted."""
    counts = torch.zeros(256, dtype=torch.int64)
    for mask in masks:
        counts += torch.bincount(mask.flatten().long(), minlength=256)
    return counts[:classes].tolist()
