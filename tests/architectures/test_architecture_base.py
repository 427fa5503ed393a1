"""Feature maps by name."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.architectures.base import Architecture, Stage, output_shape, parameter_count
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, build


class Net(Architecture):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True))
        self.second = nn.Conv2d(2, 2, 3, padding=1)
        self.third = nn.Conv2d(2, 3, 3)
        self.unused = nn.Conv2d(1, 1, 1)
        self.ran = 0

    @property
    def stages(self) -> list[Stage]:
        return [Stage("first.2", 2, 1), Stage("second", 2, 1)]

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        y = self.second(x)
        y += x  # a residual sum, in place
        self.ran += 1
        return self.third(y)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 1, 6, 6)


def test_outputs_as_they_were(net: Net, images: Tensor) -> None:
    maps = net.features(images, ["first.0", "first.1", "second", "third"])
    conv = net.first[0](images)
    normed = net.first[1](conv)
    torch.testing.assert_close(maps["first.0"], conv)
    torch.testing.assert_close(maps["first.1"], normed, msg="the activation in place behind it has changed it")
    torch.testing.assert_close(maps["second"], net.second(normed.relu()), msg="the residual sum has changed it")
    torch.testing.assert_close(maps["third"], net(images))


def test_order_and_repeats(net: Net, images: Tensor) -> None:
    maps = net.features(images, ["second", "first.0", "second"])
    assert list(maps) == ["second", "first.0"]


def test_stops_after_the_last(net: Net, images: Tensor) -> None:
    net.features(images, ["second", "first"])
    assert net.ran == 0
    net.features(images, ["third"])
    assert net.ran == 1


def test_defaults_to_the_stages(net: Net, images: Tensor) -> None:
    assert list(net.features(images)) == ["first.2", "second"]


def test_gradients_reach_the_images(net: Net, images: Tensor) -> None:
    maps = net.features(images.requires_grad_(), ["first.0", "second"])
    sum(m.square().sum() for m in maps.values()).backward()  # type: ignore[union-attr]
    assert images.grad is not None
    assert images.grad.abs().max() > 0


def test_leaves_nothing_behind(net: Net, images: Tensor) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError

    handle = net.second.register_forward_hook(fail)
    with pytest.raises(RuntimeError):
        net.features(images, ["third"])
    handle.remove()
    assert not any(m._forward_hooks for m in net.modules())
    assert net.first[2].inplace


def test_wrong_layers(net: Net, images: Tensor) -> None:
    with pytest.raises(UserError, match=r"no layer secnd; did you mean second\?"):
        net.features(images, ["secnd"])
    with pytest.raises(UserError, match="unused, but its forward does not call it"):
        net.features(images, ["first", "unused"])


def test_no_stages() -> None:
    class Plain(Net):
        stages = Architecture.stages  # type: ignore[assignment]

    with pytest.raises(UserError, match="Plain has no stages"):
        _ = Plain().stages


def test_counts_and_shapes(net: Net) -> None:
    assert parameter_count(net) == (2 * 9 + 2) + 4 + (2 * 2 * 9 + 2) + (2 * 3 * 9 + 3) + 2
    net.train()
    before = net.first[1].running_mean.clone()
    assert output_shape(net, 1, 9, 8) == (1, 3, 5, 4)
    assert torch.equal(net.first[1].running_mean, before)
    assert net.training


# What a network on a backbone hands on


class Encoder(Net):
    """Trained on normalised colours, which its constructor says."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.std, self.fixed_channels = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125), 3


class OnEncoder(Architecture):
    """Says nothing of its images itself."""

    def __init__(self, encoder: ArchitectureFactory, other: ArchitectureFactory | None = None) -> None:
        super().__init__()
        self.head = nn.Identity()
        self.encoder = build(encoder)
        if other is not None:
            self.judge = build(other)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))


class WithOwnMean(OnEncoder):
    mean, fixed_channels = (0.9,), None


def test_a_network_on_an_encoder_sees_images_as_the_encoder_does() -> None:
    made = OnEncoder(Encoder)
    assert (made.mean, made.std, made.fixed_channels) == ((0.1, 0.2, 0.3), (0.5, 0.25, 0.125), 3)
    stacked = OnEncoder(partial(OnEncoder, Encoder))
    assert (stacked.mean, stacked.fixed_channels) == ((0.1, 0.2, 0.3), 3)
    assert OnEncoder(Encoder, Net).mean == OnEncoder(Encoder).mean, "the first architecture is the one that sees"
    made.encoder.mean = (0.7, 0.7, 0.7)  # weights that came later, with statistics of their own
    assert made.mean == (0.7, 0.7, 0.7)


def test_what_it_states_itself_wins() -> None:
    made = WithOwnMean(Encoder)
    assert (made.mean, made.std, made.fixed_channels) == ((0.9,), (0.5, 0.25, 0.125), None)
    made.std = (0.8,)
    assert (made.std, made.encoder.std) == ((0.8,), (0.5, 0.25, 0.125))


def test_neither_a_class_nor_a_network_without_encoder_says_anything(net: Net) -> None:
    for one in (net, Net, OnEncoder, OnEncoder(Net)):
        assert (one.mean, one.std, one.fixed_channels) == (None, None, None)
    assert WithOwnMean.mean == (0.9,)
