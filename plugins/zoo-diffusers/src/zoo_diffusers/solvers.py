"""The library's schedulers as solvers of the zoo: along any times, on any path.

The library knows two kinds of paths: noise that grows beside an image that stays (sigma from 0 on), and a mixture of
both with squares that sum to one. Every path of the zoo is one of these but for a factor at each time: with
``x_t = alpha image + sigma noise``, ``x_t / alpha`` is of the first kind and ``x_t / sqrt(alpha² + sigma²)`` of the
second, both with noise of ``sigma / alpha``. So a scheduler is given the noise of exactly the times that the task
visits, and images on its own path. Where nothing is left of the image (alpha = 0, the start of a flow), that ratio is
infinite, and the step is Euler's, as in the zoo's DPM-Solver.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import diffusers
import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.functional.diffusion import Estimate, Path
from zoo.functional.samplers import Solver, Step, moved
from zoo_diffusers.configs import quiet


class LibrarySolver(Solver):
    """Base of the library's schedulers as solvers; the fields of a subclass are arguments of its scheduler.

    Attributes:
        scheduler: the library's class.
        preserves: whether its images have the variance of the noise at all times, instead of growing with it.
        prediction: what it is told: the estimated image, or the noise where it takes no image.
    """

    scheduler: ClassVar[Any]
    preserves: ClassVar[bool] = False
    prediction: ClassVar[Literal["sample", "epsilon"]] = "sample"

    def begin(self, path: Path, times: Sequence[float]) -> Solver:
        """A new scheduler for these times.

        Raises:
            UserError: the times do not lead from noise to image, or the scheduler can't be made.
        """
        name = type(self).__name__
        if any(t >= s for s, t in pairwise(times)):
            raise UserError(f"{name} leads from noise to image only; the other way, take a solver of the zoo")
        finite = [t for t in times if path.at(t)[0] > 0]
        try:
            with quiet():
                made = self.made(self.noise(path, finite)) if len(finite) > 1 else None
        except Exception as error:  # of many types
            raise UserError(f"{name} with {asdict(self)}: {error}") from error
        return Steps(self, made, finite)

    @staticmethod
    def noise(path: Path, times: Sequence[float]) -> Tensor:
        """Its standard deviation beside an image of factor 1, (times,) in float64."""
        factors = [path.at(t) for t in times]
        return torch.tensor([sigma / alpha for alpha, sigma in factors], dtype=torch.float64)

    def scale(self, path: Path, t: float) -> float:
        """The factor from the scheduler's path to the zoo's."""
        alpha, sigma = path.at(t)
        return (alpha**2 + sigma**2) ** 0.5 if self.preserves else alpha

    def made(self, noise: Tensor) -> Any:
        """A scheduler that visits this noise, (steps + 1,)."""
        made = self.scheduler(prediction_type=self.prediction, **asdict(self))
        made.set_timesteps(len(noise) - 1)
        made.sigmas = noise.float()
        made.set_begin_index(0)
        return made

    def options(self) -> dict[str, Any]:
        """Further arguments of each step."""
        return {}

    def step(self, step: Step) -> tuple[Tensor, Estimate]:
        """Not of this object, but of the one that ``begin`` gives."""
        raise AssertionError(f"{type(self).__name__} steps after begin alone")

    def advance(self, steps: Steps, step: Step, found: Estimate) -> Tensor:
        """The samples at the next time, by their estimate now."""
        return steps.to(step, step.s, step.x, found)


class Steps(Solver):
    """A scheduler on its way.

    Args:
        solver: what it is a run of.
        scheduler: the library's; None where the only step starts without an image.
        times: those with some image.
    """

    def __init__(self, solver: LibrarySolver, scheduler: Any, times: Sequence[float]) -> None:
        self.solver, self.scheduler, self.first = solver, scheduler, times[0]
        self.calls = 0
        known = inspect.signature(scheduler.step).parameters if scheduler is not None else ()
        self.takes_generator = "generator" in known

    def step(self, step: Step) -> tuple[Tensor, Estimate]:
        """As many estimates as the scheduler takes."""
        found = step.denoiser.estimate(step.x, step.s)
        if step.s > self.first:
            return moved(step, found, step.t), found
        return self.solver.advance(self, step, found), found

    def to(self, step: Step, now: float, x: Tensor, found: Estimate) -> Tensor:
        """What the scheduler makes of the samples x at a time, at the end of the step."""
        path, timestep = step.denoiser.path, self.scheduler.timesteps[self.calls]
        own = x / self.solver.scale(path, now)
        options = {"generator": step.generator} if self.takes_generator else {}
        predicted = found.image if self.solver.prediction == "sample" else found.noise
        self.scheduler.scale_model_input(own, timestep)  # it insists
        after = self.scheduler.step(predicted, timestep, own, **options, **self.solver.options()).prev_sample
        self.calls += 1
        return self.solver.scale(path, step.t) * after.to(x.dtype)


# Noise beside an image that stays


@dataclass(frozen=True)
class EulerDiscrete(LibrarySolver):
    """Euler's method, ``EulerDiscreteScheduler``."""

    scheduler = diffusers.EulerDiscreteScheduler


@dataclass(frozen=True)
class EulerAncestralDiscrete(LibrarySolver):
    """Euler's method with new noise in each step, ``EulerAncestralDiscreteScheduler``."""

    scheduler = diffusers.EulerAncestralDiscreteScheduler
    prediction = "epsilon"

    @property
    def is_deterministic(self) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class HeunDiscrete(LibrarySolver):
    """Heun's method, ``HeunDiscreteScheduler``; two estimates a step.

    Its mean is of the directions along sigma / alpha; where that falls a hundredfold in a step, as at the start of a
    cosine schedule, the zoo's ``heun`` is the better one.
    """

    scheduler = diffusers.HeunDiscreteScheduler
    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2

    def made(self, noise: Tensor) -> Any:
        """It counts the two halves of a step."""
        made = super().made(noise)
        inner = noise[1:-1].repeat_interleave(2)
        made.sigmas = torch.cat([noise[:1], inner, noise[-1:].repeat(2)]).float()
        made.timesteps = torch.arange(2 * len(noise), 0, -1).float()
        return made

    def advance(self, steps: Steps, step: Step, found: Estimate) -> Tensor:
        """The second half begins where the first one ends, unless there is no noise left."""
        guess = super().advance(steps, step, found)
        if step.denoiser.path.at(step.t)[1] == 0:
            return guess
        return steps.to(step, step.t, guess, step.denoiser.estimate(guess, step.t))


# Mixtures of image and noise


@dataclass(frozen=True)
class DPMSolverMultistep(LibrarySolver):
    """DPM-Solver and DPM-Solver++ by several steps, ``DPMSolverMultistepScheduler``.

    Args:
        solver_order: 1, 2 or 3.
        algorithm_type: ``dpmsolver++`` or ``sde-dpmsolver++``, which adds noise.
        solver_type: of the second order.
        lower_order_final: lower orders at the end of fewer than 15 steps.
        euler_at_final: the first order in the last step, however many there are.
    """

    scheduler = diffusers.DPMSolverMultistepScheduler
    preserves = True

    solver_order: int = 2
    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] = "dpmsolver++"
    solver_type: Literal["midpoint", "heun"] = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False

    @property
    def is_deterministic(self) -> bool:
        """Without added noise."""
        return not self.algorithm_type.startswith("sde")


@dataclass(frozen=True)
class DPMSolverSinglestep(LibrarySolver):
    """DPM-Solver++ whose steps are grouped by the order, ``DPMSolverSinglestepScheduler``.

    Args:
        solver_order: 1, 2 or 3.
        solver_type: of the second order.
    """

    scheduler = diffusers.DPMSolverSinglestepScheduler
    preserves = True

    solver_order: int = 2
    solver_type: Literal["midpoint", "heun"] = "midpoint"


@dataclass(frozen=True)
class UniPCMultistep(LibrarySolver):
    """UniPC, ``UniPCMultistepScheduler`` (Zhao et al. 2023), with the paper's second B(h).

    The first has no end at an image without noise.

    Args:
        solver_order: of the predictor.
        lower_order_final: lower orders at the end.
    """

    scheduler = diffusers.UniPCMultistepScheduler
    preserves = True

    solver_order: int = 2
    lower_order_final: bool = True


@dataclass(frozen=True)
class DDIM(LibrarySolver):
    """DDIM, ``DDIMScheduler``.

    Args:
        eta: share of the posterior's standard deviation that is added as noise.
    """

    scheduler = diffusers.DDIMScheduler
    preserves = True

    eta: float = 0.0

    @property
    def is_deterministic(self) -> bool:
        """With eta = 0."""
        return self.eta == 0

    def made(self, noise: Tensor) -> Any:
        """It reads the noise in a table, in which each step has its place."""
        count = len(noise) - 1
        kept = 1 / (1 + noise**2)
        made: Any = self.scheduler(
            num_train_timesteps=count, clip_sample=False, prediction_type=self.prediction, timestep_spacing="leading"
        )
        made.set_timesteps(count)
        made.alphas_cumprod, made.final_alpha_cumprod = kept[:-1].flip(0), kept[-1]
        return made

    def options(self) -> dict[str, Any]:
        """The share of noise."""
        return {"eta": self.eta}
