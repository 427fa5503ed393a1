"""Horizontal and vertical bars, drawn by this file. Say here where your data comes from."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.data.images import InMemoryImages, Part
from zoo.data.transforms import mean_and_std

SIZE = 16


class ExampleBars(InMemoryImages):
    """Bright bars, horizontal or vertical, anywhere on a noisy background."""

    # Facts about the data; networks and tasks are built from them.
    native_size = SIZE
    in_channels = 1
    mirror = True  # a horizontal flip keeps the label
    class_names = ("lying", "standing")
    licence: ClassVar[str] = "Apache-2.0 (drawn by this package)"
    about: ClassVar[str] = "2 kinds of bars, 180 of each (120 to train and validate, 60 to test), 16x16 grey"
    # The arguments of a small instance, for tests.
    example: ClassVar[dict[str, Any]] = {"batch_size": 16}

    def read(self, part: Part) -> tuple[Tensor, Tensor]:
        """All images of a part as bytes (N, C, H, W), and their labels (N,). Validation is held out of training."""
        return draw(count=240, seed=0) if part == "train" else draw(count=120, seed=1)

    def setup(self, stage: str | None = None) -> None:
        """Set up as every data set does; mean and standard deviation are computed from the training part."""
        super().setup(stage)
        if self.class_counts is not None:
            self.mean, self.std = mean_and_std(self.some_training_images())


def draw(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bars as bytes (count, 1, 16, 16), and their labels (count,): 0 for lying, 1 for standing ones."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    row, column = torch.randint(5, SIZE - 5, (2, count, 1, 1), generator=random)
    long = torch.randint(3, 6, (count, 1, 1), generator=random)  # to each side of the middle
    place = torch.arange(SIZE)
    down, across = (place[:, None] - row).abs(), (place - column).abs()
    bar = torch.where(labels[:, None, None] == 1, (down <= long) & (across <= 1), (across <= long) & (down <= 1))
    noise = torch.randint(0, 80, bar.shape, generator=random)
    return (160 * bar + noise).to(torch.uint8)[:, None], labels
