"""Detectors as tensors in and tensors out, against the same detectors called with lists; and their exported files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures.detectors import enliven
from torch import Tensor

from zoo.architectures.detector import Detector
from zoo.architectures.faster_rcnn import FasterRCNN
from zoo.architectures.fcos import FCOS
from zoo.architectures.mask_rcnn import MaskRCNN
from zoo.architectures.retinanet import RetinaNet
from zoo.architectures.ssdlite import SSDlite
from zoo.export import write
from zoo.export_formats import RUNNERS, SUFFIXES
from zoo.facts import Facts
from zoo.tasks.detection import Detection
from zoo.tasks.exported import detections_apart
from zoo.tasks.instance_segmentation import InstanceSegmentation

SIZE = (64, 80)
DETECTORS = [FasterRCNN, MaskRCNN, RetinaNet, FCOS, SSDlite]
FACTS = Facts(num_classes=3, class_names=["cat", "dog", "bird"], in_channels=3, image_size=[32, 40])


def small(cls: type[Detector], **options: Any) -> Detector:
    torch.manual_seed(0)
    made = cls(**{**cls.example, "num_classes": 3, "score_threshold": 0.05, **options})
    enliven(made.network)
    return made.eval()


@pytest.mark.parametrize("min_size", [None, 48])
@pytest.mark.parametrize("cls", DETECTORS)
@torch.no_grad()
def test_detections_are_those_of_the_list(cls: type[Detector], min_size: int | None) -> None:
    """In the image's own pixels where it is resized and padded, too."""
    sizes = {"size": min_size or 64} if cls is SSDlite else {"min_size": min_size}
    made, image = small(cls, **sizes), torch.randn(3, *SIZE)
    (expected,) = made([image])
    found = made.traceable(SIZE)(image[None])
    assert len(expected["scores"]) > 5
    for values, name in zip(found, ("boxes", "scores", "labels", "masks"), strict=False):
        torch.testing.assert_close(values, expected[name], atol=1e-4, rtol=1e-5)
    assert len(found) == len(expected)


@torch.no_grad()
def counted(made: Detector) -> dict[int, Tensor]:
    """Images by how many objects are found in them: none, one, and several (2); the threshold is set between scores."""
    settings = made.network.roi_heads if isinstance(made, FasterRCNN) else made.network
    settings.score_thresh = 0.0
    noise = torch.randn(3, 32, 40, generator=torch.Generator().manual_seed(1))
    images = [noise * factor for factor in torch.linspace(0, 3, 31)]
    best = [made([image])[0]["scores"][:2].tolist() for image in images]
    settings.score_thresh = sum(sorted(best)[len(best) // 2]) / 2
    return {sum(score > settings.score_thresh for score in pair): i for pair, i in zip(best, images, strict=True)}


@pytest.mark.parametrize(
    ("cls", "format"),
    [(RetinaNet, "onnx"), pytest.param(FasterRCNN, "onnx", marks=pytest.mark.slow), (MaskRCNN, "torch_export")],
)
def test_files_find_none_one_and_several_objects(cls: Any, format: Any, tmp_path: Path) -> None:
    network = {"extra_levels": False, "anchor_sizes": [8]} if cls is RetinaNet else {}
    task = (InstanceSegmentation if cls is MaskRCNN else Detection)(cls, facts=FACTS)
    task.architecture = made = small(cls, **network, detections_per_image=4)  # type: ignore[assignment]
    task._built = True
    images, path = counted(made), tmp_path / f"net{SUFFIXES[format]}"
    assert set(images) == {0, 1, 2}
    written = write(task, path, format)
    names = [port.name for port in written.outputs]
    assert names == ["boxes", "scores", "labels", *(["masks"] if cls is MaskRCNN else [])]
    assert written.inputs[0].shape == [1, 3, 32, 40]
    run = RUNNERS[format](path)
    for image in images.values():
        with torch.no_grad():
            (expected,) = made([image])
        found = run({"images": image[None]})
        for name, values in zip(names, found, strict=True):
            torch.testing.assert_close(values, expected[name], atol=1e-2, rtol=1e-3)


def test_how_far_detections_are_apart() -> None:
    """Almost equal ones in another order are the same; others, or other labels, are not."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 50.0]])
    scores, labels = torch.tensor([0.9, 0.8999]), torch.tensor([1, 2])
    turned = boxes.flip(0) + 0.01, scores, labels.flip(0)
    assert detections_apart((boxes, scores, labels), turned) == 0
    assert detections_apart((boxes, scores, labels), (boxes, scores, labels.flip(0))) == 1
    assert detections_apart((boxes, scores, labels), (boxes + 3, scores, labels)) == 1
    assert detections_apart((boxes[:1], scores[:1], labels[:1]), (boxes, scores, labels)) == 0.5
    assert detections_apart((boxes[:0], scores[:0], labels[:0]), (boxes[:0], scores[:0], labels[:0])) == 0
    assert detections_apart((boxes[:0], scores[:0], labels[:0]), (boxes, scores, labels)) == 1
