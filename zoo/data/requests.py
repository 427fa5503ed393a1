"""What a generator is asked for: how many samples, of which classes, from which seed."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.base import Data, Split
from zoo.errors import UserError
from zoo.facts import Facts

NO_CLASS = -1  # the label of a sample whose class the generator may choose


class Requests(Dataset[tuple[int, int, int]]):
    """Samples to generate: the seed, the number within it, and the class.

    Args:
        count: number of samples.
        classes: what they are of, in turns; empty leaves the class to the generator.
        seed: of all samples.
    """

    def __init__(self, count: int, classes: list[int], seed: int) -> None:
        self.count, self.classes, self.seed = count, classes, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[int, int, int]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.seed, index, self.classes[index % len(self.classes)] if self.classes else NO_CLASS


class Samples(Data):
    """Samples to generate by ``zoo predict``, for tasks whose product is images from noise.

    A sample's noise is a function of ``seed`` and its number: the same pictures come on the same device whatever the
    batch size and the number of processes.

    Args:
        count: number of samples.
        classes: numbers or names of the classes, in turns; left out, all classes of a class-conditional generator.
        seed: of the noise.
        batch_size: samples that are made at once, over all processes.

    Shape:
        requests int64 (B, 3): seed, number and class, -1 where it is left out; and their B names
    """

    batch: ClassVar[str] = "requests"
    may_change: ClassVar[tuple[str, ...]] = ("count", "classes", "seed")
    about: ClassVar[str] = "requests for samples, for zoo predict with a generator"
    licence: ClassVar[str] = "none needed"
    example: ClassVar[dict[str, Any]] = {"count": 4, "batch_size": 2}

    def __init__(
        self, count: int = 64, classes: list[int | str] | None = None, seed: int = 0, batch_size: int = 64
    ) -> None:
        super().__init__(batch_size=batch_size)
        if count < 1:
            raise UserError(f"data.count must be at least 1, not {count}")
        self.count, self.classes, self.seed = count, classes or [], seed

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
        return Requests(self.count, [self._number(str(one)) for one in self.classes], self.seed)

    def _number(self, which: str) -> int:
        from zoo.facts import class_index, class_names

        if self.trainer is None:
            return int(which)
        module: Any = self.trainer.lightning_module
        return class_index(which, class_names(module.facts))

    def collate(self, samples: list[tuple[int, int, int]]) -> tuple[Tensor, list[str]]:
        """The requests as one tensor, and the samples' names."""
        return torch.tensor(samples), [f"sample-{index:05d}" for _, index, _ in samples]
