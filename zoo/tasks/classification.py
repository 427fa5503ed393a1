"""Classification with one hard or soft label per image.

Cross-entropy with label smoothing (Szegedy et al. 2016, section 7). Test-time crops are averaged as in Krizhevsky et
al. 2012, section 4.1: the softmax of four corners, the centre, and their horizontal flips; shifts by one pixel as in
Jordan 2024 ("94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3.5). Flips are left out if the data declares
that they change the label: on digits, flipped crops cost 4 to 6 points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from zoo import drawing
from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts, class_names
from zoo.functional.views import Views, at_least_float32, mean_softmax, seen_views
from zoo.metrics.computing import compute_and_reset
from zoo.metrics.multiclass import ConfusionCounts, F1Score, Precision, Recall
from zoo.tasks.base import Task
from zoo.tasks.class_weights import class_weight
from zoo.tasks.normalize import Normalize
from zoo.training.parameter_groups import ParameterGroup

SHOWN = 16  # number of pictures kept from a validation or a test
LISTED = 100  # up to so many classes, each class's accuracy is a separate metric


@dataclass
class ClassScore:
    """A class and its softmax probability."""

    label: str
    confidence: float


@dataclass
class Prediction:
    """A classifier's prediction for an image.

    Args:
        name: the image's file, or its number.
        label: name of the most probable class.
        index: its number.
        confidence: its softmax probability.
        top: the most probable classes, at most five, best first.
    """

    name: str
    label: str
    index: int
    confidence: float
    top: list[ClassScore]


class Classification(Task):
    """Trains a network to classify images.

    Args:
        architecture: the network, from images to logits.
        optimizer: any optimiser of torch or of a plugin.
        scheduler: learning-rate scheduler; one that takes ``total_steps`` is stepped after every optimiser step.
        label_smoothing: part of the target that is spread over all classes.
        class_weights: factor on each class's loss; ``balanced`` gives every class the same total weight.
        views: test-time crops that are averaged at test and prediction: the centre; four corners and the centre; these
            and their horizontal flips, unless the data declares that a flip changes the label; or, for images that are
            not larger than the network's input, the centre and its flip and, with half their weight, both shifted by
            one pixel. A test also logs ``test/top1_center``, the accuracy of the centre crop alone.
        parameter_groups: groups of the architecture's parameters with settings of their own.
        weights: a checkpoint whose tensors are loaded where name and shape agree.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        images (B, C, H, W) in [0, 1] -> logits (B, num_classes). Training images are exactly ``image_size``; those for
        evaluation may be larger and are cropped. Labels are (B,) or, as shares of the classes, (B, num_classes).
    """

    needs = ("num_classes", "in_channels", "image_size")
    monitor = "val/top1"
    monitor_mode = "max"
    may_change = ("views",)  # used at test and prediction only
    example: ClassVar[dict[str, Any]] = {"label_smoothing": 0.1}
    class_weight: Tensor | None

    def __init__(
        self,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory = AdamW,
        scheduler: SchedulerFactory | None = None,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | list[float] | None = None,
        views: Views = "center",
        parameter_groups: list[ParameterGroup] | None = None,
        weights: str | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise UserError(f"model.label_smoothing must be from 0 to 1, not {label_smoothing}")
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.views = views
        self._shown: list[_Seen] = []
        self._mistakes: list[_Seen] = []
        self._matrix: Tensor | None = None

    # Network

    def build(self) -> None:
        """Build the network, its normalisation, the class weights and the metrics."""
        if self.facts["num_classes"] < 2:
            raise UserError(f"Classification needs at least two classes, the data has {self.facts['num_classes']}")
        self.architecture: Architecture = self.make("architecture", needs=("num_classes",))
        self.normalize = Normalize(self.architecture, self.facts)
        self.register_buffer("class_weight", class_weight(self.class_weights, self.facts), persistent=False)
        self._build_metrics(self.facts["num_classes"])

    @property
    def class_names(self) -> list[str]:
        """Class names from the facts, else the classes' numbers."""
        return class_names(self.facts)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images that are exactly ``image_size``."""
        return self.architecture(self.normalize(images))

    def scores(self, images: Tensor, views: Views = "center") -> Tensor:
        """Log-probabilities (B, num_classes): the softmax averaged over the test-time crops of images of at least
        ``image_size``.
        """
        return self._views_and_scores(images, views)[1]

    def _views_and_scores(self, images: Tensor, views: Views) -> tuple[list[Tensor], Tensor]:
        """The logits of each test-time crop, the centre's first, and the log-probabilities of their mean softmax."""
        seen = seen_views(images, self.facts["image_size"], views, self.facts.get("mirror", True))
        logits = [self(view) for view, _ in seen]
        return logits, mean_softmax(logits, [weight for _, weight in seen])

    # Losses

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of logits or log-probabilities; computed in float32 for half precision."""
        scores = at_least_float32(scores)
        weight = None if self.class_weight is None else self.class_weight.to(scores.dtype)
        labels = labels.to(scores.dtype) if labels.is_floating_point() else labels
        return F.cross_entropy(scores, labels, weight, label_smoothing=self.label_smoothing)

    def loss_weight(self, labels: Tensor) -> Tensor:
        """The divisor that ``loss`` used, for averaging over batches."""
        if self.class_weight is None or labels.is_floating_point():
            return torch.tensor(float(len(labels)), device=labels.device)
        return self.class_weight[labels].sum()

    # Metrics

    def _build_metrics(self, classes: int) -> None:
        options: dict[str, Any] = {"num_classes": classes, "validate_args": False}
        # Computed at the training steps that are logged only, and there of all processes' samples together.
        self.train_loss = MeanMetric(dist_sync_on_step=True)
        self.train_top1 = MulticlassAccuracy(average="micro", dist_sync_on_step=True, **options)
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        kinds: dict[str, Metric] = {"top1": MulticlassAccuracy(average="micro", **options)}
        if classes > 5:
            kinds["top5"] = MulticlassAccuracy(average="micro", top_k=5, **options)
        kinds["f1"] = F1Score(average="macro", **options)
        self.val_metrics = _collection("val", kinds)
        kinds["precision"] = Precision(average="macro", **options)
        kinds["recall"] = Recall(average="macro", **options)
        self.test_metrics = _collection("test", kinds)
        self.test_center = MulticlassAccuracy(average="micro", **options)
        self.confusion = ConfusionCounts(classes)

    def _log_training(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        values = {
            "train/loss": self.train_loss(loss.detach(), self.loss_weight(labels)),
            "train/top1": self.train_top1(logits.detach(), hard(labels)),
        }
        self.log_dict(values, prog_bar=True)

    def _evaluate(self, stage: Literal["val", "test"], scores: Tensor, labels: Tensor) -> None:
        loss: MeanMetric = getattr(self, f"{stage}_loss")
        metrics: MetricCollection = getattr(self, f"{stage}_metrics")
        loss.update(self.loss(scores, labels), self.loss_weight(labels))
        metrics.update(scores, hard(labels))
        self.log(f"{stage}/loss", loss)
        for name, metric in metrics.items():
            self.log(name, metric, prog_bar=name == self.monitor)

    # Steps

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss; metrics are computed only at logged steps."""
        images, labels = batch
        logits = self(images)
        loss = self.loss(logits, labels)
        if self.logs_now:
            self._log_training(loss, logits, labels)
        return loss

    def on_validation_start(self) -> None:
        """Clear the pictures of the last validation."""
        self._forget()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Metrics of the centre crop."""
        images, labels = batch
        scores = self.scores(images)
        self._evaluate("val", scores, labels)
        self._show(batch_idx, self.trainer.num_val_batches, images, scores, labels)

    def on_test_start(self) -> None:
        """Clear the pictures of the last evaluation."""
        self._forget()

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Metrics of the averaged test-time crops, and the accuracy of the centre crop alone."""
        images, labels = batch
        logits, scores = self._views_and_scores(images, self.views)
        self._evaluate("test", scores, labels)
        if self.views != "center":
            self.test_center.update(logits[0], hard(labels))
            self.log("test/top1_center", self.test_center)
        self.confusion.update(scores, hard(labels))
        self._show(batch_idx, self.trainer.num_test_batches, images, scores, labels)
        self._note_mistakes(images, scores, hard(labels))

    def on_test_epoch_end(self) -> None:
        """Each class's accuracy, and the confusion matrix for its picture; of all processes together."""
        matrix = self._matrix = compute_and_reset(self.confusion)
        if len(matrix) <= LISTED:  # a class without images has none: 0 / 0
            matrix = self._matrix = matrix.to_dense()
            self.log_values("test", {"top1": matrix.diagonal() / matrix.sum(1)}, self.class_names)

    def predict_step(self, batch: tuple[Tensor, Sequence[str]], batch_idx: int) -> list[Prediction]:
        """The most probable classes of each image, from the averaged test-time crops."""
        images, names = batch
        return self.results(self.scores(images, self.views), names)

    def configure_optimizers(self) -> Any:
        """The optimiser, by groups of the architecture's parameters, and the scheduler."""
        return self.optimizers_for(self.architecture, groups=self.parameter_groups)

    # Results and pictures

    def results(self, scores: Tensor, names: Sequence[str] | None = None) -> list[Prediction]:
        """Log-probabilities (B, num_classes) as plain results; without names, images are numbered."""
        confidences, classes = scores.exp().topk(min(5, scores.shape[1]))
        named = names if names is not None else [str(i) for i in range(len(scores))]
        labels, made = self.class_names, []
        for name, confidence, found in zip(named, confidences.tolist(), classes.tolist(), strict=True):
            top = [ClassScore(labels[k], c) for k, c in zip(found, confidence, strict=True)]
            made.append(Prediction(str(name), top[0].label, found[0], top[0].confidence, top))
        return made

    def as_json(self, results: list[Prediction]) -> list[dict[str, Any]]:
        """One dictionary per image: ``name``, ``class``, ``confidence`` and the ``top`` five."""
        return [
            {
                "name": r.name,
                "class": r.label,
                "confidence": r.confidence,
                "top": [{"class": g.label, "confidence": g.confidence} for g in r.top],
            }
            for r in results
        ]

    def draw(
        self, images: Tensor | Sequence[Tensor], results: list[Prediction], truth: Tensor | None = None
    ) -> list[Image.Image]:
        """Each image with its predicted class and confidence, and with the true class in green or red if it is known.

        Args:
            images: in [0, 1], each (C, H, W).
            truth: labels, (B,) or soft (B, num_classes).
        """
        labels = [None] * len(results) if truth is None else hard(truth).tolist()
        return [self._draw(*one) for one in zip(images, results, labels, strict=True)]

    def _draw(self, image: Tensor, result: Prediction, label: int | None) -> Image.Image:
        lines, color = [f"{result.label} · {result.confidence:.0%}"], drawing.PLAIN
        if label is not None:
            color = drawing.RIGHT if result.index == label else drawing.WRONG
            lines.append(f"true: {self.class_names[label]}")
        return drawing.captioned(drawing.to_picture(image), lines, color)

    def pictures(self) -> dict[str, list[Image.Image]]:
        """Pictures of the last evaluation: some of its images; after a test also the confusion matrix and the worst
        mistakes.

        With several processes, images are those of the first one.
        """
        made = {}
        if self._shown:
            made["predictions"] = [drawing.grid(self._draw_seen(self._shown))]
        if self._matrix is not None:
            made["confusion"] = [drawing.confusion_picture(self._matrix, self.class_names)]
        if self._mistakes:
            made["mistakes"] = [drawing.grid(self._draw_seen(self._mistakes))]
        return made

    def _draw_seen(self, seen: list[_Seen]) -> list[Image.Image]:
        results = self.results(torch.stack([s.scores for s in seen]))
        return self.draw([s.image for s in seen], results, torch.stack([s.label for s in seen]))

    def _forget(self) -> None:
        self._shown, self._mistakes, self._matrix = [], [], None

    def _show(self, batch_idx: int, batches: Sequence[float], images: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Keep this batch's share of the pictures; they are spread evenly, since many sets are sorted by class."""
        if self.trainer.is_global_zero:
            rows = shown_rows(batch_idx, batches[0], len(images))
            self._shown += _seen(images[rows], scores[rows], hard(labels)[rows])

    def _note_mistakes(self, images: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Keep the most confident mistakes so far."""
        if not self.trainer.is_global_zero:
            return
        best, guess = scores.max(1)
        wrong = (guess != labels).nonzero().flatten()
        worst = wrong[best[wrong].argsort(descending=True)[:SHOWN]]
        self._mistakes += _seen(images[worst], scores[worst], labels[worst])
        self._mistakes = sorted(self._mistakes, key=lambda s: -float(s.scores.max()))[:SHOWN]


def _collection(stage: str, kinds: dict[str, Metric]) -> MetricCollection:
    # Each has its own state: the trainer computes and resets them one by one.
    return MetricCollection(dict(kinds), prefix=f"{stage}/", compute_groups=False).clone()


class _Seen(NamedTuple):
    """An image (C, H, W) with its log-probabilities (K,) and label (), on the CPU."""

    image: Tensor
    scores: Tensor
    label: Tensor


def _seen(images: Tensor, scores: Tensor, labels: Tensor) -> list[_Seen]:
    # Copies: a row of a batch would keep the whole batch.
    return [_Seen(*(t.detach().cpu().clone() for t in one)) for one in zip(images, scores, labels, strict=True)]


def shown_rows(batch_idx: int, batches: float, size: int) -> list[int]:
    """Indices of this batch's images that are shown: ``SHOWN`` evenly spaced over all batches; of endless data, in the
    first batch.
    """
    every = batches / SHOWN if math.isfinite(batches) else 1 / SHOWN
    places = [(k + 0.5) * every for k in range(SHOWN)]
    return sorted({int((place - batch_idx) * size) for place in places if int(place) == batch_idx})


def hard(labels: Tensor) -> Tensor:
    """Class numbers (B,) of labels that may be soft (B, K)."""
    return labels.argmax(1) if labels.dim() == 2 else labels
