"""The base of metrics of sequences: what several processes compute, and what a module does with a metric."""

import copy
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing, nn

from zoo.metrics.computing import compute_and_reset
from zoo.metrics.sequences import SampleMetric

SAMPLES = [(f"caption {i}", {"ids": [*range(i)]}) for i in range(7)]


class Ids(SampleMetric):
    """The share of ids above 2, of all samples: not the mean of the batches' shares."""

    def update(self, captions: Sequence[str], details: Sequence[dict[str, list[int]]]) -> None:
        self.keep(captions, details)

    def compute(self) -> dict[str, Any]:
        ids = [i for _, one in self.samples for i in one["ids"]]
        share = sum(i > 2 for i in ids) / len(ids) if ids else math.nan
        return {"share": share, "captions": sorted(caption for caption, _ in self.samples)}


def add(metric: SampleMetric, share: Sequence[int], size: int = 2) -> None:
    """The samples with these numbers in batches."""
    for start in range(0, len(share), size):
        metric.update(*zip(*(SAMPLES[i] for i in share[start : start + size]), strict=True))


def filled(share: Sequence[int]) -> Ids:
    metric = Ids()
    add(metric, share)
    return metric


SHARES: dict[str, list[list[int]]] = {"uneven": [[6, 1], [0, 5, 2, 3, 4]], "none": [[], [*range(7)]], "no": [[], []]}


def _process(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for name, shares in SHARES.items():
        metric = filled(shares[rank])
        found[name] = [metric.compute(), [one[0] for one in metric.samples], compute_and_reset(metric), metric.samples]
    Path(folder, f"{rank}.pkl").write_bytes(pickle.dumps(found))
    distributed.destroy_process_group()


def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    multiprocessing.start_processes(_process, (str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        found = pickle.loads((tmp_path / f"{rank}.pkl").read_bytes())
        for name, shares in SHARES.items():
            alone = filled([*shares[0], *shares[1]]).compute()
            by_itself, kept, together, left = found[name]
            assert str(by_itself) == str(together) == str(alone), name  # NaN is NaN
            assert kept == [SAMPLES[i][0] for i in shares[rank]], name  # its own share alone, to go on with
            assert left == []
    assert filled([*range(7)]).compute()["share"] == pytest.approx(6 / 21)


def test_a_metric_with_samples_is_moved_copied_hashed_and_saved() -> None:
    metric, module = filled([3, 4]), nn.Module()
    module.metric = metric
    assert metric in set(module.to("meta").to(torch.float16).modules())
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric):
        assert other.samples == SAMPLES[3:5]
        add(other, [6])
        assert other.compute() == filled([3, 4, 6]).compute()
    assert not module.state_dict()


def test_of_one_batch_and_of_all() -> None:
    metric = filled([1, 2])
    assert metric(*zip(SAMPLES[5], strict=True)) == filled([5]).compute()
    assert metric.compute() == filled([1, 2, 5]).compute()
    metric.reset()
    assert metric.samples == []


def test_columns_of_different_length_add_nothing() -> None:
    metric = filled([1])
    with pytest.raises(ValueError, match="shorter"):
        metric.update(["a", "b"], [{"ids": []}])
    assert metric.samples == SAMPLES[1:2]
