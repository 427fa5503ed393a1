"""Base of data sets of picture files with boxes, and with masks if they have some, in any format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torchvision.transforms.v2 import RandomHorizontalFlip

from zoo.data.annotated_files import AnnotatedFiles, drawn, held_out
from zoo.data.annotations import Annotations, Faults
from zoo.data.base import LISTED, Split
from zoo.data.class_table import Classes, chosen
from zoo.data.folder import LUMA
from zoo.data.images import EVALUATION, IMAGENET_MEAN, IMAGENET_STD, Part
from zoo.data.object_data import ObjectData
from zoo.data.object_statistics import object_statistics
from zoo.errors import UserError
from zoo.facts import Facts

PARTS: tuple[Part, ...] = ("train", "val", "test")
Rows = tuple[Annotations, NDArray[np.int64]]


class DetectionFiles(ObjectData):
    """Base of data sets of picture files with boxes, and with masks if they have some.

    Wrong annotations (a class that is not declared, a box outside of its picture, a missing file, two entries of one
    id, a mask of another size) are all found before training, and end the run in one line. Boxes may stick out by a
    pixel, and are clipped. Objects without area are left out and counted. Pictures without objects stay.

    Masks are drawn if the task wants them: a detection task gets boxes alone.

    Args:
        classes: a list of those to train on, or for each new class the one or the list of those that it stands for;
            objects of others are left out. Default: all but a background class.
        image_size: side of the square that pictures are resized to, whatever their aspect ratio, in all parts; default:
            their own size, which detectors resize themselves.
        max_size: longer side that larger pictures are reduced to, in all parts.
        masks: whether targets have masks; default: if the task wants them.
        mirror: whether a horizontal flip keeps a picture's labels; training then flips half of the pictures, unless
            ``augment`` is given.
        in_channels: 3 for colour, 1 for grey.
        without_objects: whether training uses pictures without objects.
        val_fraction: fraction of the training pictures that is held out for validation, if the data has no such part; 0
            disables validation.
        test_fraction: fraction of the pictures for the test, if the data has neither a validation nor a test part; 0
            disables the test.
        split_seed: seed of these choices.
        skip_wrong: leave wrong annotations out, instead of ending the run.
        skip_unreadable: leave pictures that can't be read out of training, where each is printed to stderr.
        kwargs: as for every data set with boxes.
    """

    batch: ClassVar[str] = "instance_segmentation"
    may_change: ClassVar[tuple[str, ...]] = ("root", "skip_unreadable")

    def __init__(
        self,
        classes: Classes | None = None,
        image_size: int | None = None,
        max_size: int | None = None,
        masks: bool | None = None,
        mirror: bool = True,
        in_channels: Literal[1, 3] = 3,
        without_objects: bool = True,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        skip_wrong: bool = False,
        skip_unreadable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, side in (("image_size", image_size), ("max_size", max_size)):
            if side is not None and side < 1:
                raise UserError(f"data.{name} must be at least 1, not {side}")
        if image_size is not None and max_size is not None:
            raise UserError("data.image_size and data.max_size are two ways to resize: give one of them")
        for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 <= fraction < 1:
                raise UserError(f"data.{name} must be at least 0 and below 1, not {fraction}")
        self.classes, self.masks, self.mirror, self.in_channels = classes, masks, mirror, in_channels
        self.image_size, self.max_size = image_size, max_size
        self.without_objects, self.split_seed = without_objects, split_seed
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.skip_wrong, self.skip_unreadable = skip_wrong, skip_unreadable
        if self.hparams.get("augment") is None and mirror:
            self.augment = [RandomHorizontalFlip]
        self.class_names: list[str] = []
        self.faults: dict[str, Faults] = {}
        self._parts: dict[str, Rows | None] = {}
        self._other_classes = 0
        self._without_outline: list[str] = []  # pictures of objects without one

    @property
    def facts(self) -> Facts:
        """Facts about the data; complete after ``setup``."""
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        if self.in_channels == 1:
            mean, std = ([float(np.dot(LUMA, values))] for values in (mean, std))
        facts = Facts(in_channels=self.in_channels, mirror=self.mirror, mean=list(mean), std=list(std))
        if self.image_size is not None:
            facts["image_size"] = [self.image_size] * 2
        if self.class_names:
            facts |= {"num_classes": len(self.class_names), "class_names": list(self.class_names)}
        if found := self._parts.get("train"):
            facts["class_counts"] = objects_of(*found).tolist()
        return facts

    @property
    def resizing_to_predict(self) -> tuple[list[int] | None, int | None]:
        """As for training: ``image_size``, or ``max_size``."""
        return None if self.image_size is None else [self.image_size] * 2, self.max_size

    # Reading

    @abstractmethod
    def read(self, part: Part, names: Sequence[str] | None, faults: Faults) -> Annotations | None:
        """The annotations of a part; None if there is no such part.

        Args:
            part: ``train``, then the others.
            names: the classes of the training part; None for the training part itself.
            faults: receives what is wrong with entries, which are left out.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read all parts, so that a mistake in the test's annotations ends a run before training.

        Raises:
            UserError: annotations are wrong.
        """
        if stage == "predict":
            return
        if not self._parts:
            self._read()
            self._refuse_wrong()
            self._refuse_missing_outlines()
        if stage in (None, "fit") and self.augment:
            _ = self.augmentation  # tried before anything is trained
        if self.skip_unreadable and stage in (None, "fit"):
            self.refuse_unreadable([split for split in EVALUATION if self._parts[split] is not None])

    def setup_to_check(self) -> None:
        """Read all parts; what is wrong with them is for ``check_samples``."""
        self._read()

    def _read(self) -> None:
        found: dict[Part, Annotations | None] = {}
        names: Sequence[str] | None = None
        for part in PARTS:
            self.faults[part] = Faults()
            found[part] = self.read(part, names, self.faults[part])
            if part == "train":
                names = self._training(found[part]).names
        assert names is not None
        self.class_names, labels = chosen(names, self.classes)
        parts = {part: one and one.selected(labels, self.class_names) for part, one in found.items()}
        self._other_classes = sum(len(found[p].labels) - len(parts[p].labels) for p in PARTS if parts[p])  # type: ignore[union-attr, misc]
        self._parts = self._split({p: (one, np.arange(len(one))) if one else None for p, one in parts.items()})
        self._find_missing_outlines()

    def _training(self, train: Annotations | None) -> Annotations:
        if train is None or not len(train):
            wrong = [*self.faults["train"].wrong, "there is no picture"]
            raise UserError(f"{type(self).__name__}: nothing to train on: {wrong[0]}")
        return train

    def _split(self, parts: dict[str, Rows | None]) -> dict[str, Rows | None]:
        """Hold out what the data has no part for, always the same pictures."""
        for part, fraction in (("test", self.test_fraction), ("val", self.val_fraction)):
            alone = part == "val" or parts["val"] is None
            if parts[part] is None and fraction and alone and parts["train"] is not None:
                known, rows = parts["train"]
                kept, held = held_out(len(rows), fraction, self.split_seed, f"data.{part}_fraction")
                parts |= {"train": (known, rows[kept]), part: (known, rows[held])}
        if not self.without_objects and parts["train"] is not None:
            known, rows = parts["train"]
            parts["train"] = known, rows[known.counts[rows] > 0]
        return parts

    def _refuse_wrong(self) -> None:
        lines = [line for faults in self.faults.values() for line in faults.wrong]
        count = sum(faults.count for faults in self.faults.values())
        if count and not self.skip_wrong:
            more = f"; and {count - LISTED:,} more (`zoo data check` lists them)" if count > LISTED else ""
            raise UserError(
                f"{type(self).__name__}: {count:,} annotations are wrong: {'; '.join(lines[:LISTED])}{more}; "
                "repair them, or leave them out by --data.skip_wrong true"
            )

    def _refuse_missing_outlines(self) -> None:
        if self.wants_masks and self._without_outline:
            count, path = len(self._without_outline), self._without_outline[0]
            raise UserError(
                f"{type(self).__name__}: {count:,} objects have no outline, which masks are drawn from (the first is "
                f"in {path}): train a task on their boxes, as Detection, or give --data.masks false"
            )

    def _find_missing_outlines(self) -> None:
        parts = {id(part[0]): part[0] for part in self._parts.values() if part is not None}
        self._without_outline = []
        for known in parts.values():
            lacking = ~known.outlines.known[known.places] & ~known.crowd
            self._without_outline += [known.paths[row] for row in known.rows[lacking].tolist()]

    @property
    def wants_masks(self) -> bool:
        """Whether targets have masks: by ``masks``, or else by the task; without a task, if all objects have some."""
        if self.masks is not None or self.batch == "detection":
            return bool(self.masks)
        task = getattr(self.trainer, "lightning_module", None)  # a trainer's stand-in may have none
        wanted = getattr(task, "batch", None)
        return wanted == self.batch or (wanted is None and not self._without_outline)

    # Samples

    def annotated(self, split: Split) -> Any:
        """The split's pictures, without augmentation."""
        if split not in self._parts:
            raise RuntimeError(f"call setup before samples({split!r})")
        found = self._parts[split]
        if found is None:
            return None
        size = None if self.image_size is None else [self.image_size] * 2
        return AnnotatedFiles(*found, self.in_channels, size, self.max_size, self.wants_masks)

    def check_samples(self, split: Split) -> list[str]:
        """Wrong annotations, objects without area, and pictures that can't be read or whose size is another one."""
        return [*self.faults[split].lines, *super().check_samples(split)]

    def sample_pictures(self, split: Split, count: int) -> list[Image]:
        """Evenly spaced pictures with their objects."""
        samples = self.annotated(split)
        return [] if samples is None else drawn(samples, count, self.class_names)

    def statistics(self, split: Split) -> list[str]:
        """Objects of each class, their sizes and proportions."""
        found = self._parts.get(split)
        return [] if found is None else object_statistics(*found)

    def summary(self) -> str:
        """Pictures, classes and objects of each part, and what was left out."""
        parts = [self._part_summary(split, self._parts[split]) for split in PARTS]
        left_out = {
            "objects without area": sum(faults.count_empty for faults in self.faults.values()),
            "wrong annotations": sum(faults.count for faults in self.faults.values()),
            "objects of other classes": self._other_classes,
        }
        listed = ", ".join(f"{what} ({count:,})" for what, count in left_out.items() if count)
        classes = f"{len(self.class_names)} classes" if len(self.class_names) != 1 else "1 class"
        return f"{type(self).__name__}: {classes}: {', '.join(parts)}{f'; left out: {listed}' if listed else ''}"

    def _part_summary(self, split: str, part: Rows | None) -> str:
        if part is None:
            return f"no {split}"
        known, rows = part
        counts = known.counts[rows]
        without = int((counts == 0).sum())
        none = f" ({without:,} without)" if without else ""
        return f"{len(rows):,} {split} pictures{none} with {int(counts.sum()):,} objects"


def objects_of(known: Annotations, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of objects of each class in some pictures, without crowds."""
    chosen_rows = np.zeros(len(known), bool)
    chosen_rows[rows] = True
    return np.bincount(known.labels[chosen_rows[known.rows] & ~known.crowd], minlength=len(known.names))
