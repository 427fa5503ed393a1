"""Facts: what is right for each, and that long ones cost nothing and name nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
import yaml
from running import folder_of, write_recipe, zoo
from zoo_toys.networks import ToyNet
from zoo_toys.tasks import ToyClassification, ToyGAN

from zoo.contracts import check_facts
from zoo.errors import UserError
from zoo.tasks.base import Task
from zoo.training import restore
from zoo.training.checkpoints import read

RIGHT = {
    "num_classes": 3,
    "class_names": ["crane", "b", "crane"],
    "in_channels": 3,
    "image_size": [32, 48],
    "vocabulary": ["a", "b"],
    "tokenizer": "{}",
    "pad_id": 0,
    "start_id": 1,
    "end_id": 1,
    "unknown_id": 0,
    "mean": [0, 0.5, 1],
    "std": [0.1, 1, 0.5],
    "mirror": False,
    "class_counts": [0, 4, 2],
    "num_images": 2,
}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_classes": "five"}, "model.facts.num_classes must be an integer of at least 1, not 'five'"),
    ({"num_classes": True}, "num_classes must be an integer"),
    ({"in_channels": 0}, "in_channels must be an integer of at least 1, not 0"),
    ({"num_images": 1.0}, "num_images must be an integer"),
    (
        {"class_names": ["a", "b"], "num_classes": 3},
        r"class_names must be a list of num_classes names, not \['a', 'b'\]",
    ),
    ({"class_names": "abc"}, "class_names must be a list"),
    ({"vocabulary": ["a", "b", "a"]}, "vocabulary must be a list of different tokens"),
    ({"vocabulary": [f"w{i}" for i in range(999)] + [""]}, r"not 1000 values, \['w0', 'w1', …\]"),
    ({"vocabulary": ["a", "b"], "end_id": 2}, "end_id must be the id of a token of the vocabulary, not 2"),
    ({"pad_id": -1}, "pad_id must be the id of a token"),
    ({"start_id": True}, "start_id must be the id of a token"),
    ({"tokenizer": "bert"}, "tokenizer must be the JSON text of a tokeniser of the library tokenizers, not 'bert'"),
    ({"image_size": [32]}, "image_size must be a list of height and width"),
    ({"image_size": [32, 0]}, "image_size must be"),
    ({"mean": [0.5, 0.5], "in_channels": 3}, "mean must be a list of in_channels numbers"),
    ({"mean": [1.5]}, "mean must be .* from 0 to 1"),
    ({"mean": []}, "mean must be"),
    ({"std": [0.0]}, "std must be .* above 0"),
    ({"std": ["0.1"]}, "std must be"),
    ({"mirror": 1}, "mirror must be true or false"),
    ({"class_counts": [1, 2], "num_classes": 3}, "class_counts must be a list of num_classes numbers"),
    ({"num_clases": 3}, r"model\.facts\.num_clases: there is no such fact; did you mean num_classes"),
    ({"zzz": 3}, "there is no such fact: there are num_classes, class_names"),
]


def test_right_facts_pass() -> None:
    check_facts(RIGHT)
    check_facts({"in_channels": 1, "mean": [0.4, 0.5, 0.6], "image_size": (3, 4)})
    check_facts({"in_channels": 3, "mean": [0.4]})


@pytest.mark.parametrize(("facts", "line"), WRONG)
def test_a_wrong_fact_is_named(facts: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        check_facts(facts)
    assert len(str(caught.value)) < 250
    with pytest.raises(UserError, match=line):
        ToyClassification(ToyNet, facts=facts)


def test_a_fact_of_a_plugin(fake_plugin: Callable[..., Any]) -> None:
    text = "from zoo.contracts import Fact\nDEPTH = Fact('max_depth', lambda v, _: v > 0, 'metres above 0')"
    fake_plugin(
        files={"acme/facts.py": text.replace("zoo.contracts", "zoo.facts"), "acme/bad.py": "raise OSError('no sea')"},
        entries={"contracts": {"max_depth": "acme.facts:DEPTH", "other": "acme.bad:OTHER"}},
    )
    check_facts({**RIGHT, "max_depth": 10.0})
    with pytest.raises(UserError, match=r"max_depth must be metres above 0, not -1"):
        check_facts({"max_depth": -1})
    with pytest.raises(UserError, match=r"max_dept: there is no such fact; did you mean max_depth\?"):
        check_facts({"max_dept": 1})


# Long ones


WORDS = 50_000


def checkpoint_with(path: Path, **facts: Any) -> Path:
    """A checkpoint of a toy task with these facts."""
    known = {"num_classes": 3, "in_channels": 1, "image_size": [6, 6], **facts}
    task = ToyClassification(partial(ToyNet, channels=5), facts=known)
    task.configure_model()
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict(), "pytorch-lightning_version": "2.6.0"}
    task.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def seconds(call: Callable[[], Any]) -> float:
    """The processor's time, which other processes on the machine do not change much."""
    start = time.process_time()
    call()
    return time.process_time() - start


def test_a_vocabulary_costs_no_time_to_load(workspace: Path) -> None:
    short = checkpoint_with(workspace / "short.ckpt")
    long = checkpoint_with(workspace / "long.ckpt", vocabulary=[f"w{i}" for i in range(WORDS)])
    restore.load(short)  # imports and caches
    times = [(seconds(partial(restore.load, short)), seconds(partial(restore.load, long))) for _ in range(5)]
    assert len(restore.load(long).facts["vocabulary"]) == WORDS
    assert median(b - a for a, b in times) < 0.5, times


def test_a_vocabulary_costs_no_time_on_the_command_line(workspace: Path) -> None:
    short = checkpoint_with(workspace / "short.ckpt")
    long = checkpoint_with(workspace / "long.ckpt", vocabulary=[f"w{i}" for i in range(WORDS)])

    def test(file: Path) -> None:
        assert zoo("test", "--ckpt_path", str(file), "--data", "ToyTensors", "--trainer.accelerator", "cpu") == 0

    test(short)
    times = [(seconds(partial(test, short)), seconds(partial(test, long))) for _ in range(2)]
    reading = seconds(partial(read, long))  # by torch, once for the task and once for the trainer
    assert min(b for _, b in times) - min(a for a, _ in times) - 2 * reading < 0.5, (times, reading)


def test_a_recipes_class_names_cost_no_square_of_time(recipe: Path, workspace: Path) -> None:
    """A thousand names took half a minute when the parser checked them."""
    names = [f"class {i}" for i in range(1000)]
    overlay = workspace / "names.yaml"
    overlay.write_text(yaml.safe_dump({"model": {"init_args": {"facts": {"num_classes": 1000, "class_names": names}}}}))

    def refused(*more: str) -> None:
        said_line = said_error("fit", "--config", str(recipe), *more, "--model.facts.zzz", "1")
        assert "zzz: there is no such fact" in said_line

    refused()
    assert seconds(partial(refused, "--config", str(overlay))) - seconds(refused) < 5.0  # on a busy machine


def said_error(*argv: str) -> str:
    """The line that a command ends in when its task is built."""
    with pytest.raises(UserError) as caught:
        zoo(*argv)
    return str(caught.value)


def test_lightnings_way_to_load_reads_our_files(workspace: Path) -> None:
    file = checkpoint_with(workspace / "it.ckpt", vocabulary=["a", "b"])
    task = ToyClassification.load_from_checkpoint(str(file), weights_only=True)
    assert isinstance(Task.load_from_checkpoint(file), ToyClassification)
    written = torch.load(file, weights_only=True)["state_dict"]
    assert all(torch.equal(written[name], value) for name, value in task.state_dict().items())
    assert task.facts["vocabulary"] == ["a", "b"]
    with pytest.raises(UserError, match="was written by ToyClassification, which is not a ToyGAN"):
        ToyGAN.load_from_checkpoint(file)
    with pytest.raises(UserError, match="takes no strict=False"):
        ToyClassification.load_from_checkpoint(file, strict=False)
    with pytest.raises(UserError, match="takes no lr="):
        ToyClassification.load_from_checkpoint(file, lr=0.1)


# Where they come from


@pytest.fixture
def recipe(workspace: Path) -> Path:
    model = {"class_path": "ToyClassification", "init_args": {"architecture": "ToyNet", "optimizer": "SGD"}}
    return write_recipe(workspace / "toy.yaml", model, {"class_path": "ToyTensors"}, max_epochs=1)


def test_flags_count_more_than_recipes_than_the_checkpoint(
    recipe: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(ToyClassification, "on_test_start", lambda self: seen.append(dict(self.facts)))
    file = checkpoint_with(workspace / "it.ckpt", class_names=["a", "b", "c"], mirror=True, std=[0.5])
    overlay = workspace / "over.yaml"
    overlay.write_text(yaml.safe_dump({"model": {"init_args": {"facts": {"mirror": False, "std": [0.25]}}}}))
    given = ("--ckpt_path", str(file), "--config", str(recipe), "--config", str(overlay))
    assert zoo("test", *given, "--model.facts.std", "[0.125]", "--model.facts.class_counts=[1, 2, 3]") == 0
    assert seen[0]["class_names"] == ["a", "b", "c"]
    assert seen[0]["mirror"] is False
    assert seen[0]["std"] == [0.125]
    assert seen[0]["class_counts"] == [1, 2, 3]


def test_a_wrong_fact_on_the_command_line_is_one_line(recipe: Path) -> None:
    line = said_error("fit", "--config", str(recipe), "--model.facts.num_classes", "five")
    assert line == "model.facts.num_classes must be an integer of at least 1, not 'five'"


def test_data_with_a_wrong_fact_are_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo_toys.data import ToyTensors

    monkeypatch.setattr(ToyTensors, "facts", {"num_classes": 3, "in_channels": 1, "image_size": [8]})
    line = said_error("fit", "--config", str(recipe))
    assert line == "ToyTensors.facts.image_size must be a list of height and width, not [8]"


def test_a_damaged_fact_in_a_checkpoint_names_the_file(workspace: Path) -> None:
    file = checkpoint_with(workspace / "it.ckpt")
    content = torch.load(file, weights_only=True)
    content["hyper_parameters"]["facts"]["in_channels"] = "one"
    torch.save(content, file)
    with pytest.raises(UserError, match=r"it\.ckpt can't be rebuilt: model\.facts\.in_channels must be an integer"):
        restore.load(file)


def test_a_word_spelt_like_a_class_imports_nothing(
    recipe: Path, workspace: Path, fake_plugin: Callable[..., Any]
) -> None:
    fake_plugin(files={"acme/cat.py": "class Cat: ..."}, entries={"data": {"Cat": "acme.cat:Cat"}})
    names = ["Cat", "zoo.data.Cat", "acme.cat.Cat"]
    file = checkpoint_with(workspace / "it.ckpt", vocabulary=names, class_names=names)
    assert restore.load(file).facts["class_names"] == names
    assert zoo("test", "--ckpt_path", str(file), "--config", str(recipe)) == 0
    overlay = workspace / "over.yaml"
    overlay.write_text(yaml.safe_dump({"model": {"init_args": {"facts": {"class_names": names}}}}))
    assert zoo("fit", "--config", str(recipe), "--config", str(overlay), "--no_test") == 0
    last = folder_of("toy") / "checkpoints" / "last.ckpt"
    assert restore.load(last).facts["class_names"] == names
    assert "acme.cat" not in sys.modules
