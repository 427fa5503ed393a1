"""Tiny scenes for the examples of data sets with boxes and masks: coloured rectangles on noise."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = ((220, 40, 40), (40, 40, 220))


class ExampleScene(NamedTuple):
    """A tiny scene.

    Args:
        pixels: (H, W, 3), bytes.
        boxes: x1 y1 x2 y2 of each object, which do not overlap.
        labels: 0 or 1, of each object.
    """

    pixels: NDArray[np.uint8]
    boxes: list[tuple[int, int, int, int]]
    labels: list[int]

    @property
    def classes(self) -> NDArray[np.uint8]:
        """For each pixel 0, or the label of its object + 1; (H, W)."""
        made = np.zeros(self.pixels.shape[:2], np.uint8)
        for (x1, y1, x2, y2), label in zip(self.boxes, self.labels, strict=True):
            made[y1:y2, x1:x2] = label + 1
        return made


def example_scene(number: int) -> ExampleScene:
    """Up to two rectangles, one in each half; a pure function of the number. Every third scene has none."""
    draw = np.random.default_rng(number)
    height, width = 24 + 4 * (number % 2), 32
    pixels = draw.integers(0, 90, (height, width, 3), np.uint8)
    boxes, labels = list[tuple[int, int, int, int]](), list[int]()
    for half in range((number + 1) % 3):
        x1, y1 = int(draw.integers(0, 6)) + 16 * half, int(draw.integers(0, 12))
        x2, y2 = x1 + int(draw.integers(4, 10)), y1 + int(draw.integers(4, 12))
        label = int(draw.integers(2))
        pixels[y1:y2, x1:x2] = COLOURS[label]
        boxes.append((x1, y1, x2, y2))
        labels.append(label)
    return ExampleScene(pixels, boxes, labels)


def write_picture(path: Path, scene: ExampleScene) -> None:
    """Write a scene's pixels; the name says in which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.pixels).save(path)
