import pytest
import sklearn.metrics
import torch
import torchmetrics.classification as reference
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.metrics.multiclass import ConfusionCounts, F1Score, Precision, Recall

MANY = 21_841


def batches(classes, count=5, size=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield (
            torch.randn(size, classes, generator=generator),
            torch.randint(classes // 2 + 1, (size,), generator=generator),
        )


@pytest.mark.parametrize("ours", [F1Score, Precision, Recall])
@pytest.mark.parametrize("average", ["macro", "weighted", "none"])
def test_the_counts_give_torchmetrics_values(ours, average):
    theirs = getattr(reference, f"Multiclass{ours.__name__}")(num_classes=7, average=average)
    metric = ours(num_classes=7, average=average)
    for scores, labels in batches(7):
        metric.update(scores, labels)
        theirs.update(scores, labels)
    assert torch.equal(metric.compute(), theirs.compute())


def test_confusion_counts_are_scikit_learns():
    metric = ConfusionCounts(5)
    seen = list(batches(5, count=150, size=3))  # more updates than are kept unmerged
    for scores, labels in seen:
        metric.update(scores, labels)
    assert len(metric.pairs) <= 65
    truth, predicted = torch.cat([y for _, y in seen]), torch.cat([s.argmax(1) for s, _ in seen])
    expected = sklearn.metrics.confusion_matrix(truth, predicted, labels=range(5))
    assert torch.equal(metric.compute().to_dense(), torch.from_numpy(expected))
    metric.reset()
    assert metric.compute().to_dense().sum() == 0


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                stored = value._nnz() if value.is_sparse else value.numel()
                self.elements = max(self.elements, stored)
        return result


def test_no_tensor_is_as_large_as_the_square_of_the_classes():
    scores, labels = next(batches(MANY, size=4))
    metrics = [
        ConfusionCounts(MANY),
        *(one(num_classes=MANY, validate_args=False) for one in (F1Score, Precision, Recall)),
    ]
    with Largest() as largest:
        for metric in metrics:
            metric.update(scores, labels)
            metric.compute()
    assert MANY <= largest.elements <= 4 * MANY
