"""The library's schedulers as solvers, on Gaussian data, for which the way of every sample is known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from zoo_diffusers.solvers import DDIM, EulerDiscrete, HeunDiscrete

from zoo.errors import UserError
from zoo.functional import samplers
from zoo.functional.diffusion import Denoiser, Path, StraightPath, VarianceExploding, VariancePreserving
from zoo.functional.diffusion_schedules import (
    cosine_betas,
    edm_times,
    even_times,
    from_strength,
    linear_betas,
    step_times,
)
from zoo.functional.editing import invert, keep_known
from zoo.functional.samplers import Solver, make_solver, sample
from zoo.functional.seeded_noise import normal_like

MEAN, VARIANCE = 0.3, 0.25
PATHS: dict[str, tuple[Path, Callable[[int], list[float]]]] = {
    "linear": (VariancePreserving(linear_betas()), lambda steps: step_times(steps, 1000)),
    "cosine": (VariancePreserving(cosine_betas()), lambda steps: step_times(steps, 1000)),
    "exploding": (VarianceExploding(), edm_times),
    "straight": (StraightPath(), even_times),
}
every_path = pytest.mark.parametrize("name", PATHS)


@dataclass
class Mixture:
    """Pixels of two Gaussians of unequal weight, or of one, and their best denoiser."""

    path: Path
    means: tuple[float, ...] = (MEAN,)
    variances: tuple[float, ...] = (VARIANCE,)
    shares: tuple[float, ...] = (1.0,)

    def denoiser(self) -> Denoiser:
        means, variances, shares = (torch.tensor(v).double() for v in (self.means, self.variances, self.shares))

        def predict(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = (f[..., None] for f in self.path.factors(t, x.double()))
            spread = alpha**2 * variances + sigma**2
            gap = x.double()[..., None] - alpha * means
            belongs = (shares.log() - gap**2 / (2 * spread) - spread.log() / 2).softmax(-1)
            noise = (belongs * sigma * gap / spread).sum(-1)
            image = (belongs * (means + alpha * variances * gap / spread)).sum(-1)
            return alpha[..., 0] * noise - sigma[..., 0] * image

        return Denoiser(predict, self.path, "velocity")

    def at(self, normal: Tensor, t: float) -> Tensor:
        """Samples of one Gaussian at a time, from standard normal ones, which stay the same along the flow."""
        alpha, sigma = self.path.at(t)
        return alpha * self.means[0] + (alpha**2 * self.variances[0] + sigma**2) ** 0.5 * normal


def two(path: Path) -> Mixture:
    return Mixture(path, (-0.8, 0.5), (0.04, 0.25), (0.3, 0.7))


def normal(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(data: Mixture, times: list[float], solver: Solver, seeds: int | None = None, count: int = 40) -> Tensor:
    x = samplers.start(data.denoiser(), normal(count), times[0])
    generators = None if seeds is None else [torch.Generator().manual_seed(seeds + i) for i in range(count)]
    return sample(data.denoiser(), x, times, solver, generators)


SAME: list[tuple[str, dict[str, Any], Solver]] = [
    ("EulerDiscrete", {}, samplers.Euler()),
    ("DDIM", {}, samplers.DDIM()),
    ("DDIM", {"eta": 1.0}, samplers.DDIM(1.0)),
    ("DDIM", {"eta": 0.5}, samplers.DDIM(0.5)),
    ("DPMSolverMultistep", {}, samplers.DPMSolver()),
    ("DPMSolverMultistep", {"solver_order": 1}, samplers.Euler()),
    ("DPMSolverSinglestep", {"solver_order": 1}, samplers.Euler()),
    ("EulerAncestralDiscrete", {}, samplers.DDPM()),
]


# From pure noise without an image, where a flow starts, the first step here is Euler's.
@pytest.mark.parametrize(
    ("name", "solver", "options", "own"),
    [(name, *case) for name in PATHS for case in SAME if name != "straight" or case[2].is_deterministic],
)
def test_steps_are_those_of_the_zoos_own_solver(name: str, solver: str, options: dict[str, Any], own: Solver) -> None:
    """Sample by sample, with the same noise where some is added."""
    path, times = PATHS[name]
    data = two(path)
    found = run(data, times(12), make_solver(solver, **options), seeds=5)
    torch.testing.assert_close(found, run(data, times(12), own, seeds=5), rtol=2e-4, atol=2e-4)


def test_heuns_method_is_the_zoos_where_the_image_stays() -> None:
    data = two(VarianceExploding())
    found = run(data, edm_times(12), HeunDiscrete())
    torch.testing.assert_close(found, run(data, edm_times(12), samplers.Heun()), rtol=2e-4, atol=2e-4)


HIGHER = [
    ("HeunDiscrete", {}),
    ("DPMSolverMultistep", {}),
    ("DPMSolverMultistep", {"solver_order": 3}),
    ("DPMSolverMultistep", {"solver_type": "heun"}),
    ("DPMSolverSinglestep", {}),
    ("DPMSolverSinglestep", {"solver_order": 3}),
    ("UniPCMultistep", {}),
    ("UniPCMultistep", {"solver_order": 3}),
]


@every_path
@pytest.mark.parametrize(("solver", "options"), HIGHER)
def test_each_sample_ends_where_the_flow_leads(name: str, solver: str, options: dict[str, Any]) -> None:
    """Closer than by Euler's method."""
    if (name, solver) == ("cosine", "HeunDiscrete"):
        return  # sigma / alpha falls a hundredfold in the first step, too much for a mean of both ends
    path, times = PATHS[name]
    data, places = Mixture(path), normal(40)
    errors = []
    for made in (make_solver(solver, **options), EulerDiscrete()):
        found = sample(data.denoiser(), data.at(places, times(40)[0]), times(40), made)
        errors.append(float((found - data.at(places, 0.0)).abs().max()))
    assert errors[0] < 0.6 * errors[1]


@every_path
@pytest.mark.parametrize(
    ("solver", "options"),
    [("EulerAncestralDiscrete", {}), ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"})],
)
def test_added_noise_keeps_mean_and_variance(name: str, solver: str, options: dict[str, Any]) -> None:
    path, times = PATHS[name]
    data, random = Mixture(path), torch.Generator().manual_seed(7)
    x = data.at(normal(5000), times(100)[0])
    found = sample(data.denoiser(), x, times(100), make_solver(solver, **options), random)
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(found.var()) == pytest.approx(VARIANCE, rel=0.15)


@pytest.mark.parametrize("solver", ["DDIM", "EulerAncestralDiscrete", "UniPCMultistep", "HeunDiscrete"])
def test_a_sample_depends_on_its_own_noise_alone(solver: str) -> None:
    path, times = PATHS["cosine"]
    denoiser, made = two(path).denoiser(), make_solver(solver)

    def by(*seeds: int) -> Tensor:
        each = [torch.Generator().manual_seed(seed) for seed in seeds]
        return sample(denoiser, normal_like(torch.zeros(len(seeds), 2).double(), each), times(8), made, each)

    torch.testing.assert_close(by(3, 1, 2)[1:], by(1, 2), rtol=0, atol=1e-6)


@every_path
@pytest.mark.parametrize("solver", ["DDIM", "EulerDiscrete", "UniPCMultistep", "HeunDiscrete", "DPMSolverSinglestep"])
def test_few_steps_the_end_of_the_way_and_known_parts(name: str, solver: str) -> None:
    path, times = PATHS[name]
    data, made = two(path), make_solver(solver)
    for way in (times(2), from_strength(times(10), 0.4), *([] if name == "exploding" else [times(1)])):
        assert torch.isfinite(run(data, way, made)).all()
    images, mask = torch.full((40, 2), 0.4).double(), torch.tensor([[0.0, 1.0]])
    known = keep_known(data.denoiser(), images, mask, torch.Generator().manual_seed(0))
    found = sample(data.denoiser(), path.at(times(10)[0])[1] * normal(40), times(10), made, constrain=known)
    torch.testing.assert_close(found[:, 0], images[:, 0], rtol=0, atol=1e-6)
    assert float(found[:, 1].std()) > 0.2


def test_mistakes_end_in_one_line() -> None:
    path, times = PATHS["cosine"]
    data = two(path)
    with pytest.raises(UserError, match="DDIM leads from noise to image only"):
        invert(data.denoiser(), normal(3), times(5)[::-1], DDIM())
    with pytest.raises(UserError, match=r"DPMSolverSinglestep with .*solver_order"):
        run(data, times(5), make_solver("DPMSolverSinglestep", solver_order=4))
    with pytest.raises(UserError, match="solver UniPCMultistep has no option eta: its options are solver_order"):
        make_solver("UniPCMultistep", eta=1.0)
    with pytest.raises(UserError, match="did you mean UniPCMultistep"):
        make_solver("UniPCMultistp")
