"""Faces and backgrounds: 200 small grey images from Labeled Faces in the Wild, included in scikit-image.

Huang, Mattar, Lee and Learned-Miller, "Learning to Align from Scratch", NIPS 2012.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.data.images import InMemoryImages, Part
from zoo.data.loading import split_indices
from zoo.data.transforms import mean_and_std


class LFWSubset(InMemoryImages):
    """200 images of faces and backgrounds that are included in scikit-image, so that nothing is downloaded.

    A fixed set of 40, 20 per class, is the test split; ``val_fraction`` of the others, chosen by ``split_seed``, is the
    validation split.
    """

    native_size = 25
    in_channels = 1
    class_names = ("background", "face")
    licence: ClassVar[str] = "none stated (LFW: photographs from the news); inside scikit-image (BSD-3-Clause)"
    about: ClassVar[str] = "faces and backgrounds, 100 of each (72 to train, 8 to validate, 20 to test), 25x25 grey"
    example: ClassVar[dict[str, Any]] = {"batch_size": 32}

    def read(self, part: Part) -> tuple[Tensor, Tensor]:
        """The part's 160 or 40 images."""
        from skimage.data import lfw_subset

        images = torch.from_numpy(lfw_subset() * 255).round().to(torch.uint8)[:, None]
        labels = torch.tensor([1] * 100 + [0] * 100)  # the faces come first
        rows = split_indices(labels, 0.2, seed=0)[part == "test"]
        return images[rows], labels[rows]

    def setup(self, stage: str | None = None) -> None:
        """Set up; mean and standard deviation are computed from the training split."""
        super().setup(stage)
        if self.class_counts is not None:
            self.mean, self.std = mean_and_std(self.some_training_images())
