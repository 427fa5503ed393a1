"""Every network of torchvision, and the smallest of each family of timm, as a classifier and as a backbone.

A ring of its own, since it takes minutes: ``pytest -m networks tests/networks``. Small networks run in numbers, where
the backbone must give what the classifier's last stage gives with the same weights. Of those with more than ``NUMBERS``
parameters, shapes alone are computed (torch's device ``meta``), so that none is too large.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import pytest
import timm
import torch
import torchvision
from timm.models import _registry
from torch import Tensor

from zoo.architectures.base import Architecture, parameter_count
from zoo.architectures.timm import Timm
from zoo.architectures.torchvision import TorchVision
from zoo.architectures.weights import load_tensors

pytestmark = pytest.mark.networks

CLASSES = 7
NUMBERS = 8_000_000
# timm does not call their size fixed.
WHOLE_SIZE = ("crossvit", "deepseek_vit", "inception_resnet_v2", "inception_v3", "inception_v4")
IN_NUMBERS = ("gemma4_vit",)  # it reads positions from its tensors, which have shapes alone on ``meta``
SMALL = (
    "test",
    "atto",
    "femto",
    "pico",
    "zepto",
    "nano",
    "xxs",
    "_xs",
    "micro",
    "mini",
    "tiny",
    "_t",
    "small",
    "_s",
    "base",
    "_b",
)
TORCHVISION = torchvision.models.list_models(module=torchvision.models)
FAMILIES: defaultdict[str, list[str]] = defaultdict(list)
for _name in timm.list_models():
    FAMILIES[_registry._model_to_module[_name]].append(_name)


def check(make: partial[Architecture], size: tuple[int, int], device: str) -> None:
    """The contract of a network for images of this size, in numbers or in shapes."""
    torch.manual_seed(0)
    with torch.device(device):
        classifier, backbone = (make(num_classes=classes).eval() for classes in (CLASSES, 0))
        images = torch.rand(2, 3, *size)
    own, given = backbone.state_dict(), classifier.state_dict()
    assert set(own) < set(given), "a classifier's checkpoint does not fit the backbone, or its last layer is in there"
    if device == "cpu":
        load_tensors(backbone, given, whole=True)
    logits, maps, last, alone = (
        classifier(images),
        classifier.features(images),
        backbone(images),
        backbone.features(images),
    )
    assert logits.shape == (2, CLASSES)
    stages = classifier.stages
    assert [*stages] == [*backbone.stages]
    reductions = [stage.reduction for stage in stages]
    assert reductions == sorted(set(reductions))
    for stage in stages:
        assert maps[stage.layer].shape[:2] == (2, stage.channels)
        for cells, pixels in zip(maps[stage.layer].shape[2:], size, strict=True):
            assert abs(cells - pixels / stage.reduction) <= max(1.5, 0.1 * cells), (
                f"{stage}: {cells} of {pixels} pixels"
            )
        same(alone[stage.layer], maps[stage.layer])
    same(last, maps[stages[-1].layer])


def same(found: Tensor, expected: Tensor) -> None:
    """Equal numbers, or shapes where there are none."""
    assert found.shape == expected.shape
    if found.device.type != "meta":
        assert found.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def device_for(parameters: int) -> str:
    return "cpu" if parameters <= NUMBERS else "meta"


@pytest.mark.parametrize("name", TORCHVISION)
@torch.no_grad()
def test_torchvision(name: str) -> None:
    count = next(iter(torchvision.models.get_model_weights(name))).meta["num_params"]
    built_for_one = name.startswith(("vit_", "maxvit"))
    pixels = 224 if built_for_one else 299 if name == "inception_v3" else 128  # its layers do not pad
    size = pixels, pixels
    make = partial(TorchVision, name, image_size=list(size) if built_for_one else None)
    check(make, size, device_for(count) if not name.startswith("regnet") else "cpu")


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_timm(family: str) -> None:
    count, name = smallest(FAMILIES[family])
    cfg = timm.get_pretrained_cfg(name)
    built_for_one = cfg.fixed_input_size or family in WHOLE_SIZE
    device = "cpu" if family in IN_NUMBERS else device_for(count)
    check(partial(Timm, name), tuple(cfg.input_size[1:]) if built_for_one else (128, 128), device)


def smallest(names: list[str]) -> tuple[int, str]:
    """Parameters and name of the smallest network, of the few whose names promise the smallest."""
    found = []
    for name in sorted(names, key=_promise)[:3]:
        with torch.device("meta"):
            found.append((parameter_count(timm.create_model(name)), name))
    return min(found)


def _promise(name: str) -> int:
    return next((i for i, word in enumerate(SMALL) if word in name), len(SMALL))
