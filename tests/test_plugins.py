"""The plugins in ``plugins/`` are complete packages: declared, found by name, and used by name."""

import importlib
import importlib.metadata
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from zoo import registry
from zoo.architectures.base import Architecture
from zoo.data.base import Data
from zoo.tasks.base import Task

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = sorted(p.parent for p in (ROOT / "plugins").glob("*/pyproject.toml"))
BASES: dict[str, type] = {"architectures": Architecture, "tasks": Task, "data": Data, "parts": object}
# One of the recipes of each plugin that has some, a metric of its test, and the flags that make a run of a few steps
# out of it.
SHORT = {
    "zoo-diffusers": (
        "diffusers_unet",
        "test/class_accuracy",
        "--trainer.max_steps=2",
        "--trainer.limit_test_batches=1",
        "--model.steps=2",
        "--model.judge_epochs=1",
        "--model.test_samples=20",
    ),
    "zoo-smp": ("smp_segmentation", "test/miou", "--trainer.max_steps=2", "--data.val_size=4", "--data.test_size=4"),
    "zoo-squeezenet": ("faces", "test/top1", "--trainer.max_steps=2"),
    "zoo-transformers": (
        "git_captioning",
        "test/cider",
        "--trainer.max_steps=2",
        "--data.val_size=4",
        "--data.test_size=4",
    ),
}

each_plugin = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture
def installed(folder: Path, fake_plugin: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The plugin as an editable installation would put it on the path: its ``src`` and its entry points."""
    table = project(folder)["project"]
    needs = [Requirement(need).name for need in table["dependencies"]]
    if missing := [name for name in needs if not _is_installed(name)]:
        pytest.skip(f"{folder.name} needs {missing[0]}, which is not installed")
    monkeypatch.syspath_prepend(str(folder / "src"))
    entries = {group.removeprefix("zoo."): points for group, points in table["entry-points"].items()}
    fake_plugin(table["name"], version=table["version"], entries=entries)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "src"), os.environ["PYTHONPATH"]]))
    return table


def test_there_is_a_plugin_and_each_has_a_recipe_or_a_command_to_run() -> None:
    assert FOLDERS
    brought = {folder.name: project(folder)["project"]["entry-points"] for folder in FOLDERS}
    assert {name for name, points in brought.items() if "zoo.recipes" in points} == set(SHORT)
    assert all("zoo.recipes" in points or "zoo.commands" in points for points in brought.values())


@each_plugin
def test_is_a_package_of_its_own(folder: Path) -> None:
    config = project(folder)
    assert config["build-system"] == {"requires": ["setuptools>=77"], "build-backend": "setuptools.build_meta"}
    assert config["project"]["name"] == folder.name
    assert config["project"]["license"] == "Apache-2.0"
    assert any(need.startswith("lightning-zoo") for need in config["project"]["dependencies"])
    assert (folder / "README.md").is_file()
    assert list((folder / "tests").glob("test_*.py"))


@each_plugin
def test_entry_points_resolve(folder: Path, installed: dict[str, Any]) -> None:
    for group, points in installed["entry-points"].items():
        kind = group.removeprefix("zoo.")
        for name, target in points.items():
            if kind == "recipes":
                assert list(Path(importlib.import_module(target).__path__[0]).rglob("*.yaml"))
                assert target in project(folder)["tool"]["setuptools"]["package-data"]
                continue
            if kind == "commands":
                (entry,) = [found for found in registry.commands() if found.name == name]
                assert callable(entry.imported())
                continue
            (entry,) = registry.find(name, kind)
            assert issubclass(entry.load(), BASES[kind])
            assert Path(importlib.import_module(entry.module).__file__ or "").is_relative_to(folder / "src")


@each_plugin
def test_is_listed_and_its_recipe_or_command_runs_by_name(
    folder: Path, installed: dict[str, Any], zoo_process: Callable[..., Any]
) -> None:
    listed, helped = zoo_process("list").stdout, zoo_process("--help").stdout
    for group, points in installed["entry-points"].items():
        if group == "zoo.commands":
            assert all(f"\n  {name} " in helped and f"[{folder.name}]" in helped for name in points)
            assert all(zoo_process(name, "--help").returncode == 0 for name in points)
        elif group != "zoo.recipes":
            assert all(name in listed for name in points)
    if folder.name not in SHORT:
        return
    recipe, metric, *flags = SHORT[folder.name]
    assert recipe in listed
    done = zoo_process("fit", "--config", recipe, "--trainer.logger=false", "--trainer.accelerator=cpu", *flags)
    assert done.returncode == 0, done.stderr
    assert f"{metric} " in done.stdout
    assert list(Path(f"runs/{recipe}").glob("*/checkpoints/last.ckpt"))
