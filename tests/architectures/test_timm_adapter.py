"""timm's networks under the zoo's contract, against timm's own outputs and feature extractors."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from zoo.architectures import timm as adapter
from zoo.architectures.base import skip_pretrained
from zoo.architectures.timm import Timm
from zoo.errors import UserError

# A small form of each kind: convolutions, skips, concatenations, channels last, tokens.
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "vgg11": {},
    "densenet121": {},
    "mobilenetv3_small_050": {},
    "tf_efficientnet_lite0": {},
    "convnext_atto": {},
    "test_vit": {},
    "swin_tiny_patch4_window7_224": {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)},
}


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(2, 3, 64, 64)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_classifier_and_backbone(name: str, images: Tensor) -> None:
    ours = Timm(name, num_classes=7, image_size=[64, 64], options=NETWORKS[name]).eval()
    sized = {"img_size": 64} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    theirs = timm.create_model(name, num_classes=7, **sized, **NETWORKS[name]).eval()
    theirs.load_state_dict(ours.network.state_dict())
    assert torch.equal(ours(images), theirs(images))

    maps = ours.features(images)
    for stage in ours.stages:
        assert maps[stage.layer].shape == (2, stage.channels, 64 // stage.reduction, 64 // stage.reduction)
    reductions = [stage.reduction for stage in ours.stages]
    assert reductions == sorted(set(reductions))
    assert reductions[-1] == (16 if "vit" in name else 32)

    backbone = Timm(name, num_classes=0, image_size=[64, 64], options=NETWORKS[name]).eval()
    backbone.network.load_state_dict({k: theirs.state_dict()[k] for k in backbone.network.state_dict()})
    assert torch.equal(backbone(images), maps[ours.stages[-1].layer])
    assert len(list(backbone.parameters())) < len(list(ours.parameters()))


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "convnext_atto", "swin_tiny_patch4_window7_224"])
@torch.no_grad()
def test_maps_are_the_layers_own(name: str, images: Tensor) -> None:
    """What ``forward_intermediates`` gives is what a hook on the named layer sees, channels first."""
    network = Timm(name, num_classes=0, image_size=[64, 64], options=NETWORKS[name]).eval()
    maps, layers = network.features(images), dict(network.named_modules())
    for stage in network.stages[1:]:  # timm's stems end in more than one layer
        seen: list[Tensor] = []
        handle = layers[stage.layer].register_forward_hook(lambda _m, _a, out, seen=seen: seen.append(out.clone()))
        network(images)
        handle.remove()
        (output,) = seen
        output = output.permute(0, 3, 1, 2) if "swin" in name else output
        torch.testing.assert_close(maps[stage.layer], output)


@torch.no_grad()
def test_any_layer(images: Tensor) -> None:
    network = Timm("resnet18", num_classes=3).eval()
    names = ["network.layer2", "network.conv1", "network.layer4.0.bn1", "network.layer1"]
    maps = network.features(images, names)
    assert list(maps) == names
    torch.testing.assert_close(maps["network.conv1"], network.network.conv1(images))
    assert maps["network.layer4.0.bn1"].shape == (2, 512, 2, 2)
    with pytest.raises(UserError, match=r"no layer network\.layr1; did you mean network\.layer1"):
        network.features(images, ["network.layr1"])


def test_misspelt() -> None:
    with pytest.raises(UserError, match=r"timm has no network resnet_18; did you mean .*resnet18"):
        Timm("resnet_18")
    with pytest.raises(UserError, match=r"timm has no weights resnet18\.a1_in2k; did you mean resnet18\.a1_in1k"):
        Timm("resnet18.a1_in2k")
    with pytest.raises(UserError, match=r"timm can't build resnet18 with .*drop_pth_rate 0.1: .*drop_pth_rate"):
        Timm("resnet18", options={"drop_pth_rate": 0.1})


@pytest.mark.parametrize("option", ["num_classes", "checkpoint_path", "pretrained_cfg_overlay", "features_only"])
def test_options_that_are_not_options(option: str) -> None:
    """timm's own loading of files is not always that of plain data only."""
    with pytest.raises(UserError, match=f"Timm: options can't have {option}"):
        Timm("test_resnet", options={option: "x.pth"})


def test_sizes() -> None:
    with pytest.raises(UserError, match=r"vgg11 can't take images of 16×16 pixels: .*too small"):
        Timm("vgg11", image_size=[16, 16])
    with pytest.raises(UserError, match="image_size is height and width"):
        Timm("test_resnet", image_size=[16])
    assert Timm("test_vit", image_size=[32, 96]).eval()(torch.rand(1, 3, 32, 96)).shape == (1, 1000)


def test_no_weights_at_all() -> None:
    name = next(n for n in timm.list_models() if not timm.get_pretrained_cfg(n).has_weights)
    with pytest.raises(UserError, match=f"timm has no pretrained weights of {name}"):
        Timm(name, pretrained=True)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What the hub would answer: the tensors of a network of ours."""
    torch.manual_seed(1)
    weights = timm.create_model("resnet18").state_dict()
    monkeypatch.setattr(adapter, "_reach_hub", lambda *_: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(weights))
    return weights


@torch.no_grad()
def test_pretrained(fetched: dict[str, Tensor], images: Tensor) -> None:
    network = Timm("resnet18.tv_in1k", pretrained=True, num_classes=5).eval()
    assert torch.equal(network.network.layer4[1].conv2.weight, fetched["layer4.1.conv2.weight"])
    assert network.network.fc.out_features == 5
    assert network.mean == (0.485, 0.456, 0.406)
    assert network.std == (0.229, 0.224, 0.225)
    assert Timm("resnet18").mean is None


@pytest.mark.parametrize(
    ("name", "heads"), [("resnet18", ["fc"]), ("deit_tiny_distilled_patch16_224", ["head", "head_dist"])]
)
def test_a_new_head_starts_small(name: str, heads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    weights = timm.create_model(name).state_dict()
    monkeypatch.setattr(adapter, "_reach_hub", lambda *_: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(weights))
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", lambda *_, **__: dict(weights))
    own = Timm(name, pretrained=True).network.state_dict()
    assert all(torch.equal(own[f"{head}.weight"], weights[f"{head}.weight"]) for head in heads)
    network = Timm(name, pretrained=True, num_classes=100)
    for head in heads:
        layer = network.network.get_submodule(head)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not layer.bias.any()
    torch.manual_seed(0)
    drawn = Timm(name, num_classes=100).network.get_submodule(heads[0]).weight
    torch.manual_seed(0)
    assert torch.equal(drawn, timm.create_model(name, num_classes=100).get_submodule(heads[0]).weight)


@torch.no_grad()
def test_pretrained_for_other_channels(fetched: dict[str, Tensor], images: Tensor) -> None:
    """Grey gives what it would as a picture with three equal channels; the fourth channel is as the first."""
    colour = Timm("resnet18", pretrained=True).eval()
    grey = Timm("resnet18", pretrained=True, in_channels=1).eval()
    torch.testing.assert_close(grey(images[:, :1]), colour(images[:, :1].expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)
    assert grey.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))
    four = Timm("resnet18", pretrained=True, in_channels=4)
    assert four.mean == (0.485, 0.456, 0.406, 0.485)
    torch.testing.assert_close(four.network.conv1.weight[:, 3], fetched["conv1.weight"][:, 0] * 3 / 4)


def test_names_of_the_weights_classes() -> None:
    names = Timm.pretrained_classes({"name": "resnet18.a1_in1k", "pretrained": True})
    assert (len(names), names[285]) == (1000, "Egyptian cat")
    assert len(Timm.pretrained_classes({"name": "vit_base_patch16_224.augreg_in21k", "pretrained": True})) == 21843
    assert Timm.pretrained_classes({"name": "resnet18.a1_in1k"}) == []


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("name or service not known\nand more")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(UserError) as told:
        Timm("resnet18.a1_in1k", pretrained=True)
    assert str(told.value) == (
        "timm's weights of resnet18.a1_in1k could not be fetched from huggingface.co/timm/resnet18.a1_in1k (name or "
        "service not known); offline, EfficientNetLite0 includes its ImageNet weights"
    )
    with skip_pretrained():  # a checkpoint has them
        assert Timm("resnet18.a1_in1k", pretrained=True).mean == (0.485, 0.456, 0.406)
