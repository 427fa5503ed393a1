"""The task in the checks: built from its example and fitted to tiny data of its form."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import Dataset

from zoo import contracts, registry
from zoo.architectures.base import Architecture
from zoo.contracts import Form
from zoo.data.base import Data, Split
from zoo.facts import Facts
from zoo.tasks.base import Task
from zoo.testing.architectures import encoders
from zoo.testing.checks import Skipped
from zoo.testing.reading import DataCase, quiet_trainer

# Roles of network arguments that are named by their function in the task, not by their role.
KIND = {"perceptual": "classifier"}
# Network arguments that the task sets if the data does not.
BY_TASK = ("num_classes", "in_channels", "image_size", "vocabulary_size")
COUNTS: dict[str, int] = {"train": 24, "val": 10, "test": 10, "predict": 3}


class _Examples(Dataset):
    """Samples of a form's example; for ``predict`` each with a file name."""

    def __init__(self, form: Form, split: Split) -> None:
        self.form, self.split = form, split

    def __len__(self) -> int:
        return COUNTS[self.split]

    def __getitem__(self, index: int) -> Any:
        assert self.form.example is not None
        sample = self.form.example(100 * list(COUNTS).index(self.split) + index)
        return (sample, f"{index}.png") if self.split == "predict" else sample


class TinyData(Data):
    """The example of a form of batch as a data set: the kit trains tasks of that form on it.

    Args:
        form: the form's name.
        batch_size: samples per step.
        eval_batch_size: samples per evaluation batch.
    """

    licence: ClassVar[str] = "made on the spot"
    about: ClassVar[str] = "24 samples to train, 10 to validate, 10 to test"

    def __init__(self, form: str, batch_size: int = 6, eval_batch_size: int | None = None) -> None:
        super().__init__(batch_size, eval_batch_size)
        self.form = contracts.form(form)
        vars(self)["batch"] = form

    @property
    def facts(self) -> Facts:
        """The facts of the example."""
        return Facts(**(self.form.example_facts or {}))

    def samples(self, split: Split) -> _Examples:
        """Samples of the split; every split has some."""
        return _Examples(self.form, split)

    def references(self, split: Split) -> list[list[str]]:
        """Those of the form's example, if it is one of captions."""
        every = (sample[-1] for sample in map(self.samples(split).__getitem__, range(COUNTS[split])))
        return [one["references"] for one in every if isinstance(one, dict) and "references" in one]

    def collate(self, samples: list[Any]) -> Any:
        """A batch of the form; for prediction, with names."""
        if not isinstance(samples[0][1], str):
            return self.form.collate(samples)
        return self.form.to_predict(self.form.collate([s for s, _ in samples]), [name for _, name in samples])


class Losses(Callback):
    """Keeps the loss of each training batch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the loss; a task with manual optimisation may return none."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self.values.append(float(loss))


class Start(Callback):
    """Keeps the parameters that training starts from."""

    def on_train_start(self, trainer: Any, task: Any) -> None:
        """Copy them."""
        self.weights = {name: p.detach().clone() for name, p in task.named_parameters()}


class Predictions(Callback):
    """Keeps the batches to predict, and the task's predictions."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Any, Any]] = []

    def on_predict_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, *position: int) -> None:
        """Keep both."""
        self.pairs.append((batch, outputs))


class TaskCase:
    """A task with its ``example``, fitted to tiny data of its form.

    Args:
        cls: the class.
        role: its ``batch``.
    """

    kind = "tasks"
    epochs = 2

    def __init__(self, cls: type[Task], role: str) -> None:
        self.cls, self.role = cls, role

    @staticmethod
    def roles(cls: type[Task]) -> tuple[str, ...]:
        """The form of its batches."""
        return (cls.batch,)

    @property
    def form(self) -> Form:
        """The contract of that form."""
        return contracts.form(self.role)

    @cached_property
    def folder(self) -> Path:
        """The folder of the runs; removed with the case."""
        self._folder = TemporaryDirectory(prefix="zoo-check-")
        return Path(self._folder.name)

    @cached_property
    def _source(self) -> Callable[..., Data]:
        if self.form.example is not None:
            return partial(TinyData, self.role)
        for entry in registry.entries():
            if entry.kind == "data" and issubclass(cls := entry.load(), Data) and cls.batch == self.role:
                self._data_case = DataCase(cls, self.role)
                return self._data_case.small
        raise Skipped(f"no installed data set has batches of the form {self.role}, and the form has no example")

    def data(self, **changes: Any) -> Data:
        """New data of the task's form."""
        data = self._source(**changes)
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
        return data

    def evaluated_by(self, size: int) -> Data:
        """New data with this evaluation batch size."""
        data = self.data()
        data.eval_batch_size = size
        return data

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The example, with a registered network for each factory that it does not give."""
        open_ = [p.name for p in inspect.signature(self.cls).parameters.values() if p.default is p.empty]
        missing = [name for name in open_ if name not in self.cls.example]
        return {**self.cls.example, **{name: self._network(name) for name in missing}}

    def _network(self, argument: str) -> Any:
        role = KIND.get(argument, argument)
        if argument == "architecture":
            role = self.cls.network or self.form.role
        found = [e for e in registry.entries() if e.kind == "architectures"]
        for entry in sorted(found, key=lambda e: e.package != "lightning-zoo"):
            cls: Any = entry.load()
            if issubclass(cls, Architecture) and role in cls.roles:
                told = {*self.data().facts, *BY_TASK}
                known = {**cls.example, **encoders(cls)}
                return partial(cls, **{k: v for k, v in known.items() if k not in told})
        raise Skipped(f"its example leaves {argument} open, and no installed architecture is a {role}")

    def make(self, seed: int = 0, /, **changes: Any) -> Task:
        """A new task, not yet built."""
        torch.manual_seed(seed)
        return self.cls(**{**self.arguments, **changes})

    def built(self, **changes: Any) -> Task:
        """A new task with the data's facts, built, in evaluation mode."""
        task = self.make(facts=self.data().facts, **changes)
        task.configure_model()
        return task.eval()

    def trainer(self, **options: Any) -> Trainer:
        """A trainer for the run that the checks use."""
        return quiet_trainer(self.folder, **{"max_epochs": self.epochs, "log_every_n_steps": 1, **options})

    @cached_property
    def fitted(self) -> Task:
        """A task after that run, with its trainer, and with checkpoints from the middle of the run in ``folder``."""
        task = self.make()
        saving = ModelCheckpoint(
            dirpath=self.folder / "middle", filename="{step}", every_n_train_steps=3, save_top_k=-1
        )
        self.start = Start()
        trainer = self.trainer(callbacks=[saving, self.start], enable_checkpointing=True)
        trainer.fit(task, datamodule=self.data())
        self.logged = dict(trainer.callback_metrics)
        self.optimizers = deepcopy([o.state_dict() for o in trainer.optimizers])
        self.reached = {k: v.clone() for k, v in task.state_dict().items()}
        trainer.save_checkpoint(self.folder / "end.ckpt")
        return task

    def predicted(self, task: Task) -> list[tuple[Any, Any]]:
        """Each batch to predict, with the output of ``predict_step``."""
        kept = Predictions()
        self.trainer(callbacks=[kept]).predict(task, datamodule=self.data(), return_predictions=False)
        return kept.pairs

    def images(self, count: int) -> Tensor:
        """The first images of the validation split, for forms whose batches start with images."""
        return next(iter(self.data(eval_batch_size=count).val_dataloader()))[0]
