"""ResNet against its paper's parameter counts, torchvision's networks, and what a residual block is."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from zoo.architectures.base import output_shape, parameter_count
from zoo.architectures.resnet import Block, PaddedShortcut, ResNet
from zoo.errors import UserError


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7), (1202, 19.4)]
)
def test_parameters_of_table_6(depth: int, millions: float) -> None:
    with torch.device("meta"):
        network = ResNet(10, depth=depth)
    assert parameter_count(network) / 1e6 == pytest.approx(millions, abs=0.005 if millions < 1 else 0.05)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == depth


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_torchvision_s_weights(depth: int) -> None:
    """Outputs in both modes, the running statistics that training leaves, and strict loading."""
    torch.manual_seed(0)
    theirs, ours = getattr(torchvision.models, f"resnet{depth}")(), ResNet(depth=depth, init="torch")
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), atol=1e-5, rtol=1e-5)
    statistics = [{k: v for k, v in n.state_dict().items() if "running" in k} for n in (ours, theirs)]
    assert len(statistics[0]) == len(statistics[1]) > 0
    for mine, other in zip(*(s.values() for s in statistics), strict=True):
        torch.testing.assert_close(mine, other)


def test_gradients_and_stages_of_torchvision() -> None:
    theirs, ours, images = torchvision.models.resnet18(num_classes=7), ResNet(7, depth=18), torch.randn(2, 3, 64, 64)
    ours.load_state_dict(theirs.state_dict())
    for network in (ours, theirs):
        F.cross_entropy(network(images), torch.tensor([1, 5])).backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-6, rtol=1e-4)
    maps = ours.features(images)
    cut = torchvision.models._utils.IntermediateLayerGetter(theirs, {s.layer: s.layer for s in ours.stages})
    for name, found in cut(images).items():
        torch.testing.assert_close(maps[name], found, atol=1e-5, rtol=1e-5)


def test_own_weights_load_under_their_own_names() -> None:
    first, second = ResNet(3, depth=50, width=0.0625), ResNet(3, depth=50, width=0.0625)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(RuntimeError, match=r"layer1\.0\.branch\.conv9"):
        second.load_state_dict(first.state_dict() | {"layer1.0.conv9.weight": torch.zeros(1)})


@pytest.mark.parametrize(("depth", "bottleneck"), [(20, False), (18, False), (50, True)])
def test_a_block_without_its_branch_is_the_identity(depth: int, bottleneck: bool) -> None:
    block = ResNet(4, depth=depth, width=0.25).layer1[1]
    nn.init.zeros_(block.branch[-1].weight)
    x = torch.rand(2, block.branch[0].in_channels, 6, 6)
    assert len([m for m in block.branch if isinstance(m, nn.Conv2d)]) == 2 + bottleneck
    assert torch.equal(block(x), x)


def test_a_block_adds_in_front_of_its_relu() -> None:
    block, x = Block(4, 4, 1, bottleneck=False, projected=False), torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), (block.branch(x) + x).relu())


def test_option_a() -> None:
    """Every second pixel, then channels of zeros, and nothing to learn."""
    shortcut, x = PaddedShortcut(3, 2), torch.arange(2 * 5 * 4.0).view(1, 2, 5, 4)
    found = shortcut(x)
    assert parameter_count(shortcut) == 0
    assert found.shape == (1, 5, 3, 2)
    assert found[0, :2].tolist() == [[[0, 2], [8, 10], [16, 18]], [[20, 22], [28, 30], [36, 38]]]
    assert not found[0, 2:].any()


def test_zero_init_residual_starts_as_the_shortcuts() -> None:
    images = torch.rand(2, 3, 16, 16)
    network = ResNet(0, depth=20, zero_init_residual=True)
    x = network.relu(network.bn1(network.conv1(images)))
    expected = F.pad(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 16))[:, :, ::2, ::2], (0, 0, 0, 0, 0, 32))
    torch.testing.assert_close(network(images), expected)
    assert not torch.equal(ResNet(0, depth=20)(images), expected)


def test_initial_variance() -> None:
    """2 / fan-out in front of a ReLU: 9 windows of 64 channels, a quarter of that at stride 2."""
    network = ResNet(10, depth=110)
    assert network.layer3[3].branch.conv1.weight.var().item() == pytest.approx(2 / (9 * 64), rel=0.05)
    assert network.layer3[0].branch.conv1.weight.var().item() == pytest.approx(4 * 2 / (9 * 64), rel=0.05)
    assert ResNet(10, depth=20, init="normal").layer3[0].branch.conv1.weight.std().item() == pytest.approx(0.01, 0.05)


def test_depths_and_sizes() -> None:
    assert output_shape(ResNet(0, depth=8, width=0.5), 3, 4, 7) == (1, 32, 1, 2)
    assert output_shape(ResNet(0, 1, depth=18, width=0.25), 1, 32, 32) == (1, 128, 1, 1)
    for depth in (0, 2, 19, 1001):
        with pytest.raises(UserError, match=rf"no depth {depth}: 6n\+2"):
            ResNet(10, depth=depth)
    with pytest.raises(UserError, match=r"such as 998 or 1004, and 18, 34, 50, 101, 152$"):
        ResNet(10, depth=1001)
    with pytest.raises(UserError, match="ResNet-18 needs images of at least 32×32 pixels, not 31×40"):
        ResNet(10, depth=18, width=0.125)(torch.zeros(1, 3, 31, 40))
    with pytest.raises(UserError, match="width above 0"):
        ResNet(10, width=0)
