"""The data set in the checks: read from small files, with a stand-in for the trainer, or in a short run."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import Dataset

from zoo.data.base import Data, Split
from zoo.data.loading import InMemory
from zoo.facts import Facts
from zoo.testing.checks import accepted

BATCH = 3  # batch size: an epoch of a small example has several batches, and usually an incomplete last one


SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Probe(LightningModule):
    """A task that records the batches it gets."""

    predict_view: ClassVar[str] = "center"
    facts: ClassVar[Facts] = {}  # it predicts on the data's batches

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[Any]] = {"train": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Keep the batch."""
        self.seen["train"].append(batch)
        return self.weight * 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Keep the batch."""
        self.seen["val"].append(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Keep the batch."""
        self.seen["test"].append(batch)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Keep the batch."""
        self.seen["predict"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """An optimiser that changes nothing."""
        return torch.optim.SGD(self.parameters(), lr=0.0)


class _Recording(Dataset):
    def __init__(self, samples: Any, seen: list[Any]) -> None:
        self.samples, self.seen = samples, seen

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        self.seen.append(index)
        return self.samples[index]


def _recording(samples: Any, seen: list[Any]) -> Any:
    return samples if samples is None or isinstance(samples, InMemory) else _Recording(samples, seen)


class DataCase:
    """A data set, read from small files in its format, in batches so small that an epoch has several.

    Args:
        cls: the class.
        role: its ``batch``.
    """

    kind = "data"

    def __init__(self, cls: type[Data], role: str) -> None:
        self.cls, self.role = cls, role

    @staticmethod
    def roles(cls: type[Data]) -> tuple[str, ...]:
        """The form of its batches."""
        return (cls.batch,)

    @cached_property
    def folder(self) -> Path:
        """Where the example's files are; removed with the case."""
        self._folder = TemporaryDirectory(prefix="zoo-check-")
        return Path(self._folder.name)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments that read the example."""
        return dict(self.cls.write_example(self.folder))

    def make(self, **changes: Any) -> Data:
        """A new instance, set up."""
        data = self.cls(**{**self.arguments, **changes})
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
        return data

    def takes(self, name: str) -> bool:
        """Whether the class has an argument of this name."""
        return name in accepted(self.cls)

    def small(self, **changes: Any) -> Data:
        """A new instance with small batches."""
        known = {"batch_size": BATCH, "eval_batch_size": BATCH, "num_workers": 0, "drop_last": False}
        return self.make(**{**{k: v for k, v in known.items() if self.takes(k)}, **changes})

    @cached_property
    def data(self) -> Data:
        """One instance for the checks that only read."""
        return self.small()

    def read(self, split: Split, data: Data | None = None, seed: int = 0, **position: int) -> list[Any]:
        """Batches of the split's loader, with a stand-in for the trainer that sets the position.

        Args:
            split: which one.
            data: an instance; by default ``self.data``.
            seed: seed of the global generators, on which nothing may depend.
            position: ``rank``, ``world``, ``epoch`` and ``batch`` (the last one done).
        """
        data = data or self.data
        seed_global_generators(seed)
        data.trainer = cast(Trainer, stand_in(split, **position))
        try:
            return list(getattr(data, f"{split}_dataloader")())
        finally:
            data.trainer = None

    @cached_property
    def has_files(self) -> bool:
        """Whether each sample is read from separate files; what is read once, such as an index, is no sample."""
        self.read("train")
        return len(set(opened_files(lambda: self.read("train")))) > 1

    def contents(self, split: Split, data: Data | None = None) -> list[str]:
        """The split's samples, in the loader's order: their files, else a digest of each."""
        if self.has_files:
            return opened_files(lambda: self.read(split, data))
        return [digest for batch in self.read(split, data) for digest in digests(batch)]

    def order(self, split: Split, **position: int) -> list[Any]:
        """The split's samples, in order, identified independently of augmentation.

        That is by the file, the index in a map-style data set, or the data in memory.
        """
        if self.has_files:
            return opened_files(lambda: self.read(split, None, **position))
        recorded: list[Any] = []
        samples = self.data.samples
        vars(self.data)["samples"] = lambda which: _recording(samples(which), recorded)
        try:
            batches = self.read(split, None, **position)
        finally:
            del vars(self.data)["samples"]
        return recorded or [digest for batch in batches for digest in digests(batch)]

    def watch(self, precision: Any = "32-true", limit: int = 2) -> dict[str, list[Any]]:
        """The batches that a task gets in a run, by split."""
        probe, trainer = Probe(), quiet_trainer(self.folder, precision=precision, limit=limit)
        trainer.fit(probe, datamodule=self.data)
        trainer.test(probe, datamodule=self.data, verbose=False)
        self.data.trainer = None
        return probe.seen


def quiet_trainer(folder: Path, limit: int | None = None, **options: Any) -> Trainer:
    """A trainer on the CPU that writes nothing, and by default stops after one epoch."""
    limits = {f"limit_{split}_batches": limit for split in SPLITS} if limit else {}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    known: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "num_sanity_val_steps": 0,
        **quiet,
        **limits,
    }
    return Trainer(**{**known, "default_root_dir": folder, **options})


def stand_in(split: Split, rank: int = 0, world: int = 1, epoch: int = 0, batch: int = -1) -> SimpleNamespace:
    """The attributes of a trainer that a loader uses, at this position of a run."""
    loop = SimpleNamespace(batch_idx=batch, total_batch_idx=batch)
    states = {
        "training": split == "train",
        "validating": split == "val",
        "testing": split == "test",
        "predicting": False,
    }
    return SimpleNamespace(global_rank=rank, world_size=world, current_epoch=epoch, fit_loop=loop, **states)


def seed_global_generators(seed: int) -> None:
    """Seed torch, random and numpy alike."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


# Which sample is it?

_opened: list[str] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes):
        _opened.append(str(arguments[0]))


sys.addaudithook(_listen)  # can't be removed; no measurable cost while inactive


def opened_files(read: Callable[[], Any]) -> list[str]:
    """The files that were opened by ``read``, except Python's own."""
    global _opened
    _opened = []
    try:
        read()
        return [name for name in _opened if not name.endswith((".py", ".pyc", ".so"))]
    finally:
        _opened = None


def digests(batch: Any) -> list[str]:
    """A digest of each sample of a batch: of its image, and of its label if that is a number."""
    first, second = (batch[0], batch[1]) if isinstance(batch, list | tuple) and len(batch) > 1 else (batch, None)
    labels = second.tolist() if isinstance(second, Tensor) and second.dim() == 1 else [""] * len(first)
    return [f"{_digest(image)}{label}" for image, label in zip(first, labels, strict=True)]


def _digest(image: Tensor) -> str:
    return hashlib.sha1(image.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def size_of(batch: Any) -> int:
    """Samples in a batch."""
    return len(batch[0] if isinstance(batch, list | tuple) else batch)
