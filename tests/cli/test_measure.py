import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import results
from zoo.cli import measure
from zoo.errors import UserError

TOYS = Path(__file__).parent.parent / "toys"
RECIPE = """\
model: {class_path: ToyClassification}
data: {class_path: ToyTensors}
trainer: {max_epochs: 1, accelerator: cpu, logger: false}
"""


def zoo(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TOYS), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", "zoo", *words], cwd=cwd, env=env, capture_output=True, text=True)


def test_one_command_trains_and_writes_a_row(tmp_path):
    (tmp_path / "toy.yaml").write_text(RECIPE)
    found = zoo("measure", str(tmp_path / "toy.yaml"), "--seeds", "7", "--results", "rows", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    text = (tmp_path / "rows" / "toy.json").read_text()
    row = json.loads(text)
    (folder,) = (tmp_path / "runs" / "measure-toy").iterdir()
    results = json.loads((folder / "seed7" / "results.json").read_text())
    assert row["figures"]["test/loss"] == {
        "mean": results["test/loss"],
        "spread": None,
        "values": [results["test/loss"]],
    }
    assert row["seeds"] == [7]
    assert row["command"] == "zoo fit --config toy"
    assert 0 < row["duration"]["mean"] < 300
    assert row["hardware"]["cores"] >= 1
    assert row["versions"]["torch"][0].isdigit()
    assert str(tmp_path) not in text
    assert f"{results['test/loss']:.4f}" in found.stdout


def test_what_was_trained_is_tested_on_other_data(tmp_path):
    (tmp_path / "toy.yaml").write_text(RECIPE)
    assert zoo("fit", "--config", "toy.yaml", "--out", "mine", "--no_test", cwd=tmp_path).returncode == 0
    words = ["measure", "toy.yaml", "--ckpt_path", "mine", "--results", "rows"]
    assert "by --name" in zoo(*words, cwd=tmp_path).stderr
    found = zoo(*words, "--name", "toy-8", "--", "--data.batch_size", "8", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    row = json.loads((tmp_path / "rows" / "toy-8.json").read_text())
    (folder,) = (tmp_path / "runs" / "measure-toy").iterdir()
    results = json.loads((folder / "test" / "results.json").read_text())
    assert row["figures"]["test/loss"]["values"] == [results["test/loss"]]
    assert (row["recipe"], row["seeds"]) == ("toy", [])
    assert row["command"] == "zoo test --ckpt_path mine --data.batch_size 8"
    assert not list(folder.glob("**/*.ckpt"))
    assert "--seeds are for training" in zoo(*words, "--seeds", "1", "--name", "toy-1", cwd=tmp_path).stderr
    overlay = zoo("measure", "trainer/bf16", "--ckpt_path", "mine", "--name", "other", cwd=tmp_path)
    assert "trainer/bf16 has no model" in overlay.stderr
    other = zoo("measure", "texture", "--ckpt_path", "mine", "--name", "other", cwd=tmp_path)
    assert "was written by ToyClassification, not by the recipe texture" in other.stderr


def test_a_failed_run_is_told_and_the_next_is_made(tmp_path, monkeypatch, capsys):
    row = {
        "recipe": "b",
        "figures": {},
        "seeds": [0],
        "duration": results.summary([1.0]),
        "commit": "c",
        "versions": {},
    }

    def fake(name, seeds, flags, ckpt_path):
        if name == "a":
            raise UserError("a ended with status 1")
        return row

    monkeypatch.setattr(measure, "measure", fake)
    monkeypatch.setattr(measure.registry, "find_recipe", Path)
    assert measure.main(["a", "b", "--results", str(tmp_path)]) == 1
    assert "a ended with status 1" in capsys.readouterr().err
    assert [r["name"] for r in results.rows(tmp_path)] == ["b"]


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (["--data.root", "/home/ann/sets"], "--data.root PATH"),
        (["--data.root=~/sets"], "--data.root=PATH"),
        (["--data.files", "[/a/b,c/d.jpg]"], "--data.files [PATH,c/d.jpg]"),
        (["--config", "trainer/bf16"], "--config trainer/bf16"),
    ],
)
def test_a_row_tells_no_places(flags, shown):
    assert measure._command(["fit", "--config", "alexnet"], flags) == f"zoo fit --config alexnet {shown}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "names of recipes, or --all"),
        (["alexnet", "--all"], "names of recipes, or --all"),
        (["alexnet", "--sedes", "1"], "--sedes"),
        (["no-such-recipe"], "no-such-recipe"),
        (["alexnet", "--", "--trainer.max_epochs", "1"], "--name"),
    ],
)
def test_wrong_words_are_one_line(words, said, monkeypatch):
    known = measure.registry.find_recipe
    monkeypatch.setattr(measure.registry, "find_recipe", lambda name: Path() if name == "alexnet" else known(name))
    with pytest.raises(UserError, match=said):
        measure.main(words)


def test_all_leaves_overlays_out():
    names = [r.name for r in measure.measurable()]
    assert not [name for name in names if name.startswith("trainer/")]
