"""Base of all data modules: splits, loaders, facts, and the seeding that makes a resumed run exact."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal
from weakref import WeakSet

from lightning.pytorch import LightningDataModule
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import default_collate
from torchmetrics import Metric

from zoo.data.checking import problems
from zoo.data.loading import InMemory, Loader, repeats_batches
from zoo.data.order import Order, shuffled
from zoo.data.seeds import derive_seed, run_seed, seed_device_generators
from zoo.errors import UserError
from zoo.factories import KeepsArguments, spec
from zoo.facts import Facts
from zoo.home import with_home

LISTED = 10  # unreadable pictures that an error names
Split = Literal["train", "val", "test", "predict"]


def data_root(root: str | Path | None) -> Path:
    """Folder of the data sets: the argument, else the environment variable ``ZOO_DATA``, else ``data`` in this
    folder. ``~`` is the home folder.
    """
    return Path(with_home(root or os.environ.get("ZOO_DATA") or "data"))


class Data(KeepsArguments, LightningDataModule, ABC):
    """Base of every data module.

    A subclass defines its ``facts`` and the ``samples`` of a split; loaders, sharding and seeding are here, and the
    constructor's arguments are saved in ``hparams``.

    Args:
        batch_size: samples per training step over all processes, so that a recipe means the same on any number of them.
        eval_batch_size: the same for validation, test and prediction; default: ``batch_size``.
        num_workers: processes that read samples, if the data is not held in memory.
        drop_last: leave out an incomplete last training batch.

    Attributes:
        batch: the form of a batch, one word of the contracts (``classification``, ``detection``, …).
        may_change: arguments that a resumed run may change; changing any other would make it inexact.
        example: arguments of a small instance, for tests.
        licence: the data's licence, as its authors state it; printed by ``zoo show``.
        about: one line on classes, images per class and size; printed by ``zoo show``.
        predicts_files: whether it takes ``files``: the user's own pictures to predict.
        files: these pictures, if any are given.
        unreadable: names of those ``files`` that could not be read, once predicted.
        skip_unreadable: whether training skips pictures that can't be read; an argument of data sets of files.
        skipped: what was wrong with each of the pictures that training skipped.
    """

    batch: ClassVar[str] = "classification"
    may_change: ClassVar[tuple[str, ...]] = ("num_workers", "eval_batch_size")
    example: ClassVar[dict[str, Any]] = {}
    licence: ClassVar[str] = ""
    about: ClassVar[str] = ""
    predicts_files: ClassVar[bool] = False
    files: list[str] | None = None
    unreadable: Sequence[str] = ()
    skip_unreadable: bool = False

    def __init__(
        self, batch_size: int = 64, eval_batch_size: int | None = None, num_workers: int = 0, drop_last: bool = False
    ) -> None:
        super().__init__()
        if batch_size < 1 or (eval_batch_size is not None and eval_batch_size < 1):
            raise UserError(f"data.batch_size must be at least 1, not {min(batch_size, eval_batch_size or batch_size)}")
        if num_workers < 0:
            raise UserError(f"data.num_workers must be at least 0, not {num_workers}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.drop_last = num_workers, drop_last
        self._summarised = False
        self.skipped: dict[str, None] = {}
        self._loaders: WeakSet[Loader] = WeakSet()  # loaders whose workers may be alive

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """Facts about the data; complete after ``setup``."""

    @abstractmethod
    def samples(self, split: Split) -> Any:
        """The split's ``InMemory`` data or map-style data set; None if there is no such split."""

    def has_samples(self, split: Split) -> bool:
        """Whether there is such a split; call after ``setup``."""
        return self.samples(split) is not None

    def first_images(self, count: int) -> Tensor:
        """At most ``count`` training images as a network sees them, without augmentation; the same on every process.

        For networks that need some before their first step. (N, C, H, W), floats in [0, 1].

        Raises:
            UserError: the data set can't provide any.
        """
        raise UserError(f"the network needs {count} training images, but {type(self).__name__} provides none")

    def count_pixels(self) -> list[int]:
        """Training pixels of each class, without augmentation; the same on every process.

        For losses that weight the classes, where the facts have no ``class_counts``: every training mask is read.

        Raises:
            UserError: the data set can't count them.
        """
        raise UserError(f"model.class_weights: balanced needs class_counts, which {type(self).__name__} does not say")

    def references(self, split: Split) -> Iterable[Sequence[str]]:
        """All reference captions of each picture of a split, without reading the pictures; as it stands, none."""
        return []

    def own_metric(self) -> Metric | None:
        """A metric of what this data alone can judge, which a task of captioning logs beside its own; as it stands,
        none.

        Its ``update`` takes the captions of a batch and the batch's details, its ``compute`` gives a dictionary.
        """
        return None

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Write a few small files in the data set's own on-disk format below ``root``; return the arguments that read
        them.

        A data set inside a package needs no files and returns ``example``.
        """
        return dict(cls.example)

    def summary(self) -> str:
        """One line on what the set-up splits hold and what was left out, printed when a run starts; empty for none."""
        return ""

    def _print_summary(self) -> None:
        """Once per run, on one process, where a trainer asks for the first loader."""
        trainer, said = self.trainer, self._summarised
        self._summarised = trainer is not None
        if trainer is not None and not said and trainer.global_rank == 0 and (line := self.summary()):
            print(line, flush=True)

    def setup_to_check(self) -> None:
        """Set up all parts for ``check_samples``; a data set that reads samples in ``setup`` leaves that out here."""
        self.setup("fit")
        self.setup("test")

    def check_samples(self, split: Split) -> list[str]:
        """What is wrong with the split's samples, one line for each problem, for ``zoo data check``.

        By default, samples that can't be read; all are read once, in parallel. A data set whose samples have more to
        check (boxes inside the picture, masks of its size) adds its own lines. Call after ``setup_to_check``.
        """
        samples = self.samples(split)
        if samples is None or isinstance(samples, InMemory):
            return []
        return self.problems_of(samples)

    def problems_of(self, samples: Any) -> list[str]:
        """What is wrong with any of these samples, which ``num_workers`` processes read, or else one per usable CPU.

        In a run on several processes, each reads its share of them, and learns of all.
        """
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return problems(samples, self.num_workers or None, rank, world)

    def refuse_unreadable(self, splits: Sequence[Split]) -> None:
        """Read all samples for evaluation, which skips none: a score of fewer would be another one.

        Raises:
            UserError: some of them can't be read; the message lists the first ones.
        """
        if bad := [line for split in splits for line in self.check_samples(split)]:
            more = f"; and {len(bad) - LISTED} more (`zoo data check` lists all)" if len(bad) > LISTED else ""
            raise UserError(
                "evaluation skips no pictures: repair or move away those for validation and test that can't be read "
                f"({len(bad)}): {'; '.join(bad[:LISTED])}{more}"
            )

    def statistics(self, split: Split) -> list[str]:
        """Lines on the split's classes and whatever is worth knowing before training, for ``zoo data check``.

        By default none. Call after ``setup_to_check``.
        """
        return []

    def sample_pictures(self, split: Split, count: int) -> list[Image]:
        """At most ``count`` samples of the split drawn with their targets, for the page of ``zoo data check``.

        By default none. Call after ``setup_to_check``.
        """
        return []

    def collate(self, samples: list[Any]) -> Any:
        """A batch of samples; lists stay lists in tasks whose images differ in size."""
        return default_collate(samples)

    def order(self, samples: Any) -> Order:
        """The training order (``zoo.data.order``): by default each sample once per epoch, reshuffled every epoch.

        Args:
            samples: the samples of the training split.
        """
        return shuffled(len(samples))

    def loader(self, split: Split) -> Loader | list[Any]:
        """The split's loader, or an empty list if there is no such split.

        Raises:
            UserError: several processes share a batch or a part that is too small to give each of them a sample.
        """
        if split != "predict":
            self._print_summary()
        samples = self.samples(split)
        if samples is None:
            return []
        train = split == "train"
        size = self.batch_size if train else self.eval_batch_size
        world = self.trainer.world_size if self.trainer else 1
        if train and size < world:
            raise UserError(f"data.batch_size is {size}, fewer than the {world} processes that share it")
        size = max(size, world)  # no process gets an empty batch
        loader = Loader(
            samples,
            size,
            self.trainer,
            train=train,
            num_workers=self.num_workers,
            drop_last=self.drop_last and train,
            collate=self.collate,
            order=self.order(samples) if train else None,
            skipped=self.note_skipped if train and self.skip_unreadable else None,
        )
        if 1 <= loader.count < world:
            raise UserError(
                f"{type(self).__name__}: the {split} part has {loader.count} samples, fewer than the {world} processes "
                "that share them: use fewer devices"
            )
        self._loaders.add(loader)
        return loader

    def note_skipped(self, message: str) -> None:
        """Print what is wrong with a picture that training skips, the first time."""
        if message not in self.skipped:
            self.skipped[message] = None
            print(f"skipped{self._by_whom()}: {message}", file=sys.stderr, flush=True)

    def _by_whom(self) -> str:
        """Where several processes train, each skips the unreadable pictures of its own share."""
        several = self.trainer is not None and self.trainer.world_size > 1
        return f" on process {self.trainer.global_rank}" if self.trainer is not None and several else ""

    def teardown(self, stage: str) -> None:
        """Stop the worker processes at the end of the run, and print how many pictures were skipped."""
        for loader in self._loaders:
            loader.close()
        if stage == "fit" and self.skipped:
            count = f"{len(self.skipped)}{self._by_whom()}"
            print(f"{type(self).__name__}: unreadable pictures skipped in training: {count}", flush=True)

    @property
    def predicting(self) -> bool:
        """Whether the run needs no training images at all."""
        return self.trainer is not None and bool(self.trainer.predicting)

    def train_dataloader(self) -> Any:
        """The training split, reshuffled every epoch."""
        return self.loader("train")

    def val_dataloader(self) -> Any:
        """In order, each sample once."""
        return self.loader("val")

    def test_dataloader(self) -> Any:
        """In order, each sample once."""
        return self.loader("test")

    def predict_dataloader(self) -> Any:
        """In order, each sample once."""
        return self.loader("predict")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Seed the default generators for this step, so that dropout and augmentation depend on the step alone."""
        trainer = self.trainer
        if trainer is not None and trainer.training:
            loop = trainer.fit_loop
            step = loop.batch_idx if repeats_batches(trainer) else loop.total_batch_idx
            seed_device_generators(derive_seed(run_seed(), 1, step, trainer.global_rank))
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Empty: the position follows from the trainer's counters."""
        return {}

    def plain_hparams(self) -> dict[str, Any]:
        """The arguments as ``class_path`` and ``init_args``, for a checkpoint."""
        cls = type(self)
        values = {k: v for k, v in self.hparams.items() if not k.startswith("_")}
        return spec({"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": values}, "data")
