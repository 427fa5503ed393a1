"""Preconditioning of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, table 1.

A network ``F`` becomes a denoiser ``D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)``, whose input and training
target have unit variance at every level of noise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.functional.diffusion import Predict


class Preconditioning(NamedTuple):
    """Factors of Karras et al.'s table 1 at the given noise, each of its shape."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def preconditioning(sigma: Tensor, sigma_data: float) -> Preconditioning:
    """The factors for noise of these standard deviations.

    Args:
        sigma: above 0, of any shape.
        sigma_data: standard deviation of the images; the paper's is 0.5.
    """
    total = sigma.square() + sigma_data**2
    return Preconditioning(
        c_skip=sigma_data**2 / total,
        c_out=sigma * sigma_data / total.sqrt(),
        c_in=1 / total.sqrt(),
        c_noise=sigma.log() / 4,
    )


def edm_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """Weight of the denoised image's squared error, with which the network's own error has weight 1: ``1 / c_out²``."""
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


def preconditioned(network: Predict, sigma_data: float) -> Predict:
    """The denoiser ``D(x, sigma)`` of a network, which predicts the image.

    Args:
        network: takes x of unit variance, and ``c_noise`` (B,) as times.
        sigma_data: standard deviation of the images.
    """

    def denoised(x: Tensor, sigma: Tensor) -> Tensor:
        factors = preconditioning(sigma, sigma_data)
        skip, out, into = (f.view(-1, *(1 for _ in x.shape[1:])).to(x.dtype) for f in factors[:3])
        return skip * x + out * network(into * x, factors.c_noise).to(x.dtype)

    return denoised


def edm_losses(denoised: Tensor, images: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """Weighted squared errors (B,), averaged over each image (Karras et al. 2022, equation 2).

    Args:
        denoised: as ``preconditioned`` gives it, (B, ...).
        images: what is true.
        sigma: standard deviation of each image's noise, (B,).
        sigma_data: standard deviation of the images.
    """
    errors = torch.nn.functional.mse_loss(denoised, images, reduction="none").flatten(1).mean(1)
    return edm_weight(sigma, sigma_data) * errors
