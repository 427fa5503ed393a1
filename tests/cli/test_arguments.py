"""Arguments before the parser sees them: recipes stand before flags, negative values and ``~`` are understood."""

from pathlib import Path

import pytest

from zoo.__main__ import _with_home
from zoo.cli.arguments import with_recipe_files
from zoo.data.base import data_root
from zoo.errors import UserError
from zoo.parsing import with_negative_values
from zoo.training.checkpoints import resolve


@pytest.fixture
def recipes() -> None:
    for name in ("a", "b"):
        Path(f"{name}.yaml").write_text("trainer: {max_epochs: 9}\n")


A, B = "--config=a.yaml", "--config=b.yaml"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["fit", "--x", "1", "--config", "a.yaml"], ["fit", A, "--x", "1"]),
        (["fit", "--x=1", "-c", "a.yaml", "--y", "2", "--config=b.yaml"], ["fit", A, B, "--x=1", "--y", "2"]),
        (["fit", "--config=b.yaml", "--config", "a.yaml"], ["fit", B, A]),
        (["fit", "--config", "a.yaml", "--config", "./a.yaml"], ["fit", A]),
        (["fit", "--config", "a.yaml", "-c", "b.yaml", "--config=a.yaml", "--z"], ["fit", B, A, "--z"]),
        (["--network", "n", "-c", "a.yaml"], [A, "--network", "n"]),  # as zoo inspect has them
        (["fit", "--x", "1", "--config"], ["fit", "--x", "1", "--config"]),
        ([], []),
    ],
)
def test_recipes_stand_before_flags(given: list[str], expected: list[str], recipes: None) -> None:
    assert with_recipe_files(given) == expected


def test_one_setting_under_two_keys_is_refused() -> None:
    Path("a.yaml").write_text("trainer.max_epochs: 3\ntrainer: {max_epochs: 5}\n")
    with pytest.raises(UserError, match=r"a.yaml: trainer.max_epochs and trainer are both there"):
        with_recipe_files(["fit", "--config", "a.yaml"])


@pytest.mark.parametrize("value", ["-1", "-1e-3", "-.5", "-2.", "-1_000", "-inf", "-.inf", "-3.5E+7"])
def test_negative_values(value: str) -> None:
    assert with_negative_values(["--m.lr", value, "-c", "r"]) == [f"--m.lr={value}", "-c", "r"]


def test_other_words_stay_as_they_are() -> None:
    words = ["--m.lr=3", "-1", "--a", "-b", "--c", "-e5", "-1"]
    assert with_negative_values(words) == words


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["fit", "--out=~/mine", "--data.root", "~/two", "--model.text", "a~b", "~nosuchuser/x"]
    assert _with_home(words) == [
        *("fit", f"--out={tmp_path}/mine", "--data.root", f"{tmp_path}/two", "--model.text", "a~b", "~nosuchuser/x")
    ]
    assert _with_home(["completion", "--complete", "~/"])[-1] == "~/"
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "best.ckpt").touch()
    assert resolve("~/run") == tmp_path / "run" / "checkpoints" / "best.ckpt"
    monkeypatch.setenv("ZOO_DATA", "~/sets")
    assert (data_root(None), data_root("~/x")) == (tmp_path / "sets", tmp_path / "x")


def test_a_key_that_is_no_word_is_refused_with_its_file() -> None:
    Path("a.yaml").write_text("1: 2\n")
    with pytest.raises(UserError, match=r"a.yaml: the key 1 is not a word"):
        with_recipe_files(["fit", "--config", "a.yaml"])
