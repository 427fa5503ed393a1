"""Masks of classes: picture files whose values, or colours, are the classes of their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from zoo.contracts.forms import IGNORED
from zoo.data.annotations import Faults
from zoo.data.files import BROKEN, UnreadableImage, open_picture, read_region, reason, upright_size, whole
from zoo.errors import UserError

Value = int | list[int]
UNKNOWN = 254  # in a table's answers: a value that it does not have


class MaskTable:
    """The class of each value, or of each colour.

    Args:
        values: of each class: a value of grey or of an index, or red, green and blue.
        ignored: values or colours of pixels that are ignored.

    Raises:
        UserError: two classes have the same value, or one has none that masks can have.
    """

    def __init__(self, values: Mapping[str, Value], ignored: Sequence[Value] = (IGNORED,)) -> None:
        self.names = list(values)
        if len(self.names) >= UNKNOWN:
            raise UserError(f"masks of {len(self.names)} classes: at most {UNKNOWN - 1} are possible")
        lengths = {len(value) if isinstance(value, list) else 1 for value in values.values()}
        if not lengths <= {1} and not lengths <= {3}:
            raise UserError("data.table: give each class one value, or each one red, green and blue")
        self.colored = lengths == {3}
        self.classes = np.full(2**24 if self.colored else 2**16, UNKNOWN, np.uint8)
        own = {self._code(name, value): label for label, (name, value) in enumerate(values.items())}
        if len(own) < len(self.names):
            raise UserError("data.table: two classes have the same value")
        for value in ignored:
            if self.colored == (isinstance(value, list) and len(value) == 3):
                self.classes[self._code("ignored", value)] = IGNORED
        for code, label in own.items():  # a class whose value is 255 is not ignored
            self.classes[code] = label

    def _code(self, name: str, value: Value) -> int:
        parts = value if isinstance(value, list) else [value]
        most = 255 if len(parts) == 3 else 65535
        if any(type(part) is not int or not 0 <= part <= most for part in parts):
            raise UserError(f"data.table: {name} is {value}, not a value from 0 to 65535 or red, green, blue up to 255")
        return sum(part << 8 * (len(parts) - 1 - place) for place, part in enumerate(parts))

    def read(self, path: str) -> NDArray[np.uint8]:
        """The class of each pixel, (H, W).

        Raises:
            UnreadableImage: the file is no mask, or has values that are none of the table.
        """
        try:
            with open_picture(path) as image:
                codes = self._codes(image)
        except BROKEN as error:
            raise UnreadableImage(f"{path} can't be read as a mask: {reason(error)}") from error
        found: NDArray[np.uint8] = self.classes[codes]
        if (unknown := found == UNKNOWN).any():
            values = np.unique(codes[unknown])
            shown = ", ".join(self._shown(int(value)) for value in values[:5])
            more = f" and {len(values) - 5} more" if len(values) > 5 else ""
            raise UnreadableImage(f"{path} has pixels of {shown}{more}, which is none of the {len(self.names)} classes")
        return found

    def _shown(self, code: int) -> str:
        return f"the color {code >> 16} {code >> 8 & 255} {code & 255}" if self.colored else f"the value {code}"

    def _codes(self, image: Image.Image) -> NDArray[np.int64]:
        if self.colored:
            pixels = np.asarray(image.convert("RGB")).astype(np.int64)
            return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
        pixels = np.asarray(image).astype(np.int64)
        if pixels.ndim == 3:  # grey, saved as colour
            grey = pixels[..., : 3 if image.mode.startswith("RGB") else 1]
            if (grey != grey[..., :1]).any():
                raise ValueError("it is coloured: say by data.table which color is which class")
            pixels = grey[..., 0]
        if pixels.min() < 0 or pixels.max() >= len(self.classes):
            raise ValueError(f"its values go from {pixels.min()} to {pixels.max()}")
        return pixels


class MaskedFiles(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Pictures and the classes of their pixels: bytes (C, H, W), and ``mask`` (H, W), bytes.

    Args:
        pairs: picture and mask files.
        table: the classes of the masks' values.
        labels: new label of each class, among bytes.
        channels: 1 or 3.
        size: height and width that pictures are resized to; None keeps their size.
        max_size: longer side that larger pictures are reduced to.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        table: MaskTable,
        labels: NDArray[np.uint8],
        channels: int = 3,
        size: Sequence[int] | None = None,
        max_size: int | None = None,
    ) -> None:
        self.pairs, self.table, self.channels, self.size, self.max_size = pairs, table, channels, size, max_size
        self.labels = np.arange(256).astype(np.uint8)
        self.labels[: len(labels)] = labels

    def __len__(self) -> int:
        return len(self.pairs)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """The class of each pixel, in the file's own size."""
        found: NDArray[np.uint8] = self.labels[self.table.read(self.pairs[index][1])]
        return found

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        mask = torch.from_numpy(self.mask(index))
        height, width = mask.shape
        factor = 1.0 if self.max_size is None else min(1.0, self.max_size / max(height, width))
        size = self.size or (max(1, round(height * factor)), max(1, round(width * factor)))
        path = self.pairs[index][0]
        image, found, _ = read_region(path, size, self.channels, whole)
        if found != (height, width):  # drawn without its EXIF rotation
            image, found, _ = read_region(path, size, self.channels, whole, upright=False)
        if found != (height, width):
            raise UnreadableImage(_another_size(*self.pairs[index], (height, width), found))
        if tuple(mask.shape) != tuple(size):
            mask = interpolate(mask[None, None], tuple(size), mode="nearest-exact")[0, 0]
        return image, {"mask": mask}

    def problem(self, index: int) -> tuple[str | None, NDArray[np.int64]]:
        """What is wrong with a pair, without decoding the picture; and the number of pixels of each class."""
        picture, path = self.pairs[index]
        try:
            mask, found = self.mask(index), upright_size(picture)
            if found != mask.shape and Image.open(picture).size != mask.shape[::-1]:
                return _another_size(picture, path, mask.shape, found), np.zeros(256, np.int64)
        except UserError as error:
            return str(error), np.zeros(256, np.int64)
        return None, np.bincount(mask.ravel(), minlength=256)


def _another_size(picture: str, path: str, mask: Sequence[int], found: Sequence[int]) -> str:
    return f"{path} has {mask[1]}x{mask[0]} pixels, its picture {Path(picture).name} has {found[1]}x{found[0]}"


def checked_masks(samples: MaskedFiles, count: int, faults: Faults, threads: int) -> NDArray[np.int64]:
    """Read evenly spaced masks, to find what is wrong with them and to count the pixels of each class, (256,).

    Args:
        samples: pictures and masks.
        count: at most so many are read.
        faults: receives what is wrong.
        threads: that read.
    """
    rows = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)).tolist()
    total = np.zeros(256, np.int64)
    with ThreadPoolExecutor(threads) as pool:
        for wrong, pixels in pool.map(samples.problem, rows):
            total += pixels
            if wrong is not None:
                faults.add(wrong)
    return total
