"""The user's own pictures: one folder per class."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor

from zoo.data.base import data_root
from zoo.data.images import IMAGENET_MEAN, IMAGENET_STD, ImageFiles, Part, example_images
from zoo.data.loading import check_split, split_indices
from zoo.data.order import Order, part_of_each, rare_more_often, repeat_factors
from zoo.data.scan import PARTS, LeftOut, class_folders, part_folders, pictures_below
from zoo.errors import UserError

Labelled = tuple[list[str], Tensor]
"""Paths, and the class of each, int64 (N,)."""

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, Pillow's weights of red, green and blue in grey


class ImageFolder(ImageFiles):
    """Pictures in one folder per class, named after the class.

    If ``root`` has a folder ``train`` (or ``training``), the class folders are in it, and in ``val`` (``valid``,
    ``validation``, ``dev``) and ``test`` (``testing``) beside it if these exist; case does not matter. Otherwise
    ``test_fraction`` of each class is held out for the test, always the same pictures. Without a validation folder,
    ``val_fraction`` of the training pictures is held out. Links are followed. Hidden files, system folders and files
    that are not pictures are left out, and the line that a run starts with counts them.

    Mean and standard deviation are ImageNet's, which avoids reading every file before the first step.

    Args:
        root: the folder; default: the environment variable ``ZOO_DATA``, else ``data``.
        test_fraction: fraction of each class for the test, if there is no ``train`` folder; 0 disables the test.
        mirror: whether a horizontal flip keeps a picture's label.
        in_channels: 3 for colour, 1 for grey.
        missing_classes: accept classes that have no pictures in a part; otherwise they are an error.
        repeat_below: classes with a smaller fraction of the training pictures than this are repeated: a picture whose
            class has the fraction f is used ``sqrt(repeat_below / f)`` times per epoch (Gupta et al. 2019); ``even``
            is the fraction that each would have if all had as many.
        samples_per_epoch: training pictures per epoch; each epoch continues where the last one stopped; default: all of
            them.
        kwargs: as for every data set of picture files.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    licence: ClassVar[str] = "your own"
    about: ClassVar[str] = "one folder per class, with any number of pictures of any size"
    may_change: ClassVar[tuple[str, ...]] = ("root",)
    example: ClassVar[dict[str, Any]] = {"batch_size": 4, "image_size": 16, "resize": 20}

    def __init__(
        self,
        root: str | None = None,
        test_fraction: float = 0.2,
        mirror: bool = True,
        in_channels: Literal[1, 3] = 3,
        image_size: int | None = 224,
        resize: int | None = None,
        missing_classes: bool = False,
        repeat_below: float | Literal["even"] | None = None,
        samples_per_epoch: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size=image_size, resize=resize, **kwargs)
        if not 0 <= test_fraction < 1:
            raise UserError(f"data.test_fraction must be at least 0 and below 1, not {test_fraction}")
        if repeat_below not in (None, "even") and not 0 < float(repeat_below) <= 1:
            raise UserError(f"data.repeat_below must be above 0 and at most 1, not {repeat_below}")
        if samples_per_epoch is not None and samples_per_epoch < 1:
            raise UserError(f"data.samples_per_epoch must be at least 1, not {samples_per_epoch}")
        self.root, self.test_fraction = data_root(root).expanduser(), test_fraction
        self.missing_classes = missing_classes
        self._parts: dict[str, Labelled | None] = {}
        self.left_out = LeftOut()
        self.repeat_below, self.samples_per_epoch = repeat_below, samples_per_epoch
        self.mirror, self.in_channels = mirror, in_channels
        if in_channels == 1:  # the standard deviation is between the channels' (almost equal) and a little less
            self.mean = [sum(w * m for w, m in zip(LUMA, IMAGENET_MEAN, strict=True))]
            self.std = [sum(w * s for w, s in zip(LUMA, IMAGENET_STD, strict=True))]

    def order(self, samples: Any) -> Order:
        """Shuffled; with ``repeat_below`` and ``samples_per_epoch`` if they are given."""
        found = super().order(samples)
        if self.repeat_below is not None:
            share = 1 / len(self.class_names) if self.repeat_below == "even" else self.repeat_below
            found = rare_more_often(repeat_factors(samples.labels[:, None].tolist(), share))
        return found if self.samples_per_epoch is None else part_of_each(found, self.samples_per_epoch)

    def labelled(self, part: Part) -> tuple[Any, Tensor] | None:
        """The part's files: those of a split folder, or of a part held out of all."""
        if not self._parts:
            self._find()
        found = self._parts[part]
        return None if found is None else (found, found[1])

    def _find(self) -> None:
        """Find the files of all parts at once, so that a mistake in the test's folder ends a run before training."""
        self.left_out = LeftOut()
        folders = part_folders(self.root, self.left_out)
        inside = list(folders.values()) or [self.root]
        self.class_names = self._names(inside)
        if len(self.class_names) < 2:
            left_out = f" (left out: {self.left_out})" if str(self.left_out) else ""
            holds = f"only one class folder, {self.class_names[0]}" if self.class_names else "no class folders"
            raise UserError(f"{inside[0]} holds {holds}{left_out}: give one folder per class, at least two")
        if folders:
            self._parts = {part: self._read(folders[part]) if part in folders else None for part in PARTS}
        else:
            self._parts = {**self._hold_out(self._read(self.root)), "val": None}

    def _names(self, folders: Sequence[Path]) -> list[str]:
        """The classes: those of the first folder; with ``missing_classes`` those of all of them."""
        first, *others = (class_folders(folder, self.left_out if self._ready(folder) else None) for folder in folders)
        if not self.missing_classes:
            return first
        return sorted({_composed(name): name for names in (*others[::-1], first) for name in names}.values())

    def _ready(self, folder: Path) -> bool:
        return folder != self.root  # the root's own entries are counted already

    def _read(self, folder: Path) -> Labelled:
        return labelled_files(folder, self.class_names, self.missing_classes, self.left_out)

    def _hold_out(self, found: Labelled) -> dict[str, Labelled | None]:
        paths, labels = found
        if not self.test_fraction:
            return {"train": found, "test": None}
        check_split("data.test_fraction", self.test_fraction, labels, self.class_names)
        kept, held = split_indices(labels, self.test_fraction, seed=0)
        parts = {"train": kept, "test": held}
        return {part: ([paths[row] for row in rows.tolist()], labels[rows]) for part, rows in parts.items()}

    def _setup_training(self) -> None:
        super()._setup_training()
        self.setup("test")  # only to count it: its files are found already

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Ten pictures for each of two classes, of several sizes."""
        for label, name in enumerate(("circle", "square")):
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(10):
                picture = example_images(torch.tensor([label, 1]), 24 + number, 3)[0]
                (root / name / f"{number}.png").write_bytes(encoded(picture, "PNG"))
        return {**cls.example, "root": str(root)}


def encoded(pixels: Tensor, kind: str) -> bytes:
    """Encode bytes, (3, H, W), as a picture file in a format that Pillow knows."""
    content = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(content, kind)
    return content.getvalue()


def _composed(name: str) -> str:
    """One spelling of a name whose letters a system may have taken apart (``é`` as ``e`` and an accent)."""
    return unicodedata.normalize("NFC", name)


def labelled_files(
    folder: Path, names: Sequence[str], missing_classes: bool = False, left_out: LeftOut | None = None
) -> Labelled:
    """Every picture below the folder's class folders, and its class's index in ``names``.

    Args:
        folder: holds the class folders.
        names: of the classes.
        missing_classes: accept classes without pictures.
        left_out: counts what is not a picture.

    Raises:
        UserError: a class has no pictures, or is not in ``names``.
    """
    option = "--data.missing_classes true accepts that"
    there = {_composed(name): name for name in class_folders(folder)}
    if unknown := sorted(there[name] for name in there.keys() - set(map(_composed, names))):
        raise UserError(f"{folder / unknown[0]} is a class that the training part does not have; {option}")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        own = folder / name if (folder / name).is_dir() else folder / there.get(_composed(name), name)
        found = pictures_below(own, left_out) if own.is_dir() else []
        if not found and not missing_classes:
            raise UserError(f"{folder / name} holds no pictures: every class needs some in every part; {option}")
        paths += found
        labels += [label] * len(found)
    return paths, torch.tensor(labels, dtype=torch.int64)
