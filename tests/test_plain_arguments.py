"""What a factory's arguments may be, and the roles that a factory's architecture has."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.factories import check_role, plain, spec

# What a checkpoint can't hold


class Net(Architecture):
    """An activation in every form in which one may be given."""

    def __init__(self, act: Any = torch.nn.ReLU, encoder: Any = None) -> None:
        super().__init__()

    def forward(self, images: Any) -> Any:
        return images


def double(x: Any) -> Any:
    return 2 * x


@pytest.mark.parametrize("act", [torch.relu, torch.nn.functional.gelu, double, lambda x: x, partial(double)])
def test_a_function_as_an_argument_is_refused_by_name_with_what_would_be_right(act: Any) -> None:
    right = "; give a class, such as torch.nn.ReLU, or a word$"
    with pytest.raises(UserError, match=f"^Net: act is a function, .*{right}"):
        plain(partial(Net, act=act), Architecture)
    with pytest.raises(UserError, match=f"^Net: act is a function, .*{right}"):
        plain(partial(Net, encoder=partial(Net, act=act)), Architecture)
    with pytest.raises(UserError, match=f"model.act is a function, .*{right}"):
        spec({"act": act}, "model")
    for good in (torch.nn.ReLU, partial(torch.nn.ReLU, inplace=True), "relu"):
        spec(plain(partial(Net, act=good), Architecture))


# Roles


class Painter(Net):
    roles = ("generator", "transform")


class Backbone(Net):
    @property
    def stages(self) -> list[Any]:
        return []


def test_an_architecture_of_another_role_is_refused_in_one_line() -> None:
    check_role(Net, "classifier", "Classification")
    check_role(partial(Painter, act="relu"), "transform", "FastStyleTransfer")
    check_role(Backbone, "backbone", "AdaIN")
    with pytest.raises(UserError) as caught:
        check_role(partial(Painter), "classifier", "Classification")
    assert str(caught.value) == (
        "Classification needs an architecture of the role classifier, not Painter, which is a generator or transform"
    )
    with pytest.raises(UserError, match="of the role backbone, not Net"):
        check_role(Net, "backbone", "AdaIN")
