"""Conversion of stored pixels to the floats in [0, 1] that networks see, and their statistics.

Bytes, 16-bit integers and floats all keep their stored dtype until they are on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from zoo.errors import UserError

Range = tuple[float, float]

# The default range of stored values, from black to white.
RANGES: dict[torch.dtype, Range] = {
    torch.uint8: (0.0, 255.0),
    torch.uint16: (0.0, 65535.0),
    torch.float16: (0.0, 1.0),
    torch.float32: (0.0, 1.0),
    torch.float64: (0.0, 1.0),
}


def range_of(images: Tensor, value_range: Range | None = None) -> Range:
    """The stored values of black and white: those that the data declares, else those of the dtype.

    Raises:
        UserError: the dtype has no default range, and none is declared.
    """
    if value_range is not None:
        return value_range
    if images.dtype not in RANGES:
        kind = str(images.dtype).removeprefix("torch.")
        raise UserError(f"images of {kind} have no range of their own: declare value_range, as (black, white)")
    return RANGES[images.dtype]


def check_range(images: Tensor, value_range: Range | None, where: str) -> None:
    """Check that all values of images are within their range.

    Args:
        images: (N, C, H, W), of any dtype.
        value_range: as declared.
        where: what the images are, for the message.

    Raises:
        UserError: some are outside; the message has the values and the range.
    """
    low, high = range_of(images, value_range)
    if (images.dtype in (torch.uint8, torch.uint16) and (low, high) == RANGES[images.dtype]) or not images.numel():
        return
    lows, highs = zip(*(part.double().aminmax() for part in images.split(256)), strict=True)
    least, most = float(torch.stack(lows).min()), float(torch.stack(highs).max())
    if not (low <= least and most <= high):
        raise UserError(
            f"{where}: values from {least:g} to {most:g} lie outside the range from {low:g} to {high:g}; "
            "declare value_range, as (black, white)"
        )


def as_floats(images: Tensor, size: Sequence[int], dtype: torch.dtype, value_range: Range | None = None) -> Tensor:
    """Stored pixels as floats in [0, 1], resized (bilinear, antialiased) if the size differs.

    Args:
        images: (B, C, H, W), of any dtype.
        size: height and width.
        dtype: dtype of the result; half precision is computed in float32 first.
        value_range: stored values of black and white; default: those of the dtype.
    """
    low, high = range_of(images, value_range)
    floats = images.to(torch.promote_types(dtype, torch.float32), copy=(low, high) != (0, 1))
    if low:
        floats.sub_(low)
    if high - low != 1:
        floats.div_(high - low)
    if floats.shape[-2:] != tuple(size):
        floats = interpolate(floats, size=tuple(size), mode="bilinear", antialias=True).clamp_(0, 1)
    return floats.to(dtype)


def pixel_covariance(images: Tensor, chunk: int = 256, value_range: Range | None = None) -> Tensor:
    """Covariance of the channels over all pixels of all images, with values in [0, 1]; float64, (C, C).

    Args:
        images: (N, C, H, W), of any dtype.
        chunk: images per step, which bounds the memory.
        value_range: stored values of black and white; default: those of the dtype.
    """
    mean, squares = _moments(images, chunk, value_range)
    return squares - mean[:, None] * mean


def _moments(images: Tensor, chunk: int, value_range: Range | None) -> tuple[Tensor, Tensor]:
    """Means of the channels, (C,), and of their products, (C, C); float64."""
    channels = images.shape[1]
    low, high = range_of(images, value_range)
    total = torch.zeros(channels, dtype=torch.float64)
    squares = torch.zeros(channels, channels, dtype=torch.float64)
    for part in images.split(chunk):
        pixels = (part.transpose(0, 1).reshape(channels, -1).double().cpu() - low) / (high - low)
        total += pixels.sum(1)
        squares += pixels @ pixels.T
    count = images.numel() / channels
    return total / count, squares / count


def mean_and_std(images: Tensor, value_range: Range | None = None) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel over all pixels, with values in [0, 1].

    Args:
        images: (N, C, H, W), of any dtype.
        value_range: stored values of black and white; default: those of the dtype.
    """
    if images.dtype == torch.uint8 and value_range is None:
        values = torch.arange(256, dtype=torch.float64, device=images.device) / 255
        share = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in images.transpose(0, 1)]).double()
        share /= share.sum(1, keepdim=True)
        mean, squares = share @ values, share @ values.square()
    else:
        mean, products = _moments(images, 256, value_range)
        squares = products.diagonal()
    std = (squares - mean.square()).clamp_min(0).sqrt()
    return [round(v, 4) for v in mean.tolist()], [round(v, 4) for v in std.tolist()]
