"""What prediction writes of generated samples beside each one's picture: all in a grid, and how they were made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zoo import drawing

LARGEST = 400  # samples in the picture that prediction makes of all
FRAMES = 40  # of an animation, at most
SHOWN_FOR, LAST_FOR = 100, 2000  # milliseconds
STEPS = "steps"  # the folder of pictures of the steps


class Frames:
    """What an animation shows of a batch: some of the sampler's steps, at equal distances, the last one included.

    Args:
        steps: that the sampler takes.
        shown: takes a step's index and the samples after it; gives images in [0, 1], (B, C, H, W).
    """

    def __init__(self, steps: int, shown: Callable[[int, Tensor], Tensor]) -> None:
        count = min(steps, FRAMES)
        self.indices = {round((i + 1) * steps / count) - 1 for i in range(count)}
        self.shown = shown
        self.kept: list[Tensor] = []

    def __call__(self, index: int, x: Tensor, found: Any) -> None:
        """Keep a step, if it is one of those; as a sampler's callback."""
        if index in self.indices:
            self.kept.append(self.shown(index, x).mul(255).round().to(torch.uint8).cpu())

    def of_sample(self, number: int) -> Tensor:
        """The frames of the sample of this number in the batch, uint8 (F, C, H, W)."""
        return torch.stack([frame[number] for frame in self.kept])


def write_steps(folder: Path, name: str, frames: Tensor) -> None:
    """Write a sample's steps side by side, as they follow each other.

    Args:
        folder: of the prediction.
        name: of the sample.
        frames: uint8 (F, C, H, W).
    """
    path = folder / STEPS / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.to_picture(torch.cat(list(frames), 2) / 255, 0).save(path)


def write_grids(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the first ``LARGEST`` samples side by side in ``samples.png``, and their steps in ``samples.gif``.

    Columns are the places on the way from one noise to another, or classes, where there are some.

    Args:
        folder: of the prediction.
        rows: of its samples, with ``name``, ``picture`` and perhaps ``class`` and ``weight``.
    """
    chosen = sorted(rows, key=lambda row: str(row["name"]))
    places, labels = ({row.get(key) for row in chosen} for key in ("weight", "class"))
    columns = next((len(c) for c in (places, labels) if 1 < len(c) <= (LARGEST if c is places else 10)), 0)
    chosen = chosen[: LARGEST - LARGEST % columns if columns else LARGEST]
    pictures = [Image.open(folder / row["picture"]) for row in chosen]
    if not pictures:
        return
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    drawing.grid(pictures, columns, 2).save(folder / "samples.png")
    steps = [path for row in chosen if (path := folder / STEPS / f"{row['name']}.png").is_file()]
    if len(steps) == len(chosen):
        _animate(folder / "samples.gif", [Image.open(path) for path in steps], pictures[0].size, columns)


def _animate(path: Path, steps: Sequence[Image.Image], size: tuple[int, int], columns: int) -> None:
    """An animation of samples whose steps are side by side in pictures."""
    width, height = size
    count = steps[0].width // width
    cut = [[one.crop((i * width, 0, (i + 1) * width, height)) for one in steps] for i in range(count)]
    frames = [drawing.grid(samples, columns, 2) for samples in cut]
    times = [SHOWN_FOR] * (count - 1) + [LAST_FOR]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0)
