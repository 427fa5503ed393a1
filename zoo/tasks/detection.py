"""Object detection: boxes, classes and confidences.

The losses are the network's own. A picture is predicted at its own size; the network resizes it as it needs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.optim import AdamW
from torchmetrics import MeanMetric

from zoo import drawing
from zoo.architectures.base import Architecture
from zoo.drawing import Boxes, Overlay, Table
from zoo.drawing_objects import draw_objects, side_by_side
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts, class_index, class_names
from zoo.functional.detection_views import Detections, DetectionViews, best
from zoo.metrics.coco import Kind
from zoo.metrics.detection import MISSING, NOT_LOGGED, DetectionMetrics
from zoo.metrics.detection_pictures import detection_pictures
from zoo.metrics.samples import Samples
from zoo.tasks.base import Task
from zoo.tasks.detected import Detected, binary, category_ids, detected, write_coco, write_yolo
from zoo.tasks.judged import Judged, judge, worst_images
from zoo.tasks.normalize import Normalize
from zoo.tasks.shown import keep_shown
from zoo.training.parameter_groups import ParameterGroup

Target = Mapping[str, Tensor]
Batch = tuple[Sequence[Tensor], Sequence[Target]]
MOST = 100  # objects of a picture that are evaluated, as in COCO
SHOWN = 16  # images with the lowest AP that are shown
LISTED = 100  # up to so many classes, each class's metrics are logged


class Detection(Task):
    """Trains a network to find objects: their boxes and classes.

    Args:
        architecture: the detector, from a list of images to losses in training, else to detections.
        optimizer: any optimiser of torch or of a plugin.
        scheduler: learning-rate scheduler; one that takes ``total_steps`` is stepped after every optimiser step.
        loss_weights: factors of the network's losses by name; 1 where left out.
        score_threshold: least confidence of an object that is predicted and drawn; evaluation counts all.
        max_objects: largest number of objects in a picture.
        shown_classes: names or numbers of the classes that are predicted and drawn; all if left out.
        flip: see pictures mirrored, too, at test and prediction, unless the data declares that a mirror image has
            another class.
        scales: factors of the picture's size at test and prediction; each is one more view.
        window: side in pixels of overlapping windows in which larger pictures are seen, too, at test and prediction.
        window_overlap: share of a window that its neighbour sees, too.
        merge_iou: overlap of boxes of one class in different views above which only the best is kept.
        voc: give VOC's average precision, too, by its rules of 2007 and of 2010.
        parameter_groups: groups of the architecture's parameters with settings of their own.
        weights: a checkpoint whose tensors are loaded where name and shape agree.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        list of images (C, H, W) in [0, 1] of any sizes -> list of dictionaries with ``boxes`` (N, 4) as x1 y1 x2 y2 in
        pixels, ``scores`` (N,) and ``labels`` (N,). Objects of a target that are ``iscrowd``, or whose box has no area,
        are not trained on.
    """

    batch = "detection"
    overlap_of: ClassVar[Kind] = "boxes"  # what overlaps in the analysis of a test
    needs = ("num_classes", "in_channels")
    monitor = "val/map"
    monitor_mode = "max"
    predict_view = "native"
    may_change = (
        "score_threshold",
        "max_objects",
        "shown_classes",
        "flip",
        "scales",
        "window",
        "window_overlap",
        "merge_iou",
        "voc",
    )  # used at test and prediction only
    example: ClassVar[dict[str, Any]] = {"score_threshold": 0.3}

    def __init__(
        self,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory = AdamW,
        scheduler: SchedulerFactory | None = None,
        loss_weights: dict[str, float] | None = None,
        score_threshold: float = 0.5,
        max_objects: int = MOST,
        shown_classes: list[str] | None = None,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        window: int | None = None,
        window_overlap: float = 0.2,
        merge_iou: float = 0.6,
        voc: bool = False,
        parameter_groups: list[ParameterGroup] | None = None,
        weights: str | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        _check_range("score_threshold", score_threshold, 0, 1)
        _check_range("window_overlap", window_overlap, 0, 0.9)
        _check_range("merge_iou", merge_iou, 0, 1)
        if not scales or min(scales) <= 0:
            raise UserError(f"model.scales must be factors above 0, not {list(scales)}")
        for name, value, least in (("max_objects", max_objects, 1), ("window", window, 16)):
            if value is not None and value < least:
                raise UserError(f"model.{name} must be at least {least}, not {value}")
        self.loss_weights, self.voc = dict(loss_weights or {}), voc
        self.score_threshold, self.max_objects, self.shown_classes = score_threshold, max_objects, shown_classes
        self._found: list[Detections] = []
        self._worst: list[Judged] = []
        self._samples: Samples | None = None
        self.views = DetectionViews(flip, tuple(scales), window, window_overlap, merge_iou, max_objects)

    # Network

    def build(self) -> None:
        """Build the network, its normalisation and the metrics."""
        _refuse_rounded_boxes(self)
        self.architecture: Architecture = self.make("architecture", needs=("num_classes",))
        self.normalize = Normalize(self.architecture, self.facts)
        self._shown_labels = [class_index(str(name), self.class_names) for name in self.shown_classes or ()]
        self.train_loss = MeanMetric(dist_sync_on_step=True)
        self.val_metrics, self.test_metrics = self.new_metrics(), self.new_metrics()

    def new_metrics(self) -> DetectionMetrics:
        """The metrics of an evaluation."""
        return DetectionMetrics(self.facts["num_classes"], voc=self.voc)

    @property
    def class_names(self) -> list[str]:
        """Class names from the facts, else the classes' numbers."""
        return class_names(self.facts)

    def forward(self, images: Sequence[Tensor]) -> list[Detections]:
        """Each image's detections as the network gives them, in its own pixels."""
        return self.architecture(self.normalize(list(images)))

    def detect(self, images: Sequence[Tensor], views: DetectionViews | None = None) -> list[Detections]:
        """The detections of images; by default in one view.

        Args:
            images: in [0, 1], each (C, H, W).
            views: test-time views; those at test and prediction are in the attribute of this name.
        """
        return (views or DetectionViews())(self, images)

    @property
    def _test_views(self) -> DetectionViews:
        return replace(self.views, flip=self.views.flip and self.facts.get("mirror", True))

    # Steps

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The network's losses by name, weighted."""
        images, targets = batch
        found = self.architecture(self.normalize(list(images)), [trainable(target) for target in targets])
        if unknown := [name for name in self.loss_weights if name not in found]:
            raise UserError(f"model.loss_weights: there is no loss {unknown[0]}; there are {', '.join(found)}")
        return {name: self.loss_weights.get(name, 1.0) * value for name, value in found.items()}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the network's losses."""
        losses = self.losses(batch)
        loss = torch.stack([value.float() for value in losses.values()]).sum()
        if self.logs_now:
            self.log("train/loss", self.train_loss(loss.detach(), len(batch[0])), prog_bar=True)
            self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()})
        return loss

    def on_validation_start(self) -> None:
        """Forget the pictures of the last test."""
        self._forget()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Metrics of the plain view."""
        self.val_metrics.update(self.detect(batch[0]), batch[1])

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all processes' pictures."""
        self._log_metrics("val", self.val_metrics)

    def on_test_start(self) -> None:
        """Forget the pictures of the last test."""
        self._forget()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Metrics of the merged test-time views."""
        self._found = self.detect(batch[0], self._test_views)
        self.test_metrics.update(self._found, batch[1])

    def on_test_epoch_end(self) -> None:
        """Log the metrics of all processes' pictures, each class's, too."""
        names = self.class_names if self.facts["num_classes"] <= LISTED else ()
        self._samples = self._log_metrics("test", self.test_metrics, names)["samples"]
        self._found = []

    def _log_metrics(self, stage: str, metrics: DetectionMetrics, names: Sequence[str] = ()) -> dict[str, Any]:
        return self.log_computed(stage, metrics, class_names=names, missing=MISSING, skip=NOT_LOGGED)

    def predict_step(self, batch: tuple[Sequence[Tensor], Sequence[str]], batch_idx: int) -> list[Detected]:
        """The objects of each picture from ``score_threshold`` on."""
        images, names = batch
        views = self._test_views
        if self._shown_labels:  # the limit is that of the shown classes, in ``result``
            views = replace(views, most=sys.maxsize)
        every = zip(self.detect(images, views), names, images, strict=True)
        return [self.result(found, name, image.shape[-2:]) for found, name, image in every]

    def configure_optimizers(self) -> Any:
        """The optimiser, by groups of the architecture's parameters, and the scheduler."""
        return self.optimizers_for(self.architecture, groups=self.parameter_groups)

    # Results and pictures

    def result(self, found: Detections, name: str, size: Sequence[int]) -> Detected:
        """A picture's detections as a plain result: those of the shown classes from ``score_threshold`` on."""
        if self._shown_labels:
            rows = torch.isin(found["labels"], found["labels"].new_tensor(self._shown_labels))
            found = {key: values[rows] for key, values in found.items()}
        found = best(found, self.max_objects)
        return detected(found, name, size, self.class_names, self.score_threshold)

    def as_json(self, results: list[Detected]) -> list[dict[str, Any]]:
        """One dictionary per picture: its name, size and objects with class, confidence and box in pixels."""
        return [result.as_json() for result in results]

    def draw(
        self, images: Sequence[Tensor], results: list[Detected], truth: Sequence[Target] | None = None
    ) -> list[Image.Image]:
        """Each picture with its objects; beside it, where they are known, with the true ones.

        Args:
            images: in [0, 1], each (C, H, W).
            results: of ``predict_step``.
            truth: targets.
        """
        known: Sequence[Target | None] = [None] * len(results) if truth is None else truth
        return [self._draw(*one) for one in zip(images, results, known, strict=True)]

    def _draw(self, image: Tensor, result: Detected, target: Target | None) -> Image.Image:
        seen, seen_masks = result.drawn(image.shape[-2:])
        found = draw_objects(image, seen, self.class_names, seen_masks)
        if target is None:
            return found
        boxes, masks = true_objects(target)
        true = draw_objects(image, boxes, self.class_names, None if seen_masks is None else masks)
        captions = [f"found: {_count(len(result.boxes))}", f"true: {_count(len(boxes.corners))}"]
        return side_by_side([found, true], captions, drawing.PLAIN)

    def show(self, batch: Batch, batch_idx: int) -> None:
        """Keep predictions of the first images, and after a test those of the images with the lowest AP."""
        keep_shown(self, self.shown, batch, batch_idx)
        if self._found:
            images, targets = batch

            def result(index: int) -> Detected:
                return self.result(self._found[index], "", images[index].shape[-2:])

            judged = judge(images, self._found, targets, result, SHOWN)
            self._worst = worst_images([*self._worst, *judged], SHOWN)

    def pictures(self) -> dict[str, list[Image.Image]]:
        """Pictures of the last evaluation: some of its images; after a test also curves, confusion, errors by kind,
        and the images with the lowest AP.
        """
        made = super().pictures()
        if self._samples is not None:
            drawn = detection_pictures(self._samples, self.class_names, self.overlap_of, self.score_threshold)
            made |= {name: [picture] for name, picture in drawn.items()}
        if self._worst:
            made["worst"] = [drawing.grid([self._draw_judged(one) for one in self._worst])]
        return made

    def _draw_judged(self, one: Judged) -> Image.Image:
        return drawing.captioned(self._draw(one.image, one.result, one.target), [f"AP at IoU 0.5: {one.ap:.2f}"])

    def tables(self) -> dict[str, Table]:
        """After a test the images with the lowest AP."""
        rows = [
            [self._draw_judged(one), len(one.target["labels"]), len(one.result.boxes), one.ap] for one in self._worst
        ]
        return {"worst": Table(["picture", "objects", "found", "AP"], rows)} if rows else {}

    def overlays(self) -> dict[str, list[Overlay]]:
        """The shown images with found and true boxes, and masks where there are some, as layers."""
        every = [one for shown in self.shown for one in zip(*shown, strict=True)]
        return {"predictions": [self._overlay(*one) for one in every]} if every else {}

    def _overlay(self, image: Tensor, result: Detected, target: Target) -> Overlay:
        true, true_masks = true_objects(target)
        seen, seen_masks = result.drawn(image.shape[-2:])
        boxes, masks = {"prediction": seen, "truth": true}, {}
        if seen_masks is not None and true_masks is not None:
            masks["prediction"] = classes_of_pixels(seen_masks, result.labels, image.shape[-2:])
            masks["truth"] = classes_of_pixels(true_masks, true.labels, image.shape[-2:])
        return Overlay(image, boxes, masks, self.class_names, result.name)

    def _forget(self) -> None:
        self._found, self._worst, self._samples = [], [], None

    # Files

    def write_files(self, folder: Path, results: list[Detected]) -> None:
        """Each picture's objects as YOLO's text in ``labels``."""
        for result in results:
            write_yolo(folder, result)

    def write_summary(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """All pictures' objects as ``coco-results.json``."""
        write_coco(folder / "coco-results.json", rows, category_ids(self.class_names))


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"model.{name} must be from {low} to {high}, not {value}")


def _count(number: int) -> str:
    return f"{number} object{'s' * (number != 1)}"


def _refuse_rounded_boxes(task: Task) -> None:
    """Refuse precisions in which a box is rounded to several pixels.

    Raises:
        UserError: the trainer's precision is one.
    """
    precision = task._trainer.precision if task._trainer is not None else ""
    if precision in ("16-true", "bf16-true"):
        raise UserError(
            f"trainer.precision: {precision} would round boxes to several pixels: take {precision.removesuffix('true')}"
            "mixed"
        )


def trainable(target: Target) -> dict[str, Tensor]:
    """A target without crowds and boxes of no area, as plain tensors."""
    boxes = target["boxes"].as_subclass(Tensor)
    keep = (boxes[:, 2:] > boxes[:, :2]).all(1)
    if "iscrowd" in target:
        keep &= ~target["iscrowd"].bool()
    return {name: target[name].as_subclass(Tensor)[keep] for name in ("boxes", "labels", "masks") if name in target}


def true_objects(target: Target) -> tuple[Boxes, Tensor | None]:
    """A target's boxes, and masks if it has some, for drawing; those that evaluation ignores are left out."""
    kept = ~target["iscrowd"].bool() if "iscrowd" in target else slice(None)
    masks = binary(target["masks"].as_subclass(Tensor)[kept]) if "masks" in target else None
    return Boxes(target["boxes"].as_subclass(Tensor)[kept], target["labels"][kept]), masks


def classes_of_pixels(masks: Tensor, labels: Tensor, size: Sequence[int]) -> Tensor:
    """The class of each pixel (H, W) by masks (N, H, W), the first on top; ``drawing.NO_CLASS`` where no object is."""
    classes = torch.full((int(size[0]), int(size[1])), drawing.NO_CLASS, dtype=torch.int64)
    for mask, label in reversed(list(zip(masks.cpu(), labels.tolist(), strict=True))):
        if label < drawing.NO_CLASS:
            classes[mask.as_subclass(Tensor)] = label
    return classes
