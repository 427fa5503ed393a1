"""Base of image classification data sets, held in memory or read from files.

Pixels stay in their stored dtype until they are on the device. There whole batches become floats in [0, 1] of the
module's dtype, are resized and, in training, augmented.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from PIL.Image import Image
from torch import Tensor

from zoo.data.augmentation import BatchAugmentation
from zoo.data.base import Split
from zoo.data.files import Region, UnreadableImage, central, random_resized
from zoo.data.image_data import ImageData
from zoo.data.loading import Rows, TensorSource, check_split, repeats_batches, run_seed, split_indices
from zoo.data.pixels import Range, as_floats, check_range, mean_and_std
from zoo.data.samples import LabelledFiles, drawn_samples
from zoo.data.samples import example_images as example_images  # also imported from here by plugins
from zoo.errors import UserError
from zoo.factories import TransformFactory
from zoo.facts import Facts

Part = Literal["train", "val", "test"]

EVALUATION: tuple[Split, ...] = ("val", "test")

IMAGENET_MEAN = [0.485, 0.456, 0.406]  # torchvision's and timm's constants for ImageNet, in RGB
IMAGENET_STD = [0.229, 0.224, 0.225]


class ImageClassification(ImageData):
    """Base of labelled image data sets.

    Args:
        image_size: side of the square input of networks; default: the data set's own.
        resize: side of the square images that augmentation starts from and that evaluation gets, so that a task can
            take several crops of them; default: ``image_size``.
        augment: transforms of training batches, applied in order, on the device. Their output must be ``image_size``
            wide and high. ``image_size`` and ``num_classes`` are passed to those that take them. torchvision's are
            called for each picture, so that each gets draws of its own; the zoo's take whole batches and are faster.
        val_fraction: fraction of each class of the training part that is held out for validation; 0 disables
            validation.
        split_seed: seed of this choice.
        files: pictures to predict: a file, folder or glob pattern, or a list of these.
        batch_size: samples per training step, over all processes.
        eval_batch_size: the same for validation, test and prediction; default: ``batch_size``.
        num_workers: processes that read files.
        drop_last: leave out an incomplete last training batch.

    Attributes:
        native_size: default of ``image_size``.
        in_channels: 1 grey, 3 colour.
        mirror: whether a horizontal flip keeps an image's label.
        mean, std: per channel, of the training images in [0, 1].
        class_names: in the order of the labels.
        class_counts: training images per class, after ``setup``.
        value_range: stored values of black and white; default: those of the pixels' dtype.
        left_out: what ``setup`` left out; its text stands in ``summary``.

    Shape:
        training: images (B, C, image_size, image_size), labels int64 (B,),
            or float (B, num_classes) after MixUp or CutMix
        evaluation: images (B, C, resize, resize), labels int64 (B,)
        prediction: as for every image data set; the centre or whole picture is larger by ``resize / image_size``
    """

    native_size: int = 224
    mirror: bool = True
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    class_names: Sequence[str] = ()
    value_range: ClassVar[Range | None] = None
    left_out: Any = ""

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
        self._part_labels: dict[str, Tensor] = {}
        self.augmentation: BatchAugmentation | None = None

    # Facts

    @property
    def facts(self) -> Facts:
        """Facts about the data; complete after ``setup``."""
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
        """The samples of a part, as ``subset`` takes them, and the labels, int64 (N,); None if there is no such part.

        Without a validation part, one is held out of training.
        """

    @abstractmethod
    def subset(self, source: Any, rows: Tensor, split: Split) -> Any:
        """The samples of these rows, for a loader."""

    def setup(self, stage: str | None = None) -> None:
        """Read the splits of the stage, hold validation out of training, and build the augmentation."""
        if stage in (None, "fit", "validate") and "train" not in self._splits:
            self._setup_training()
        if stage in (None, "test") and "test" not in self._splits:
            self._set_part("test", self.labelled("test"))
        if stage in (None, "fit") and self.augmentation is None:
            self._build_augmentation()

    def _setup_training(self) -> None:
        train = self.labelled("train")
        assert train is not None, f"{type(self).__name__} has no training part"
        source, labels = train
        self._set_part("train", train)
        self._set_part("val", self.labelled("val"))
        if self._splits["val"] is None and self.val_fraction:
            names = self.class_names or [str(label) for label in range(int(labels.max()) + 1)]
            check_split("data.val_fraction", self.val_fraction, labels, names)
            kept, held = split_indices(labels, self.val_fraction, self.split_seed)
            self._set_part("train", (source, labels[kept]), kept)
            self._set_part("val", (source, labels[held]), held)
            labels = labels[kept]
        self.class_counts = torch.bincount(labels, minlength=len(self.class_names)).tolist()

    def _set_part(self, split: str, part: tuple[Any, Tensor] | None, rows: Tensor | None = None) -> None:
        """Store a part's source and rows (default: all of them), and its labels, which ``summary`` counts."""
        if part is None:
            self._splits[split] = None
            return
        source, labels = part
        self._splits[split] = source, torch.arange(len(labels)) if rows is None else rows
        self._part_labels[split] = labels

    def samples(self, split: Split) -> Any:
        """The split's samples, None if there is no such split; prediction's are the ``files``.

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

    def summary(self) -> str:
        """Pictures, classes and parts, and what was left out."""
        counts = {split: 0 if part is None else len(part[1]) for split, part in self._splits.items()}
        parts = ", ".join(self._part_summary(split) for split in counts)
        left_out = f"; left out: {self.left_out}" if str(self.left_out) else ""
        name, total = type(self).__name__, sum(counts.values())
        return f"{name}: {total:,} pictures of {len(self.class_names)} classes: {parts}{left_out}"

    def _part_summary(self, split: str) -> str:
        part = self._splits[split]
        if part is None or not len(part[1]):
            return f"no {split}"
        present = len(self._part_labels[split].unique())
        few = f" ({present} of {len(self.class_names)} classes)" if present < len(self.class_names) else ""
        return f"{len(part[1]):,} {split}{few}"

    def setup_to_check(self) -> None:
        """Find all parts' samples; an augmentation would read some of them."""
        self.setup("validate")
        self.setup("test")

    def sample_pictures(self, split: Split, count: int) -> list[Image]:
        """Evenly spaced samples with their classes' names."""
        samples = self.samples(split)
        return [] if samples is None else drawn_samples(samples, count, self.class_names, self.value_range)

    # Augmentation

    @property
    def augment_from(self) -> int:
        """Side that augmentation starts from if one of its transforms crops."""
        return self.resize

    @property
    def train_size(self) -> int:
        """Side that training batches are resized to before they are augmented; set by ``setup``."""
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
        """As stored, (N, C, H, W): training images from which an augmentation computes its statistics.

        Args:
            count: maximum number; default: as many as can be read quickly.
        """

    def first_images(self, count: int) -> Tensor:
        """At most ``count`` training images as a network sees them: floats in [0, 1], without augmentation."""
        return self._floats(self.some_training_images(count), [self.image_size] * 2, torch.float32)

    # On the device

    def _floats(self, images: Tensor, size: Sequence[int], dtype: torch.dtype) -> Tensor:
        return as_floats(images, size, dtype, self.value_range)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Convert stored pixels to floats in [0, 1] of the module's dtype and resize them; augment training batches."""
        images, rest = batch
        if isinstance(rest, list):
            return super().on_after_batch_transfer(batch, dataloader_idx)
        if self.trainer is None or not self.trainer.training:
            return self._floats(images, [self.resize] * 2, self.dtype), rest
        assert self.augmentation is not None
        epoch = 0 if repeats_batches(self.trainer) else self.trainer.current_epoch
        self.augmentation.start_epoch(epoch, run_seed())
        return self.augmented(images, rest, self.dtype)

    def augmented(self, images: Tensor, labels: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """An augmented training batch.

        Args:
            images: as stored, (B, C, H, W).
            labels: int64, (B,).
            dtype: dtype of the result.
        """
        assert self.augmentation is not None, "call setup first"
        return self.augmentation(images, labels, dtype, self.value_range)


class InMemoryImages(ImageClassification):
    """Base of data sets that fit in memory: one tensor, indexed by the batch.

    It holds bytes, 16-bit integers or floats, with any number of channels. Black and white are the ends of the dtype's
    range (for floats 0 and 1) unless ``value_range`` is set. If a data set declares no mean and standard deviation,
    they are computed from the training part.

    Args:
        on_device: keep the pixels on the training device and index batches there, so that no step copies pixels from
            the host.
        kwargs: as for every labelled image data set.
    """

    may_change: ClassVar[tuple[str, ...]] = ("on_device",)

    def __init__(self, on_device: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_device = on_device

    def setup(self, stage: str | None = None) -> None:
        """Set up as every data set does, and compute mean and standard deviation if they are not declared."""
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
        """These rows, without copying pixels, except to the device with ``on_device``."""
        if self.on_device and self.trainer is not None:
            source.move(self.trainer.strategy.root_device)
            rows = rows.to(source.device)
        return Rows(source, rows)

    def some_training_images(self, count: int | None = None) -> Tensor:
        """The first ``count`` images, or all of them."""
        train = self.samples("train")
        return train.fetch(torch.arange(len(train))[:count])[0]


class ImageFiles(ImageClassification):
    """Base of data sets of picture files: decoded, resized and cropped one by one, by ``num_workers`` processes.

    Args:
        crop: how training crops a picture: ``center``, the central square, resized to ``resize`` if an augmentation
            crops from it (Krizhevsky et al. 2012), or ``random_resized``, a random box resized to ``image_size``
            (Szegedy et al. 2014).
        least_area: the smallest share of a picture that ``random_resized`` takes.
        skip_unreadable: leave pictures that can't be read out of training, where each is printed to stderr. Evaluation
            skips none: before training, all pictures for validation and test are read, and unreadable ones refused.
        kwargs: as for every labelled image data set.
    """

    some = 1000  # number of training images that are read for an augmentation that needs them

    may_change: ClassVar[tuple[str, ...]] = ("skip_unreadable",)

    def __init__(
        self,
        crop: Literal["center", "random_resized"] = "center",
        least_area: float = 0.08,
        skip_unreadable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < least_area <= 1:
            raise UserError(f"data.least_area must be above 0 and at most 1, not {least_area}")
        self.crop, self.least_area, self.skip_unreadable = crop, least_area, skip_unreadable

    def setup(self, stage: str | None = None) -> None:
        """Set up as every data set does; with ``skip_unreadable``, read all pictures for evaluation.

        Raises:
            UserError: some of them can't be read; the message lists them.
        """
        super().setup(stage)
        if self.skip_unreadable and stage in (None, "fit"):
            self.refuse_unreadable([split for split in EVALUATION if split in self._splits])

    @property
    def augment_from(self) -> int:
        """``resize``, or ``image_size`` if files are cropped when they are read."""
        return self.image_size if self.crop == "random_resized" else self.resize

    def subset(self, source: Sequence[str], rows: Tensor, split: Split) -> LabelledFiles:
        """These files; training files at the size that augmentation starts from."""
        if split != "train" or self.crop != "random_resized":
            return self._files(source, rows, self.train_size if split == "train" else self.resize, central)
        return self._files(source, rows, self.train_size, partial(random_resized, least=self.least_area))

    def _files(self, source: Any, rows: Tensor, side: int, region: Region) -> LabelledFiles:
        paths, labels = source
        return LabelledFiles([paths[row] for row in rows.tolist()], labels[rows], side, self.in_channels, region)

    def some_training_images(self, count: int | None = None) -> Tensor:
        """``count`` evenly spaced images (default: a thousand), as central squares."""
        found = self._splits["train"]
        assert found is not None
        (source, rows), count = found, count or self.some
        step = max(1, len(rows) // count)
        files = self._files(source, rows[::step][:count], self.image_size, central)
        return torch.stack(list(self._pixels(files)))

    def _pixels(self, files: LabelledFiles) -> Iterator[Tensor]:
        for index in range(len(files)):
            try:
                yield files[index][0]
            except UnreadableImage as error:
                if not self.skip_unreadable:
                    raise
                self.note_skipped(str(error))
