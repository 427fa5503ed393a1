"""What all tasks that generate images share: scaling, classes, noise by seed and number, and a grid to watch.

Networks see images scaled to [-1, 1]; what comes in and goes out of a task is in [0, 1]. The noise of a sample is a
function of a seed and of the sample's number alone, so that neither batches nor processes matter.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Generator, Tensor

from zoo import drawing
from zoo.data.base import Data
from zoo.data.request import Request
from zoo.data.seeds import derive_seed
from zoo.errors import UserError
from zoo.facts import class_names
from zoo.functional.samplers import Callback
from zoo.functional.seeded_noise import normal_like, slerp
from zoo.metrics.generation import GenerationMetrics
from zoo.tasks.base import Task
from zoo.tasks.given_pictures import write_noise
from zoo.tasks.judge import Judge
from zoo.tasks.nearest_pictures import draw_pairs, nearest_training
from zoo.tasks.sample_files import Frames, write_grids, write_steps
from zoo.training.sampler_bar import SamplerBar

SHOWN = 40  # samples in the grid of a validation, at most
JUDGED_AT_ONCE = 100  # samples
SIDE = 56  # pixels of a sample in the grid, at least


@dataclass
class Generated:
    """A generated image.

    Args:
        name: of the sample.
        image: in [0, 1], (C, H, W), on the CPU.
        label: name of the class that was asked for; None without classes.
        weight: how far its noise is on the way from one seed to another, in [0, 1]; None where there is no way.
        frames: how it was made, uint8 (F, C, H, W); None where that was not asked for.
        noise: of a given picture, like the image; None where that was not asked for.
        noise_file: where it is written.
    """

    name: str
    image: Tensor
    label: str | None
    weight: float | None = None
    frames: Tensor | None = None
    noise: Tensor | None = None
    noise_file: str | None = None


class Generation(Task):
    """Base of tasks that generate images.

    A judge, if there is one, says after a test how good samples are (``zoo.metrics.generation``).

    Attributes:
        class_count: number of classes that samples can be asked for; 0 without.
    """

    needs: ClassVar[tuple[str, ...]] = ("in_channels", "image_size")
    batch: ClassVar[str] = "images"
    class_count: int = 0

    # Judging

    def take_judging(self, judge_epochs: int, test_samples: int) -> None:
        """Check and keep the arguments that say how samples are judged; for a constructor that has ``judge``, too.

        Args:
            judge_epochs: of its training, before the first step; one with pretrained weights is used as it is.
            test_samples: number of samples that a test makes for it.

        Raises:
            UserError: one of them is out of range.
        """
        if judge_epochs < 1 or test_samples < 1:
            raise UserError("model.judge_epochs and model.test_samples must be at least 1")
        self.judge_epochs, self.test_samples = judge_epochs, test_samples

    def build_judge(self) -> None:
        """Build the judge, if there is one, and its metrics; for ``build``."""
        factory = self.factories.get("judge")
        self.judge = None if factory is None else Judge(factory, self.facts, self.judge_epochs)
        knows = self.judge is not None and self.judge.knows_classes
        self.test_quality = None if self.judge is None else GenerationMetrics(knows)

    def on_fit_start(self) -> None:
        """Train the judge, too, if that is to be done and has not been."""
        super().on_fit_start()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.judge is not None and isinstance(data, Data):
            self.judge.prepare(self, data)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Show the judge the real pictures."""
        if self.judge is None or self.test_quality is None:
            return
        labels = batch[1] if self.judge.knows_classes else None
        labels = labels.argmax(1) if labels is not None and labels.dim() == 2 else labels
        seen = self.judge(batch[0])
        self.test_quality.update(seen.features, seen.log_probs, labels, real=True)

    def on_test_epoch_end(self) -> None:
        """Make samples, each process its share, log what the judge says, and look for the nearest training pictures."""
        if self.judge is None or self.test_quality is None:
            self._compare_with_training(lambda images: images.flatten(1), None)
            return
        look = self.judge
        own = torch.arange(self.trainer.global_rank, self.test_samples, self.trainer.world_size)
        for indices in own.split(JUDGED_AT_ONCE):
            seen, asked = self.judge(self.sample(indices)), self.classes_in_turn(indices)
            self.test_quality.update(seen.features, seen.log_probs, asked, real=False)
        self._compare_with_training(lambda images: look(images).features, self.test_quality)
        self.log_computed("test", self.test_quality)

    def _compare_with_training(self, look: Callable[[Tensor], Tensor], metrics: GenerationMetrics | None) -> None:
        """Find the nearest training picture of what this process has seen, and of the grid that is to be shown."""
        data, grid = self.trainer.datamodule, self._grid  # type: ignore[attr-defined]
        shown = torch.zeros(0) if grid is None else grid
        parts = [look(shown.to(self.device)).cpu()] if len(shown) else []
        parts += [] if metrics is None else [metrics.own_features(real) for real in (True, False)]
        parts = [part for part in parts if len(part)]
        if not parts or not isinstance(data, Data):
            return
        found = nearest_training(data, look, torch.cat(parts), shown, self.device)
        if found is not None and metrics is not None:
            real, made = (len(metrics.own_features(real)) for real in (True, False))
            _, of_real, of_made = found.distances.split([len(shown), real, made])
            metrics.add_nearest(of_real, real=True)
            metrics.add_nearest(of_made, real=False)
        self._nearest = None if found is None else found.pictures

    # To be defined by a subclass

    @abstractmethod
    def generate(
        self,
        noise: Tensor,
        labels: Tensor | None,
        generators: Sequence[Generator],
        callback: Callback | None = None,
    ) -> Tensor:
        """Images in [-1, 1], or somewhat beyond, from noise.

        Args:
            noise: as ``noise`` gives it, (B, ...).
            labels: of the samples, (B,); None without classes.
            generators: one for each sample, of the noise that is added on the way.
            callback: called after each step by those that take several.
        """

    @property
    def sampling_steps(self) -> int:
        """Steps in which ``generate`` makes samples and after which it calls back; as it stands, 1 without a call."""
        return 1

    def shown_step(self, index: int, x: Tensor) -> Tensor:
        """What an animation shows after a step of ``generate``, in [0, 1]; as it stands, the samples as they are.

        Args:
            index: of the step, from 0.
            x: as the callback gets it.
        """
        return self.unscaled(x)

    def noise(self, generators: Sequence[Generator]) -> Tensor:
        """Noise that samples are made of, from each one's own generator; as it stands, of the images' shape."""
        shape = (len(generators), self.facts["in_channels"], *self.facts["image_size"])
        return normal_like(torch.empty(shape, device=self.device), generators)

    # Classes

    def classes_for(self, conditional: bool) -> int:
        """Number of classes for the network; for ``build``.

        Raises:
            UserError: there are to be classes, but the data has none.
        """
        if conditional and not self.facts.get("num_classes"):
            raise UserError("model.conditional is true, but the data has no classes: give model.conditional false")
        self.class_count = self.facts["num_classes"] if conditional else 0
        return self.class_count

    def labels_of(self, batch: Any) -> Tensor | None:
        """The labels (B,) of a batch; None for a network without classes.

        Raises:
            UserError: the data's batches hold something else.
        """
        if not self.class_count:
            return None
        labels = batch[1]
        labels = labels.argmax(1) if labels.is_floating_point() and labels.dim() == 2 else labels
        if labels.dim() != 1:
            raise UserError("model.conditional is true, but the data gives no class for each image")
        return labels

    def classes_in_turn(self, indices: Tensor) -> Tensor | None:
        """Labels of samples for which none were asked: the classes in turns."""
        return indices % self.class_count if self.class_count else None

    # Scaling

    @staticmethod
    def scaled(images: Tensor) -> Tensor:
        """From [0, 1] to [-1, 1]."""
        return 2 * images - 1

    @staticmethod
    def unscaled(images: Tensor) -> Tensor:
        """From [-1, 1] to [0, 1]; what is beyond is cut off."""
        return ((images + 1) / 2).clamp(0, 1)

    # Samples

    @torch.no_grad()
    def sample(
        self, indices: Tensor, labels: Tensor | None = None, seed: int = 0, callback: Callback | None = None
    ) -> Tensor:
        """Images in [0, 1], (B, C, H, W).

        Args:
            indices: the samples' numbers, (B,).
            labels: of the samples, (B,); None for the classes in turns.
            seed: of all samples.
            callback: called after each step of those that take several.
        """
        labels = self.classes_in_turn(indices) if labels is None else labels
        return self._sampled(generators_of(seed, indices), self._asked(labels), callback)

    def _sampled(
        self, generators: Sequence[Generator], labels: Tensor | None, callback: Callback | None = None
    ) -> Tensor:
        watched = self.watched(self.sampling_steps, callback)
        return self.unscaled(self.generate(self.noise(generators), labels, generators, watched))

    def watched(self, steps: int, callback: Callback | None = None) -> Callback | None:
        """A callback that calls this one and moves the progress bar, if there is one, of so many steps."""
        callbacks: list[Any] = self._trainer.callbacks if self._trainer else []  # type: ignore[attr-defined]
        bars = [one for one in callbacks if isinstance(one, SamplerBar)]
        if not bars or steps == 1:
            return callback

        def told(index: int, x: Tensor, found: Any) -> None:
            for bar in bars:
                bar.stepped(index + 1, steps)
            if callback is not None:
                callback(index, x, found)

        return told

    def _asked(self, labels: Tensor | None) -> Tensor | None:
        """Labels for the network, where it has classes."""
        return None if labels is None or not self.class_count else labels.to(self.device)

    @torch.no_grad()
    def interpolated(self, first: int, second: int, count: int, label: int | None = None, seed: int = 0) -> Tensor:
        """Images (count, C, H, W) in [0, 1] on the way from one sample's noise to another's.

        Args:
            first: number of the sample at the start.
            second: number of the sample at the end.
            count: of images, at least 2.
            label: of all of them; None for the first sample's.
            seed: of the samples.
        """
        ends = self.noise(generators_of(seed, [first, second]))
        start, end = (one.expand(count, *one.shape[1:]) for one in ends.split(1))
        noise = slerp(start, end, torch.linspace(0, 1, count))
        labels = self.classes_in_turn(torch.full((count,), first)) if label is None else torch.full((count,), label)
        generators = generators_of(seed, [first] * count)  # what is added on the way is the same for all
        return self.unscaled(self.generate(noise, self._asked(labels), generators))

    # Prediction

    def predict_step(self, batch: Any, batch_idx: int) -> list[Generated]:
        """Samples that were asked for, or for given pictures what ``edited`` makes of them.

        Args:
            batch: requests int64 (B, 3) of seed, number and class (-1 for the classes in turns), or (B, 7) as in
                ``zoo.data.requests.Request``; or images; and names.
            batch_idx: not used.
        """
        asked, names = batch
        if asked.is_floating_point():
            return self.edited(asked, names)
        labels, turns = asked[:, 2], self.classes_in_turn(asked[:, 1])
        if turns is None and bool((labels >= 0).any()):
            raise UserError("data.classes asks for classes, but this generator has learnt none: leave them out")
        labels = None if turns is None else torch.where(labels < 0, turns, labels)
        with torch.no_grad():
            return self._fulfilled([Request(*row) for row in asked.tolist()], labels, names)

    def _fulfilled(self, asked: Sequence[Request], labels: Tensor | None, names: Sequence[str]) -> list[Generated]:
        """The samples of one batch, which are asked for alike."""
        steps, animated = self.sampling_steps, bool(asked[0].animated)
        if animated and steps == 1:
            raise UserError(f"data.animation: {type(self).__name__} makes samples at once, without steps to be shown")
        generators, noise = self._noise_for(asked)
        frames = Frames(steps, self.shown_step) if animated else None
        images = self.generate(noise, self._asked(labels), generators, self.watched(steps, frames))
        results = self._results(self.unscaled(images), labels, names)
        for i, (result, one) in enumerate(zip(results, asked, strict=True)):
            result.weight = one.weight if one.places > 1 else None
            result.frames = None if frames is None else frames.of_sample(i)
        return results

    def _noise_for(self, asked: Sequence[Request]) -> tuple[list[Generator], Tensor]:
        """The samples' generators and their noise; what is added on a way is the same all along it."""
        generators = [generators_of(one.seed, [one.number])[0] for one in asked]
        noise = self.noise(generators)
        if asked[0].places > 1:
            others = self.noise([generators_of(one.to_seed, [one.number])[0] for one in asked])
            noise = slerp(noise, others, torch.tensor([one.weight for one in asked]))
        return generators, noise

    def edited(self, images: Tensor, names: Sequence[str]) -> list[Generated]:
        """What prediction gives for pictures (B, C, H, W) in [0, 1] with these names; as it stands, ``from_images``."""
        return self._results(self.from_images(images), None, names)

    def from_images(self, images: Tensor) -> Tensor:
        """What is made of given pictures (B, C, H, W) in [0, 1]; as it stands, as many samples."""
        return self.sample(torch.arange(len(images)))

    def _results(self, images: Tensor, labels: Tensor | None, names: Sequence[str]) -> list[Generated]:
        known = class_names(self.facts) if labels is not None else []
        asked = [None] * len(names) if labels is None else [known[label] for label in labels.tolist()]
        return [Generated(str(n), i, label) for n, i, label in zip(names, images.float().cpu(), asked, strict=True)]

    def draw(self, images: Any, results: list[Generated], truth: Any = None) -> list[Image.Image]:
        """The generated images."""
        return [drawing.to_picture(result.image, 0) for result in results]

    def as_json(self, results: list[Generated]) -> list[dict[str, Any]]:
        """Each sample's name, its class where it has one, and its place on the way to another seed."""
        return [{k: v for k, v in _told(one).items() if v is not None} for one in results]

    def write_files(self, folder: Path, results: list[Generated]) -> None:
        """The steps in which each sample was made and the noise of given pictures, where that was asked for."""
        for one in results:
            if one.noise is not None and one.noise_file is not None:
                write_noise(folder / one.noise_file, one.noise)
            if one.frames is not None:
                write_steps(folder, one.name, one.frames)

    def write_summary(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """The samples side by side by their names in ``samples.png``, and their steps as ``samples.gif``."""
        write_grids(folder, rows)

    # What can be watched

    def show(self, batch: Any, batch_idx: int) -> None:
        """Make the same samples after every evaluation, by the weights that it sees (the averages, if there are)."""
        if batch_idx == 0:
            self._grid = self.sample(torch.arange(self.columns * (SHOWN // self.columns))).cpu()

    @property
    def columns(self) -> int:
        """Samples in a row of the grid: one of each class, up to 10."""
        return min(self.class_count, 10) or 8

    def pictures(self) -> dict[str, list[Image.Image]]:
        """The grid of samples, whose columns are the classes if there are some; after a test, each with the nearest
        training picture, too.
        """
        if self._grid is None:
            return {}
        grids = {"samples": [drawing.grid([drawing.to_picture(image, SIDE) for image in self._grid], self.columns, 2)]}
        if self._nearest is not None:
            grids["nearest"] = [draw_pairs(list(self._grid), list(self._nearest), SIDE)]
        return grids

    _grid: Tensor | None = None
    _nearest: Tensor | None = None


def generators_of(seed: int, indices: Sequence[int] | Tensor) -> list[Generator]:
    """A generator for each sample, of a seed and the sample's number; on the CPU, so that all devices agree."""
    numbers = indices.tolist() if isinstance(indices, Tensor) else indices
    return [Generator().manual_seed(derive_seed(seed, number)) for number in numbers]


def _told(one: Generated) -> dict[str, Any]:
    return {"name": one.name, "class": one.label, "weight": one.weight, "noise": one.noise_file}
