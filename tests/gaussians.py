"""Gaussian data, for which diffusion and flow are known in closed form on every path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.functional.diffusion import (
    Denoiser,
    Path,
    Prediction,
    StraightPath,
    VarianceExploding,
    VariancePreserving,
    target,
)
from zoo.functional.diffusion_schedules import cosine_betas, edm_times, even_times, linear_betas, step_times

MEAN, VARIANCE = 0.3, 0.25
PATHS: dict[str, tuple[Path, list[float]]] = {
    "linear": (VariancePreserving(linear_betas()), step_times(100, 1000)),
    "cosine": (VariancePreserving(cosine_betas()), step_times(100, 1000)),
    "exploding": (VarianceExploding(), edm_times(100)),
    "straight": (StraightPath(), even_times(100)),
}


@dataclass
class Gaussian:
    """Images of independent pixels from N(mean, variance), and their best denoiser."""

    path: Path
    mean: float = MEAN
    variance: float = VARIANCE

    def std(self, t: float) -> float:
        """Standard deviation of x_t."""
        alpha, sigma = self.path.at(t)
        return (alpha**2 * self.variance + sigma**2) ** 0.5

    def marginal(self, normal: Tensor, t: float) -> Tensor:
        """Samples of x_t from standard normal ones; along the flow without noise these stay the same."""
        return self.path.at(t)[0] * self.mean + self.std(t) * normal

    def image(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The mean of the image, given x_t."""
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return self.mean + gain * (x - alpha * self.mean)

    def denoiser(self, prediction: Prediction = "noise", clip: bool = False) -> Denoiser:
        def predict(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = self.path.factors(t, x)
            gap = x - alpha * self.mean
            noise = sigma * gap / (alpha**2 * self.variance + sigma**2)
            return target(prediction, self.image(x, alpha, sigma), noise, alpha, sigma)

        return Denoiser(predict, self.path, prediction, clip)


def mixture_denoiser(path: Path) -> Denoiser:
    """The best denoiser of two unequal Gaussians, whose flow is not linear: solvers' errors do not cancel by chance."""
    parts = torch.tensor([[-0.8, 0.04], [0.5, 0.25]], dtype=torch.float64)
    shares = torch.tensor([0.3, 0.7], dtype=torch.float64)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = path.factors(t, x)
        mean, spread = alpha * parts[:, 0], alpha**2 * parts[:, 1] + sigma**2
        gap = x - mean
        belongs = (shares.log() - gap**2 / (2 * spread) - spread.log() / 2).softmax(1)
        return (belongs * sigma * gap / spread).sum(1, keepdim=True)

    return Denoiser(predict, path, "noise")


def normal(count: int, size: int = 1, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64, (count, size)."""
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
