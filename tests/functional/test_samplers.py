"""Solvers on Gaussian data, for which the way of every sample is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from gaussians import MEAN, PATHS, VARIANCE, Gaussian, mixture_denoiser, normal
from torch import Tensor

from zoo.errors import UserError
from zoo.functional.couplings import nearest_noise
from zoo.functional.diffusion import Estimate, StraightPath, VarianceExploding, VariancePreserving
from zoo.functional.diffusion_likelihood import bits_per_dimension, dequantized, log_likelihood
from zoo.functional.diffusion_schedules import edm_times, even_times, from_strength, linear_betas, step_times
from zoo.functional.editing import invert, keep_known, noised_at
from zoo.functional.samplers import DDIM, DDPM, SOLVERS, Euler, Heun, make_solver, sample, start
from zoo.functional.seeded_noise import normal_like, slerp

DETERMINISTIC = ("euler", "midpoint", "heun", "dpm")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def generators(*seeds: int) -> list[torch.Generator]:
    return [seeded(s) for s in seeds]


# The right distribution


@pytest.mark.parametrize("solver", DETERMINISTIC)
@pytest.mark.parametrize("name", PATHS)
def test_each_sample_ends_where_the_flow_leads(name: str, solver: str) -> None:
    """A sample keeps its place in the distribution, so that mean and variance are right for all of them."""
    path, times = PATHS[name]
    data, places = Gaussian(path), normal(50)
    found = sample(data.denoiser("velocity"), data.marginal(places, times[0]), times, make_solver(solver))
    error = (found - data.marginal(places, 0.0)).abs().max()
    assert float(error) < (0.06 if solver == "euler" else 0.006)


@pytest.mark.parametrize("name", ["linear", "cosine", "straight"])
@pytest.mark.parametrize("solver", [DDPM(), DDPM("beta"), DDIM(1.0), DDIM(0.5)])
def test_stochastic_solvers_have_the_right_mean_and_variance(name: str, solver: DDPM | DDIM) -> None:
    path, _ = PATHS[name]
    data, count = Gaussian(path), 10_000
    times = even_times(250) if name == "straight" else step_times(500 if name == "linear" else 250, 1000)
    x = data.marginal(normal(count), times[0])
    found = sample(data.denoiser("velocity"), x, times, solver, seeded(1))
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(found.var()) == pytest.approx(VARIANCE, rel=0.08)


def test_churn_has_the_right_mean_and_variance() -> None:
    data = Gaussian(VarianceExploding())
    times, places = edm_times(60), normal(10_000)
    x = data.marginal(places, times[0])
    found = sample(data.denoiser("image"), x, times, Heun(churn=20, churn_from=0.05, churn_to=50), seeded(1))
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(found.var()) == pytest.approx(VARIANCE, rel=0.08)
    kept = torch.corrcoef(torch.stack([found[:, 0], places[:, 0]]))[0, 1]
    assert float(kept) < 0.9  # without churn, a sample is a function of its first noise
    with pytest.raises(UserError, match="churn is defined for the noise schedule of Karras"):
        sample(Gaussian(StraightPath()).denoiser("flow"), x[:2], even_times(4), Heun(churn=1))


def test_the_flow_from_one_gaussian_to_another() -> None:
    """From N(0, 1) to N(2, 0.01), along the straight path."""
    data, places = Gaussian(StraightPath(), mean=2.0, variance=0.01), normal(1000)
    found = sample(data.denoiser("flow"), places, even_times(200), make_solver("heun"))
    torch.testing.assert_close(found, 2 + 0.1 * places, atol=2e-3, rtol=0)


# Solvers against each other


@pytest.mark.parametrize("name", PATHS)
def test_ddim_with_eta_1_is_ddpm(name: str) -> None:
    """The same steps from the same noise: DDPM's posterior, and DDIM's own formula."""
    path, times = PATHS[name]
    if name in ("linear", "cosine"):
        times = step_times(1000, 1000)
    denoiser, x = Gaussian(path).denoiser("velocity"), normal(3, 2)
    ways: list[list[Tensor]] = [[], []]
    for way, solver in zip(ways, (DDPM("posterior"), DDIM(1.0)), strict=True):
        x0 = start(denoiser, x, times[0])
        sample(denoiser, x0, times, solver, seeded(3), callback=lambda i, x, e, way=way: way.append(x))
    torch.testing.assert_close(*ways)


def test_euler_is_ddim_without_noise_and_eulers_of_each_paper() -> None:
    for name, (path, times) in PATHS.items():
        data = Gaussian(path)
        x, s, t = data.marginal(normal(4), times[40]), times[40], times[41]
        denoiser = data.denoiser("velocity")
        found, ddim = (sample(denoiser, x, [s, t], solver) for solver in (Euler(), DDIM()))
        torch.testing.assert_close(found, ddim)
        image, noise = denoiser.estimate(x, s)
        if name == "straight":
            torch.testing.assert_close(found, x + (t - s) * (noise - image))
        if name == "exploding":
            torch.testing.assert_close(found, x + (t - s) * (x - image) / s)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_order_of_convergence(name: str, solver: str) -> None:
    """Twice the steps divide the change that twice the steps make by 2 to the power of the order."""
    path, ends, made = PATHS[name][0], (3.0, 0.5) if name == "exploding" else (0.8, 0.3), make_solver(solver)
    denoiser, x = mixture_denoiser(path), path.at(ends[0])[1] * normal(50)
    found = [sample(denoiser, x, even_times(steps, *ends), made) for steps in (40, 80, 160)]
    changes = [(a - b).norm() for a, b in pairwise(found)]
    assert float((changes[0] / changes[1]).log2()) == pytest.approx(made.order, abs=0.12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_evaluations_are_counted(solver: str) -> None:
    denoiser, calls = Gaussian(StraightPath()).denoiser("flow"), []
    counting = denoiser.predict

    def predict(x: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t[0]))
        return counting(x, t)

    object.__setattr__(denoiser, "predict", predict)
    made = make_solver(solver)
    sample(denoiser, normal(2), even_times(5, 0.9, 0.1), made)
    assert len(calls) == 5 * made.evaluations


# The interface


def test_mistakes_end_in_one_line() -> None:
    with pytest.raises(UserError, match=r"solver is one of ddpm, .*, not huen; did you mean heun"):
        make_solver("huen")
    with pytest.raises(UserError, match="solver ddim has no option churn: its options are eta"):
        make_solver("ddim", churn=1)
    with pytest.raises(UserError, match="solver dpm has no option eta: it has none"):
        make_solver("dpm", eta=1)


MARKED = """
from zoo.functional.samplers import Solver, moved


class Counting(Solver):
    def __init__(self, first: int = 0) -> None:
        self.count = first

    def begin(self, path, times):
        made = Counting(self.count)
        made.visits = list(times)
        return made

    def step(self, step):
        assert self.visits[self.count] == step.s
        self.count += 1
        found = step.denoiser.estimate(step.x, step.s)
        return moved(step, found, step.t), found


class Other:
    pass
"""


def test_a_plugins_solver_is_found_by_name_and_begins_anew(fake_plugin: Callable[..., Path]) -> None:
    entries = {"parts": {name: f"acme_solvers:{name}" for name in ("Counting", "Other")}}
    fake_plugin(files={"acme_solvers.py": MARKED}, entries=entries)
    path, times = PATHS["linear"]
    denoiser, made = Gaussian(path).denoiser(), make_solver("Counting", first=0)
    for _ in range(2):
        torch.testing.assert_close(
            sample(denoiser, normal(2), times, made), sample(denoiser, normal(2), times, Euler())
        )
    assert made.count == 0  # type: ignore[attr-defined]
    assert type(make_solver("zoo.parts.Counting")) is type(made)
    with pytest.raises(UserError, match="solver Counting has no option eta: its options are first"):
        make_solver("Counting", eta=1)
    with pytest.raises(UserError, match=r"solver is one of .*, or a plugin's, not Conting; did you mean Counting"):
        make_solver("Conting")
    with pytest.raises(UserError, match="solver is one of"):
        make_solver("Other")


@pytest.mark.parametrize("solver", [DDPM(), DDIM(0.7)])
def test_a_samples_noise_is_its_own(solver: DDPM | DDIM) -> None:
    """With a generator for each sample, neither the batch nor the order matters, and the default one is not used."""
    path, times = PATHS["linear"]
    denoiser = Gaussian(path).denoiser()

    def made(*seeds: int) -> Tensor:
        each = generators(*seeds)
        return sample(denoiser, normal_like(torch.zeros(len(seeds), 2), each).double(), times, solver, each)

    torch.manual_seed(0)
    state = torch.get_rng_state()
    together = made(3, 1, 2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(together, torch.cat([made(3), made(1), made(2)]))


def test_a_callback_sees_every_step() -> None:
    data, seen = Gaussian(StraightPath()), []

    def callback(index: int, x: Tensor, found: Estimate) -> None:
        seen.append((index, x, found.image))

    found = sample(data.denoiser("flow"), normal(2), even_times(4), Euler(), callback=callback)
    assert [index for index, *_ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[-1][1], found)
    torch.testing.assert_close(seen[-1][2], found)  # the last step ends at its estimate


def test_slerp_keeps_the_norm() -> None:
    a, b = normal(2, 1000), normal(2, 1000, seed=1)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    middle = slerp(a, b, 0.5)
    torch.testing.assert_close(middle.norm(dim=1), (a.norm(dim=1) + b.norm(dim=1)) / 2)
    torch.testing.assert_close(torch.cosine_similarity(middle, a), torch.cosine_similarity(middle, b))
    torch.testing.assert_close(slerp(a, a, 0.3), a)


# Given images


@pytest.mark.parametrize("solver", DETERMINISTIC)
@pytest.mark.parametrize("name", ["linear", "straight"])
def test_inverted_images_come_back(name: str, solver: str) -> None:
    """The noise of an image is known for a Gaussian, and leads back to it."""
    path, times = PATHS[name]
    data, places, made = Gaussian(path), normal(6), make_solver(solver)
    images, denoiser = data.marginal(places, 0.0), data.denoiser("velocity")
    within = {"atol": 0.1 if solver == "euler" else 0.02, "rtol": 0}
    noise = invert(denoiser, images, times[::-1], made)
    torch.testing.assert_close(noise, data.marginal(places, 1.0) / path.at(1.0)[1], **within)
    again = sample(denoiser, start(denoiser, noise, 1.0), times, made)
    torch.testing.assert_close(again, images, **within)


def test_a_solver_with_noise_can_not_invert() -> None:
    with pytest.raises(UserError, match="can't be inverted by DDPM"):
        invert(Gaussian(StraightPath()).denoiser("flow"), normal(2), [0.0, 1.0], DDPM())


def test_image_to_image_changes_more_with_strength() -> None:
    path, times = PATHS["straight"]
    denoiser, images = Gaussian(path).denoiser("flow"), Gaussian(path).marginal(normal(2000), 0.0)
    kept = []
    for strength in (0.2, 0.5, 1.0):
        left = from_strength(times, strength)
        found = sample(denoiser, noised_at(denoiser, images, left[0], seeded(1)), left, make_solver("heun"))
        assert float(found.var()) == pytest.approx(VARIANCE, rel=0.1)
        kept.append(float(torch.corrcoef(torch.stack([found[:, 0], images[:, 0]]))[0, 1]))
    assert kept[0] > 0.85 > kept[1] > 0.2 > abs(kept[2])


def test_inpainting_keeps_what_is_known_and_fills_in_what_belongs_there() -> None:
    """Two pixels that are always the same: the missing one comes out as the known one."""
    path, times = PATHS["straight"]

    def predict(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = path.factors(t, x)
        together = x.mean(1, keepdim=True).expand_as(x)
        image = alpha * together / (alpha**2 + sigma**2 / 2)  # the pixels' common value is standard normal
        return (x - image) / sigma.clamp(min=1e-9)  # (x - image) / t is the flow

    denoiser = type(Gaussian(path).denoiser("flow"))(predict, path, "flow")
    known = torch.cat([normal(400), torch.zeros(400, 1, dtype=torch.float64)], 1)
    constrain = keep_known(denoiser, known, torch.tensor([False, True]), seeded(1))
    found = sample(denoiser, normal(400, 2, seed=2), times, DDPM(), seeded(3), constrain=constrain)
    torch.testing.assert_close(found[:, 0], known[:, 0])
    assert float((found[:, 1] - known[:, 0]).abs().mean()) < 0.15
    free = sample(denoiser, normal(400, 2, seed=2), times, DDPM(), seeded(3))
    assert float((free[:, 1] - known[:, 0]).abs().mean()) > 0.5


# Likelihood


LIKELIHOOD_TIMES = {
    "linear": [max(1e-3, (i / 200) ** 2) for i in range(7, 201)],
    "exploding": edm_times(250)[-2::-1],
    "straight": even_times(100, 0.0, 1.0),
}


@pytest.mark.parametrize("name", LIKELIHOOD_TIMES)
def test_likelihood_of_a_gaussian_is_exact(name: str) -> None:
    """Where the path ends with a rest of the image, its mean is 0, since the noise that is left has none."""
    path, times = PATHS[name][0], LIKELIHOOD_TIMES[name]
    data = Gaussian(path, mean=MEAN if name == "straight" else 0.0)
    x = data.marginal(normal(5, 3), times[0])
    expected = torch.distributions.Normal(path.at(times[0])[0] * data.mean, data.std(times[0])).log_prob(x).sum(1)
    exact = log_likelihood(data.denoiser("velocity"), x, times, exact=True)
    torch.testing.assert_close(exact, expected, atol=4e-3, rtol=0)
    estimated = log_likelihood(data.denoiser("velocity"), x, times, seeded())
    torch.testing.assert_close(estimated, exact)  # the flow's Jacobian is diagonal: signs give its trace exactly


def test_hutchinsons_estimate_is_unbiased_where_pixels_depend_on_each_other() -> None:
    path, times = PATHS["straight"]
    mixing = torch.tensor([[1.0, 0.6], [-0.2, 0.7]], dtype=torch.float64)
    denoiser = type(Gaussian(path).denoiser("flow"))(lambda x, t: (x @ mixing).tanh(), path, "flow")
    x = normal(1, 2).expand(4000, 2)
    exact = log_likelihood(denoiser, x[:1], times[::-10], exact=True)
    many = log_likelihood(denoiser, x, times[::-10], seeded())
    assert float(many.std()) > 0.01
    assert float(many.mean()) == pytest.approx(float(exact), abs=4 * float(many.std()) / 4000**0.5)


def test_bits_of_uniform_pixels_are_eight() -> None:
    images = torch.randint(256, (2, 1, 4, 4), generator=seeded()) / 255
    scaled = dequantized(images, torch.rand(images.shape, generator=seeded()))
    assert bool((scaled >= -1).all() and (scaled < 1).all())
    assert torch.equal(((scaled + 1) * 128).floor(), (images * 255).round())
    density = torch.full((2,), 16 * torch.tensor(0.5).log().item())  # uniform on [-1, 1]
    torch.testing.assert_close(bits_per_dimension(density, 16), torch.full((2,), 8.0))


# Couplings


def test_coupled_noise_is_the_nearest_arrangement() -> None:
    images, noise = normal(5, 4).view(5, 1, 2, 2), normal(5, 4, seed=1).view(5, 1, 2, 2)
    found = nearest_noise(images, noise)

    def cost(order: tuple[int, ...]) -> float:
        return float((images - noise[list(order)]).square().sum())

    best = min(itertools.permutations(range(5)), key=cost)
    assert torch.equal(found, noise[list(best)])
    assert best != tuple(range(5))


def test_betas_and_paths_are_shared_by_devices_and_types() -> None:
    path = VariancePreserving(linear_betas(100))
    assert path.alpha(torch.ones(2)).dtype == torch.float32
    assert path.alpha(torch.ones(2).double()).dtype == torch.float64
