"""The command line: a line for every mistake, overlays and precedence, run folders, what a checkpoint alone can do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from running import different, folder_of, said, state, write_recipe, zoo

from zoo import registry
from zoo.training.checkpoints import read, run_record
from zoo.training.restore import load

MODEL = {
    "class_path": "ToyClassification",
    "init_args": {"architecture": {"class_path": "ToyNet", "init_args": {"channels": 5}}, "optimizer": "SGD"},
}


@pytest.fixture
def recipe(workspace: Path) -> str:
    return str(write_recipe(workspace / "toy.yaml", MODEL, {"class_path": "ToyTensors"}, max_epochs=1))


def resolved(label: str = "toy") -> dict:
    return yaml.safe_load((folder_of(label) / "recipe.yaml").read_text())


# One line for every mistake


WRONG = {
    "unknown architecture": (["--model.architecture", "ToyNett"], ["ToyNett", "did you mean ToyNet", "zoo list"]),
    "unknown task": (["--model", "ToyClasification"], ["ToyClasification", "did you mean ToyClassification"]),
    "unknown data": (["--data", "ToyTensor"], ["ToyTensor", "did you mean ToyTensors"]),
    "unknown callback": (["--trainer.callbacks", "EarlyStoping"], ["EarlyStoping", "did you mean EarlyStopping"]),
    "name of another kind": (["--model.architecture", "ToyTensors"], ["ToyTensors", "data"]),
    "unknown key": (
        ["--model.architecture.chanels", "3"],
        ["error: model.architecture: ToyNet takes no chanels; did you mean channels or in_channels?"],
    ),
    "unknown key of a task": (["--model.architectur", "LeNet"], ["model: ToyClassification takes no architectur; did"]),
    "unknown key of the data": (["--data.batch", "3"], ["data: ToyTensors takes no batch; did you mean batch_size?"]),
    "unlike any key": (["--data.zzz", "3"], ["ToyTensors takes no zzz (`zoo show ToyTensors` lists what it takes)"]),
    "unknown key of a library's class": (
        ["--model.optimizer.learning_rate", "3"],
        ["model.optimizer: SGD takes no learning_rate: it takes params, lr, momentum"],
    ),
    "key that is a fact": (["--model.architecture.num_classes", "3"], ["ToyNet's num_classes is filled in"]),
    "not among the words": (
        ["--model.architecture", "ResNet", "--model.architecture.init", "kaiming"],
        ["model.architecture.init: must be one of 'backward', 'forward'", "not kaiming"],
    ),
    "a key twice in a value": (["--data", "{class_path: X, class_path: Y}"], ["not valid YAML: line 1: the key class"]),
    "broken YAML in a value": (["--model", "{class_path: ["], ["model: {class_path: [ is not valid YAML: line 2"]),
    "a module that is no transform": (
        ["--data", "Digits", "--data.augment", "[torch.nn.ReLU]"],
        ["error: data.augment: torch.nn.ReLU is not of the class Transform"],
    ),
    "unknown option": (["--trainer.max_epoch", "3"], ["trainer: Trainer takes no max_epoch; did you mean max_epochs"]),
    "abbreviated option": (["--trainer.max_ep", "3"], ["Trainer takes no max_ep"]),
    "wrong type": (["--model.architecture.channels", "many"], ["channels", "int", "many"]),
    "wrong type of an optimiser's": (["--model.optimizer.lr", "fast"], ["lr", "float", "fast"]),
    "wrong range": (["--data.batch_size", "0"], ["batch_size", "at least 1"]),
    "wrong trainer value": (["--trainer.devices", "1.5.5"], ["devices"]),
    "negative workers": (["--data.num_workers", "-1"], ["num_workers", "at least 0"]),
    "no step at all": (["--checkpoint_every_n_steps", "0"], ["checkpoint_every_n_steps"]),
    "missing key": (["--model", "ToyGAN"], ["generator"]),
    "missing recipe": (["--config", "nowhere.yaml"], ["nowhere.yaml", "zoo list recipes"]),
    "missing checkpoint": (["--ckpt_path", "nowhere.ckpt"], ["nowhere.ckpt"]),
    "unwritable folder": (["--out", "/proc/nowhere"], ["/proc/nowhere"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line(name: str, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    extra, words = WRONG[name]
    line = said(capsys, "fit", "--config", recipe, *extra)
    for word in words:
        assert word in line, line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: [unclosed", ["toy.yaml"]),
        ("model: {a: b}: c", ["toy.yaml"]),
        ("trainer: {max_epochs: [1]}", ["max_epochs"]),
        ("modle: {a: 1}", ["modle"]),
        ("data: {class_path: ToyTensors, init_args: {batch_sizes: 3}}", ["ToyTensors takes no batch_sizes; did you"]),
        ("trainer: {max_epoch: 3}", ["trainer: Trainer takes no max_epoch; did you mean max_epochs"]),
        ("just text", []),
    ],
)
def test_broken_yaml_is_one_line(text: str, words: list[str], recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(recipe).write_text(text)
    line = said(capsys, "fit", "--config", recipe)
    for word in words:
        assert word in line, line


def test_unreadable_recipe_is_one_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "binary.yaml" in said(capsys, "fit", "--config", "binary.yaml")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model.label_smoothing", "0.1"], "model.label_smoothing: of which class? Give --model NAME first"),
        (["--model.architecture.depth", "20"], "model.architecture.depth: of which class? Give --model NAME first"),
        (["--model", "Classification", "--model.architecture.depth", "20"], "Give --model.architecture NAME first"),
        (["--data.batch_size", "8"], "data.batch_size: of which class? Give --data NAME first"),
    ],
)
def test_an_argument_without_its_class_is_one_line(words: list[str], says: str, capsys) -> None:
    assert says in said(capsys, "fit", *words)


def test_nothing_given_is_one_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--config FILE" in said(capsys, "fit")


def test_debug_shows_the_traceback(recipe: str, zoo_process) -> None:
    toys = str(Path(__file__).parent.parent / "toys")
    shown = zoo_process("fit", "--config", recipe, "--data.batch_size", "0", "--debug", PYTHONPATH=toys)
    assert "Traceback" in shown.stderr
    hidden = zoo_process("fit", "--config", recipe, "--data.batch_size", "0", PYTHONPATH=toys)
    assert hidden.returncode == 2
    assert hidden.stderr.strip() == "zoo: error: data.batch_size must be at least 1, not 0"


NET = "from zoo_toys.networks import ToyNet\nclass {name}(ToyNet): '''A net.'''\n"


def test_only_what_is_named_is_imported(recipe: str, fake_plugin, capsys: pytest.CaptureFixture[str]) -> None:
    fake_plugin(
        files={"acme/good.py": NET.format(name="AcmeNet"), "acme/bad.py": "raise RuntimeError('boom')"},
        entries={"architectures": {"AcmeNet": "acme.good:AcmeNet", "BadNet": "acme.bad:BadNet"}},
    )
    assert zoo("fit", "--config", recipe, "--model.architecture", "AcmeNet", "--no_test") == 0
    assert "acme.good" in sys.modules
    assert "acme.bad" not in sys.modules
    assert resolved()["model"]["init_args"]["architecture"]["class_path"] == "zoo.architectures.AcmeNet"
    line = said(capsys, "fit", "--config", recipe, "--model.architecture", "BadNet")
    assert "acme-zoo" in line
    assert "boom" in line
    by_path = folder_of("toy") / "recipe.yaml"
    assert zoo("fit", "--config", str(by_path), "--no_test") == 0, "the stable path resolves in a recipe"


def test_a_name_claimed_twice(recipe: str, fake_plugin, capsys: pytest.CaptureFixture[str]) -> None:
    fake_plugin("one", files={"one/a.py": NET.format(name="Twin")}, entries={"architectures": {"Twin": "one.a:Twin"}})
    fake_plugin("two", files={"two/a.py": NET.format(name="Twin")}, entries={"architectures": {"Twin": "two.a:Twin"}})
    line = said(capsys, "fit", "--config", recipe, "--model.architecture", "Twin")
    assert "one.a.Twin" in line
    assert "two.a.Twin" in line
    assert zoo("fit", "--config", recipe, "--model.architecture", "two.a.Twin", "--no_test") == 0
    assert resolved()["model"]["init_args"]["architecture"]["class_path"] == "two.a.Twin"


def test_a_label_spelt_like_a_broken_plugin_does_no_harm(recipe: str, fake_plugin) -> None:
    fake_plugin(files={"acme/bad.py": "raise RuntimeError('boom')"}, entries={"tasks": {"cat": "acme.bad:cat"}})
    overlay = Path("facts.yaml")
    overlay.write_text(yaml.safe_dump({"model": {"init_args": {"facts": {"class_names": ["cat", "b", "c"]}}}}))
    assert zoo("fit", "--config", recipe, "--config", str(overlay), "--no_test") == 0


# Overlays and precedence


def test_precedence_is_defaults_checkpoint_recipes_flags(recipe: str) -> None:
    def channels() -> int:
        return resolved()["model"]["init_args"]["architecture"]["init_args"]["channels"]

    architecture = "model: {init_args: {architecture: {init_args: {channels: %d}}}}"
    Path("over.yaml").write_text(architecture % 7)
    assert zoo("fit", "--config", recipe, "--no_test", "--model.optimizer.lr", "0.25") == 0
    assert channels() == 5, "the recipe over the default of 4"
    assert zoo("fit", "--config", recipe, "--config", "over.yaml", "--no_test") == 0
    assert channels() == 7, "a later recipe over an earlier one"
    assert (
        zoo("fit", "--config", recipe, "--config", "over.yaml", "--model.architecture.channels", "9", "--no_test") == 0
    )
    assert channels() == 9, "a flag over the recipes"
    checkpoint = folder_of("toy") / "checkpoints" / "last.ckpt"
    shutil.copy(checkpoint, "alone.ckpt")
    assert zoo("fit", "--ckpt_path", "alone.ckpt", "--trainer.max_epochs", "2", "--no_test") == 0
    assert channels() == 9, "the checkpoint over the default"
    assert resolved()["trainer"]["max_epochs"] == 2, "a flag over the checkpoint"
    Path("longer.yaml").write_text("trainer: {max_epochs: 3}")
    assert zoo("fit", "--ckpt_path", "alone.ckpt", "--config", "longer.yaml", "--no_test") == 0
    assert resolved("longer")["trainer"]["max_epochs"] == 3, "a recipe over the checkpoint"


def test_a_callback_can_be_appended(recipe: str) -> None:
    Path("more.yaml").write_text("trainer: {callbacks+: [{class_path: EarlyStopping, init_args: {monitor: val/loss}}]}")
    argv = ["--config", recipe, "--config", "more.yaml", "--trainer.callbacks+=RichModelSummary", "--no_test"]
    assert zoo("fit", *argv) == 0
    names = [c["class_path"].rpartition(".")[2] for c in resolved()["trainer"]["callbacks"]]
    assert names == ["EarlyStopping", "RichModelSummary"]


# Runs


def test_each_run_has_its_own_folder_and_nothing_lies_outside(recipe: str) -> None:
    before = {p.name for p in Path.cwd().iterdir()}
    for _ in range(3):
        assert zoo("fit", "--config", recipe) == 0
    assert {p.name for p in Path.cwd().iterdir()} - before == {"runs"}
    folders = sorted(Path("runs/toy").iterdir())
    assert len(folders) == 3
    for folder in folders:
        assert {p.name for p in folder.iterdir()} >= {"recipe.yaml", "checkpoints", "results.json", "model.txt"}
    assert "93" not in (folders[0] / "recipe.yaml").read_text()
    assert zoo("fit", "--config", str(folders[0] / "recipe.yaml"), "--no_test") == 0, "what was kept can be run again"
    again = state(folder_of("recipe") / "checkpoints/last.ckpt")
    assert all(
        torch.equal(v, again[k]) for k, v in state(folders[0] / "checkpoints/last.ckpt").items() if torch.is_tensor(v)
    )


def test_what_a_fit_says_fits_a_terminal(workspace: Path, zoo_process) -> None:
    few = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"]
    small = ["--data", "Digits", "--data.image_size", "32", "--data.resize", "36", "--model.architecture.width", "0.05"]
    lines = zoo_process("fit", "--config", "alexnet", *small, *few).stdout.splitlines()
    folder = folder_of("alexnet")
    assert max(map(len, lines)) <= 80
    assert lines[-2:] == [f"next        zoo predict --ckpt_path {folder} \\", " " * 14 + "--data.files 'photos/*.jpg'"]
    (upload,) = [line.split(maxsplit=4)[-1] for line in lines if line.startswith("upload it")]
    assert list(Path().glob(upload)) == list(folder.glob("wandb/offline-run-*")) != []


def test_a_resumed_run_goes_on_in_its_own_folder(recipe: str) -> None:
    assert zoo("fit", "--config", recipe, "--no_test") == 0
    first = folder_of("toy")
    assert (
        zoo("fit", "--ckpt_path", str(first / "checkpoints/last.ckpt"), "--trainer.max_epochs", "2", "--no_test") == 0
    )
    assert list(Path("runs/toy").iterdir()) == [first]
    assert read(first / "checkpoints/last.ckpt")["epoch"] == 1
    assert zoo("fit", "--config", recipe, "--ckpt_path", "last", "--trainer.max_epochs", "3", "--no_test") == 0
    assert read(first / "checkpoints/last.ckpt")["epoch"] == 2


@pytest.mark.parametrize(
    "change",
    [
        ["--model.optimizer.lr", "0.5"],
        ["--data.batch_size", "5"],
        ["--data", "ToySamples"],
        ["--seed_everything", "3"],
    ],
)
def test_what_would_be_ignored_on_resume_is_refused(change: list[str], recipe: str, capsys) -> None:
    assert zoo("fit", "--config", recipe, "--no_test") == 0
    last = str(folder_of("toy") / "checkpoints/last.ckpt")
    capsys.readouterr()
    assert "can't change when a run is resumed" in said(capsys, "fit", "--ckpt_path", last, *change)


def test_how_weights_start_cannot_change_on_resume(workspace: Path, capsys) -> None:
    """The weights are the checkpoint's: another init would be accepted and ignored."""
    network = {"class_path": "PlainNet", "init_args": {"depth": 5, "width": 0.1}}
    model = {"class_path": "Classification", "init_args": {"architecture": network, "optimizer": "SGD"}}
    toy = write_recipe(workspace / "toy.yaml", model, {"class_path": "ToyTensors"})
    assert zoo("fit", "--config", str(toy), "--no_test") == 0
    capsys.readouterr()
    change = ["--model.architecture.init", "normal", "--trainer.max_epochs", "2"]
    line = said(capsys, "fit", "--ckpt_path", "last", *change)
    assert (
        'model.architecture.init can\'t change when a run is resumed: "backward" in the checkpoint, "normal" now'
        in line
    )


def test_parameter_groups_cannot_change_on_resume(workspace: Path, capsys) -> None:
    groups = [{"pattern": "head", "lr": 0.1, "optimizer": "AdamW"}, {"pattern": "", "lr": 0.2}]
    model = {"architecture": "ToyNet", "optimizer": "SGD", "parameter_groups": groups}
    toy = write_recipe(
        workspace / "toy.yaml", {"class_path": "Classification", "init_args": model}, {"class_path": "ToyTensors"}
    )
    assert zoo("fit", "--config", str(toy), "--no_test") == 0
    last = str(folder_of("toy") / "checkpoints/last.ckpt")
    assert zoo("fit", "--ckpt_path", last, "--trainer.max_epochs", "3", "--no_test") == 0
    capsys.readouterr()
    other = "[{pattern: head, lr: 0.1, optimizer: AdamW}, {pattern: '', lr: 0.3}]"
    line = said(capsys, "fit", "--ckpt_path", last, "--trainer.max_epochs", "4", "--model.parameter_groups", other)
    assert "model.parameter_groups can't change when a run is resumed" in line


FEWER = ["--trainer.limit_val_batches", "0", "--trainer.callbacks", "EarlyStopping"]


@pytest.mark.parametrize(
    "change",
    [
        ["--model.architecture.channels", "7"],
        ["--model.optimizer.lr", "0.5"],
        [*FEWER, "--trainer.callbacks.monitor", "val/loss"],
        ["--trainer.strategy", "ddp", "--trainer.sync_batchnorm", "true"],
    ],
)
def test_a_refused_resume_writes_nothing(change: list[str], recipe: str, capsys) -> None:
    assert zoo("fit", "--config", recipe, "--no_test") == 0
    run = folder_of("toy")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    capsys.readouterr()
    said(capsys, "fit", "--ckpt_path", str(run / "checkpoints/last.ckpt"), *change, "--trainer.max_epochs", "2")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize("command", ["validate", "test"])
def test_without_a_checkpoint_the_network_is_said_to_be_untrained(command: str, recipe: str, capsys) -> None:
    assert zoo(command, "--config", recipe) == 0
    assert capsys.readouterr().err.strip() == "zoo: without a checkpoint (--ckpt_path FILE) the network is untrained"
    assert zoo("fit", "--config", recipe) == 0
    last = str(folder_of("toy") / "checkpoints/last.ckpt")
    assert zoo(command, "--ckpt_path", last) == 0
    named = ["--data", "ToyTensors", "--trainer.accelerator", "cpu", "--model", "Classification"]
    named += ["--model.architecture", "ToyNet", "--model.architecture.channels", "5", "--model.weights", last]
    assert zoo(command, *named) == 0
    assert "untrained" not in capsys.readouterr().err


def test_weights_of_another_network_end_in_one_line(recipe: str, capsys) -> None:
    assert zoo("fit", "--config", recipe, "--no_test") == 0
    last = str(folder_of("toy") / "checkpoints/last.ckpt")
    capsys.readouterr()
    line = said(capsys, "test", "--ckpt_path", last, "--model.architecture.channels", "7")
    assert "the checkpoint's weights do not fit this task: architecture." in line
    assert "there, [7" in line
    line = said(capsys, "fit", "--ckpt_path", last, "--model.architecture.channels", "7")
    assert "model.architecture.channels can't change" in line


def test_last_is_of_the_recipe_that_is_named(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo("fit", "--config", recipe, "--no_test") == 0
    folder = Path("recipes")
    folder.mkdir()
    shutil.copy(recipe, folder / "other.yaml")
    capsys.readouterr()
    line = said(capsys, "test", "--config", "recipes/other.yaml", "--ckpt_path", "last")
    assert "no whole checkpoint below runs/other" in line
    assert zoo("fit", "--config", "recipes/other.yaml", "--no_test") == 0
    newer, older = folder_of("toy"), folder_of("other")
    for at, run in enumerate((older, newer)):
        os.utime(run / "checkpoints/last.ckpt", (1e9 + at, 1e9 + at))
    assert (
        zoo("fit", "--config", "recipes/other.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "2", "--no_test")
        == 0
    )
    assert read(older / "checkpoints/last.ckpt")["epoch"] == 1
    assert read(newer / "checkpoints/last.ckpt")["epoch"] == 0


def test_a_schedule_over_the_whole_run_cannot_be_lengthened(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    cycle = ["--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", "0.1"]
    assert zoo("fit", "--config", recipe, "--no_test", *cycle) == 0
    last = str(folder_of("toy") / "checkpoints/last.ckpt")
    capsys.readouterr()
    line = said(capsys, "fit", "--ckpt_path", last, "--trainer.max_epochs", "2")
    assert "trainer.max_epochs can't change" in line
    assert "OneCycleLR" in line


@pytest.mark.parametrize("place", ["/elsewhere", "../elsewhere"])
def test_a_callback_cannot_write_outside_the_run(place: str, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.dirpath"]
    assert "outside the run's folder" in said(capsys, "fit", "--config", recipe, *own, place)
    assert zoo("fit", "--config", recipe, *own, "mine", "--no_test") == 0
    assert list((folder_of("toy") / "mine").glob("*.ckpt"))


def test_what_a_run_has_written_is_not_overwritten(recipe: str) -> None:
    assert zoo("fit", "--config", recipe) == 0
    folder = folder_of("toy")
    before = {p.name: p.read_bytes() for p in folder.glob("re*")}
    assert zoo("fit", "--ckpt_path", str(folder), "--trainer.max_epochs", "2") == 0
    assert {p.name: p.read_bytes() for p in folder.glob("re*") if p.name in before} == before
    assert yaml.safe_load((folder / "recipe-2.yaml").read_text())["trainer"]["max_epochs"] == 2
    assert (folder / "results-2.json").is_file()


def test_a_restarted_job_goes_on_by_itself(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    argv = ["fit", "--config", recipe, "--no_test"]
    assert zoo(*argv) == 0
    last = Path("runs/toy/torchrun-job/checkpoints/last.ckpt")
    assert read(last)["epoch"] == 0
    assert zoo(*argv) == 0, "a second run of the job"
    assert read(Path("runs/toy/torchrun-job-2/checkpoints/last.ckpt"))["epoch"] == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    capsys.readouterr()
    assert zoo(*argv) == 0, "the same command, as a launcher gives it again"
    assert f"nothing to train: {last} is at step" in capsys.readouterr().out
    assert len(list(Path("runs/toy").iterdir())) == 2


def test_the_name_of_the_plateau_schedule_is_enough(recipe: str) -> None:
    assert zoo("fit", "--config", recipe, "--no_test", "--model.scheduler", "ReduceLROnPlateau") == 0
    path = "torch.optim.lr_scheduler.ReduceLROnPlateau"
    assert resolved()["model"]["init_args"]["scheduler"]["class_path"] == path
    Path("over.yaml").write_text("model: {init_args: {scheduler: ReduceLROnPlateau}}")
    assert zoo("fit", "--config", recipe, "--config", "over.yaml", "--no_test") == 0
    assert resolved()["model"]["init_args"]["scheduler"]["class_path"] == path


# Checkpoints that stand alone


def test_fit_ends_with_the_test_and_prints_a_line_a_metric(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo("fit", "--config", recipe) == 0
    out = capsys.readouterr().out
    value = json.loads((folder_of("toy") / "results.json").read_text())["test/loss"]
    assert f"\ntest/loss {value:.4f}\n" in out
    assert zoo("fit", "--config", recipe, "--no-test") == 0
    assert "test/loss" not in capsys.readouterr().out


def test_every_command_leaves_preparing_to_the_trainer(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does so on one process only; a set that must be fetched is there before it is read."""
    from zoo_toys.data import ToyTensors

    done: list[str] = []
    monkeypatch.setattr(ToyTensors, "prepare_data", lambda self: done.append("prepare" if self.trainer else "early"))
    monkeypatch.setattr(ToyTensors, "setup", lambda self, stage: done.append("setup"))
    assert zoo("fit", "--config", recipe, "--no_test") == 0
    last = str(folder_of("toy") / "checkpoints/last.ckpt")
    for command in ("test", "validate"):
        done.append(command)
        assert zoo(command, "--ckpt_path", last) == 0
    assert done == ["prepare", "setup", "test", "prepare", "setup", "validate", "prepare", "setup"]


def test_a_missing_part_is_one_line(recipe: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from zoo_toys.data import ToyTensors

    assert zoo("fit", "--config", recipe, "--no_test") == 0
    last = str(folder_of("toy") / "checkpoints/last.ckpt")
    monkeypatch.setattr(ToyTensors, "samples", lambda self, split: None)
    capsys.readouterr()
    assert "ToyTensors has no test part" in said(capsys, "test", "--ckpt_path", last)
    assert "ToyTensors has no validation part" in said(capsys, "validate", "--ckpt_path", last)


def test_a_checkpoint_alone_is_enough(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert zoo("fit", "--config", recipe) == 0
    fit = folder_of("toy")
    shutil.copy(fit / "checkpoints/best.ckpt", "alone.ckpt")
    Path(recipe).unlink()
    assert zoo("test", "--ckpt_path", "alone.ckpt") == 0
    wanted = json.loads((fit / "results.json").read_text())
    assert json.loads((folder_of("test-toy") / "results.json").read_text()) == wanted
    assert zoo("validate", "--ckpt_path", "alone.ckpt") == 0
    assert not (fit / "x").exists()
    task = load("alone.ckpt")
    assert type(task).__name__ == "ToyClassification"
    assert not task.training
    assert task.architecture.conv.out_channels == 5
    images = torch.rand(2, 1, 6, 6)
    weights = torch.load("alone.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(task.architecture.conv.weight, weights["architecture.conv.weight"])
    assert task(images).shape == (2, 3)
    assert load(fit) is not None, "a run folder serves as well"


def test_the_record_in_a_checkpoint_is_plain(recipe: str) -> None:
    assert zoo("fit", "--config", recipe, "--no_test") == 0
    checkpoint = read(folder_of("toy") / "checkpoints/last.ckpt")
    assert checkpoint["hyper_parameters"]["_class_path"] == "zoo.tasks.ToyClassification"
    assert checkpoint["hyper_parameters"]["architecture"]["class_path"] == "zoo.architectures.ToyNet"
    record = run_record(checkpoint)
    assert record["data"]["class_path"] == "zoo.data.ToyTensors"
    json.dumps([record, checkpoint["hyper_parameters"]])


def test_weights_start_a_new_task(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo("fit", "--config", recipe, "--no_test") == 0
    source = folder_of("toy") / "checkpoints/last.ckpt"
    from zoo_toys.tasks import ToyClassification

    from zoo.training.checkpoints import load_matching

    task = ToyClassification(facts={"num_classes": 7})
    task.configure_model()
    with pytest.raises(Exception, match="no tensor"):
        load_matching(task, str(source))  # 4 channels there, 5 here
    from functools import partial

    from zoo_toys.networks import ToyNet

    task = ToyClassification(partial(ToyNet, channels=5), facts={"num_classes": 7})
    task.configure_model()
    load_matching(task, str(source))
    given = read(source)["state_dict"]
    assert torch.equal(task.architecture.conv.weight, given["architecture.conv.weight"])
    out = capsys.readouterr().out
    assert "left as initialised:\n  architecture.head.weight (7, 5) has shape (3, 5) there" in out


def test_the_private_override_still_overrides_something() -> None:
    """Lightning would let a checkpoint override the flags; if it renames the method, this must fail."""
    assert callable(LightningCLI.__dict__["_parse_ckpt_path"])
    import inspect

    assert "self._parse_ckpt_path()" in inspect.getsource(LightningCLI.__init__)


# Signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_at_a_quiet_point_and_leaves(number: int, status: int, recipe: str, capsys) -> None:
    # A timer in the main thread's place: the signal comes while the run trains.
    seen = threading.Event()

    def interrupt() -> None:
        while not list(Path("runs").glob("toy/*/checkpoints/last.ckpt")) and not seen.is_set():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    got = zoo("fit", "--config", recipe, "--trainer.max_epochs", "100000", "--no_test")
    seen.set()
    thread.join()
    assert all(signal.getsignal(one) == signal.SIG_DFL for one in (signal.SIGTERM, signal.SIGHUP))
    assert got == status
    last = folder_of("toy") / "checkpoints/last.ckpt"
    assert f"zoo fit --ckpt_path {last}" in capsys.readouterr().out
    epochs = read(last)["epoch"]
    assert zoo("fit", "--ckpt_path", str(last), "--trainer.max_epochs", str(epochs + 2), "--no_test") == 0


# Two processes


def launch(*argv: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(__file__).parent.parent / p) for p in ("toys",))}
    return subprocess.run(
        [sys.executable, "-m", "zoo", *argv], capture_output=True, text=True, timeout=300, env=env, check=False
    )


@pytest.mark.slow
def test_two_processes_share_one_run(recipe: str) -> None:
    ddp = ["--config", recipe, "--trainer.strategy", "ddp", "--trainer.devices", "2", "--trainer.logger", "true"]
    done = launch("fit", *ddp, "--trainer.max_epochs", "2", "--checkpoint_every_n_steps", "3")
    assert done.returncode == 0, done.stderr
    folders = list(Path("runs/toy").iterdir())
    assert len(folders) == 1
    whole = folders[0] / "checkpoints"
    assert done.stdout.count("test/loss") == 1
    assert len(list(folders[0].glob("wandb/offline-run-*"))) == 1
    two = json.loads((folders[0] / "results.json").read_text())
    assert zoo("test", "--ckpt_path", str(whole / "best.ckpt")) == 0
    one = json.loads((folder_of("test-toy") / "results.json").read_text())
    assert two["test/loss"] == pytest.approx(one["test/loss"], rel=1e-6)
    wanted = state(whole / "last.ckpt")
    shutil.copy(whole / "step=3.ckpt", "middle.ckpt")
    again = launch("fit", "--ckpt_path", "middle.ckpt", "--no_test")
    assert again.returncode == 0, again.stderr
    assert not different(wanted, state(folder_of("toy") / "checkpoints/last.ckpt"))


@pytest.mark.slow
def test_the_main_job_on_two_processes(workspace: Path) -> None:
    """AlexNet with dropout, averaged weights and gathered gradients: one set of pictures, an exact resume."""
    overlays = ["--config", "alexnet", "--config", "trainer/ddp", "--config", "trainer/ema"]
    few = ["--trainer.limit_train_batches", "4", "--trainer.limit_val_batches", "1", "--trainer.max_epochs", "1"]
    small = [
        "--model.architecture.width",
        "0.05",
        "--trainer.accumulate_grad_batches",
        "2",
        "--trainer.logger",
        "false",
    ]
    done = launch("fit", *overlays, *few, *small, "--no_test", "--checkpoint_every_n_steps", "1")
    assert done.returncode == 0, done.stderr
    folder = folder_of("alexnet")
    assert len(list((folder / "pictures").iterdir())) == 1
    shutil.copy(folder / "checkpoints/step=1.ckpt", "middle.ckpt")
    again = launch("fit", "--ckpt_path", "middle.ckpt", "--no_test")
    assert again.returncode == 0, again.stderr
    end = state(folder / "checkpoints/last.ckpt")
    assert end["global_step"] == 2
    assert not different(end, state(folder_of("alexnet") / "checkpoints/last.ckpt"))


def test_recipes_are_found_by_name() -> None:
    assert registry.find_recipe("alexnet").is_file()
