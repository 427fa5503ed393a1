"""Recipes as YAML: what is refused with its line, and what ``~`` means."""

from pathlib import Path

import pytest
import yaml

from zoo.parsing_yaml import explain, load_yaml

HOSTILE = {
    "a repeated key": (
        "trainer: {a: 1}\nmodel: 3\ntrainer: {b: 2}",
        "line 3: the key trainer is given twice",
    ),
    "a repeated key below": ("model:\n  lr: 1\n  lr: 2\n", "line 3: the key lr is given twice (first in line 2)"),
    "a repeated key in a list": ("- {a: 1}\n- {b: 1, 'b': 2}", "line 2: the key b is given twice"),
    "a key with a dot beside its head": (
        "data:\n  init_args.x: 1\n  init_args: {x: 2}",
        "line 2: the key init_args.x is given beside init_args (line 3)",
    ),
    "two such keys": ("a.b: {c: {d: 1}}\na.b.c.d: 1", "line 2: the key a.b.c.d is given beside a.b (line 1)"),
    "an alias of itself": ("a: &a [*a]", "more than 100,000 values"),
    "an alias of itself, as a mapping": ("&a {b: *a}", "more than 100,000 values"),
    "a number of 5,000 digits": (f"a: 1\nb: {'7' * 5000}", "line 2: a value can't be read: Exceeds the limit"),
    "such a number alone": ("7" * 5000, "Exceeds the limit"),
    "a NUL": ('a: 1\nb: "x\\0y"', "line 2: a text holds a NUL character"),
    "a NUL as it is": ("a: x\0y", "control characters are not allowed"),
    "a deep list": ("[" * 5000, "nest"),
    "deep keys": ("".join(f"{' ' * i}a:\n" for i in range(5000)), "nest"),
    "an empty number": ("a: !!int ''", "line 1: a value can't be read"),
    "a date that is none": ("a: !!timestamp x", "line 1: a value can't be read"),
    "a Python object": ("a: !!python/name:os.system", "line 1: could not determine a constructor"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe_is_refused_with_its_line(name: str) -> None:
    text, says = HOSTILE[name]
    with pytest.raises(yaml.YAMLError) as raised:
        load_yaml(text)
    assert says in explain(raised.value)
    assert "\n" not in explain(raised.value)


def test_keys_that_a_merge_brings_may_be_given_again() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}"
    assert load_yaml(text) == {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3}}


def test_names_with_dots_are_not_keys_of_one_another() -> None:
    text = "metrics: {val: 1, val.loss: 2, layer1.0: {a: 1}, layer1: x}"
    assert load_yaml(text) == {"metrics": {"val": 1, "val.loss": 2, "layer1.0": {"a": 1}, "layer1": "x"}}


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = load_yaml("{root: ~/photos, files: ['~/a.jpg', b~.jpg], none: ~, nobody: ~nosuchuser/x}")
    assert found == {"root": f"{tmp_path}/photos", "files": [f"{tmp_path}/a.jpg", "b~.jpg"], "none": None} | {
        "nobody": "~nosuchuser/x"
    }
