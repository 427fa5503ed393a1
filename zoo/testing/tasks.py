"""What every task must do, by the form of its batches."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from copy import deepcopy
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor

from zoo import registry
from zoo.architectures.base import Architecture
from zoo.data.base import Data, Split
from zoo.data.loading import TensorSource
from zoo.errors import UserError
from zoo.facts import KNOWN, Facts
from zoo.tasks.base import Task
from zoo.testing.architectures import encoders
from zoo.testing.checks import (
    Failed,
    Skipped,
    accepted,
    as_plain,
    check,
    expect,
    expect_same,
    one_line,
    same_bits,
    tensors,
)
from zoo.testing.data import PIXELS, DataCase, quiet_trainer
from zoo.training.restore import load

# What a task of this form of batches trains, where its ``example`` leaves the factory open.
NETWORK = {
    "classification": "classifier",
    "semantic_segmentation": "segmenter",
    "captioning": "captioner",
    "pictures": "pattern",
}
# What arguments are for that are called by what the network does in the task, not by its kind.
KIND = {"perceptual": "classifier"}
# Arguments of networks that the task gives, if the data does not.
BY_TASK = ("num_classes", "in_channels", "image_size", "vocabulary_size")
# Arguments of tasks that make pictures; whose batches are those of another task, most often classification's.
GENERATES = {"generator", "discriminator", "denoiser", "decoder"}
# Forms whose training loss falls as the fit gets better; an adversarial one's does not.
DESCENDS = ("classification", "detection", "instance_segmentation", "semantic_segmentation", "captioning")


class Colours(Data):
    """Four colours with noise: what the kit trains on where a task takes labelled images.

    Args:
        batch_size: samples a step.
        eval_batch_size: samples an evaluation batch.
    """

    licence: ClassVar[str] = "made on the spot"
    about: ClassVar[str] = "4 colours, 6 images of each to train, 10 to validate, 10 to test, 32x32"
    side: ClassVar[int] = 32

    def __init__(self, batch_size: int = 6, eval_batch_size: int | None = None) -> None:
        super().__init__(batch_size, eval_batch_size)

    @property
    def facts(self) -> Facts:
        """Everything that a classifier may ask for."""
        return Facts(
            num_classes=4,
            class_names=["red", "green", "blue", "grey"],
            in_channels=3,
            image_size=[self.side, self.side],
            mean=[0.5, 0.5, 0.5],
            std=[0.25, 0.25, 0.25],
            mirror=True,
            class_counts=[6, 6, 6, 6],
        )

    def samples(self, split: Split) -> TensorSource:
        """Images and labels; of ``predict`` images and names."""
        count = {"train": 24, "val": 10, "test": 10, "predict": 3}[split]
        random = torch.Generator().manual_seed(count)
        labels = torch.arange(count) % 4
        colours = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8], [0.5, 0.5, 0.5]])
        noise = 0.2 * torch.rand(count, 3, self.side, self.side, generator=random)
        return _Named(colours[labels][:, :, None, None] + noise, labels, named=split == "predict")


class _Named(TensorSource):
    def __init__(self, images: Tensor, labels: Tensor, named: bool) -> None:
        super().__init__(images, labels)
        self.named = named

    def fetch(self, indices: Tensor) -> tuple[Any, ...]:
        """Images with their labels, or with the names that files would have."""
        images, labels = super().fetch(indices)
        return images, [f"{i}.png" for i in indices.tolist()] if self.named else labels


TINY: dict[str, type[Data]] = {"classification": Colours}
# Forms with three pictures to predict, here or in the example of their data.
PREDICTED = (*TINY, *PIXELS, "stylization")


class Losses(Callback):
    """Keeps the loss of each training batch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep it; a task that optimises by hand may give none."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self.values.append(float(loss))


class Start(Callback):
    """Keeps the parameters that training starts from."""

    def on_train_start(self, trainer: Any, task: Any) -> None:
        """Copy them."""
        self.weights = {name: p.detach().clone() for name, p in task.named_parameters()}


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
        """The form of its batches; ``generation`` for what learns from pictures to make others."""
        return ("generation" if accepted(cls) & GENERATES else cls.batch,)

    @cached_property
    def folder(self) -> Path:
        """Where runs write; removed with the case."""
        self._folder = TemporaryDirectory(prefix="zoo-check-")
        return Path(self._folder.name)

    @cached_property
    def _source(self) -> Callable[..., Data]:
        if (form := self.cls.batch) in TINY:
            return TINY[form]
        for entry in registry.entries():
            if entry.kind == "data" and issubclass(cls := entry.load(), Data) and cls.batch == form:
                self._data_case = DataCase(cls, form)
                return self._data_case.small
        raise Skipped(f"no installed data set has batches of the form {form}")

    def data(self, **changes: Any) -> Data:
        """Fresh data of the task's form."""
        data = self._source(**changes)
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
        return data

    def evaluated_by(self, size: int) -> Data:
        """Fresh data whose evaluation batches have this size."""
        data = self.data()
        data.eval_batch_size = size
        return data

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The example, with a registered network in the place of each factory that it leaves open."""
        open_ = [p.name for p in inspect.signature(self.cls).parameters.values() if p.default is p.empty]
        missing = [name for name in open_ if name not in self.cls.example]
        return {**self.cls.example, **{name: self._network(name) for name in missing}}

    def _network(self, argument: str) -> Any:
        role = KIND.get(argument, argument)
        if argument == "architecture":
            role = self.cls.network or NETWORK.get(self.role, argument)
        found = [e for e in registry.entries() if e.kind == "architectures"]
        for entry in sorted(found, key=lambda e: e.package != "lightning-zoo"):
            cls: Any = entry.load()
            if issubclass(cls, Architecture) and role in cls.roles:
                told = {*self.data().facts, *BY_TASK}
                known = {**cls.example, **encoders(cls)}
                return partial(cls, **{k: v for k, v in known.items() if k not in told})
        raise Skipped(f"its example leaves {argument} open, and no installed architecture is a {role}")

    def make(self, seed: int = 0, /, **changes: Any) -> Task:
        """A fresh task, not yet built."""
        torch.manual_seed(seed)
        return self.cls(**{**self.arguments, **changes})

    def built(self, **changes: Any) -> Task:
        """A fresh task with the data's facts, built, in evaluation mode."""
        task = self.make(facts=self.data().facts, **changes)
        task.configure_model()
        return task.eval()

    def trainer(self, **options: Any) -> Trainer:
        """As long as the run that the checks look at."""
        return quiet_trainer(self.folder, **{"max_epochs": self.epochs, "log_every_n_steps": 1, **options})

    @cached_property
    def fitted(self) -> Task:
        """A task after that run, with its trainer, and with checkpoints from its middle in ``folder``."""
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

    def predictions(self, task: Task) -> list[Any]:
        """The results of ``predict_step``, a batch each."""
        if self.role not in PREDICTED:
            raise Skipped(f"the kit has no pictures for predictions of the form {self.role} yet")
        return self.trainer().predict(task, datamodule=self.data()) or []


@check("tasks")
def is_built(case: TaskCase) -> None:
    """``example`` and the data's facts build it."""
    expect(list(case.built().parameters()), "built, it has no parameter")


@check("tasks", needs_building=False)
def says_what_it_needs(case: TaskCase) -> None:
    """Its needs are facts, and ``facts`` is an argument with a default: no recipe has to repeat them."""
    unknown = [name for name in case.cls.needs if name not in KNOWN]
    expect(not unknown, f"needs {unknown[:1]}, which is no fact; known are {', '.join(KNOWN)}")
    known = inspect.signature(case.cls).parameters
    expect("facts" in known and known["facts"].default is None, "expected an argument facts with the default None")
    expect(case.cls.monitor_mode in ("min", "max"), f"monitor_mode {case.cls.monitor_mode!r}: expected min or max")


@check("tasks")
def arguments_are_plain(case: TaskCase) -> None:
    """What it keeps as hyper-parameters is plain data, and is every argument."""
    task = case.make()
    written = as_plain({k: v for k, v in task.hparams.items() if not k.startswith("_")}, case.cls.__name__)
    lost = [name for name in inspect.signature(case.cls).parameters if name not in written]
    expect(not lost, f"its hyper-parameters lack {lost[:1]}: call self.keep() in __init__")


@check("tasks")
def missing_facts_end_in_one_line(case: TaskCase) -> None:
    """Without a fact that it needs it is not built, and says which one; it needs no other than those."""
    facts = case.data().facts
    for name in facts:
        with one_line(f"facts without {name}", must=name in case.cls.needs):
            case.make(facts={k: v for k, v in facts.items() if k != name}).configure_model()


@check("tasks")
def other_facts_end_in_one_line(case: TaskCase) -> None:
    """Trained for one thing, it is not fitted to data that says another."""
    facts = case.data().facts
    others = {
        "num_classes": facts.get("num_classes", 0) + 1,
        "in_channels": 7,
        "image_size": [48, 48],
        "vocabulary": ["a"],
    }
    for name in set(case.cls.needs) & set(others):
        with one_line(f"{name} {others[name]!r} and other data"):
            case.trainer().fit(case.make(facts={**facts, name: others[name]}), datamodule=case.data())


@check("tasks")
def wrong_factories_end_in_one_line(case: TaskCase) -> None:
    """A factory of the wrong kind, or a function in its place, is refused at the door."""
    for name in set(case.make().factories) & set(inspect.signature(case.cls).parameters):
        wrongs: tuple[Any, ...] = (torch.nn.Identity, torch.load)
        for wrong in wrongs:
            with one_line(f"{name}={wrong.__name__}"):
                case.make(**{name: wrong})


@check("tasks", after=("arguments_are_plain",))
def a_fit_runs(case: TaskCase) -> None:
    """It takes its data's batches, trains and validates; its weights move and stay finite."""
    fitted = case.fitted
    moved = [name for name, p in fitted.named_parameters() if not torch.equal(p, case.start.weights[name])]
    expect(moved, "two epochs of fit left every parameter as it was")
    bad = [name for name, p in fitted.named_parameters() if not torch.isfinite(p).all()]
    expect(not bad, f"after two epochs {bad[:1]} is not finite")


@check("tasks", after=("a_fit_runs",))
def monitor_is_logged(case: TaskCase) -> None:
    """A fit with validation logs the metric that chooses the best checkpoint, and names metrics by their stage."""
    task = case.fitted
    expect(task.monitor in case.logged, f"monitor is {task.monitor}, logged were {', '.join(sorted(case.logged))}")
    strange = [name for name in case.logged if name.partition("/")[0] not in ("train", "val", "test")]
    expect(not strange, f"metric {strange[:1]}: expected names such as train/loss, val/top1, test/top1")
    expect("train/loss" in case.logged or case.role not in DESCENDS, "expected train/loss among the metrics")


@check("tasks", DESCENDS, after=("a_fit_runs",))
def a_few_steps_lower_the_loss(case: TaskCase) -> None:
    """Thirty steps on one batch lower its training loss."""
    losses = Losses()
    options = {"overfit_batches": 1, "max_epochs": 30, "limit_val_batches": 0, "callbacks": [losses]}
    case.trainer(**options).fit(case.make(), datamodule=case.data())
    first, last = sum(losses.values[:5]) / 5, sum(losses.values[-5:]) / 5
    expect(len(losses.values) == 30, f"expected a loss from each of 30 training steps, got {len(losses.values)}")
    expect(last < first, f"30 steps on one batch took the loss from {first:.4g} to {last:.4g}, expected it lower")


@check("tasks", PIXELS, after=("a_fit_runs",))
def each_scale_comes_nearer(case: TaskCase) -> None:
    """In every epoch, which is a scale, the last step's loss is below the first one's."""
    losses = Losses()
    trainer = case.trainer(callbacks=[losses])
    trainer.fit(case.make(), datamodule=case.data())
    steps = int(trainer.num_training_batches)
    expect(len(losses.values) == steps * case.epochs > 1, "expected a loss from each training step")
    for scale in range(case.epochs):
        first, *_, last = losses.values[scale * steps : (scale + 1) * steps]
        expect(last < first, f"scale {scale} took the loss from {first:.4g} to {last:.4g}, expected it lower")


@check("tasks", after=("a_fit_runs",))
def checkpoint_is_enough(case: TaskCase) -> None:
    """Its checkpoint, read as data and without a recipe, gives a task with the same facts, weights and results."""
    task, loaded = case.fitted, _load(case)
    expect(type(loaded) is case.cls, f"the checkpoint gave a {type(loaded).__name__}, expected {case.cls.__name__}")
    expect(not loaded.training, "a loaded task must be in evaluation mode")
    expect(loaded.facts == task.facts, "a task loaded from its checkpoint has other facts")
    expect(same_bits(loaded.state_dict(), case.reached), "a task loaded from its checkpoint has other weights")
    task.load_state_dict(case.reached)
    if case.role not in PREDICTED:
        return
    expect_same(_answers(case, loaded), _answers(case, task), "results of a task loaded from its checkpoint", 1e-6)


def _load(case: TaskCase) -> Task:
    try:
        return load(case.folder / "end.ckpt")
    except UserError as error:
        raise Failed(f"its checkpoint does not load by itself: {error}") from error


def _answers(case: TaskCase, task: Task) -> list[Tensor]:
    """Results of prediction as numbers, and what a call gives where a call is images to something."""
    found = tensors([_numbers(task.as_json(batch)) for batch in case.predictions(task)])
    if case.role == "classification":
        with torch.no_grad():
            found += tensors(task.eval()(case.data().samples("val").fetch(torch.arange(4))[0]))
    return found


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return [_numbers(v) for v in value.values()]
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return torch.tensor(float(value)) if isinstance(value, int | float) else None


@check("tasks", after=("a_fit_runs",))
def resume_is_exact(case: TaskCase) -> None:
    """Gone on from a checkpoint in the middle, in a fresh process's state, it ends with the same bits."""
    _ = case.fitted
    expected = case.reached
    files = sorted((case.folder / "middle").glob("*.ckpt"))
    expect(files, "no checkpoint was written in the middle of the run")
    for file in files:
        task = case.make(77)
        torch.manual_seed(78)
        case.trainer().fit(task, datamodule=case.data(), ckpt_path=file, weights_only=True)
        other = [k for k, v in task.state_dict().items() if not torch.equal(v, expected[k])]
        expect(
            not other, f"resumed at {file.stem}, {len(other)} tensors end otherwise than without the stop, {other[:1]}"
        )
        states = [o.state_dict() for o in task.trainer.optimizers]
        expect(same_bits(states, case.optimizers), f"resumed at {file.stem}, an optimiser ends in another state")


def _evaluations(case: TaskCase) -> list[tuple[str, str]]:
    """The evaluations that the task has, as method of the trainer and name of the stage."""
    known = (("validate", "val", "validation_step"), ("test", "test", "test_step"))
    return [(run, stage) for run, stage, step in known if getattr(case.cls, step) is not getattr(LightningModule, step)]


@check("tasks", after=("a_fit_runs",))
def evaluation_changes_nothing(case: TaskCase) -> None:
    """Validation and test leave the state as it is."""
    task = case.fitted
    before = deepcopy(task.state_dict())
    for run, _ in _evaluations(case):
        getattr(case.trainer(), run)(task, datamodule=case.data(), verbose=False)
        changed = [k for k, v in task.state_dict().items() if not torch.equal(v, before[k])]
        expect(not changed, f"{run} changed {changed[:1]}")


@check("tasks", after=("a_fit_runs",))
def figures_do_not_depend_on_batches(case: TaskCase) -> None:
    """Validation and test of ten samples give the same figures in batches of 10 and of 3, 3, 3 and 1."""
    for run, stage in _evaluations(case):
        found = []
        for size in (10, 3):
            trainer = case.trainer()
            getattr(trainer, run)(case.fitted, datamodule=case.evaluated_by(size), verbose=False)
            found.append(trainer.callback_metrics)
        expect(any(k.startswith(f"{stage}/") for k in found[0]), f"{run} logged nothing named {stage}/…")
        for name, value in found[0].items():
            apart = abs(float(value) - float(found[1].get(name, float("nan"))))
            expect(apart < 1e-4, f"{name} is {float(value):.6g} in one batch, {apart:.2g} apart in uneven ones")


@check("tasks", after=("a_fit_runs",))
def predictions_are_plain(case: TaskCase) -> None:
    """Results of prediction can be written as JSON, one dictionary an image."""
    results = case.predictions(case.fitted)
    expect(results, "prediction gave nothing")
    expect(not any(t.requires_grad for t in tensors(results)), "results of prediction hold on to gradients")
    for batch in results:
        written = case.fitted.as_json(batch)
        expect(
            isinstance(written, list) and all(isinstance(one, dict) for one in written),
            "as_json: expected dictionaries",
        )
        try:
            json.dumps(written, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise Failed(f"as_json gave what JSON can't hold: {error}") from error
    expect(sum(len(case.fitted.as_json(b)) for b in results) == 3, "expected a result an image")


@check("tasks", after=("predictions_are_plain",))
def draws_pictures(case: TaskCase) -> None:
    """One method turns images and results into pictures, one an image."""
    samples = case.data().samples("predict")
    images = samples.fetch(torch.arange(3))[0] if samples is not None else None  # made anew, they are in the results
    drawn = [picture for batch in case.predictions(case.fitted) for picture in case.fitted.draw(images, batch)]
    expect(isinstance(drawn, list) and len(drawn) == 3, "draw: expected a picture for each of three images")
    expect(all(isinstance(p, Image.Image) and min(p.size) > 0 for p in drawn), "draw: expected PIL pictures")


@check("tasks", after=("a_fit_runs",))
def copies_drag_nothing(case: TaskCase) -> None:
    """A deep copy, as weight averaging makes it, has no trainer or data with it."""
    memo: dict[int, Any] = {}
    deepcopy(case.fitted, memo)
    dragged = [type(v).__name__ for v in memo.values() if isinstance(v, Trainer | LightningDataModule)]
    expect(not dragged, f"a deep copy drags {', '.join(dragged[:2])} along")


@check("tasks", ("classification",), after=("a_fit_runs",))
def export_agrees(case: TaskCase) -> None:
    """``torch.export`` gives a program that computes what a call does."""
    task, images = case.built(), case.data().samples("val").fetch(torch.arange(4))[0]
    with torch.no_grad():
        program = torch.export.export(task, (images[:2],), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        expect_same(program.module()(images), task(images), "the exported program and the task", 1e-4)


@check("tasks", ("classification",))
def logits_of_a_call(case: TaskCase) -> None:
    """Called with images it gives logits (B, num_classes)."""
    found = case.built()(case.data().samples("val").fetch(torch.arange(2))[0])
    expect(tuple(found.shape) == (2, 4), f"logits {tuple(found.shape)}, expected (2, 4)")
