"""Scores of the captions of 5,000 pictures with 5 references each, against COCO's own program: time and agreement.

Run: ``python tests/benchmarks/caption_scores.py [--pictures N] [--rounds N]``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import report, spread
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from zoo.functional.caption_scores import CiderD, bleu, rouge_l
from zoo.metrics.captions import CaptionMetrics

BAR = 10.0  # seconds, CIDEr-D
EACH = 5  # references of a picture
WORDS = 10_000
ABOUT = (
    "Sentences of 8 to 15 words, drawn from a Zipf distribution over "
    f"{WORDS:,} words; a caption has two pieces of its references in it. Median of the rounds (smallest to largest), "
    "from tokens to the score; CIDEr-D with its document frequencies. `CaptionMetrics` is the metric on sentences as "
    "they are written: their tokens, all scores and the variety. The difference is the largest there is. "
    f"Bar: CIDEr-D in {BAR:g} s."
)

Corpus = tuple[list[list[str]], list[list[list[str]]]]


def make(pictures: int) -> Corpus:
    """Captions, and the references of each."""
    random, chance = np.random.default_rng(0), 1 / np.arange(1, WORDS + 1)
    words = np.array([f"w{i}" for i in range(WORDS)])

    def sentence() -> list[str]:
        return random.choice(words, random.integers(8, 16), p=chance / chance.sum()).tolist()

    references = [[sentence() for _ in range(EACH)] for _ in range(pictures)]
    return [own[0][:5] + own[1][4:9] for own in references], references


def timed(call: Callable[[], Any], rounds: int = 1) -> tuple[list[float], Any]:
    """Seconds of each round, and what the last gave."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        found = call()
        seconds.append(time.perf_counter() - start)
    return seconds, found


def metric(corpus: Corpus) -> dict[str, float]:
    """Of sentences, in batches of 50."""
    captions = [" ".join(one) for one in corpus[0]]
    references = [[" ".join(one) for one in own] for own in corpus[1]]
    found = CaptionMetrics()
    for start in range(0, len(captions), 50):
        found.update(captions[start : start + 50], references[start : start + 50])
    return found.compute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=5000)
    options = parser.parse_args()
    captions, references = corpus = make(options.pictures)
    written = {i: [" ".join(one)] for i, one in enumerate(captions)}
    truth = {i: [" ".join(one) for one in own] for i, own in enumerate(references)}
    calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "BLEU-1 to 4": (lambda: bleu(*corpus), lambda: Bleu().compute_score(truth, written, verbose=0)[0]),
        "ROUGE-L": (lambda: rouge_l(*corpus), lambda: Rouge().compute_score(truth, written)[1]),
        "CIDEr-D": (
            lambda: CiderD.of(references).scores(*corpus),
            lambda: Cider().compute_score(truth, written)[1],
        ),
    }
    rows = []
    for name, (own, cocos) in calls.items():
        seconds, found = timed(own, options.rounds)
        (theirs,), expected = timed(cocos)
        row = {"score": name, "s": spread(seconds), "COCO's program, s": f"{theirs:.2f}"}
        row["largest difference"] = f"{np.abs(np.subtract(found, expected)).max():.0e}"
        rows.append(row | {"reached": statistics.median(seconds) <= BAR if name == "CIDEr-D" else ""})
    seconds, _ = timed(lambda: metric(corpus), options.rounds)
    rows.append({"score": "`CaptionMetrics`", "s": spread(seconds)})
    report(f"Scores of the captions of {options.pictures:,} pictures with {EACH} references each", ABOUT, rows)


if __name__ == "__main__":
    main()
