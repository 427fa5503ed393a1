"""Recipes and checkpoints are data: what names anything but the listed classes is refused, and runs nothing."""

import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
import torch
import yaml
from running import write_recipe, zoo

from zoo.errors import UserError

MODEL = {"class_path": "ToyClassification", "init_args": {"architecture": "ToyNet"}}
EVIL = """
open(r"{ran}", "w").write("x")
from zoo import Architecture, Data, Task
class Net(Architecture):
    def __init__(self, num_classes: int = 1): super().__init__()
    def forward(self, x): return x
def make(**facts):
    open(r"{ran}", "w").write("x")
"""


def model(**init: Any) -> dict[str, Any]:
    return {"model": {"class_path": "ToyClassification", "init_args": {"architecture": "ToyNet", **init}}}


def part(class_path: str, **init: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init}


def trainer(**settings: Any) -> dict[str, Any]:
    return {"trainer": settings}


ELSEWHERE = str(Path(gettempdir(), "zoo-elsewhere"))
TOUCH = ["touch", "RAN"]
# Each is laid over a good recipe. RAN is what would be there if anything had run.
RECIPES: dict[str, Any] = {
    "module beside the recipe": model(architecture="evil.Net"),
    "module beside the recipe, as class_path": model(architecture=part("evil.Net")),
    "function in an architecture's place": model(architecture="evil.make"),
    "torch.load in an architecture's place": model(architecture="torch.load"),
    "torch.load with arguments": model(architecture=part("torch.load", f="payload.pt", weights_only=False)),
    "torch.hub.load": model(architecture=part("torch.hub.load", repo_or_dir=".", model="x", source="local")),
    "os.system as optimiser": model(optimizer="os.system"),
    "subprocess as optimiser": model(optimizer=part("subprocess.Popen", args=TOUCH)),
    "torch.load as optimiser": model(optimizer="torch.load"),
    "function of torch.optim": model(optimizer="torch.optim.swa_utils.get_ema_avg_fn"),
    "function of timm.optim": model(optimizer="timm.optim.create_optimizer_v2"),
    "function of torch.nn": model(architecture="torch.nn.init.eye_"),
    "a module through a library": model(optimizer="torch.optim.lr_scheduler.warnings.os.system"),
    "re-exported partial": model(optimizer="torch.optim.lr_scheduler.partial"),
    "Popen as model": {"model": part("subprocess.Popen", args=TOUCH)},
    "Popen as data": {"data": part("subprocess.Popen", args=TOUCH)},
    "Popen as callback": trainer(callbacks=[part("subprocess.Popen", args=TOUCH)]),
    "Popen as plugin": trainer(plugins=part("subprocess.Popen", args=TOUCH)),
    "Popen as strategy": trainer(strategy=part("subprocess.Popen", args=TOUCH)),
    "Popen as logger": trainer(logger=part("subprocess.Popen", args=TOUCH)),
    "Popen as profiler": trainer(profiler=part("subprocess.Popen", args=TOUCH)),
    "LambdaCallback": trainer(callbacks=[part("LambdaCallback", on_fit_start="evil.make")]),
    "LambdaCallback by path": trainer(
        callbacks=[part("lightning.pytorch.callbacks.lambda_function.LambdaCallback", setup="os.getcwd")]
    ),
    "function for a callback's callable": trainer(callbacks=[part("WeightAveraging", avg_fn="torch.nn.init.eye_")]),
    "function for a schedule's callable": model(scheduler=part("LambdaLR", lr_lambda="torch.nn.functional.relu")),
    "eval": model(optimizer=part("builtins.eval", source="open('RAN','w')")),
    "exec": model(optimizer="builtins.exec"),
    "partial chain": model(optimizer=part("functools.partial", func="os.system", command="touch RAN")),
    "operator": model(optimizer="operator.methodcaller"),
    "importlib": model(architecture="importlib.import_module"),
    "runpy": {"model": part("runpy.run_path", path_name="evil.py")},
    "Lightning's instantiate_class": model(optimizer="lightning.pytorch.cli.instantiate_class"),
    "a class of the wrong kind": model(architecture="ToyTensors"),
    "an optimiser for a callback": trainer(callbacks=[part("SGD", lr=1)]),
    "a callback for an optimiser": model(optimizer=part("EarlyStopping", monitor="x")),
    "nested in an init_args": model(architecture=part("ToyNet", channels=part("subprocess.Popen", args=TOUCH))),
    "torch.load as a group's optimiser": model(parameter_groups=[{"pattern": "", "optimizer": "torch.load"}]),
    "eval as a group's optimiser": model(
        parameter_groups=[{"pattern": "", "optimizer": part("builtins.eval", source="open('RAN','w')")}]
    ),
    "function of torch.nn as a group's optimiser": model(
        parameter_groups=[{"pattern": "", "optimizer": "torch.nn.init.eye_"}]
    ),
    "a pickle for timm to load": model(
        architecture=part("Timm", name="test_resnet", options={"checkpoint_path": "payload.pt"})
    ),
    "classes that a free mapping names, when the trainer refuses a value": {
        **model(architecture=part("Timm", name="test_resnet", options={"x": part("os.getcwd"), "y": part("evil.Net")})),
        **trainer(max_epochs=-5),
    },
    "dict_kwargs": {"model": {**MODEL, "dict_kwargs": {"x": part("subprocess.Popen", args=TOUCH)}}},
}
TEXTS = {
    "python tag": 'model: !!python/object/apply:os.system ["touch RAN"]\n',
    "python name": "model: !!python/name:os.system\n",
    "python module": "data: !!python/module:evil\n",
    "anchors that explode": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "environment interpolation": "data: ${oc.env:HOME}\n",
    "shell in a value": "trainer: {max_epochs: $(touch RAN)}\n",
}


@pytest.fixture
def trap(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with an evil module on the path and an evil pickle; the file that tells if either ran."""
    ran = workspace / "RAN"
    (workspace / "evil.py").write_text(EVIL.format(ran=ran))
    monkeypatch.syspath_prepend(str(workspace))
    torch.save(Bomb("touch RAN"), workspace / "payload.pt")
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    return ran


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def refused(*argv: str) -> str:
    try:
        status = zoo(*argv)
    except UserError as error:
        return str(error)
    assert status == 2, f"exit status {status}"
    return ""


@pytest.mark.parametrize("name", [*RECIPES, *TEXTS])
def test_hostile_recipe_is_refused(name: str, trap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_recipe(trap.parent / "good.yaml", MODEL, {"class_path": "ToyTensors"}, max_epochs=1)
    text = TEXTS.get(name) or yaml.safe_dump(RECIPES[name])
    (trap.parent / "bad.yaml").write_text(text)
    told = refused("fit", "--config", str(good), "--config", "bad.yaml") or capsys.readouterr().err
    assert not trap.exists(), "it ran"
    assert "evil" not in sys.modules
    assert "Traceback" not in told
    assert len(told.strip().splitlines()) == 1, told


@pytest.mark.parametrize("name", ["../../outside", "/etc/zoo-outside"])
def test_nothing_is_written_outside_by_a_recipe_name(name: str, trap: Path) -> None:
    told = refused("fit", "--config", name)
    assert "no recipe" in told


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of one short fit; its recipe keeps the best checkpoint, too."""
    folder = tmp_path_factory.mktemp("finished")
    saves = part(MC, save_last=True, monitor="val/loss", save_top_k=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ZOO_RUN_DIR", "")  # so that what the fit sets is taken back
        patch.delenv("ZOO_RUN_DIR")
        for name, settings in {"good": {}, "saves": {"callbacks": [saves]}}.items():
            toys = {"class_path": "ToyTensors"}
            recipe = write_recipe(folder / f"{name}.yaml", MODEL, toys, max_epochs=1, **settings)
            assert zoo("fit", "--config", str(recipe), "--no_test") == 0
    return folder


@pytest.fixture
def checkpoint(finished: Path, workspace: Path) -> Path:
    """A copy in this test's own folder."""
    shutil.copytree(finished / "runs" / "good", workspace / "runs" / "good")
    return next(workspace.glob("runs/good/*/checkpoints/last.ckpt"))


def hyper(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    def edit(content: dict[str, Any]) -> dict[str, Any]:
        change(content["hyper_parameters"])
        return content

    return edit


def put(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, key: value}


CHECKPOINTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bomb for content": lambda content: Bomb("touch RAN"),
    "bomb among hyper-parameters": hyper(lambda h: h.update(optimizer=Bomb("touch RAN"))),
    "bomb among weights": lambda c: {**c, "state_dict": {**c["state_dict"], "x": Bomb("touch RAN")}},
    "bomb beside": put("extra", Bomb("touch RAN")),
    "bomb in optimiser state": put("optimizer_states", [Bomb("touch RAN")]),
    "instantiator of its own": hyper(lambda h: h.update(_instantiator="evil.make", _class_path="evil.Net")),
    "class_path of its own": hyper(lambda h: h.update(_class_path="evil.Net")),
    "class_path a function": hyper(lambda h: h.update(_class_path="os.system")),
    "class_path Popen": hyper(lambda h: h.update(_class_path="subprocess.Popen", args=TOUCH)),
    "class_path not text": hyper(lambda h: h.update(_class_path=["os.system"])),
    "architecture of its own": hyper(lambda h: h.update(architecture={"class_path": "evil.Net", "init_args": {}})),
    "optimiser a function": hyper(lambda h: h.update(optimizer="torch.load")),
    "optimiser Popen": hyper(lambda h: h.update(optimizer=part("subprocess.Popen", args=TOUCH))),
    "a group's optimiser a function": hyper(
        lambda h: h.update(parameter_groups=[{"pattern": "", "optimizer": "torch.load"}])
    ),
    "a group's optimiser Popen": hyper(
        lambda h: h.update(parameter_groups=[{"pattern": "", "optimizer": part("subprocess.Popen", args=TOUCH)}])
    ),
    "no hyper-parameters": lambda c: {k: v for k, v in c.items() if k != "hyper_parameters"},
    "hyper-parameters no dictionary": put("hyper_parameters", "x"),
    "no weights": lambda c: {k: v for k, v in c.items() if k != "state_dict"},
    "not a dictionary": lambda c: [1, 2],
    "data of its own": put("zoo", {"data": part("subprocess.Popen", args=TOUCH)}),
    "data a function": put("zoo", {"data": "evil.make"}),
    "trainer with a callback of its own": put(
        "zoo", {"data": {"class_path": "ToyTensors"}, "trainer": {"callbacks": [part("subprocess.Popen", args=TOUCH)]}}
    ),
}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (name, command)
        for name in CHECKPOINTS
        # what each reads: load the task, test the task and the data, fit all
        for command in (["fit"] if name.startswith("trainer ") else ["test", "fit"] + ["load"] * ("data " not in name))
    ],
)
def test_hostile_checkpoint_is_refused(
    name: str, command: str, checkpoint: Path, trap: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = trap.parent / "bad.ckpt"
    torch.save(CHECKPOINTS[name](torch.load(checkpoint, weights_only=True)), bad)
    capsys.readouterr()
    if command == "load":
        from zoo.training.restore import load

        with pytest.raises(UserError) as caught:
            load(bad)
        told = str(caught.value)
    else:
        told = refused(command, "--ckpt_path", str(bad)) or capsys.readouterr().err
    assert not trap.exists(), "it ran"
    assert "evil" not in sys.modules
    assert len(told.strip().splitlines()) == 1, told


def test_bare_pickle_is_refused(trap: Path) -> None:
    (trap.parent / "bad.ckpt").write_bytes(pickle.dumps(Bomb("touch RAN")))
    assert "bad.ckpt" in refused("test", "--ckpt_path", "bad.ckpt")
    assert not trap.exists()


def test_the_trap_works(trap: Path) -> None:
    """Guards the tests above: what they guard against does leave a trace."""
    torch.load(trap.parent / "payload.pt", weights_only=False)
    assert trap.exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_damaged_checkpoint_is_one_line(damage: str, checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    with zipfile.ZipFile(checkpoint) as archive:
        info = next(i for i in archive.infolist() if "/data/" in i.filename)
        at = info.header_offset + len(info.filename) + 200
    bad = {
        "cut": content[: len(content) // 2],
        "flipped": content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :],
        "empty": b"",
        "text": b"hello",
    }[damage]
    Path("bad.ckpt").write_bytes(bad)
    told = refused("test", "--ckpt_path", "bad.ckpt")
    assert "bad.ckpt" in told
    assert "damaged" in told
    newer = Path("runs/good/29990101-000000/checkpoints/last.ckpt")
    newer.parent.mkdir(parents=True)
    newer.write_bytes(bad)
    os.utime(newer, (4e9, 4e9))
    shutil.copy(checkpoint.parent.parent / "recipe.yaml", newer.parent.parent)
    assert zoo("test", "--ckpt_path", "last") == 0, "the newest one that is whole serves"


# What belongs to the command line, writers, loggers


def test_what_belongs_to_one_run_is_not_a_recipes(trap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_recipe(trap.parent / "good.yaml", MODEL, {"class_path": "ToyTensors"}, max_epochs=1)
    for key, value in {"ckpt_path": "x.ckpt", "weights_only": False, "out": "x", "config": "y.yaml"}.items():
        for spelt in (key, f"{key}+"):
            Path("bad.yaml").write_text(yaml.safe_dump({spelt: value}))
            told = refused("fit", "--config", str(good), "--config", "bad.yaml")
            assert "bad.yaml" in told
            assert "belongs to the command line" in told
    assert not Path("runs").exists()


def test_the_environment_gives_no_options(trap: Path, zoo_process: Any) -> None:
    """jsonargparse would read all of them, under the name of the program."""
    variables = ("FIT__CKPT_PATH", "FIT__OUT", "FIT__TRAINER__MAX_EPOCHS", "FIT__CONFIG")
    good = write_recipe(trap.parent / "good.yaml", MODEL, {"class_path": "ToyTensors"}, max_epochs=1)
    names = {f"{prog}_{name}": "7" for prog in ("ZOO", "__MAIN__.PY", "__MAIN__", "ZOO_FIT") for name in variables}
    toys = str(Path(__file__).parent / "toys")
    words = ("fit", "--config", str(good), "--print_config")
    plain = zoo_process(*words, PYTHONPATH=toys)
    assert plain.returncode == 0
    assert zoo_process(*words, PYTHONPATH=toys, JSONARGPARSE_DEFAULT_ENV="true", **names).stdout == plain.stdout


IO = "lightning.pytorch.plugins.TorchCheckpointIO"
ASYNC = "lightning.pytorch.plugins.AsyncCheckpointIO"
STRATEGIES = "lightning.pytorch.strategies"
WRITERS: dict[str, Any] = {
    "another CheckpointIO": trainer(plugins=part(IO)),
    "another CheckpointIO in a list": trainer(plugins=[part(IO)]),
    "by its module": trainer(plugins=[part("lightning.fabric.plugins.io.torch_io.TorchCheckpointIO")]),
    "inside an asynchronous one": trainer(plugins=[part(ASYNC, checkpoint_io=part(IO))]),
    "inside two": trainer(plugins=[part(ASYNC, checkpoint_io=part(ASYNC, checkpoint_io=part(IO)))]),
    "a bare wrapper": trainer(plugins=[part("lightning.pytorch.plugins.io.wrapper._WrappingCheckpointIO")]),
    "in a strategy": trainer(strategy=part(f"{STRATEGIES}.SingleDeviceStrategy", checkpoint_io=part(IO))),
    "in a strategy of several": trainer(strategy=part("DDPStrategy", checkpoint_io=part(IO))),
    "absolute dirpath": trainer(callbacks=[part("ModelCheckpoint", dirpath=ELSEWHERE)]),
    "dirpath that climbs": trainer(callbacks=[part("ModelCheckpoint", dirpath="x/../../../zoo-elsewhere")]),
    "dirpath at home": trainer(callbacks=[part("ModelCheckpoint", dirpath="~/zoo-elsewhere")]),
    "dirpath on another file system": trainer(callbacks=[part("ModelCheckpoint", dirpath="memory://x")]),
    "filename that climbs": trainer(callbacks=[part("ModelCheckpoint", filename="../../zoo-elsewhere")]),
    "on an exception": trainer(callbacks=[part("OnExceptionCheckpoint", dirpath="/tmp")]),
    "a profiler": trainer(profiler=part("SimpleProfiler", dirpath="..", filename="x")),
    "a profiler's filename": trainer(profiler=part("SimpleProfiler", dirpath="x", filename="../../../x")),
    "a profiler's further argument": trainer(
        profiler={**part("PyTorchProfiler"), "dict_kwargs": {"execution_trace": ELSEWHERE}}
    ),
    "model_registry": trainer(model_registry="someone/model"),
}
LOGGERS: dict[str, Any] = {
    "settings": {"settings": {"base_url": "http://127.0.0.1:1"}},
    "mode": {"mode": "online"},
    "offline": {"offline": True},
    "config": {"config": "/etc/hostname"},
    "dir": {"dir": "x"},
    "entity": {"entity": "someone"},
    "id": {"id": "abc"},
    "version": {"version": "abc"},
    "resume": {"resume": "must"},
    "save_code": {"save_code": True},
    "anonymous": {"anonymous": True},
    "a name that climbs": {"name": "../../x"},
}


def wandb_logger(**arguments: Any) -> dict[str, Any]:
    return part("lightning.pytorch.loggers.WandbLogger", **arguments)


WRITERS |= {f"W&B's {name}": trainer(logger=wandb_logger(**given)) for name, given in LOGGERS.items()}
WRITERS |= {
    "W&B's settings beside": trainer(logger={**wandb_logger(), "dict_kwargs": {"settings": {"base_url": "http://x"}}}),
    "W&B by its module": trainer(logger=part("lightning.pytorch.loggers.wandb.WandbLogger", mode="online")),
    "W&B among others": trainer(logger=[part("CSVLogger", save_dir="x"), wandb_logger(mode="online")]),
    "a CSV file elsewhere": trainer(logger=part("CSVLogger", save_dir="x", name="../../x")),
    "a CSV version elsewhere": trainer(logger=part("CSVLogger", save_dir="x", version=ELSEWHERE)),
    "TensorBoard's sub_dir": trainer(logger=part("TensorBoardLogger", save_dir="x", sub_dir="../../../../x")),
    "TensorBoard's suffix": trainer(
        logger={**part("TensorBoardLogger", save_dir="x"), "dict_kwargs": {"filename_suffix": "/../../x"}}
    ),
    "TensorBoard's folder in a variable": trainer(logger=part("TensorBoardLogger", save_dir="x", name="$CLIMB")),
}


@pytest.mark.parametrize("way", ["recipe", "checkpoint"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_to_elsewhere_is_refused(
    name: str, way: str, trap: Path, request: pytest.FixtureRequest, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIMB", "../../../..")
    if way == "recipe":
        good = write_recipe(trap.parent / "good.yaml", MODEL, {"class_path": "ToyTensors"}, max_epochs=1)
        Path("bad.yaml").write_text(yaml.safe_dump(WRITERS[name]))
        words = ["--config", str(good), "--config", "bad.yaml"]
    else:
        content = torch.load(request.getfixturevalue("checkpoint"), weights_only=True)
        content["zoo"]["trainer"] |= WRITERS[name]["trainer"]
        torch.save(content, "bad.ckpt")
        words = ["--ckpt_path", "bad.ckpt"]
    before = {p for p in Path.cwd().rglob("*") if p.is_file()}
    capsys.readouterr()
    told = refused("fit", *words, "--no_test") or capsys.readouterr().err
    assert len(told.strip().splitlines()) == 1, told
    assert {p for p in Path.cwd().rglob("*") if p.is_file()} == before, "nothing was written"


def test_the_list_of_a_logger_is_as_lightning_spells_it() -> None:
    """So that an argument on it reaches the logger."""
    import inspect

    from lightning.pytorch import loggers

    from zoo.cli.loggers import ALLOWED

    passed_on = {"WandbLogger": {"group", "tags", "notes", "job_type"}, "CometLogger": {"name", "tags"}}
    for name, arguments in ALLOWED.items():
        known = inspect.signature(getattr(loggers, name).__init__).parameters
        assert set(arguments) - set(known) == passed_on.get(name, set())


def test_an_honest_logger_keeps_its_description(workspace: Path) -> None:
    from jsonargparse import Namespace

    from zoo.cli.loggers import choose_loggers

    said = {"project": "p", "name": "n", "tags": ["a/b"], "group": "g", "notes": "see https://x/..", "job_type": "j"}
    settings = Namespace(logger=Namespace(class_path=LOGGERS_PATH, init_args=Namespace(**said)))
    choose_loggers(settings, Path("runs/x"), "label", "abc123")
    assert vars(settings.logger[0].init_args) == {**said, "save_dir": "runs/x", "id": "abc123"}


LOGGERS_PATH = "lightning.pytorch.loggers.WandbLogger"


def test_a_name_that_becomes_a_path_only_when_it_is_formatted(trap: Path) -> None:
    """``{step:c}`` writes a dot at step 46, so ``.{step:c}`` climbs."""
    climb = "/".join([".{step:c}"] * 5) + "/PWNED"
    saves = part(
        "ModelCheckpoint", filename=climb, auto_insert_metric_name=False, every_n_train_steps=46, save_top_k=-1
    )
    recipe = write_recipe(trap.parent / "r.yaml", MODEL, {"class_path": "ToyTensors"}, max_epochs=30, callbacks=[saves])
    told = refused("fit", "--config", str(recipe), "--no_test")
    assert "outside the run's folder" in told
    assert not list(trap.parent.parent.rglob("PWNED*"))


def test_the_asynchronous_io_wraps_the_zoos(trap: Path) -> None:
    recipe = write_recipe(
        trap.parent / "r.yaml",
        MODEL,
        {"class_path": "ToyTensors"},
        max_epochs=1,
        plugins=[part(ASYNC)],
        callbacks=[part("ModelCheckpoint", dirpath="mine", filename="x")],
    )
    assert zoo("fit", "--config", str(recipe), "--no_test") == 0
    (written,) = Path("runs").rglob("*.ckpt")
    assert written.parent.name == "mine"
    assert torch.load(written, weights_only=True)["state_dict"]


def test_weights_only_can_not_be_switched_off(checkpoint: Path) -> None:
    assert "read as data" in refused("test", "--ckpt_path", str(checkpoint), "--weights_only", "false")
    assert zoo("test", "--ckpt_path", str(checkpoint), "--weights_only", "true") == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.ckpt", "s3://b/x", "memory:x", "file:///x", "local://x", "a::b"])
def test_a_checkpoint_is_a_file_of_this_machine(url: str, trap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_recipe(trap.parent / "good.yaml", MODEL, {"class_path": "ToyTensors"}, max_epochs=1)
    weights = ["--model.architecture", "Pretrained", "--model.architecture.network", "ToyNet"]
    weights += ["--model.architecture.weights", url]
    for words in (["--ckpt_path", url], [f"--ckpt_path={url}"], weights, ["--out", url]):
        told = refused("fit", "--config", str(good), *words) or capsys.readouterr().err
        assert "not a path on this machine" in told


@pytest.mark.parametrize("name", ["../../elsewhere", "/abs/elsewhere", "..", "a\0b", ["x/../.."], "x" * 500, "~/x"])
def test_a_recorded_recipe_name_is_one_component(name: Any, checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["zoo"]["recipe_name"] = name
    content["zoo"]["wandb_id"] = "../../x"
    torch.save(content, "named.ckpt")
    before = set(Path.cwd().parent.rglob("*"))
    assert zoo("fit", "--ckpt_path", "named.ckpt", "--trainer.max_epochs", "2", "--no_test") == 0
    new = [p for p in set(Path.cwd().parent.rglob("*")) - before if p.is_file()]
    runs = Path.cwd() / "runs"
    assert new
    assert all(p.is_relative_to(runs) and len(p.relative_to(runs).parts) <= 4 for p in new), new


MC = "lightning.pytorch.callbacks.ModelCheckpoint"


@pytest.mark.parametrize("scheme", ["local://", "file://", ""])
@pytest.mark.parametrize("key", ["best_model_path", "kth_best_model_path", "last_model_path", "best_k_models"])
def test_a_checkpoint_removes_nothing_elsewhere(scheme: str, key: str, finished: Path, trap: Path) -> None:
    shutil.copytree(finished / "runs" / "saves", "runs/saves")
    (checkpoint, *_) = Path("runs").rglob("last.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    (state,) = (v for k, v in content["callbacks"].items() if k.startswith("ModelCheckpoint"))
    victim = trap.parent / "victim" / "thesis.txt"
    victim.parent.mkdir()
    victim.write_text("x")
    place = f"{scheme}{victim.parent}"
    state[key] = {place: torch.tensor(9.0)} if key == "best_k_models" else place
    state["dirpath"] = str(victim.parent)
    if key == "best_k_models":
        state["kth_best_model_path"] = place
    torch.save(content, "evil.ckpt")
    assert zoo("fit", "--ckpt_path", "evil.ckpt", "--trainer.max_epochs", "3", "--no_test") == 0
    assert victim.read_text() == "x"


def test_a_second_run_does_not_replace_the_first(trap: Path) -> None:
    recipe = write_recipe(trap.parent / "r.yaml", MODEL, {"class_path": "ToyTensors"}, max_epochs=1)
    words = ["fit", "--config", str(recipe), "--no_test", "--out", "mine"]
    Path("mine").mkdir()
    Path("mine/log.txt").write_text("a shell writes here")
    assert zoo(*words) == 0
    first = {p: p.read_bytes() for p in Path("mine").rglob("*") if p.is_file()}
    os.environ.pop("ZOO_RUN_DIR", None)
    assert "already holds a run" in refused(*words, "--seed_everything", "5")
    assert first == {p: p.read_bytes() for p in Path("mine").rglob("*") if p.is_file()}
    resumed = ["fit", "--ckpt_path", "mine", "--out", "mine", "--trainer.max_epochs", "2", "--no_test"]
    assert zoo(*resumed) == 0, "going on is no second run"


def test_a_checkpoint_that_unpacks_to_more_than_itself_is_refused(checkpoint: Path) -> None:
    with zipfile.ZipFile(checkpoint) as source, zipfile.ZipFile("bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
        target.writestr("archive/data/999", bytes(50_000_000))
    assert Path("bomb.ckpt").stat().st_size < 1_000_000
    assert "unpack to more" in refused("test", "--ckpt_path", "bomb.ckpt")


def test_entries_that_share_their_bytes_are_refused(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    with zipfile.ZipFile(checkpoint) as archive:
        start, count = archive.start_dir, len(archive.infolist())
    end = content.rindex(b"PK\x05\x06")
    directory = content[start:end]
    directory = directory[: directory.index(b"PK\x06\x06")] if b"PK\x06\x06" in directory else directory
    times = 200
    size, entries = len(directory) * times, count * times
    tail = b"PK\x05\x06" + (0).to_bytes(4, "little") + entries.to_bytes(2, "little") * 2
    tail += size.to_bytes(4, "little") + start.to_bytes(4, "little") + (0).to_bytes(2, "little")
    Path("bomb.ckpt").write_bytes(content[:start] + directory * times + tail)
    with zipfile.ZipFile("bomb.ckpt") as archive:
        assert sum(e.file_size for e in archive.infolist()) > Path("bomb.ckpt").stat().st_size
    assert "unpack to more" in refused("test", "--ckpt_path", "bomb.ckpt")


class Reservation:
    """Unpickling it asks for an array of any size, under ``weights_only`` too."""

    def __reduce__(self) -> Any:
        return bytearray, (1_000_000,)


def test_a_few_bytes_reserve_no_memory(checkpoint: Path) -> None:
    torch.save({**torch.load(checkpoint, weights_only=True), "x": Reservation()}, "bomb.ckpt")
    torch.load("bomb.ckpt", weights_only=True)  # torch would take it
    assert "bytearray" in refused("test", "--ckpt_path", "bomb.ckpt")


@pytest.mark.parametrize(("name", "told"), [("facts", "must be a mapping"), ("label_smoothing", "expands to more")])
@pytest.mark.parametrize("shape", ["shared", "endless"])
def test_values_that_a_checkpoint_shares_do_not_explode(shape: str, name: str, told: str, checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    tree: Any = ["x"] * 9
    for _ in range(12):
        tree = [tree] * 9
    if shape == "endless":
        tree = []
        tree.append(tree)
    content["hyper_parameters"][name] = tree
    torch.save(content, "bomb.ckpt")
    assert told in refused("test", "--ckpt_path", "bomb.ckpt")


def test_endless_aliases_are_one_line(trap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text("model: &a [*a]\n")
    assert "aliases" in refused("fit", "--config", "bad.yaml")
