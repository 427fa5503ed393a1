"""PlainNet: the ResNet of the same depth without its shortcuts, of any depth, and what care its signal needs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.architectures.base import parameter_count
from zoo.architectures.plain import PlainNet, group_sizes
from zoo.architectures.resnet import ResNet
from zoo.errors import UserError


@pytest.mark.parametrize("depth", [20, 56])
def test_a_resnet_without_its_shortcuts(depth: int) -> None:
    """The same weights in the same order, and what they compute where nothing is added to the branches."""
    plain, residual = PlainNet(5, depth=depth), ResNet(5, depth=depth)
    plain.load_state_dict(dict(zip(plain.state_dict(), residual.state_dict().values(), strict=True)))
    assert parameter_count(plain) == parameter_count(residual)
    images = torch.randn(3, 3, 16, 16)
    x = residual.relu(residual.bn1(residual.conv1(images)))
    for block in (*residual.layer1, *residual.layer2, *residual.layer3):
        x = block.branch(x).relu()
    torch.testing.assert_close(plain(images), residual.fc(x.mean((2, 3))))
    assert not torch.allclose(plain(images), residual(images), atol=0.1)


@pytest.mark.parametrize("depth", [5, 8, 9, 10, 101])
def test_any_depth(depth: int) -> None:
    network = PlainNet(depth=depth, width=0.25)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == sum(group_sizes(depth)) + 1 == depth
    assert [c.stride[0] for c in convolutions].count(2) == 2
    first, second, third = group_sizes(depth)
    assert first - 1 >= second >= third >= first - 2


def test_norm_none_has_biases_instead() -> None:
    network = PlainNet(norm="none")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert all(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d))
    channels = 7 * 16 + 6 * 32 + 6 * 64  # a normalisation has a shift and a scale, a convolution only the shift
    assert parameter_count(network) == parameter_count(PlainNet()) - channels


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_initialised_signal_lives_and_careless_one_dies(activation: str) -> None:
    """Standard deviation of the last feature map of 50 layers without normalisation."""
    images = torch.randn(8, 3, 32, 32)
    torch.manual_seed(0)
    careful, careless = (
        PlainNet(0, depth=50, norm="none", activation=activation, init=init)(images).std().item()  # type: ignore[arg-type]
        for init in ("forward", "normal")
    )
    assert 0.01 < careful < 10
    assert careless < 1e-20


@pytest.mark.parametrize("size", [16, 32])
def test_signal_lives_through_110_layers(size: int) -> None:
    """The margins of small maps count: by whole filters, the variance would be 1e-9 at 16 pixels."""
    torch.manual_seed(0)
    network = PlainNet(0, depth=110, width=4, norm="none", init="forward", image_size=[size, size])
    assert 0.1 < network(torch.randn(4, 3, size, size)).square().mean().item() < 10


def test_activations_are_computed_as_named() -> None:
    """The first layer's output by torch's own functions."""
    functions = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": nn.functional.silu}
    functions |= {"gelu": nn.functional.gelu, "leaky_relu": nn.functional.leaky_relu}
    for name, function in functions.items():
        network, images = PlainNet(depth=8, norm="none", activation=name), torch.randn(1, 3, 8, 8)  # type: ignore[arg-type]
        found = network.features(images, ["layers.0", "layers.1"])
        torch.testing.assert_close(found["layers.1"], function(found["layers.0"]))


def test_errors() -> None:
    with pytest.raises(UserError, match="depth must be at least 5, not 4"):
        PlainNet(depth=4)
    with pytest.raises(UserError, match="norm is one of batch, none, not 'layer'"):
        PlainNet(norm="layer")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"activation is one of relu, .* not 'cosine'"):
        PlainNet(activation="cosine")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="at least 4×4 pixels, not 8×3"):
        PlainNet()(torch.zeros(1, 3, 8, 3))
