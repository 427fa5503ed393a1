"""Labelled images: what every image classification set does alike, held in memory or read from files.

Pixels stay as they are stored until they are on the device. There, and by whole batches, they become floats in [0, 1]
of the module's dtype, are brought to size and, in training, augmented.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.augmentation import BatchAugmentation
from zoo.data.base import Split
from zoo.data.files import Region, central, random_resized, read_image
from zoo.data.image_data import ImageData
from zoo.data.loading import Rows, TensorSource, run_seed, split_indices
from zoo.data.pixels import Range, as_floats, check_range, mean_and_std
from zoo.errors import UserError
from zoo.factories import TransformFactory
from zoo.facts import Facts

Part = Literal["train", "val", "test"]

IMAGENET_MEAN = [0.485, 0.456, 0.406]  # torchvision's and timm's constants for ImageNet, in RGB
IMAGENET_STD = [0.229, 0.224, 0.225]


class ImageClassification(ImageData):
    """Base of labelled image sets.

    Args:
        image_size: side of the square that networks see; left out, the set's own.
        resize: side of the square that augmentation starts from and that evaluation pictures have, so that a task can
            take several crops of them; left out, ``image_size``.
        augment: transforms of training batches, in their order, on the device. What comes out must be ``image_size``
            wide and high. Those that take ``image_size`` or ``num_classes`` are given them.
        val_fraction: of each class of the training part that is held out for validation; 0 leaves validation out.
        split_seed: of the choice of these.
        files: pictures to predict: a file, folder or glob pattern, or a list of these.
        batch_size: samples a training step, of all processes together.
        eval_batch_size: the same for validation, test and prediction; left out, ``batch_size``.
        num_workers: processes that read files.
        drop_last: leave out a last training batch that is not full.

    Attributes:
        native_size: side that networks see where nothing is said.
        in_channels: 1 grey, 3 colour.
        mirror: whether an image's reflection keeps its label.
        mean, std: by channel of the training images in [0, 1].
        class_names: in the order of the labels.
        class_counts: training images a class, once set up.
        value_range: stored values of black and white; left out, those of the type of the pixels.

    Shape:
        training: images (B, C, image_size, image_size), labels int64 (B,),
            or float (B, num_classes) after MixUp or CutMix
        evaluation: images (B, C, resize, resize), labels int64 (B,)
        prediction: as every image data set's; what the task sees the centre or whole of is larger by
            ``resize / image_size``
    """

    native_size: int = 224
    mirror: bool = True
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    class_names: Sequence[str] = ()
    value_range: ClassVar[Range | None] = None

    def __init__(
        self,
        image_size: int | None = None,
        resize: int | None = None,
        augment: list[TransformFactory] | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        files: list[str] | str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(files, batch_size, eval_batch_size, num_workers, drop_last)
        self.image_size = self.native_size if image_size is None else image_size
        self.resize = self.image_size if resize is None else resize
        if self.image_size < 1:
            raise UserError(f"data.image_size must be at least 1, not {self.image_size}")
        if self.resize < self.image_size:
            raise UserError(f"data.resize is {self.resize}, smaller than data.image_size, which is {self.image_size}")
        if not 0 <= val_fraction < 1:
            raise UserError(f"data.val_fraction must be at least 0 and below 1, not {val_fraction}")
        self.augment = augment or []
        self.val_fraction, self.split_seed = val_fraction, split_seed
        self.class_counts: list[int] | None = None
        self._splits: dict[str, tuple[Any, Tensor] | None] = {}
        self.augmentation: BatchAugmentation | None = None

    # What the data says of itself

    @property
    def facts(self) -> Facts:
        """What is known; all of it after ``setup``."""
        facts = Facts(in_channels=self.in_channels, image_size=[self.image_size] * 2, mirror=self.mirror)
        if self.class_names:
            facts |= {"num_classes": len(self.class_names), "class_names": list(self.class_names)}
        if self.mean is not None and self.std is not None:
            facts |= {"mean": list(self.mean), "std": list(self.std)}
        if self.class_counts is not None:
            facts |= {"class_counts": self.class_counts}
        return facts

    # Splits

    @abstractmethod
    def labelled(self, part: Part) -> tuple[Any, Tensor] | None:
        """What ``subset`` takes samples from, and the labels, int64 (N,); None where the set has no such part.

        Without a validation part, one is held out of training.
        """

    @abstractmethod
    def subset(self, source: Any, rows: Tensor, split: Split) -> Any:
        """The samples of these rows, for a loader."""

    def setup(self, stage: str | None = None) -> None:
        """Read what the stage needs, hold validation out of training, and build the augmentation."""
        if stage in (None, "fit", "validate") and "train" not in self._splits:
            self._setup_training()
        if stage in (None, "test") and "test" not in self._splits:
            self._splits["test"] = _all_rows(self.labelled("test"))
        if stage in (None, "fit") and self.augmentation is None:
            self._build_augmentation()

    def _setup_training(self) -> None:
        train = self.labelled("train")
        assert train is not None, f"{type(self).__name__} has no training part"
        source, labels = train
        self._splits["train"], self._splits["val"] = _all_rows(train), _all_rows(self.labelled("val"))
        if self._splits["val"] is None and self.val_fraction:
            kept, held = split_indices(labels, self.val_fraction, self.split_seed)
            if not len(held):
                count = f"{self.val_fraction} of {len(labels)} images"
                raise UserError(
                    f"data.val_fraction: {count} in {len(self.class_names)} classes is none; give more, or 0"
                )
            self._splits["train"], self._splits["val"] = (source, kept), (source, held)
            labels = labels[kept]
        self.class_counts = torch.bincount(labels, minlength=len(self.class_names)).tolist()

    def samples(self, split: Split) -> Any:
        """The split's samples, None where there is no such split; prediction's are the ``files``.

        Raises:
            UserError: no file matches.
        """
        if split == "predict":
            return self.predict_samples()
        if split not in self._splits:
            raise RuntimeError(f"call setup before samples({split!r})")
        found = self._splits[split]
        return None if found is None else self.subset(*found, split)

    def size_to_predict(self, size: Sequence[int]) -> list[int]:
        """The task's size, enlarged as ``resize`` enlarges ``image_size``."""
        return [round(n * self.resize / self.image_size) for n in size]

    # Augmentation

    @property
    def augment_from(self) -> int:
        """Side that augmentation starts from where one of its transforms crops."""
        return self.resize

    @property
    def train_size(self) -> int:
        """Side that training batches are brought to before they are augmented; ``setup`` finds it."""
        return self.augmentation.size if self.augmentation else self.image_size

    def _build_augmentation(self) -> None:
        self.augmentation = BatchAugmentation(
            self.augment, self.in_channels, self.image_size, self.augment_from, len(self.class_names)
        )
        for transform in self.augmentation.unfitted:
            images = self.some_training_images()
            bytes_or_floats = images.dtype == torch.uint8 and self.value_range is None
            transform.fit(images if bytes_or_floats else self._floats(images, images.shape[-2:], torch.float32))
        self.augmentation.find_size()

    @abstractmethod
    def some_training_images(self, count: int | None = None) -> Tensor:
        """As stored, (N, C, H, W): training images from which an augmentation computes what it needs to know.

        Args:
            count: at most so many; left out, as many as are soon read.
        """

    def first_images(self, count: int) -> Tensor:
        """At most so many training images as a network sees them: floats in [0, 1], without augmentation."""
        return self._floats(self.some_training_images(count), [self.image_size] * 2, torch.float32)

    # On the device

    def _floats(self, images: Tensor, size: Sequence[int], dtype: torch.dtype) -> Tensor:
        return as_floats(images, size, dtype, self.value_range)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Stored pixels to floats in [0, 1] of the module's dtype, at their size; in training augmented."""
        images, rest = batch
        if isinstance(rest, list):
            return super().on_after_batch_transfer(batch, dataloader_idx)
        if self.trainer is None or not self.trainer.training:
            return self._floats(images, [self.resize] * 2, self.dtype), rest
        assert self.augmentation is not None
        self.augmentation.start_epoch(self.trainer.current_epoch, run_seed())
        return self.augmented(images, rest, self.dtype)

    def augmented(self, images: Tensor, labels: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """A training batch as a task sees it.

        Args:
            images: as stored, (B, C, H, W).
            labels: int64, (B,).
            dtype: of the result.
        """
        assert self.augmentation is not None, "call setup first"
        return self.augmentation(images, labels, dtype, self.value_range)


def _all_rows(part: tuple[Any, Tensor] | None) -> tuple[Any, Tensor] | None:
    return None if part is None else (part[0], torch.arange(len(part[1])))


class InMemoryImages(ImageClassification):
    """Base of sets that fit in memory: one tensor, fetched a batch at a time.

    It holds bytes, 16-bit numbers or floats, of any number of channels; black and white are the ends of the type's
    range (floats': 0 and 1) unless ``value_range`` says otherwise. Where a set knows no mean and standard deviation,
    they are those of the training part.

    Args:
        on_device: keep the pixels on the device that trains, and gather batches there: nothing is copied at a step.
        kwargs: as for every labelled image set.
    """

    may_change: ClassVar[tuple[str, ...]] = ("on_device",)

    def __init__(self, on_device: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_device = on_device

    def setup(self, stage: str | None = None) -> None:
        """As every set, and the mean and standard deviation where they aren't known."""
        super().setup(stage)
        if self.mean is None and "train" in self._splits:
            self.mean, self.std = mean_and_std(self.some_training_images(), self.value_range)

    @abstractmethod
    def read(self, part: Part) -> tuple[Tensor, Tensor]:
        """All images of the training or test part as stored, (N, C, H, W), and their labels, int64 (N,)."""

    def labelled(self, part: Part) -> tuple[TensorSource, Tensor] | None:
        """The part's tensors; validation is always held out of training."""
        if part == "val":
            return None
        images, labels = self.read(part)
        if images.dim() != 4 or images.shape[1] != self.in_channels:
            wanted = f"(N, {self.in_channels}, H, W)"
            raise UserError(f"{type(self).__name__}: read gives images {list(images.shape)}, wanted are {wanted}")
        check_range(images, self.value_range, type(self).__name__)
        return TensorSource(images, labels), labels

    def subset(self, source: TensorSource, rows: Tensor, split: Split) -> Rows:
        """These rows, without a copy but for one to the device, where that is asked for."""
        if self.on_device and self.trainer is not None:
            source.move(self.trainer.strategy.root_device)
            rows = rows.to(source.device)
        return Rows(source, rows)

    def some_training_images(self, count: int | None = None) -> Tensor:
        """The first, or all of them."""
        train = self.samples("train")
        return train.fetch(torch.arange(len(train))[:count])[0]


def example_images(labels: Tensor, side: int, channels: int, seed: int = 0) -> Tensor:
    """Small images that can be told apart: noise, and a white bar whose place is the class.

    Args:
        labels: (N,).
        side: of the squares.
        channels: of the result.
        seed: of the noise, so that no two files of an example hold the same image.

    Returns:
        bytes, (N, channels, side, side)
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 64, (len(labels), channels, side, side), generator=generator, dtype=torch.uint8)
    rows = torch.arange(side)
    bar = rows == (labels[:, None] * side // (int(labels.max()) + 1))
    images[bar[:, None, :, None].expand_as(images)] = 255
    return images


class LabelledFiles(Dataset):
    """Picture files with their labels, decoded one by one.

    Args:
        paths: the files.
        labels: of each, int64 (N,).
        side: of the square that they are brought to.
        channels: 1 or 3.
        region: chooses what of a picture is taken.
    """

    def __init__(
        self, paths: Sequence[str], labels: Tensor, side: int, channels: int, region: Region = central
    ) -> None:
        self.paths, self.labels, self.side, self.channels, self.region = paths, labels, side, channels, region

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = read_image(self.paths[index], [self.side] * 2, self.channels, self.region)
        return image, int(self.labels[index])


class ImageFiles(ImageClassification):
    """Base of sets of picture files: decoded, resized and cropped one by one, by ``num_workers`` processes.

    Args:
        crop: what training takes of a picture: ``center``, the central square, as ``resize`` pixels where an
            augmentation crops from there (Krizhevsky et al. 2012), or ``random_resized``, a random box as
            ``image_size`` pixels (Szegedy et al. 2014).
        kwargs: as for every labelled image set.
    """

    some = 1000  # training images that are read for an augmentation that wants to see them

    def __init__(self, crop: Literal["center", "random_resized"] = "center", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.crop = crop

    @property
    def augment_from(self) -> int:
        """``resize``, or ``image_size`` where files are cropped while they are read."""
        return self.image_size if self.crop == "random_resized" else self.resize

    def subset(self, source: Sequence[str], rows: Tensor, split: Split) -> LabelledFiles:
        """These files; those of training at the size that augmentation starts from."""
        train = split == "train"
        region = random_resized if train and self.crop == "random_resized" else central
        return self._files(source, rows, self.train_size if train else self.resize, region)

    def _files(self, source: Any, rows: Tensor, side: int, region: Region) -> LabelledFiles:
        paths, labels = source
        return LabelledFiles([paths[row] for row in rows.tolist()], labels[rows], side, self.in_channels, region)

    def some_training_images(self, count: int | None = None) -> Tensor:
        """A thousand, or so many, evenly spaced, as central squares."""
        found = self._splits["train"]
        assert found is not None
        (source, rows), count = found, count or self.some
        step = max(1, len(rows) // count)
        files = self._files(source, rows[::step][:count], self.image_size, central)
        return torch.stack([files[i][0] for i in range(len(files))])
