"""Depth estimation with an absolute error."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.optim import Adam
from torchmetrics import MeanMetric

from zoo import Architecture, ArchitectureFactory, Facts, Task, drawing
from zoo.factories import OptimizerFactory


class DepthEstimatorFactory(ArchitectureFactory, Protocol):
    """A network that also takes this package's own fact, which no recipe has to say."""

    def __call__(self, *, in_channels: int, image_size: list[int], max_depth: float) -> Architecture: ...  # type: ignore[override]


class DepthEstimation(Task):
    """Trains a network to say how far away each pixel is.

    Args:
        architecture: of the role ``depth_estimator``.
        optimizer: any of torch's or of a plugin.
        facts: what is known of the data; the data module adds what is missing.
    """

    batch = "depth_estimation"
    needs = ("in_channels", "image_size", "max_depth")
    monitor = "val/error"

    def __init__(
        self, architecture: DepthEstimatorFactory, optimizer: OptimizerFactory = Adam, facts: Facts | None = None
    ) -> None:
        super().__init__()

    def build(self) -> None:
        self.architecture = self.make("architecture")
        self.error = MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        return self.architecture(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = (self(batch[0]) - batch[1]).abs().mean()
        self.log("train/loss", loss)
        return loss

    def _evaluate(self, stage: str, batch: Any) -> None:
        self.error.update((self(batch[0]) - batch[1]).abs().mean((1, 2, 3)))
        self.log(f"{stage}/error", self.error)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def predict_step(self, batch: tuple[Tensor, Sequence[str]], batch_idx: int) -> list[dict[str, Any]]:
        found = self(batch[0]).cpu()
        return [{"name": str(name), "depth": depth} for name, depth in zip(batch[1], found, strict=True)]

    def as_json(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"name": one["name"], "farthest": float(one["depth"].max())} for one in results]

    def draw(self, images: Any, results: list[dict[str, Any]], truth: Any = None) -> list[Image.Image]:
        farthest = self.facts["max_depth"]  # type: ignore[typeddict-item]
        pairs = [(i.cpu().mean(0, keepdim=True), r["depth"] / farthest) for i, r in zip(images, results, strict=True)]
        return [drawing.to_picture(torch.cat(pair, 2)) for pair in pairs]

    def configure_optimizers(self) -> Any:
        return self.optimizers_for(self.architecture, scheduler=None)
