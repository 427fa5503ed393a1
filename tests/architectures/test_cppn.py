"""Pattern networks: what a place's colour is, in a few lines of plain torch, and that size is only sampling."""

from __future__ import annotations

import math

import pytest
import torch

from zoo.architectures.base import parameter_count
from zoo.architectures.cppn import CPPN
from zoo.errors import UserError
from zoo.functional import patterns
from zoo.functional.patterns import grid, places_of, render


def made(seed: int = 0, **options) -> CPPN:
    torch.manual_seed(seed)
    return CPPN(**options)


def test_a_place_s_colour_in_plain_torch() -> None:
    network = made(depth=2, units=7, activations=["gaussian", "sine", "absolute"]).double()
    x, y = 0.3, -0.8
    signal = torch.tensor([x, y, math.hypot(x, y)], dtype=torch.float64)
    for layer in network.layers:
        a = layer.weight @ signal + layer.bias
        signal = torch.tensor(
            [math.exp(-v * v / 2) if i < 3 else math.sin(v) if i < 5 else abs(v) for i, v in enumerate(a.tolist())]
        ).double()
    colour = 1 / (1 + torch.exp(-(network.output.weight @ signal + network.output.bias)))
    found = network(torch.tensor([[x, y]], dtype=torch.float64))[0]
    assert torch.allclose(found, colour, atol=1e-7)


def test_parameters_of_a_network_of_sines() -> None:
    network = made(depth=3, units=256, activations=["sine"], frequency=40.0, scale=math.sqrt(2), radius=False)
    assert parameter_count(network) == (2 + 1) * 256 + 2 * (256 + 1) * 256 + (256 + 1) * 3
    first, second, _ = network.layers
    assert first.weight.std().item() == pytest.approx(40, rel=0.1)
    # Sitzmann et al. 2020, section 3.2: uniform within √(6 / n), a variance of 2 / n, for their ω W
    assert second.weight.var().item() == pytest.approx(2 / 256, rel=0.02)
    arguments = second(torch.sin(first(torch.rand(2000, 2) * 2 - 1)))
    assert (arguments - second.bias).std().item() == pytest.approx(1, rel=0.1)  # theorem 1.8: normal, with variance 1


def test_pixel_centres() -> None:
    places = grid([2, 4])
    assert places[..., 0].tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2
    assert places[..., 1].tolist() == [[-0.25] * 4, [0.25] * 4]
    assert torch.equal(places_of(torch.tensor([5]), [2, 4])[0], places[1, 1])
    last = places_of(torch.tensor([20_000**2 - 1]), [20_000, 20_000])
    assert last.tolist() == [[pytest.approx(1 - 1 / 20_000, abs=1e-7)] * 2]


def test_a_larger_grid_only_samples_more_densely() -> None:
    small, large = grid([6, 8]), grid([12, 16])
    blocks = large.view(6, 2, 8, 2, 2).mean((1, 3))
    assert torch.allclose(blocks, small)
    assert torch.allclose(grid([18, 24])[1::3, 1::3], small)  # three times as dense, the middles are the same places
    network = made()
    assert torch.allclose(render(network, [18, 24])[:, 1::3, 1::3], render(network, [6, 8]), atol=1e-5)


def test_a_picture_is_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network, seen = made(), []
    whole = network(grid([9, 13])).permute(2, 0, 1)
    network.register_forward_hook(lambda _m, arguments, _o: seen.append(len(arguments[0])))
    monkeypatch.setattr(patterns, "AT_ONCE", 50)
    assert torch.allclose(render(network, [9, 13]), whole, atol=1e-6)
    assert seen == [50, 50, 17]


def test_patterns_are_a_function_of_the_seed_and_use_all_colours() -> None:
    pictures = torch.stack([render(made(seed), [32, 32]) for seed in range(6)])
    assert torch.equal(pictures[3], render(made(3), [32, 32]))
    for i in range(5):
        assert (pictures[i] - pictures[i + 1]).abs().mean() > 0.1
    assert torch.allclose(pictures.mean((2, 3)), torch.full((6, 3), 0.5), atol=0.08)
    assert pictures.std((2, 3)).min() > 0.2


def test_neighbouring_places_differ_in_half_precision() -> None:
    network = made(depth=1, units=64, activations=["sine"], frequency=40.0, radius=False)
    near = torch.tensor([[0.9, 0.9], [0.9005, 0.9]])  # one number in bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        first, second = network(near)
    assert not torch.equal(first, second)


def test_mistakes_end_in_one_line() -> None:
    with pytest.raises(UserError, match="there is no activation cosh; known are sine, gaussian"):
        CPPN(activations=["sine", "cosh"])  # type: ignore[list-item]
    for wrong in ({"units": 3}, {"depth": 0}, {"activations": []}):
        with pytest.raises(UserError, match="depth must be at least 1, and units"):
            CPPN(**wrong)
    with pytest.raises(UserError, match="above 0"):
        CPPN(frequency=0.0)
