"""Training of networks that stylise pictures in one pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchmetrics import MeanMetric

from zoo import drawing
from zoo.errors import UserError
from zoo.tasks.art.pixels import StylizedImage
from zoo.tasks.base import Task

MEASURED = ("style", "content", "histogram", "spectrum")
Batch = tuple[Tensor, Tensor]


class Stylization(Task):
    """Base of tasks that train a stylising network, built by their factory ``architecture``.

    A subclass defines the loss (``losses``), the result (``stylize``) and its metrics (``figures``). It also takes the
    argument ``strength``, and calls ``build_metrics``.
    """

    batch = "stylization"
    architecture: Any

    may_change = ("strength",)  # used at test and prediction only

    def __init__(self) -> None:
        super().__init__()
        self.strength: float = self.hparams["strength"]
        if not 0 <= self.strength <= 1:
            raise UserError(f"model.strength must be from 0 to 1, not {self.strength}")
        self._shown: Batch | None = None

    # To be defined by a subclass

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Parts of the loss by name, weighted, each (B,)."""

    @abstractmethod
    def stylize(self, contents: Tensor, styles: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Contents in the styles, at the task's strength, in [0, 1].

        Args:
            contents: in [0, 1], (B, 3, H, W).
            styles: each (1 or B, 3, h, w), in [0, 1]; empty for a network whose weights hold its style.
            weights: one per style.
        """

    @abstractmethod
    def figures(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Metrics of finished pictures (``MEASURED``), each (B,)."""

    def build_metrics(self, parts: Sequence[str]) -> None:
        """Build the metrics: for validation the loss and its parts; for the test those of the results and of the
        unchanged contents.
        """
        names = [f"val_{name}" for name in ("loss", *parts)]
        names += [f"test_{name}{end}" for name in MEASURED for end in ("", "_start")]
        self.metrics = nn.ModuleDict({name: MeanMetric() for name in names})

    # Steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss; its parts are logged too."""
        parts = {name: values.mean() for name, values in self.losses(batch).items()}
        loss = torch.stack(list(parts.values())).sum()
        self._show(batch, batch_idx)
        if self.logs_now:
            self.log("train/loss", loss.detach(), prog_bar=True)
            self.log_dict({f"train/{name}": value.detach() for name, value in parts.items()})
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and its parts on held-out contents."""
        parts = self.losses(batch)
        self._note("val", {"loss": torch.stack(list(parts.values())).sum(0), **parts})
        self._show(batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the metrics of the results, and of the unchanged contents as ``…_start``."""
        images = self.stylize(batch[0], [batch[1]], [1.0])
        with torch.autocast(images.device.type, enabled=False):
            start, end = self.figures(batch[0], batch), self.figures(images, batch)
        self._note("test", end | {f"{name}_start": values for name, values in start.items()})
        self._show(batch, batch_idx)

    def _note(self, stage: str, figures: dict[str, Tensor]) -> None:
        for name, values in figures.items():
            metric: Any = self.metrics[f"{stage}_{name}"]
            metric.update(values)
            self.log(f"{stage}/{name}", metric)

    def predict_step(self, batch: tuple[Tensor, Sequence[str], Sequence[Any]], batch_idx: int) -> list[StylizedImage]:
        """The pictures in the batch's styles."""
        contents, names, styles = batch
        images = self.stylize(contents, [style.image[None] for style in styles], [style.weight for style in styles])
        return [StylizedImage(str(name), image.cpu(), {}) for name, image in zip(names, images, strict=True)]

    def configure_optimizers(self) -> Any:
        """The optimiser of the architecture's trainable parameters, and the scheduler."""
        return self.optimizers_for(self.architecture)

    # Results and pictures

    def draw(self, images: Any, results: list[StylizedImage], truth: Any = None) -> list[Image.Image]:
        """The pictures that were made."""
        return [drawing.to_picture(result.image, 1) for result in results]

    def as_json(self, results: list[StylizedImage]) -> list[dict[str, Any]]:
        """One dictionary per picture, with its name."""
        return [{"name": result.name} for result in results]

    def _show(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self._shown = batch
