"""Segmentation networks over a backbone against torchvision's modules and the papers' numbers of parameters."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.backbone_unet import BackboneUNet
from zoo.architectures.base import Architecture, Stage, parameter_count
from zoo.architectures.deeplabv3 import DeepLabV3
from zoo.architectures.deeplabv3plus import DeepLabV3Plus
from zoo.architectures.efficientnet_lite import EfficientNetLite0
from zoo.architectures.fcn import FCN
from zoo.architectures.lraspp import LRASPP
from zoo.architectures.segformer import SegFormer
from zoo.architectures.semantic_fpn import SemanticFPN
from zoo.architectures.torchvision import TorchVision
from zoo.architectures.vgg import VGG
from zoo.errors import UserError

DILATED = {"replace_stride_with_dilation": [False, True, True]}
RESNET50 = partial(TorchVision, "resnet50", options=DILATED)
MOBILENET = partial(TorchVision, "mobilenet_v3_large", options={"dilated": True})
SMALL = partial(VGG, depth=11, width=0.0625, norm="batch")
AUX = "network.layer3"
CASES = {
    "fcn_resnet50": (partial(FCN, RESNET50, aux_layer=AUX), "FCN_ResNet50_Weights"),
    "deeplabv3_resnet50": (partial(DeepLabV3, RESNET50, aux_layer=AUX), "DeepLabV3_ResNet50_Weights"),
    "lraspp_mobilenet_v3_large": (
        partial(LRASPP, MOBILENET, ["network.features.4", "network.features.16"]),
        "LRASPP_MobileNet_V3_Large_Weights",
    ),
    "deeplabv3_mobilenet_v3_large": (
        partial(DeepLabV3, MOBILENET, aux_layer="network.features.4"),
        "DeepLabV3_MobileNet_V3_Large_Weights",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_torchvisions(name: str) -> None:
    make, weights = CASES[name]
    published = torchvision.models.get_weight(f"{weights}.COCO_WITH_VOC_LABELS_V1")
    with torch.device("meta"):
        assert parameter_count(make()) == published.meta["num_params"]


def torchvisions(name: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, str]:
    """torchvision's network with random weights and statistics, and the name under which it is loaded from now on."""
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=21, **options)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    full = f"{CASES[name][1]}.COCO_WITH_VOC_LABELS_V1"
    enum = type(torchvision.models.get_weight(full))
    monkeypatch.setattr(enum, "get_state_dict", lambda self, **options: theirs.state_dict())
    return theirs.eval(), full


def resized(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(64, 72), mode="bilinear", align_corners=False)


@torch.no_grad()
def test_torchvisions_deeplabv3_and_fcn_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its auxiliary head is FCN's."""
    theirs, full = torchvisions("deeplabv3_resnet50", monkeypatch, aux_loss=True)
    ours, images = CASES["deeplabv3_resnet50"][0](weights=full).eval(), torch.randn(2, 3, 64, 72)
    expected = theirs(images)
    torch.testing.assert_close(resized(ours(images)), expected["out"], rtol=1e-4, atol=1e-5)
    aux = ours.aux_classifier(ours.backbone.features(images, ours.layers)[AUX])
    torch.testing.assert_close(resized(aux), expected["aux"], rtol=1e-4, atol=1e-5)
    logits, auxiliary = ours.train()(images[..., :32, :32])
    assert logits.shape == auxiliary.shape == (2, 21, 4, 4)


@torch.no_grad()
def test_torchvisions_lraspp_and_its_weights_for_other_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, full = torchvisions("lraspp_mobilenet_v3_large", monkeypatch)
    make = partial(CASES["lraspp_mobilenet_v3_large"][0], weights=full)
    ours, images = make().eval(), torch.randn(2, 3, 64, 72)
    torch.testing.assert_close(resized(ours(images)), theirs(images)["out"], rtol=1e-4, atol=1e-5)
    assert ours.mean == pytest.approx((0.485, 0.456, 0.406))
    other = make(num_classes=4, in_channels=1).eval()
    assert other(images[:, :1]).shape[:2] == (2, 4)
    known = ours.state_dict()
    changed = {n for n, t in other.state_dict().items() if t.shape != known[n].shape or not torch.equal(t, known[n])}
    stem, last = "backbone.network.features.0.0.weight", ("classifier.low_classifier", "classifier.high_classifier")
    assert changed == {stem, *(f"{layer}.{kind}" for layer in last for kind in ("weight", "bias"))}
    assert float(other.classifier.low_classifier.weight.std()) == pytest.approx(0.01, rel=0.3)
    torch.testing.assert_close(other.state_dict()[stem], known[stem].sum(1, keepdim=True))
    with pytest.raises(UserError, match="it holds no LRASPP with these arguments"):
        LRASPP(SMALL, weights=full)  # another backbone than the weights'


def test_classes_of_torchvisions_weights() -> None:
    full = "FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1"
    assert FCN.pretrained_classes({"weights": full})[:2] == ["__background__", "aeroplane"]
    assert FCN.pretrained_classes({}) == []
    with pytest.raises(UserError, match=r"no weights FCN_ResNet5_Weights.*FCN_ResNet50_Weights"):
        FCN(SMALL, weights="FCN_ResNet5_Weights.COCO_WITH_VOC_LABELS_V1")


class Channels(Architecture):
    """A backbone of nothing but 1×1 convolutions of pooled images, with the channels of an encoder of a paper.

    Shape:
        images -> feature maps
    """

    reductions = (4, 8, 16, 32)

    def __init__(self, channels: tuple[int, ...], num_classes: int = 0, in_channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.layers = nn.ModuleList(nn.Conv2d(in_channels, c, 1, bias=False) for c in channels)

    @property
    def stages(self) -> list[Stage]:
        return [Stage(f"layers.{i}", c, r) for i, (c, r) in enumerate(zip(self.channels, self.reductions, strict=True))]

    def forward(self, images: Tensor) -> Any:
        return [layer(F.avg_pool2d(images, r)) for layer, r in zip(self.layers, self.reductions, strict=True)]


@pytest.mark.parametrize(
    ("channels", "width", "millions", "count"),
    [
        ((32, 64, 160, 256), 256, 0.4, 433_302),
        ((64, 128, 320, 512), 256, 0.6, 564_374),
        ((64, 128, 320, 512), 768, 3.3, None),
    ],
)
def test_segformers_head_has_the_papers_parameters(
    channels: tuple[int, ...], width: int, millions: float, count: int | None
) -> None:
    """Table 1 a: the decoders of B0, B1 and B2 with 150 classes."""
    network = SegFormer(partial(Channels, channels), channels=width, num_classes=150)
    head = parameter_count(network) - parameter_count(network.backbone)
    assert round(head / 1e6, 1) == millions
    assert count is None or head == count


@torch.no_grad()
def test_segformers_head_by_hand() -> None:
    """Section 3.2's four steps, the linear layers applied to each pixel's vector."""
    torch.manual_seed(0)
    network = SegFormer(partial(Channels, (2, 3, 4, 5)), channels=6, num_classes=3).eval()
    images = torch.randn(2, 3, 64, 96)
    projected = []
    for found, layer in zip(network.backbone(images), network.project, strict=True):
        linear = found.permute(0, 2, 3, 1) @ layer.weight[:, :, 0, 0].T + layer.bias
        projected.append(F.interpolate(linear.permute(0, 3, 1, 2), size=(16, 24), mode="bilinear"))
    conv, norm, _ = network.fuse
    fused = torch.einsum("bchw,dc->bdhw", torch.cat(projected, 1), conv.weight[:, :, 0, 0])
    expected = network.classifier((fused / (1 + norm.eps) ** 0.5).relu())
    torch.testing.assert_close(network(images), expected)


def test_deeplabv3plus_is_its_papers() -> None:
    """The low-level map to 48 channels, the pyramid of 256 at a quarter of the image, two 3×3 convolutions of 256."""
    network = DeepLabV3Plus(SMALL, num_classes=7).eval()
    assert [network.backbone.stages[2].layer, network.backbone.stages[-1].layer] == network.layers
    rates = [m.dilation[0] for m in network.pyramid.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert rates == [6, 12, 18]
    shapes = {}
    for name in ("pyramid", "reduce", "refine"):
        network.get_submodule(name).register_forward_hook(lambda _m, _a, out, n=name: shapes.update({n: out.shape[1:]}))
    with torch.no_grad():
        assert network(torch.rand(1, 3, 64, 96)).shape == (1, 7, 16, 24)
    assert shapes == {"pyramid": (256, 2, 3), "reduce": (48, 16, 24), "refine": (256, 16, 24)}
    assert parameter_count(network.refine) == 9 * 304 * 256 + 9 * 256 * 256 + 4 * 256


@torch.no_grad()
def test_backbone_unet_takes_each_stage_once_and_any_size() -> None:
    network = BackboneUNet(partial(EfficientNetLite0, weights=None), width=4, num_classes=3).eval()
    assert network.reductions == [16, 8, 4, 2, 1]
    skips = {s.reduction: s.channels for s in network.backbone.stages}
    inputs = [block[0][0].in_channels for block in network.blocks]
    assert inputs == [skips[32] + skips[16], 64 + skips[8], 32 + skips[4], 16 + skips[2], 8]
    assert network(torch.rand(1, 3, 45, 70)).shape == (1, 3, 45, 70)
    assert network.mean == (0.5,)  # the backbone's


@torch.no_grad()
def test_backbone_unets_steps_weigh_feature_maps_of_any_scale_alike() -> None:
    """Feature maps a hundred times as large as the coarsest one don't drown it."""
    torch.manual_seed(0)
    network = BackboneUNet(partial(Channels, (4, 4, 4, 4)), width=2, num_classes=3).train()
    images = 1000 * torch.randn(2, 3, 64, 96)
    expected = network(images)
    for layer in network.backbone.layers[:3]:
        layer.weight *= 100
    torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_semantic_fpn_by_hand() -> None:
    """Two levels, their sums and their refinements; the levels' convolutions as sums over channels."""
    torch.manual_seed(0)
    network = SemanticFPN(partial(Channels, (2, 3, 4, 5)), stride=16, channels=6, num_classes=3).eval()
    assert network.layers == ["layers.3", "layers.2"]
    images = torch.randn(2, 3, 64, 96)
    *_, fine, coarse = network.backbone(images)
    scale = (1 + 1e-5) ** -0.5  # of batch norm in its first state
    coarse, fine = (
        torch.einsum("bchw,dc->bdhw", found, layer[0].weight[:, :, 0, 0]) * scale
        for found, layer in zip((coarse, fine), network.project, strict=True)
    )
    x = coarse.relu()
    x = x + (F.conv2d(x, network.refine[0][0].weight, padding=1) * scale).relu()
    pixels = images.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 1, 4, 5, 2, 3).flatten(1, 3)
    pixels = (F.conv2d(pixels, network.pixels[0].weight, padding=1) * scale).relu()
    x = (fine + pixels + F.interpolate(x, size=(4, 6), mode="bilinear")).relu()
    x = x + (F.conv2d(x, network.refine[1][0].weight, padding=1) * scale).relu()
    logits = network.classifier(x).unflatten(1, (3, 16, 16)).permute(0, 1, 4, 2, 5, 3).reshape(2, 3, 64, 96)
    torch.testing.assert_close(network(images), logits)


@torch.no_grad()
def test_semantic_fpn_takes_any_size_and_fixed_channels() -> None:
    network = SemanticFPN(partial(EfficientNetLite0, weights=None), channels=4, num_classes=3).eval()
    assert network(torch.rand(1, 3, 45, 70)).shape == (1, 3, 45, 70)
    assert SemanticFPN(SMALL, channels=4, num_classes=2).eval()(torch.rand(1, 3, 45, 71)).shape == (1, 2, 45, 71)

    class Fixed(Channels):
        fixed_channels = 3

        def __init__(self, num_classes: int = 0) -> None:
            super().__init__((2, 3, 4, 5))

    network = SemanticFPN(Fixed, stride=4, channels=4, in_channels=1).eval()
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 21, 64, 64)  # a task repeats grey


def test_mistakes_end_in_one_line() -> None:
    coarse = partial(Channels, (2, 3, 4, 5))
    for make, said in (
        (lambda: LRASPP(partial(TorchVision, "resnet18"), ["network.layer9", "network.layer4"]), "no layer"),
        (lambda: DeepLabV3Plus(SMALL, ["layers.relu1_1"]), "a fine and a coarse one, not layers.relu1_1"),
        (lambda: LRASPP(SMALL, ["layers.relu1_1"]), "a fine and a coarse one"),
        (lambda: BackboneUNet(coarse, width=0), "width must be at least 1"),
        (lambda: BackboneUNet(nn.Identity), "not a subclass"),
        (lambda: SemanticFPN(coarse, channels=0), "channels must be at least 1"),
        (lambda: SemanticFPN(coarse), "the reduction of a stage of Channels, 4, 8, 16, 32, not 2"),
    ):
        with pytest.raises(UserError, match=said):
            make()


def test_a_missing_stage_is_said() -> None:
    class Coarse(Channels):
        reductions = (3, 8, 16, 32)

    with pytest.raises(UserError, match="stage of reduction 4, Coarse has 3, 8, 16, 32: give the layers"):
        DeepLabV3Plus(partial(Coarse, (2, 3, 4, 5)))
    with pytest.raises(UserError, match="a stage of reduction 3, not 2ⁿ"):
        BackboneUNet(partial(Coarse, (2, 3, 4, 5)))
