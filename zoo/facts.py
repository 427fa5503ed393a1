"""What the data says of itself, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

from zoo import registry
from zoo.errors import UserError


class Facts(TypedDict, total=False):
    """What the data says of itself.

    Args:
        num_classes: number of classes, without background.
        class_names: their names, in the order of the labels.
        in_channels: channels of the images: 1 grey, 3 colour, or more.
        image_size: height and width in pixels that networks see.
        vocabulary: the tokens of captions, in the order of their ids.
        mean: mean by channel of the images in [0, 1].
        std: standard deviation by channel of the images in [0, 1].
        mirror: whether an image's reflection keeps its label.
        class_counts: training images a class.
        num_images: pictures that are made together, where the task's parameter is an image.
    """

    num_classes: int
    class_names: list[str]
    in_channels: int
    image_size: list[int]
    vocabulary: list[str]
    mean: list[float]
    std: list[float]
    mirror: bool
    class_counts: list[int]
    num_images: int


class Fact(NamedTuple):
    """One fact: what is right for its value.

    Args:
        name: its key among the facts.
        check: takes the value and all facts; says whether the value is right.
        wanted: what would be right, as the end of a sentence.
    """

    name: str
    check: Callable[[Any, Facts], bool]
    wanted: str


def _numbers(count: str, low: float, high: float) -> Callable[[Any, Facts], bool]:
    def check(value: Any, facts: Facts) -> bool:
        if not (isinstance(value, list) and len(value) == facts.get(count, len(value))):
            return False
        return all(isinstance(v, int | float) and low <= v <= high for v in value)

    return check


def _words(value: Any, facts: Facts) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) and v for v in value) and len(set(value)) == len(value)


def _class_names(value: Any, facts: Facts) -> bool:
    return _words(value, facts) and len(value) == facts.get("num_classes", len(value))


def _count(value: Any, facts: Facts) -> bool:
    return type(value) is int and value >= 1


def _size(value: Any, facts: Facts) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_count(n, facts) for n in value)


# A plugin adds its own by the entry-point group ``zoo.contracts``; ``zoo.contracts.facts`` has them all.
KNOWN = {
    fact.name: fact
    for fact in (
        Fact("num_classes", _count, "an integer of at least 1"),
        Fact("class_names", _class_names, "a list of num_classes different names"),
        Fact("in_channels", _count, "an integer of at least 1"),
        Fact("image_size", _size, "a list of height and width"),
        Fact("num_images", _count, "an integer of at least 1"),
        Fact("vocabulary", _words, "a list of different tokens"),
        Fact("mean", _numbers("in_channels", 0, 1), "a list of in_channels numbers from 0 to 1"),
        Fact("std", _numbers("in_channels", 1e-6, 1), "a list of in_channels numbers above 0, at most 1"),
        Fact("mirror", lambda value, facts: isinstance(value, bool), "true or false"),
        Fact("class_counts", _numbers("num_classes", 0, float("inf")), "a list of num_classes numbers"),
    )
}


def class_names(facts: Facts) -> list[str]:
    """Names of the classes, else their numbers."""
    return list(facts.get("class_names") or map(str, range(facts.get("num_classes", 0))))


def class_index(which: str, names: list[str]) -> int:
    """The number of a class that is given by its number, its name, or one of its names with commas between them.

    Raises:
        UserError: there is no such class.
    """
    if which.lstrip("-").isdigit() and which not in names:
        if not 0 <= int(which) < len(names):
            raise UserError(f"there is no class {which}: there are the classes 0 to {len(names) - 1}")
        return int(which)
    known: dict[str, int] = {}
    for index, name in enumerate(names):
        for one in (name, *name.split(",")):
            known.setdefault(one.strip().lower(), index)
    if which.lower() not in known:
        close = registry.did_you_mean(which.lower(), list(known)) or (
            f": there are {', '.join(names)}" if len(names) < 21 else ""
        )
        raise UserError(f"there is no class {which}{close}")
    return known[which.lower()]
