"""Scores of captions as COCO's caption evaluation computes them: BLEU, ROUGE-L and CIDEr-D, and how varied they are.

Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002; Lin, "ROUGE: A Package for
Automatic Evaluation of Summaries", 2004, section 3; Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based Image
Description Evaluation", 2015, section 8 (CIDEr-D); Chen et al., "Microsoft COCO Captions: Data Collection and
Evaluation Server", 2015. Published results come from COCO's program, followed here where it differs from the papers:

- BLEU adds 1e-15 to the matches and 1e-9 to the n-grams of each order, so that no ratio is undefined.
- ROUGE-L takes the best precision and the best recall over the references, also of two different ones, and beta is 1.2.
- CIDEr-D has neither stemming nor the sum of the orders, but their mean; lengths are counted in bigrams; and an n-gram
  in no reference weighs as one in a single picture's.

A caption is a sequence of tokens (``zoo.functional.ptb`` has the evaluation's), a picture's references are a sequence
of such sequences. Tokens are words or, all the same, ids. METEOR and SPICE need Java programs and are not here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ORDERS = 4  # n-grams of one to four tokens
TINY, SMALL = 1e-15, 1e-9  # of COCO's BLEU
BETA = 1.2  # of COCO's ROUGE-L
SIGMA = 6.0  # of CIDEr-D's penalty of lengths, section 8

Tokens = Sequence[Hashable]
NGram = tuple[Hashable, ...]


def ngrams(tokens: Tokens, n: int) -> Iterable[NGram]:
    """All runs of n tokens."""
    return zip(*(tokens[i:] for i in range(n)), strict=False)


def _all_ngrams(tokens: Tokens) -> Iterable[NGram]:
    """Those of every order."""
    shifted = [tokens[i:] for i in range(ORDERS)]
    return chain(*(zip(*shifted[:n], strict=False) for n in range(1, ORDERS + 1)))


# BLEU


def bleu(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """BLEU-1 to BLEU-4 of all captions together, with the closest reference's length (the shorter one of two).

    Args:
        captions: N of them; one picture's own BLEU is that of a list of one.
        references: of each caption at least one.
    """
    total = np.zeros(2 + 2 * ORDERS, np.int64)
    for caption, own in zip(captions, references, strict=True):
        total += _matches(caption, own)
    length, closest, *counts = map(int, total)
    precision = np.divide(np.add(counts[:ORDERS], TINY), np.add(counts[ORDERS:], SMALL))
    ratio = (length + TINY) / (closest + SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    return [float(p) ** (1 / n) * brevity for n, p in enumerate(precision.cumprod(), 1)]


def _matches(caption: Tokens, references: Sequence[Tokens]) -> list[int]:
    """The caption's length, the closest reference's, and per order the n-grams that match and those that there are."""
    own, most, found = Counter(_all_ngrams(caption)), dict[NGram, int](), [0] * ORDERS
    for reference in references:
        for gram, count in Counter(filter(own.__contains__, _all_ngrams(reference))).items():
            most[gram] = max(most.get(gram, 0), count)
    for gram, count in most.items():
        found[len(gram) - 1] += min(own[gram], count)
    closest = min((abs(len(one) - len(caption)), len(one)) for one in references)[1]
    return [len(caption), closest, *found, *(max(len(caption) - n, 0) for n in range(ORDERS))]


# ROUGE-L


def rouge_l(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
    """ROUGE-L of each caption, (N,) in [0, 1]; the set's is their mean."""
    return np.array([_rouge_l(c, own) for c, own in zip(captions, references, strict=True)], np.float64)


def _rouge_l(caption: Tokens, references: Sequence[Tokens]) -> float:
    caption = caption or ("",)  # to COCO's program an empty sentence is one empty token
    places = _places(caption)
    common = [common_length(places, one or ("",)) for one in references]
    precision = max(common) / len(caption)
    recall = max(length / len(one or ("",)) for length, one in zip(common, references, strict=True))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _places(tokens: Tokens) -> dict[Hashable, int]:
    """Where each token stands, as the bits of a number."""
    places: dict[Hashable, int] = {}
    for i, token in enumerate(tokens):
        places[token] = places.get(token, 0) | 1 << i
    return places


def common_length(places: Mapping[Hashable, int], other: Tokens) -> int:
    """Length of the longest common subsequence, a row of the table at a time in the bits of one number.

    Hyyrö, "Bit-Parallel LCS-length Computation Revisited", 2004.

    Args:
        places: the bits of each token's places in one sequence.
        other: the other sequence.
    """
    every = 0
    for bits in places.values():
        every |= bits
    row = every  # a bit that is 0 is a step of the length
    for token in other:
        met = row & places.get(token, 0)
        row = ((row + met) | (row - met)) & every
    return (every ^ row).bit_count()


# CIDEr-D


class _Weighted(NamedTuple):
    """A sentence's n-grams with their weights, the weights' norm of each order, and the length in bigrams."""

    weights: dict[NGram, float]
    norms: list[float]
    length: int


class CiderD:
    """CIDEr-D with given document frequencies, such as those of the training captions for a reward.

    Args:
        document_frequencies: in how many pictures' references an n-gram of one to four tokens occurs.
        count: the number of these pictures.
    """

    def __init__(self, document_frequencies: Mapping[NGram, int], count: int) -> None:
        self.count = count
        self._rarest = math.log(max(count, 1))
        self._rarity = {gram: self._rarest - math.log(f) for gram, f in document_frequencies.items() if f > 1}

    @classmethod
    def of(cls, references: Iterable[Sequence[Tokens]]) -> CiderD:
        """With the frequencies of these pictures' references."""
        frequencies: Counter[NGram] = Counter()
        count = 0
        for own in references:
            count += 1
            frequencies.update(set(chain.from_iterable(map(_all_ngrams, own))))
        return cls(frequencies, count)

    def scores(self, captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
        """CIDEr-D of each caption, (N,), from 0 to 10; the set's is their mean.

        Args:
            captions: N of them.
            references: of each caption at least one. Where captions that follow each other have the same object, as
                have samples of one picture, it is weighted once.
        """
        scores, before, weighted = np.zeros(len(captions)), None, []
        for i, (caption, own) in enumerate(zip(captions, references, strict=True)):
            if own is not before:
                before, weighted = own, [self._weighted(one) for one in own]
            candidate = self._weighted(caption)
            scores[i] = 10 * sum(_similarity(candidate, one) for one in weighted) / len(weighted)
        return scores

    def _weighted(self, tokens: Tokens) -> _Weighted:
        rarity, rarest, squares = self._rarity.get, self._rarest, [0.0] * ORDERS
        counts = Counter(_all_ngrams(tokens))
        weights = {gram: count * rarity(gram, rarest) for gram, count in counts.items()}
        for gram, weight in weights.items():
            squares[len(gram) - 1] += weight * weight
        return _Weighted(weights, [*map(math.sqrt, squares)], max(len(tokens) - 1, 0))


def _similarity(caption: _Weighted, reference: _Weighted) -> float:
    """Mean over the orders of the clipped cosine, with the penalty of a differing length (equation 6)."""
    shared, own, theirs = [0.0] * ORDERS, caption.weights, reference.weights
    for gram in filter(theirs.__contains__, own):
        shared[len(gram) - 1] += min(own[gram], theirs[gram]) * theirs[gram]
    norms = [a * b for a, b in zip(caption.norms, reference.norms, strict=True)]
    cosine = sum(one / norm for one, norm in zip(shared, norms, strict=True) if norm) / ORDERS
    return cosine * math.exp(-((caption.length - reference.length) ** 2) / (2 * SIGMA**2))


# How varied the captions are


def distinct(captions: Sequence[Tokens], n: int) -> float:
    """Distinct-n: how many different n-grams there are in all captions, by how many n-grams; NaN without any.

    Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", 2016, section 5.3, and of
    n-grams instead of tokens in the denominator, so that 1 means that none occurs twice.
    """
    counts = Counter(chain.from_iterable(ngrams(caption, n) for caption in captions))
    return len(counts) / counts.total() if counts else math.nan


def vocabulary_size(captions: Iterable[Tokens]) -> int:
    """How many different tokens the captions use."""
    return len(set(chain.from_iterable(captions)))


def mean_length(captions: Sequence[Tokens]) -> float:
    """Tokens of a caption on average; NaN without captions."""
    return sum(map(len, captions)) / len(captions) if captions else math.nan


def share_known(captions: Sequence[Tokens], known: Collection[tuple[Hashable, ...]]) -> float:
    """The share of captions that are among the known ones, such as those of training; NaN without captions."""
    return sum(tuple(one) in known for one in captions) / len(captions) if captions else math.nan
