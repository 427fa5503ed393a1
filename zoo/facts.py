"""Facts: what the data declares about itself.

The parser passes facts on as a mapping of unchecked values, since its check of a long list (a vocabulary, a thousand
class names) takes quadratic time. ``zoo.contracts.check_facts`` checks them
by the table ``KNOWN`` and what plugins add to it, where they enter a task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from zoo import registry
from zoo.errors import UserError


class FactValue:
    """Any value of a fact: ``zoo.parsing`` makes the parser skip its check."""


if TYPE_CHECKING:

    class Facts(TypedDict, total=False):
        """What the data declares about itself."""

        num_classes: int
        class_names: list[str]
        in_channels: int
        image_size: list[int]
        vocabulary: list[str]
        tokenizer: str
        pad_id: int
        start_id: int
        end_id: int
        unknown_id: int
        mean: list[float]
        std: list[float]
        mirror: bool
        class_counts: list[int]
        num_images: int
else:
    Facts = dict[str, FactValue]  # what the parser sees in a task's signature
    """What the data declares about itself; a plugin may add facts.

    - ``num_classes``: number of classes, without background.
    - ``class_names``: their names, in the order of the labels.
    - ``in_channels``: channels of the images: 1 for grey, 3 for colour, or more.
    - ``image_size``: height and width of the network's input in pixels.
    - ``vocabulary``: the tokens of captions, in the order of their ids.
    - ``tokenizer``: a subword tokeniser as the JSON text of the library ``tokenizers``; none if tokens are words.
    - ``pad_id``, ``start_id``, ``end_id``, ``unknown_id``: ids of the tokens for padding, a caption's start and end,
      and words that are not in the vocabulary.
    - ``mean``, ``std``: mean and standard deviation per channel, of images in [0, 1].
    - ``mirror``: whether a horizontal flip keeps an image's label.
    - ``class_counts``: training images of each class; for semantic segmentation, training pixels.
    - ``num_images``: number of images that are optimised together, if the task's parameter is an image.
    """


class Fact(NamedTuple):
    """The definition of a fact and its valid values.

    Args:
        name: its key among the facts.
        check: takes the value and all facts; returns whether the value is valid.
        wanted: description of a valid value, as the end of a sentence.
    """

    name: str
    check: Callable[[Any, Facts], bool]
    wanted: str


def _numbers(value: Any, low: float, high: float) -> bool:
    if not (isinstance(value, list | tuple) and value):
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and low <= v <= high for v in value)


def _by_channel(low: float, high: float) -> Callable[[Any, Facts], bool]:
    def check(value: Any, facts: Facts) -> bool:
        # One number serves every channel; grey images may be repeated for a network of three channels.
        channels = facts.get("in_channels", 1)
        return _numbers(value, low, high) and (len(value) in (1, channels) or channels == 1)

    return check


def _class_counts(value: Any, facts: Facts) -> bool:
    return _numbers(value, 0, float("inf")) and len(value) == facts.get("num_classes", len(value))


def _words(value: Any, facts: Facts) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(word, str) and word for word in value)


def _tokens(value: Any, facts: Facts) -> bool:
    return _words(value, facts) and len(set(value)) == len(value)


def _token_id(value: Any, facts: Facts) -> bool:
    return type(value) is int and 0 <= value < len(facts.get("vocabulary") or [None] * (value + 1))


def _tokenizer(value: Any, facts: Facts) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("{")


def _class_names(value: Any, facts: Facts) -> bool:
    # Names may repeat: torchvision's ImageNet class names contain "crane" twice, a bird and a machine.
    return _words(value, facts) and len(value) == facts.get("num_classes", len(value))


def _count(value: Any, facts: Facts) -> bool:
    return type(value) is int and value >= 1


def _size(value: Any, facts: Facts) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(_count(n, facts) for n in value)


TOKEN_IDS = ("pad_id", "start_id", "end_id", "unknown_id")

# A plugin adds its own by the entry-point group ``zoo.contracts``; ``zoo.contracts.facts`` has them all.
KNOWN = {
    fact.name: fact
    for fact in (
        Fact("num_classes", _count, "an integer of at least 1"),
        Fact("class_names", _class_names, "a list of num_classes names"),
        Fact("in_channels", _count, "an integer of at least 1"),
        Fact("image_size", _size, "a list of height and width"),
        Fact("num_images", _count, "an integer of at least 1"),
        Fact("vocabulary", _tokens, "a list of different tokens"),
        Fact("tokenizer", _tokenizer, "the JSON text of a tokeniser of the library tokenizers"),
        *(Fact(name, _token_id, "the id of a token of the vocabulary") for name in TOKEN_IDS),
        Fact("mean", _by_channel(0, 1), "a list of in_channels numbers from 0 to 1"),
        Fact("std", _by_channel(1e-6, 1), "a list of in_channels numbers above 0, at most 1"),
        Fact("mirror", lambda value, facts: isinstance(value, bool), "true or false"),
        Fact("class_counts", _class_counts, "a list of num_classes numbers"),
    )
}


def class_names(facts: Facts) -> list[str]:
    """Names of the classes, or their numbers if there are no names."""
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
