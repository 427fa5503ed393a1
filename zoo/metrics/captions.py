"""Metrics of captions: COCO's BLEU, ROUGE-L and CIDEr-D, and how varied the captions are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

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
from zoo.functional.ptb import ptb_tokens
from zoo.metrics.sequences import SampleMetric


class CaptionMetrics(SampleMetric):
    """BLEU-1 to 4, ROUGE-L and CIDEr-D of all captions, on the tokens of COCO's evaluation, and their variety.

    CIDEr-D weighs n-grams by the references of the evaluated pictures, so that sets of different size have different
    values for the same captions; of one picture it is 0.

    Args:
        training_captions: with them also ``seen_in_training``. Case and punctuation do not count.
        kwargs: as for every metric.
    """

    def __init__(self, training_captions: Iterable[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        known = None if training_captions is None else frozenset(tuple(ptb_tokens(one)) for one in training_captions)
        self.training_captions = known

    def update(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add a batch.

        Args:
            captions: of B pictures.
            references: all of each picture, at least one.

        Raises:
            ValueError: the two differ in length, or a picture has no reference.
        """
        if not all(references):
            raise ValueError("a picture without references can't be scored; expected at least one for each caption")
        self.keep(captions, [list(own) for own in references])

    def compute(self) -> dict[str, float]:
        """``bleu_1`` to ``bleu_4`` and ``rouge_l`` in [0, 1], ``cider`` in [0, 10], all means or of the whole set.

        ``distinct_1`` and ``distinct_2`` in [0, 1], ``mean_length`` in tokens, ``vocabulary`` (different tokens used),
        and ``seen_in_training``, the share of captions that are training captions. Without samples all are NaN, but
        the vocabulary.
        """
        captions = [ptb_tokens(caption) for caption, _ in self.samples]
        references = [[ptb_tokens(one) for one in own] for _, own in self.samples]
        values = coco_scores(captions, references) | variety(captions)
        if self.training_captions is not None:
            values["seen_in_training"] = share_known(captions, self.training_captions)
        return values


def coco_scores(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, float]:
    """``bleu_1`` to ``bleu_4``, ``rouge_l`` and ``cider``; NaN without captions."""
    cider = CiderD.of(references).scores(captions, references)
    values = {f"bleu_{n}": value for n, value in enumerate(bleu(captions, references), 1)}
    values |= {"rouge_l": _mean(rouge_l(captions, references)), "cider": _mean(cider)}
    return values if captions else dict.fromkeys(values, math.nan)


def variety(captions: Sequence[Tokens]) -> dict[str, float]:
    """``distinct_1``, ``distinct_2``, ``mean_length`` and ``vocabulary``."""
    return {
        "distinct_1": distinct(captions, 1),
        "distinct_2": distinct(captions, 2),
        "mean_length": mean_length(captions),
        "vocabulary": float(vocabulary_size(captions)),
    }


def _mean(values: Iterable[float]) -> float:
    """Exact but for the last rounding, whatever the order."""
    listed = [*values]
    return math.fsum(listed) / len(listed) if listed else math.nan
