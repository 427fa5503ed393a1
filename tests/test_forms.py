"""The form of captioning batches: what is right passes, each fault ends in a line that names it."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from zoo import contracts
from zoo.contracts import ContractError
from zoo.facts import Facts

FORM = contracts.form("captioning")
FACTS = cast(Facts, FORM.example_facts)


def a_batch() -> tuple[Any, Any, Any]:
    assert FORM.example is not None
    images, tokens, details = FORM.collate([FORM.example(index) for index in range(3, 7)])
    return images, tokens, details


def test_the_example_is_right_for_captioning_and_as_images() -> None:
    contracts.check_facts(FACTS)
    for split in ("train", "val"):
        FORM.check(a_batch(), FACTS, split)
        contracts.form("images").check(a_batch(), FACTS, split)
    assert "captioning" in contracts.form("images").accepts


def test_captions_are_padded_to_the_longest() -> None:
    _, tokens, details = a_batch()
    assert tokens.shape == (4, 5)
    assert (tokens == 0).sum(1).tolist() == [1, 0, 0, 0]
    words = [FACTS["vocabulary"][token] for token in tokens[0].tolist()]
    assert " ".join(words) == f"<start> {details[0]['references'][0]} <end> <pad>"
    assert FORM.to_predict(a_batch(), ["a"] * 4)[1] == ["a"] * 4


def test_padding_may_be_the_end() -> None:
    images, tokens, details = a_batch()
    tokens[tokens == 0] = FACTS["end_id"]
    FORM.check((images, tokens, details), Facts(**{**FACTS, "pad_id": FACTS["end_id"]}), "train")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda i, t, d: (i, t), "2 parts, expected images, tokens and details"),
        (lambda i, t, d: (i, t.float(), d), "expected int64"),
        (lambda i, t, d: (i, t[:2], d), r"tokens \(2, 5\)"),
        (lambda i, t, d: (i, t + 9, d), "expected tokens from 0 to 9"),
        (lambda i, t, d: (i, t[:, 1:], d), "begin with start_id 1"),
        (lambda i, t, d: (i, t[:, :-2], d), "end with end_id 2"),
        (lambda i, t, d: (i, torch.where(t == 0, 4, t), d), "nothing but pad_id 0 behind the end"),
        (lambda i, t, d: (i, torch.where(t == 4, 0, t), d), "pad_id 0 within a caption"),
        (lambda i, t, d: (i, t, d[:2]), "a dict per image"),
        (lambda i, t, d: (i, t, [{}] * 4), "references, a list of sentences"),
        (lambda i, t, d: (i, t, [{"references": []}] * 4), "references, a list of sentences"),
        (lambda i, t, d: (i, t, [{"references": "a dog"}] * 4), "references, a list of sentences"),
        (lambda i, t, d: (2 * i, t, d), "images from"),
    ],
)
def test_wrong_batches_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        FORM.check(wrong(*a_batch()), FACTS, "train")
