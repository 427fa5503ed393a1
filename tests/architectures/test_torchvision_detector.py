"""torchvision's detectors by name, with weights of COCO, against torchvision's own."""

from __future__ import annotations

from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from architectures.detectors import pictures, same_as_torchvision, targets
from torch import Tensor
from torchvision.models import detection

from zoo.architectures.base import parameter_count, skip_pretrained
from zoo.architectures.ssdlite import NAME, SSDlite
from zoo.architectures.torchvision_detector import TorchVisionDetector
from zoo.architectures.torchvision_instance_segmenter import TorchVisionInstanceSegmenter
from zoo.errors import UserError

SMALL_RCNN = "fasterrcnn_mobilenet_v3_large_320_fpn"
CATEGORIES = detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
MISSING = [i for i, name in enumerate(CATEGORIES) if name == "N/A"]


def test_ssdlite_equals_torchvision() -> None:
    """Losses and detections with the same weights, at torchvision's size."""
    torch.manual_seed(0)
    theirs = detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=5, image_mean=[0.0] * 3, image_std=[1.0] * 3
    )
    found = same_as_torchvision(SSDlite(num_classes=4), theirs, background=1, classes=4)
    assert {int(label) for one in found for label in one["labels"]} <= set(range(4))


def test_parameters_of_ssdlite() -> None:
    with torch.device("meta"):
        count = parameter_count(SSDlite(num_classes=90))
    assert count == detection.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta["num_params"]
    assert f"{count:,}" in (SSDlite.__doc__ or "")


def test_ssdlite_takes_another_size_and_channels() -> None:
    made = SSDlite(num_classes=2, in_channels=1, size=96, detections_per_image=3)
    images = pictures(channels=1)
    assert all(bool(torch.isfinite(loss)) for loss in made(images, targets((2, 0), 2)).values())
    found = made.eval()(images)
    assert all(len(one["scores"]) == 3 for one in found)
    assert made.network.transform(images)[0].tensors.shape == (2, 1, 96, 96)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Tensor]]:
    """What the server would answer: tensors of random networks in which classes that do not exist have no score."""
    made: dict[str, dict[str, Tensor]] = {}

    def answer(weights: Any, *_: Any, **__: Any) -> dict[str, Tensor]:
        name = NAME if "SSD" in type(weights).__name__ else SMALL_RCNN
        if name not in made:
            torch.manual_seed(1)
            network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=91)
            heads = [m for n, m in network.named_modules() if n.endswith("cls_score") or "classification_head" in n]
            for layer in (m for m in heads if getattr(m, "bias", None) is not None and len(m.bias) % 91 == 0):
                with torch.no_grad():
                    layer.weight.normal_(std=0.1)
                    layer.bias.view(-1, 91)[:, MISSING] = -1e4
            made[name] = network.state_dict()
        return made[name]

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", answer)
    return made


@torch.no_grad()
def test_pretrained_detections_are_torchvisions_with_labels_from_0(fetched: Any) -> None:
    images = [image.sigmoid() for image in pictures()]
    ours = SSDlite(weights="COCO_V1").eval()
    theirs = torchvision.models.get_model(NAME, weights=None, weights_backbone=None, num_classes=91)
    theirs.load_state_dict(fetched[NAME])
    assert (ours.mean, ours.std) == ((0.5,) * 3, (0.5,) * 3)
    found, expected = ours([(image - 0.5) / 0.5 for image in images]), theirs.eval()(images)
    names = SSDlite.pretrained_classes({"weights": "COCO_V1"})
    assert (len(names), names[0], names[-1]) == (80, "person", "toothbrush")
    for one, other in zip(found, expected, strict=True):
        assert len(one["labels"]) > 10
        torch.testing.assert_close(one["scores"], other["scores"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one["boxes"], other["boxes"], atol=1e-2, rtol=1e-4)
        assert [names[k] for k in one["labels"]] == [CATEGORIES[k] for k in other["labels"]]


@torch.no_grad()
def test_the_heads_of_two_stages_keep_the_rows_of_classes_that_exist(fetched: Any) -> None:
    ours = TorchVisionDetector(SMALL_RCNN, weights="COCO_V1")
    torch.testing.assert_close(ours.mean, (0.485, 0.456, 0.406))
    features, given, head = torch.randn(3, 1024), fetched[SMALL_RCNN], "roi_heads.box_predictor"
    logits, deltas = ours.network.roi_heads.box_predictor(features)
    every = [
        torch.nn.functional.linear(features, given[f"{head}.{part}.weight"], given[f"{head}.{part}.bias"])
        for part in ("cls_score", "bbox_pred")
    ]
    rows = [i for i, name in enumerate(CATEGORIES) if name != "N/A"]
    torch.testing.assert_close(logits, every[0][:, rows])
    torch.testing.assert_close(deltas, every[1].view(3, 91, 4)[:, rows].flatten(1))


def test_other_classes_get_new_last_layers(fetched: Any) -> None:
    made = TorchVisionDetector(SMALL_RCNN, weights="DEFAULT", num_classes=5).network.state_dict()
    given = fetched[SMALL_RCNN]
    other = {n for n, t in made.items() if n in given and not torch.equal(t, given[n])}
    predictor = "roi_heads.box_predictor."
    assert other == {
        predictor + n for n in ("cls_score.weight", "cls_score.bias", "bbox_pred.weight", "bbox_pred.bias")
    }
    assert len(made[f"{predictor}cls_score.bias"]) == 6


def test_a_checkpoint_needs_no_internet_and_the_first_run_says_what_it_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise URLError("name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(
        UserError, match=r"weights SSDLite320_.*COCO_V1 could not be fetched from https://download"
    ) as e:
        SSDlite(weights="COCO_V1")
    assert "\n" not in str(e.value)
    with skip_pretrained():
        made = SSDlite(weights="COCO_V1", num_classes=3)
    assert made.mean == (0.5, 0.5, 0.5)


def test_the_first_coco_weights_have_no_epsilon() -> None:
    with skip_pretrained(), torch.device("meta"):
        first, second = (
            TorchVisionDetector(f"fasterrcnn_resnet50_fpn{v}", weights="COCO_V1").network.backbone.body.bn1.eps
            for v in ("", "_v2")
        )
    assert (first, second) == (0.0, 1e-5)


@pytest.mark.parametrize("name", torchvision.models.list_models(module=detection))
def test_every_detector_is_built(name: str) -> None:
    with torch.device("meta"):
        if name.startswith("keypoint"):
            with pytest.raises(UserError, match="no detector keypoint"):
                TorchVisionDetector(name)
            return
        masks = name.startswith("mask")
        made = (TorchVisionInstanceSegmenter if masks else TorchVisionDetector)(name, num_classes=3, in_channels=2)
        with pytest.raises(UserError, match=f"{name}: give it to "):
            (TorchVisionDetector if masks else TorchVisionInstanceSegmenter)(name)
    assert made.network.training
    assert made.traced_size is not None


def test_mask_rcnn_by_name_equals_torchvision() -> None:
    """Losses and detections with masks, with the same weights."""
    options = {**TorchVisionInstanceSegmenter.example["options"], "box_score_thresh": 0.0}
    theirs = torchvision.models.get_model(
        "maskrcnn_resnet50_fpn", weights=None, weights_backbone=None, num_classes=5, **options,
        image_mean=[0.0] * 3, image_std=[1.0] * 3,
    )  # fmt: skip
    ours = TorchVisionInstanceSegmenter(num_classes=4, options=options)
    found = same_as_torchvision(ours, theirs, background=1, classes=4)
    assert all(one["masks"].shape[1:] == image.shape[-2:] for one, image in zip(found, pictures(), strict=True))


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"no detector fasterrcnn_resnet5; did you mean .*fasterrcnn_resnet50_fpn"):
        TorchVisionDetector("fasterrcnn_resnet5")
    with pytest.raises(UserError, match=r"no weights COCO of .*; there are: COCO_V1, DEFAULT"):
        TorchVisionDetector(SMALL_RCNN, weights="COCO")
    with pytest.raises(UserError, match=r"options can't have num_classes"):
        TorchVisionDetector(SMALL_RCNN, options={"num_classes": 3})
    with pytest.raises(UserError, match=r"has no option box_score; did you mean .*box_score_thresh"):
        TorchVisionDetector(SMALL_RCNN, options={"box_score": 3})
    with pytest.raises(UserError, match=r"can't build .* with rpn_anchor_generator 3: "):
        TorchVisionDetector(SMALL_RCNN, options={"rpn_anchor_generator": 3})
