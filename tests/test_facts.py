"""Factories: reduced at the door, built with the data's facts, written as plain data."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from zoo.architectures.alexnet import AlexNet
from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.factories import build, class_of, plain, spec, takes


class Net(Architecture):
    def __init__(self, num_classes: int, backbone: Any = None, width: float = 1.0) -> None:
        super().__init__()
        self.given = num_classes, backbone, width

    def forward(self, *args: Any) -> Any:
        raise NotImplementedError


class Lump:
    """Stands for the trainer that a parser's partial holds."""

    def __deepcopy__(self, memo: Any) -> Lump:
        raise AssertionError("copied")


def instantiate(cls: type, lump: Lump, *args: Any, **kwargs: Any) -> Any:
    """What jsonargparse's partial calls: the class comes as an argument, beside the whole command line."""
    return cls(*args, **kwargs)


def test_plain_keeps_class_and_arguments_only() -> None:
    parsed = partial(instantiate, Net, Lump(), backbone=partial(instantiate, Net, Lump(), num_classes=0), width=2.0)
    reduced = plain(parsed, Architecture)
    copy.deepcopy(reduced)
    assert class_of(reduced) is Net
    made = build(reduced, num_classes=3)
    assert made.given[0] == 3
    assert made.given[2] == 2.0
    assert made.given[1].func is Net
    assert plain(Net, Architecture) is Net


@pytest.mark.parametrize("wrong", [torch.load, nn.Linear, partial(torch.load, weights_only=False), lambda: None, 3])
def test_plain_takes_only_subclasses(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"not a subclass of zoo\.architectures\.base\.Architecture"):
        plain(wrong, Architecture)


def test_plain_refuses_functions_below() -> None:
    with pytest.raises(UserError, match="only classes are accepted"):
        plain(partial(Net, backbone=partial(torch.load, "f")), Architecture)
    with pytest.raises(UserError, match="only classes are accepted"):
        plain(partial(Net, backbone=lambda: None), Architecture)


def test_build_gives_what_is_taken_and_open() -> None:
    made = build(partial(Net, width=0.5), num_classes=7, in_channels=3, width=9.0)
    assert made.given == (7, None, 0.5)


def test_build_needs() -> None:
    with pytest.raises(UserError, match="SGD takes no num_classes"):
        build(SGD, needs=("num_classes",), num_classes=3)


def test_takes() -> None:
    assert takes(partial(Net, width=1.0), "num_classes")
    assert not takes(Net, "in_channels")


def test_spec_of_factories() -> None:
    written = spec({"architecture": partial(AlexNet, width=0.5), "optimizer": partial(SGD, lr=0.1), "p": Path("a/b")})
    assert written == {
        "architecture": {"class_path": "zoo.architectures.AlexNet", "init_args": {"width": 0.5}},
        "optimizer": {"class_path": "torch.optim.sgd.SGD", "init_args": {"lr": 0.1}},
        "p": "a/b",
    }
    nested = spec(partial(Net, backbone=partial(AlexNet, stride=2), width=(1, 2)))
    assert nested["init_args"]["backbone"] == {"class_path": "zoo.architectures.AlexNet", "init_args": {"stride": 2}}
    assert nested["init_args"]["width"] == [1, 2]


def test_spec_of_parsed_recipes_gets_the_stable_path() -> None:
    parsed = {"class_path": "zoo.architectures.alexnet.AlexNet", "init_args": {"width": 0.5}}
    assert spec({"architecture": parsed})["architecture"]["class_path"] == "zoo.architectures.AlexNet"


@pytest.mark.parametrize("value", [torch.zeros(2), object(), torch.load, {1: {"a": [torch.zeros(1)]}}])
def test_spec_drops_nothing(value: Any) -> None:
    with pytest.raises(UserError, match=r"model\.x.* is a .*, which a checkpoint can't hold"):
        spec({"model": {"x": value}})


def test_optimizer_base() -> None:
    assert plain(partial(SGD, lr=0.1), Optimizer).keywords == {"lr": 0.1}
    with pytest.raises(UserError, match="AlexNet can't be used here: it is not a subclass of torch"):
        plain(AlexNet, Optimizer)
