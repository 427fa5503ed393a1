"""AlexNet against its paper's numbers, and against the same network written with torch's own functions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.alexnet import AlexNet, response_norm
from zoo.architectures.base import parameter_count
from zoo.errors import UserError


def small(**changes: object) -> AlexNet:
    torch.manual_seed(0)
    arguments = {"num_classes": 5, "image_size": [64, 64], "width": 0.0625, "init": "forward", **changes}
    return AlexNet(**arguments).eval()  # type: ignore[arg-type]


def test_size_of_the_paper() -> None:
    with torch.device("meta"):
        network = AlexNet()
        maps = network.features(torch.empty(1, 3, 227, 227), [f"layers.conv{i}" for i in range(1, 6)])
    assert parameter_count(network) == 60_965_224
    # Section 3.5 counts neurons; its 253,440 of the first layer fits no size of image, so that its 55×55 maps count.
    assert [t.numel() for t in maps.values()] == [96 * 55 * 55, 186_624, 64_896, 64_896, 43_264]
    assert [layer.out_features for layer in network.classifier if isinstance(layer, nn.Linear)] == [4096, 4096, 1000]


def test_agrees_with_torch_functions() -> None:
    network, images = small(), torch.randn(2, 3, 64, 64)
    p = dict(network.named_parameters())

    def conv(x: Tensor, i: int, **options: int) -> Tensor:
        return F.relu(F.conv2d(x, p[f"layers.conv{i}.weight"], p[f"layers.conv{i}.bias"], **options))

    def fc(x: Tensor, i: int) -> Tensor:
        return F.linear(x, p[f"classifier.fc{i}.weight"], p[f"classifier.fc{i}.bias"])

    # torch divides alpha by the number of channels in the window.
    x = F.max_pool2d(F.local_response_norm(conv(images, 1, stride=2), 5, 5e-4, 0.75, 2.0), 3, 2)
    x = F.max_pool2d(F.local_response_norm(conv(x, 2, padding=2, groups=2), 5, 5e-4, 0.75, 2.0), 3, 2)
    x = conv(conv(x, 3, padding=1), 4, padding=1, groups=2)
    x = F.max_pool2d(conv(x, 5, padding=1, groups=2), 3, 2)
    x = fc(F.relu(fc(F.relu(fc(x.flatten(1), 6)), 7)), 8)
    torch.testing.assert_close(network(images), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("layer", "split"), [(2, True), (3, False), (4, True), (5, True)])
def test_two_columns_of_the_paper(layer: int, split: bool) -> None:
    conv = small().layers.get_submodule(f"conv{layer}")
    maps = torch.randn(1, conv.in_channels, 5, 5, requires_grad=True)
    conv(maps)[:, : conv.out_channels // 2].sum().backward()
    other_half = maps.grad[:, conv.in_channels // 2 :]
    assert (other_half.abs().max() == 0) == split


def test_response_norm_is_the_formula() -> None:
    maps = torch.randn(2, 9, 3, 4, dtype=torch.float64)
    expected = torch.empty_like(maps)
    for i in range(9):
        near = maps[:, max(0, i - 2) : min(8, i + 2) + 1]
        expected[:, i] = maps[:, i] / (2 + 0.3 * near.square().sum(1)) ** 0.75
    torch.testing.assert_close(response_norm(maps, alpha=0.3), expected)
    assert torch.autograd.gradcheck(lambda x: response_norm(x, alpha=0.3), maps.requires_grad_())


def test_response_norm_defaults_are_the_paper_s() -> None:
    maps = 30 * torch.randn(2, 9, 3, 4)
    torch.testing.assert_close(response_norm(maps), nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)(maps))


def test_initialisation_of_the_paper() -> None:
    network = small(init="paper", width=0.5)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.05)
            one = name.endswith(("conv2", "conv4", "conv5", "fc6", "fc7"))
            assert torch.equal(module.bias, torch.full_like(module.bias, float(one))), name


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_other_initialisations(activation: str) -> None:
    """The images count as linear; behind every other layer is the network's own activation."""
    network, gain = small(width=0.5, activation=activation), {"relu": 2.0, "tanh": 1 / 0.394294}[activation]
    for name, after in (
        ("layers.conv1", 1.0),
        ("layers.conv2", gain),
        ("layers.conv3", gain),
        ("classifier.fc7", gain),
    ):
        layer = network.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(math.sqrt(after / layer.weight[0].numel()), rel=0.05)
        assert layer.bias.abs().max() == 0


def test_ingredients_can_be_switched_off() -> None:
    def kinds(**changes: object) -> list[str]:
        return [type(m).__name__ for m in small(**changes).modules()]

    assert kinds().count("ResponseNorm") == 2
    assert kinds(response_norm=False).count("ResponseNorm") == 0
    assert kinds().count("ReLU") == 7
    assert kinds().count("Tanh") == 0
    assert kinds(activation="tanh").count("Tanh") == 7
    assert kinds(activation="tanh").count("ReLU") == 0
    assert kinds().count("Dropout") == 2
    assert kinds(dropout=0.0).count("Dropout") == 0
    windows = [m.kernel_size for m in small(overlapping_pooling=False).modules() if isinstance(m, nn.MaxPool2d)]
    assert windows == [2, 2, 2]


@pytest.mark.parametrize(
    ("changes", "stride"), [({"image_size": [127, 127]}, 2), ({"image_size": [128, 128]}, 4), ({"stride": 3}, 3)]
)
def test_first_stride(changes: dict[str, object], stride: int) -> None:
    assert small(**changes).layers.get_submodule("conv1").stride == (stride, stride)


@pytest.mark.parametrize("overlapping", [True, False])
@pytest.mark.parametrize("size", [(11, 11), (16, 40), (28, 28), (32, 32)])
def test_small_images(size: tuple[int, int], overlapping: bool) -> None:
    network = small(image_size=list(size), overlapping_pooling=overlapping)
    images, sides = torch.randn(2, 3, *size), []
    for layer in network.layers:
        images = layer(images)
        sides.append(images.shape[-2:])
    assert all(a >= c and b >= d for (a, b), (c, d) in pairwise(sides)), "a layer enlarges its map"
    assert network(torch.randn(2, 3, *size)).shape == (2, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": [10, 64]}, "at least 11×11 pixels, not 10×64"),
        ({"width": 0.0}, "width must be above 0"),
        ({"dropout": 1.0}, "dropout"),
        ({"num_classes": -1}, "num_classes"),
        ({"image_size": [64]}, "height and width"),
    ],
)
def test_wrong_arguments(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**changes)


def test_wrong_images() -> None:
    with pytest.raises(UserError, match="images are 48×48"):
        small()(torch.randn(1, 3, 48, 48))
    assert small(num_classes=0)(torch.randn(1, 3, 96, 48)).shape == (1, 16, 4, 1)  # a backbone takes any size


def test_stages() -> None:
    assert [(s.layer, s.channels, s.reduction) for s in small().stages] == [
        ("layers.norm1", 6, 2),
        ("layers.norm2", 16, 4),
        ("layers.act5", 16, 8),
        ("layers.pool5", 16, 16),
    ]
