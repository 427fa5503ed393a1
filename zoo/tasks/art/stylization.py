"""Training a network that stylises pictures in one pass, whatever it takes for a style."""

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
    """Base of tasks that train such a network, which is their factory ``architecture``.

    A subclass says what a loss is made of (``losses``), what a result is (``stylize``) and what is measured of it
    (``figures``); it takes ``strength`` as well, and calls ``build_metrics``.
    """

    batch = "stylization"
    architecture: Any

    may_change = ("strength",)  # of test and prediction alone

    def __init__(self) -> None:
        super().__init__()
        self.strength: float = self.hparams["strength"]
        if not 0 <= self.strength <= 1:
            raise UserError(f"model.strength must be from 0 to 1, not {self.strength}")
        self._shown: Batch | None = None

    # What a subclass says

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Parts of the loss by name, weighted, each (B,)."""

    @abstractmethod
    def stylize(self, contents: Tensor, styles: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Contents in the styles, at the task's strength, in [0, 1].

        Args:
            contents: in [0, 1], (B, 3, H, W).
            styles: each (1 or B, 3, h, w), in [0, 1]; none for a network that has its style in its weights.
            weights: of each.
        """

    @abstractmethod
    def figures(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What is measured of finished pictures (``MEASURED``), each (B,)."""

    def build_metrics(self, parts: Sequence[str]) -> None:
        """Of validation the loss and its parts; of the test figures of the results and of the untouched contents."""
        names = [f"val_{name}" for name in ("loss", *parts)]
        names += [f"test_{name}{end}" for name in MEASURED for end in ("", "_start")]
        self.metrics = nn.ModuleDict({name: MeanMetric() for name in names})

    # Steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss; its parts are logged."""
        parts = {name: values.mean() for name, values in self.losses(batch).items()}
        loss = torch.stack(list(parts.values())).sum()
        self._show(batch, batch_idx)
        if self.logs_now:
            self.log("train/loss", loss.detach(), prog_bar=True)
            self.log_dict({f"train/{name}": value.detach() for name, value in parts.items()})
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss and its parts, of contents that were held out."""
        parts = self.losses(batch)
        self._note("val", {"loss": torch.stack(list(parts.values())).sum(0), **parts})
        self._show(batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Figures of the results, and of the untouched contents under ``…_start``."""
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
        """The pictures in the styles that come with them."""
        contents, names, styles = batch
        images = self.stylize(contents, [style.image[None] for style in styles], [style.weight for style in styles])
        return [StylizedImage(str(name), image.cpu(), {}) for name, image in zip(names, images, strict=True)]

    def configure_optimizers(self) -> Any:
        """The optimiser of what learns in the architecture, and the scheduler."""
        return self.optimizers_for(self.architecture)

    # Results and pictures

    def draw(self, images: Any, results: list[StylizedImage], truth: Any = None) -> list[Image.Image]:
        """The pictures that were made."""
        return [drawing.to_picture(result.image, 1) for result in results]

    def as_json(self, results: list[StylizedImage]) -> list[dict[str, Any]]:
        """One dictionary a picture: its name."""
        return [{"name": result.name} for result in results]

    def _show(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self._shown = batch
