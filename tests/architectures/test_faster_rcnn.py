"""Faster R-CNN and Mask R-CNN over our backbones, against torchvision's own."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import torch
from architectures.detectors import SIZES, pictures, same_as_torchvision, seeded, target, targets
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from zoo.architectures.base import Architecture, parameter_count
from zoo.architectures.cppn import CPPN
from zoo.architectures.efficientnet_lite import EfficientNetLite0
from zoo.architectures.faster_rcnn import FasterRCNN
from zoo.architectures.mask_rcnn import MaskRCNN
from zoo.architectures.resnet import ResNet
from zoo.architectures.timm import Timm
from zoo.architectures.torchvision import TorchVision
from zoo.errors import UserError
from zoo.training.parameter_groups import frozen_norms, split_parameters

SMALL = FasterRCNN.example
CLASSES = 4
RESNET18: Any = {"backbone_name": "resnet18", "weights": None, "norm_layer": nn.BatchNorm2d, "trainable_layers": 5}
SMALL_MASK_HEAD = {"mask_head": MaskRCNNHeads(256, (8, 8), 1), "mask_predictor": MaskRCNNPredictor(8, 8, CLASSES + 1)}


def small(cls: type[FasterRCNN] = FasterRCNN, **options: Any) -> Any:
    torch.manual_seed(0)
    return cls(**{**cls.example, "num_classes": CLASSES, **options})


@pytest.mark.parametrize(
    ("cls", "theirs"),
    [(FasterRCNN, detection.FasterRCNN), (MaskRCNN, partial(detection.MaskRCNN, **SMALL_MASK_HEAD))],
)
def test_equals_torchvision(cls: type[FasterRCNN], theirs: Any) -> None:
    """Losses and detections, and the weights of the one fit the other."""
    narrow = {"mask_head_widths": [8, 8]} if cls is MaskRCNN else {}
    sizes = {"min_size": 64, "max_size": 90}
    few = {"proposals_train": 100, "proposals_test": 50, "box_samples": 32}
    ours = cls(partial(ResNet, depth=18), num_classes=CLASSES, **few, **sizes, **narrow)
    other = theirs(
        resnet_fpn_backbone(**RESNET18),
        **sizes,
        box_predictor=FastRCNNPredictor(1024, CLASSES + 1),
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_pre_nms_top_n_train=100,
        rpn_post_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=50,
        rpn_post_nms_top_n_test=50,
        box_batch_size_per_image=32,
    )
    found = same_as_torchvision(ours, other, background=1, classes=CLASSES)
    assert {int(label) for one in found for label in one["labels"]} <= set(range(CLASSES))
    assert ("masks" in found[0]) == (cls is MaskRCNN)


@pytest.mark.parametrize(
    ("cls", "weights"),
    [
        (FasterRCNN, detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1),
        (MaskRCNN, detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1),
    ],
)
def test_parameters(cls: type[FasterRCNN], weights: Any) -> None:
    """torchvision's number at 90 classes, for which it has frozen the backbone's normalisation."""
    with torch.device("meta"):
        network = cls(partial(ResNet, depth=50), num_classes=90)
    norms = sum(parameter_count(m) for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert parameter_count(network) - norms == weights.meta["num_params"]
    assert f"{parameter_count(network):,}" in (cls.__doc__ or "")


@pytest.mark.parametrize("cls", [FasterRCNN, MaskRCNN])
def test_arguments_reach_torchvisions_parts(cls: type[FasterRCNN]) -> None:
    numbers = {
        "box_samples": 48,
        "anchor_samples": 128,
        "proposals_train": 70,
        "proposals_test": 60,
        "score_threshold": 0.15,
        "nms_threshold": 0.45,
        "detections_per_image": 7,
        "pooled_levels": 1,
    }
    made = small(cls, **numbers, extra_level=False, anchor_sizes=[8, 16], aspect_ratios=[1.0])
    rpn, heads = made.network.rpn, made.network.roi_heads
    assert (rpn.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.batch_size_per_image) == (128, 48)
    assert rpn._pre_nms_top_n == rpn._post_nms_top_n == {"training": 70, "testing": 60}
    assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.15, 0.45, 7)
    assert heads.box_roi_pool.scales == [0.5]
    assert rpn.anchor_generator.cell_anchors[1].tolist() == [[-8, -8, 8, 8]]
    assert heads.box_head.fc7.out_features == SMALL["box_head_width"]
    assert made.network.backbone.out_channels == SMALL["pyramid_channels"]


@pytest.mark.parametrize(
    "backbone",
    [
        partial(ResNet, depth=18, width=0.125),
        partial(Timm, "test_efficientnet"),
        partial(TorchVision, "shufflenet_v2_x0_5"),
        partial(EfficientNetLite0, weights=None),
    ],
)
def test_any_backbone_and_channels(backbone: Any) -> None:
    made = small(MaskRCNN, backbone=backbone, in_channels=2, levels=[4, 8, 16, 32], anchor_sizes=[8, 16, 32, 48, 64])
    images = pictures(channels=2)
    losses = made(images, targets((2, 0), CLASSES))
    sum(losses.values()).backward()
    assert {name for name, p in made.named_parameters() if p.grad is None} == set()
    found = made.eval()(images)
    for one, size in zip(found, SIZES, strict=True):
        assert one["masks"].shape == (len(one["labels"]), *size)
        assert len(one["boxes"]) == len(one["scores"]) > 0


def test_the_setting_for_small_scenes() -> None:
    """A pyramid of 64 channels over EfficientNet-Lite0, with a finer level for masks, in plain arguments."""
    made = MaskRCNN(
        partial(EfficientNetLite0, weights=None),
        num_classes=13,
        levels=[4, 8, 16, 32],
        extra_level=False,
        pyramid_channels=64,
        anchor_sizes=[16, 24, 36, 52],
        min_size=None,
        pooled_levels=3,
        box_head_width=256,
        mask_head_widths=[64, 64],
        box_samples=48,
        anchor_samples=128,
    )
    assert made.network.roi_heads.mask_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16]
    assert (made.mean, made.std) == ((0.5,), (0.5,))
    losses = made([torch.randn(3, 128, 128)], [target(2, (128, 128), 13)])
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())


def test_boxes_of_no_area_are_left_out() -> None:
    """Losses are those of the same targets without them."""
    made, images, given = small(MaskRCNN), pictures(), targets((2, 1), CLASSES)
    flat = torch.tensor([[5.0, 5.0, 5.0, 20.0], [7.0, 9.0, 3.0, 12.0]])
    more = [
        {
            "boxes": torch.cat([one["boxes"][:1], flat, one["boxes"][1:]]),
            "labels": torch.cat([one["labels"][:1], torch.tensor([0, 3]), one["labels"][1:]]),
            "masks": torch.cat([one["masks"][:1], one["masks"][:1], one["masks"][:1], one["masks"][1:]]),
            "iscrowd": torch.zeros(len(one["labels"]) + 2, dtype=torch.bool),
        }
        for one in given
    ]
    torch.testing.assert_close(seeded(lambda: made(images, more)), seeded(lambda: made(images, given)))
    only = [{"boxes": flat, "labels": torch.tensor([0, 1]), "masks": torch.zeros(2, *size).bool()} for size in SIZES]
    assert all(bool(torch.isfinite(loss)) for loss in made(images, only).values())


def test_targets_stay_as_they_are() -> None:
    made, given = small(min_size=40, max_size=60), targets((2, 1), CLASSES)
    before = [{name: value.clone() for name, value in one.items()} for one in given]
    made(pictures(), given)
    torch.testing.assert_close(given, before)


def test_the_first_images_do_not_set_the_scale_for_later_ones() -> None:
    """torchvision would estimate a scale of 1/2 for a 34-pixel image padded to 64, and keep it."""
    backbone = partial(ResNet, depth=18, width=0.125)
    options = {"backbone": backbone, "levels": [4, 8, 16, 32], "anchor_sizes": [8, 16, 32, 48, 64], "box_head_width": 8}
    first, second = small(**options).eval(), small(**options).eval()
    images = pictures(((128, 128),))
    first(pictures(((34, 34),)))
    torch.testing.assert_close(first(images), second(images), atol=0, rtol=0)
    assert first.network.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def test_anchors_are_exact_in_mixed_precision() -> None:
    made = small(backbone=partial(ResNet, depth=8, width=0.0625), aspect_ratios=[1.0]).eval()
    seen: list[torch.Tensor] = []
    made.network.rpn.anchor_generator.register_forward_hook(lambda _m, _a, out: seen.append(out[0]))
    with torch.autocast("cpu", torch.bfloat16):
        found = made(pictures(((8, 600),)))
    assert seen[0].dtype == found[0]["boxes"].dtype == torch.float32
    centres = (seen[0][: 4 * 300, 0] + seen[0][: 4 * 300, 2]) / 2
    assert centres.unique().tolist() == list(range(0, 600, 2))


@pytest.mark.parametrize(
    ("pattern", "frozen"),
    [
        (r"backbone\.body\.(conv1|bn1|layer1)\.", (r"^(conv1|bn1|layer1)\.",)),
        (r"backbone\.body\..*(bn\d|shortcut\.1)\.", (r"bn\d\.", r"shortcut\.1\.")),
        (r"backbone\.body", ("",)),
    ],
)
def test_a_backbone_freezes_by_parameter_groups_alone(pattern: str, frozen: tuple[str, ...]) -> None:
    """By stages, by its normalisation, or all: what is frozen does not move, nor do its running statistics."""
    made = small(backbone=partial(ResNet, depth=8, width=0.25))
    groups: Any = [{"pattern": pattern, "frozen": True}]
    parameters = [p for group in split_parameters(made, groups) for p in group["params"]]
    for norm in frozen_norms(made, groups):
        norm.eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    sum(made(pictures(), targets((2, 1), CLASSES)).values()).backward()
    optimizer.step()
    body, rests = "network.backbone.body.", []
    for name, value in made.state_dict().items():
        if not name.startswith(body):
            continue
        rests.append(torch.equal(value, before[name]))
        assert rests[-1] == any(re.search(part, name.removeprefix(body)) for part in frozen), name
    assert any(rests)


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"levels: ResNet has no stage of reduction 8, only of 1, 2, 4"):
        small(levels=[2, 4, 8])
    with pytest.raises(UserError, match=r"levels must be reductions, each twice the one before, not \[1, 4\]"):
        small(levels=[1, 4])
    with pytest.raises(UserError, match=r"anchor_sizes: expected one for each of 3 levels, got \[8, 16\]"):
        small(anchor_sizes=[8, 16])
    with pytest.raises(UserError, match=r"pooled_levels must be from 1 to 2, the number of levels, not 3"):
        small(pooled_levels=3)
    with pytest.raises(UserError, match=r"min_size must be from 1 to max_size, which is 600, not 800"):
        small(min_size=800, max_size=600)
    with pytest.raises(UserError, match=r"A feature pyramid needs an architecture of the role backbone, not CPPN"):
        small(backbone=CPPN)
    with pytest.raises(UserError, match=r"MaskRCNN is trained with masks, which the targets do not have"):
        small(MaskRCNN)(pictures(), [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}] * 2)


def test_it_has_the_backbones_statistics() -> None:
    class Shifted(ResNet):
        mean, std = (0.3,), (0.2,)

    made = small(backbone=partial(Shifted, depth=8, width=0.25))
    assert isinstance(made, Architecture)
    assert isinstance(made, nn.Module)
    assert (made.mean, made.std, made.fixed_channels) == ((0.3,), (0.2,), None)
