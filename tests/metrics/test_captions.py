"""The metric of captions: COCO's scores of written sentences, in batches and of two processes what one computes."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from torch import distributed, multiprocessing

from zoo.functional.ptb import ptb_tokens
from zoo.metrics.captions import CaptionMetrics
from zoo.metrics.computing import compute_and_reset
from zoo.metrics.naming import named_values

TRAINING = ["A dog runs on the beach", "a cat!", "two men ride"]
SAMPLES = [
    ("A dog runs on the beach.", ["A dog's running along the beach.", "The dog (brown) has a ball", "a dog"]),
    ("a cat", ["A cat sleeps on a red sofa."]),
    ("a man rides a bike", ["A man is riding a bike down the street.", "a cyclist, and cars behind him"]),
    ("", ["a plate of food on a table"]),
    ("a red three left of a green square", ["A green square right of a red three", "a red three, a green square"]),
    ("the woman and the child", ["a child holds a woman's hand", "the woman and the child"]),
    ("a dog and a cat", ["a dog and a cat on a red sofa", "the cat doesn't see the dog"]),
]


def compute(share: list[int], size: int = 2) -> dict[str, float]:
    metric = CaptionMetrics(TRAINING)
    for start in range(0, len(share), size):
        metric.update(*zip(*(SAMPLES[i] for i in share[start : start + size]), strict=True))
    return compute_and_reset(metric)


def test_scores_are_those_of_cocos_program_on_its_tokens() -> None:
    found = compute([*range(7)])
    truth = {i: [" ".join(ptb_tokens(one)) for one in own] for i, (_, own) in enumerate(SAMPLES)}
    captions = {i: [" ".join(ptb_tokens(caption))] for i, (caption, _) in enumerate(SAMPLES)}
    expected = dict(zip(("bleu_1", "bleu_2", "bleu_3", "bleu_4"), Bleu().compute_score(truth, captions, 0)[0]))  # noqa: B905
    expected |= {
        name: one.compute_score(truth, captions)[0] for name, one in (("rouge_l", Rouge()), ("cider", Cider()))
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)
        assert value > 0.1


def test_variety_by_hand() -> None:
    found = compute([0, 1, 3])
    assert found["distinct_1"] == 7 / 8
    assert found["distinct_2"] == 1
    assert found["mean_length"] == 8 / 3
    assert found["vocabulary"] == 7
    assert found["seen_in_training"] == pytest.approx(2 / 3)
    metric = CaptionMetrics()
    metric.update(*zip(SAMPLES[0], strict=True))
    assert "seen_in_training" not in metric.compute()


def test_without_samples_nothing_is_defined() -> None:
    found = compute([])
    assert found.pop("vocabulary") == 0
    assert all(map(math.isnan, found.values()))
    assert set(named_values(found)) == {*compute([0])} - {"vocabulary"}  # single numbers, to be logged as they are


def test_a_picture_without_references_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        CaptionMetrics().update(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="longer"):
        CaptionMetrics().update(["a"], [["a"], ["b"]])


SHARES: dict[str, list[list[int]]] = {"uneven": [[6, 1], [0, 5, 2, 3, 4]], "none": [[], [*range(7)]], "no": [[], []]}


def _process(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {name: compute(shares[rank]) for name, shares in SHARES.items()}
    Path(folder, f"{rank}.pkl").write_bytes(pickle.dumps(found))
    distributed.destroy_process_group()


def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    multiprocessing.start_processes(_process, (str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        found = pickle.loads((tmp_path / f"{rank}.pkl").read_bytes())
        for name in ("uneven", "none"):
            assert found[name] == compute([*range(7)]), name  # to the last bit, whatever the order
        assert all(map(math.isnan, (v for k, v in found["no"].items() if k != "vocabulary")))
