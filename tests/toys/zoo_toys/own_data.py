"""The examples of the page on one's own data."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo import Data, Facts
from zoo.data.base import Split
from zoo.data.images import ImageFiles, InMemoryImages, Part
from zoo.data.loading import InMemory, TensorSource, split_indices


class Fields(InMemoryImages):
    """Pictures from a satellite, of five bands with numbers up to 10,000, in one file.

    Args:
        file: written by ``numpy.savez``, with ``images`` uint16 (N, 5, 32, 32) and ``labels`` (N,).
        kwargs: as for every set in memory.
    """

    native_size = 32
    in_channels = 5
    mirror = True
    class_names = ("fallow", "sown")
    value_range = (0.0, 10000.0)  # of the stored numbers, which tasks get as 0 to 1; left out, all of the type's
    licence = "your own"
    about = "2 kinds of fields, 32x32 in 5 bands"

    def __init__(self, file: str = "fields.npz", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.file = file

    def read(self, part: Part) -> tuple[Tensor, Tensor]:
        """The test part is a fifth of each class; validation is held out of the rest by the base class."""
        with np.load(self.file) as arrays:
            images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]).long()
        rows = split_indices(labels, 0.2, seed=0)[part == "test"]
        return images[rows], labels[rows]


class Leaves(ImageFiles):
    """Photographs in one folder, and a table that says what they show and which part they belong to.

    Args:
        root: the folder; ``leaves.csv`` in it has the columns file, name and part (``train``, ``val`` or ``test``).
        kwargs: as for every set of picture files.
    """

    native_size = 64
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    licence = "your own"
    about = "leaves of trees, photographs of any size"

    def __init__(self, root: str = "leaves", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)

    def labelled(self, part: Part) -> tuple[Any, Tensor] | None:
        """Paths and labels of a part; None where the table has none of it."""
        with (self.root / "leaves.csv").open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
        self.class_names = sorted({row["name"] for row in table})
        rows = [row for row in table if row["part"] == part]
        labels = torch.tensor([self.class_names.index(row["name"]) for row in rows])
        return (([str(self.root / row["file"]) for row in rows], labels), labels) if rows else None


class Tones(Data):
    """Sounds as pictures of their spectra, made by the batch: a form of data that no base class knows.

    Args:
        batch_size: tones a step.
    """

    licence = "your own"
    about = "3 pitches, 60 tones of each to train and 15 to validate, 16x16 grey"

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__(batch_size)

    @property
    def facts(self) -> Facts:
        """What networks and tasks are built from."""
        names = ["low", "middle", "high"]
        return Facts(
            num_classes=3, class_names=names, in_channels=1, image_size=[16, 16], mean=[0.1], std=[0.2], mirror=False
        )

    def samples(self, split: Split) -> InMemory | None:
        """What is fetched by the batch; a ``torch.utils.data.Dataset`` would be read sample by sample, by workers."""
        if split not in ("train", "val"):
            return None
        labels = torch.arange(180 if split == "train" else 45) % 3
        generator = torch.Generator().manual_seed(len(labels))
        images = 0.2 * torch.rand(len(labels), 1, 16, 16, generator=generator)
        images[torch.arange(len(labels)), 0, 4 + 4 * labels] += 0.8
        return TensorSource(images, labels)
