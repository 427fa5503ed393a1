"""What a resumed run may change is said by its classes, for every registered task, data set and network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import Timer
from running import write_recipe, zoo

from zoo import registry
from zoo.cli.resuming import changes, may_change, say_if_nothing_left
from zoo.testing.checks import accepted

OURS = [e for e in registry.entries() if e.kind in ("tasks", "data") and e.package in ("lightning-zoo", "zoo-toys")]
HARMLESS = {"num_workers", "eval_batch_size", "root", "download", "check", "files", "views", "strength"}


def spec(entry: registry.Entry, **arguments: Any) -> dict[str, Any]:
    return {"class_path": entry.stable_path, "init_args": arguments}


def of(entry: registry.Entry, **arguments: Any) -> dict[str, Any]:
    return {{"tasks": "model", "data": "data"}[entry.kind]: spec(entry, **arguments), "seed_everything": 0}


@pytest.mark.parametrize("entry", OURS, ids=lambda entry: entry.name)
def test_each_argument_is_refused_or_said_to_be_harmless(entry: registry.Entry) -> None:
    cls = entry.load()
    names = accepted(cls) - {"facts"}
    refused = {n for n in names if list(changes(of(entry, **{n: 1}), of(entry, **{n: 2})))}
    assert refused == names - may_change(cls)
    assert not refused & HARMLESS
    assert not list(changes(of(entry, **dict.fromkeys(names, 1)), of(entry, **dict.fromkeys(names, 1))))


def test_both_optimizers_of_two_networks_are_fixed() -> None:
    (entry,) = registry.find("ToyGAN")
    for name in ("generator_optimizer", "discriminator_optimizer"):
        old, new = ({name: {"class_path": "torch.optim.Adam", "init_args": {"lr": lr}}} for lr in (0.1, 0.2))
        assert list(changes(of(entry, **old), of(entry, **new))) == [(f"model.{name}.lr", 0.1, 0.2)]


def test_what_was_nothing_can_not_become_something() -> None:
    (entry,) = registry.find("Classification")
    scheduler = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}}
    found = list(changes(of(entry, scheduler=None), of(entry, scheduler=scheduler)))
    assert found == [("model.scheduler", None, scheduler)]


def test_networks_say_it_for_themselves() -> None:
    (task,), (network,) = registry.find("Classification"), registry.find("DenseNet")

    def with_network(**arguments: Any) -> dict[str, Any]:
        return of(task, architecture=spec(network, **arguments))

    assert not list(changes(with_network(memory_efficient=False), with_network(memory_efficient=True)))
    (change,) = changes(with_network(growth_rate=4), with_network(growth_rate=5))
    assert change == ("model.architecture.growth_rate", 4, 5)


def test_arguments_of_another_version_are_no_change() -> None:
    (entry,) = registry.find("Classification")
    assert not list(changes(of(entry, gone=1), of(entry, label_smoothing=0.1)))


def test_lists_of_classes_are_compared_one_by_one() -> None:
    (entry,) = registry.find("MNIST5k")
    old, same, new = ([{"class_path": "CropEach", "init_args": {"padding": p}}] for p in (2, 2, 3))
    assert not list(changes(of(entry, augment=old), of(entry, augment=same)))
    assert [name for name, *_ in changes(of(entry, augment=old), of(entry, augment=new))] == ["data.augment"]


def test_a_run_that_has_nothing_to_do_says_why(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(Path("toy.yaml"), {"class_path": "ToyClassification"}, {"class_path": "ToyTensors"})
    assert zoo("fit", "--config", str(recipe), "--out", "run", "--no_test", "--trainer.max_epochs", "1") == 0
    assert "nothing to train" not in capsys.readouterr().out
    assert zoo("fit", "--ckpt_path", "run", "--no_test") == 0
    reason = "is at step 6, and trainer.max_epochs 1 is reached (--trainer.max_epochs N trains longer)"
    assert f"zoo: nothing to train: run/checkpoints/last.ckpt {reason}" in capsys.readouterr().out


def test_the_limit_that_is_reached_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    timer = Timer(duration={"seconds": 10})
    timer.load_state_dict({"time_elapsed": {"train": 11.0}})
    for limits, callbacks, reason in (
        ({"max_epochs": 3, "max_steps": -1}, [timer], "trainer.max_time is over"),
        ({"max_epochs": -1, "max_steps": 6}, [], "trainer.max_steps 6 is reached"),
        ({"max_epochs": 3, "max_steps": -1}, [], "its run has ended"),
    ):
        trainer: Any = SimpleNamespace(global_step=6, current_epoch=1, callbacks=callbacks, **limits)
        say_if_nothing_left(trainer, {"global_step": 5}, Path("last.ckpt"))
        assert not capsys.readouterr().out
        say_if_nothing_left(trainer, {"global_step": 6}, Path("last.ckpt"))
        assert reason in capsys.readouterr().out
