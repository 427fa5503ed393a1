"""The user's own pictures: one folder per class."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor

from zoo.data.base import data_root
from zoo.data.files import SUFFIXES
from zoo.data.images import IMAGENET_MEAN, IMAGENET_STD, ImageFiles, Part, example_images
from zoo.data.loading import split_indices
from zoo.data.order import Order, part_of_each, rare_more_often, repeat_factors
from zoo.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, Pillow's weights of red, green and blue in grey


class ImageFolder(ImageFiles):
    """Pictures in one folder per class, named after the class.

    If ``root`` has a folder ``train``, the class folders are in it, and in ``val`` and ``test`` beside it if these
    exist. Otherwise ``test_fraction`` of each class is held out for the test, always the same pictures. Without a
    ``val`` folder, ``val_fraction`` of the training pictures is held out. Files that are not pictures are ignored.

    Mean and standard deviation are ImageNet's, which avoids reading every file before the first step.

    Args:
        root: the folder; default: the environment variable ``ZOO_DATA``, else ``data``.
        test_fraction: fraction of each class for the test, if there is no ``train`` folder; 0 disables the test.
        mirror: whether a horizontal flip keeps a picture's label.
        in_channels: 3 for colour, 1 for grey.
        repeat_below: classes with a smaller fraction of the training pictures than this are repeated: a picture whose
            class has the fraction f is used ``sqrt(repeat_below / f)`` times per epoch (Gupta et al. 2019).
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
        repeat_below: float | None = None,
        samples_per_epoch: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size=image_size, resize=resize, **kwargs)
        if not 0 <= test_fraction < 1:
            raise UserError(f"data.test_fraction must be at least 0 and below 1, not {test_fraction}")
        if repeat_below is not None and not 0 < repeat_below <= 1:
            raise UserError(f"data.repeat_below must be above 0 and at most 1, not {repeat_below}")
        if samples_per_epoch is not None and samples_per_epoch < 1:
            raise UserError(f"data.samples_per_epoch must be at least 1, not {samples_per_epoch}")
        self.root, self.test_fraction = data_root(root), test_fraction
        self.repeat_below, self.samples_per_epoch = repeat_below, samples_per_epoch
        self.mirror, self.in_channels = mirror, in_channels
        if in_channels == 1:  # the standard deviation is between the channels' (almost equal) and a little less
            self.mean = [sum(w * m for w, m in zip(LUMA, IMAGENET_MEAN, strict=True))]
            self.std = [sum(w * s for w, s in zip(LUMA, IMAGENET_STD, strict=True))]

    def order(self, samples: Any) -> Order:
        """Shuffled; with ``repeat_below`` and ``samples_per_epoch`` if they are given."""
        found = super().order(samples)
        if self.repeat_below is not None:
            found = rare_more_often(repeat_factors(samples.labels[:, None].tolist(), self.repeat_below))
        return found if self.samples_per_epoch is None else part_of_each(found, self.samples_per_epoch)

    @property
    def ready(self) -> bool:
        """Whether the folder has split folders."""
        return bool(class_folders(self.root / "train"))

    def labelled(self, part: Part) -> tuple[Any, Tensor] | None:
        """The part's files: those of a split folder, or of a part held out of all."""
        names = class_folders(self.root / "train" if self.ready else self.root)
        if len(names) < 2:
            raise UserError(
                f"{self.root} holds {len(names)} folders with pictures: give one folder per class, at least two"
            )
        self.class_names = names
        return self._ready_part(part) if self.ready else self._part_of_all(part)

    def _ready_part(self, part: Part) -> tuple[Any, Tensor] | None:
        folder = self.root / part
        if not folder.is_dir():
            return None
        source = labelled_files(folder, self.class_names)
        return source, source[1]

    def _part_of_all(self, part: Part) -> tuple[Any, Tensor] | None:
        if part == "val" or (part == "test" and not self.test_fraction):
            return None
        paths, labels = labelled_files(self.root, self.class_names)
        rows = split_indices(labels, self.test_fraction, seed=0)[part == "test"]
        if not len(rows):
            raise UserError(
                f"data.test_fraction: {self.test_fraction} of {len(labels)} images is none; give more, or 0"
            )
        return ([paths[row] for row in rows.tolist()], labels[rows]), labels[rows]

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


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def labelled_files(folder: Path, names: Sequence[str]) -> tuple[list[str], Tensor]:
    """Every picture below the folder's class folders, and its class's index in ``names``.

    Raises:
        UserError: a class has no pictures, or is not in ``names``.
    """
    if unknown := sorted(set(class_folders(folder)) - set(names)):
        raise UserError(f"{folder / unknown[0]} is a class that the training part does not have")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = pictures_below(folder / name)
        if not found:
            raise UserError(f"{folder / name} holds no pictures: every class needs some in every part")
        paths += found
        labels += [label] * len(found)
    return paths, torch.tensor(labels)


def pictures_below(folder: Path) -> list[str]:
    """Paths of the pictures at any depth, sorted; recognised by file name, without opening the files."""
    found = [
        str(Path(place) / name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
    return sorted(found)
