"""Classification against scikit-learn, closed forms and float64, and through whole runs on tiny data."""

from __future__ import annotations

import io
import json
import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD

from zoo.architectures.alexnet import AlexNet
from zoo.architectures.base import Architecture
from zoo.data.base import Data
from zoo.data.loading import TensorSource
from zoo.drawing import PLAIN, RIGHT, WRONG
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.functional.views import crops, mean_softmax, seen_views
from zoo.tasks.class_weights import balanced_weights
from zoo.tasks.classification import Classification, hard, shown_rows

warnings.filterwarnings("ignore")
DESCENT = partial(SGD, lr=0.05, momentum=0.9)
TINY = partial(AlexNet, width=0.03, init="forward", dropout=0.0)


class Pooled(Architecture):
    """Sees the mean of each of four bands of rows: enough to tell the classes below apart."""

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4 * in_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(F.adaptive_avg_pool2d(images, (4, 1)).flatten(1))


class Bands(Data):
    """Seven kinds of noise, brighter in some bands; sizes and batches that do not divide each other."""

    def __init__(self, larger: int = 4, soft: bool = False, mirror: bool = True, classes: int = 7) -> None:
        super().__init__(batch_size=8, eval_batch_size=9)
        self.larger, self.soft, self.mirror, self.classes = larger, soft, mirror, classes

    @property
    def facts(self) -> Facts:
        return {
            "num_classes": self.classes,
            "class_names": [f"kind {k}" for k in range(self.classes)],
            "in_channels": 1,
            "image_size": [12, 12],
            "mean": [0.5],
            "std": [0.3],
            "mirror": self.mirror,
            "class_counts": [40 // self.classes] * self.classes,
        }

    def samples(self, split: str) -> Any:
        count = {"train": 40, "val": 21, "test": 32, "predict": 5}[split]
        side = 12 if split == "train" else 12 + self.larger
        random = torch.Generator().manual_seed(count)
        labels = torch.randint(0, self.classes - 1, (count,), generator=random)  # the last class is absent
        images = 0.5 * torch.rand(count, 1, side, side, generator=random)
        bits = torch.stack([(labels >> 2) & 1, (labels >> 1) & 1, labels & 1, labels * 0 + 1], 1)
        images += 0.5 * F.interpolate(bits[:, None, :, None].float(), size=(side, side)) * (0.3 + 0.7 * images)
        if split == "predict":
            return Named(images)
        return TensorSource(images, F.one_hot(labels, self.classes).float() if self.soft else labels)


class Named(TensorSource):
    def fetch(self, indices: Tensor) -> tuple[Tensor, list[str]]:
        return super().fetch(indices)[0], [f"{i}.png" for i in indices.tolist()]


def trainer(**options: Any) -> Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(**{"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False, **quiet, **options})


def made(**arguments: Any) -> Classification:
    torch.manual_seed(0)
    return Classification(**{"architecture": Pooled, "optimizer": DESCENT, **arguments})


def built(data: Bands | None = None, **arguments: Any) -> Classification:
    task = made(facts=(data or Bands()).facts, **arguments)
    task.configure_model()
    return task.eval()


# Functions


def test_crops_are_corners_centre_and_reflections() -> None:
    images = torch.arange(2 * 6 * 8).view(2, 1, 6, 8).float()
    five = [
        images[..., 1:5, 2:6],
        images[..., :4, :4],
        images[..., :4, 4:],
        images[..., 2:, :4],
        images[..., 2:, 4:],
    ]

    def same(found: list[Tensor], expected: list[Tensor]) -> bool:
        return len(found) == len(expected) and all(map(torch.equal, found, expected))

    assert same(crops(images, [4, 4]), five[:1])
    assert same(crops(images, [4, 4], "five"), five)
    assert same(crops(images, [4, 4], "ten"), five + [view.flip(3) for view in five])
    assert same(crops(images, [4, 4], "ten", mirror=False), five)
    assert same(crops(images, [6, 8], "five"), [images])
    assert same(crops(images, [6, 8], "ten"), [images, images.flip(3)])


def test_crops_of_small_images() -> None:
    with pytest.raises(UserError, match="images are 6×8, smaller than the 7×7"):
        crops(torch.zeros(1, 1, 6, 8), [7, 7])


def test_mean_softmax() -> None:
    logits = [20 * torch.randn(3, 5) for _ in range(4)]
    expected = torch.stack([one.double().softmax(1) for one in logits]).mean(0)
    torch.testing.assert_close(mean_softmax(logits).double().exp(), expected, rtol=1e-4, atol=1e-7)
    assert mean_softmax([torch.tensor([[0.0, -200.0]])]).isfinite().all()


def test_weighted_mean_softmax() -> None:
    logits = [3 * torch.randn(3, 5) for _ in range(3)]
    probabilities = [one.double().softmax(1) for one in logits]
    expected = (2 * probabilities[0] + probabilities[1] + probabilities[2]) / 4
    torch.testing.assert_close(mean_softmax(logits, [1.0, 0.5, 0.5]).double().exp(), expected, rtol=1e-4, atol=1e-7)


def test_shifted_views() -> None:
    """The centre with half of all the weight; a pixel up and left, and down and right, a quarter each; and mirrored."""
    images = torch.arange(2 * 4 * 5).view(2, 1, 4, 5).float()
    reflected = torch.from_numpy(np.pad(images.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect"))
    expected = [images, reflected[..., :4, :5], reflected[..., 2:, 2:]]
    found = seen_views(images, [4, 5], "shifted", mirror=False)
    assert all(map(torch.equal, [view for view, _ in found], expected))
    assert [weight for _, weight in found] == [1.0, 0.5, 0.5]
    both = seen_views(images, [4, 5], "shifted")
    assert all(map(torch.equal, [view for view, _ in both], expected + [view.flip(3) for view in expected]))
    assert [weight for _, weight in both] == [1.0, 0.5, 0.5] * 2
    assert torch.equal(seen_views(F.pad(images, (1, 1, 1, 1)), [4, 5], "shifted")[0][0], images)
    assert [weight for _, weight in seen_views(images, [2, 2], "ten")] == [1.0] * 10


def test_balanced_weights_are_scikit_learn_s() -> None:
    counts = [30, 5, 12]
    labels = np.repeat(np.arange(3), counts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_weights(counts).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("batches", "size"), [(1, 200), (2, 200), (5, 9), (40, 64), (1, 3)])
def test_pictures_are_spread_over_the_batches(batches: int, size: int) -> None:
    places = [b * size + row for b in range(batches) for row in shown_rows(b, batches, size)]
    assert len(places) == min(16, batches * size)
    assert places == sorted(set(places))
    gaps = np.diff(places) * 16 / (batches * size)
    assert size * batches < 16 or gaps.max() < 3


def test_pictures_of_endless_data() -> None:
    assert len(shown_rows(0, math.inf, 64)) == 16
    assert shown_rows(1, math.inf, 64) == []


# Losses


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_the_formula(smoothing: float) -> None:
    task = built(label_smoothing=smoothing)
    logits, labels = torch.randn(6, 7, dtype=torch.float64), torch.randint(0, 7, (6,))
    targets = (1 - smoothing) * F.one_hot(labels, 7) + smoothing / 7
    expected = -(targets * (logits - logits.logsumexp(1, keepdim=True))).sum(1).mean()
    torch.testing.assert_close(task.loss(logits, labels), expected)
    torch.testing.assert_close(task.loss(logits, F.one_hot(labels, 7).double()), expected)


def test_soft_labels() -> None:
    task, logits = built(), torch.randn(6, 7, dtype=torch.float64)
    labels = torch.rand(6, 7, dtype=torch.float64).softmax(1)
    expected = -(labels * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task.loss(logits, labels), expected)
    assert torch.equal(hard(labels), labels.argmax(1))


def test_class_weights() -> None:
    weights = [1.0, 2.0, 3.0, 0.0, 1.0, 1.0, 5.0]
    task = built(class_weights=weights)
    logits, labels = torch.randn(6, 7), torch.tensor([0, 1, 2, 3, 6, 6])
    each = F.cross_entropy(logits, labels, reduction="none")
    w = torch.tensor(weights)[labels]
    torch.testing.assert_close(task.loss(logits, labels), (w * each).sum() / w.sum())
    assert task.loss_weight(labels) == w.sum()


def test_balanced_class_weights() -> None:
    facts = {**Bands().facts, "class_counts": [1, 1, 1, 1, 1, 1, 8]}
    task = made(class_weights="balanced", facts=facts)
    task.configure_model()
    torch.testing.assert_close(task.class_weight, torch.tensor([2.0] * 6 + [0.25]))
    assert "class_weight" not in task.state_dict()


@pytest.mark.parametrize(
    ("arguments", "without", "message"),
    [
        ({"label_smoothing": 1.5}, "", "label_smoothing must be from 0 to 1"),
        ({"class_weights": [1.0]}, "", "class_weights has 1 values, the data 7 classes"),
        ({"class_weights": "balanced"}, "class_counts", "needs class_counts"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], without: str, message: str) -> None:
    facts = {k: v for k, v in Bands().facts.items() if k != without}
    with pytest.raises(UserError, match=message):
        made(**arguments, facts=facts).configure_model()


def test_one_class_is_none() -> None:
    one = {"num_classes": 1, "class_names": ["a"], "class_counts": [4]}
    task = made(facts={**Bands().facts, **one})
    with pytest.raises(UserError, match="at least two classes"):
        task.configure_model()


# Whole runs


def expected_scores(task: Classification, data: Bands, split: str, places: list[tuple[int, int]]) -> Tensor:
    images, labels = data.samples(split).tensors
    views = [images[..., y : y + 12, x : x + 12] for y, x in places]
    with torch.no_grad():
        return torch.stack([task.architecture((v - 0.5) / 0.3).double().softmax(1) for v in views]).mean(0), hard(
            labels
        )


FIVE = [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]


def test_figures_are_scikit_learn_s() -> None:
    data, task = Bands(mirror=False), made(views="ten")
    run = trainer(max_epochs=3)
    run.fit(task, datamodule=data)
    validated = {k: float(v) for k, v in run.callback_metrics.items()}
    (tested,) = run.test(task, datamodule=data, verbose=False)
    for found, split, places in ((validated, "val", FIVE[:1]), (tested, "test", FIVE)):
        scores, labels = expected_scores(task, data, split, places)
        guesses, every = scores.argmax(1), list(range(6))
        expected = {
            "top1": sklearn.metrics.accuracy_score(labels, guesses),
            "top5": sklearn.metrics.top_k_accuracy_score(labels, scores, k=5, labels=range(7)),
            "loss": sklearn.metrics.log_loss(labels, scores, labels=range(7)),
            "f1": sklearn.metrics.f1_score(labels, guesses, average="macro"),
        }
        if split == "test":
            expected["precision"] = sklearn.metrics.precision_score(labels, guesses, average="macro", zero_division=0)
            expected["recall"] = sklearn.metrics.recall_score(labels, guesses, average="macro", zero_division=0)
            each = sklearn.metrics.recall_score(labels, guesses, average=None, labels=every)
            expected |= {f"top1/kind {k}": each[k] for k in every}
            center, _ = expected_scores(task, data, split, FIVE[:1])
            expected["top1_center"] = sklearn.metrics.accuracy_score(labels, center.argmax(1))
        assert 0.2 < expected["top1"] < 1, "a trained network, but not a perfect one"
        assert {k for k in found if k.startswith(split)} == {f"{split}/{k}" for k in expected}
        for name, value in expected.items():
            assert found[f"{split}/{name}"] == pytest.approx(value, abs=1e-5), (split, name)


def test_reflections_where_they_keep_the_label() -> None:
    seen: list[Tensor] = []
    task = built(views="ten")
    task.architecture.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    task.scores(torch.rand(2, 1, 16, 16), "ten")
    assert len(seen) == 10
    task.facts["mirror"] = False
    task.scores(torch.rand(2, 1, 16, 16), "ten")
    assert len(seen) == 15


def test_few_classes_have_no_top5() -> None:
    run = trainer()
    run.fit(made(), datamodule=Bands(classes=5))
    assert "val/top5" not in run.callback_metrics


def test_training_figures_only_where_logged(tmp_path: Path) -> None:
    task, data, steps = made(label_smoothing=0.1), Bands(), {}

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            images, labels = batch
            logits = module(images)
            step = trainer.global_step
            steps[step] = (
                float(F.cross_entropy(logits, labels, label_smoothing=0.1)),
                float((logits.argmax(1) == labels).float().mean()),
            )

    logger = CSVLogger(tmp_path)
    run = trainer(max_epochs=2, log_every_n_steps=4, logger=logger, callbacks=[Watch()])
    run.fit(task, datamodule=data)
    written = [line.split(",") for line in (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()]
    at = {name: written[0].index(name) for name in ("step", "train/loss", "train/top1")}
    rows = {int(row[at["step"]]): row for row in written[1:] if row[at["train/loss"]]}
    assert sorted(rows) == [3, 7]
    for step, row in rows.items():
        assert float(row[at["train/loss"]]) == pytest.approx(steps[step][0], rel=1e-5)
        assert float(row[at["train/top1"]]) == pytest.approx(steps[step][1])


def test_two_processes_give_the_figures_of_one() -> None:
    """Batches of 7 and an evaluation of 21 are uneven shares; a rate of 0 keeps the weights equal."""
    found = []
    for options in ({"devices": 1}, {"devices": 2, "strategy": "ddp_fork"}):
        data = Bands()
        data.batch_size, data.eval_batch_size = 7, 7
        task = made(optimizer=partial(SGD, lr=0.0), class_weights=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
        run = trainer(log_every_n_steps=1, limit_train_batches=1, **options)
        run.fit(task, datamodule=data)
        found.append({k: float(v) for k, v in run.callback_metrics.items()})
    assert {"train/loss", "train/top1", "val/loss", "val/top1", "val/f1"} <= set(found[0])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_learns_soft_labels() -> None:
    task = made()
    run = trainer(max_epochs=20)
    run.fit(task, datamodule=Bands(soft=True))
    assert run.callback_metrics["val/top1"] > 0.8


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("soft", [False, True])
def test_other_precisions(precision: Any, soft: bool) -> None:
    dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    run, data = trainer(precision=precision), Bands(larger=0, soft=soft)
    data.on_after_batch_transfer = lambda batch, _: tuple(  # type: ignore[method-assign]
        t.to(dtype) if t.is_floating_point() else t for t in batch
    )
    task = made(architecture=TINY, class_weights="balanced")
    run.fit(task, datamodule=data)
    run.test(task, datamodule=data, verbose=False)
    assert run.callback_metrics["test/loss"].isfinite()


@pytest.mark.parametrize("views", ["shifted", "ten", "center"])
def test_a_test_tells_the_centre_s_accuracy_too(views: Any) -> None:
    task, run, data = made(views=views), trainer(), Bands()
    run.fit(task, datamodule=data)
    run.test(task, datamodule=data, verbose=False)
    told = run.callback_metrics
    images, labels = data.samples("test").tensors
    with torch.no_grad():
        center = task(images[..., 2:14, 2:14])
        seen = seen_views(images, [12, 12], views)
        mean = sum(weight * task(view).softmax(1) for view, weight in seen)
    assert told["test/top1"] == pytest.approx(float((mean.argmax(1) == labels).float().mean()))
    if views == "center":
        assert "test/top1_center" not in told
    else:
        assert told["test/top1_center"] == pytest.approx(float((center.argmax(1) == labels).float().mean()))


def test_parameter_groups_reach_the_network() -> None:
    task = made(parameter_groups=[{"pattern": "^linear.bias$", "frozen": True}])
    trainer().fit(task, datamodule=Bands())
    torch.manual_seed(0)
    assert torch.equal(task.architecture.linear.bias, Pooled(7).linear.bias)
    assert not torch.equal(task.architecture.linear.weight, Pooled(7).linear.weight)


# Results and pictures


def predicted(views: str = "five") -> tuple[Classification, list[Any]]:
    task = made(views=views)
    run = trainer()
    data = Bands()
    run.fit(task, datamodule=data)
    return task, run.predict(task, datamodule=data)


def test_predictions_are_plain() -> None:
    task, batches = predicted()
    results = [r for batch in batches for r in batch]
    rows = task.as_json(results)
    assert json.loads(json.dumps(rows)) == rows
    assert [row["name"] for row in rows] == [f"{k}.png" for k in range(5)]
    images = Bands().samples("predict").tensors[0]
    with torch.no_grad():
        scores = torch.stack([task(images[..., y : y + 12, x : x + 12]).double().softmax(1) for y, x in FIVE]).mean(0)
    for row, score in zip(rows, scores, strict=True):
        assert row["class"] == f"kind {int(score.argmax())}"
        assert row["confidence"] == pytest.approx(float(score.max()), rel=1e-4)
        values, order = score.topk(5)
        assert [t["class"] for t in row["top"]] == [f"kind {k}" for k in order.tolist()]
        assert [t["confidence"] for t in row["top"]] == pytest.approx(values.tolist(), rel=1e-4)


def test_drawing_says_right_and_wrong() -> None:
    task = built()
    images = torch.rand(3, 1, 16, 16)
    results = task.results(torch.eye(7)[[1, 2, 3]].log_softmax(1))

    def strips(drawn: list[Any]) -> list[Any]:
        return [picture.getpixel((picture.width - 1, picture.height - 1)) for picture in drawn]

    assert strips(task.draw(images, results)) == [PLAIN] * 3
    known = task.draw(images, results, torch.tensor([1, 5, 3]))
    assert strips(known) == [RIGHT, WRONG, RIGHT]
    soft = task.draw(list(images), results, F.one_hot(torch.tensor([1, 5, 3]), 7).float())
    assert [p.tobytes() for p in soft] == [p.tobytes() for p in known]
    assert known[0].tobytes() != task.draw(images, results, torch.tensor([1, 5, 4]))[2].tobytes()


def test_pictures_of_each_stage() -> None:
    task, data, run = made(), Bands(), trainer()
    assert task.pictures() == {}
    run.fit(task, datamodule=data)
    assert set(task.pictures()) == {"predictions"}
    assert 12 <= len(task._shown) <= 16  # the last batch is smaller than the others
    run.test(task, datamodule=data, verbose=False)
    assert set(task.pictures()) == {"predictions", "confusion", "mistakes"}
    scores, labels = expected_scores(task, data, "test", FIVE[:1])
    wrong = scores.max(1).values[scores.argmax(1) != labels].sort(descending=True).values[:16]
    kept = torch.stack([seen.scores for seen in task._mistakes]).exp().max(1).values
    torch.testing.assert_close(kept.double(), wrong, rtol=1e-4, atol=1e-6)
    matrix = sklearn.metrics.confusion_matrix(labels, scores.argmax(1), labels=range(7))
    assert torch.equal(task._matrix, torch.from_numpy(matrix))
    run.validate(task, datamodule=data, verbose=False)
    assert set(task.pictures()) == {"predictions"}


def test_many_classes_are_not_listed_one_by_one() -> None:
    (tested,) = trainer().test(made(), datamodule=Bands(classes=101), verbose=False)
    assert not [name for name in tested if name.count("/") > 1]


# Checkpoint and export


def test_checkpoint_is_safe_and_whole(tmp_path: Path) -> None:
    task = made(architecture=TINY, scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1))
    run = trainer()
    run.fit(task, datamodule=Bands())
    run.save_checkpoint(tmp_path / "x.ckpt")
    hparams = torch.load(tmp_path / "x.ckpt", weights_only=True)["hyper_parameters"]
    assert hparams["architecture"]["init_args"] == {"width": 0.03, "init": "forward", "dropout": 0.0}
    assert hparams["scheduler"]["class_path"].endswith("OneCycleLR")
    assert hparams["facts"] == Bands().facts
    assert hparams["label_smoothing"] == 0.0
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert all(name.startswith("architecture.") for name in state), "metrics and statistics of the data are no weights"


def test_exports() -> None:
    task, images = built(architecture=TINY), torch.rand(3, 1, 12, 12)
    program = torch.export.export(task, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.export.load(buffer).module()(images), task(images))
