"""Sentences about scenes of coloured digits and shapes, with several ways to say each thing.

A scene is plain data, as ``Scene.description`` gives it: ``objects`` with ``class``, ``colour``, ``size``, ``place``
and ``box``, and ``relations`` with ``first``, ``name`` (``left of``, ``above``, ``behind``) and ``second``.
``zoo.functional.scene_reading`` reads the sentences.

    caption  = [opening] clause {("," | "and") clause} ["."]  |  [opening] nothing
    clause   = object [place]  |  object ["is"] relation object [place]
    object   = article [size] colour noun  |  article [size] noun "in" colour
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

Description = Mapping[str, Sequence[Mapping[str, Any]]]

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOUNS: dict[str, tuple[str, ...]] = {
    **{str(n): (str(n), word, f"digit {n}") for n, word in enumerate(NUMBERS)},
    "circle": ("circle", "disc"),
    "square": ("square",),
    "triangle": ("triangle",),
}
COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("red",),
    "green": ("green",),
    "blue": ("blue",),
    "yellow": ("yellow",),
    "purple": ("purple", "violet"),
    "cyan": ("cyan", "turquoise"),
    "orange": ("orange",),
    "white": ("white",),
    "black": ("black",),
}
SIZES: dict[str, tuple[str, ...]] = {"small": ("small", "little"), "medium": (), "large": ("large", "big")}
PLACES: dict[str, tuple[str, ...]] = {
    **{f"{y} {x}": (f"at the {y} {x}", f"in the {y} {x} corner") for y in ("top", "bottom") for x in ("left", "right")},
    **{y: (f"at the {y}",) for y in ("top", "bottom")},
    **{x: (f"on the {x}",) for x in ("left", "right")},
    "centre": ("in the centre", "in the middle"),
}
RELATIONS: dict[str, tuple[str, ...]] = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above",),
    "below": ("below", "under"),
    "behind": ("behind", "partly hidden by"),
    "in front of": ("in front of", "partly hiding"),
}
CONVERSE = {"left of": "right of", "above": "below", "behind": "in front of"}
OPENINGS = ("", "there is", "a picture of", "i see")
NOTHING = ("nothing", "nothing at all")
ARTICLES = ("a", "an", "the")

CLEAR = 0.125  # the gap of a relation that is said, relative to the longer sides of the two objects, on average
COVERED = 0.1  # the share of the smaller box that the other's covers where one is said to be behind the other
SAYS_SIZE, SAYS_PLACE = 0.3, 0.15  # how often a sentence says an object's size and place
TRIES = 6  # sentences that are made for each one wanted, since some are equal


def object_forms(one: Mapping[str, Any], size: bool, place: bool) -> list[str]:
    """All ways to say an object, with its size if that is small or large, and with its place.

    Args:
        one: its ``class``, ``colour``, ``size`` and ``place``.
        size: whether the size is said.
        place: whether the place is said.
    """
    sizes = [f"{word} " for word in SIZES[one["size"]]] if size else []
    places = [f" {phrase}" for phrase in PLACES[one["place"]]] if place else []
    made = []
    for noun, colour, before, behind in product(
        NOUNS[one["class"]], COLOURS[one["colour"]], sizes or [""], places or [""]
    ):
        made += [f"{before}{colour} {noun}{behind}", f"{before}{noun} in {colour}{behind}"]
    return [f"{_article(form)} {form}" for form in made]


def _article(form: str) -> str:
    return "an" if form[0] in "aei8" or form.startswith("orange") else "a"


def references(description: Description, asked: int, count: int) -> list[str]:
    """Different sentences about a scene, a pure function of the arguments.

    They say the largest objects. A relation of two is said where it is clear: one that barely holds would be hard to
    see.

    Args:
        description: of the scene.
        asked: number of objects that are said, if there are so many.
        count: number of sentences; there are fewer where the grammar has no more.
    """
    draw = random.Random(f"{asked} {json.dumps(description, sort_keys=True)}")
    objects = description["objects"]
    largest = sorted(range(len(objects)), key=lambda i: (-_area(objects[i]["box"]), i))[:asked]
    relations = clear_relations(description)
    made: dict[str, None] = {}
    for _ in range(TRIES * count):
        made[_sentence(draw, objects, largest, relations)] = None
        if len(made) == count:
            break
    return list(made)


def clear_relations(description: Description) -> dict[tuple[int, int], str]:
    """The clearest relation of two objects, by their indices in both orders; pairs without a clear one are left out."""
    objects, found = description["objects"], dict[tuple[int, int], tuple[float, str]]()
    for relation in description["relations"]:
        i, name, j = relation["first"], relation["name"], relation["second"]
        clearness = _clearness(name, objects[i]["box"], objects[j]["box"])
        if clearness >= 1 and (clearness, name) > found.get((i, j), (0.0, "")):
            found[i, j], found[j, i] = (clearness, name), (clearness, CONVERSE[name])
    return {pair: name for pair, (_, name) in found.items()}


def _clearness(name: str, a: Sequence[int], b: Sequence[int]) -> float:
    """How clearly a relation holds of two boxes, from 1 on."""
    if name == "behind":
        sides = [max(0, min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis])) for axis in (0, 1)]
        return sides[0] * sides[1] / (COVERED * min(_area(a), _area(b)))
    axis = ("left of", "above").index(name)
    longer = (max(a[2] - a[0], a[3] - a[1]) + max(b[2] - b[0], b[3] - b[1])) / 2
    return (b[axis] - a[axis + 2]) / (CLEAR * longer)


def _area(box: Sequence[int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _sentence(
    draw: random.Random,
    objects: Sequence[Mapping[str, Any]],
    said: Sequence[int],
    relations: Mapping[tuple[int, int], str],
) -> str:
    opening = draw.choice(OPENINGS)
    if not said:
        return f"{opening} {draw.choice(NOTHING)}".strip()
    clauses, waiting = [], draw.sample(list(said), len(said))
    while waiting:
        first = waiting.pop(0)
        second = next((other for other in waiting if (first, other) in relations), None)
        clause = _say(draw, objects[first], placed=second is None)  # "at the top right of a circle" would be two things
        if second is not None:
            waiting.remove(second)
            verb = " is" if not opening and len(said) == 2 and draw.random() < 0.5 else ""
            clause += f"{verb} {draw.choice(RELATIONS[relations[first, second]])} {_say(draw, objects[second])}"
        clauses.append(clause)
    return f"{opening} {listed(clauses)}".strip()


def listed(clauses: Sequence[str]) -> str:
    """Clauses with commas between them, and ``and`` before the last."""
    return " and ".join(filter(None, [", ".join(clauses[:-1]), clauses[-1]]))


def _say(draw: random.Random, one: Mapping[str, Any], placed: bool = True) -> str:
    return draw.choice(object_forms(one, draw.random() < SAYS_SIZE, draw.random() < SAYS_PLACE and placed))


def vocabulary() -> list[str]:
    """All words of the grammar, sorted; the comma is one."""
    phrases = [*OPENINGS, *NOTHING, *ARTICLES[:2], "in", "is", "and", ","]
    for table in (NOUNS, COLOURS, SIZES, PLACES, RELATIONS):
        phrases += [phrase for ways in table.values() for phrase in ways]
    return sorted({word for phrase in phrases for word in phrase.split()})
