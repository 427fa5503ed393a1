"""A training procedure. Name the paper here, and every deviation from it.

The score is that of Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950.
"""

from typing import Any, TypedDict

from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from zoo import ArchitectureFactory, Facts, Task, drawing
from zoo.factories import OptimizerFactory, SchedulerFactory
from zoo.facts import class_names
from zoo.functional.views import crops
from zoo.tasks.normalize import Normalize

# What is predicted of an image: plain values, which can be written as JSON.
Prediction = TypedDict("Prediction", {"name": str, "class": str, "confidence": float})


class ExampleTask(Task):
    """Classification by the squared error of the probabilities.

    Args:
        architecture: the network, from images to logits.
        optimizer: any optimiser of torch or of a plugin.
        scheduler: learning-rate scheduler.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        images (B, C, H, W) in [0, 1] -> logits (B, num_classes)
    """

    needs = ("num_classes", "in_channels", "image_size")  # facts without which it can't be built
    monitor = "val/brier"  # metric that chooses the best checkpoint; lower is better
    batch = "classification"  # the form of a batch: images and labels

    def __init__(
        self,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory = AdamW,
        scheduler: SchedulerFactory | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()

    def build(self) -> None:
        """Build the network and the metrics; the facts of the data are known by now."""
        self.architecture = self.make("architecture", needs=("num_classes",))
        self.normalize = Normalize(self.architecture, self.facts)
        self.val_brier, self.test_brier = MeanMetric(), MeanMetric()
        self.test_top1 = MulticlassAccuracy(self.facts["num_classes"], average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.architecture(self.normalize(images))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The mean score, which is minimised."""
        images, labels = batch
        loss = brier(self(images), labels).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The score; metrics are logged as objects, so that batches of different sizes count right."""
        images, labels = batch
        self.val_brier.update(brier(self._logits(images), labels))
        self.log("val/brier", self.val_brier, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The score and the accuracy."""
        images, labels = batch
        logits = self._logits(images)
        self.test_brier.update(brier(logits, labels))
        self.test_top1.update(logits, labels)
        self.log_dict({"test/brier": self.test_brier, "test/top1": self.test_top1})

    def _logits(self, images: Tensor) -> Tensor:
        """Logits of the centre crop: images for evaluation may be larger than those for training."""
        return self(crops(images, self.facts["image_size"])[0])

    def configure_optimizers(self) -> Any:
        """The optimiser and the scheduler."""
        return self.optimizers_for(self.architecture)

    # Results

    def predict_step(self, batch: tuple[Tensor, list[str]], batch_idx: int) -> list[Prediction]:
        """The most probable class of each image; the batch holds images and the names of their files."""
        images, names = batch
        confidences, classes = self._logits(images).softmax(1).max(1)
        known = class_names(self.facts)
        return [
            {"name": str(name), "class": known[index], "confidence": confidence}
            for name, index, confidence in zip(names, classes.tolist(), confidences.tolist(), strict=True)
        ]

    def as_json(self, results: list[Prediction]) -> list[dict[str, Any]]:
        """One dictionary for each image."""
        return [dict(result) for result in results]

    def draw(self, images: Any, results: list[Prediction], truth: Any = None) -> list[Image.Image]:
        """Each image with its class and confidence."""
        return [
            drawing.captioned(drawing.to_picture(image), [f"{result['class']} · {result['confidence']:.0%}"])
            for image, result in zip(images, results, strict=True)
        ]


def brier(logits: Tensor, labels: Tensor) -> Tensor:
    """The squared distance of the probabilities from the truth, from 0 to 2: (B, K) and (B,) -> (B,)."""
    truth = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return (logits.softmax(1) - truth).square().sum(1)
