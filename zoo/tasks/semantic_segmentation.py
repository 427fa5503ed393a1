"""Semantic segmentation: a class for each pixel.

Cross-entropy, focal loss and soft Dice in any combination (``zoo.functional.segmentation``); auxiliary heads, as
torchvision's FCN and DeepLabV3 have them, with a weight of 0.5 as in its reference script. Pixels of the label 255
count nowhere. A network's logits are resized to the masks, bilinearly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import AdamW
from torchmetrics import MeanMetric

from zoo import drawing
from zoo.architectures.base import Architecture
from zoo.data.base import Data
from zoo.data.predicting import Source
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts, class_names
from zoo.functional.segmentation import Term, cross_entropy, dice, over_views, resized
from zoo.functional.views import at_least_float32
from zoo.functional.windows import over_windows
from zoo.metrics.computing import compute_and_reset
from zoo.metrics.segmentation import SegmentationMetrics
from zoo.registry import did_you_mean
from zoo.tasks.base import Task
from zoo.tasks.class_weights import class_weight
from zoo.tasks.classification import shown_rows
from zoo.tasks.exported import Exported
from zoo.tasks.normalize import Normalize
from zoo.tasks.segmented import Seen, Segmented, as_row, draw_segmented, seen, segmented, write_mask
from zoo.training.parameter_groups import ParameterGroup

LOSSES = ("cross_entropy", "focal", "dice")
LISTED = 100  # up to so many classes, each class's IoU is a separate metric
WORST = 8  # pictures with the largest loss that are kept from a test
MOST_CLASSES = 255  # masks are bytes, and 255 is the label of ignored pixels


class SemanticSegmentation(Task):
    """Trains a network to classify each pixel of an image.

    Args:
        architecture: the network, from images to logits of their size or smaller; in training it may give a tuple with
            the logits of auxiliary heads behind.
        optimizer: any optimiser of torch or of a plugin.
        scheduler: learning-rate scheduler; one that takes ``total_steps`` is stepped after every optimiser step.
        losses: weights of the losses ``cross_entropy``, ``focal`` and ``dice``; by default cross-entropy alone.
        focal_gamma: exponent of the focal loss.
        class_weights: factor on each class's cross-entropy and focal loss; ``balanced`` gives every class the same
            total weight by the data's ``class_counts``, or by counting the pixels of every training mask.
        auxiliary_weight: weight of each auxiliary head's loss.
        flip: at test and prediction, average the probabilities with those of the horizontal flip, unless the data
            declares that a flip changes the label.
        scales: at test and prediction, average the probabilities over these scales of the image.
        windows: at test and prediction, move a window of ``image_size`` over the image, of which each overlaps the
            next by at least this share; pictures to predict then keep their own size. By default the network takes an
            image at once, and pictures to predict are resized to ``image_size``.
        parameter_groups: groups of the architecture's parameters with settings of their own.
        weights: a checkpoint whose tensors are loaded where name and shape agree.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        images (B, C, H, W) in [0, 1] -> logits (B, num_classes, H, W). Training images are exactly ``image_size``;
        those for evaluation may be larger. Masks are int64 (B, H, W) of classes, and 255 for ignored pixels.
    """

    batch = "semantic_segmentation"
    needs = ("num_classes", "in_channels", "image_size")
    monitor = "val/miou"
    monitor_mode = "max"
    predict_view = "whole"
    may_change = ("flip", "scales", "windows")  # used at test and prediction only
    example: ClassVar[dict[str, Any]] = {"losses": {"cross_entropy": 1.0, "dice": 0.5}}
    class_weight: Tensor | None

    def __init__(
        self,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory = AdamW,
        scheduler: SchedulerFactory | None = None,
        losses: dict[str, float] | None = None,
        focal_gamma: float = 2.0,
        class_weights: Literal["balanced"] | list[float] | None = None,
        auxiliary_weight: float = 0.5,
        flip: bool = False,
        scales: list[float] | None = None,
        windows: float | None = None,
        parameter_groups: list[ParameterGroup] | None = None,
        weights: str | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        self.losses = losses or {"cross_entropy": 1.0}
        self.focal_gamma, self.class_weights = focal_gamma, class_weights
        self.auxiliary_weight = auxiliary_weight
        self.flip, self.scales, self.windows = flip, scales or [1.0], windows
        self._check_arguments()
        if windows is not None:
            vars(self)["predict_view"] = "native"
        self._shown: list[Seen] = []
        self._worst: list[Seen] = []
        self._matrix: Tensor | None = None
        self._files: set[str] = set()

    def _check_arguments(self) -> None:
        if unknown := [name for name in self.losses if name not in LOSSES]:
            close = did_you_mean(unknown[0], LOSSES) or f": there are {', '.join(LOSSES)}"
            raise UserError(f"model.losses: there is no loss {unknown[0]}{close}")
        if min(self.losses.values()) < 0 or not max(self.losses.values()) > 0:
            raise UserError(f"model.losses must be weights of at least 0, one of them above, not {self.losses}")
        if self.focal_gamma < 0 or self.auxiliary_weight < 0:
            raise UserError("model.focal_gamma and model.auxiliary_weight must be at least 0")
        if min(self.scales) <= 0:
            raise UserError(f"model.scales must be above 0, not {min(self.scales)}")
        if self.windows is not None and not 0 <= self.windows < 1:
            raise UserError(f"model.windows must be at least 0 and below 1, not {self.windows}")

    # Network

    def build(self) -> None:
        """Build the network, its normalisation, the class weights and the metrics."""
        classes = self.facts["num_classes"]
        if not 2 <= classes <= MOST_CLASSES:
            raise UserError(f"SemanticSegmentation takes 2 to {MOST_CLASSES} classes, the data has {classes}")
        self.architecture: Architecture = self.make("architecture", needs=("num_classes",))
        self.normalize = Normalize(self.architecture, self.facts)
        self._count_pixels()
        self.register_buffer("class_weight", class_weight(self.class_weights, self.facts), persistent=False)
        # Computed at the training steps that are logged only, and there of all processes' pixels together.
        self.train_terms = nn.ModuleDict({name: MeanMetric(dist_sync_on_step=True) for name in self.losses})
        self.val_terms = nn.ModuleDict({name: MeanMetric() for name in self.losses})
        self.test_terms = nn.ModuleDict({name: MeanMetric() for name in self.losses})
        self.val_metrics, self.test_metrics = SegmentationMetrics(classes), SegmentationMetrics(classes)

    def _count_pixels(self) -> None:
        """Complete the facts by the pixels of each class, where they are needed and the data can count them."""
        data = self._trainer.datamodule if self._trainer is not None else None  # type: ignore[attr-defined]
        if self.class_weights == "balanced" and "class_counts" not in self.facts and isinstance(data, Data):
            self.facts["class_counts"] = data.count_pixels()

    @property
    def class_names(self) -> list[str]:
        """Class names from the facts, else the classes' numbers."""
        return class_names(self.facts)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the images' size."""
        return self._outputs(images)[0]

    def _outputs(self, images: Tensor) -> list[Tensor]:
        """Logits of the images' size, and in training those of auxiliary heads behind."""
        found = self.architecture(self.normalize(images))
        return [resized(logits, images.shape[2:]) for logits in (found if isinstance(found, tuple) else (found,))]

    def probabilities(self, images: Tensor) -> Tensor:
        """Probabilities (B, num_classes, H, W), the mean over windows, scales and flips, in at least float32."""
        flip = self.flip and self.facts.get("mirror", True)
        return over_views(images, self.scales, flip, self._probabilities)

    def _probabilities(self, images: Tensor) -> Tensor:
        """Of images as they are, at once or by windows."""
        if self.windows is None:
            return self._softmax(images)
        return over_windows(images, self.facts["image_size"], self.windows, self._softmax)

    def _softmax(self, images: Tensor) -> Tensor:
        return at_least_float32(self(images)).softmax(1)

    # Losses

    def terms(self, logits: Tensor, masks: Tensor) -> dict[str, Term]:
        """Each loss of logits or log-probabilities of the masks' size; in float32 for half precision."""
        logits = at_least_float32(logits)
        found = {}
        for name in self.losses:
            if name == "dice":
                found[name] = dice(logits, masks)
            else:
                gamma = self.focal_gamma if name == "focal" else 0.0
                found[name] = cross_entropy(logits, masks, self.class_weight, gamma)
        return found

    def loss(self, terms: dict[str, Term]) -> Tensor:
        """The weighted sum of the losses, each the mean over the batch."""
        return torch.stack([weight * terms[name].mean for name, weight in self.losses.items()]).sum()

    def _losses_of_images(self, terms: dict[str, Term]) -> Tensor:
        """The same for each image alone, (B,)."""
        return torch.stack([weight * terms[name].means for name, weight in self.losses.items()]).sum(0)

    # Steps

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss, with those of auxiliary heads; logged is the head's alone, and only at logged steps."""
        images, masks = batch
        logits, *auxiliary = self._outputs(images)
        terms = self.terms(logits, masks)
        loss = self.loss(terms)
        if self.logs_now:
            self.log("train/loss", self._logged_loss(terms), prog_bar=True)
        for other in auxiliary:
            loss = loss + self.auxiliary_weight * self.loss(self.terms(other, masks))
        return loss

    def _logged_loss(self, terms: dict[str, Term]) -> Tensor:
        means = [
            self.losses[name] * self.train_terms[name](term.mean.detach(), term.divisors.sum())
            for name, term in terms.items()
        ]
        return torch.stack(means).sum()

    def on_validation_start(self) -> None:
        """Clear the pictures of the last validation."""
        self._forget()

    def on_test_start(self) -> None:
        """Clear the pictures of the last evaluation."""
        self._forget()

    def on_predict_start(self) -> None:
        """Forget the files of the last prediction."""
        self._files = set()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Metrics of the images at once, without scales, flips and windows."""
        images, masks = batch
        self._evaluate("val", images, self(images), masks, batch_idx, self.trainer.num_val_batches)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Metrics of the mean over windows, scales and flips."""
        images, masks = batch
        probabilities = self.probabilities(images)
        logs = probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
        self._evaluate("test", images, logs, masks, batch_idx, self.trainer.num_test_batches)

    def _evaluate(
        self,
        stage: Literal["val", "test"],
        images: Tensor,
        scores: Tensor,
        masks: Tensor,
        batch_idx: int,
        batches: Sequence[float],
    ) -> None:
        terms, classes = self.terms(scores, masks), scores.argmax(1)
        means: Mapping[str, MeanMetric] = getattr(self, f"{stage}_terms")
        for name, term in terms.items():
            means[name].update(term.mean, term.divisors.sum())
        getattr(self, f"{stage}_metrics").update(classes, masks)
        if not self.trainer.is_global_zero:
            return
        losses = self._losses_of_images(terms)
        rows = shown_rows(batch_idx, batches[0], len(images))
        self._shown += seen(images[rows], classes[rows], masks[rows], losses[rows])
        if stage == "test":
            least = self._worst[-1].loss if len(self._worst) == WORST else -1.0
            rows = [row for row in losses.argsort(descending=True)[:WORST].tolist() if float(losses[row]) > least]
            self._worst += seen(images[rows], classes[rows], masks[rows], losses[rows])
            self._worst = sorted(self._worst, key=lambda one: -one.loss)[:WORST]

    def on_validation_epoch_end(self) -> None:
        """The loss and the metrics of all images of all processes."""
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """The same, with each class's metrics, and the confusion matrix for its picture."""
        self._matrix = self._log_evaluation("test")

    def _log_evaluation(self, stage: Literal["val", "test"]) -> Tensor:
        terms: Mapping[str, MeanMetric] = getattr(self, f"{stage}_terms")
        means = {name: compute_and_reset(metric) for name, metric in terms.items()}
        self.log_values(stage, {"loss": sum(self.losses[name] * mean for name, mean in means.items())})
        names = self.class_names if stage == "test" and len(self.class_names) <= LISTED else ()
        values = self.log_computed(stage, getattr(self, f"{stage}_metrics"), class_names=names, skip=("confusion",))
        return values["confusion"]

    def predict_step(self, batch: tuple[Tensor | list[Tensor], Sequence[str]], batch_idx: int) -> list[Segmented]:
        """The classes of each picture's own pixels, from the mean over windows, scales and flips."""
        images, names = batch
        if isinstance(images, Tensor):
            found = list(self.probabilities(images))
        else:
            found = [self.probabilities(image[None])[0] for image in images]
        return [
            segmented(one, name, self._mask_file(name), self.class_names)
            for one, name in zip(found, names, strict=True)
        ]

    def _mask_file(self, name: str) -> str:
        """The picture's name with the ending of a PNG, or with it behind its own where that is taken."""
        path = Path(name.name if isinstance(name, Source) else Path(name).name)
        file = str(path.with_suffix(".png"))
        file = f"{path}.png" if file in self._files else file
        self._files.add(file)
        return file

    def configure_optimizers(self) -> Any:
        """The optimiser, by groups of the architecture's parameters, and the scheduler."""
        return self.optimizers_for(self.architecture, groups=self.parameter_groups)

    # What it gives back

    def as_json(self, results: list[Segmented]) -> list[dict[str, Any]]:
        """One dictionary per image: ``name``, ``mask`` (its file), size, and the ``classes`` with their shares."""
        return [as_row(result) for result in results]

    def write_files(self, folder: Path, results: list[Segmented]) -> None:
        """The masks as indexed PNGs below ``masks``, whose pixels are the classes' numbers."""
        for result in results:
            write_mask(folder / "masks" / result.file, result.mask)

    def draw(
        self, images: Tensor | Sequence[Tensor], results: list[Segmented], truth: Tensor | None = None
    ) -> list[Image.Image]:
        """Each image with its classes' colours half over it and a legend; beside the true ones where they are known.

        Args:
            images: in [0, 1], each (C, H, W).
            results: as ``predict_step`` gives them.
            truth: masks, (B, H, W).
        """
        truths = [None] * len(results) if truth is None else list(truth)
        rows = zip(images, results, truths, strict=True)
        return [draw_segmented(image, result, self.class_names, true) for image, result, true in rows]

    def pictures(self) -> dict[str, list[Image.Image]]:
        """Pictures of the last evaluation: some of its images; after a test also the confusion matrix of the pixels and
        the images with the largest loss.

        With several processes, images are those of the first one.
        """
        made = {}
        for name, kept in (("predictions", self._shown), ("worst", self._worst)):
            if kept:
                made[name] = [drawing.grid([one.draw(self.class_names) for one in kept], 2)]
        if self._matrix is not None:
            made["confusion"] = [drawing.confusion_picture(self._matrix, self.class_names)]
        return made

    def overlays(self) -> dict[str, list[drawing.Overlay]]:
        """The images of ``pictures`` with predicted and true masks."""
        kept = {"predictions": self._shown, "worst": self._worst}
        return {name: [one.overlay(self.class_names) for one in some] for name, some in kept.items() if some}

    def exported(self) -> Exported:
        """Images of ``image_size`` -> logits of the same size, of which the largest is the pixel's class."""
        about = "images -> logits (B, num_classes, H, W) of each pixel; the index of the largest is its class"
        return replace(super().exported(), about=about)

    def _forget(self) -> None:
        self._shown, self._worst, self._matrix = [], [], None
