"""The smallest task of each kind: one network, a list of images, two networks with two optimisers, an image."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam
from torchmetrics import MeanMetric

from zoo import ArchitectureFactory, Facts, Task
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


class ToyDetection(Task):
    """A loss over a list of images and their boxes."""

    batch = "detection"

    def __init__(self, optimizer: OptimizerFactory = SGD, facts: Facts | None = None) -> None:
        super().__init__()

    def build(self) -> None:
        self.size = nn.Linear(2, 1)
        self.val_loss = MeanMetric()

    def _loss(self, batch: Any) -> Tensor:
        images, targets = batch
        counts = torch.tensor([float(len(t["boxes"])) for t in targets])
        seen = torch.stack([torch.stack([i.mean(), i.new_tensor(i.shape[-1] / 10)]) for i in images])
        return F.mse_loss(self.size(seen).flatten(), counts)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_loss.update(self._loss(batch))
        self.log("val/loss", self.val_loss, prog_bar=True)

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int) -> list[dict[str, Any]]:
        return [{"name": f"{batch_idx}-{i}", "boxes": t["boxes"].cpu()} for i, t in enumerate(batch[1])]

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
