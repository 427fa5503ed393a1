"""The smallest task of each kind: one network, a list of images, two networks with two optimisers, an image."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam
from torchmetrics import MeanMetric, Metric

from zoo import ArchitectureFactory, Facts, Task
from zoo.drawing import Boxes, Overlay, Table
from zoo.factories import OptimizerFactory, SchedulerFactory
from zoo_toys.networks import ToyNet


class ToyClassification(Task):
    """Cross-entropy, with a noisy validation that must not disturb training."""

    needs = ("num_classes",)

    def __init__(
        self,
        architecture: ArchitectureFactory = ToyNet,
        optimizer: OptimizerFactory = SGD,
        scheduler: SchedulerFactory | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()

    def build(self) -> None:
        self.architecture = self.make("architecture", self.needs)
        self.val_loss = MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        return self.architecture(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images = batch[0] + 0.01 * torch.randn_like(batch[0])
        self.val_loss.update(F.cross_entropy(self(images), batch[1], reduction="none"))
        self.log("val/loss", self.val_loss, prog_bar=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.val_loss.update(F.cross_entropy(self(batch[0]), batch[1], reduction="none"))
        self.log("test/loss", self.val_loss)

    def configure_optimizers(self) -> Any:
        return self.optimizers_for(self.architecture)


class CountError(Metric):
    """How far the numbers of boxes are off, in all and for images of each width; NaN where there was none."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("errors", default=[], dist_reduce_fx=None)  # a tensor (N, 2) of widths and errors a batch

    def update(self, images: list[Tensor], found: Tensor, targets: list[dict[str, Tensor]]) -> None:
        counts = torch.tensor([float(len(t["boxes"])) for t in targets])
        widths = torch.tensor([float(image.shape[-1]) for image in images])
        self.errors.append(torch.stack([widths, (found - counts).abs()], 1))

    def compute(self) -> dict[str, Tensor]:
        rows = torch.cat([torch.zeros(0, 2), *self.errors]).double()
        each = torch.stack([rows[rows[:, 0] == width, 1].mean() for width in (5, 6, 7)])
        return {"count_error": rows[:, 1].mean(), "error_by_width": each, "wide": torch.tensor(-1.0)}


class ToyDetection(Task):
    """A loss over a list of images and their boxes, a metric of several numbers, and what loggers show themselves."""

    batch = "detection"

    def __init__(self, optimizer: OptimizerFactory = SGD, facts: Facts | None = None) -> None:
        super().__init__()

    def build(self) -> None:
        self.size = nn.Linear(2, 1)
        self.val_loss = MeanMetric()
        self.count_error = CountError()

    def _found(self, images: list[Tensor]) -> Tensor:
        seen = torch.stack([torch.stack([i.mean(), i.new_tensor(i.shape[-1] / 10)]) for i in images])
        return self.size(seen).flatten()

    def _loss(self, batch: Any) -> Tensor:
        images, targets = batch
        counts = torch.tensor([float(len(t["boxes"])) for t in targets])
        return F.mse_loss(self._found(images), counts)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_loss.update(self._loss(batch))
        self.log("val/loss", self.val_loss, prog_bar=True)
        self.count_error.update(batch[0], self._found(batch[0]), batch[1])

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self.log_computed("val", self.count_error, class_names=["five", "six", "seven"], missing=-1)

    def on_test_epoch_end(self) -> None:
        self.log_computed("test", self.count_error, skip=("wide",))

    def overlays(self) -> dict[str, list[Overlay]]:
        found = []
        for one in self.shown:
            for image, result, truth in zip(one.images, one.results, one.truth, strict=True):
                labels = torch.zeros(len(result["boxes"]), dtype=torch.int64)
                guesses = Boxes(result["boxes"], labels, torch.full(labels.shape, 0.5))
                boxes = {"prediction": guesses, "truth": Boxes(truth["boxes"], truth["labels"])}
                bright = {"bright": (image[0] > 0.5).long()}
                found.append(Overlay(image, boxes, bright, ["a", "b", "c"], result["name"]))
        return {"predictions": found}

    def tables(self) -> dict[str, Table]:
        rows = [
            [result["name"], len(result["boxes"]), picture]
            for one in self.shown
            for result, picture in zip(one.results, self.draw(one.images, one.results), strict=True)
        ]
        return {"counts": Table(["name", "boxes", "picture"], rows)}

    def predict_step(self, batch: Any, batch_idx: int) -> list[dict[str, Any]]:
        boxes = [[[0.0, 0.0, 1.0 + k, 2.0] for k in range(image.shape[-1] - 5)] for image in batch[0]]
        return [{"name": f"{batch_idx}-{i}", "boxes": torch.tensor(b).view(-1, 4)} for i, b in enumerate(boxes)]

    def as_json(self, results: Any) -> list[dict[str, Any]]:
        return [{"name": r["name"], "boxes": r["boxes"].tolist()} for r in results]

    def draw(self, images: Any, results: Any, truth: Any = None) -> list[Image.Image]:
        return [Image.fromarray((i[0] * 255).byte().cpu().numpy()) for i in images]

    def configure_optimizers(self) -> Any:
        return self.optimizers_for(self)


class ToyGAN(Task):
    """Two networks, two optimisers, stepped by hand."""

    def __init__(
        self,
        generator: ArchitectureFactory,
        discriminator: ArchitectureFactory = ToyNet,
        generator_optimizer: OptimizerFactory = Adam,
        discriminator_optimizer: OptimizerFactory = SGD,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False

    def build(self) -> None:
        self.generator = self.make("generator")
        self.discriminator = self.make("discriminator", num_classes=1)
        self.val_loss = MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        z = torch.randn(len(batch[0]), *self.generator.latent_shape)
        loss = (self.discriminator(self.generator(z).detach()) - self.discriminator(batch[0])).mean()
        second.zero_grad()
        self.manual_backward(loss)
        second.step()
        fooled = -self.discriminator(self.generator(z)).mean()
        first.zero_grad()
        self.manual_backward(fooled)
        first.step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_loss.update(self.discriminator(batch[0]))
        self.log("val/loss", self.val_loss, prog_bar=True)

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return [
            self.optimizers_for(self.generator, "generator_optimizer", None),
            self.optimizers_for(self.discriminator, "discriminator_optimizer", None),
        ]


class ToyImage(Task):
    """The image is the parameter: a parameter and an L-BFGS a scale, an epoch a scale."""

    batch = "style_transfer"
    monitor = "train/loss"

    def __init__(self, scales: list[int] | None = None, facts: Facts | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.scales = scales or [6, 9, 12]

    def build(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.perceptual = nn.Conv2d(1, 4, 3, padding=1).requires_grad_(False)
        self.images = nn.ParameterList(torch.rand(1, 1, s, s, generator=generator) for s in self.scales)

    def _gram(self, images: Tensor) -> Tensor:
        maps = self.perceptual(images).flatten(2)
        return maps @ maps.transpose(1, 2) / maps.shape[-1]

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        scale = min(self.current_epoch, len(self.scales) - 1)
        image, optimizer = self.images[scale], self.optimizers()[scale]
        if batch_idx == 0 and scale:
            with torch.no_grad():
                image.copy_(F.interpolate(self.images[scale - 1], image.shape[-1], mode="bilinear"))
        target = self._gram(F.interpolate(batch, image.shape[-1], mode="bilinear"))

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (self._gram(image) - target).square().sum()
            self.manual_backward(loss)
            self.last = loss.detach()
            return loss

        optimizer.step(closure)
        self.log("train/loss", self.last)

    def configure_optimizers(self) -> Any:
        return [torch.optim.LBFGS([p], lr=0.5, max_iter=1) for p in self.images]
