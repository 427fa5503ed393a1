"""Metrics of several numbers: two processes with uneven shares, or one without images, give what one process gives."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torchmetrics import MeanMetric, Metric, MetricCollection, PearsonCorrCoef
from torchmetrics.classification import (
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassAveragePrecision,
    MulticlassConfusionMatrix,
    MulticlassPrecision,
)
from torchmetrics.wrappers import ClasswiseWrapper

from zoo.metrics.computing import compute_and_reset
from zoo.metrics.multiclass import ConfusionCounts
from zoo.metrics.naming import named_values

Update = tuple[Any, ...]


class Sizes(Metric):
    """A tensor for each image, of shapes that differ, and others joined: boxes (N, 4) and labels as integers."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("masks", default=[], dist_reduce_fx=None)
        self.add_state("boxes", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")
        self.add_state("rows", default=torch.tensor(0.0), dist_reduce_fx="mean")

    def update(self, masks: Tensor, boxes: Tensor, labels: Tensor) -> None:
        self.masks.append(masks)
        self.boxes.append(boxes)
        self.labels.append(labels)
        self.rows += 1 - self.rows

    def compute(self) -> dict[str, Tensor]:
        boxes, labels = torch.cat(self.boxes), torch.cat(self.labels)
        assert labels.dtype == torch.int64
        per_class = torch.stack([boxes[labels == k].sum() for k in range(3)])
        masks = torch.stack([mask.double().mean() for mask in self.masks]).sort().values.sum()
        count = torch.tensor(len(self.masks))
        return {"masks": masks, "rows": self.rows, "count": count, "per_class": per_class}


def _boxes(random: torch.Generator, i: int) -> Update:
    count = i % 3
    shape = (1 + i % 4, 2 + i % 3)
    return torch.rand(shape, generator=random), torch.rand(count, 4, generator=random), torch.arange(count)


def _scores(random: torch.Generator, i: int) -> Update:
    return torch.rand(3 + i, 3, generator=random).softmax(1), torch.randint(0, 3, (3 + i,), generator=random)


def _binary(random: torch.Generator, i: int) -> Update:
    return torch.rand(5 + i, generator=random), torch.randint(0, 2, (5 + i,), generator=random)


def _pairs(random: torch.Generator, i: int) -> Update:
    return torch.rand(4 + i, generator=random), torch.rand(4 + i, generator=random)


def _scenes(random: torch.Generator, i: int) -> Update:
    def boxes(count: int) -> Tensor:
        corners = 50 * torch.rand(count, 2, generator=random)
        return torch.cat([corners, corners + 10 + 40 * torch.rand(count, 2, generator=random)], 1)

    truth = boxes(1 + i % 3)
    found = torch.cat([truth + torch.rand(truth.shape, generator=random), boxes(i % 2)])
    labels = torch.arange(len(truth))
    scores, guesses = torch.rand(len(found), generator=random), torch.arange(len(found)) % 3
    return [{"boxes": found, "scores": scores, "labels": guesses}], [{"boxes": truth, "labels": labels}]


def _collection() -> MetricCollection:
    """Accuracy and precision share their states, so that the members of the group are updated through the first."""
    kinds = {
        "accuracy": MulticlassAccuracy(3, average="micro"),
        "precision": MulticlassPrecision(3, average="micro"),
        "matrix": ClasswiseWrapper(MulticlassPrecision(3, average=None), labels=["a", "b", "c"]),
        "ap": MulticlassAveragePrecision(3, average="macro"),
    }
    return MetricCollection(kinds, prefix="val/")


def _mean_average_precision() -> Metric:
    pytest.importorskip("pycocotools")
    from torchmetrics.detection import MeanAveragePrecision

    return MeanAveragePrecision(class_metrics=True)


CASES: dict[str, tuple[Callable[[], Any], Callable[[torch.Generator, int], Update]]] = {
    "lists": (Sizes, _boxes),
    "collection": (_collection, _scores),
    "matrix": (lambda: MulticlassConfusionMatrix(3), _scores),
    "pairs": (lambda: ConfusionCounts(3), _scores),
    "auroc": (BinaryAUROC, _binary),
    "pearson": (PearsonCorrCoef, _pairs),
    "map": (_mean_average_precision, _scenes),
}


def _updates(make: Callable[[torch.Generator, int], Update], epoch: int) -> list[Update]:
    random = torch.Generator().manual_seed(epoch)
    return [make(random, i) for i in range(7)]


def _compute(case: str, share: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """What two epochs give, with one metric."""
    made, make = CASES[case]
    metric, found = made(), []
    for epoch in range(2):
        for update in share(_updates(make, epoch)):
            metric.update(*update)
        found.append(compute_and_reset(metric))
    return found


def _expected(case: str) -> list[Any]:
    """The same in one process by torchmetrics alone, with a new metric for each epoch."""
    made, make = CASES[case]
    found = []
    for epoch in range(2):
        metric = made()
        for update in _updates(make, epoch):
            metric.update(*update)
        found.append(metric.compute())
    return found


def _process(rank: int, cases: list[str], without: int | None, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)

    def share(updates: list[Any]) -> list[Any]:
        if without is not None:
            return [] if rank == without else updates
        return updates[:5] if rank == 0 else updates[5:]

    found = {case: _compute(case, share) for case in cases}
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("without", [None, 0, 1])
def test_two_processes_give_what_one_gives(without: int | None, tmp_path: Path) -> None:
    """Shares of five and two updates, or the first or the second process without any."""
    try:
        import pycocotools  # noqa: F401
    except ImportError:
        cases = [case for case in CASES if case != "map"]
    else:
        cases = list(CASES)
    multiprocessing.start_processes(_process, (cases, without, str(tmp_path)), nprocs=2, start_method="fork")
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for case in cases:
        expected = _expected(case)
        for rank in range(2):
            torch.testing.assert_close(found[rank][case], expected, rtol=1e-6, atol=1e-6, msg=f"{case} on {rank}")


def test_all_without_images_computes_the_defaults() -> None:
    with pytest.warns(UserWarning, match="before the"):
        assert math.isnan(float(compute_and_reset(MeanMetric())))


def test_a_single_process_keeps_its_states_apart() -> None:
    metric = MeanMetric()
    metric.update(torch.tensor([1.0, 3.0]))
    assert float(compute_and_reset(metric)) == 2
    metric.update(torch.tensor([5.0]))
    assert float(compute_and_reset(metric)) == 5


VALUES = {"map": torch.tensor(0.5), "small": torch.tensor(-1.0), "each": torch.tensor([0.25, -1.0]), "n": 3}


def test_vectors_are_named_by_class() -> None:
    found = named_values(VALUES, ["cat", "dog"], missing=-1, skip=("n",))
    assert set(found) == {"map", "small", "each/cat"}
    assert float(found["map"]) == 0.5
    assert found["small"].isnan()
    assert float(found["each/cat"]) == 0.25


def test_minus_one_may_be_a_value() -> None:
    assert float(named_values(VALUES)["small"]) == -1
    assert float(named_values(VALUES, ["cat", "dog"])["each/dog"]) == -1


def test_vectors_without_names_are_left_out() -> None:
    assert set(named_values(VALUES)) == {"map", "small", "n"}


def test_a_vector_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"each has shape \(2,\), but there are 3 classes"):
        named_values(VALUES, ["cat", "dog", "cow"])
