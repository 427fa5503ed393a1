"""A VAE whose networks are linear and know the posterior, so that its bound is the evidence; and its pictures."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from zoo.architectures.base import Architecture
from zoo.architectures.conv_vae import ConvDecoder, ConvEncoder
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.functional.diffusion_likelihood import dequantized
from zoo.tasks.given_pictures import seed_of
from zoo.tasks.vae import PAIRS, VAE, WAY

FACTS = Facts(num_classes=3, class_names=["a", "b", "c"], in_channels=1, image_size=[2, 2])
LATENT, SEEN, STD = 2, 4, 0.3
WEIGHTS = torch.tensor([[0.3, 0.2], [0.3, -0.2], [0.3, 0.2], [0.3, -0.2]])  # orthogonal columns
MEANS = torch.tensor([-0.4, 0.0, 0.4, 0.1])  # of the classes; the last is of no class


def mean_of(labels: Tensor | None, count: int) -> Tensor:
    return MEANS[torch.full((count,), 3) if labels is None else labels][:, None]


class Posterior(Architecture):
    """The true one. Shape: images, labels -> mean, log-variance."""

    roles = ("encoder",)

    def __init__(self, num_classes: int = 0, shift: float = 0.0, latent: int = LATENT) -> None:
        super().__init__()
        self.shift, self.latent_shape = nn.Parameter(torch.tensor(shift)), (latent,)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        gap = images.flatten(1) - mean_of(labels, len(images))
        precision = 1 + WEIGHTS.square().sum(0) / STD**2
        return gap @ WEIGHTS / STD**2 / precision + self.shift, (-precision.log()).expand(len(images), -1)


class Linear(Architecture):
    """Mean and log-scale. Shape: z, labels -> (B, 2, 2, 2)."""

    roles = ("decoder",)
    latent_shape = (LATENT,)

    def __init__(self, num_classes: int = 0, in_channels: int = 2) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        mean = z @ WEIGHTS.T + mean_of(labels, len(z)) + self.shift
        return torch.cat([mean, torch.full_like(mean, math.log(STD))], 1).view(-1, 2, 2, 2)


def built(**options: Any) -> VAE:
    known = {"likelihood": "gaussian", "conditional": True, "drop_label": 0.5, "facts": FACTS}
    task = VAE(**{"encoder": Posterior, "decoder": Linear, **known, **options})
    task.configure_model()
    task.trainer = None  # type: ignore[assignment]
    return task.eval()


def images(count: int = 6, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 1, 2, 2), generator=random) / 255


def logged(task: VAE, stage: str, batch: Any) -> dict[str, float]:
    task.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        (task.validation_step if stage == "val" else task.test_step)(batch, 0)
    return {name: float(metric.compute()) for name, metric in task.metrics[stage].items()}  # type: ignore[operator]


def evidence(given: Tensor, labels: Tensor) -> Tensor:
    """Bits per dimension (B,) of the images with the noise that evaluation adds to them."""
    random = [torch.Generator().manual_seed(seed_of(image)) for image in given]
    uniform = torch.stack([torch.rand(1, 2, 2, generator=one) for one in random])
    observed = dequantized(given, uniform).flatten(1).double()
    covariance = WEIGHTS.double() @ WEIGHTS.double().T + STD**2 * torch.eye(SEEN, dtype=torch.float64)
    centred = observed - MEANS[labels][:, None].double()
    density = MultivariateNormal(torch.zeros(SEEN, dtype=torch.float64), covariance).log_prob(centred)
    return 7 - density / math.log(2) / SEEN


def test_the_bound_at_test_is_the_evidence() -> None:
    given, labels = images(), torch.arange(6) % 3
    expected = float(evidence(given, labels).mean())
    found = logged(built(importance_samples=3), "test", (given, labels))
    assert found["bits_per_dimension"] == pytest.approx(expected, abs=1e-5)
    worse = partial(Posterior, shift=1.0)
    found = logged(built(encoder=worse, importance_samples=3), "test", (given, labels))
    assert found["bits_per_dimension"] > expected + 0.1


def test_the_loss_has_a_weight_on_the_divergence() -> None:
    batch = images(), torch.arange(6) % 3
    one, four = (logged(built(beta=beta), "val", batch) for beta in (1.0, 4.0))
    assert one["loss"] == pytest.approx(one["bits_per_dimension"])
    assert four["bits_per_dimension"] == pytest.approx(one["bits_per_dimension"])
    assert four["loss"] - one["loss"] == pytest.approx(3 * one["divergence"], rel=1e-5)


def test_training_descends_the_bound_in_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many images the mean is that of evaluation, but for the labels that are dropped."""
    monkeypatch.setattr(VAE, "logs_now", False)
    given, labels = images(3).repeat(2000, 1, 1, 1), torch.arange(3).repeat(2000)
    torch.manual_seed(0)
    found = float(built(drop_label=0.0).training_step((given, labels), 0))
    with torch.no_grad():
        observed = VAE(Posterior, Linear).likelihood.observed(given, torch.rand_like(given))
        likelihood, divergence = built().terms(observed, labels, torch.randn(6000, LATENT))
    dropped = float(built(drop_label=0.9).training_step((given, labels), 0))
    assert found == pytest.approx(float((divergence - likelihood).mean()) / SEEN / math.log(2), abs=0.1)
    assert abs(dropped - found) > 0.1


def test_metrics_are_functions_of_the_images() -> None:
    given, labels, order = images(), torch.arange(6) % 3, torch.tensor([3, 0, 5])
    whole = built(importance_samples=2)
    expected = [logged(built(importance_samples=2), "test", (given[i : i + 1], labels[i : i + 1])) for i in order]
    found = logged(whole, "test", (given[order], labels[order]))
    for name, value in found.items():
        assert value == pytest.approx(sum(one[name] for one in expected) / 3, rel=1e-5)


def test_samples_are_from_the_prior_by_class() -> None:
    task = built()
    made = task.scaled(task.sample(torch.arange(3000)))
    for label in range(3):
        own = made[label::3].flatten(1)
        torch.testing.assert_close(own.mean(0), MEANS[label].expand(4), atol=0.05, rtol=0)
    middle = made[1::3].flatten(1)
    torch.testing.assert_close(middle.T.cov(), WEIGHTS @ WEIGHTS.T, atol=0.03, rtol=0)
    torch.testing.assert_close(task.sample(torch.tensor([4]))[0], task.sample(torch.arange(6))[4])


def test_given_pictures_are_reconstructed() -> None:
    task, given = built(), torch.full((2, 1, 2, 2), 0.55) + torch.tensor([0.1, 0, 0.1, 0]).view(1, 2, 2)
    results = task.predict_step((given, ["x", "y"]), 0)
    again = torch.stack([result.image for result in results])
    shrunk = WEIGHTS.square().sum(0) / STD**2
    shrunk = shrunk / (1 + shrunk)
    gap = task.scaled(given).flatten(1) - MEANS[3]
    projected = (gap @ WEIGHTS / WEIGHTS.square().sum(0) * shrunk) @ WEIGHTS.T + MEANS[3]
    torch.testing.assert_close(again, task.unscaled(projected.view(2, 1, 2, 2)))
    way = task.between(given[:1], images(1), 5)
    torch.testing.assert_close(way[:, 0], again[:1])
    steps = way[0, 1:] - way[0, :-1]
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))


def test_pictures_of_an_evaluation() -> None:
    task = built()
    assert task.pictures() == {}
    task.show((images(12), torch.arange(12) % 3), 0)
    sizes = {name: picture.size for name, (picture,) in task.pictures().items()}
    side = (sizes["reconstructions"][1] - 2) // 2
    assert sizes["reconstructions"] == (PAIRS * side + 2, 2 * side + 2)
    assert sizes["interpolations"] == (WAY * side + 2, PAIRS * side + 2)
    assert "samples" in sizes
    task.show((images(1), torch.tensor([1])), 0)
    assert set(task.pictures()) == {"samples", "reconstructions"}


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "logistic"])
@pytest.mark.parametrize("size", [[8, 8], [7, 10]])
def test_the_networks_fit_every_likelihood_and_size(likelihood: str, size: list[int]) -> None:
    small = {"latent": 3, "width": 4}
    facts = Facts(num_classes=3, in_channels=2, image_size=size)
    task = VAE(partial(ConvEncoder, **small), partial(ConvDecoder, **small), likelihood=likelihood, facts=facts)  # type: ignore[arg-type]
    task.configure_model()
    given = torch.rand(3, 2, *size)
    assert task.reconstructed(given).shape == given.shape
    likelihoods, _ = task.terms(task.likelihood.observed(given, torch.rand_like(given)), None, torch.randn(3, 3))
    assert bool(torch.isfinite(likelihoods).all())


def test_mistakes_end_in_one_line() -> None:
    for options, said in (
        ({"beta": -1.0}, "beta must be at least 0"),
        ({"importance_samples": 0}, "importance_samples at least 1"),
        ({"drop_label": 1.0}, "drop_label at least 0 and below 1"),
        ({"likelihood": "laplace"}, "likelihood is one of gaussian, bernoulli, logistic, not laplace"),
        ({"encoder": partial(Posterior, latent=3)}, "encoder has a latent of 3, model.decoder one of 2"),
    ):
        with pytest.raises(UserError, match=said):
            built(**options)
    with pytest.raises(UserError, match="latent must be at least 1"):
        ConvEncoder(latent=0)
    with pytest.raises(UserError, match="without classes"):
        ConvDecoder(latent=2, width=4)(torch.zeros(1, 2), torch.tensor([0]))
