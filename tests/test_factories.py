"""Factories: reduced, built with facts, written as plain data; arguments kept from the signature of one's own class."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from torch import nn
from torch.optim import SGD, Optimizer
from torchvision.transforms.v2 import InterpolationMode, RandomCrop, RandomResizedCrop

from zoo import factories
from zoo.architectures.alexnet import AlexNet
from zoo.architectures.base import Architecture
from zoo.data.base import Data
from zoo.data.digits import Digits
from zoo.data.folder import ImageFolder
from zoo.data.transforms import CropEach, FlipEach
from zoo.errors import UserError
from zoo.factories import KeepsArguments, OptimizerFactory, TransformFactory, build, class_of, plain, spec, takes

if TYPE_CHECKING:
    from collections import OrderedDict


class Base(KeepsArguments, LightningModule):
    def __init__(self, rate: float = 0.1, width: int = 4) -> None:
        super().__init__()
        self.rate, self.width = rate, width
        self.seen = dict(self.hparams)
        self.layer = torch.nn.Linear(width, 1)


class Middle(Base):
    """Without a constructor of its own."""


class Leaf(Middle):
    def __init__(self, name: str, *rest: int, depth: int = 2, other: OrderedDict | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name, self.depth = name, depth


class Narrow(Leaf):
    def __init__(self, name: str = "narrow") -> None:
        super().__init__(name, width=1)
        self.hparams["extra"] = 1


def test_arguments_of_the_outermost_class_are_kept():
    assert dict(Base().hparams) == {"rate": 0.1, "width": 4}
    assert dict(Middle(0.5).hparams) == {"rate": 0.5, "width": 4}
    assert dict(Leaf("a", width=2).hparams) == {"name": "a", "rest": (), "depth": 2, "other": None, "width": 2}
    assert dict(Leaf("a", 1, 2, rate=3.0).hparams)["rest"] == (1, 2)
    assert dict(Narrow().hparams) == {"name": "narrow", "extra": 1}
    assert Narrow().layer.in_features == 1


def test_they_are_there_while_the_constructor_runs():
    assert Leaf("a", rate=0.2).seen["rate"] == 0.2


def test_a_copy_keeps_them_apart():
    one = Leaf("a")
    other = copy.deepcopy(one)
    other.hparams["name"] = "b"
    assert one.hparams["name"] == "a"


def test_wrong_arguments_end_as_python_ends_them():
    with pytest.raises(TypeError, match=r"Leaf\.__init__\(\) missing 1 required positional argument: 'name'"):
        Leaf()
    with pytest.raises(TypeError, match=r"Base\.__init__\(\) got an unexpected keyword argument 'dept'"):
        Leaf("a", dept=3)


class Optimising(KeepsArguments, LightningModule):
    def __init__(
        self, optimizer: OptimizerFactory, augment: list[TransformFactory] | None = None, act: Any = None
    ) -> None:
        super().__init__()
        self.optimizer, self.augment = optimizer, augment


class ViaCommandLine:
    """As jsonargparse hands factories over: a partial of a function of its own, which holds much else."""

    def build(self, cls: type, *args: Any, **kwargs: Any) -> Any:
        return cls(*args, **kwargs)


def test_factories_are_reduced_and_checked_before_the_constructor():
    handed = partial(ViaCommandLine().build, torch.optim.SGD, lr=0.1)
    task = Optimising(handed, [partial(CropEach, padding=1), FlipEach])
    for found in (task.optimizer, task.hparams["optimizer"]):
        assert found.func is torch.optim.SGD
        assert found.keywords == {"lr": 0.1}
    assert task.augment[1] is FlipEach
    with pytest.raises(UserError, match=r"Linear can't be used here: it is not a subclass of torch\.optim\."):
        Optimising(torch.nn.Linear)
    with pytest.raises(UserError, match=r"it is not a subclass of torchvision\.transforms\.v2\.Transform"):
        Optimising(torch.optim.SGD, [torch.nn.Linear])


def test_factories_that_a_subclass_hands_on_are_reduced_too():
    class Handing(Optimising):
        def __init__(self, name: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    found = Handing("a", optimizer=partial(ViaCommandLine().build, torch.optim.SGD, lr=0.1)).hparams["optimizer"]
    assert (found.func, found.keywords) == (torch.optim.SGD, {"lr": 0.1})


def test_the_parser_reads_the_constructor_s_own_signature():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageFolder, "data")
    given = parser.parse_args(["--data.root", "here", "--data.crop", "random_resized", "--data.val_fraction=0.3"])
    data = parser.instantiate(given).data
    assert (data.crop, data.val_fraction) == ("random_resized", 0.3)
    assert data.hparams["root"] == "here"
    assert data.hparams["batch_size"] == 64, "the parser hands over every argument, the parents' too"
    help_text = parser.format_help()
    assert "--data.batch_size" in help_text
    assert "samples per training step" in " ".join(help_text.split())


def test_data_state_what_they_were_given():
    assert Digits(val_fraction=0.2).plain_hparams()["init_args"] == {"on_device": False, "val_fraction": 0.2}
    assert isinstance(Digits(), Data)
    with pytest.raises(AttributeError, match="keep"):
        Digits().keep()


def test_choices_are_written_by_name():
    written = spec(partial(RandomResizedCrop, size=[8, 8], interpolation=InterpolationMode.BICUBIC))
    assert written["init_args"] == {"size": [8, 8], "interpolation": "BICUBIC"}
    data = Digits(augment=[partial(RandomCrop, size=[8, 8])])
    assert data.plain_hparams()["init_args"]["augment"][0]["init_args"] == {"size": [8, 8]}


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
    with pytest.raises(UserError, match="backbone is a function, load; give a class"):
        plain(partial(Net, backbone=partial(torch.load, "f")), Architecture)
    with pytest.raises(UserError, match="backbone is a function, <lambda>; give a class"):
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
    with pytest.raises(UserError, match=r"model\.x.* is a .*, (which a checkpoint can't hold|load; give a class)"):
        spec({"model": {"x": value}})


def test_optimizer_base() -> None:
    assert plain(partial(SGD, lr=0.1), Optimizer).keywords == {"lr": 0.1}
    with pytest.raises(UserError, match="AlexNet can't be used here: it is not a subclass of torch"):
        plain(AlexNet, Optimizer)


def test_the_parser_does_not_read_the_protocols_file_again_and_again() -> None:
    """Two thirds of the time of a command went into that, as the parser resolves names of such a block each time."""
    assert "TYPE_CHECKING" not in Path(factories.__file__).read_text()


def test_positional_arguments_of_a_partial_are_kept_by_name() -> None:
    reduced = plain(partial(SGD, [], 0.5, momentum=0.25), Optimizer)
    assert reduced.keywords == {"params": [], "lr": 0.5, "momentum": 0.25}
    assert spec(partial(AlexNet, 7)) == {"class_path": "zoo.architectures.AlexNet", "init_args": {"num_classes": 7}}
    assert build(partial(AlexNet, 7, width=0.02), num_classes=9, in_channels=1).classifier[-1].out_features == 7
    with pytest.raises(UserError, match="AlexNet: too many positional arguments"):
        plain(partial(AlexNet, *range(40)), Architecture)
