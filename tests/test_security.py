"""Recipes and checkpoints are data: what names anything but the listed classes is refused, and runs nothing."""

import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
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


@pytest.fixture
def checkpoint(workspace: Path) -> Path:
    recipe = write_recipe(workspace / "good.yaml", MODEL, {"class_path": "ToyTensors"}, max_epochs=1)
    assert zoo("fit", "--config", str(recipe), "--no_test") == 0
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
