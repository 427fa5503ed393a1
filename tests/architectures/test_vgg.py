"""VGG against its paper's numbers and torchvision's network."""

from __future__ import annotations

from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from zoo.architectures.base import parameter_count, skip_pretrained
from zoo.architectures.vgg import VGG
from zoo.errors import UserError
from zoo.testing.architectures import randomise


def small(**changes: Any) -> VGG:
    torch.manual_seed(0)
    return VGG(**{"num_classes": 5, "depth": 11, "width": 0.0625, "pooled_size": 1, **changes})


@pytest.mark.parametrize(("depth", "millions"), [(11, 133), (13, 133), (16, 138), (19, 144)])
def test_parameters_of_the_paper(depth: Any, millions: int) -> None:
    """Table 2; the paper's sizes are rounded."""
    with torch.device("meta"):
        network = VGG(depth=depth)
    assert round(parameter_count(network) / 1e6) == millions
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == depth
    exact = {16: 138_357_544, 19: 143_667_240}
    assert parameter_count(network) == exact.get(depth, parameter_count(network))


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_torchvision_s_tensors_have_their_places(depth: Any, norm: Any) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"vgg{depth}{'_bn' if norm == 'batch' else ''}")()
        told = VGG(depth=depth, norm=norm).load_state_dict(theirs.state_dict(), strict=False)
    assert not told.missing_keys
    assert not told.unexpected_keys


def narrow_head(network: nn.Module) -> nn.Module:
    """torchvision's network with one cell in front of a small head: the full one has 120 million weights."""
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier = nn.Sequential(
        *(nn.Linear(512, 32), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(32, 7),
    )
    return network


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("depth", "norm"), [(11, "none"), (13, "batch")])
def test_same_output_as_torchvision(depth: Any, norm: Any, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.architectures.vgg.HIDDEN", 32)
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"vgg{depth}{'_bn' if norm == 'batch' else ''}")(init_weights=False)
        theirs = narrow_head(theirs)
    theirs = theirs.to_empty(device="cpu").train(training)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    randomise(theirs)
    ours = VGG(7, depth=depth, norm=norm, pooled_size=1, init="torch").train(training)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(3, 3, 64, 40)
    torch.manual_seed(1)
    expected = theirs(images)
    torch.manual_seed(1)
    torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5)


WEIGHTS = torchvision.models.VGG19_Weights.IMAGENET1K_V1


@pytest.fixture(scope="module")
def fetched() -> dict[str, torch.Tensor]:
    """A made-up state of torchvision's VGG-19, without the 120 million weights of its head."""
    with torch.device("meta"):
        network = torchvision.models.vgg19(init_weights=False)
    generator = torch.Generator().manual_seed(0)
    shapes = {k: t.shape for k, t in network.features.state_dict().items()}
    return {
        f"features.{k}": torch.randn(s, generator=generator) * (s[1:].numel() / 2) ** -0.5 for k, s in shapes.items()
    }


def test_torchvision_s_weights_by_name(fetched: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchvision's own network gives, in the names of the literature, with another pooling and other channels."""
    asked = []
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda url, **_: asked.append(url) or dict(fetched)
    )
    ours = VGG(0, depth=19, weights="IMAGENET1K_V1").eval()
    assert asked == [WEIGHTS.url]
    assert (ours.mean, ours.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    theirs = torchvision.models.vgg19(init_weights=False).features.eval()
    theirs.load_state_dict({k.removeprefix("features."): t for k, t in fetched.items()})
    images = torch.randn(1, 3, 64, 48)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-6)
    numbers = {"conv1_1": 0, "conv2_1": 5, "conv3_1": 10, "conv4_1": 19, "conv4_2": 21, "conv5_1": 28}
    for name, maps in ours.features(images, [f"layers.{name}" for name in numbers]).items():
        torch.testing.assert_close(
            maps, theirs[: numbers[name.removeprefix("layers.")] + 1](images), atol=1e-6, rtol=1e-5
        )
    averaged = VGG(0, depth=19, pooling="average", weights="DEFAULT")
    assert torch.equal(averaged.layers.conv5_4.weight, ours.layers.conv5_4.weight)
    grey = VGG(0, in_channels=1, depth=19, weights="DEFAULT")
    torch.testing.assert_close(grey.layers.conv1_1.weight, ours.layers.conv1_1.weight.sum(1, keepdim=True))
    assert VGG.pretrained_classes({"depth": 19, "weights": "DEFAULT"})[:2] == ["tench", "goldfish"]
    with skip_pretrained():
        assert VGG(0, depth=19, weights="DEFAULT").mean == ours.mean
    assert len(asked) == 3


def test_weights_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    for arguments, message in (
        ({}, r"could not be fetched from https://.*vgg19-.*no route to host.*EfficientNetLite0 includes"),
        ({"weights": "V9"}, "no weights V9 of vgg19; there are: IMAGENET1K_V1, DEFAULT"),
        ({"width": 0.5}, "for width 1 and pooled_size 7"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            VGG(**{"num_classes": 0, "depth": 19, "weights": "DEFAULT", **arguments})
        assert "\n" not in str(raised.value)
    with torch.device("meta"), pytest.raises(UserError, match="has no classifier"):
        VGG(depth=16, weights="IMAGENET1K_FEATURES")


def test_head_sees_seven_by_seven_cells() -> None:
    """As torchvision's, so that images of another size fit the same weights."""
    network = small(pooled_size=7).eval()
    assert network.classifier.fc6.in_features == 32 * 7 * 7
    images = torch.randn(2, 3, 96, 64)
    cells = nn.AdaptiveAvgPool2d((7, 7))(network.layers(images))
    torch.testing.assert_close(network(images), network.classifier(cells.flatten(1)))


def test_names_of_the_literature() -> None:
    """Layers of VGG-19 that Gatys et al. use, by their numbers in torchvision's network."""
    with torch.device("meta"):
        names = [name for name, _ in VGG(depth=19).layers.named_children()]
    numbers = {0: "conv1_1", 5: "conv2_1", 10: "conv3_1", 19: "conv4_1", 21: "conv4_2", 28: "conv5_1", 36: "pool5"}
    assert {i: names[i] for i in numbers} == numbers
    assert len(names) == len(torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["E"]))


def test_feature_maps_by_name() -> None:
    network = small(depth=19).eval()
    maps = network.features(torch.randn(1, 3, 64, 64), ["layers.conv1_1", "layers.conv4_2", "layers.relu4_2"])
    assert [tuple(m.shape[1:]) for m in maps.values()] == [(4, 64, 64), (32, 8, 8), (32, 8, 8)]
    assert maps["layers.conv1_1"].min() < 0
    assert torch.equal(maps["layers.conv4_2"].relu(), maps["layers.relu4_2"])


@pytest.mark.parametrize(("pooling", "function"), [("max", F.max_pool2d), ("average", F.avg_pool2d)])
def test_pooling(pooling: Any, function: Any) -> None:
    network = small(pooling=pooling).eval()
    maps = network.features(torch.randn(1, 3, 36, 36), ["layers.relu1_1", "layers.pool1"])
    torch.testing.assert_close(maps["layers.pool1"], function(maps["layers.relu1_1"], 2))


def test_initialisation() -> None:
    """Glorot and Bengio's 2 / (fan-in + fan-out), twice that behind a ReLU."""
    network = small(width=1.0, num_classes=0)
    first, last = network.layers.conv1_1.weight, network.layers.conv4_1.weight
    assert first.std().item() == pytest.approx((2 / (3 * 9 + 64 * 9)) ** 0.5, rel=0.05)
    assert last.std().item() == pytest.approx((4 / (256 * 9 + 512 * 9)) ** 0.5, rel=0.01)


def test_default_initialisation_lets_nineteen_layers_learn() -> None:
    """A gradient reaches the first layer; from the paper's time, N(0, 0.01²), it is gone."""
    sizes = {}
    for init in ("compromise", "normal"):
        network = small(depth=19, width=0.5, init=init, dropout=0.0)
        F.cross_entropy(network(torch.randn(8, 3, 32, 32)), torch.arange(8) % 5).backward()
        sizes[init] = network.layers.conv1_1.weight.grad.norm().item()
    assert sizes["compromise"] > 1e-3 > 1e3 * sizes["normal"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 12}, "11, 13, 16 or 19, not 12"),
        ({"width": 0.0}, "width must be above 0"),
        ({"pooled_size": 0}, "pooled_size at least 1"),
        ({"dropout": 1.0}, "dropout must be"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**arguments)


def test_smallest_images() -> None:
    assert small().eval()(torch.randn(1, 3, 32, 40)).shape == (1, 5)
    with pytest.raises(UserError, match="at least 32×32 pixels, not 40×31"):
        small()(torch.randn(1, 3, 40, 31))
