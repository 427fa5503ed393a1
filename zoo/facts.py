"""What the data says of itself, and nothing else."""

from __future__ import annotations

from typing import TypedDict

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
