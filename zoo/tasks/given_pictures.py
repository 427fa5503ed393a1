"""What prediction needs for pictures that a generator changes: their noise, and the mask of what is to be filled in."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from zoo.data.files import UnreadableImage, central, read_region
from zoo.data.predicting import Source
from zoo.data.seeds import derive_seed
from zoo.errors import UserError

ALIKE = 0.02  # relative difference of a mask's aspect ratio from a picture's, at most
NOISE = "noise"  # the folder of inverted pictures


def seed_of(image: Tensor) -> int:
    """A seed from an image's pixels, so that its noise depends neither on its batch nor on its process."""
    pixels = (255 * image.detach().float()).round().to(torch.uint8).cpu().contiguous()
    return derive_seed(zlib.crc32(pixels.numpy().tobytes()))


def generators_for(images: Tensor, seed: int = 0) -> list[Generator]:
    """A generator for each image, of a seed and the image's pixels."""
    return [Generator().manual_seed(derive_seed(seed, seed_of(image))) for image in images]


def read_mask(path: str, size: Sequence[int], names: Sequence[str]) -> Tensor:
    """A mask (1, H, W) from a picture, of the part that is taken of the given pictures: 1 where it is bright, else 0.

    Args:
        path: of the mask.
        size: height and width of the task's images.
        names: of the pictures that it is for; those of files know their size.

    Raises:
        UserError: it can't be read, marks nothing, or has other proportions than a picture.
    """
    try:
        pixels, (height, width), _ = read_region(Path(path).expanduser(), size, 1, central)
    except (OSError, UnreadableImage) as error:
        raise UserError(f"model.mask: {path} can't be read as a picture") from error
    for name in names:
        h, w = name.picture_size if isinstance(name, Source) else (0, 0)
        if h * w and abs(width * h / (height * w) - 1) > ALIKE:
            raise UserError(f"model.mask: {path} is {width}x{height}, but {name} {w}x{h}: they must be of one shape")
    mask = (pixels >= 128).float()
    if not mask.any():
        raise UserError(f"model.mask: {path} has no white part, which is what would be filled in")
    return mask


def noise_file(name: str) -> str:
    """Where an inverted picture's noise is written, below the prediction's folder."""
    return f"{NOISE}/{name.name if isinstance(name, Source) else Path(name).name}.npy"


def write_noise(path: Path, noise: Tensor) -> None:
    """Write noise (C, H, W) as an array that numpy reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, noise.float().cpu().numpy())
