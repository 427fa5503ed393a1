"""Metrics of generated samples: what each says of good samples, of copies of one picture, and of the wrong class."""

import math

import pytest
import torch
from torch import Tensor

from zoo.functional.sample_quality import frechet_distance
from zoo.metrics.generation import GenerationMetrics

CLASSES, COUNT = 3, 240


def pictures(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features around one place for each class, log-probabilities by the distance to it, and labels."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(COUNT) % CLASSES
    centres = 8 * torch.eye(CLASSES, 5)
    features = centres[labels] + torch.randn(COUNT, 5, generator=random)
    return features, (-torch.cdist(features, centres)).log_softmax(1), labels


def test_samples_as_good_as_real_are_at_the_floor() -> None:
    metric = GenerationMetrics()
    real, made = pictures(0), pictures(1)
    metric.update(*real, real=True)
    metric.update(*made, real=False)
    found = metric.compute()
    assert found["class_accuracy"] == found["judge_accuracy"] == 1
    assert found["frechet"] < 3 * found["frechet_floor"]
    assert found["compared"] == COUNT / 2
    assert found["samples"] == COUNT
    assert found["least_spread"] == pytest.approx(1, abs=0.1)
    assert min(found[name] for name in ("precision", "recall", "coverage", "density")) > 0.8
    order = real[0].double().sum(1).argsort()
    picked = made[0][made[0].double().sum(1).argsort()][torch.linspace(0, COUNT - 1, COUNT // 2).round().long()]
    assert found["frechet"] == pytest.approx(frechet_distance(picked, real[0][order][::2]))


def test_one_picture_a_class_is_recognised_and_has_no_spread() -> None:
    metric, (features, scores, labels) = GenerationMetrics(), pictures(1)
    metric.update(*pictures(0), real=True)
    metric.update(features[labels], scores[labels], labels, real=False)
    found = metric.compute()
    assert found["class_accuracy"] == 1
    assert found["spread"] == pytest.approx(0, abs=1e-6)
    assert found["recall"] < 0.2
    assert found["frechet"] > 2 * found["frechet_floor"]


def test_a_missing_class_shows_in_the_least_spread() -> None:
    metric, (features, scores, labels) = GenerationMetrics(), pictures(1)
    metric.update(*pictures(0), real=True)
    metric.update(torch.where((labels == 1)[:, None], features[1], features), scores, labels, real=False)
    found = metric.compute()
    assert found["least_spread"] == pytest.approx(0, abs=1e-6)
    assert found["spread"] == pytest.approx(2 / 3, abs=0.1)


def test_the_wrong_classes_are_counted_and_unasked_ones_are_not() -> None:
    metric, (features, scores, labels) = GenerationMetrics(), pictures(1)
    metric.update(*pictures(0), real=True)
    metric.update(features, scores, (labels + (torch.arange(COUNT) < COUNT // 4)) % CLASSES, real=False)
    assert metric.compute()["class_accuracy"] == 0.75
    metric.reset()
    metric.update(*pictures(0), real=True)
    metric.update(features, scores, None, real=False)
    assert math.isnan(metric.compute()["class_accuracy"])
    assert metric.compute()["spread"] == pytest.approx(1, abs=0.1), "by the classes that the judge sees"


def test_the_order_and_the_batches_do_not_matter() -> None:
    whole, parts = GenerationMetrics(), GenerationMetrics()
    for real in (True, False):
        data = pictures(int(real))
        whole.update(*data, real=real)
        for rows in torch.randperm(COUNT, generator=torch.Generator().manual_seed(3)).split(50):
            parts.update(*(part[rows] for part in data), real=real)
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-9)


def test_too_few_pictures_have_no_distance() -> None:
    metric = GenerationMetrics(with_classes=False)
    assert all(math.isnan(value) for name, value in metric.compute().items() if name not in ("samples", "compared"))
    metric.update(*(part[:3] for part in pictures(0)), real=True)
    metric.update(*(part[:3] for part in pictures(1)), real=False)
    found = metric.compute()
    assert math.isnan(found["frechet"])
    assert math.isnan(found["precision"])
    assert "class_accuracy" not in found
