"""Given images in diffusion and flow: their noise, variations of them, and missing parts filled in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.functional.diffusion import Denoiser
from zoo.functional.samplers import Callback, Constrain, Solver, sample
from zoo.functional.seeded_noise import Randomness, normal_like


def invert(
    denoiser: Denoiser, images: Tensor, times: Sequence[float], solver: Solver, callback: Callback | None = None
) -> Tensor:
    """The noise that a deterministic solver turns into these images: its steps backwards.

    As in DDIM's paper (Song et al. 2021, section 5.4) and Liu et al.'s (2023); exact in the limit of many steps.

    Args:
        denoiser: whose estimates are followed.
        images: (B, ...), scaled as in training.
        times: from image to noise; at the first the images count as without noise, so it is 0, or the smallest time of
            training where a prediction at 0 says nothing.
        solver: without randomness.
        callback: as for ``sample``.

    Returns:
        Standard normal noise, if the images are like those of training, (B, ...): ``start`` and ``sample`` lead back.

    Raises:
        UserError: the solver adds noise.
    """
    if not solver.is_deterministic:
        raise UserError(f"an image can't be inverted by {type(solver).__name__}, which adds noise in each step")
    (alpha, _), (_, sigma) = denoiser.path.at(times[0]), denoiser.path.at(times[-1])
    return sample(denoiser, alpha * images, times, solver, callback=callback) / sigma


def noised_at(denoiser: Denoiser, images: Tensor, t: float, generator: Randomness | None) -> Tensor:
    """Images with the noise of a time: where image-to-image starts (Meng et al., "SDEdit", 2022).

    Args:
        denoiser: on whose path.
        images: (B, ...), scaled as in training.
        t: the time; the first that ``from_strength`` leaves.
        generator: one, or one for each image.
    """
    alpha, sigma = denoiser.path.at(t)
    return alpha * images + sigma * normal_like(images, generator)


def keep_known(denoiser: Denoiser, images: Tensor, mask: Tensor, generator: Randomness | None) -> Constrain:
    """For ``sample``: after each step the known parts are the given ones, with new noise of the step's time.

    Inpainting by Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021,
    appendix I.2.

    Args:
        denoiser: on whose path.
        images: (B, C, H, W), scaled as in training.
        mask: broadcast with the images: 1 where a part is missing, 0 where it is known.
        generator: one, or one for each image.
    """
    missing = mask.to(images.dtype)

    def constrain(x: Tensor, t: float) -> Tensor:
        return torch.lerp(noised_at(denoiser, images, t, generator), x, missing)

    return constrain
