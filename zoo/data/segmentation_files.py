"""Base of data sets of picture files with a mask of classes for each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch.nn.functional import pad
from torchvision.transforms.v2 import RandomHorizontalFlip, RandomResizedCrop

from zoo.contracts.forms import IGNORED
from zoo.cpus import usable_cpus
from zoo.data.annotated_files import held_out
from zoo.data.annotations import Faults
from zoo.data.base import LISTED, Split
from zoo.data.class_table import Classes, chosen, is_background
from zoo.data.folder import LUMA
from zoo.data.images import EVALUATION, IMAGENET_MEAN, IMAGENET_STD, Part
from zoo.data.mask_files import MaskedFiles, MaskTable, checked_masks
from zoo.data.object_data import PixelData
from zoo.errors import UserError
from zoo.facts import Facts

PARTS: tuple[Part, ...] = ("train", "val", "test")
CHECKED = 2000  # masks of a part that are read before training
Pairs = list[tuple[str, str]]
"""Picture and mask files."""


class SegmentationFiles(PixelData):
    """Base of data sets of picture files with a mask of classes for each.

    Before training, the masks of all parts are read (of more than 2,000, evenly spaced ones): wrong ones are named, all
    at once, and the pixels of each class are counted.

    Args:
        classes: a list of those to train on, or for each new class the one or the list of those that it stands for.
            Pixels of others become background if the data has such a class, which then stays the first; otherwise they
            are ignored. Default: all.
        image_size: side of the square that training gets. Evaluation gets pictures at their own size, a batch padded to
            a common size; padded pixels are ignored.
        max_size: longer side that larger pictures are reduced to, before they are augmented.
        augment: transforms of the training samples, which must end with ``image_size``; default: random crops of a
            quarter to all of a picture, resized, and horizontal flips. An empty list resizes whole pictures.
        mirror: whether a horizontal flip keeps a picture's labels.
        in_channels: 3 for colour, 1 for grey.
        val_fraction: fraction of the training pictures that is held out for validation, if the data has no such part; 0
            disables validation.
        test_fraction: fraction of the pictures for the test, if the data has neither a validation nor a test part; 0
            disables the test.
        split_seed: seed of these choices.
        skip_unreadable: leave pictures and masks that can't be read out of training.
        kwargs: as for every data set with annotations.
    """

    may_change: ClassVar[tuple[str, ...]] = ("root", "skip_unreadable")

    def __init__(
        self,
        classes: Classes | None = None,
        image_size: int = 256,
        max_size: int | None = None,
        mirror: bool = True,
        in_channels: Literal[1, 3] = 3,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        skip_unreadable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, side in (("image_size", image_size), ("max_size", max_size)):
            if side is not None and side < 1:
                raise UserError(f"data.{name} must be at least 1, not {side}")
        for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 <= fraction < 1:
                raise UserError(f"data.{name} must be at least 0 and below 1, not {fraction}")
        self.classes, self.image_size, self.max_size = classes, image_size, max_size
        self.mirror, self.in_channels, self.skip_unreadable = mirror, in_channels, skip_unreadable
        self.val_fraction, self.test_fraction, self.split_seed = val_fraction, test_fraction, split_seed
        if self.hparams.get("augment") is None:
            crop = partial(RandomResizedCrop, size=[image_size] * 2, scale=(0.25, 1.0))
            self.augment = [crop, RandomHorizontalFlip] if mirror else [crop]
        self.class_names: list[str] = []
        self.faults: dict[str, Faults] = {}
        self._parts: dict[str, Pairs | None] = {}
        self._counts: list[int] | None = None

    @property
    def facts(self) -> Facts:
        """Facts about the data; complete after ``setup``."""
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        if self.in_channels == 1:
            mean, std = ([float(np.dot(LUMA, values))] for values in (mean, std))
        facts = Facts(in_channels=self.in_channels, image_size=[self.image_size] * 2, mirror=self.mirror)
        facts |= {"mean": list(mean), "std": list(std)}
        if self.class_names:
            facts |= {"num_classes": len(self.class_names), "class_names": list(self.class_names)}
        if self._counts is not None:
            facts["class_counts"] = self._counts
        return facts

    # Reading

    @abstractmethod
    def table(self) -> MaskTable:
        """The classes of the masks' values."""

    @abstractmethod
    def pairs(self, part: Part, faults: Faults) -> Pairs | None:
        """Picture and mask files of a part; None if there is no such part.

        Args:
            part: ``train``, then the others.
            faults: receives what is missing.
        """

    def setup(self, stage: str | None = None) -> None:
        """Find the files of all parts; before training, read the masks.

        Raises:
            UserError: files are missing, or masks are wrong.
        """
        if stage == "predict":
            return
        if not self._parts:
            self._find()
        if stage in (None, "fit") and self._counts is None:
            self._counts = self._read_masks()
        self._refuse_wrong()
        if stage in (None, "fit") and self.augment:
            _ = self.augmentation  # tried before anything is trained
        if self.skip_unreadable and stage in (None, "fit"):
            self.refuse_unreadable([split for split in EVALUATION if self._parts[split] is not None])

    def setup_to_check(self) -> None:
        """Find the files of all parts."""
        self._find()

    def _find(self) -> None:
        self.faults = {part: Faults() for part in PARTS}
        self._table = self.table()
        self.class_names, self._labels = chosen_pixels(self._table.names, self.classes)
        found = {part: self.pairs(part, self.faults[part]) for part in PARTS}
        if not found["train"]:
            wrong = [*self.faults["train"].wrong, "there is no picture"]
            raise UserError(f"{type(self).__name__}: nothing to train on: {wrong[0]}")
        shares: list[tuple[Part, float]] = [("test", self.test_fraction), ("val", self.val_fraction)]
        for part, fraction in shares:
            alone = part == "val" or found["val"] is None
            if found[part] is None and fraction and alone:
                pairs = found["train"] or []
                kept, held = held_out(len(pairs), fraction, self.split_seed, f"data.{part}_fraction")
                found["train"], found[part] = [pairs[row] for row in kept], [pairs[row] for row in held]
        self._parts = {str(part): pairs for part, pairs in found.items()}

    def _read_masks(self) -> list[int]:
        """Number of training pixels of each class, in the masks that are read."""
        counts = {}
        for part, pairs in self._parts.items():
            if pairs and not self.faults[part].count:
                skipped = self.skip_unreadable and part == "train"
                faults = Faults() if skipped else self.faults[part]
                counts[part] = checked_masks(self._files(pairs), CHECKED, faults, usable_cpus())
        return counts.get("train", np.zeros(256, np.int64))[: len(self.class_names)].tolist()

    def _refuse_wrong(self) -> None:
        lines = [line for faults in self.faults.values() for line in faults.wrong]
        if count := sum(faults.count for faults in self.faults.values()):
            more = f"; and {count - LISTED:,} more (`zoo data check` lists them)" if count > LISTED else ""
            raise UserError(f"{type(self).__name__}: {count:,} masks are wrong: {'; '.join(lines[:LISTED])}{more}")

    # Samples

    def _files(self, pairs: Pairs, size: Sequence[int] | None = None) -> MaskedFiles:
        return MaskedFiles(pairs, self._table, self._labels, self.in_channels, size, self.max_size)

    def annotated(self, split: Split) -> Any:
        """The split's pictures, without augmentation."""
        if split not in self._parts:
            raise RuntimeError(f"call setup before samples({split!r})")
        pairs = self._parts[split]
        whole = split == "train" and not (self.augment or self.strong_augment)
        return None if pairs is None else self._files(pairs, [self.image_size] * 2 if whole else None)

    def collate(self, samples: list[Any]) -> Any:
        """Images and masks, padded to the largest of them and at least to ``image_size``."""
        sizes = [image.shape[-2:] for image, _ in samples]
        height, width = (max(self.image_size, *(size[i] for size in sizes)) for i in (0, 1))
        images, masks = [], []
        for (image, target), (h, w) in zip(samples, sizes, strict=True):
            edges = (0, width - w, 0, height - h)
            images.append(pad(image, edges))
            masks.append(pad(target["mask"].long(), edges, value=IGNORED))
        return torch.stack(images), torch.stack(masks)

    def check_samples(self, split: Split) -> list[str]:
        """Missing files, and pictures and masks that can't be read or do not fit each other."""
        return [*self.faults[split].lines, *super().check_samples(split)]

    def sample_pictures(self, split: Split, count: int) -> list[Image]:
        """Evenly spaced pictures with their masks."""
        from zoo.drawing import stacked
        from zoo.drawing_objects import draw_classes, legend

        samples, made = self.annotated(split), []
        for index in np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)).tolist():
            try:
                image, target = samples[index]
            except UserError:
                continue
            mask = target["mask"].long()
            drawn = draw_classes(image / 255, mask, self._background)
            present = [label for label in mask.unique().tolist() if label < len(self.class_names)]
            made.append(stacked([drawn, legend(present, self.class_names, drawn.width)]))
        return made

    def statistics(self, split: Split) -> list[str]:
        """The share of each class in the pixels."""
        pairs = self._parts.get(split)
        if not pairs:
            return []
        counts = checked_masks(self._files(pairs), CHECKED, Faults(), usable_cpus())
        total, width = max(1, counts.sum()), max(len("ignored"), *(len(name) for name in self.class_names))
        shares = [*zip(self.class_names, counts, strict=False), ("ignored", counts[IGNORED])]
        return [f"{name:{width}}  {100 * count / total:6.2f} % of the pixels" for name, count in shares]

    @property
    def _background(self) -> int | None:
        return next((label for label, name in enumerate(self.class_names) if is_background(name)), None)

    def summary(self) -> str:
        """Classes, and the pictures of each part."""
        parts = (f"{len(pairs):,} {part} pictures" if pairs else f"no {part}" for part, pairs in self._parts.items())
        total = max((len(pairs or ()) for pairs in self._parts.values()), default=0)
        read = f"; {CHECKED:,} masks of a part are read in advance" if total > CHECKED and self._counts else ""
        return f"{type(self).__name__}: {len(self.class_names)} classes: {', '.join(parts)}{read}"


def chosen_pixels(names: Sequence[str], classes: Classes | None) -> tuple[list[str], NDArray[np.uint8]]:
    """The new names, and the new label of each class.

    Args:
        names: of the data's classes.
        classes: the choice; None keeps all. Others become background if there is such a class, else they are ignored.

    Raises:
        UserError: as for ``chosen``.
    """
    made, labels = chosen(names, list(names) if classes is None else classes)
    place = next((place for place, name in enumerate(names) if is_background(name)), None)
    if place is None:
        return made, np.where(labels < 0, IGNORED, labels).astype(np.uint8)
    if labels[place] < 0:
        made, labels = [names[place], *made], labels + 1  # what was left out is 0 now, the background
    return made, np.where(labels < 0, labels[place], labels).astype(np.uint8)
