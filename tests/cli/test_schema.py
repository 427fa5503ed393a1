"""The schema accepts every recipe of ours, knows plugins' classes, and rejects what ``zoo fit`` would reject."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


class Made(NamedTuple):
    schema: dict[str, Any]
    said: str
    warned: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The command's file, with the toys installed, and a plugin that can't be imported."""
    site = tmp_path_factory.mktemp("site")
    info = site / "broken_zoo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-zoo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo.architectures]\nBroken = broken_zoo:Broken\n")
    (site / "broken_zoo.py").write_text("print('noise')\nraise RuntimeError('no luck today')\n")
    path = os.pathsep.join([str(site), str(ROOT / "tests" / "toys"), os.environ.get("PYTHONPATH", "")])
    file = site / "schema.json"
    command = [sys.executable, "-m", "zoo", "schema", "--out", str(file)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}, cwd=site
    )
    assert done.returncode == 0, done.stderr
    return Made(json.loads(file.read_text()), done.stdout, done.stderr)


@pytest.fixture
def check(made: Made) -> Any:
    return jsonschema.Draft202012Validator(made.schema)


@pytest.fixture
def recipe() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "recipes" / "alexnet.yaml").read_text())


def test_is_a_json_schema(made: Made) -> None:
    jsonschema.Draft202012Validator.check_schema(made.schema)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.relative_to(ROOT / "recipes").as_posix())
def test_accepts_our_recipes(check: Any, path: Path) -> None:
    assert not [error.message for error in check.iter_errors(yaml.safe_load(path.read_text()))]


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("", "trainr", {}),
        ("trainer", "max_epoch", 3),
        ("trainer", "max_epochs", "many"),
        ("model", "init_arg", {}),
        ("model", "class_path", "Clasification"),
        ("model.init_args", "label_smothing", 0.1),
        ("model.init_args", "label_smoothing", "lots"),
        ("model.init_args", "views", "nine"),
        ("model.init_args", "architecture", "AlexNte"),
        ("model.init_args.architecture", "class_path", "MNIST5k"),
        ("model.init_args.architecture.init_args", "widht", 0.5),
        ("model.init_args.optimizer.init_args", "learning_rate", 0.1),
        ("data.init_args", "batchsize", 64),
        ("trainer", "callbacks", [{"class_path": "EarlyStoping"}]),
        ("trainer", "callbacks", [{"class_path": "lightning.pytorch.callbacks.LambdaCallback"}]),
    ],
)
def test_rejects_what_is_misspelt_or_of_the_wrong_kind(
    check: Any, recipe: dict[str, Any], place: str, key: str, value: Any
) -> None:
    assert check.is_valid(recipe)
    wrong = copy.deepcopy(recipe)
    node = wrong
    for part in filter(None, place.split(".")):
        node = node[part]
    node[key] = value
    assert not check.is_valid(wrong)


@pytest.mark.parametrize(
    ("network", "data"),
    [
        ("ToyNet", "ToyTensors"),
        ("zoo.architectures.ToyNet", "zoo.data.ToyTensors"),
        ("zoo_toys.networks.ToyNet", "zoo_toys.data.ToyTensors"),
    ],
)
def test_knows_a_plugins_classes_by_all_their_names(
    check: Any, recipe: dict[str, Any], network: str, data: str
) -> None:
    recipe["model"]["init_args"]["architecture"] = {"class_path": network, "init_args": {"channels": 8}}
    recipe["data"] = {"class_path": data}
    check.validate(recipe)
    recipe["model"]["init_args"]["architecture"]["init_args"] = {"chanels": 8}
    assert not check.is_valid(recipe)


def test_factories_lack_what_the_task_fills_in(check: Any, recipe: dict[str, Any]) -> None:
    recipe["model"]["init_args"]["scheduler"] = {"class_path": "WarmupCosine", "init_args": {"warmup_steps": 3}}
    check.validate(recipe)
    recipe["model"]["init_args"]["scheduler"]["init_args"] = {"total_steps": 3}
    assert not check.is_valid(recipe)


def test_lists_may_be_appended_to(check: Any) -> None:
    stopping = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/top1"}}
    check.validate({"trainer": {"callbacks+": [stopping]}})
    assert not check.is_valid({"trainer": {"max_epochs+": 3}})


def test_a_broken_plugin_is_left_out_and_named(made: Made) -> None:
    (line,) = [line for line in made.warned.splitlines() if "Broken" in line]
    assert "broken-zoo 1.0" in line
    assert "no luck today" in line
    assert "Broken" not in json.dumps(made.schema)


def test_says_how_an_editor_finds_it(made: Made) -> None:
    assert "# yaml-language-server: $schema=" in made.said
