"""Statistics and losses for texture and style: pure functions of feature maps and images.

Gram matrices are Gatys, Ecker and Bethge's ("Texture Synthesis Using Convolutional Neural Networks", 2015), guided by
masks as in Gatys et al., "Controlling Perceptual Factors in Neural Style Transfer", 2017, section 3; adaptive instance
normalisation is Huang and Belongie's ("Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization",
2017, section 5). Every distance is one number per image, so that the images of a batch are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# NTSC's luminance and two colour differences (YIQ), rows by red, green and blue.
YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
LEVELS = 256  # quantiles for comparing histograms
BANDS = 14  # spatial frequency bands, a quarter of an octave each
STRIP = 512**2  # pixels whose neighbourhoods are in memory at a time


# Style


def gram(maps: Tensor) -> Tensor:
    """Correlations between the channels, ``G = F F^T / N`` over N positions.

    The papers use sums, which grow with the image; with means, images of different sizes can be compared.

    Args:
        maps: feature maps (B, C, H, W).

    Returns:
        (B, C, C)
    """
    f = maps.flatten(2)
    return _product(f, f.transpose(1, 2)) / f.shape[2]


def masked_gram(maps: Tensor, mask: Tensor) -> Tensor:
    """Correlations within the mask, ``(T F) (T F)^T / sum(T^2)``; a mask of ones gives ``gram``.

    Args:
        maps: feature maps (B, C, H, W).
        mask: in [0, 1], (1 or B, 1, H, W); a different size is resized by averaging.

    Returns:
        (B, C, C); zeros where the mask is empty.
    """
    if mask.shape[-2:] != maps.shape[-2:]:
        mask = F.adaptive_avg_pool2d(mask, (maps.shape[2], maps.shape[3]))
    f = (maps * mask).flatten(2)
    weight = mask.square().flatten(2).sum(2, keepdim=True)
    return _product(f, f.transpose(1, 2)) / weight.clamp(min=torch.finfo(maps.dtype).eps)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``, never in half precision, since distances subtract nearly equal numbers."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def style_distance(grams: Tensor, target: Tensor) -> Tensor:
    """Squared distance of Gram matrices, relative to the target's squared norm.

    Dividing makes layers comparable: their norms differ by orders of magnitude, which the papers compensate by
    weights.

    Args:
        grams: (B, C, C).
        target: (1 or B, C, C).

    Returns:
        (B,); 0 where they agree, 1 for a grey image with zero feature maps.
    """
    norm = target.square().sum((1, 2)).clamp(min=torch.finfo(target.dtype).tiny)
    return (grams - target).square().sum((1, 2)) / norm


def patches(images: Tensor) -> Tensor:
    """3×3 neighbourhoods as channels; their Gram matrix holds colours and correlations of neighbouring pixels.

    Networks are insensitive to the finest frequencies; this constrains them, as the autocorrelations of Portilla and
    Simoncelli ("A Parametric Texture Model Based on Joint Statistics of Complex Wavelet Coefficients", 2000, section
    3.2.2) do.

    Args:
        images: in [0, 1], (B, C, H, W).

    Returns:
        (B, 9 C + 1, H - 2, W - 2); the last channel is constant, for the means.
    """
    height, width = (n - 2 for n in images.shape[2:])
    maps = F.unfold(images - 0.5, 3).unflatten(2, (height, width))
    return torch.cat([maps, torch.full_like(maps[:, :1], 0.2)], 1)


def patch_gram(images: Tensor, mask: Tensor | None = None) -> Tensor:
    """Correlations of neighbouring pixels, ``gram(patches(images))``, strip by strip.

    The neighbourhoods of a whole image take nine times its memory, and as much again for their gradient; those of a
    strip are recomputed in the backward pass.

    Args:
        images: in [0, 1], (B, C, H, W).
        mask: in [0, 1], (1 or B, 1, h, w), as in ``masked_gram``.

    Returns:
        (B, 9 C + 1, 9 C + 1)
    """
    height, width = (n - 2 for n in images.shape[2:])
    if mask is None:
        weight: Tensor | int = height * width
    else:
        mask = F.adaptive_avg_pool2d(mask, (height, width))
        weight = mask.square().flatten(2).sum(2, keepdim=True).clamp(min=torch.finfo(images.dtype).eps)
    rows, total = max(1, STRIP // width), images.new_zeros(())
    for top in range(0, height, rows):
        strip = images[:, :, top : top + rows + 2], None if mask is None else mask[:, :, top : top + rows]
        total = total + (_products(*strip) if rows >= height else checkpoint(_products, *strip, use_reentrant=False))
    return total / weight


def _products(images: Tensor, mask: Tensor | None) -> Tensor:
    """Sums of the products of neighbours, (B, 9 C + 1, 9 C + 1)."""
    maps = patches(images)
    f = (maps if mask is None else maps * mask).flatten(2)
    return _product(f, f.transpose(1, 2))


def whitener(target: Tensor, floor: float = 1e-3) -> Tensor:
    """``L^-1`` of the target's Cholesky factor, in whose coordinates every direction has equal weight.

    Args:
        target: (B, C, C).
        floor: variance added to every direction, so that directions missing in the target stay finite.

    Returns:
        (B, C, C)
    """
    one = torch.eye(target.shape[1], dtype=target.dtype, device=target.device)
    factor = torch.linalg.cholesky(target + floor * one)
    return torch.linalg.solve_triangular(factor, one.expand_as(target), upper=False)


def whitened_distance(grams: Tensor, target: Tensor, white: Tensor) -> Tensor:
    """Mean squared distance of Gram matrices in the target's whitened coordinates, per row.

    Args:
        grams: (B, C, C).
        target: (1 or B, C, C).
        white: the target's ``whitener``.

    Returns:
        (B,); 1 for zeros if the target is far above the floor.
    """
    return _product(_product(white, grams - target), white.transpose(1, 2)).square().sum((1, 2)) / target.shape[1]


# Content


def content_distance(maps: Tensor, target: Tensor) -> Tensor:
    """Squared distance of feature maps, relative to the target's variation.

    Args:
        maps: feature maps (B, C, H, W).
        target: (B, C, H, W); if its variation is below a hundredth of its magnitude, that is the divisor.

    Returns:
        (B,); 1 for feature maps that are each channel's mean.
    """
    spread = (target - target.mean((2, 3), keepdim=True)).square().sum((1, 2, 3))
    least = 1e-4 * target.square().sum((1, 2, 3)) + torch.finfo(target.dtype).tiny
    return (maps - target).square().sum((1, 2, 3)) / spread.maximum(least)


def total_variation(images: Tensor) -> Tensor:
    """Mean squared difference of vertical and horizontal neighbours.

    Mahendran and Vedaldi, "Understanding Deep Image Representations by Inverting Them", 2014, section 3.2, with an
    exponent of 2.

    Args:
        images: (B, C, H, W).

    Returns:
        (B,)
    """
    down = (images[:, :, 1:] - images[:, :, :-1]).square().mean((1, 2, 3))
    right = (images[..., 1:] - images[..., :-1]).square().mean((1, 2, 3))
    return down + right


def out_of_range(images: Tensor) -> Tensor:
    """Mean squared distance of the pixels to [0, 1].

    Args:
        images: (B, C, H, W).

    Returns:
        (B,)
    """
    return (images - images.clamp(0, 1)).square().mean((1, 2, 3))


def mean_of_layers(
    distance: Callable[[Tensor, Tensor], Tensor],
    shares: Mapping[str, float],
    maps: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
) -> Tensor:
    """A distance of feature maps, averaged over layers by weights that sum to 1, (B,)."""
    return torch.stack([share * distance(maps[name], target[name]) for name, share in shares.items()]).sum(0)


# Statistics


def noise_like(images: Tensor, size: list[int], generator: torch.Generator) -> Tensor:
    """Independent pixels with the mean and covariance of each image's colours, clamped to [0, 1].

    Args:
        images: in [0, 1], (B, C, h, w).
        size: height and width of the noise.
        generator: on the CPU.

    Returns:
        (B, C, *size)
    """
    values = images.detach().flatten(2).cpu().double()
    mean = values.mean(2, keepdim=True)
    covariance = (values - mean) @ (values - mean).transpose(1, 2) / values.shape[2]
    factor = torch.linalg.cholesky(covariance + 1e-8 * torch.eye(values.shape[1]).double())
    white = torch.randn(*values.shape[:2], size[0] * size[1], generator=generator).double()
    return (mean + factor @ white).unflatten(2, size).clamp(0, 1).to(images)


def channel_statistics(maps: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of each image.

    Args:
        maps: feature maps (B, C, H, W).
        eps: added to the variance (of the population, as instance normalisation has it), so that the root is
            differentiable.

    Returns:
        mean (B, C, 1, 1), standard deviation (B, C, 1, 1)
    """
    variance, mean = torch.var_mean(maps, (2, 3), correction=0, keepdim=True)
    return mean, (variance + eps).sqrt()


def adain(content: Tensor, style: Tensor, eps: float = 1e-5) -> Tensor:
    """The content's feature maps with the style's mean and standard deviation in each channel.

    Args:
        content: (B, C, H, W).
        style: (1 or B, C, H', W').
        eps: as in ``channel_statistics``.

    Returns:
        (B, C, H, W)
    """
    mean, deviation = channel_statistics(content, eps)
    style_mean, style_deviation = channel_statistics(style, eps)
    return (content - mean) / deviation * style_deviation + style_mean


def statistics_distance(maps: Tensor, target: Tensor) -> Tensor:
    """Squared distance of the channels' means and standard deviations, relative to the target's squared norm.

    Args:
        maps: feature maps (B, C, H, W).
        target: (1 or B, C, H', W').

    Returns:
        (B,)
    """
    found, wanted = (torch.cat(channel_statistics(m), 1).flatten(1) for m in (maps, target))
    return (found - wanted).square().sum(1) / wanted.square().sum(1).clamp(min=torch.finfo(wanted.dtype).tiny)


# Colours


def keep_colors(result: Tensor, content: Tensor) -> Tensor:
    """The result's luminance in the content's colours.

    Gatys, Bethge, Hertzmann and Shechtman, "Preserving Color in Neural Artistic Style Transfer", 2016, section 3.2.

    Args:
        result: in [0, 1], (B, 3, H, W).
        content: in [0, 1], (B, 3, H, W).

    Returns:
        in [0, 1], (B, 3, H, W)
    """
    matrix = result.new_tensor(YIQ)
    luminance = torch.einsum("c,bchw->bhw", matrix[0], result)
    differences = torch.einsum("dc,bchw->bdhw", matrix[1:], content)
    mixed = torch.cat([luminance[:, None], differences], 1)
    return torch.einsum("cd,bdhw->bchw", torch.linalg.inv(matrix), mixed).clamp(0, 1)


# Metrics of the final image


def histogram_distance(images: Tensor, target: Tensor) -> Tensor:
    """Wasserstein distance to the target's histogram, averaged over channels.

    Args:
        images: in [0, 1], (B, C, H, W).
        target: in [0, 1], (1 or B, C, H', W').

    Returns:
        (B,), in units of the range: 0.1 is a shift of all values by a tenth.
    """
    return (_quantiles(images) - _quantiles(target)).abs().mean((1, 2))


def _quantiles(images: Tensor) -> Tensor:
    """Quantiles at the middles of ``LEVELS`` equal shares of the pixels, (B, C, LEVELS)."""
    ordered = images.flatten(2).sort(2).values
    places = (torch.arange(LEVELS, device=images.device) + 0.5) / LEVELS * ordered.shape[2]
    return ordered[:, :, places.long()]


def radial_spectrum(images: Tensor) -> Tensor:
    """Power per spatial frequency, averaged over directions, of the channels' mean; with a Hann window.

    The bands go from 1/16 cycles per pixel to 0.707, the frequency of a checkerboard.

    Args:
        images: (B, C, H, W).

    Returns:
        (B, BANDS), mean power; NaN for bands that contain no frequency at this image size
    """
    grey = images.mean(1)
    down, right = (torch.hann_window(n, periodic=False, dtype=grey.dtype, device=grey.device) for n in grey.shape[1:])
    window = down[:, None] * right
    grey = (grey - grey.mean((1, 2), keepdim=True)) * window
    power = torch.fft.fft2(grey).abs().square() / window.square().sum()
    y, x = (torch.fft.fftfreq(n, dtype=grey.dtype, device=grey.device) for n in grey.shape[1:])
    octaves = 4 + torch.log2((y[:, None].square() + x.square()).sqrt())  # -inf for the mean
    band = (octaves * 4 + 1e-6).floor().clamp(max=BANDS - 1)
    return torch.stack([power[:, band == b].mean(1) for b in range(BANDS)], 1)


def spectrum_distance(images: Tensor, target: Tensor) -> Tensor:
    """Root mean square difference of the radial spectra, in decibels.

    Args:
        images: (B, C, H, W).
        target: (1 or B, C, H', W').

    Returns:
        (B,); 3 is a factor of two in every band.
    """
    floor = 1e-8  # below the noise of rounding to 8 bits
    first, second = ((radial_spectrum(one) + floor).log10() * 10 for one in (images, target))
    return (first - second).square().nanmean(1).sqrt()
