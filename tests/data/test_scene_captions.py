"""Captions of scenes: every sentence is true, and read by the grammar; wrong ones fail."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import pytest
import torch

from zoo.data import composing
from zoo.data.composing import Difficulty
from zoo.data.scene_captions import SceneCaptions
from zoo.data.scenes import SceneSamples
from zoo.errors import UserError
from zoo.functional.scene_grammar import COLOURS as COLOUR_WORDS
from zoo.functional.scene_grammar import (
    CONVERSE,
    NOTHING,
    NOUNS,
    OPENINGS,
    PLACES,
    RELATIONS,
    SIZES,
    clear_relations,
    object_forms,
    references,
    vocabulary,
)
from zoo.functional.scene_reading import FORWARDS, judge, parse
from zoo.functional.tokenizing import tokenizer_of, words
from zoo.metrics.scene_content import SceneContent

SMALL: dict[str, Any] = {"image_size": 64, "train_size": 6, "val_size": 2, "test_size": 2, "batch_size": 3}


@pytest.fixture(scope="module")
def scenes() -> list[dict[str, Any]]:
    """Descriptions of some, with up to five objects."""
    samples = SceneSamples("train", 80, 5, Difficulty(objects=(0, 5)))
    return [samples.scene(index).description() for index in range(80)]


def test_the_grammar_knows_all_that_scenes_have() -> None:
    assert set(NOUNS) == set(composing.CLASSES)
    assert set(COLOUR_WORDS) == set(composing.COLOURS)
    assert set(SIZES) == {"small", "medium", "large"}
    rows, columns = composing.ROWS, composing.COLUMNS
    assert set(PLACES) == {" ".join(filter(None, pair)) or "centre" for pair in product(rows, columns)}


def an_object(name: str = "7", colour: str = "red", size: str = "large", place: str = "top left") -> dict[str, Any]:
    return {"class": name, "colour": colour, "size": size, "place": place, "box": [0, 0, 9, 9]}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", SIZES)
def test_every_form_of_an_object_is_read(size: str, place: str) -> None:
    for name, colour in product(NOUNS, COLOUR_WORDS):
        one = an_object(name, colour, size, place)
        for says_size, says_place in product((False, True), repeat=2):
            for form in object_forms(one, says_size, says_place):
                said = parse(form)
                assert said is not None, form
                expected = (
                    name,
                    colour,
                    size if says_size and size != "medium" else None,
                    place if says_place else None,
                )
                assert said.objects == [expected], form


@pytest.mark.parametrize("opening", OPENINGS)
def test_every_form_of_a_sentence_is_read(opening: str) -> None:
    first, second = "a red 7", "an 8 in purple on the left"
    for name, phrases in RELATIONS.items():
        known = (1, FORWARDS[name], 0) if name in FORWARDS else (0, name, 1)
        for phrase, verb in product(phrases, ("", "is ")):
            said = parse(f"{opening} {first} {verb}{phrase} {second}")
            assert said is not None, phrase
            assert (len(said.objects), said.relations) == (2, [known])
    several = parse(f"{opening} {first}, {second} below a white disc, {first} and {second}.")
    assert several is not None
    assert (len(several.objects), several.relations) == (5, [(2, "above", 1)])
    assert [parse(f"{opening} {nothing}") for nothing in NOTHING] == [([], [])] * len(NOTHING)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a",
        "a red",
        "a 7",
        "red 7",
        "a red 7 left of",
        "a red 7 is a blue 8",
        "a red 7 a blue 8",
        "a red 7 and",
        "a red dog",
        "a red 7 8",
        "nothing and a red 7",
        "a red 7 above a blue 8 above a white 9",
        "a red 7 in the corner",
        "ein rotes Quadrat",
    ],
)
def test_other_texts_are_not_of_the_grammar(caption: str) -> None:
    assert parse(caption) is None


@pytest.mark.parametrize("asked", [1, 2, 5])
def test_references_are_true_and_say_as_much_as_asked_for(scenes: list[dict[str, Any]], asked: int) -> None:
    for scene in scenes:
        made = references(scene, asked, 5)
        assert len(set(made)) == len(made) >= 2
        for sentence in made:
            verdict = judge(sentence, scene, asked)
            assert verdict.content, sentence
            assert verdict.objects == verdict.classes == verdict.colours == min(asked, len(scene["objects"]))
            assert verdict.relations_right == verdict.relations
            assert (verdict.sizes_right, verdict.places_right) == (verdict.sizes, verdict.places), sentence
            assert set(words(sentence)) <= set(vocabulary())


def test_references_are_a_function_of_the_scene(scenes: list[dict[str, Any]]) -> None:
    first = [references(scene, 2, 5) for scene in scenes]
    random.seed(1)
    assert [references(scene, 2, 5) for scene in scenes] == first
    assert any(references(scene, 3, 5) != made for scene, made in zip(scenes, first, strict=True))


def test_two_objects_are_said_with_the_clearest_relation(scenes: list[dict[str, Any]]) -> None:
    pairs = [scene for scene in scenes if len(scene["objects"]) == 2]
    clear = [scene for scene in pairs if clear_relations(scene)]
    assert len(clear) > len(pairs) / 2
    for scene in clear:
        for sentence in references(scene, 2, 3):
            said = parse(sentence)
            assert said is not None
            assert len(said.relations) == 1
    a, b = an_object(), {**an_object("8"), "box": [10, 40, 20, 50]}
    relations = [{"first": 0, "name": name, "second": 1} for name in ("left of", "above")]
    found = clear_relations({"objects": [a, b], "relations": relations})
    assert found == {(0, 1): "above", (1, 0): "below"}  # beside each other by one pixel, above by 31


def changed(draw: random.Random, sentence: str) -> str:
    """The sentence with one thing wrong: a class, a color, a relation, an object more or less."""
    swap = {**{n: str((int(n) + 1) % 10) for n in "0123456789"}, "circle": "square", "disc": "square", "square": "disc"}
    swap |= {"triangle": "circle", "red": "green", "green": "blue", "blue": "white", "white": "black", "black": "red"}
    swap |= {"yellow": "purple", "purple": "yellow", "violet": "orange", "cyan": "red", "turquoise": "orange"}
    swap |= {"above": "below", "below": "above", "under": "above", "behind": "in front of", "orange": "cyan"}
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    swap |= dict(zip(names, (*names[1:], "zero"), strict=True))
    tokens = sentence.split()
    places = [i for i, token in enumerate(tokens) if token.strip(",") in swap]
    at = draw.choice(places)
    word = tokens[at].strip(",")
    tokens[at] = tokens[at].replace(word, swap[word])
    return " ".join(tokens)


def test_captions_with_one_thing_wrong_fail(scenes: list[dict[str, Any]]) -> None:
    draw, seen = random.Random(0), 0
    for scene in (scene for scene in scenes if scene["objects"]):
        for sentence in references(scene, 5, 5):
            wrong = changed(draw, sentence)
            truth = {(one["class"], one["colour"]) for one in scene["objects"]}
            said = parse(wrong)
            assert said is not None, wrong
            if len(truth) == len(scene["objects"]):  # equal objects may make a changed sentence true
                assert not judge(wrong, scene, 5).content, (sentence, wrong)
                seen += 1
            assert not judge(f"{sentence} and {sentence.removeprefix('there is ')}", scene, 5).content
            assert not judge("nothing", scene, 5).content
    assert seen > 100


def test_captions_of_other_scenes_fail(scenes: list[dict[str, Any]]) -> None:
    metric = SceneContent()
    for scene, other in zip(scenes, [*scenes[1:], scenes[0]], strict=True):
        metric.update(references(other, 2, 1), [{"scene": scene, "asked": 2}])
    found = metric.compute()
    assert found["content_accuracy"] < 0.05
    assert found["parsed"] == 1
    assert found["class_accuracy"] < 0.5


TWO: dict[str, Any] = {
    "objects": [an_object(), {**an_object("circle", "blue", "small", "right"), "box": [40, 0, 50, 9]}],
    "relations": [{"first": 0, "name": "left of", "second": 1}],
}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A red 7 left of a blue circle.", {"content_accuracy": 1, "relation_accuracy": 1, "count_accuracy": 1}),
        ("a blue disc is to the right of a seven in red", {"content_accuracy": 1, "relation_accuracy": 1}),
        ("a red 7 and a blue circle", {"content_accuracy": 1, "relations": 0}),
        ("a red 7", {"content_accuracy": 0, "class_accuracy": 0.5, "colour_accuracy": 0.5, "count_accuracy": 0}),
        ("a red 7 right of a blue circle", {"content_accuracy": 0, "class_accuracy": 1, "relation_accuracy": 0}),
        ("a red 8 left of a blue circle", {"content_accuracy": 0, "class_accuracy": 0.5, "colour_accuracy": 1}),
        ("a green 7 and a blue circle", {"content_accuracy": 0, "class_accuracy": 1, "colour_accuracy": 0.5}),
        ("a blue 7 and a red circle", {"content_accuracy": 0, "class_accuracy": 1, "colour_accuracy": 0}),
        ("a red 7, a blue circle and a red 7", {"content_accuracy": 0, "class_accuracy": 2 / 3, "count_accuracy": 0}),
        ("a big red 7 and a big blue circle", {"content_accuracy": 1, "size_accuracy": 0.5}),
        ("a red 7 at the top left and a blue circle", {"content_accuracy": 1, "place_accuracy": 1}),
        ("two dogs", {"content_accuracy": 0, "parsed": 0, "class_accuracy": 0}),
    ],
)
def test_each_thing_is_judged_apart(caption: str, expected: dict[str, float]) -> None:
    metric = SceneContent()
    metric.update([caption], [{"scene": TWO, "asked": 2}])
    found = {name: float(value) for name, value in metric.compute().items()}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_equal_objects_are_told_apart_by_what_is_said_of_them() -> None:
    boxes = ([0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9])
    places = ("left", "centre", "right")
    objects = [{**an_object(place=place), "box": box} for box, place in zip(boxes, places, strict=True)]
    objects[1] |= {"class": "8"}
    relations = [{"first": i, "name": "left of", "second": j} for i, j in ((0, 1), (0, 2), (1, 2))]
    scene = {"objects": objects, "relations": relations}
    for sentence in ("a red 8 left of a red 7", "a red 8 right of a red 7", "a red 7 left of a red 7"):
        assert judge(sentence, scene, 2).content
    assert not judge("a red 8 left of a red 8", scene, 2).content
    assert judge("a red 7 on the right", scene, 1).places_right == 1
    assert not judge("a red 7 left of a red 8, a red 7", scene, 2).content
    assert CONVERSE["above"] == "below"


def test_shares_of_two_halves_are_those_of_the_whole(scenes: list[dict[str, Any]]) -> None:
    captions = [references(scene, 2, 1)[0] for scene in [*scenes[:20], *scenes[25:45]]]
    details = [{"scene": scene, "asked": 2} for scene in scenes[:40]]
    whole, parts = SceneContent(), [SceneContent(), SceneContent()]
    whole.update(captions, details)
    parts[0].update(captions[:11], details[:11])
    parts[1].update(captions[11:], details[11:])
    for part in parts[1:]:
        parts[0].counts += part.counts
        parts[0].captions += part.captions
    first, second = whole.compute(), parts[0].compute()
    torch.testing.assert_close(first, second, equal_nan=True)
    assert 0.4 < first["content_accuracy"] < 0.7
    with pytest.raises(UserError, match="use it with data SceneCaptions"):
        whole.update(["a"], [{"references": ["a"]}])


def test_the_data_gives_a_sentence_and_all_of_it() -> None:
    data = SceneCaptions(**SMALL)
    tokenizer = tokenizer_of(data.facts)
    images, tokens, details = next(iter(data.val_dataloader()))
    assert images.shape == (2, 3, 64, 64)
    for row, one in zip(tokens, details, strict=True):
        assert tokenizer.decode(row) == one["references"][0]
        assert row[0] == tokenizer.start_id
        assert judge(one["references"][0], one["scene"], one["asked"]).content
        assert len(one["scene"]["objects"]) <= 2


def test_training_draws_a_sentence_by_the_key() -> None:
    samples = SceneCaptions(**SMALL, fresh=False).samples("train")
    drawn = set()
    for key in (*range(20), 3):
        torch.manual_seed(key)
        _, tokens, details = samples[0]
        drawn.add(tuple(tokens.tolist()))
    torch.manual_seed(3)
    assert samples[0][1].tolist() == tokens.tolist()
    assert len(drawn) == len(details["references"]) == 5


def test_fresh_scenes_have_their_own_sentences() -> None:
    samples = SceneCaptions(**SMALL, fresh=True, asked=3, objects=(3, 3), sentences=2).samples("train")
    found = []
    for key in (1, 2):
        torch.manual_seed(key)
        found.append(samples[0][2])
    assert found[0]["references"] != found[1]["references"]
    for one in found:
        assert judge(one["references"][1], one["scene"], 3).content
    with pytest.raises(UserError, match=r"data\.asked must be at least 1, not 0"):
        SceneCaptions(asked=0)
