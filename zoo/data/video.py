"""The frames of a video as pictures, decoded by PyAV (the package ``av``), which is imported when a video is read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from zoo.data.files import Box, Region, UnreadableImage, region_of
from zoo.errors import UserError

SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"))


class Frame(str):
    """A frame: ``clip-000012.mp4`` is the 13th frame of ``clip.mp4``.

    Args:
        video: path of the file.
        number: of the frame, from 0.
    """

    video: str
    number: int

    def __new__(cls, video: str, number: int) -> Frame:
        """Strings are immutable, so the attributes are set here."""
        path = Path(video)
        self = super().__new__(cls, path.with_name(f"{path.stem}-{number:06d}{path.suffix}"))
        self.video, self.number = video, number
        return self

    def __reduce__(self) -> Any:
        """For worker processes."""
        return Frame, (self.video, self.number)


def is_video(path: str) -> bool:
    """Whether the name is that of a video file."""
    return Path(path).suffix.lower() in SUFFIXES


def frames_of(path: str) -> list[Frame]:
    """All frames of a video, in order; they are counted without being decoded.

    Raises:
        UserError: PyAV is not installed.
        UnreadableImage: the file is damaged, or has no video in it.
    """
    av = _pyav(path)
    try:
        with av.open(path) as container:
            count = sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
    except (av.error.FFmpegError, IndexError, OSError) as error:
        raise _unreadable(path, error) from error
    return [Frame(path, index) for index in range(count)]


def _pyav(path: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise UserError(f"{path} is a video, which needs PyAV: pip install 'lightning-zoo[video]'") from error
    return av


def _unreadable(path: str, error: Exception) -> UnreadableImage:
    why = "there is no video in it" if isinstance(error, IndexError) else str(error).splitlines()[0]
    return UnreadableImage(f"{path} can't be read as a video: {why}")


class _Decoder:
    """Decodes a video's frames in ascending order.

    A frame that follows the one before it costs no more than its own decoding; an earlier one starts again from the
    beginning, since seeking is not exact in every format.
    """

    def __init__(self, path: str) -> None:
        self.path, self.next, self.process = path, 0, os.getpid()
        self.container = _pyav(path).open(path)
        self.frames: Iterator[Any] = self.container.decode(video=0)

    def read(self, index: int) -> Image.Image:
        """The frame of this number, upright.

        Raises:
            StopIteration: the video is shorter.
        """
        while True:
            frame = next(self.frames)
            self.next += 1
            if self.next > index:
                break
        picture: Image.Image = frame.to_image()
        return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


_open: list[_Decoder] = []  # the one that was used last
_forked: list[_Decoder] = []


def read_frame(
    frame: str, size: Sequence[int] | None, channels: int, region: Region
) -> tuple[Tensor, tuple[int, int], Box]:
    """``read_region`` of a video's frame.

    Raises:
        UnreadableImage: it can't be decoded.
    """
    assert isinstance(frame, Frame)
    av = _pyav(frame.video)
    try:
        picture = _decoder(frame).read(frame.number)
    except (av.error.FFmpegError, StopIteration, OSError) as error:
        _open.clear()
        raise UnreadableImage(f"{frame.video}: frame {frame.number} can't be decoded") from error
    return region_of(picture, size, channels, region)


def _decoder(frame: Frame) -> _Decoder:
    last = _open[0] if _open else None
    if last is not None and last.process != os.getpid():  # a fork has none of the decoder's threads
        _forked.append(_open.pop())  # kept: to close it would wait for them
        last = None
    if last is None or last.path != frame.video or last.next > frame.number:
        if last is not None:
            last.container.close()
        _open[:] = [_Decoder(frame.video)]
    return _open[0]
