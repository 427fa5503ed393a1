"""Pictures to predict: which part of a file a task sees, and the mapping of its results back to the file's pixels."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import resize

from zoo.data.files import Box, UnreadableImage, central, common_folder, read_region, whole
from zoo.data.video import Frame, frames_of, is_video, read_frame

View = Literal["center", "whole", "native"]
"""The part of a picture that a task sees.

``center`` is the largest central crop with the task's aspect ratio, resized to the task's size; ``whole`` is the whole
picture resized to that size, whatever its aspect ratio; ``native`` is the picture at its own size, so that a batch is a
list.
"""


class Source(str):
    """The path of a picture: a string that also records which part was taken, much like torchvision's ``tv_tensors``.

    Args:
        path: the file, as the user gave it.
        name: the path without the folder that all files of this prediction share; subfolders stay.
        picture_size: height and width of the picture as displayed (rotated by its EXIF tag).
        image_size: height and width of the image that the task sees.
        box: the crop, in the picture's pixels: left, top, right and bottom.
    """

    name: str
    picture_size: tuple[int, int]
    image_size: tuple[int, int]
    box: Box

    def __new__(
        cls,
        path: str,
        name: str = "",
        picture_size: Sequence[int] = (0, 0),
        image_size: Sequence[int] = (0, 0),
        box: Box | None = None,
    ) -> Source:
        """Strings are immutable, so the attributes are set here."""
        self = super().__new__(cls, path)
        self.name = name or os.path.basename(path)  # noqa: PTH119
        height, width = picture_size
        self.picture_size, self.image_size = (height, width), (image_size[0], image_size[1])
        self.box = box or (0.0, 0.0, float(width), float(height))
        return self

    def boxes_to_picture(self, boxes: Tensor) -> Tensor:
        """Convert boxes, (..., 4) as left, top, right and bottom, from the image's to the picture's pixels."""
        left, top, right, bottom = self.box
        height, width = self.image_size
        scale = boxes.new_tensor([(right - left) / width, (bottom - top) / height] * 2)
        return boxes * scale + boxes.new_tensor([left, top] * 2)

    def maps_to_picture(self, maps: Tensor, outside: float = 0.0, mode: str = "bilinear") -> Tensor:
        """Resample maps over the image, such as masks or logits, to the picture.

        Args:
            maps: floats, (..., h, w), of any size; they cover the image.
            outside: value outside of the part that the task saw.
            mode: mode of ``torch.nn.functional.interpolate``; ``nearest`` for class numbers.

        Returns:
            (..., H, W), of the picture's size
        """
        left, top, right, bottom = (round(edge) for edge in self.box)
        size = bottom - top, right - left
        flat = maps.reshape(1, -1, *maps.shape[-2:])
        fitting = {} if mode.startswith("nearest") else {"align_corners": False}
        part = interpolate(flat, size, mode=mode, **fitting) if flat.shape[-2:] != size else flat
        laid = maps.new_full((*maps.shape[:-2], *self.picture_size), outside)
        laid[..., top:bottom, left:right] = part.view(*maps.shape[:-2], *size)
        return laid


Item = tuple[Tensor | UnreadableImage, str]


class PredictFiles(Dataset):
    """Files as pairs of pixels and ``Source``; an unreadable file gives its error and its path.

    A video stands for all of its frames, in order.

    Args:
        paths: the files.
        size: height and width that they are resized to; None keeps their own size.
        channels: 1 or 3.
        view: the part of them that is taken.
        patterns: the user's patterns that matched them; default: ``paths``.
        longest: longer side in pixels that larger pictures are reduced to; None for none.
    """

    def __init__(
        self,
        paths: Sequence[str],
        size: Sequence[int] | None,
        channels: int,
        view: View = "center",
        patterns: Sequence[str] | None = None,
        longest: int | None = None,
    ) -> None:
        self.paths = [one for path in paths for one in (frames_of(path) if is_video(path) else [path])]
        self.size, self.channels, self.longest = size, channels, longest
        self.region = central if view == "center" else whole
        self.folder = common_folder(patterns or paths) if paths else ""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        path = self.paths[index]
        try:
            read = read_frame if isinstance(path, Frame) else read_region
            pixels, picture_size, box = read(path, self.size, self.channels, self.region)
        except UnreadableImage as error:
            return error, path
        if self.longest is not None and max(pixels.shape[1:]) > self.longest:
            pixels = resize(pixels, None, max_size=self.longest, antialias=True)
        name = os.path.relpath(os.path.expanduser(path), self.folder)  # noqa: PTH111
        return pixels, Source(path, name, picture_size, pixels.shape[1:], box)


Collated = tuple[Tensor | list[Tensor], list[str], list[tuple[str, str]]]


def collate_pictures(samples: Sequence[Item]) -> Collated:
    """A batch of ``PredictFiles``: pixels and sources of readable files, paths and messages of the others."""
    pixels, sources, bad = collate_native(samples)
    return torch.stack(pixels) if pixels else torch.empty(0), sources, bad


def collate_native(samples: Sequence[Item]) -> tuple[list[Tensor], list[str], list[tuple[str, str]]]:
    """The same with a list of images of any sizes."""
    good = [(pixels, source) for pixels, source in samples if isinstance(pixels, Tensor)]
    bad = [(path, str(error)) for error, path in samples if not isinstance(error, Tensor)]
    return [pixels for pixels, _ in good], [source for _, source in good], bad


class SkipUnreadable:
    """Batches of ``collate_pictures`` as (pixels, sources); unreadable files are printed to stderr and recorded.

    Args:
        batches: an iterable of such batches, with a length.
        unreadable: list to which their names are added.
    """

    def __init__(self, batches: Any, unreadable: list[str]) -> None:
        self.batches, self.unreadable = batches, unreadable

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, list[str]]]:
        for pixels, names, bad in self.batches:
            for name, message in bad:
                self.unreadable.append(name)
                print(f"skipped: {message}", file=sys.stderr)
            if names:
                yield pixels, names
