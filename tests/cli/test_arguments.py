"""Arguments before the parser sees them: recipes stand before flags, negative values and ``~`` are understood."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

from zoo.__main__ import _with_home
from zoo.cli.arguments import _check_recipe, refuse_zero, spelt_out, with_recipe_files
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
    with pytest.raises(UserError, match=r"line 1: the key trainer.max_epochs is given beside trainer \(line 2\)"):
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


@pytest.mark.parametrize("word", ["-cb.yaml", "-c=b.yaml"])
def test_a_recipe_attached_to_its_option_is_one_like_others(word: str, recipes: None) -> None:
    assert with_recipe_files(spelt_out(["fit", "--x", "1", word])) == ["fit", B, "--x", "1"]
    assert spelt_out(["fit", "--cpu", "-c", "x", "--config=-c"]) == ["fit", "--cpu", "-c", "x", "--config=-c"]


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"trainer": {True: 1}}, "trainer has True, a key that is not a word"),
        ({"model": {"class_path": "X", "init_args": {3: 1}}}, "model.init_args has 3, a key"),
        ({"trainer": {"callbacks": [{"class_path": "X", 2.5: 1}]}}, "trainer.callbacks has 2.5, a key"),
    ],
)
def test_a_key_that_is_not_a_word_is_named(recipe: dict, says: str) -> None:
    Path("x.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(UserError, match=says):
        _check_recipe(Path("x.yaml"))


def test_keys_of_a_free_mapping_may_be_numbers() -> None:
    Path("x.yaml").write_text("trainer: {callbacks: [{class_path: X, init_args: {scheduling: {0: 1, 4: 2}}}]}")
    _check_recipe(Path("x.yaml"))


@pytest.mark.parametrize("value", [0, -2, 0.0])
@pytest.mark.parametrize("key", ["accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval"])
def test_a_number_to_count_by_is_above_0(key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"trainer.{key} must be above 0, not {value}"):
        refuse_zero(Namespace({key: value}))
    refuse_zero(Namespace({key: None}))
    refuse_zero(Namespace({key: 1}))
