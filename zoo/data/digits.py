"""scikit-learn's handwritten digits, 8x8: the quickest data set to try things on.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test part).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.data.images import InMemoryImages, Part
from zoo.data.loading import split_indices
from zoo.data.mnist import DIGITS


class Digits(InMemoryImages):
    """1,797 digits that come with scikit-learn, so that nothing is downloaded.

    A fifth of each class is always the test part; ``val_fraction`` of the others, chosen by ``split_seed``, is for
    validation.
    """

    native_size = 8
    in_channels = 1
    mirror = False
    class_names = DIGITS
    licence: ClassVar[str] = "CC BY 4.0 (UCI), inside scikit-learn (BSD-3-Clause)"
    about: ClassVar[str] = "10 digits, 174 to 183 of each (a fifth to test), 8x8 grey in 17 shades"
    example: ClassVar[dict[str, Any]] = {"batch_size": 32}

    def read(self, part: Part) -> tuple[Tensor, Tensor]:
        """The part's digits; shades 0 to 16 become 0 to 255."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target).long()
        rows = split_indices(labels, 0.2, seed=0)[part == "test"]
        return images[rows], labels[rows]
