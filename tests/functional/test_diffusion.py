"""Paths, predictions, posteriors, weights and schedules against the papers' formulas, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.functional import diffusion_schedules as schedules
from zoo.functional.diffusion import (
    Denoiser,
    Estimate,
    Path,
    Prediction,
    StraightPath,
    VarianceExploding,
    VariancePreserving,
    forward_variance,
    guided,
    min_snr_weight,
    posterior,
    split,
    target,
)
from zoo.functional.edm import edm_losses, edm_weight, preconditioned, preconditioning

PATHS: list[Path] = [
    VariancePreserving(schedules.linear_betas()),
    VariancePreserving(schedules.cosine_betas()),
    VarianceExploding(),
    StraightPath(),
]
PREDICTIONS: tuple[Prediction, ...] = ("noise", "image", "velocity", "flow")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# DDPM


def test_linear_betas_are_the_papers() -> None:
    betas = schedules.linear_betas()
    np.testing.assert_allclose(betas.numpy(), np.linspace(1e-4, 0.02, 1000))
    halved = schedules.linear_betas(500)
    np.testing.assert_allclose(halved.numpy(), 2 * np.linspace(1e-4, 0.02, 500))
    with pytest.raises(UserError, match="more than 20 steps, not 20"):
        schedules.linear_betas(20)


def test_cosine_alpha_bar_is_the_papers_formula() -> None:
    path = VariancePreserving(schedules.cosine_betas(1000))
    t = np.arange(1, 990) / 1000  # before the bound of the betas counts
    f = np.cos((np.append(0, t) + 0.008) / 1.008 * np.pi / 2) ** 2
    found = path.alpha(torch.from_numpy(t)).square().numpy()
    np.testing.assert_allclose(found, f[1:] / f[0], rtol=1e-9)
    assert float(path.betas.max()) == 0.999


@pytest.mark.parametrize("betas", [schedules.linear_betas(), schedules.cosine_betas()])
def test_posterior_is_ddpms(betas: Tensor) -> None:
    """Equations 6 and 7 of Ho et al., with the alpha-bars as products."""
    beta = betas.numpy()
    alpha_bar = np.cumprod(1 - beta)
    before = np.append(1.0, alpha_bar[:-1])
    path = VariancePreserving(betas)
    for step in (1, 2, 500, 1000):
        found, i = posterior(path, step / 1000, (step - 1) / 1000), step - 1
        assert forward_variance(path, step / 1000, (step - 1) / 1000) == pytest.approx(beta[i], rel=1e-9)
        assert found.on_image == pytest.approx(before[i] ** 0.5 * beta[i] / (1 - alpha_bar[i]), rel=1e-9)
        on_x = (1 - beta[i]) ** 0.5 * (1 - before[i]) / (1 - alpha_bar[i])
        assert found.on_x == pytest.approx(on_x, rel=1e-9)
        assert found.std**2 == pytest.approx((1 - before[i]) / (1 - alpha_bar[i]) * beta[i], rel=1e-9)


@pytest.mark.parametrize("path", PATHS)
def test_posterior_is_bayes_rule(path: Path) -> None:
    """The joint of x_t and x_s, given the image, has the covariance of the forward process."""
    s, t = 0.7, 0.4
    (alpha_s, sigma_s), (alpha_t, sigma_t) = path.at(s), path.at(t)
    found = posterior(path, s, t)
    covariance = alpha_s / alpha_t * sigma_t**2
    assert found.on_x == pytest.approx(covariance / sigma_s**2)
    assert found.std**2 == pytest.approx(sigma_t**2 - covariance**2 / sigma_s**2)
    assert found.on_x * alpha_s + found.on_image == pytest.approx(alpha_t)


def test_a_path_in_float32_is_as_in_float64() -> None:
    path = PATHS[0]
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    for factor in (path.alpha, path.sigma):
        torch.testing.assert_close(factor(t.float()).double(), factor(t), rtol=2e-4, atol=0)
        assert factor(t.float()).dtype == torch.float32


# Predictions


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_right_prediction_gives_image_and_noise(path: Path, prediction: Prediction) -> None:
    image, noise, t = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4, seed=1), 0.37
    times = torch.full((3,), t, dtype=torch.float64)
    x = path.noised(image, noise, times)
    alpha, sigma = path.factors(times, x)
    found = Denoiser(lambda x, t: target(prediction, image, noise, alpha, sigma), path, prediction).estimate(x, t)
    torch.testing.assert_close(found, Estimate(image, noise))


def test_velocity_and_flow_are_derivatives() -> None:
    """Salimans and Ho: the derivative by the angle; rectified flow: by the time."""
    image, noise, h = drawn(5), drawn(5, seed=1), 1e-5

    def turned(angle: float) -> Tensor:
        return math.cos(angle) * image + math.sin(angle) * noise

    alpha, sigma = torch.tensor(math.cos(0.8)), torch.tensor(math.sin(0.8))
    found = target("velocity", image, noise, alpha.double(), sigma.double())
    torch.testing.assert_close(found, (turned(0.8 + h) - turned(0.8 - h)) / (2 * h), atol=1e-6, rtol=0)
    low, high = (StraightPath().noised(image, noise, torch.full((5,), t).double()) for t in (0.3, 0.4))
    torch.testing.assert_close(target("flow", image, noise, alpha, sigma), (high - low) / 0.1, atol=1e-6, rtol=0)


def test_predictions_that_say_nothing_are_refused() -> None:
    x = drawn(2, 3)
    with pytest.raises(UserError, match="noise can't be used"):
        split("noise", x, x, 0.0, 1.0)
    with pytest.raises(UserError, match="image can't be used"):
        split("image", x, x, 1.0, 0.0)


def test_clipping_bounds_the_image_and_keeps_the_sum() -> None:
    path, x = PATHS[0], 3 * drawn(4, 6)
    denoiser = Denoiser(lambda x, t: 0.1 * x, path, "noise", clip=True)
    found = denoiser.estimate(x, 0.5)
    alpha, sigma = path.at(0.5)
    assert float(found.image.abs().max()) == 1
    torch.testing.assert_close(alpha * found.image + sigma * found.noise, x)


# Guidance


def test_guidance_extrapolates_within_its_interval() -> None:
    seen: list[int] = []

    def predict(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        seen.append(len(x))
        return x * (1 + labels[:, None])

    x, labels = drawn(3, 2), torch.tensor([0, 1, 2])
    with_class, without = predict(x, x[:, 0], labels), predict(x, x[:, 0], torch.full((3,), 9))
    seen.clear()
    combined = guided(predict, labels, no_class=9, guidance=2.5, interval=(0.2, 0.6))
    for t in (0.2, 0.4, 0.6):
        found = combined(x, torch.full((3,), t, dtype=torch.float64))
        torch.testing.assert_close(found, without + 2.5 * (with_class - without))
    for t in (0.1, 0.7):
        assert torch.equal(combined(x, torch.full((3,), t)), with_class)
    assert torch.equal(guided(predict, labels, no_class=9)(x, torch.ones(3)), with_class)
    assert seen == [6, 6, 6, 3, 3, 3]


# Weights


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_min_snr_weighs_the_images_error_alike_for_all_predictions(path: Path, prediction: Prediction) -> None:
    t = torch.tensor([0.05, 0.2, 0.5, 0.8], dtype=torch.float64)
    image, noise, wrong = drawn(4, 3), drawn(4, 3, seed=1), drawn(4, 3, seed=2)
    x = path.noised(image, noise, t)
    alpha, sigma = path.factors(t, x)
    right = target(prediction, image, noise, alpha, sigma)
    other = target(prediction, wrong, (x - alpha * wrong) / sigma, alpha, sigma)
    weighted = min_snr_weight(prediction, path, t) * (right - other).square().mean(1)
    snr = (alpha / sigma).square()[:, 0]
    torch.testing.assert_close(weighted, snr.clamp(max=5) * (image - wrong).square().mean(1))


def test_min_snr_of_pure_noise_is_finite() -> None:
    assert min_snr_weight("noise", StraightPath(), torch.ones(1)).tolist() == [1.0]


# Karras et al.


def test_edm_input_and_target_have_unit_variance() -> None:
    """The two conditions of the paper's appendix B.6, and the least c_out."""
    std = 0.5
    sigma = torch.logspace(-3, 2, 20, dtype=torch.float64)
    c_skip, c_out, c_in, c_noise = preconditioning(sigma, std)
    torch.testing.assert_close(c_in**2 * (sigma**2 + std**2), torch.ones_like(sigma))
    variance = ((1 - c_skip) * std) ** 2 + (c_skip * sigma) ** 2
    torch.testing.assert_close(c_out**2, variance)
    torch.testing.assert_close(edm_weight(sigma, std) * c_out**2, torch.ones_like(sigma))
    for shift in (-1e-3, 1e-3):
        assert bool((((1 - c_skip - shift) * std) ** 2 + ((c_skip + shift) * sigma) ** 2 > variance).all())
    torch.testing.assert_close(c_noise, sigma.log() / 4)


def test_edm_loss_is_that_of_the_network() -> None:
    images, noise, sigma = drawn(3, 1, 2, 2), drawn(3, 1, 2, 2, seed=1), torch.tensor([0.01, 1.0, 50.0]).double()
    output, seen = drawn(3, 1, 2, 2, seed=2), []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return output

    x = VarianceExploding().noised(images, noise, sigma)
    losses = edm_losses(preconditioned(network, 0.5)(x, sigma), images, sigma, 0.5)
    c_skip, c_out, c_in, c_noise = (f.view(3, 1, 1, 1) for f in preconditioning(sigma, 0.5))
    wanted = (images - c_skip * x) / c_out
    torch.testing.assert_close(losses, (output - wanted).square().mean((1, 2, 3)))
    torch.testing.assert_close(seen[0], (c_in * x, c_noise.flatten()))


# Times


def test_edm_times_are_the_papers_formula() -> None:
    found = schedules.edm_times(18)
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    expected = [(high + i / 17 * (low - high)) ** 7 for i in range(18)]
    np.testing.assert_allclose(found, [*expected, 0.0])
    with pytest.raises(UserError, match="at least 2 steps, not 1"):
        schedules.edm_times(1)


def test_step_times_are_steps_of_training() -> None:
    assert schedules.step_times(4, 1000) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert schedules.step_times(1000, 1000) == [i / 1000 for i in range(1000, -1, -1)]
    odd = schedules.step_times(7, 10)
    assert len(set(odd)) == 8
    assert all(10 * t == round(10 * t) for t in odd)
    with pytest.raises(UserError, match="1 to 10 steps, not 11"):
        schedules.step_times(11, 10)


def test_strength_keeps_the_end() -> None:
    times = schedules.even_times(10)
    assert schedules.from_strength(times, 1.0) == times
    assert schedules.from_strength(times, 0.3) == times[-4:]
    assert schedules.from_strength(times, 0.01) == times[-2:]
    with pytest.raises(UserError, match="strength is above 0 and at most 1, not"):
        schedules.from_strength(times, 1.5)


def test_training_times_have_their_distributions() -> None:
    generator, count = torch.Generator().manual_seed(0), 100_000
    steps = 4 * schedules.training_steps(count, 4, generator)
    np.testing.assert_allclose(torch.bincount(steps.long()).numpy() / count, [0, 0.25, 0.25, 0.25, 0.25], atol=0.01)
    logs = schedules.log_normal_times(count, generator).log()
    assert (float(logs.mean()), float(logs.std())) == (pytest.approx(-1.2, abs=0.02), pytest.approx(1.2, abs=0.02))
    logits = schedules.logit_normal_times(count, generator, 0.5, 0.8).logit()
    assert (float(logits.mean()), float(logits.std())) == (pytest.approx(0.5, abs=0.02), pytest.approx(0.8, abs=0.02))
    even = schedules.uniform_times(count, generator)
    assert (float(even.mean()), float(even.var())) == (pytest.approx(0.5, abs=0.01), pytest.approx(1 / 12, abs=0.01))
