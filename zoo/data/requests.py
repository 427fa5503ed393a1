"""What a generator is asked for: how many samples, of which classes, from which seed."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.base import Data, Split
from zoo.data.request import NO_CLASS, Request
from zoo.errors import UserError
from zoo.facts import Facts


class Requests(Dataset[Request]):
    """Samples to generate.

    Args:
        count: number of samples, or of ways from one seed to the other.
        classes: what they are of, in turns; empty leaves the class to the generator.
        seed: of all samples.
        to_seed: the other seed; None for single samples.
        places: samples on a way.
        animated: whether the steps are kept.
    """

    def __init__(
        self,
        count: int,
        classes: list[int],
        seed: int,
        to_seed: int | None = None,
        places: int = 1,
        animated: bool = False,
    ) -> None:
        self.count, self.classes, self.seed, self.animated = count, classes, seed, animated
        self.to_seed, self.places = (0, 1) if to_seed is None else (to_seed, places)

    def __len__(self) -> int:
        return self.count * self.places

    def __getitem__(self, index: int) -> Request:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number, place = divmod(index, self.places)
        label = self.classes[number % len(self.classes)] if self.classes else NO_CLASS
        return Request(self.seed, number, label, self.to_seed, place, self.places, int(self.animated))


class Samples(Data):
    """Samples to generate by ``zoo predict``, for tasks whose product is images from noise.

    A sample's noise is a function of ``seed`` and its number: the same pictures come on the same device whatever the
    batch size and the number of processes.

    Args:
        count: number of samples.
        classes: numbers or names of the classes, in turns; left out, all classes of a class-conditional generator.
        seed: of the noise.
        to_seed: with it, each sample becomes a row of samples on the way from its noise to that of this seed.
        columns: number of samples in such a row.
        animation: whether the steps in which the samples are made are written, too: side by side for each, and all
            samples as an animated GIF.
        batch_size: samples that are made at once, over all processes.

    Shape:
        requests int64 (B, 3): seed, number and class, -1 where it is left out; (B, 7) as in ``Request`` where more is
        asked for; and their B names
    """

    batch: ClassVar[str] = "requests"
    may_change: ClassVar[tuple[str, ...]] = ("count", "classes", "seed", "to_seed", "columns", "animation")
    about: ClassVar[str] = "requests for samples, for zoo predict with a generator"
    licence: ClassVar[str] = "none needed"
    example: ClassVar[dict[str, Any]] = {"count": 4, "batch_size": 2}

    def __init__(
        self,
        count: int = 64,
        classes: list[int | str] | None = None,
        seed: int = 0,
        to_seed: int | None = None,
        columns: int = 8,
        animation: bool = False,
        batch_size: int = 64,
    ) -> None:
        super().__init__(batch_size=batch_size)
        if count < 1 or columns < 2:
            raise UserError(f"data.count must be at least 1 and data.columns at least 2, not {count} and {columns}")
        self.count, self.classes, self.seed = count, classes or [], seed
        self.to_seed, self.columns, self.animation = to_seed, columns, animation

    @property
    def facts(self) -> Facts:
        """None: the generator knows its images."""
        return Facts()

    def samples(self, split: Split) -> Any:
        """The requests; there is nothing to train or test on.

        Raises:
            UserError: the split is not for prediction.
        """
        if split != "predict":
            raise UserError(f"Samples are for zoo predict: there is no {split} split")
        module: Any = self.trainer.lightning_module if self.trainer else None
        if module is not None and module.batch != "images":
            raise UserError(f"Samples are for tasks that generate images, not for {type(module).__name__}")
        classes = [self._number(str(one)) for one in self.classes]
        return Requests(self.count, classes, self.seed, self.to_seed, self.columns, self.animation)

    def _number(self, which: str) -> int:
        from zoo.facts import class_index, class_names

        if self.trainer is None:
            return int(which)
        module: Any = self.trainer.lightning_module
        return class_index(which, class_names(module.facts))

    def collate(self, samples: list[Request]) -> tuple[Tensor, list[str]]:
        """The requests as one tensor, and the samples' names."""
        asked = torch.tensor(samples)
        return (asked[:, :3] if self.to_seed is None and not self.animation else asked), [_name(s) for s in samples]


def _name(asked: Request) -> str:
    return f"sample-{asked.number:05d}" + (f"-{asked.place:02d}" if asked.places > 1 else "")
