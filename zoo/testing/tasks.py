"""Checks of tasks, by the form of their batches."""

from __future__ import annotations

import inspect
import json
import math
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from zoo import contracts
from zoo.drawing import Overlay, Table
from zoo.errors import UserError
from zoo.export import export
from zoo.tasks.base import Task
from zoo.testing.checks import Failed, accepted, as_plain, check, expect, expect_same, one_line, same_bits, tensors
from zoo.testing.task_case import Losses, TaskCase
from zoo.training.pictures import PictureWriter
from zoo.training.restore import load

# Arguments of tasks whose training loss may rise while the images improve.
ADVERSARIAL = {"discriminator"}
# Roles whose networks take only images and return tensors.
ON_IMAGES = ("classifier", "segmenter", "transform")


@check("tasks")
def is_built(case: TaskCase) -> None:
    """``example`` and the data's facts build it."""
    expect(list(case.built().parameters()), "built, it has no parameter")


@check("tasks", needs_building=False)
def says_what_it_needs(case: TaskCase) -> None:
    """Its ``needs`` are facts, and ``facts`` is an argument with a default, so that no recipe has to repeat them."""
    facts = contracts.facts()
    unknown = [name for name in case.cls.needs if name not in facts]
    expect(not unknown, f"needs {unknown[:1]}, which is not a fact; known are {', '.join(facts)}")
    known = inspect.signature(case.cls).parameters
    expect("facts" in known and known["facts"].default is None, "expected an argument facts with the default None")
    expect(case.cls.monitor_mode in ("min", "max"), f"monitor_mode {case.cls.monitor_mode!r}: expected min or max")


@check("tasks")
def arguments_are_plain(case: TaskCase) -> None:
    """Its hyper-parameters are plain data, and contain every argument."""
    task = case.make()
    written = as_plain({k: v for k, v in task.hparams.items() if not k.startswith("_")}, case.cls.__name__)
    lost = [name for name in inspect.signature(case.cls).parameters if name not in written]
    expect(not lost, f"its hyper-parameters lack {lost[:1]}")


@check("tasks")
def missing_facts_end_in_one_line(case: TaskCase) -> None:
    """Building it without a needed fact raises an error that names the fact; other facts are not needed."""
    facts = case.data().facts
    for name in facts:
        with one_line(f"facts without {name}", must=name in case.cls.needs):
            case.make(facts={k: v for k, v in facts.items() if k != name}).configure_model()


@check("tasks")
def other_facts_end_in_one_line(case: TaskCase) -> None:
    """A task built for certain facts refuses data with other facts."""
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
    """A factory of the wrong kind, or a function instead of a factory, is refused by the constructor."""
    for name in set(case.make().factories) & set(inspect.signature(case.cls).parameters):
        wrongs: tuple[Any, ...] = (torch.nn.Identity, torch.load)
        for wrong in wrongs:
            with one_line(f"{name}={wrong.__name__}"):
                case.make(**{name: wrong})


@check("tasks", after=("arguments_are_plain",))
def a_fit_runs(case: TaskCase) -> None:
    """It takes its data's batches, trains and validates; its weights change and stay finite."""
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
    expect("train/loss" in case.logged or not _descends(case), "expected train/loss among the metrics")


def _descends(case: TaskCase) -> bool:
    """Whether its training loss falls during training; an adversarial one's may not."""
    return case.cls.loss_falls and case.form.loss_falls and not accepted(case.cls) & ADVERSARIAL


@check("tasks", after=("a_fit_runs",))
def a_few_steps_lower_the_loss(case: TaskCase) -> None:
    """Thirty steps on one batch lower its training loss."""
    if not _descends(case):
        return
    losses = Losses()
    options = {"overfit_batches": 1, "max_epochs": 30, "limit_val_batches": 0, "callbacks": [losses]}
    case.trainer(**options).fit(case.make(), datamodule=case.data())
    first, last = sum(losses.values[:5]) / 5, sum(losses.values[-5:]) / 5
    expect(len(losses.values) == 30, f"expected a loss from each of 30 training steps, got {len(losses.values)}")
    expect(last < first, f"30 steps on one batch took the loss from {first:.4g} to {last:.4g}, expected it lower")


@check("tasks", after=("a_fit_runs",))
def each_epoch_comes_nearer(case: TaskCase) -> None:
    """If the same batch is repeated, each epoch's last loss is below its first."""
    if not case.form.repeats:
        return
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
    """Its checkpoint, loaded without a recipe, gives a task with the same facts, weights and results."""
    task, loaded = case.fitted, _load(case)
    expect(type(loaded) is case.cls, f"the checkpoint gave a {type(loaded).__name__}, expected {case.cls.__name__}")
    expect(not loaded.training, "a loaded task must be in evaluation mode")
    expect(loaded.facts == task.facts, "a task loaded from its checkpoint has other facts")
    expect(same_bits(loaded.state_dict(), case.reached), "a task loaded from its checkpoint has other weights")
    task.load_state_dict(case.reached)
    expect_same(_answers(case, loaded), _answers(case, task), "results of a task loaded from its checkpoint", 1e-6)


def _load(case: TaskCase) -> Task:
    try:
        return load(case.folder / "end.ckpt")
    except UserError as error:
        raise Failed(f"its checkpoint does not load by itself: {error}") from error


def _answers(case: TaskCase, task: Task) -> list[Tensor]:
    """Predictions as numbers, and the output of a call if it takes images."""
    found = tensors([_numbers(task.as_json(results)) for _, results in case.predicted(task)])
    if _is_called_with_images(case):
        with torch.no_grad():
            found += tensors(task.eval()(case.images(4)))
    return found


def _is_called_with_images(case: TaskCase) -> bool:
    own = case.cls.forward is not LightningModule.forward
    return own and "architecture" in case.make().factories and case.make().role_of("architecture") in ON_IMAGES


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return [_numbers(v) for v in value.values()]
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return torch.tensor(float(value)) if isinstance(value, int | float) else None


@check("tasks", after=("a_fit_runs",))
def resume_is_exact(case: TaskCase) -> None:
    """Resumed from a checkpoint in the middle, as in a new process, it ends with the same bits."""
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
    """The task's evaluations: the trainer's method and the stage's name."""
    known = (("validate", "val", "validation_step"), ("test", "test", "test_step"))
    return [(run, stage) for run, stage, step in known if getattr(case.cls, step) is not getattr(LightningModule, step)]


@check("tasks", after=("a_fit_runs",))
def evaluation_changes_nothing(case: TaskCase) -> None:
    """Validation and test do not change the state."""
    task = case.fitted
    before = deepcopy(task.state_dict())
    for run, _ in _evaluations(case):
        getattr(case.trainer(), run)(task, datamodule=case.data(), verbose=False)
        changed = [k for k, v in task.state_dict().items() if not torch.equal(v, before[k])]
        expect(not changed, f"{run} changed {changed[:1]}")


@check("tasks", after=("a_fit_runs",))
def figures_do_not_depend_on_batches(case: TaskCase) -> None:
    """Validation and test of ten samples give the same metrics in batches of 10 and of 3, 3, 3 and 1."""
    for run, stage in _evaluations(case):
        found = []
        for size in (10, 3):
            trainer = case.trainer()
            getattr(trainer, run)(case.fitted, datamodule=case.evaluated_by(size), verbose=False)
            found.append(trainer.callback_metrics)
        expect(any(k.startswith(f"{stage}/") for k in found[0]), f"{run} logged nothing named {stage}/…")
        for name, value in found[0].items():
            other = float(found[1].get(name, float("inf")))
            apart = abs(float(value) - other)
            expect(
                apart < 1e-4 or (math.isnan(value) and math.isnan(other)),
                f"{name} is {float(value):.6g} in one batch, {apart:.2g} apart in uneven ones",
            )


@check("tasks", after=("a_fit_runs",))
def predictions_are_plain(case: TaskCase) -> None:
    """Predictions can be written as JSON, one dictionary per image."""
    results = [result for _, result in case.predicted(case.fitted)]
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
    expect(sum(len(case.fitted.as_json(b)) for b in results) == 3, "expected one result per image")


@check("tasks", after=("predictions_are_plain",))
def draws_pictures(case: TaskCase) -> None:
    """``draw`` turns images and predictions into pictures, one per image."""
    pairs = case.predicted(case.fitted)
    drawn = [picture for batch, results in pairs for picture in case.fitted.draw(batch[0], results)]
    expect(isinstance(drawn, list) and len(drawn) == 3, "draw: expected a picture for each of three images")
    expect(all(isinstance(p, Image.Image) and min(p.size) > 0 for p in drawn), "draw: expected PIL pictures")


@check("tasks", after=("draws_pictures",))
def an_evaluation_has_pictures(case: TaskCase) -> None:
    """After an evaluation there are pictures of it, for the run folder, the loggers and the gallery."""
    for run, stage in _evaluations(case):
        writer = PictureWriter(case.folder / "pictures")
        getattr(case.trainer(callbacks=[writer]), run)(case.fitted, datamodule=case.data(), verbose=False)
        found = case.fitted.pictures()
        right = isinstance(found, dict) and all(isinstance(p, Image.Image) for made in found.values() for p in made)
        expect(right, "pictures: expected lists of PIL pictures by name")
        overlays, tables = case.fitted.overlays(), case.fitted.tables()
        right = isinstance(overlays, dict) and all(isinstance(o, Overlay) for many in overlays.values() for o in many)
        expect(right, "overlays: expected lists of zoo.drawing.Overlay by name")
        right = isinstance(tables, dict) and all(isinstance(table, Table) for table in tables.values())
        expect(right, "tables: expected zoo.drawing.Table by name")
        expect(
            found or stage == "val", f"after {run} there are no pictures: {case.cls.__name__} can draw its predictions"
        )


@check("tasks", after=("a_fit_runs",))
def copies_drag_nothing(case: TaskCase) -> None:
    """A deep copy, as weight averaging makes it, has no reference to a trainer or data."""
    memo: dict[int, Any] = {}
    deepcopy(case.fitted, memo)
    dragged = [type(v).__name__ for v in memo.values() if isinstance(v, Trainer | LightningDataModule)]
    expect(not dragged, f"a deep copy has a reference to {', '.join(dragged[:2])}")


@check("tasks", after=("a_fit_runs",))
def export_agrees(case: TaskCase) -> None:
    """What ``Task.exported`` says is written to a file that computes the same, or it says that it can't be."""
    task = case.built()
    try:
        task.exported()
    except UserError:
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            export(task, Path(folder) / "task.pt2", "torch_export")
    except UserError as error:
        raise Failed(f"exported: {error}") from error


@check("tasks")
def a_call_gives_what_its_role_promises(case: TaskCase) -> None:
    """Called with images it returns what its architecture's role specifies, e.g. logits (B, num_classes)."""
    if not _is_called_with_images(case):
        return
    task, images = case.built(), case.images(2)
    with torch.no_grad():
        found = task(images)
    try:
        contracts.role(task.role_of("architecture")).check(found, (images,), task.facts)
    except contracts.ContractError as error:
        raise Failed(f"called with images: {error}") from error
