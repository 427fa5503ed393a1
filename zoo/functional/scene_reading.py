"""Reading sentences about scenes: what a caption says by the grammar, and whether it is true of the scene."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any, NamedTuple

from zoo.functional.scene_grammar import (
    ARTICLES,
    COLOURS,
    CONVERSE,
    NOTHING,
    NOUNS,
    NUMBERS,
    OPENINGS,
    PLACES,
    RELATIONS,
    SIZES,
    Description,
)

ALIKE = 100  # assignments that are looked at where a scene has equal objects
FORWARDS = {backwards: name for name, backwards in CONVERSE.items()}


class SaidObject(NamedTuple):
    """An object that a sentence says.

    Args:
        name: its class.
        colour: its colour.
        size: ``small`` or ``large`` if it is said.
        place: if it is said.
    """

    name: str
    colour: str
    size: str | None
    place: str | None


class Said(NamedTuple):
    """What a sentence says.

    Args:
        objects: in its order.
        relations: first object, ``left of``, ``above`` or ``behind``, second object; by index.
    """

    objects: list[SaidObject]
    relations: list[tuple[int, str, int]]


def parse(caption: str) -> Said | None:
    """What a sentence of the grammar says; None for any other text. Upper case and the last full stop don't matter."""
    text = re.sub(r"\s*\.\s*$", "", caption.lower())
    reader = _Reader(re.findall(r"[^\s,]+|,", text))
    try:
        return reader.caption()
    except _NotOfTheGrammarError:
        return None


class _NotOfTheGrammarError(Exception):
    pass


def _meanings(table: Mapping[str, Sequence[str]]) -> dict[tuple[str, ...], str]:
    """What each phrase of a table means, longer phrases first."""
    pairs = [(tuple(phrase.split()), meaning) for meaning, phrases in table.items() for phrase in phrases]
    return dict(sorted(pairs, key=lambda pair: -len(pair[0])))


_NOUNS = _meanings({**NOUNS, **{str(n): (*NOUNS[str(n)], f"digit {word}") for n, word in enumerate(NUMBERS)}})
_COLOURS, _SIZES, _PLACES, _RELATIONS = map(_meanings, (COLOURS, SIZES, PLACES, RELATIONS))
_OPENINGS, _NOTHING = (_meanings({"": phrases}) for phrases in (OPENINGS[1:], NOTHING))


class _Reader:
    """Reads words from left to right."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words, self.at = tuple(words), 0
        self.said = Said([], [])

    def caption(self) -> Said:
        self._one_of(_OPENINGS)
        if self._one_of(_NOTHING) is None:
            self._clause()
            while self._separator():
                self._clause()
        if self.at < len(self.words):
            raise _NotOfTheGrammarError
        return self.said

    def _separator(self) -> bool:
        start = self.at
        self._word(",")
        self._word("and")
        return self.at > start

    def _clause(self) -> None:
        self._object()
        is_said = self._word("is")
        name = self._one_of(_RELATIONS)
        if name is None:
            if is_said:
                raise _NotOfTheGrammarError
            return
        self._object()
        first, second = len(self.said.objects) - 2, len(self.said.objects) - 1
        known = (second, FORWARDS[name], first) if name in FORWARDS else (first, name, second)
        self.said.relations.append(known)

    def _object(self) -> None:
        if not any(self._word(article) for article in ARTICLES):
            raise _NotOfTheGrammarError
        size, colour, name = self._one_of(_SIZES), self._one_of(_COLOURS), self._one_of(_NOUNS)
        if colour is None and self._word("in"):
            colour = self._one_of(_COLOURS)
        if name is None or colour is None:
            raise _NotOfTheGrammarError
        self.said.objects.append(SaidObject(name, colour, size, self._one_of(_PLACES)))

    def _word(self, word: str) -> bool:
        found = self.words[self.at : self.at + 1] == (word,)
        self.at += found
        return found

    def _one_of(self, meanings: Mapping[tuple[str, ...], str]) -> str | None:
        for phrase, meaning in meanings.items():
            if self.words[self.at : self.at + len(phrase)] == phrase:
                self.at += len(phrase)
                return meaning
        return None


# Judging


class Verdict(NamedTuple):
    """How a caption fits a scene; numbers of objects and relations.

    Args:
        content: whether every object said is there with its class and colour, every relation is true, and as many
            objects are said as asked for.
        parsed: whether the grammar has the caption.
        counted: whether as many objects are said as asked for.
        objects: the greater of the number of objects said and asked for.
        classes: of them, those with the right class.
        colours: of them, those with the right colour.
        relations: that are said.
        relations_right: of these, true.
        sizes: that are said.
        sizes_right: of these, true.
        places: that are said.
        places_right: of these, true.
    """

    content: bool
    parsed: bool
    counted: bool
    objects: int
    classes: int = 0
    colours: int = 0
    relations: int = 0
    relations_right: int = 0
    sizes: int = 0
    sizes_right: int = 0
    places: int = 0
    places_right: int = 0


def judge(caption: str, description: Description, asked: int) -> Verdict:
    """Compare a caption with a scene.

    Args:
        caption: any text.
        description: of the scene.
        asked: number of objects that are to be said, if there are so many.
    """
    wanted = min(asked, len(description["objects"]))
    said = parse(caption)
    if said is None:
        return Verdict(False, False, False, wanted)
    there = description["objects"]
    true = {(one["first"], one["name"], one["second"]) for one in description["relations"]}
    counted = len(said.objects) == wanted
    exact = max(
        islice(_exact(said, there, true), ALIKE), key=lambda chosen: _also_true(said, there, chosen), default=None
    )
    which = best_assignment(said.objects, there) if exact is None else dict(enumerate(exact))
    pairs = [(said.objects[i], there[j]) for i, j in which.items()]
    sizes, places = ([p for p in pairs if p[0][k] is not None] for k in (2, 3))
    return Verdict(
        counted and exact is not None,
        True,
        counted,
        max(wanted, len(said.objects)),
        sum(one.name == other["class"] for one, other in pairs),
        sum(one.colour == other["colour"] for one, other in pairs),
        len(said.relations),
        sum((which.get(i), name, which.get(j)) in true for i, name, j in said.relations),
        len(sizes),
        sum(one.size == other["size"] for one, other in sizes),
        len(places),
        sum(one.place == other["place"] for one, other in places),
    )


def _exact(
    said: Said, there: Sequence[Mapping[str, Any]], true: set[tuple[int, str, int]], chosen: tuple[int, ...] = ()
) -> Iterator[tuple[int, ...]]:
    """Assignments of all objects said to different ones of the scene that make all of the sentence true."""
    if any(max(i, j) < len(chosen) and (chosen[i], name, chosen[j]) not in true for i, name, j in said.relations):
        return
    if len(chosen) == len(said.objects):
        yield chosen
        return
    one = said.objects[len(chosen)]
    for index, other in enumerate(there):
        if index not in chosen and (one.name, one.colour) == (other["class"], other["colour"]):
            yield from _exact(said, there, true, (*chosen, index))


def _also_true(said: Said, there: Sequence[Mapping[str, Any]], chosen: tuple[int, ...]) -> int:
    """How many sizes and places are true: what distinguishes objects that are equal otherwise."""
    pairs = [(one, there[index]) for one, index in zip(said.objects, chosen, strict=True)]
    return sum((one.size == other["size"]) + (one.place == other["place"]) for one, other in pairs)


def best_assignment(said: Sequence[SaidObject], there: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Different objects of the scene for those said, such that most agree in class and colour; by index."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    scores = np.zeros((len(said), len(there)))
    for (i, one), (j, other) in product(enumerate(said), enumerate(there)):
        scores[i, j] = 1.01 * (one.name == other["class"]) + (one.colour == other["colour"])
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))
