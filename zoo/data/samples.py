"""Labelled samples: files that are read one by one, small ones for tests, and pictures of some with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from zoo import drawing
from zoo.data.files import Region, UnreadableImage, central, read_image
from zoo.data.loading import InMemory
from zoo.data.pixels import Range, as_floats


class LabelledFiles(Dataset):
    """Picture files with their labels, decoded one by one.

    Args:
        paths: the files.
        labels: of each, int64 (N,).
        side: side of the square that they are resized to.
        channels: 1 or 3.
        region: chooses the crop of a picture.
    """

    def __init__(
        self, paths: Sequence[str], labels: Tensor, side: int, channels: int, region: Region = central
    ) -> None:
        self.paths, self.labels, self.side, self.channels, self.region = paths, labels, side, channels, region

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = read_image(self.paths[index], [self.side] * 2, self.channels, self.region)
        return image, int(self.labels[index])


def example_images(labels: Tensor, side: int, channels: int, seed: int = 0) -> Tensor:
    """Small images that can be classified: noise, and a white bar whose place is the class.

    Args:
        labels: (N,).
        side: side of the square images.
        channels: number of channels.
        seed: seed of the noise, so that no two files of an example hold the same image.

    Returns:
        bytes, (N, channels, side, side)
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 64, (len(labels), channels, side, side), generator=generator, dtype=torch.uint8)
    rows = torch.arange(side)
    bar = rows == (labels[:, None] * side // (int(labels.max()) + 1))
    images[bar[:, None, :, None].expand_as(images)] = 255
    return images


def drawn_samples(
    samples: Any, count: int, class_names: Sequence[str], value_range: Range | None = None
) -> list[Image.Image]:
    """Evenly spaced samples with the names of their classes; those that can't be read are left out.

    Args:
        samples: pairs of an image (C, H, W), as stored, and its label; in memory or a map-style data set.
        count: at most so many.
        class_names: of the labels; without them, classes are numbers.
        value_range: stored values of black and white; default: those of the dtype.
    """
    made = []
    for index in torch.linspace(0, len(samples) - 1, min(count, len(samples))).long().unique().tolist():
        try:
            image, label = _sample(samples, index)
        except UnreadableImage:
            continue
        floats = as_floats(image[None], image.shape[-2:], torch.float32, value_range)[0]
        name = class_names[int(label)] if class_names else str(int(label))
        made.append(drawing.captioned(drawing.to_picture(floats), [name]))
    return made


def _sample(samples: Any, index: int) -> tuple[Tensor, Any]:
    if not isinstance(samples, InMemory):
        return samples[index]
    images, labels = samples.fetch(torch.tensor([index]))
    return images[0], labels[0]
