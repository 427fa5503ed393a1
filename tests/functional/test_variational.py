"""The bounds against a linear Gaussian model, whose evidence is known; likelihoods against torch's and sums."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from zoo.functional.variational import (
    LIKELIHOODS,
    Bernoulli,
    DiscretizedLogistic,
    Gaussian,
    bits_per_dimension,
    gaussian_kl,
    gaussian_log_prob,
    importance_bound,
    reparametrized,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# A linear Gaussian model: z ~ N(0, 1), x | z ~ N(W z + b, s²), with orthogonal columns of W

LATENT, SEEN, STD = 3, 5, 0.7
WEIGHTS = torch.linalg.qr(random(SEEN, LATENT, seed=1))[0] * torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
OFFSET = random(SEEN, seed=2)


def given_latent(x: Tensor, z: Tensor) -> Tensor:
    """Logarithm of p(x | z), (B,)."""
    return Normal(z @ WEIGHTS.T + OFFSET, STD).log_prob(x).sum(1)


def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and logarithm of the variance; of independent entries, as the columns are orthogonal."""
    precision = 1 + WEIGHTS.square().sum(0) / STD**2
    return (x - OFFSET) @ WEIGHTS / STD**2 / precision, (-precision.log()).expand(len(x), -1)


def evidence(x: Tensor) -> Tensor:
    return MultivariateNormal(OFFSET, WEIGHTS @ WEIGHTS.T + STD**2 * torch.eye(SEEN, dtype=torch.float64)).log_prob(x)


def bound(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Its expectation is exact: a quadratic function has the mean of its values at 2 · LATENT points."""
    points = LATENT**0.5 * torch.cat([torch.eye(LATENT), -torch.eye(LATENT)]).double()
    at = [given_latent(x, reparametrized(mean, log_variance, point.expand_as(mean))) for point in points]
    return torch.stack(at).mean(0) - gaussian_kl(mean, log_variance)


def test_the_bound_is_the_evidence_at_the_true_posterior() -> None:
    x = random(6, SEEN)
    torch.testing.assert_close(bound(x, *posterior(x)), evidence(x), rtol=1e-12, atol=0)


def test_elsewhere_the_bound_lacks_the_divergence_from_the_posterior() -> None:
    x = random(6, SEEN)
    (mean, log_variance), shift = posterior(x), random(6, LATENT, seed=3)
    other, wider = mean + shift, log_variance + 0.3
    gap = kl_divergence(Normal(other, (wider / 2).exp()), Normal(mean, (log_variance / 2).exp())).sum(1)
    torch.testing.assert_close(bound(x, other, wider), evidence(x) - gap, rtol=1e-12, atol=0)


def importance(x: Tensor, mean: Tensor, log_variance: Tensor, count: int, seed: int) -> Tensor:
    weights = []
    for noise in random(count, len(x), LATENT, seed=seed):
        z = reparametrized(mean, log_variance, noise)
        prior = gaussian_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))
        weights.append(given_latent(x, z) + prior - gaussian_log_prob(z, mean, log_variance))
    return importance_bound(torch.stack(weights))


def test_importance_weights_of_the_true_posterior_are_the_evidence() -> None:
    x = random(6, SEEN)
    torch.testing.assert_close(importance(x, *posterior(x), 3, 5), evidence(x), rtol=1e-12, atol=0)


def test_more_importance_samples_come_nearer() -> None:
    x = random(500, SEEN)
    mean, log_variance = posterior(x)
    gaps = [float((evidence(x) - importance(x, mean + 0.3, log_variance, k, 6)).mean()) for k in (1, 10, 300)]
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0


def test_divergence_is_torchs() -> None:
    mean, log_variance = random(4, 3), random(4, 3, seed=1)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)
    density = Normal(mean, (log_variance / 2).exp()).log_prob(random(4, 3, seed=2)).sum(1)
    torch.testing.assert_close(gaussian_log_prob(random(4, 3, seed=2), mean, log_variance), density)


# Likelihoods

EVERY = torch.arange(256, dtype=torch.float64) / 255


@pytest.mark.parametrize("location", [-3.0, -1.0, -0.2, 0.0, 0.999, 1.4])
@pytest.mark.parametrize("log_scale", [-9.0, -6.0, -3.0, 0.0, 3.0])
def test_the_discretized_logistic_sums_to_one(location: float, log_scale: float) -> None:
    parameters = torch.tensor([location, log_scale], dtype=torch.float64).expand(256, 2)
    observed = DiscretizedLogistic().observed(EVERY[:, None], torch.zeros(256, 1))
    total = DiscretizedLogistic().log_prob(parameters, observed).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-12)


def test_the_discretized_logistic_is_a_difference_of_sigmoids() -> None:
    location, log_scale, observed = random(7, 1), random(7, 1, seed=1) - 2, 2 * EVERY[20:237:31][:, None] - 1
    ends = [((observed + side / 255 - location) / log_scale.exp()).sigmoid() for side in (1, -1)]
    found = DiscretizedLogistic().log_prob(torch.cat([location, log_scale], 1), observed)
    torch.testing.assert_close(found, (ends[0] - ends[1]).log()[:, 0])


def test_the_discretized_logistic_has_gradients_far_away() -> None:
    parameters = torch.tensor([[50.0, -6.0], [-50.0, -6.0]], requires_grad=True)
    found = DiscretizedLogistic().log_prob(parameters, torch.tensor([[-1.0], [1.0]]))
    found.sum().backward()
    assert bool(torch.isfinite(found).all())
    assert parameters.grad is not None
    assert parameters.grad[0, 0] < 0 < parameters.grad[1, 0]


def test_the_gaussian_is_a_density_times_a_step() -> None:
    """Over noise within the steps, the mean of the logarithm is at most that of the mean: a bound on the step's."""
    mean, log_scale = torch.tensor(0.1, dtype=torch.float64), torch.tensor(-4.0, dtype=torch.float64)
    parameters, normal = torch.stack([mean, log_scale]).expand(1000, 2), Normal(mean, log_scale.exp())
    uniform = (torch.arange(1000, dtype=torch.float64)[:, None] + 0.5) / 1000
    for value in (138, 140, 142):
        images = torch.full((1000, 1), value / 255, dtype=torch.float64)
        observed = Gaussian().observed(images, uniform)
        logs = Gaussian().log_prob(parameters, observed)
        low, high = normal.cdf(torch.tensor([value, value + 1], dtype=torch.float64) / 128 - 1)
        assert float(logs.exp().mean()) == pytest.approx(float(high - low), rel=1e-5)
        assert float(logs.mean()) < math.log(float(high - low))


def test_bernoulli_is_of_binary_images_that_grey_ones_are_probabilities_of() -> None:
    images, uniform = torch.tensor([[0.0, 0.3, 1.0]]).double(), torch.rand(4000, 3, dtype=torch.float64)
    observed = Bernoulli().observed(images.expand(4000, 3), uniform)
    assert set(observed.unique().tolist()) == {-1, 1}
    binary = (observed + 1) / 2
    torch.testing.assert_close(binary.mean(0), images[0], atol=0.03, rtol=0)
    logits = random(4000, 3)
    expected = TorchBernoulli(logits=logits).log_prob(binary).sum(1)
    torch.testing.assert_close(Bernoulli().log_prob(logits, observed), expected)
    torch.testing.assert_close(Bernoulli().mean(logits), 2 * logits.sigmoid() - 1)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_images_have_as_many_channels_as_there_are(name: str) -> None:
    likelihood = LIKELIHOODS[name]()  # type: ignore[index]
    parameters, images = random(2, 3 * likelihood.parameters, 4, 5), torch.rand(2, 3, 4, 5).double()
    assert likelihood.mean(parameters).shape == images.shape
    observed = likelihood.observed(images, torch.rand_like(images))
    found = likelihood.log_prob(parameters, observed)
    alone = likelihood.log_prob(parameters[1:], observed[1:])
    assert found.shape == (2,)
    torch.testing.assert_close(found[1:], alone)


def test_bits() -> None:
    """One of 256 equally probable values in each place has eight bits."""
    assert float(bits_per_dimension(torch.tensor(12 * math.log(1 / 256)), 12)) == pytest.approx(8)
