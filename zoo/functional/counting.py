"""Sentences that count: "two dogs and a frisbee"."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
# Nouns that have no singular or plural of their own, or an irregular one.
PLURALS = {"person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice", "knife": "knives"}
PLURALS |= {"goose": "geese", "foot": "feet", "tooth": "teeth", "leaf": "leaves", "shelf": "shelves", "wolf": "wolves"}
PLURALS |= {"sheep": "sheep", "fish": "fish", "deer": "deer", "aircraft": "aircraft", "bus": "buses", "loaf": "loaves"}
PAIRS = ("skis", "scissors", "glasses", "pants", "trousers", "jeans", "shorts", "binoculars")
UNCOUNTED = ("broccoli", "grass", "sand", "snow", "water", "food", "bread", "furniture", "sky", "rice")
OPENINGS = ("", "there is ", "a picture of ")


def plural(noun: str) -> str:
    """The plural of an English noun, of several words that of the last: ``wine glasses``."""
    before, space, last = noun.rpartition(" ")
    if last in PLURALS:
        return f"{before}{space}{PLURALS[last]}"
    if last in PAIRS or last in UNCOUNTED:
        return noun
    if re.search(r"(s|x|z|ch|sh)$", last):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if re.search(r"[^aeiou]y$", last) else f"{noun}s"


def counted(noun: str, count: int, crowd: bool = False) -> str:
    """A number of things in words: ``a dog``, ``two dogs``, ``many dogs`` from 13 on.

    Args:
        noun: of one thing.
        count: at least 1.
        crowd: whether they are a crowd that nobody counted.
    """
    last = noun.rpartition(" ")[2]
    if last in UNCOUNTED:
        return f"a lot of {noun}" if crowd or count >= len(NUMBERS) else f"some {noun}"
    if last in PAIRS and not crowd and count < len(NUMBERS):
        return f"a pair of {noun}" if count == 1 else f"{NUMBERS[count]} pairs of {noun}"
    if crowd or count >= len(NUMBERS):
        return f"many {plural(noun)}"
    return f"{NUMBERS[count]} {plural(noun)}" if count > 1 else f"{_article(noun)} {noun}"


def _article(noun: str) -> str:
    sounds_like_you = noun.startswith(("uni", "use", "eu", "one"))
    return "an" if noun[0] in "aeiou" and not sounds_like_you else "a"


def counting_sentences(things: Sequence[tuple[str, int, bool]]) -> list[str]:
    """Several sentences that count things; the first begins with the first thing.

    Args:
        things: of each kind the noun, how many there are, and whether they are a crowd; at least one.
    """
    orders = [things, things[::-1]] if len(things) > 1 else [things]
    return [_opened(opening, order) for opening in OPENINGS for order in orders]


def _opened(opening: str, things: Sequence[tuple[str, int, bool]]) -> str:
    first = counted(*things[0])
    if opening == "there is " and not first.startswith(("a ", "an ", "some ")):
        opening = "there are "
    return f"{opening}{_listed([first, *(counted(*thing) for thing in things[1:])])}"


def _listed(phrases: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))
