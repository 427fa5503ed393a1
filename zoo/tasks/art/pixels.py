"""Tasks whose parameter is an image: what they look for is found by descent on its pixels.

There is a picture, and an optimiser, for every scale; an epoch is a scale, from coarse to fine, and each begins with
the last one's picture, enlarged. By default a training step is ten iterations of L-BFGS (Liu and Nocedal, "On the
Limited Memory BFGS Method for Large Scale Optimization", 1989), whose history of ten steps takes 20 times the picture's
memory, here and in the checkpoint.

The checkpoint also holds the perceptual network, so that it stands alone. Pictures of one batch have
losses of their own, but share the optimiser's line search and history: each goes other steps than it would alone.
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

UNSAID = 1000  # epochs where neither recipe nor command line says any; Lightning's
UNBOUNDED = -1  # and where steps or time are limited instead
RANGE = 15.0  # weight of the mean squared distance of pixels to [0, 1]; they are clamped at the end of a scale
SCALES = (0.25, 0.5, 1.0)


@dataclass
class StylizedImage:
    """A picture that was made.

    Args:
        name: its number in the batch.
        image: in [0, 1], (3, H, W), on the CPU.
        figures: what was measured of it.
    """

    name: str
    image: Tensor
    figures: dict[str, float]


class PixelTask(PerceptualTask):
    """Base of tasks whose parameter is an image.

    A subclass says where to start (``start``), what is to be approached (``targets``), how far away a picture is
    (``losses``), and what is measured at the end (``figures``); it takes ``scales`` and ``optimizer`` as well, and what
    ``PerceptualTask`` takes.

    Attributes:
        images: a picture for each scale, each (B, 3, h, w).
        reached: the scale that the descent is at.
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

    # What a subclass says

    @abstractmethod
    def start(self, batch: Any, size: list[int]) -> Tensor:
        """The pictures to begin with, in [0, 1], (B, 3, *size)."""

    @abstractmethod
    def targets(self, batch: Any, scale: float) -> Any:
        """What is to be approached at a scale; computed once, without gradients."""

    @abstractmethod
    def losses(self, images: Tensor, targets: Any) -> dict[str, Tensor]:
        """Parts of the loss by name, weighted, each (B,)."""

    @abstractmethod
    def figures(self, images: Tensor, batch: Any) -> dict[str, Tensor]:
        """What is measured of finished pictures in [0, 1], each (B,)."""

    def enlarged(self, scale: int, batch: Any) -> Tensor:
        """What a scale begins with, but the first: the last one's pictures at its size, (B, 3, *size)."""
        return resized(cast(Tensor, self.images[scale - 1]).clamp(0, 1), self.sizes[scale])

    def conditioned(self, gradient: Tensor) -> Tensor:
        """The gradient (B, 3, h, w) as the optimiser gets it; untouched, unless a subclass shapes it."""
        return gradient

    def finish(self, images: Tensor, batch: Any) -> Tensor:
        """The last touch to finished pictures; none, unless a subclass has one."""
        return images

    # Building

    def build(self) -> None:
        """The perceptual network, and a picture for each scale."""
        super().build()
        count = self.facts["num_images"]
        self.sizes = [[max(1, round(n * s)) for n in self.facts["image_size"]] for s in self.scales]
        self.images = nn.ParameterList(torch.full((count, 3, *size), 0.5) for size in self.sizes)
        self.register_buffer("reached", torch.zeros((), dtype=torch.int64))

    def setup(self, stage: str) -> None:
        """An epoch is a scale, so their number is known.

        Raises:
            UserError: more epochs are asked for; or, after the fit, pictures of another size or number.
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
        """Fill this scale's picture; the last one's optimiser is not needed any more."""
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
        """Figures of the result, and of the start."""
        for name, values in self.measured(batch).items():
            self.log(f"test/{name}", values.mean(), batch_size=1)

    def predict_step(self, batch: Any, batch_idx: int) -> list[StylizedImage]:
        """The pictures with their figures."""
        figures = self.measured(batch)
        return [
            StylizedImage(str(i), image.cpu(), {name: float(values[i]) for name, values in figures.items()})
            for i, image in enumerate(self.result(batch))
        ]

    @torch.no_grad()
    def measured(self, batch: Any) -> dict[str, Tensor]:
        """Figures of the result, and those of the start under ``…_start``, each (B,)."""
        start = self.figures(self.start(batch, self.sizes[-1]), batch)
        end = self.figures(self.result(batch), batch)
        return end | {f"{name}_start": values for name, values in start.items()}

    # Results and pictures

    @torch.no_grad()
    def result(self, batch: Any = None) -> Tensor:
        """The pictures so far, in [0, 1], (B, 3, H, W); of full size, whatever scale they have reached.

        Args:
            batch: for the last touch; without it, there is none.
        """
        images = cast(Tensor, self.images[int(self.reached)]).detach().clamp(0, 1)
        images = resized(images, self.sizes[-1]).clamp(0, 1)
        return images if batch is None else self.finish(images, batch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Remember the batch, for the last touch to ``pictures`` and ``finished``."""
        self._seen = batch

    def finished(self) -> list[Image.Image]:
        """The pictures as they are at the end of a fit, to be written."""
        return [drawing.to_picture(image, 1) for image in self.result(self._seen).cpu()]

    def pictures(self) -> dict[str, list[Image.Image]]:
        """The pictures at the end of each scale."""
        return {} if self._seen is None else {"image": self.finished()}

    def draw(self, images: Any, results: list[StylizedImage], truth: Any = None) -> list[Image.Image]:
        """The pictures that were made."""
        return [drawing.to_picture(result.image, 1) for result in results]

    def as_json(self, results: list[StylizedImage]) -> list[dict[str, Any]]:
        """One dictionary a picture: its number, and what was measured of it."""
        return [{"name": result.name, **result.figures} for result in results]

    def noise_generator(self) -> torch.Generator:
        """Of noise to start from: a function of the run's seed."""
        return torch.Generator().manual_seed(derive_seed(run_seed(), 2))


def lbfgs(params: Any) -> LBFGS:
    """Ten iterations a step, each with a line search; it never stops by itself."""
    return LBFGS(
        params,
        max_iter=10,
        history_size=10,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
