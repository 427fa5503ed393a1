"""Complete tasks of three kinds, as the documentation shows them: one network, two networks, lists of images."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam
from torchmetrics import MeanMetric
from torchvision.utils import draw_bounding_boxes

from zoo import ArchitectureFactory, Facts, Task, drawing
from zoo.factories import OptimizerFactory, SchedulerFactory
from zoo_toys.networks import ToyDetector


class Denoising(Task):
    """Trains a network to take noise out of images; their labels are not looked at.

    Args:
        architecture: of the role ``transform``.
        optimizer: any of torch's or of a plugin.
        scheduler: of the learning rate.
        noise: standard deviation.
        facts: what is known of the data; the data module adds what is missing.
    """

    batch = "images"
    network = "transform"
    needs = ("in_channels",)

    def __init__(
        self,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory = Adam,
        scheduler: SchedulerFactory | None = None,
        noise: float = 0.2,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        self.noise = noise

    def build(self) -> None:
        self.architecture = self.make("architecture")
        self.error = MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        return self.architecture(images)

    def noisy(self, images: Tensor) -> Tensor:
        """The same noise on each image, so that a metric does not depend on the batch that an image is in."""
        generator = torch.Generator().manual_seed(0)
        return images + self.noise * torch.randn(images.shape[1:], generator=generator).to(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images = batch[0]
        loss = F.mse_loss(self(images + self.noise * torch.randn_like(images)), images)
        self.log("train/loss", loss)
        return loss

    def _evaluate(self, name: str, images: Tensor) -> None:
        self.error.update((self(self.noisy(images)) - images).square().mean((1, 2, 3)))
        self.log(name, self.error)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("val/loss", batch[0])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test/loss", batch[0])

    def predict_step(self, batch: tuple[Tensor, Sequence[str]], batch_idx: int) -> list[dict[str, Any]]:
        cleaned = self(self.noisy(batch[0])).cpu()
        return [{"name": str(name), "image": image} for name, image in zip(batch[1], cleaned, strict=True)]

    def as_json(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"name": one["name"], "brightness": float(one["image"].mean())} for one in results]

    def draw(self, images: Any, results: list[dict[str, Any]], truth: Any = None) -> list[Image.Image]:
        return [drawing.to_picture(one["image"]) for one in results]

    def configure_optimizers(self) -> Any:
        return self.optimizers_for(self.architecture)


class SmallGAN(Task):
    """Two networks, two optimisers, stepped by hand.

    Args:
        generator: from noise to images.
        discriminator: from images to a number.
        generator_optimizer: of the generator.
        discriminator_optimizer: of the discriminator.
        facts: what is known of the data; the data module adds what is missing.
    """

    batch = "images"
    needs = ("in_channels", "image_size")
    monitor = "val/score"

    def __init__(
        self,
        generator: ArchitectureFactory,
        discriminator: ArchitectureFactory,
        generator_optimizer: OptimizerFactory = Adam,
        discriminator_optimizer: OptimizerFactory = Adam,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False

    def build(self) -> None:
        self.generator = self.make("generator")
        self.discriminator = self.make("discriminator", num_classes=1)
        self.score = MeanMetric()

    def generated(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        z = torch.randn(count, *self.generator.latent_shape, generator=generator)
        return self.generator(z.to(self.device))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        images, (first, second) = batch[0], self.optimizers()
        made = self.generated(len(images))
        loss = F.softplus(self.discriminator(made.detach())).mean() + F.softplus(-self.discriminator(images)).mean()
        second.zero_grad()
        self.manual_backward(loss)
        second.step()
        fooled = F.softplus(-self.discriminator(made)).mean()
        first.zero_grad()
        self.manual_backward(fooled)
        first.step()
        self.log_dict({"train/discriminator": loss.detach(), "train/generator": fooled.detach()})

    def _evaluate(self, name: str, images: Tensor) -> None:
        self.score.update(self.discriminator(images).flatten(1).mean(1))
        self.log(name, self.score)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("val/score", batch[0])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test/score", batch[0])

    def predict_step(self, batch: tuple[Any, Sequence[str]], batch_idx: int) -> list[dict[str, Any]]:
        made = self.generated(len(batch[1]), torch.Generator().manual_seed(batch_idx)).cpu()
        return [{"name": str(name), "image": image} for name, image in zip(batch[1], made, strict=True)]

    def as_json(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"name": one["name"], "brightness": float(one["image"].mean())} for one in results]

    def draw(self, images: Any, results: list[dict[str, Any]], truth: Any = None) -> list[Image.Image]:
        return [drawing.to_picture(one["image"].clamp(0, 1)) for one in results]

    def configure_optimizers(self) -> Any:
        return [
            self.optimizers_for(self.generator, "generator_optimizer", None),
            self.optimizers_for(self.discriminator, "discriminator_optimizer", None),
        ]


class SmallDetection(Task):
    """Boxes in lists of images; the losses are the network's own, as torchvision's detectors have them.

    Args:
        architecture: of the role ``detector``.
        optimizer: any of torch's or of a plugin.
        facts: what is known of the data; the data module adds what is missing.
    """

    batch = "detection"
    needs = ("num_classes", "in_channels")
    monitor, monitor_mode = "val/right", "max"
    example = {"architecture": ToyDetector, "optimizer": partial(Adam, lr=0.2)}

    def __init__(
        self, architecture: ArchitectureFactory, optimizer: OptimizerFactory = Adam, facts: Facts | None = None
    ) -> None:
        super().__init__()

    def build(self) -> None:
        self.architecture = self.make("architecture")
        self.right = MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = torch.stack(list(self.architecture(*batch).values())).sum()
        self.log("train/loss", loss, batch_size=len(batch[0]))
        return loss

    def _evaluate(self, name: str, batch: Any) -> None:
        """The share of images with objects whose best box has a class that is there."""
        for found, target in zip(self.architecture(batch[0]), batch[1], strict=True):
            if len(target["labels"]):
                self.right.update(float(torch.isin(found["labels"][:1], target["labels"]).any()))
        self.log(name, self.right, batch_size=len(batch[0]))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("val/right", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test/right", batch)

    def predict_step(self, batch: tuple[list[Tensor], Sequence[str]], batch_idx: int) -> list[dict[str, Any]]:
        found = [{name: t.cpu() for name, t in one.items()} for one in self.architecture(batch[0])]
        return [{"name": str(name), **one} for name, one in zip(batch[1], found, strict=True)]

    def as_json(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: value if name == "name" else value.tolist() for name, value in one.items()} for one in results]

    def draw(self, images: Any, results: list[dict[str, Any]], truth: Any = None) -> list[Image.Image]:
        names = self.facts["class_names"]
        return [
            drawing.to_picture(draw_bounding_boxes(i.cpu(), r["boxes"], [names[k] for k in r["labels"]]), 1)
            for i, r in zip(images, results, strict=True)
        ]

    def configure_optimizers(self) -> Any:
        return self.optimizers_for(self.architecture, scheduler=None)
