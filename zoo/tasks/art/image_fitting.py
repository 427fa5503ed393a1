"""A picture fitted by a function of its coordinates, as in Sitzmann et al. ("Implicit Neural Representations with
Periodic Activation Functions", 2020, section 4.1), and Tancik et al. ("Fourier Features Let Networks Learn High
Frequency Functions in Low Dimensional Domains", 2020, section 6.1).

A network maps coordinates to the colour there; the loss is the mean squared error. A fitted picture can be drawn at any
size, since the size is only how densely the function is sampled. An untrained network draws a random pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Adam

from zoo import drawing
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts
from zoo.functional.patterns import places_of, render
from zoo.functional.style import histogram_distance, spectrum_distance
from zoo.tasks.art.pixels import StylizedImage
from zoo.tasks.base import Task

Batch = tuple[Tensor, list[str]]


@runtime_checkable
class MayBeEmpty(Protocol):
    """Data of pictures that may be None: an empty canvas."""

    picture: Sequence[str] | None


class ImageFitting(Task):
    """Fits a network to a picture; with several pictures, one network each.

    Args:
        architecture: a pattern network: from coordinates (…, 2) to colours (…, 3).
        optimizer: any optimiser of torch or of a plugin.
        scheduler: learning-rate scheduler; one that takes ``total_steps`` is stepped after every optimiser step.
        pixels: number of pixels per step, drawn at random; default: all of them.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        batch: images in [0, 1], (B, 3, H, W), and their names -> pictures of the same height and width
    """

    needs = ("num_images",)
    monitor = "train/loss"
    batch = "pictures"
    example: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory = Adam,
        scheduler: SchedulerFactory | None = None,
        pixels: int | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        if pixels is not None and pixels < 1:
            raise UserError(f"model.pixels must be at least 1, not {pixels}")
        self.pixels = pixels
        self._size: list[int] | None = None

    def build(self) -> None:
        """A network for each picture."""
        self.architecture = nn.ModuleList(self.make("architecture") for _ in range(self.facts["num_images"]))

    def setup(self, stage: str) -> None:
        """Check that there is a picture.

        Raises:
            UserError: there is none, and the stage needs one.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage in ("fit", "test") and isinstance(data, MayBeEmpty) and data.picture is None:
            raise UserError("there is no picture to fit: give data.picture a file or the name of an embedded one")

    def configure_optimizers(self) -> Any:
        """The optimiser of all pictures' networks."""
        return self.optimizers_for(self.architecture)

    # Steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean squared error at the pixels of this step; a picture's gradient is what it would be alone."""
        images, _ = batch
        self._size = list(images.shape[2:])
        colors = images.flatten(2).transpose(1, 2)
        pixels = self._some(colors.shape[1])
        places = places_of(pixels, self._size).to(images)
        made = torch.stack([network(places) for network in self.architecture])
        losses = (made - colors[:, pixels]).square().mean((1, 2))
        self.log("train/loss", losses.detach().mean(), prog_bar=True, batch_size=1)
        return losses.sum()

    def _some(self, count: int) -> Tensor:
        if self.pixels is None or self.pixels >= count:
            return torch.arange(count, device=self.device)
        return torch.randint(count, (self.pixels,), device=self.device)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the distances between the drawn picture and the given one."""
        for name, values in self.figures(batch[0]).items():
            self.log(f"test/{name}", values.mean(), batch_size=1)

    def figures(self, images: Tensor) -> dict[str, Tensor]:
        """Mean squared error, the same in decibels, distance of histograms and of spectra, each (B,)."""
        images = images.cpu()
        made = self.drawn(images.shape[2:])
        error = (made - images).square().mean((1, 2, 3))
        return {
            "mse": error,
            "psnr": -10 * error.log10(),
            "histogram": histogram_distance(made, images),
            "spectrum": spectrum_distance(made, images),
        }

    def predict_step(self, batch: Batch, batch_idx: int) -> list[StylizedImage]:
        """Each network's picture, as large as the batch's."""
        images, names = batch
        if len(names) != len(self.architecture):
            names = [str(i) for i in range(len(self.architecture))]
        made = self.drawn(images.shape[2:])
        return [StylizedImage(name, image, {}) for name, image in zip(names, made, strict=True)]

    # Pictures

    def drawn(self, size: Any) -> Tensor:
        """Each network's picture, in [0, 1], (B, 3, *size), on the CPU."""
        return torch.stack([render(network, size) for network in self.architecture])

    def finished(self) -> list[Image.Image]:
        """The final pictures of a fit, to be written to files."""
        return [] if self._size is None else [drawing.to_picture(image, 1) for image in self.drawn(self._size)]

    def pictures(self) -> dict[str, list[Image.Image]]:
        """The pictures at the end of each epoch."""
        return {"image": made} if (made := self.finished()) else {}

    def draw(self, images: Any, results: list[StylizedImage], truth: Any = None) -> list[Image.Image]:
        """The pictures that were made."""
        return [drawing.to_picture(result.image, 1) for result in results]

    def as_json(self, results: list[StylizedImage]) -> list[dict[str, Any]]:
        """One dictionary per picture, with its name."""
        return [{"name": result.name, **result.figures} for result in results]
