"""Scores of captions against COCO's own program (``pycocoevalcap``), closed forms and counts by hand."""

import math

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from zoo.functional.caption_scores import (
    CiderD,
    Tokens,
    bleu,
    distinct,
    mean_length,
    rouge_l,
    share_known,
    vocabulary_size,
)

Corpus = tuple[list[list[str]], list[list[list[str]]]]  # captions, and the references of each

REAL = [
    ("a dog runs on the beach with a ball", ["a brown dog is running along the beach", "the dog has a ball", "a dog"]),
    ("a man rides a bike", ["a man is riding a bike down the street", "a cyclist on a road with cars behind him"]),
    ("two cats sleep on a red sofa", ["two cats sleep on a red sofa", "two cats are asleep", "cats on a sofa"]),
    ("a plate of food", ["a white plate with rice , beans and a piece of fish on it", "a plate of food on a table"]),
    ("a the a the a", ["a child holds the hand of a woman", "the woman and the child"]),
    ("green", ["a green square left of a red three", "a red three is right of the green square"]),
    ("it does n't matter", ["the man 's dog does n't like it", "that 's what it is"]),
]


def real() -> Corpus:
    return [one.split() for one, _ in REAL], [[line.split() for line in own] for _, own in REAL]


def random_corpus(count: int, seed: int, words: int = 12) -> Corpus:
    """Sentences of a small vocabulary, so that long n-grams match; some empty, some as in a reference."""
    random = np.random.default_rng(seed)

    def sentence(low: int) -> list[str]:
        return [f"w{i}" for i in random.integers(0, words, random.integers(low, 12))]

    references = [[sentence(1) for _ in range(random.integers(1, 6))] for _ in range(count)]
    captions = [own[0][1:] + sentence(0) if random.random() < 0.5 else sentence(0) for own in references]
    return captions, references


CORPORA = {
    "real": real(),
    "random": random_corpus(60, 0),
    "many words": random_corpus(40, 1, words=300),
    "two words": random_corpus(30, 2, words=2),
    "one picture": random_corpus(1, 3),
    "empty captions": ([[], [], ["a"]], [[["a", "b"]], [["c"], ["d"]], [["a"]]]),
    "empty reference": ([["a", "b"], []], [[[], ["a", "b", "c"]], [["c"], []]]),
}


def of_coco(corpus: Corpus) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    captions, references = corpus
    return (
        {i: [" ".join(one) for one in own] for i, own in enumerate(references)},
        {i: [" ".join(one)] for i, one in enumerate(captions)},
    )


@pytest.fixture(params=CORPORA)
def corpus(request: pytest.FixtureRequest) -> Corpus:
    return CORPORA[request.param]


def test_bleu_is_cocos_of_the_set_and_of_each_picture(corpus: Corpus) -> None:
    expected, each = Bleu().compute_score(*of_coco(corpus), verbose=0)
    np.testing.assert_allclose(bleu(*corpus), expected, rtol=1e-9, atol=1e-12)
    own = [bleu([caption], [references]) for caption, references in zip(*corpus, strict=True)]
    np.testing.assert_allclose(np.transpose(own), each, rtol=1e-9, atol=1e-12)


def test_rouge_l_is_cocos(corpus: Corpus) -> None:
    np.testing.assert_allclose(rouge_l(*corpus), Rouge().compute_score(*of_coco(corpus))[1], rtol=0, atol=1e-12)


def test_cider_d_is_cocos(corpus: Corpus) -> None:
    scores = CiderD.of(corpus[1]).scores(*corpus)
    np.testing.assert_allclose(scores, Cider().compute_score(*of_coco(corpus))[1], rtol=0, atol=1e-9)


def test_no_comparison_is_of_zeros_alone() -> None:
    captions, references = CORPORA["real"]
    assert 0.2 < bleu(captions, references)[3] < 0.8
    assert 0.3 < rouge_l(captions, references).mean() < 0.8
    assert 1 < CiderD.of(references).scores(captions, references).mean() < 5


def test_cider_d_with_the_frequencies_of_other_pictures() -> None:
    """Those of a larger set: COCO's program gives them to the pictures that are in it."""
    captions, references = random_corpus(50, 4)
    given = CiderD.of(references)
    expected = Cider().compute_score(*of_coco((captions, references)))[1]
    np.testing.assert_allclose(given.scores(captions[10:20], references[10:20]), expected[10:20], atol=1e-9)
    assert given.count == 50


def test_samples_of_a_picture_may_share_its_references_and_be_of_ids() -> None:
    captions, references = random_corpus(20, 5)
    given = CiderD.of(references)
    several = [captions[3], captions[4], captions[3]]
    apart = [given.scores([one], [[*references[3]]])[0] for one in several]
    assert given.scores(several, [references[3]] * 3).tolist() == apart
    ids = [[int(token[1:]) for token in one] for one in captions]
    others = [[[int(token[1:]) for token in one] for one in own] for own in references]
    assert CiderD.of(others).scores(ids, others).tolist() == given.scores(captions, references).tolist()


def test_a_caption_that_is_every_reference_has_the_full_score() -> None:
    """But only if no other picture's n-grams are in it; 10 is the factor of CIDEr."""
    references: list[list[Tokens]] = [[["a", "b", "c", "d", "e"]] * 3, [["f", "g", "h", "i"]] * 3]
    captions = [own[0] for own in references]
    np.testing.assert_allclose(CiderD.of(references).scores(captions, references), 10, rtol=1e-12)
    np.testing.assert_allclose(bleu(captions, references), 1, rtol=1e-7)
    assert rouge_l(captions, references).tolist() == [1, 1]


def test_no_captions_at_all() -> None:
    assert bleu([], []) == [0, 0, 0, 0]
    assert rouge_l([], []).shape == CiderD.of([]).scores([], []).shape == (0,)
    assert all(map(math.isnan, (distinct([], 1), mean_length([]), share_known([], ()))))


def test_variety_by_hand() -> None:
    captions = ["a red dog", "a red cat", "a red dog", "dog"]
    tokens = [one.split() for one in captions]
    assert distinct(tokens, 1) == 4 / 10
    assert distinct(tokens, 2) == 3 / 6
    assert vocabulary_size(tokens) == 4
    assert mean_length(tokens) == 2.5
    assert share_known(tokens, {("a", "red", "dog"), ("a", "dog")}) == 0.5
    assert math.isnan(distinct([["one"], []], 2))
