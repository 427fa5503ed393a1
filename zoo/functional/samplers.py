"""Solvers that turn noise into images, step by step, with any denoiser on any path.

Without new noise, a sample follows ``dx = image d(alpha) + noise d(sigma)``, with the denoiser's estimates of image and
noise: the probability-flow equation, whatever the path. Euler's step of it, ``alpha image + sigma noise`` at the next
time, is DDIM's (eta = 0), Euler's of rectified flow, and Euler's of Karras et al.; likewise Heun's.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from zoo import registry
from zoo.errors import UserError
from zoo.functional.diffusion import Denoiser, Estimate, Path, VarianceExploding, forward_variance, posterior
from zoo.functional.seeded_noise import Randomness, normal_like

Callback = Callable[[int, Tensor, Estimate], None]
Constrain = Callable[[Tensor, float], Tensor]


class Step(NamedTuple):
    """A step of a solver.

    Args:
        denoiser: whose estimates it follows.
        x: the samples (B, ...) at time s.
        s: the time now.
        t: the next time.
        past: the time of the step before, and the image that was estimated there; None in the first step.
        generator: of new noise.
        steps: how many there are in all.
    """

    denoiser: Denoiser
    x: Tensor
    s: float
    t: float
    past: tuple[float, Tensor] | None
    generator: Randomness | None
    steps: int


class Solver(ABC):
    """Takes steps along the times; without a state, so that it can be shared: ``begin`` gives one that may have some.

    Attributes:
        order: how fast its error falls with the number of steps.
        evaluations: calls of the denoiser in a step.
    """

    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1

    @property
    def is_deterministic(self) -> bool:
        """Whether it adds no noise, so that it can be run backwards."""
        return True

    def begin(self, path: Path, times: Sequence[float]) -> Solver:
        """The solver that takes the steps along these times; as it stands, itself.

        A solver that remembers more than the step before gives a new one.

        Raises:
            UserError: it can't visit these times.
        """
        return self

    @abstractmethod
    def step(self, step: Step) -> tuple[Tensor, Estimate]:
        """The samples at the next time, and the estimate at the time before."""


# Deterministic


class Euler(Solver):
    """Euler's method; DDIM with eta = 0."""

    def step(self, step: Step) -> tuple[Tensor, Estimate]:
        """One estimate, then straight on."""
        found = step.denoiser.estimate(step.x, step.s)
        return moved(step, found, step.t), found


class Midpoint(Solver):
    """The midpoint method: half a step of Euler's, and then the whole step by the estimate found there."""

    order, evaluations = 2, 2

    def step(self, step: Step) -> tuple[Tensor, Estimate]:
        """Two estimates."""
        first, middle = step.denoiser.estimate(step.x, step.s), (step.s + step.t) / 2
        found = step.denoiser.estimate(moved(step, first, middle), middle)
        return moved(step, found, step.t), first


@dataclass(frozen=True)
class Heun(Solver):
    """Heun's method, whose last step to an image without noise is Euler's (Karras et al. 2022, algorithms 1 and 2).

    Args:
        churn: the paper's S_churn, which the steps share; above 0, noise is added before each (algorithm 2), on the
            paper's path only.
        churn_from: S_min, the smallest time at which noise is added.
        churn_to: S_max, the largest.
        churn_noise: S_noise, factor on the added noise.
    """

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2

    churn: float = 0.0
    churn_from: float = 0.0
    churn_to: float = math.inf
    churn_noise: float = 1.0

    @property
    def is_deterministic(self) -> bool:
        """Without churn."""
        return self.churn == 0

    def step(self, step: Step) -> tuple[Tensor, Estimate]:
        """Two estimates, or one where the step ends without noise."""
        step = self._churned(step)
        first = step.denoiser.estimate(step.x, step.s)
        guess = moved(step, first, step.t)
        if step.denoiser.path.at(step.t)[1] == 0:
            return guess, first
        second = step.denoiser.estimate(guess, step.t)
        mean = Estimate((first.image + second.image) / 2, (first.noise + second.noise) / 2)
        return moved(step, mean, step.t), first

    def _churned(self, step: Step) -> Step:
        """The step from a somewhat earlier time, to which noise takes the samples back.

        Raises:
            UserError: the path is another one than that of the paper.
        """
        if self.churn == 0 or not self.churn_from <= step.s <= self.churn_to:
            return step
        if not isinstance(step.denoiser.path, VarianceExploding):
            raise UserError("churn is defined for the noise schedule of Karras et al. only")
        higher = step.s * (1 + min(self.churn / step.steps, 2**0.5 - 1))
        extra = self.churn_noise * (higher**2 - step.s**2) ** 0.5
        return step._replace(x=step.x + extra * normal_like(step.x, step.generator), s=higher)


class DPMSolver(Solver):
    """DPM-Solver++ (2M): the image is extrapolated from this step and the one before, in log(alpha / sigma).

    Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022, algorithm 2. The
    first step, and those from or to an end of the path, where that logarithm is infinite, are of first order.
    """

    order = 2

    def step(self, step: Step) -> tuple[Tensor, Estimate]:
        """One estimate."""
        found, path = step.denoiser.estimate(step.x, step.s), step.denoiser.path
        if step.past is None:
            return moved(step, found, step.t), found
        before, last = step.past
        ahead, behind = log_snr_growth(path, step.s, step.t), log_snr_growth(path, before, step.s)
        if not math.isfinite(ahead + behind):
            return moved(step, found, step.t), found
        image = found.image + ahead / (2 * behind) * (found.image - last)
        (alpha_s, sigma_s), (alpha_t, sigma_t) = path.at(step.s), path.at(step.t)
        kept = sigma_t / sigma_s
        return kept * step.x + (alpha_t - kept * alpha_s) * image, found


def moved(step: Step, found: Estimate, t: float) -> Tensor:
    """The samples at time t, if the estimates stay as they are found."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = step.denoiser.path.at(step.s), step.denoiser.path.at(t)
    return step.x + (alpha_t - alpha_s) * found.image + (sigma_t - sigma_s) * found.noise


def log_snr_growth(path: Path, s: float, t: float) -> float:
    """How much log(alpha / sigma) grows from s to t; infinite if one of them is an end of the path."""
    factors = (*path.at(s), *path.at(t))
    if 0 in factors:
        return math.inf
    alpha_s, sigma_s, alpha_t, sigma_t = factors
    return math.log(alpha_t / alpha_s * sigma_s / sigma_t)


# With new noise in each step


@dataclass(frozen=True)
class DDPM(Solver):
    """Ancestral sampling by the posterior (Ho et al. 2020, algorithm 2).

    Args:
        variance: of the added noise: that of the posterior, which is right for a single image, or that of the forward
            step (``beta``), which is right for Gaussian data of unit variance (section 3.2).
    """

    variance: Literal["posterior", "beta"] = "posterior"

    @property
    def is_deterministic(self) -> bool:
        """Never."""
        return False

    def step(self, step: Step) -> tuple[Tensor, Estimate]:
        """One estimate, and new noise unless the step ends without any."""
        found, path = step.denoiser.estimate(step.x, step.s), step.denoiser.path
        on_x, on_image, std = posterior(path, step.s, step.t)
        mean = on_x * step.x + on_image * found.image
        if path.at(step.t)[1] == 0:
            return mean, found
        if self.variance == "beta":
            std = forward_variance(path, step.s, step.t) ** 0.5
        return mean + std * normal_like(mean, step.generator), found


@dataclass(frozen=True)
class DDIM(Solver):
    """Song, Meng and Ermon, "Denoising Diffusion Implicit Models", 2021, equations 12 and 16.

    Args:
        eta: share of the posterior's standard deviation that is added as noise: 0 none (Euler's method), 1 DDPM's.
    """

    eta: float = 0.0

    @property
    def is_deterministic(self) -> bool:
        """With eta = 0."""
        return self.eta == 0

    def step(self, step: Step) -> tuple[Tensor, Estimate]:
        """One estimate, and new noise if eta is above 0."""
        found = step.denoiser.estimate(step.x, step.s)
        if self.eta == 0:
            return moved(step, found, step.t), found
        path = step.denoiser.path
        alpha, sigma = path.at(step.t)
        std = self.eta * posterior(path, step.s, step.t).std
        mean = alpha * found.image + max(0.0, sigma**2 - std**2) ** 0.5 * found.noise
        return mean + std * normal_like(mean, step.generator), found


SOLVERS: dict[str, type[Solver]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "euler": Euler,
    "midpoint": Midpoint,
    "heun": Heun,
    "dpm": DPMSolver,
}


def make_solver(name: str, **options: Any) -> Solver:
    """The solver of this name.

    Args:
        name: one of ``SOLVERS``, or a solver among the registered parts, by name or path.
        options: arguments of its class.

    Raises:
        UserError: there is no such solver, or it has no such option.
    """
    cls = SOLVERS[name] if name in SOLVERS else _registered(name)
    if cls is None:
        parts = [entry.name for entry in registry.entries() if entry.kind == "parts" and entry.package != registry.OURS]
        close = registry.did_you_mean(name, [*SOLVERS, *parts])
        raise UserError(f"solver is one of {', '.join(SOLVERS)}, or a plugin's, not {name}{close}")
    known = list(inspect.signature(cls).parameters)
    if unknown := [option for option in options if option not in known]:
        taken = f"its options are {', '.join(known)}" if known else "it has none"
        raise UserError(f"solver {name} has no option {unknown[0]}: {taken}")
    return cls(**options)


def _registered(name: str) -> type[Solver] | None:
    """The solver among the registered parts that this name or path refers to."""
    if (claimed := registry.clash(name, "parts")) is not None:
        raise UserError(claimed)
    parts = [entry.load() for entry in registry.mentioned(name) if entry.kind == "parts"]
    return next((cls for cls in parts if issubclass(cls, Solver)), None)


def start(denoiser: Denoiser, noise: Tensor, t: float) -> Tensor:
    """The samples at the first time, of standard normal noise."""
    return denoiser.path.at(t)[1] * noise


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float],
    solver: Solver,
    generator: Randomness | None = None,
    callback: Callback | None = None,
    constrain: Constrain | None = None,
) -> Tensor:
    """Samples taken along the times.

    Args:
        denoiser: whose estimates are followed.
        x: the samples at the first time, (B, ...): ``start`` makes them of noise.
        times: from the first to the last, usually from noise to 0.
        solver: takes the steps; see ``make_solver``.
        generator: of the noise that a solver adds; one for each sample makes them independent of the batch.
        callback: called after each step with its number from 0, the samples, and the estimate of image and noise that
            they were taken by.
        constrain: takes the samples after each step and their time, and gives those to go on with.

    Returns:
        The samples at the last time, (B, ...).
    """
    past: tuple[float, Tensor] | None = None
    solver = solver.begin(denoiser.path, times)
    for index, (s, t) in enumerate(pairwise(times)):
        x, found = solver.step(Step(denoiser, x, s, t, past, generator, len(times) - 1))
        past = (s, found.image)
        x = x if constrain is None else constrain(x, t)
        if callback is not None:
            callback(index, x, found)
    return x
