"""What libraries raise ends in one line that says at what; the traceback is in the run's log."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import BatchSizeFinder, Checkpoint, EarlyStopping, LearningRateFinder
from lightning.pytorch.callbacks.timer import Interval
from running import said, write_recipe, zoo
from torch import nn

from zoo import __main__ as entrance
from zoo.cli.failures import LOG, Context, _argument, explained, explaining, key_of, message_of, refused
from zoo.cli.lightning import ZooCLI
from zoo.cli.own_callbacks import flat, refuse_finders
from zoo.errors import RunFailed, UserError
from zoo.parsing import words_for_enums
from zoo.training.checkpoints import read, run_record

MODEL = {"class_path": "ToyClassification", "init_args": {"architecture": "ToyNet", "optimizer": "SGD"}}


def caught(function, *args, **kwargs) -> Exception:
    with pytest.raises(Exception) as raised:  # noqa: PT011  any
        function(*args, **kwargs)
    return raised.value


def raising(error: Exception) -> None:
    raise error


def config(**optimizer: object) -> Namespace:
    scheduler = Namespace(class_path="torch.optim.lr_scheduler.StepLR", init_args=Namespace(step_size=2))
    made = Namespace(class_path="torch.optim.SGD", init_args=Namespace(**optimizer))
    task = Namespace(optimizer=made, scheduler=scheduler)
    return Namespace(model=Namespace(class_path="zoo.tasks.Classification", init_args=task))


def test_the_key_of_a_refused_argument() -> None:
    error = caught(torch.optim.SGD, [torch.zeros(1)], lr=-0.1, momentum=0.9)
    assert key_of(error, config(lr=-0.1, momentum=0.9)) == "model.optimizer.lr"
    assert key_of(error, config(momentum=0.9)) == "model.optimizer"
    assert key_of(error, Namespace()) is None
    found = explained(error, Context(config(lr=-0.1)))
    assert (str(found), found.status) == ("model.optimizer.lr: ValueError: Invalid learning rate: -0.1", 2)


def test_the_key_of_a_class_that_the_parser_could_not_build() -> None:
    """Of a list's, jsonargparse gives no more than a text about all that the key might have been."""
    text = """Does not validate against any of the Union subtypes
Errors:
  - Not a valid subclass of Logger
    Subclass types expect one of:
    - a class path (str)
    - a dict with class_path entry
  - Problem with given class_path 'lightning.pytorch.loggers.CometLogger':
      Requirement 'comet-ml' not met. HINT: install it
  - Expected a <class 'bool'>"""
    logger = Namespace(class_path="lightning.pytorch.loggers.CometLogger", init_args=Namespace())
    found = refused(ValueError(text), Namespace(trainer=Namespace(logger=[logger])))
    assert str(found) == "trainer.logger: ValueError: Requirement 'comet-ml' not met. HINT: install it"


def test_a_constructor_that_is_wrong_itself_says_where_its_traceback_is() -> None:
    for error, hint in ((AttributeError("x"), " (--debug shows the traceback)"), (ValueError("x"), "")):
        kept = caught(raising, error)
        text = f"Problem with given class_path 'p.Q':\n  {kept}"
        found = refused(type(kept)(text), Namespace(model=Namespace(class_path="p.Q", init_args=Namespace())))
        assert str(found).endswith(hint or "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Invalid learning rate: -0.1", ".lr"),
        ("Invalid momentum value: 2.5", ".momentum"),
        ("`p` should be a floating point value in the interval [0.0, 1.0].", ".p"),
        ("Nesterov momentum requires zero p", ""),
        ("'p' or nesterov", ".p"),
        ("out of the interval [0.0, 1.0]", ""),
        ("-0.11", ""),
    ],
)
def test_the_argument_that_a_message_means(text: str, expected: str) -> None:
    assert _argument(text, {"lr": -0.1, "momentum": 0.9, "p": 3.0, "fill": 0.0, "nesterov": True}) == expected


def test_the_layer_and_the_log(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 3)), nn.ReLU())
    network.add_module("last", nn.Linear(4, 2))
    error = caught(network, torch.zeros(1, 2))
    found = explained(error, Context(model=network, folder=tmp_path))
    assert (type(found), found.status) == (RunFailed, 1)
    assert str(found).startswith("layer last (Linear): RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert str(found).endswith(f"(the traceback is in {tmp_path / LOG})")
    log = (tmp_path / LOG).read_text()
    assert log.startswith("Traceback")
    assert "mat1 and mat2 shapes" in log


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyError("betas"), "KeyError: 'betas'"),
        (RuntimeError("two\nlines  and\tmore"), "RuntimeError: two lines and more"),
        (AssertionError(), "AssertionError"),
        (RuntimeError("x" * 10_000), f"RuntimeError: {'x' * 400} …"),
        (
            RuntimeError("Caught it.\nTraceback (most recent call last):\n  at\nValueError: of a worker"),
            "ValueError: of a",
        ),
        (UserError("said already"), "said already"),
    ],
)
def test_messages_are_one_line(error: Exception, says: str) -> None:
    line = message_of(error)
    assert says in line
    assert "\n" not in line
    assert len(line) < 450


def test_a_users_mistake_behind_an_error_is_what_is_said() -> None:
    def behind() -> None:
        with explaining(Context()):
            try:
                raise UserError("data.root: no such folder")
            except UserError as error:
                raise RuntimeError("a worker failed") from error

    found = caught(behind)
    assert (type(found), str(found)) == (UserError, "data.root: no such folder")


def test_any_command_ends_in_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr("zoo.cli.listing.main", lambda argv: raising(RuntimeError("two\nlines")))
    assert entrance.main(["list"]) == 1
    assert capsys.readouterr().err == "zoo: error: RuntimeError: two lines (--debug shows the traceback)\n"
    assert entrance.main(["list", "--debug"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("zoo: error: RuntimeError: two lines\n")


def test_a_file_that_is_missing_is_the_users_mistake(monkeypatch, capsys) -> None:
    monkeypatch.setattr("zoo.cli.listing.main", lambda argv: Path("nowhere/x").read_text())
    assert entrance.main(["list"]) == 2
    assert capsys.readouterr().err == "zoo: error: nowhere/x: No such file or directory\n"


def test_a_recipes_own_checkpoint_is_tested_named_and_resumed(workspace: Path, capsys) -> None:
    init_args = {"monitor": "val/loss", "filename": "{epoch}-{val/loss:.3f}"}
    own = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": init_args}
    timer = {"class_path": "lightning.pytorch.callbacks.Timer"}
    data = {"class_path": "ToyTensors"}
    recipe = write_recipe(workspace / "toy.yaml", MODEL, data, max_epochs=1, callbacks=[own, timer])
    assert zoo("fit", "--config", str(recipe), "--out", "my run") == 0
    out = capsys.readouterr().out
    (written,) = Path("my run/checkpoints").iterdir()
    assert written.name.startswith("epoch=0-val-loss=")
    assert "\ntest/loss " in out
    assert f"checkpoint  {written}\n" in out
    assert f"zoo predict --ckpt_path '{written}'" in out or "zoo predict" not in out
    assert run_record(read(written))["trainer"]["max_epochs"] == 1


@pytest.mark.filterwarnings("ignore:EarlyStopping waits for")
def test_a_wrong_monitor_is_told_at_the_first_validation(workspace: Path, capsys) -> None:
    recipe = str(write_recipe(workspace / "toy.yaml", MODEL, {"class_path": "ToyTensors"}, num_sanity_val_steps=1))
    stopping = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val_loss"]
    line = said(capsys, "fit", "--config", recipe, *stopping)
    assert "EarlyStopping waits for val_loss, which validation does not give (it gives" in line


def test_what_a_callback_refuses_in_the_run_is_its_keys() -> None:
    args = Namespace(monitor="train/nothing", mode="min")
    callback = Namespace(class_path="lightning.pytorch.callbacks.EarlyStopping", init_args=args)
    error = caught(EarlyStopping("train/nothing")._validate_condition_metric, {})
    found = explained(error, Context(Namespace(trainer=Namespace(callbacks=[callback]))))
    assert str(found).startswith("trainer.callbacks.monitor: RuntimeError: Early stopping conditioned on metric")
    assert found.status == 2


@pytest.mark.parametrize("cls", [LearningRateFinder, BatchSizeFinder])
def test_callbacks_that_change_the_recipe_are_refused(cls: type) -> None:
    with pytest.raises(UserError, match=f"trainer.callbacks: {cls.__name__} is not allowed"):
        refuse_finders([cls()])


def test_a_librarys_enum_is_a_word_in_the_recipe() -> None:
    timer = Namespace(class_path="lightning.pytorch.callbacks.Timer", init_args=Namespace(interval=Interval.step))
    config = Namespace(trainer=Namespace(callbacks=[timer]), seed_everything=0)
    words_for_enums(config)
    assert yaml.safe_dump(timer.init_args.interval) == yaml.safe_dump("step")


def test_a_metrics_name_makes_no_folder() -> None:
    assert flat("{epoch}-{val/top1:.2f}") == "epoch={epoch}-val-top1={val/top1:.2f}"
    assert flat("plain") == "plain"


def test_the_key_is_found_behind_what_the_parser_makes_of_it() -> None:
    def wrapped() -> None:
        try:
            torch.optim.SGD([torch.zeros(1)], lr=-0.1)
        except ValueError as error:
            raise ValueError("Problem with given class_path; Subclass types expect one of: - a class path") from error

    found = explained(caught(wrapped), Context(config(lr=-0.1)))
    assert str(found) == "model.optimizer.lr: ValueError: Invalid learning rate: -0.1"


def test_a_schedulers_own_error_is_its_keys_and_a_seeds_the_seeds() -> None:
    scheduler = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.zeros(1)], lr=0.1), 2)
    scheduler.step_size = 0
    found = explained(caught(scheduler.step), Context(config()))
    assert str(found) == "model.scheduler: ZeroDivisionError: integer modulo by zero"
    assert str(explained(caught(seed_everything, -5), Context())).startswith(
        "seed_everything: ValueError: -5 is not in"
    )


def test_what_a_free_mapping_names_is_not_looked_at() -> None:
    error = caught(torch.optim.SGD, [torch.zeros(1)], lr=-0.1)
    free = {"x": {"class_path": "os.getcwd"}, "y": {"class_path": "antigravity.Thing"}, "z": {"class_path": "x"}}
    given = config(lr=-0.1)
    given.model.init_args.architecture = Namespace(class_path="zoo.architectures.Timm", init_args={"options": free})
    assert key_of(error, given) == "model.optimizer.lr"
    assert "antigravity" not in sys.modules


def test_memory_that_an_optimizers_first_step_lacks_is_not_its_keys(tmp_path: Path) -> None:
    weights = torch.zeros(1).expand(2**46).requires_grad_()
    weights.grad = torch.zeros(1).expand(2**46)
    error = caught(torch.optim.Adam([weights]).step)  # whose moments are as large
    given = config(lr=0.1)
    given.model.init_args.optimizer.class_path = "torch.optim.Adam"
    found = explained(error, Context(given, folder=tmp_path))
    assert (type(found), found.status) == (RunFailed, 1)
    assert "memory" in str(found)
    assert str(found).endswith(f"(the traceback is in {tmp_path / LOG})")


def test_the_log_has_every_error_of_a_run_that_has_begun(tmp_path: Path) -> None:
    mistake = caught(torch.optim.SGD, [torch.zeros(1)], lr=-0.1)
    context = Context(config(lr=-0.1), folder=tmp_path)
    assert explained(mistake, context).status == refused(mistake, config(lr=-0.1), tmp_path).status == 2
    assert not any(tmp_path.iterdir()), "nothing is left of a mistake before the run"
    (tmp_path / "recipe.yaml").touch()
    assert explained(mistake, context).status == 2
    assert refused(mistake, config(lr=-0.1), tmp_path).status == 2
    assert (tmp_path / LOG).read_text().count("ValueError: Invalid learning rate: -0.1") == 2


def test_a_broken_pipe_in_a_run_is_a_failure() -> None:
    def lost() -> None:
        with explaining(Context()):
            raise BrokenPipeError(32, "Broken pipe")

    found = caught(lost)
    assert (type(found), found.status) == (RunFailed, 1)
    assert str(found) == "BrokenPipeError: [Errno 32] Broken pipe (--debug shows the traceback)"


class OwnCheckpoint(Checkpoint):
    """A plugin's, which keeps its files where nobody else finds them."""


def test_a_plugins_checkpoint_that_cannot_be_found_is_said(capsys) -> None:
    cli = ZooCLI.__new__(ZooCLI)
    cli.own = [OwnCheckpoint()]
    cli.trainer = Trainer(accelerator="cpu", callbacks=cli.own, logger=False, enable_progress_bar=False)
    assert cli._chosen_by_own() is None
    assert capsys.readouterr().out.endswith("zoo: no checkpoint of OwnCheckpoint was found to test\n")
