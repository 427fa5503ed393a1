"""torchvision's networks under the zoo's contract, against torchvision's own outputs."""

from __future__ import annotations

import math
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoo.architectures.base import skip_pretrained
from zoo.architectures.torchvision import TorchVision
from zoo.errors import UserError

NAMES = torchvision.models.list_models(module=torchvision.models)
REAL = [n for n in NAMES if n.startswith("regnet") and n.endswith("400mf")]  # RegNets can't be built as shapes only
STAGES = {
    "resnet50": {"relu": (64, 2), "layer1": (256, 4), "layer2": (512, 8), "layer3": (1024, 16), "layer4": (2048, 32)},
    "vgg11": {
        "features.1": (64, 1),
        "features.4": (128, 2),
        "features.9": (256, 4),
        "features.14": (512, 8),
        "features.19": (512, 16),
        "features": (512, 32),
    },
    "densenet121": {
        "features.relu0": (64, 2),
        "features.denseblock1": (256, 4),
        "features.denseblock2": (512, 8),
        "features.denseblock3": (1024, 16),
        "features": (1024, 32),
    },
    "swin_t": {"features.1": (96, 4), "features.3": (192, 8), "features.5": (384, 16), "norm": (768, 32)},
    "vit_b_16": {"encoder": (768, 16)},
    "vit_h_14": {"encoder": (1280, 14)},
}


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(2, 3, 64, 64)


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("regnet")] + REAL)
@torch.no_grad()
def test_every_network(name: str) -> None:
    """Any number of classes and of channels."""
    size = 75 if name == "inception_v3" else 224 if name.startswith(("vit", "maxvit")) else 64
    with torch.device("cpu" if name in REAL else "meta"):
        network = TorchVision(name, num_classes=7, in_channels=2).eval()
        assert network(torch.zeros(2, 2, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", STAGES)
@torch.no_grad()
def test_stages(name: str) -> None:
    with torch.device("meta"):
        network = TorchVision(name, num_classes=3)
        backbone = TorchVision(name, num_classes=0)
        maps = network.features(torch.zeros(2, 3, 224, 224))
        last = backbone(torch.zeros(2, 3, 224, 224))
    told = {s.layer: (s.channels, s.reduction) for s in network.stages}
    assert told == {f"network.{layer}": what for layer, what in STAGES[name].items()}
    for layer, (channels, reduction) in told.items():
        assert maps[layer].shape == (2, channels, 224 // reduction, 224 // reduction)
    assert last.shape == maps[network.stages[-1].layer].shape
    assert set(backbone.state_dict()) < set(network.state_dict())
    assert network.training


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "shufflenet_v2_x0_5", "squeezenet1_1"]
)
@torch.no_grad()
def test_classifier_and_backbone(name: str, images: Tensor) -> None:
    ours = TorchVision(name, num_classes=7, image_size=[64, 64]).eval()
    theirs = torchvision.models.get_model(name, num_classes=7).eval()
    theirs.load_state_dict(ours.network.state_dict())
    assert torch.equal(ours(images), theirs(images))
    maps = ours.features(images)
    assert [maps[s.layer].shape[1] for s in ours.stages] == [s.channels for s in ours.stages]
    backbone = TorchVision(name, num_classes=0).eval()
    backbone.network.load_state_dict({k: theirs.state_dict()[k] for k in backbone.network.state_dict()})
    last = backbone.stages[-1].layer
    assert torch.equal(backbone(images), maps[last])
    assert torch.equal(backbone.features(images)[last], maps[last])


def test_a_map_of_classes_is_no_stage() -> None:
    network = TorchVision("squeezenet1_1", num_classes=3)
    assert [stage[1:] for stage in network.stages] == [(64, 2), (128, 4), (256, 8), (512, 16)]
    assert network.stages[-1].layer == "network.features"


@torch.no_grad()
def test_channels_last_and_tokens_become_maps() -> None:
    """Swin's map at a cell is its output there; ViT's is the token of that cell, after the class token."""
    swin = TorchVision("swin_t", num_classes=3).eval()
    images = torch.rand(1, 3, 64, 96)
    found = swin.features(images, ["network.features.1"])["network.features.1"]
    expected = swin.network.features[1](swin.network.features[0](images))
    assert torch.equal(found[0, :, 5, 20], expected[0, 5, 20])

    options = {"patch_size": 8, "num_layers": 1, "num_heads": 1, "hidden_dim": 8, "mlp_dim": 8}
    network = torchvision.models.VisionTransformer(32, **options).eval()
    vit = TorchVision("vit_b_16", num_classes=3, image_size=[32, 32]).eval()
    vit.network = network
    maps, images = vit.features(images[..., :32, :32], ["network.encoder"])["network.encoder"], images[..., :32, :32]
    tokens = network.encoder(torch.cat([network.class_token, network._process_input(images)], 1))
    assert torch.equal(maps[0, :, 2, 1], tokens[0, 1 + 2 * 4 + 1])


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Tensor]]:
    """What the server would answer: for each network the tensors of a randomly initialised one."""
    made: dict[str, dict[str, Tensor]] = {}

    def answer(weights: Any, *_: Any, **__: Any) -> dict[str, Tensor]:
        name = type(weights).__name__.removesuffix("_Weights").lower()
        torch.manual_seed(1)
        known = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}
        made[name] = torchvision.models.get_model(name, **known.get(name, {})).state_dict()
        return made[name]

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", answer)
    return made


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
@torch.no_grad()
def test_weights_under_another_head(name: str, fetched: dict[str, dict[str, Tensor]], images: Tensor) -> None:
    network = TorchVision(name, weights="DEFAULT", num_classes=5).eval()
    own, given = network.network.state_dict(), fetched[name]
    other = [key for key in own if own[key].shape != given[key].shape]
    assert {key.rpartition(".")[0] for key in other} == {list(given)[-1].rpartition(".")[0]}
    assert all(torch.equal(own[key], given[key]) for key in own if key not in other)
    assert network(images).shape == (2, 5)
    weight, bias = (own[f"{other[0].rpartition('.')[0]}.{kind}"] for kind in ("weight", "bias"))
    assert weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not bias.any()
    loss = cross_entropy(network(images), torch.tensor([0, 4]))
    assert loss.item() == pytest.approx(math.log(5), abs=0.1)
    assert network.mean == (0.485, 0.456, 0.406)
    assert network.std == (0.229, 0.224, 0.225)


@torch.no_grad()
def test_weights_for_other_channels(fetched: dict[str, dict[str, Tensor]], images: Tensor) -> None:
    """Grey gives what it would as a picture with three equal channels; the fourth channel is as the first."""
    colour = TorchVision("resnet18", weights="IMAGENET1K_V1").eval()
    grey = TorchVision("resnet18", weights="IMAGENET1K_V1", in_channels=1).eval()
    torch.testing.assert_close(grey(images[:, :1]), colour(images[:, :1].expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)
    assert grey.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))
    four = TorchVision("resnet18", weights="IMAGENET1K_V1", in_channels=4)
    torch.testing.assert_close(four.network.conv1.weight[:, 3], fetched["resnet18"]["conv1.weight"][:, 0] * 3 / 4)


def test_fresh_filters_of_other_channels_are_as_wide() -> None:
    torch.manual_seed(0)
    three, six = (TorchVision("resnet18", in_channels=n).network.conv1.weight for n in (3, 6))
    assert six.shape[1] == 6
    assert float(six.std() / three.std()) == pytest.approx(1, abs=0.05)


@torch.no_grad()
def test_inception_s_input(fetched: dict[str, dict[str, Tensor]]) -> None:
    """The pretrained form undoes ImageNet's normalisation inside; ours is given the other one at once."""
    images = torch.rand(2, 3, 80, 80)
    ours = TorchVision("googlenet", weights="DEFAULT").eval()
    theirs = torchvision.models.googlenet(weights="DEFAULT").eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = theirs((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert theirs.transform_input
    torch.testing.assert_close(ours((images - ours.mean[0]) / ours.std[0]), expected, atol=1e-4, rtol=1e-4)


def test_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no classification network resnet_18; did you mean .*resnet18"):
        TorchVision("resnet_18")
    with pytest.raises(UserError, match=r"no classification network fcn_resnet50"):
        TorchVision("fcn_resnet50")
    with pytest.raises(UserError, match=r"no weights IMAGENET of resnet50; there are: IMAGENET1K_V1, IMAGENET1K_V2"):
        TorchVision("resnet50", weights="IMAGENET")
    with pytest.raises(UserError, match=r"can't build resnet18 with weights None, drop 1: .*drop"):
        TorchVision("resnet18", options={"drop": 1})
    with pytest.raises(UserError, match=r"TorchVision: options can't have weights"):
        TorchVision("resnet18", options={"weights": "DEFAULT"})
    with pytest.raises(UserError, match=r"vit_b_16 takes square images, not 32×48"):
        TorchVision("vit_b_16", image_size=[32, 48])
    with pytest.raises(UserError, match=r"vgg11 can't take images of 16×16 pixels: .*too small"):
        TorchVision("vgg11", image_size=[16, 16])


def test_names_of_the_weights_classes() -> None:
    names = TorchVision.pretrained_classes({"name": "resnet18", "weights": "DEFAULT"})
    assert (len(names), names[285]) == (1000, "Egyptian cat")
    assert TorchVision.pretrained_classes({"name": "resnet18"}) == []


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise URLError("name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(UserError) as told:
        TorchVision("resnet18", weights="DEFAULT")
    assert str(told.value) == (
        "torchvision's weights ResNet18_Weights.IMAGENET1K_V1 could not be fetched from https://download.pytorch.org/"
        "models/resnet18-f37072fd.pth (<urlopen error name or service not known>); offline, "
        "EfficientNetLite0 includes its ImageNet weights"
    )
    with skip_pretrained():  # a checkpoint has them
        network = TorchVision("resnet18", weights="DEFAULT", num_classes=4)
    assert network.mean == (0.485, 0.456, 0.406)
    assert isinstance(network.network.fc, nn.Linear)
    assert network.network.fc.out_features == 4
