"""Picture files with their boxes and masks, read one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.annotations import Annotations
from zoo.data.files import UnreadableImage, read_region, upright_size, whole
from zoo.errors import UserError

Size = tuple[int, int]


class AnnotatedFiles(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Some pictures of a set: bytes (C, H, W), and the objects in each.

    Args:
        annotations: of the set.
        rows: the pictures, indices into it.
        channels: 1 or 3.
        image_size: height and width that pictures are resized to; None keeps their size.
        max_size: longer side that larger pictures are reduced to.
        masks: whether targets have ``masks``. An object without an outline gets its box as a mask.
    """

    def __init__(
        self,
        annotations: Annotations,
        rows: NDArray[np.int64],
        channels: int = 3,
        image_size: Sequence[int] | None = None,
        max_size: int | None = None,
        masks: bool = True,
    ) -> None:
        self.annotations, self.rows, self.channels = annotations, rows, channels
        self.image_size, self.max_size, self.masks = image_size, max_size, masks

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, index: int) -> str:
        """The picture's file."""
        return self.annotations.paths[self.rows[index]]

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        row = int(self.rows[index])
        image, size = self._read(row)
        try:
            return image, self._target(row, size, (image.shape[1], image.shape[2]))
        except UserError as error:
            raise UserError(f"{self.path(index)}: {error}") from error

    def _read(self, row: int) -> tuple[Tensor, Size]:
        """The picture, and its height and width before it was resized."""
        path, size = self.annotations.paths[row], tuple(self.annotations.sizes[row].tolist())
        wanted = self._wanted(path, size)
        image, found, _ = read_region(path, wanted, self.channels, whole)
        if size[0] and found != size:  # annotators may have seen it without its EXIF rotation
            image, found, _ = read_region(path, wanted, self.channels, whole, upright=False)
        if size[0] and found != size:
            raise UnreadableImage(
                f"{path} has {found[1]}x{found[0]} pixels, but its annotations are for {size[1]}x{size[0]}"
            )
        return image, found

    def _wanted(self, path: str, size: Size) -> Size | None:
        if self.image_size is not None:
            return self.image_size[0], self.image_size[1]
        if self.max_size is None:
            return None
        height, width = size if size[0] else upright_size(path)
        factor = self.max_size / max(height, width)
        return None if factor >= 1 else (max(1, round(height * factor)), max(1, round(width * factor)))

    def _target(self, row: int, size: Size, resized: Size) -> dict[str, Tensor]:
        known, objects = self.annotations, self.annotations.of(row)
        (height, width), relative = resized, not known.sizes[row, 0]
        scale = (width, height) if relative else (width / size[1], height / size[0])
        boxes = torch.from_numpy(known.boxes[objects] * np.array([*scale, *scale], np.float32))
        target = {
            "boxes": torch.minimum(boxes, torch.tensor([width, height] * 2, dtype=torch.float32)),
            "labels": torch.from_numpy(known.labels[objects].astype(np.int64)),
            "iscrowd": torch.from_numpy(known.crowd[objects].copy()),
        }
        if known.areas is not None:
            target["area"] = torch.from_numpy(known.areas[objects] * np.float32(scale[0] * scale[1]))
        if self.masks:
            target["masks"] = self._masks(objects, target["boxes"], resized, scale)
        return target

    def _masks(self, objects: slice, boxes: Tensor, size: Size, scale: tuple[float, float]) -> Tensor:
        outlines, places = self.annotations.outlines, self.annotations.places[objects].tolist()
        masks = torch.zeros(len(places), *size, dtype=torch.bool)
        for mask, place, box in zip(masks, places, boxes.round().int().tolist(), strict=True):
            if outlines.known[place]:
                mask[:] = outlines.mask(place, *size, scale)
            else:
                mask[box[1] : box[3], box[0] : box[2]] = True
        return masks


def held_out(count: int, fraction: float, seed: int, argument: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that are kept and rows that are held out, in order: a pure function of the arguments.

    Raises:
        UserError: that would be none or all of them.
    """
    held = round(fraction * count)
    if not 0 < held < count:
        what = "all of them" if held else "none"
        raise UserError(f"{argument}: {fraction} of {count} pictures is {what}: give another fraction, or 0")
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def drawn(samples: Any, count: int, names: Sequence[str]) -> list[Any]:
    """At most ``count`` evenly spaced samples with their boxes and masks drawn; unreadable ones are left out."""
    from zoo.drawing import Boxes
    from zoo.drawing_objects import draw_objects

    made = []
    for index in torch.linspace(0, len(samples) - 1, min(count, len(samples))).long().unique().tolist():
        try:
            image, target = samples[index]
        except UserError:
            continue
        boxes = Boxes(target["boxes"], target["labels"])
        made.append(draw_objects(image / 255, boxes, names, target.get("masks")))
    return made
