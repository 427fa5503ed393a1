"""Diffusion, EDM and flow matching with a network that knows the answer: each class is a Gaussian."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from known_denoiser import FACTS, KINDS, VARIANCE, Known
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import UserError
from zoo.facts import Facts
from zoo.functional.diffusion_schedules import cosine_betas, linear_betas
from zoo.functional.edm import edm_losses, preconditioning
from zoo.tasks.denoising import Denoising
from zoo.tasks.diffusion import Diffusion
from zoo.tasks.edm import EDM
from zoo.tasks.flow_matching import FlowMatching


def built(kind: str, **options: Any) -> Denoising:
    cls: Any = {"diffusion": Diffusion, "edm": EDM, "flow": FlowMatching}[kind]
    task = cls(partial(Known, kind=kind), facts=FACTS, **{"conditional": True, "drop_label": 0.5, **options})
    task.configure_model()
    return task.eval()


def images(count: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


class Stepping(Known):
    """Shape: as it has."""

    def __init__(self, kind: str, timestep: list[float], num_classes: int = 3, in_channels: int = 1) -> None:
        super().__init__(num_classes, in_channels, kind)
        self.timestep = timestep


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [("diffusion", {"trained_steps": 50}, [50, -1]), ("flow", {}, [1000, 0]), ("edm", {}, [1, 0])],
)
def test_networks_that_count_steps_are_told_how(kind: str, options: dict[str, Any], expected: list[float]) -> None:
    cls: Any = {"diffusion": Diffusion, "edm": EDM, "flow": FlowMatching}[kind]
    task = cls(partial(Stepping, kind=kind), facts=FACTS, **options)
    task.configure_model()
    assert task.denoiser.timestep == expected


# Losses


def check_losses(task: Denoising, t: Tensor, expected: Any) -> None:
    """The loss for images of one class and random noise, with the prediction that the network gives."""
    scaled, noise = task.scaled(images()), torch.randn(6, 1, 4, 4)
    labels = torch.arange(6) % 3
    with torch.no_grad():
        found = task.losses(scaled, noise, t, labels)
        torch.testing.assert_close(found, expected(scaled, noise, labels), rtol=1e-4, atol=1e-6)


def test_loss_of_a_flow() -> None:
    task, t = built("flow"), torch.linspace(0.1, 0.9, 6)

    def expected(scaled: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        at = t[:, None, None, None]
        velocity = task.denoiser((1 - at) * scaled + at * noise, t, labels)
        return (velocity - (noise - scaled)).square().mean((1, 2, 3))

    check_losses(task, t, expected)


@pytest.mark.parametrize("weighting", ["simple", "min_snr"])
def test_loss_of_diffusion(weighting: str) -> None:
    """Of the velocity, min-SNR's weight is min(SNR, 5) / (SNR + 1)."""
    task, steps = built("diffusion", weighting=weighting), torch.tensor([1, 100, 300, 500, 800, 1000])

    def expected(scaled: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        alpha_bar = (1 - cosine_betas()).cumprod(0)[steps - 1].float()[:, None, None, None]
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        velocity = task.denoiser(alpha * scaled + sigma * noise, steps / 1000, labels)
        errors = (velocity - (alpha * noise - sigma * scaled)).square().mean((1, 2, 3))
        snr = (alpha_bar / (1 - alpha_bar)).flatten()
        return errors * (snr.clamp(max=5) / (snr + 1) if weighting == "min_snr" else 1)

    check_losses(task, steps / 1000, expected)


def test_loss_of_edm() -> None:
    task, sigma = built("edm"), torch.tensor([0.01, 0.1, 0.5, 1.0, 10.0, 50.0])

    def expected(scaled: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        x = scaled + sigma[:, None, None, None] * noise
        c_skip, c_out, c_in, c_noise = (f.view(-1, 1, 1, 1) for f in preconditioning(sigma, 0.5))
        denoised = c_skip * x + c_out * task.denoiser(c_in * x, c_noise.flatten(), labels)
        return edm_losses(denoised, scaled, sigma, 0.5)

    check_losses(task, sigma, expected)


def test_schedules_are_chosen() -> None:
    task = Diffusion(Known, schedule="linear", trained_steps=500)
    torch.testing.assert_close(task.path.betas, linear_betas(500))


def test_labels_are_dropped_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    task = built("flow", drop_label=0.25).train()
    monkeypatch.setattr(FlowMatching, "logs_now", False)
    labels = torch.zeros(4000, dtype=torch.int64)
    torch.manual_seed(0)
    task.training_step((torch.rand(4000, 1, 4, 4), labels), 0)
    given = task.denoiser.seen[-1][2]
    assert set(given.tolist()) == {0, 3}
    assert float((given == 3).float().mean()) == pytest.approx(0.25, abs=0.03)
    task._evaluated((images(), labels[:6]))
    assert task.denoiser.seen[-1][2].tolist() == [0] * 6


@pytest.mark.parametrize("kind", KINDS)
def test_the_evaluated_loss_is_a_function_of_the_image(kind: str) -> None:
    task, given, labels = built(kind), images(), torch.arange(6) % 3
    order = torch.tensor([3, 0, 5])
    with torch.no_grad():
        together, apart = task._evaluated((given, labels)), task._evaluated((given[order], labels[order]))
    torch.testing.assert_close(apart, together[order])
    assert len(set(task.denoiser.seen[0][1].tolist())) > 3  # at different times


def test_coupling_gives_images_the_nearest_noise() -> None:
    scaled, noise = built("flow").scaled(images()), torch.randn(6, 1, 4, 4)
    assert torch.equal(built("flow").coupled(scaled, noise), noise)
    coupled = built("flow", couple=True).coupled(scaled, noise)
    assert float((scaled - coupled).square().sum()) < float((scaled - noise).square().sum())


# Samples


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_of_the_class_that_was_asked_for(kind: str) -> None:
    """Images near (mean + 1) / 2, with the Gaussian's standard deviation."""
    task = built(kind, steps=60)
    made = task.sample(torch.arange(300))
    for label, mean in enumerate((0.25, 0.5, 0.75)):
        own = made[label::3]
        assert float(own.mean()) == pytest.approx(mean, abs=0.01)
        assert float(own.std()) == pytest.approx(VARIANCE**0.5 / 2, rel=0.2)
    asked = task.sample(torch.arange(3), torch.tensor([2, 2, 0]))
    torch.testing.assert_close(asked.mean((1, 2, 3)), torch.tensor([0.75, 0.75, 0.25]), atol=0.05, rtol=0)


@pytest.mark.parametrize(("kind", "solver"), [("diffusion", "ddpm"), ("edm", "heun"), ("flow", "euler")])
def test_a_sample_is_a_function_of_seed_and_number(kind: str, solver: str) -> None:
    task = built(kind, solver=solver, steps=10)
    torch.manual_seed(1)
    together = task.sample(torch.tensor([4, 9, 2]), seed=5)
    torch.manual_seed(2)
    torch.testing.assert_close(task.sample(torch.tensor([9]), seed=5, labels=torch.tensor([0])), together[1:2])
    assert float((task.sample(torch.tensor([4, 9, 2]), seed=6) - together).abs().max()) > 0.01


def test_guidance_moves_samples_away_from_the_mean_of_all() -> None:
    """Guided by 2, the mean of a class at 0.5, where all have 0, becomes 1."""
    plain, strong = (built("flow", guidance=g).sample(torch.tensor([2, 5])) for g in (1.0, 2.0))
    assert float(plain.mean()) == pytest.approx(0.75, abs=0.03)
    assert float(strong.mean()) == pytest.approx(1.0, abs=0.03)
    late = built("flow", guidance=2.0, guidance_interval=[0.9, 1.0]).sample(torch.tensor([2, 5]))
    assert float(late.mean()) < 0.9


def test_requests_and_pictures_are_predicted() -> None:
    task = built("flow")
    requests = torch.tensor([[7, 0, 2], [7, 4, -1], [8, 0, 2]])
    results = task.predict_step((requests, ["one", "two", "three"]), 0)
    assert task.as_json(results) == [
        {"name": "one", "class": "c"},
        {"name": "two", "class": "b"},
        {"name": "three", "class": "c"},
    ]
    torch.testing.assert_close(results[1].image, task.sample(torch.tensor([4]), seed=7)[0])
    assert float((results[0].image - results[2].image).abs().max()) > 0.01
    given = images(2)
    results = task.predict_step((given, ["x", "y"]), 0)
    assert [picture.size for picture in task.draw(given, results)] == [(4, 4)] * 2
    torch.testing.assert_close(results[0].image, task.varied(given, 0.5)[0])


def test_the_grid_has_a_column_for_each_class() -> None:
    task = built("flow", steps=2)
    assert task.pictures() == {}
    task.show(None, 0)
    (grid,) = task.pictures()["samples"]
    assert task._grid is not None
    assert len(task._grid) == 39
    assert grid.width < grid.height / 3
    first = task._grid.clone()
    task.show(None, 1)
    task.show(None, 0)
    assert torch.equal(task._grid, first)


def test_interpolation_goes_from_sample_to_sample() -> None:
    task = built("flow")
    way = task.interpolated(1, 7, 5)
    torch.testing.assert_close(way[0], task.sample(torch.tensor([1]))[0])
    torch.testing.assert_close(way[-1], task.sample(torch.tensor([7]))[0])
    steps = (way[1:] - way[:-1]).abs().mean((1, 2, 3))
    assert float(steps.max()) < 2 * float(steps.min())


# Given images


@pytest.mark.parametrize("kind", KINDS)
def test_inverted_images_come_back(kind: str) -> None:
    task = built(kind, solver="heun" if kind != "diffusion" else "ddim", steps=100, **_unclipped(kind))
    labels = torch.arange(6) % 3
    given = task.sample(torch.arange(6))
    noise = task.inverted(given, labels)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.15)
    again = task.unscaled(task.generate(noise, labels, []))
    torch.testing.assert_close(again, given, atol=0.02, rtol=0)


def _unclipped(kind: str) -> dict[str, Any]:
    return {"clip": False} if kind == "diffusion" else {}


@pytest.mark.parametrize("kind", KINDS)
def test_missing_parts_are_filled_in(kind: str) -> None:
    task, given = built(kind, steps=30), torch.full((4, 1, 4, 4), 0.75)
    mask = torch.zeros(4, 4)
    mask[:2] = 1
    given[:, :, :2] = 0.0
    found = task.inpainted(given, mask, torch.full((4,), 2))
    torch.testing.assert_close(found[:, :, 2:], given[:, :, 2:])
    assert float(found[:, :, :2].mean()) == pytest.approx(0.75, abs=0.03)


def test_variations_keep_more_at_lower_strength() -> None:
    task, given = built("flow", steps=20), images(8)
    changes = [float((task.varied(given, strength) - given).abs().mean()) for strength in (0.05, 0.4, 1.0)]
    assert changes == sorted(changes)
    assert changes[0] < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_bits_per_dimension_of_a_gaussian(kind: str) -> None:
    """Against the density itself, of the same images with the same offsets within their pixels' steps."""
    task = built(kind, likelihood_steps=150)
    labels = torch.arange(6) % 3
    given = (task.sample(torch.arange(6)) * 255).round() / 255
    with torch.inference_mode():
        found = task.bits(given, labels)
    means = torch.tensor([-0.5, 0.0, 0.5])[labels][:, None, None, None]
    centre = 2 * (255 * given + 0.5) / 256 - 1
    density = torch.distributions.Normal(means, VARIANCE**0.5).log_prob(centre).mean((1, 2, 3))
    torch.testing.assert_close(found, 7 - density / math.log(2), atol=0.08, rtol=0)


# Mistakes


def test_mistakes_end_in_one_line() -> None:
    for options, said in (
        ({"guidance": 2.0, "conditional": False}, "guidance needs model.conditional"),
        ({"guidance": 2.0, "drop_label": 0.0}, "guidance needs model.conditional"),
        ({"drop_label": 1.0}, "drop_label is a share"),
        ({"solver": "hein"}, "solver is one of"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"strength": 0.0}, "strength in"),
        ({"guidance_interval": [0.5]}, "guidance_interval is two times"),
    ):
        with pytest.raises(UserError, match=said):
            built("flow", **options)
    with pytest.raises(UserError, match="in 1 to 1000 steps, not 2000"):
        built("diffusion", steps=2000)
    with pytest.raises(UserError, match="sigma_min must be above 0"):
        built("edm", sigma_min=100.0)


def test_classes_must_be_there() -> None:
    task = FlowMatching(Known, conditional=True, facts=Facts(in_channels=1, image_size=[4, 4]))
    with pytest.raises(UserError, match="the data has no classes"):
        task.configure_model()
    with pytest.raises(UserError, match="no class for each image"):
        built("flow").labels_of((images(), torch.zeros(6, 4, 4, dtype=torch.int64)))
    soft = F.one_hot(torch.tensor([1, 2]), 3).float()
    assert built("flow").labels_of((images(2), soft)).tolist() == [1, 2]
    assert built("flow", conditional=False).labels_of((images(2), soft)) is None
