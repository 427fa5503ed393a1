"""Rows of measured results: their numbers, and what they were measured with."""

import statistics
import subprocess

import pytest

from zoo import results
from zoo.errors import UserError


def test_the_machine_is_told():
    row = {"hardware": {"cpu": "Intel(R) Xeon(R) Processor", "cores": 1, "gpu": None}}
    assert results.machine(row) == "Intel Xeon, 1 core"
    row["hardware"]["cores"] = 2
    assert results.machine(row) == "Intel Xeon, 2 cores"


def test_summary_is_mean_and_sample_deviation():
    values = [0.98, 0.985, 0.99]
    found = results.summary(values)
    assert found["mean"] == pytest.approx(sum(values) / 3)
    assert found["spread"] == pytest.approx(statistics.stdev(values))
    assert results.shown(found) == "0.9850 ± 0.0050"
    assert results.shown(results.summary([0.5])) == "0.5000"


def test_commit_marks_changed_code(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words],
            check=True,
            capture_output=True,
        )

    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "__init__.py").write_text("")
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "recipes").mkdir()
    monkeypatch.setattr(results, "__file__", str(tmp_path / "zoo" / "results.py"))
    assert results.commit() is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    clean = results.commit()
    assert clean
    assert not clean.endswith("-dirty")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "row.json").write_text("{}")
    assert results.commit() == clean
    (tmp_path / "zoo" / "__init__.py").write_text("changed = 1\n")
    assert results.commit() == f"{clean}-dirty"


def test_a_damaged_row_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"recipe": 1')
    with pytest.raises(UserError, match=r"x\.json"):
        results.rows(tmp_path)


def test_figures_of_single_classes_are_left_out_and_accuracy_comes_first():
    row = {"figures": {"test/f1": 1, "test/top1": 2, "test/top1/cat": 3}}
    assert list(results.main_figures(row)) == ["test/top1", "test/f1"]
