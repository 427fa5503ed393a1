"""RetinaNet and FCOS over our backbones, against torchvision's own."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from architectures.detectors import SIZES, pictures, same_as_torchvision, targets
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from zoo.architectures.base import parameter_count
from zoo.architectures.detector import Detector
from zoo.architectures.efficientnet_lite import EfficientNetLite0
from zoo.architectures.fcos import FCOS
from zoo.architectures.resnet import ResNet
from zoo.architectures.retinanet import RetinaNet
from zoo.architectures.timm import Timm
from zoo.errors import UserError

CLASSES = 4
BOTH = [(RetinaNet, detection.RetinaNet), (FCOS, detection.FCOS)]


def small(cls: type[Detector], **options: Any) -> Any:
    torch.manual_seed(0)
    return cls(**{**cls.example, "num_classes": CLASSES, **options})


@pytest.mark.parametrize(("cls", "theirs"), BOTH)
def test_equals_torchvision(cls: Any, theirs: Any) -> None:
    """Losses and detections, and the weights of the one fit the other; labels are the same from 0."""
    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 90}
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    # At a threshold that any network's detections pass: this one's are those of random weights.
    other = theirs(backbone, CLASSES, image_mean=[0.0] * 3, image_std=[1.0] * 3, score_thresh=1e-6, **sizes)
    ours = cls(partial(ResNet, depth=18), num_classes=CLASSES, score_threshold=1e-6, **sizes)
    found = same_as_torchvision(ours, other, background=0, classes=CLASSES)
    labels = {int(label) for one in found for label in one["labels"]}
    assert labels <= set(range(CLASSES))


@pytest.mark.parametrize(
    ("cls", "weights"),
    [
        (RetinaNet, detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1),
        (FCOS, detection.FCOS_ResNet50_FPN_Weights.COCO_V1),
    ],
)
def test_parameters(cls: Any, weights: Any) -> None:
    """torchvision's number at 91 classes, for which it has frozen the backbone's normalisation."""
    with torch.device("meta"):
        network = cls(partial(ResNet, depth=50), num_classes=91)
    norms = sum(parameter_count(m) for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert parameter_count(network) - norms == weights.meta["num_params"]
    assert f"{parameter_count(network):,}" in cls.__doc__


def test_arguments_reach_torchvisions_parts() -> None:
    numbers = {"score_threshold": 0.15, "nms_threshold": 0.45, "detections_per_image": 7, "candidates": 50}
    for cls in (RetinaNet, FCOS):
        network = small(cls, **numbers).network
        assert (network.score_thresh, network.nms_thresh) == (0.15, 0.45)
        assert (network.detections_per_img, network.topk_candidates) == (7, 50)
    anchors = small(RetinaNet, extra_levels=False, anchor_sizes=[16], anchors_per_octave=2, aspect_ratios=[1.0])
    assert anchors.network.anchor_generator.sizes == ((16, 22),)
    fcos = small(FCOS, extra_levels=True, head_depth=2, center_radius=2.5).network
    assert fcos.anchor_generator.sizes == ((2,), (4,), (8,), (16,))
    assert len(fcos.head.classification_head.conv) == 6
    assert fcos.center_sampling_radius == 2.5


@pytest.mark.parametrize("cls", [RetinaNet, FCOS])
@pytest.mark.parametrize("backbone", [partial(Timm, "test_efficientnet"), partial(EfficientNetLite0, weights=None)])
def test_any_backbone_and_channels(cls: Any, backbone: Any) -> None:
    sizes = {"anchor_sizes": [16, 32, 64]} if cls is RetinaNet else {}
    made = small(cls, backbone=backbone, in_channels=2, levels=[8, 16, 32], extra_levels=False, **sizes)
    images = pictures(channels=2)
    sum(made(images, targets((3, 2), CLASSES)).values()).backward()
    assert {name for name, p in made.named_parameters() if p.grad is None} == set()
    assert len(made.eval()(images)) == len(SIZES)


@pytest.mark.parametrize("cls", [RetinaNet, FCOS])
def test_boxes_are_exact_in_mixed_precision(cls: Any) -> None:
    made = small(cls, score_threshold=0.0).eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = made(pictures(((8, 600),)))[0]["boxes"]
    assert found.dtype == torch.float32
    assert len(found[found[:, 0] > 256]) > 10
    assert not torch.equal(found, found.bfloat16().float())


@pytest.mark.parametrize("cls", [RetinaNet, FCOS])
def test_no_objects_at_all_give_finite_gradients(cls: Any) -> None:
    made = small(cls)
    sum(made(pictures(), targets((0, 0), CLASSES)).values()).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in made.parameters() if p.grad is not None)


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"anchor_sizes: expected one for each of 3 levels, got \[8, 16\]"):
        small(RetinaNet, anchor_sizes=[8, 16])
    with pytest.raises(UserError, match=r"FCOS: pyramid_channels must be a multiple of 32, not 48"):
        small(FCOS, pyramid_channels=48)
