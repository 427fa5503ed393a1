"""Requests for samples: what is asked for does not depend on how it is batched or shared."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zoo import contracts
from zoo.data.request import Request
from zoo.data.requests import Samples
from zoo.errors import UserError


def read(data: Samples) -> tuple[Any, list[str]]:
    batches = list(data.predict_dataloader())
    form = contracts.form("requests")
    for batch in batches:
        form.check(batch, data.facts, "predict")
    return torch.cat([asked for asked, _ in batches]).tolist(), [name for _, names in batches for name in names]


def test_classes_come_in_turns_and_batches_change_nothing() -> None:
    asked, names = read(Samples(count=5, classes=[3, 7], seed=1, batch_size=2))
    assert asked == [[1, 0, 3], [1, 1, 7], [1, 2, 3], [1, 3, 7], [1, 4, 3]]
    assert names == [f"sample-{i:05d}" for i in range(5)]
    assert read(Samples(count=5, classes=[3, 7], seed=1, batch_size=64)) == (asked, names)
    assert [row[2] for row in read(Samples(count=3))[0]] == [-1, -1, -1], "the generator chooses"


def test_on_the_way_to_another_seed_each_sample_is_a_row() -> None:
    asked, names = read(Samples(count=2, classes=[3, 7], seed=1, to_seed=9, columns=3, batch_size=4))
    assert [Request(*row)[:6] for row in asked] == [(1, n, c, 9, p, 3) for n, c in ((0, 3), (1, 7)) for p in range(3)]
    assert [Request(*row).weight for row in asked] == [0, 0.5, 1] * 2
    assert names == [f"sample-{n:05d}-{p:02d}" for n in range(2) for p in range(3)]
    assert [row[6] for row in read(Samples(count=2, animation=True))[0]] == [1, 1]


def test_classes_have_names() -> None:
    data = Samples(count=2, classes=["cat", "0"])
    facts = {"num_classes": 2, "class_names": ["dog", "cat"]}
    module = SimpleNamespace(facts=facts, batch="images")
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        lightning_module=module, world_size=1, global_rank=0, predicting=True, training=False
    )
    assert [row[2] for row in (data.samples("predict")[i] for i in range(2))] == [1, 0]
    data.classes = ["cow"]
    with pytest.raises(UserError, match="there is no class cow"):
        data.samples("predict")
    module.batch = "captioning"
    with pytest.raises(UserError, match="for tasks that generate images, not for"):
        data.samples("predict")


def test_nothing_is_trained_on_them() -> None:
    with pytest.raises(UserError, match="for zoo predict: there is no train split"):
        Samples().samples("train")
    with pytest.raises(UserError, match="at least 1"):
        Samples(count=0)
    with pytest.raises(UserError, match="columns at least 2"):
        Samples(columns=1)
