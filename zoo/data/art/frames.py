"""Pictures and videos of any size, frame by frame, for tasks that produce a picture for each frame.

Pillow reads pictures, animated ones too; PyAV reads videos, where it is installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from zoo.data.art.pictures import SMALLEST, scaled_size
from zoo.data.files import BROKEN, UnreadableImage, open_picture, read_image, reason, to_channels, upright_size, whole
from zoo.errors import UserError

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")  # a phone's JPEG or a TIFF may also hold pictures that aren't frames


class Frames:
    """Every frame of every file, one by one, as (bytes (1, 3, H, W), names, names and messages of unreadable files).

    Args:
        paths: pictures and videos.
        size: length of the longer side; None keeps the files' own size.
        rank: of this process, which takes every ``world``-th frame.
        world: number of processes.

    Raises:
        UserError: a file is a video, and PyAV is not installed.
    """

    def __init__(self, paths: Sequence[str], size: int | None, rank: int = 0, world: int = 1) -> None:
        self.paths, self.size, self.rank, self.world = paths, size, rank, world
        for path in filter(is_video, paths):
            reader_of_videos(path)  # if missing, fail now and not after the pictures before it

    def __iter__(self) -> Iterator[tuple[Tensor, list[str], list[tuple[str, str]]]]:
        number = 0
        for path in self.paths:
            try:
                for pixels, name in frames(path, self.size):
                    if number % self.world == self.rank:
                        yield pixels[None], [name], []
                    number += 1
            except UnreadableImage as error:
                if self.rank == 0:
                    yield torch.empty(0), [], [(path, str(error))]


def frames(path: str, size: int | None = None) -> Iterator[tuple[Tensor, str]]:
    """The frames of a file, as bytes (3, H, W), with their names; several frames get numbered names.

    Args:
        path: a picture, an animated one, or a video.
        size: length of the longer side; None keeps the file's own size.

    Raises:
        UnreadableImage: the file is missing, too narrow or damaged; perhaps only from some frame on.
        UserError: it is a video, and PyAV is not installed.
    """
    if is_video(path):
        yield from _numbered(path, _video(path), size)
        return
    try:
        with open_picture(path) as image:
            if image.format in ANIMATED and getattr(image, "n_frames", 1) > 1:
                yield from _numbered(path, ImageSequence.Iterator(image), size)
                return
    except BROKEN as error:
        raise UnreadableImage(f"{path} can't be read as a picture: {reason(error)}") from error
    yield read_image(path, _size(path, *upright_size(path), size), region=whole), path


def is_video(path: str) -> bool:
    """Whether the file is a video, by its name."""
    return Path(path).suffix.lower() in VIDEOS


def reader_of_videos(path: str) -> Any:
    """Import PyAV. Raises:
    UserError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(f"{path} is a video, which PyAV reads: pip install av") from error
    return av


def _numbered(path: str, images: Any, size: int | None) -> Iterator[tuple[Tensor, str]]:
    for number, image in enumerate(images):
        height, width = _size(path, image.height, image.width, size)
        pixels = to_channels(image, 3).resize((width, height), Image.Resampling.BILINEAR)
        yield torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous(), f"{path} frame {number}"


def _size(path: str, height: int, width: int, longer: int | None) -> list[int]:
    """Height and width with this longer side; None for the original size."""
    size = scaled_size(height, width, longer or max(height, width))
    if min(size) < SMALLEST:
        raise UnreadableImage(f"{path} would be {size[1]}×{size[0]} pixels, too narrow (at least {SMALLEST})")
    return size


def _video(path: str) -> Iterator[Image.Image]:
    av = reader_of_videos(path)
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise UnreadableImage(f"{path} holds no video")
            for frame in container.decode(video=0):
                yield frame.to_image().rotate(frame.rotation, expand=True)
    except av.error.FFmpegError as error:
        raise UnreadableImage(f"{path} can't be read as a video: {error.strerror}") from error
