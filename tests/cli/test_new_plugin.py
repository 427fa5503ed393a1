"""``zoo new-plugin`` writes a package whose own tests pass, and never touches what is there."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.__main__ import main
from zoo.cli.new_plugin import TEMPLATE, new_plugin

ROOT = Path(__file__).resolve().parents[2]


def install(folder: Path, fake_plugin: Callable[..., Path]) -> dict[str, str]:
    """Put the package on the path as an editable installation would; the environment in which it is."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    entries = {group.removeprefix("zoo."): points for group, points in project["entry-points"].items()}
    site = fake_plugin(project["name"], version=project["version"], entries=entries)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "src"), str(site)])}


@pytest.mark.slow
@pytest.mark.parametrize("task", [False, True], ids=["plain", "with a task"])
def test_written_plugin_passes_its_own_tests(fake_plugin: Callable[..., Path], tmp_path: Path, task: bool) -> None:
    folder = new_plugin("sea-shells", tmp_path, task)
    environment = install(folder, fake_plugin)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-vv", "."]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for test in (
        "test_everything[SeaShellsNet-classifier-gradient_reaches_every_parameter]",
        "test_everything[SeaShellsBars-classification-splits_do_not_overlap]",
        "test_recipe_learns",
        *task
        * ("test_everything[SeaShellsTask-classification-checkpoint_is_enough]", "test_task.py::test_recipe_learns"),
    ):
        assert f"{test} PASSED" in done.stdout
    assert "skipped" not in done.stdout


def test_written_plugin_is_listed(
    fake_plugin: Callable[..., Path], zoo_process: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    environment = install(new_plugin("sea-shells", tmp_path), fake_plugin)
    listed = zoo_process("list", PYTHONPATH=environment["PYTHONPATH"]).stdout
    lines = [line for line in listed.splitlines() if "[sea-shells]" in line]
    assert [line.split()[0] for line in lines] == ["SeaShellsNet", "SeaShellsBars", "sea-shells"]


def test_without_a_task_nothing_speaks_of_one(tmp_path: Path) -> None:
    with_task, without = (new_plugin(f"shells-{word}", tmp_path, word == "a") for word in ("a", "b"))
    names = [{path.name for path in folder.rglob("*") if path.is_file()} for folder in (with_task, without)]
    assert names[0] - names[1] == {"task.py", "test_task.py", "shells-a-task.yaml", "shells-a.yaml"}
    projects = [tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (with_task, without)]
    assert projects[0]["entry-points"].pop("zoo.tasks") == {"ShellsATask": "shells_a.task:ShellsATask"}
    assert set(projects[0]["entry-points"]) == set(projects[1]["entry-points"])
    assert "Task" not in "".join(path.read_text() for path in without.rglob("*.*") if path.is_file())
    assert "\n\n\n" not in (without / "pyproject.toml").read_text()


def test_no_word_of_the_templates_name_is_left(tmp_path: Path) -> None:
    files = [path for path in new_plugin("zoo-sea-shells", tmp_path, task=True).rglob("*") if path.is_file()]
    assert len(files) == len([p for p in TEMPLATE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]) > 6
    for path in files:
        for text in (str(path.relative_to(tmp_path)), path.read_text()):
            assert not any(word in text for word in ("zoo-example", "zoo_example", "Example"))
    assert "class SeaShellsNet(" in (tmp_path / "zoo-sea-shells/src/zoo_sea_shells/network.py").read_text()


def test_templates_are_in_the_wheel() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = config["tool"]["setuptools"]["package-data"]["zoo"]
    packaged = {path for pattern in patterns for path in (ROOT / "zoo").glob(pattern)}
    assert {path for path in TEMPLATE.rglob("*") if path.is_file()} <= packaged


def test_says_what_to_type_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "sea-shells", "--out", "mine"]) == 0
    said = capsys.readouterr().out
    assert "pip install -e './mine/sea-shells[test]'" in said
    assert "zoo fit --config sea-shells" in said
    assert Path("mine/sea-shells/src/sea_shells/recipes/sea-shells.yaml").is_file()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Sea_Shells", ["lower-case", "sea-shells would do"]),
        ("9lives", ["lower-case", "lives would do"]),
        ("../up", ["lower-case", "up would do"]),
        ("torch", ["Python has a torch already", "zoo-torch"]),
        ("class", ["Python has a class already"]),
        ("alex", ["AlexNet", "lightning-zoo"]),
        ("there", ["there is there already", "nothing is overwritten"]),
    ],
)
def test_unfit_names_end_in_one_line(capsys: pytest.CaptureFixture[str], name: str, words: list[str]) -> None:
    Path("there").mkdir()
    Path("there/notes.txt").write_text("mine")
    assert main(["new-plugin", name]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in words), line
    assert [str(p) for p in Path().rglob("*")] == ["there", "there/notes.txt"]
