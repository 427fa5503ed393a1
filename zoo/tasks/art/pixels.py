"""Tasks whose parameter is an image: its pixels are optimised.

Every scale has its own picture and optimiser. One epoch is one scale, from coarse to fine, and each starts from the
previous scale's picture, enlarged. By default a training step is ten iterations of L-BFGS (Liu and Nocedal, "On the
Limited Memory BFGS Method for Large Scale Optimization", 1989), whose history of ten steps takes 20 times the picture's
memory, here and in the checkpoint.

The checkpoint also holds the perceptual network, so that it is self-contained. Pictures of one batch have their own
losses, but share the optimiser's line search and history, so each takes other steps than it would alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from zoo import drawing
from zoo.data.loading import derive_seed, run_seed
from zoo.errors import UserError
from zoo.functional.style import out_of_range
from zoo.tasks.art.perceptual import PerceptualTask, resized

UNSAID = 1000  # Lightning's default number of epochs, if neither recipe nor command line sets it
UNBOUNDED = -1  # and if steps or time are limited instead
RANGE = 15.0  # weight of the mean squared distance from pixels to [0, 1]; they are clamped at the end of a scale
SCALES = (0.25, 0.5, 1.0)


@dataclass
class StylizedImage:
    """A picture that was made.

    Args:
        name: its number in the batch.
        image: in [0, 1], (3, H, W), on the CPU.
        figures: its metrics.
    """

    name: str
    image: Tensor
    figures: dict[str, float]


class PixelTask(PerceptualTask):
    """Base of tasks whose parameter is an image.

    A subclass defines the initial pictures (``start``), the targets (``targets``), the loss (``losses``) and the final
    metrics (``figures``). It also takes the arguments ``scales`` and ``optimizer``, and those of ``PerceptualTask``.

    Attributes:
        images: a picture for each scale, each (B, 3, h, w).
        reached: the current scale.
    """

    needs = ("in_channels", "image_size", "num_images")
    monitor = "train/loss"
    reached: Tensor

    def __init__(self) -> None:
        super().__init__()
        scales: Sequence[float] = self.hparams["scales"]
        rising = all(a < b for a, b in pairwise(scales))
        if not scales or not rising or scales[0] <= 0 or scales[-1] != 1:
            raise UserError(f"model.scales are shares of the size that grow to 1, not {list(scales)}")
        self.scales = list(scales)
        self.automatic_optimization = False
        self._targets: tuple[int, Any] | None = None
        self._seen: Any = None

    # To be defined by a subclass

    @abstractmethod
    def start(self, batch: Any, size: list[int]) -> Tensor:
        """The initial pictures, in [0, 1], (B, 3, *size)."""

    @abstractmethod
    def targets(self, batch: Any, scale: float) -> Any:
        """The targets at a scale; computed once, without gradients."""

    @abstractmethod
    def losses(self, images: Tensor, targets: Any) -> dict[str, Tensor]:
        """Parts of the loss by name, weighted, each (B,)."""

    @abstractmethod
    def figures(self, images: Tensor, batch: Any) -> dict[str, Tensor]:
        """Metrics of finished pictures in [0, 1], each (B,)."""

    def enlarged(self, scale: int, batch: Any) -> Tensor:
        """Initial pictures of every scale but the first: the previous scale's, resized, (B, 3, *size)."""
        return resized(cast(Tensor, self.images[scale - 1]).clamp(0, 1), self.sizes[scale])

    def conditioned(self, gradient: Tensor) -> Tensor:
        """The gradient (B, 3, h, w) for the optimiser; unchanged, unless a subclass overrides this."""
        return gradient

    def finish(self, images: Tensor, batch: Any) -> Tensor:
        """Postprocess finished pictures; unchanged, unless a subclass overrides this."""
        return images

    # Building

    def build(self) -> None:
        """Build the perceptual network, and a picture for each scale."""
        super().build()
        count = self.facts["num_images"]
        self.sizes = [[max(1, round(n * s)) for n in self.facts["image_size"]] for s in self.scales]
        self.images = nn.ParameterList(torch.full((count, 3, *size), 0.5) for size in self.sizes)
        self.register_buffer("reached", torch.zeros((), dtype=torch.int64))

    def setup(self, stage: str) -> None:
        """Set the number of epochs, which is the number of scales.

        Raises:
            UserError: more epochs are requested than there are scales; or, after the fit, the data has pictures of
                another size or number.
        """
        if stage != "fit":
            self._refuse_other_pictures()
            return
        scales, asked = len(self.scales), self.trainer.max_epochs or 0
        if asked in (UNSAID, UNBOUNDED):
            self.trainer.fit_loop.max_epochs = scales
        elif asked > scales:
            raise UserError(f"an epoch is a scale, and model.scales has {scales}: trainer.max_epochs can't be {asked}")

    def _refuse_other_pictures(self) -> None:
        said = getattr(self.trainer.datamodule, "facts", None) or {}  # type: ignore[attr-defined]
        for name in ("image_size", "num_images"):
            if name in said and name in self.facts and said[name] != self.facts[name]:
                raise UserError(
                    f"{type(self).__name__} has made its pictures, with {name} {self.facts[name]}, not {said[name]}: "
                    "of other ones it makes new pictures, by zoo fit"
                )

    def configure_optimizers(self) -> list[Optimizer]:
        """One for each scale."""
        factory: Any = self.factories["optimizer"] or lbfgs
        return [factory([image]) for image in self.images]

    def _optimizer(self, scale: int) -> Any:
        made = self.optimizers()
        return made[scale] if isinstance(made, list) else made

    # Steps

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step of this scale's optimiser."""
        scale = self.current_epoch
        if batch_idx == 0:
            self._begin(scale, batch)
        parts: dict[str, Tensor] = {}
        optimizer, image, targets = self._optimizer(scale), self.images[scale], self._targets_at(scale, batch)

        def closure() -> Tensor:
            optimizer.zero_grad()
            found = {**self.losses(image, targets), "range": RANGE * out_of_range(image)}
            loss = torch.stack(list(found.values())).sum()
            if not torch.isfinite(loss):
                raise UserError(
                    f"the loss is no finite number any more, in epoch {scale}: try another optimizer or start"
                )
            self.manual_backward(loss)
            image.grad = self.conditioned(cast(Tensor, image.grad))
            parts.update({name: value.detach().mean() for name, value in found.items()}, loss=loss.detach())
            return loss

        optimizer.step(closure)
        loss = parts.pop("loss") / len(image)
        self.log_dict({"train/loss": loss, **{f"train/{k}": v for k, v in parts.items()}}, prog_bar=True, batch_size=1)
        return {"loss": loss}

    @torch.no_grad()
    def _begin(self, scale: int, batch: Any) -> None:
        """Fill this scale's picture; the previous optimiser is no longer needed."""
        self.reached.fill_(scale)
        if scale == 0:
            self.images[0].copy_(self.start(batch, self.sizes[0]))
            return
        self._optimizer(scale - 1).state.clear()
        self.images[scale].copy_(self.enlarged(scale, batch).clamp(0, 1))

    def _targets_at(self, scale: int, batch: Any) -> Any:
        if self._targets is None or self._targets[0] != scale:
            with torch.no_grad():
                self._targets = scale, self.targets(batch, self.scales[scale])
        return self._targets[1]

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the metrics of the result and of the start."""
        for name, values in self.measured(batch).items():
            self.log(f"test/{name}", values.mean(), batch_size=1)

    def predict_step(self, batch: Any, batch_idx: int) -> list[StylizedImage]:
        """The pictures with their metrics."""
        figures = self.measured(batch)
        return [
            StylizedImage(str(i), image.cpu(), {name: float(values[i]) for name, values in figures.items()})
            for i, image in enumerate(self.result(batch))
        ]

    @torch.no_grad()
    def measured(self, batch: Any) -> dict[str, Tensor]:
        """Metrics of the result, and of the start as ``…_start``, each (B,)."""
        start = self.figures(self.start(batch, self.sizes[-1]), batch)
        end = self.figures(self.result(batch), batch)
        return end | {f"{name}_start": values for name, values in start.items()}

    # Results and pictures

    @torch.no_grad()
    def result(self, batch: Any = None) -> Tensor:
        """The current pictures, in [0, 1], (B, 3, H, W); of full size, at any scale.

        Args:
            batch: input of the postprocessing, which is skipped without it.
        """
        images = cast(Tensor, self.images[int(self.reached)]).detach().clamp(0, 1)
        images = resized(images, self.sizes[-1]).clamp(0, 1)
        return images if batch is None else self.finish(images, batch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Store the batch for the postprocessing of ``pictures`` and ``finished``."""
        self._seen = batch

    def finished(self) -> list[Image.Image]:
        """The final pictures of a fit, to be written to files."""
        return [drawing.to_picture(image, 1) for image in self.result(self._seen).cpu()]

    def pictures(self) -> dict[str, list[Image.Image]]:
        """The pictures at the end of each scale."""
        return {} if self._seen is None else {"image": self.finished()}

    def draw(self, images: Any, results: list[StylizedImage], truth: Any = None) -> list[Image.Image]:
        """The pictures that were made."""
        return [drawing.to_picture(result.image, 1) for result in results]

    def as_json(self, results: list[StylizedImage]) -> list[dict[str, Any]]:
        """One dictionary per picture, with its number and metrics."""
        return [{"name": result.name, **result.figures} for result in results]

    def noise_generator(self) -> torch.Generator:
        """A generator for the initial noise, seeded by the run's seed."""
        return torch.Generator().manual_seed(derive_seed(run_seed(), 2))


def lbfgs(params: Any) -> LBFGS:
    """L-BFGS with ten iterations per step, each with a line search; it never stops by itself."""
    return LBFGS(
        params,
        max_iter=10,
        history_size=10,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
