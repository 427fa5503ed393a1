"""Picture files in any common format, as bytes of one size.

Pillow decodes; the rest of the way from a real-world file (rotated by an EXIF tag, transparent, 16 bit, animated) to a
tensor that fits into a batch is here.
"""

from __future__ import annotations

import glob
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from zoo.data.walk import OTHER, SPECIAL, LeftOut, is_system, walk
from zoo.errors import UserError

# Formats that Pillow lists as readable, but reads with other programs, as stubs, or that are not pictures.
_NOT_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
_ORIENTATION = 0x0112  # the EXIF tag; values from 5 on swap width and height

Box = tuple[float, float, float, float]
Region = Callable[[int, int, float], Box]
# What Pillow raises for files that are missing, damaged or not pictures.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, Image.DecompressionBombError)


class UnreadableImage(UserError):  # noqa: N818  named like its base
    """The file is not a picture, or is damaged; the message names it."""


@cache
def picture_suffixes() -> frozenset[str]:
    """File name endings of the pictures that Pillow and its installed plugins read: ``.jpg``, ``.jfif``, ``.png``, …"""
    known = Image.registered_extensions()  # imports all of Pillow's formats, which ``OPEN`` then lists
    return frozenset(end for end, kind in known.items() if kind in Image.OPEN and kind not in _NOT_PICTURES)


def central(width: int, height: int, aspect: float = 1.0) -> Box:
    """The largest central box of an aspect ratio (width to height), as left, top, right and bottom."""
    w, h = min(width, height * aspect), min(height, width / aspect)
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, left + w, top + h


def random_resized(width: int, height: int, aspect: float = 1.0, least: float = 0.08) -> Box:
    """A random box of ``least`` to all of the area and 3/4 to 4/3 of the aspect ratio.

    Szegedy et al., "Going Deeper with Convolutions", 2014, section 6; ten trials, then the central box, as torchvision
    has it. Draws from torch's default generator.
    """
    for _ in range(10):
        area, stretch = torch.rand(2).tolist()
        area = width * height * (least + (1 - least) * area)
        ratio = aspect * math.exp(math.log(4 / 3) * (2 * stretch - 1))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(torch.randint(width - w + 1, ())), int(torch.randint(height - h + 1, ()))
            return left, top, left + w, top + h
    return central(width, height, aspect)


def whole(width: int, height: int, aspect: float = 1.0) -> Box:
    """The whole picture, whatever the aspect ratio."""
    return 0.0, 0.0, float(width), float(height)


def open_picture(path: str | Path) -> Image.Image:
    """Open a picture with Pillow, which reads its pixels later.

    Raises:
        one of ``BROKEN``: it is missing, of no known kind, or not a regular file (reading a pipe would wait for ever).
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
        raise ValueError("it is not a regular file")
    return Image.open(path)


def upright_size(path: str | Path) -> tuple[int, int]:
    """Height and width of a picture as displayed (EXIF rotation applied); its pixels are not read.

    Raises:
        UnreadableImage: the file is missing, damaged, or not a picture.
    """
    try:
        with open_picture(path) as image:
            turned = _turn(image) >= 5
            return image.size if turned else image.size[::-1]
    except BROKEN as error:
        raise UnreadableImage(f"{path} can't be read as a picture: {reason(error)}") from error


def read_image(path: str | Path, size: Sequence[int], channels: int = 3, region: Region = central) -> Tensor:
    """Read a region of a picture, resized.

    JPEG files are decoded at a half, quarter or eighth of their size if that is not smaller than the result.

    Args:
        path: the file.
        size: height and width of the result.
        channels: 1 for grey, 3 for colour.
        region: chooses the box from width, height and the aspect ratio of ``size``.

    Returns:
        bytes, (channels, *size)

    Raises:
        UnreadableImage: the file is missing, damaged, or not a picture.
    """
    return read_region(path, size, channels, region)[0]


def read_region(
    path: str | Path, size: Sequence[int] | None, channels: int, region: Region, upright: bool = True
) -> tuple[Tensor, tuple[int, int], Box]:
    """Like ``read_image``; also returns the picture's height and width as displayed, and the cropped box.

    Without ``size``, the region is not resized. Without ``upright``, EXIF rotation is not applied.
    """
    try:
        with open_picture(path) as image:
            return region_of(image, size, channels, region, upright)
    except BROKEN as error:
        raise UnreadableImage(f"{path} can't be read as a picture: {reason(error)}") from error


def region_of(
    image: Image.Image, size: Sequence[int] | None, channels: int, region: Region, upright: bool = True
) -> tuple[Tensor, tuple[int, int], Box]:
    """``read_region`` of an opened picture."""
    turn = _turn(image) if upright else 1
    full = image.size[::-1] if turn >= 5 else image.size
    height, width = size or full[::-1]
    box = region(*full, width / height)
    reduction = max(1, int(min((box[2] - box[0]) / width, (box[3] - box[1]) / height)))
    image.draft(None, (image.width // reduction, image.height // reduction))
    pixels = to_channels(ImageOps.exif_transpose(image) if turn > 1 else image, channels)
    sx, sy = pixels.width / full[0], pixels.height / full[1]
    right, bottom = min(box[2] * sx, pixels.width), min(box[3] * sy, pixels.height)
    scaled = (box[0] * sx, box[1] * sy, right, bottom)
    pixels = pixels.resize((width, height), Image.Resampling.BILINEAR, box=scaled)
    found = torch.from_numpy(np.array(pixels).reshape(height, width, channels)).permute(2, 0, 1).contiguous()
    return found, (full[1], full[0]), box


def _turn(image: Image.Image) -> int:
    """The EXIF orientation that is still to be applied; Pillow applies a TIFF's itself."""
    return 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)


def reason(error: Exception) -> str:
    """Pillow's error about a file, in readable words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is empty or of an unknown kind"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """The picture in grey or colour: transparency over white, 16 bit scaled to 8, everything else by Pillow.

    Args:
        image: in any of Pillow's modes.
        channels: 1 for grey, 3 for colour.

    Raises:
        ValueError: its values have no fixed range (floats, 32-bit integers), or would all be black.
    """
    if image.mode == "F":
        raise ValueError("32-bit floats have no fixed range; save it with 8 or 16 bits")
    if image.mode.startswith("I") or _is_signed(image):
        image = _scaled(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert({1: "L", 3: "RGB"}[channels])


# TIFF 6.0, sections 8 and 19
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO, _SAMPLE_FORMAT, _SIGNED = 258, 262, 0, 339, 2


def _is_signed(image: Image.Image) -> bool:
    return isinstance(image, TiffImageFile) and image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED


BLACK = 4  # bytes below which nothing is seen; a byte stored with 16 bits is one


def _scaled(image: Image.Image) -> Image.Image:
    """A grey picture of integers, from the range of their depth to bytes; Pillow's own conversion cuts off at 255."""
    low, high = _integer_range(image)
    values = np.asarray(image).astype(np.int64)
    if low and image.mode == "L":  # Pillow takes signed bytes for unsigned ones
        values = (values + 128) % 256 - 128
    bytes_ = ((values.clip(low, high) - low) * (255 / (high - low))).round().astype(np.uint8)
    if bytes_.max() < BLACK and values.max() - low > bytes_.max():
        raise ValueError(f"its values from {values.min()} to {values.max()} would be black in a range up to {high}")
    inverted = isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    return Image.fromarray(255 - bytes_ if inverted and image.mode != "L" else bytes_)  # bytes, Pillow inverts


def _integer_range(image: Image.Image) -> tuple[int, int]:
    """Black and white of a grey picture of integers.

    Raises:
        ValueError: it is of 32 bits, of which files use any part.
    """
    bits = image.tag_v2.get(_BITS, (1,))[0] if isinstance(image, TiffImageFile) else 16
    if bits > 16 or (image.mode == "I" and image.format not in ("TIFF", "PNG", "PPM")):
        raise ValueError("32-bit integers have no fixed range; save it with 8 or 16 bits")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if _is_signed(image) else (0, 2**bits - 1)


def matching_files(patterns: Sequence[str], argument: str = "data.files", left_out: LeftOut | None = None) -> list[str]:
    """The files that paths, folders and glob patterns match, each once, in order.

    Args:
        patterns: a file, a folder for the pictures in it, or a glob pattern, where ``**`` matches any depth of folders;
            it follows links without loops. A pattern that ends in ``*`` matches pictures only, as a folder does.
        argument: the argument's name, for the error.
        left_out: counts the files that are not pictures.

    Raises:
        UserError: one of them matches nothing.
    """
    found: dict[str, None] = {}
    left_out = LeftOut() if left_out is None else left_out
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_file():
            matches = [str(path)]
        elif path.is_dir():
            matches = _pictures(map(str, sorted(path.iterdir())), left_out)
        elif path.exists():
            raise UserError(f"{argument}: {pattern} is not a regular file")
        else:
            matches = _globbed(path)
            matches = _pictures(matches, left_out) if path.name in ("*", "**") else matches
        if not matches and not path.exists() and not glob.has_magic(str(path)):
            raise UserError(f"{argument}: no picture matches {pattern}, which does not exist")
        if not matches:
            deeper = f"; for those in its folders give '{path}/**/*'" if path.is_dir() else ""
            raise UserError(f"{argument}: no picture matches {pattern}{deeper}")
        found |= dict.fromkeys(matches)
    return list(found)


def _pictures(paths: Iterable[str], left_out: LeftOut) -> list[str]:
    """Those that are pictures by name; other files are counted, hidden ones and folders are not."""
    found = []
    for path in map(Path, paths):
        if is_picture(path):
            found.append(str(path))
        elif not path.is_dir() and not is_system(path.name):
            left_out.add(OTHER if path.is_file() else SPECIAL, path.suffix.lower() or path.name)
    return found


def _globbed(path: Path) -> list[str]:
    """Files that match a glob pattern; brackets in names of existing folders are literal, and if nothing matches."""
    fixed = _existing(path)
    rest = str(path.relative_to(fixed))
    for tail in dict.fromkeys((rest, rest.replace("[", "[[]"))):
        found = {str(Path(found)) for found in _expanded(fixed, Path(tail).parts) if Path(found).is_file()}
        if found:
            return sorted(found)
    return []


def _existing(path: Path) -> Path:
    while not path.is_dir():
        path = path.parent
    return path


def _expanded(folder: Path, parts: Sequence[str]) -> Iterator[str]:
    """What a pattern's parts match below a folder; ``**`` follows links without loops, and passes over system folders,
    which ``glob`` does not."""
    head = parts[: parts.index("**")] if "**" in parts else parts
    matches = glob.glob(os.path.join(glob.escape(str(folder)), *head))  # noqa: PTH118, PTH207
    if len(head) == len(parts):
        yield from matches
        return
    tail = parts[len(head) + 1 :] or ("*",)
    for place in filter(os.path.isdir, matches):
        for below, _ in walk(place, LeftOut()):
            yield from _expanded(Path(below), tail)


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture file that is not hidden."""
    return path.suffix.lower() in picture_suffixes() and not path.name.startswith(".") and path.is_file()


def common_folder(patterns: Sequence[str]) -> str:
    """The deepest folder that holds everything these paths, folders and glob patterns can match."""
    return os.path.commonpath([_fixed_folder(Path(pattern).expanduser()) for pattern in patterns])


def _fixed_folder(path: Path) -> str:
    if path.is_file():
        path = path.parent
    while not path.is_dir() and path != path.parent:  # a glob pattern's part without wildcards
        path = path.parent
    return os.path.abspath(path)  # noqa: PTH100  links stay as they are
