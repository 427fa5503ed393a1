"""Ramps from near to far."""

from typing import Any

from zoo import Data, Facts
from zoo.data.base import Split
from zoo_depth.contracts import FACTS, ramp


class _Ramps:
    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return ramp(self.first + index)


class Ramps(Data):
    """Sixteen pictures to train on, eight to validate and to test.

    Args:
        batch_size: pictures a step.
    """

    batch = "depth_estimation"
    licence = "made on the spot"
    about = "16 pictures to train, 8 to validate, 8 to test, 16x16"

    def __init__(self, batch_size: int = 4) -> None:
        super().__init__(batch_size)

    @property
    def facts(self) -> Facts:
        return FACTS

    def samples(self, split: Split) -> Any:
        first, count = {"train": (0, 16), "val": (20, 8), "test": (30, 8), "predict": (40, 3)}[split]
        return _Ramps(first, count)
