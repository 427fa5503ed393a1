"""Adversarial losses against their formulas, penalties against networks whose gradient is known, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo.functional.adversarial import (
    LOSSES,
    between,
    gradient_norms,
    one_centred_penalty,
    style_ambiguity,
    zero_centred_penalty,
)
from zoo.functional.differentiable_augmentation import KINDS, augmented

REAL = torch.tensor([[-2.0], [0.3], [1.7]], dtype=torch.float64)
MADE = torch.tensor([[0.4], [-1.1], [3.0]], dtype=torch.float64)


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.log(1 / (1 + np.exp(-x)))


def mean(f: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    return float(f(REAL.numpy(), MADE.numpy()).mean())


EXPECTED = {
    "non_saturating": (
        lambda real, made: -log_sigmoid(real) - np.log(1 - 1 / (1 + np.exp(-made))),
        lambda real, made: -log_sigmoid(made),
    ),
    "hinge": (lambda real, made: np.maximum(0, 1 - real) + np.maximum(0, 1 + made), lambda real, made: -made),
    "relativistic": (lambda real, made: -log_sigmoid(real - made), lambda real, made: -log_sigmoid(made - real)),
    "wasserstein": (lambda real, made: made - real, lambda real, made: -made),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_losses_are_their_formulas(name: str) -> None:
    discriminator, generator = (mean(f) for f in EXPECTED[name])
    assert float(LOSSES[name].discriminator(REAL, MADE)) == pytest.approx(discriminator, rel=1e-12)
    assert float(LOSSES[name].generator(MADE, REAL)) == pytest.approx(generator, rel=1e-12)
    if not LOSSES[name].paired:
        assert float(LOSSES[name].generator(MADE, None)) == pytest.approx(generator, rel=1e-12)


def linear(seed: int = 0) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(seed)
    return nn.Linear(12, 1).double(), torch.randn(5, 3, 2, 2, dtype=torch.float64).requires_grad_()


def test_penalties_of_a_linear_network() -> None:
    """Its gradient is its weight, at each image."""
    network, images = linear()
    norm = float(network.weight.norm())
    scores = network(images.flatten(1))
    torch.testing.assert_close(gradient_norms(scores, images), torch.full((5,), norm**2, dtype=torch.float64))
    assert float(zero_centred_penalty(scores, images)) == pytest.approx(norm**2 / 2)
    assert float(one_centred_penalty(scores, images)) == pytest.approx((norm - 1) ** 2)


@pytest.mark.parametrize(
    ("penalty", "derivative"),
    [
        (zero_centred_penalty, lambda w: w),
        (one_centred_penalty, lambda w: 2 * (w.norm() - 1) * w / w.norm()),
    ],
)
def test_penalties_have_a_gradient_for_the_weights(
    penalty: Callable[[Tensor, Tensor], Tensor], derivative: Callable[[Tensor], Tensor]
) -> None:
    network, images = linear()
    penalty(network(images.flatten(1)), images).backward()
    torch.testing.assert_close(network.weight.grad, derivative(network.weight.detach()))


def test_penalty_of_a_quadratic_network() -> None:
    """Of x·x/2 the gradient is x itself."""
    images = torch.randn(4, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    scores = images.square().flatten(1).sum(1, keepdim=True) / 2
    norms = images.detach().flatten(1).norm(dim=1)
    assert float(zero_centred_penalty(scores, images)) == pytest.approx(float(norms.square().mean() / 2))
    assert float(one_centred_penalty(scores, images)) == pytest.approx(float((norms - 1).square().mean()))


def test_a_gradient_of_zero_is_penalised_without_nan() -> None:
    weight = torch.zeros(4, requires_grad=True)
    images = torch.randn(2, 4, requires_grad=True)
    found = one_centred_penalty((images * weight).sum(1, keepdim=True), images)
    found.backward()
    assert float(found) == pytest.approx(1.0)
    assert torch.isfinite(weight.grad).all()


def test_images_between() -> None:
    found = between(torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2), torch.tensor([0.0, 0.25, 1.0]))
    assert found.flatten(1).unique(dim=1).flatten().tolist() == [0.0, 0.25, 1.0]


def test_style_ambiguity() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64)
    p = logits.softmax(1).numpy()
    expected = -(np.log(p) / 4 + 3 / 4 * np.log(1 - p)).sum(1).mean()
    assert float(style_ambiguity(logits)) == pytest.approx(expected, rel=1e-12)

    even = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    least = style_ambiguity(even)
    least.backward()
    assert float(least) == pytest.approx(-4 * (math.log(1 / 4) / 4 + 3 / 4 * math.log(3 / 4)))
    assert not even.grad.abs().max() > 1e-15
    assert float(style_ambiguity(logits)) > float(least)
    sure = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    style_ambiguity(sure).backward()
    assert torch.isfinite(sure.grad).all()


# Augmentation


def ramp(count: int = 400) -> Tensor:
    """No two pixels are the same, and none is 0."""
    return torch.arange(1.0, 1 + 2 * 16 * 24).view(1, 2, 16, 24).expand(count, -1, -1, -1) / 1000


def test_translation_moves_up_to_an_eighth_and_fills_with_zero() -> None:
    torch.manual_seed(0)
    images = ramp()
    moves = set()
    for image in augmented(images, ["translation"]):
        row, column = (image[0] != 0).nonzero()[0].tolist()
        place = (images[0, 0] == image[0, row, column]).nonzero()[0].tolist()
        down, right = row - place[0], column - place[1]
        moves.add((down, right))
        padded = nn.functional.pad(images[0], (3, 3, 2, 2))
        torch.testing.assert_close(image, padded[:, 2 - down : 18 - down, 3 - right : 27 - right])
    assert {d for d, _ in moves} == set(range(-2, 3))
    assert {r for _, r in moves} == set(range(-3, 4))


def test_cutout_cuts_half_of_each_side() -> None:
    torch.manual_seed(0)
    images = ramp()
    made = augmented(images, ["cutout"])
    gone = made == 0
    torch.testing.assert_close(made[~gone], images[~gone])
    assert torch.equal(gone[:, 0], gone[:, 1])
    heights, widths = gone[:, 0].any(2).sum(1), gone[:, 0].any(1).sum(1)
    assert torch.equal(gone[:, 0].sum((1, 2)), heights * widths)
    assert (int(heights.max()), int(widths.max())) == (8, 12)
    assert (int(heights.min()), int(widths.min())) == (4, 6), "a quarter is left where the centre is in a corner"
    assert gone[:, 0].any(0).all(), "anywhere"


def test_colour_is_of_the_ranges_of_the_paper() -> None:
    torch.manual_seed(0)
    images = torch.randn(2000, 3, 4, 4, dtype=torch.float64)
    made = augmented(images, ["colour"])
    shift = made.mean((1, 2, 3)) - images.mean((1, 2, 3))
    assert float(shift.min()) == pytest.approx(-0.5, abs=0.01)
    assert float(shift.max()) == pytest.approx(0.5, abs=0.01)

    def grey(x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)

    def contrast(x: Tensor) -> Tensor:
        return (grey(x) - grey(x).mean((2, 3), keepdim=True)).flatten(1).norm(dim=1)

    factor = contrast(made) / contrast(images)
    saturation = (made - grey(made)).flatten(1).norm(dim=1) / (images - grey(images)).flatten(1).norm(dim=1) / factor
    for values, ends in ((factor, (0.5, 1.5)), (saturation, (0.0, 2.0))):
        assert (float(values.min()), float(values.max())) == pytest.approx(ends, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_is_differentiable_and_of_each_image(kind: str) -> None:
    images = torch.randn(8, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    made = augmented(images, [kind])
    (gradient,) = torch.autograd.grad(made.square().sum(), images)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    changes = (made - images).detach().flatten(1).abs().sum(1)
    assert len(set(changes.tolist())) > 4, "not the same for all"
    torch.manual_seed(3)
    direction = torch.randn_like(images)
    torch.manual_seed(3)
    ahead = augmented(images + 1e-6 * direction, [kind])
    torch.testing.assert_close(
        float((ahead.square().sum() - made.square().sum()).detach() / 1e-6),
        float((gradient * direction).sum()),
        rtol=1e-3,
        atol=1e-2,
    )
