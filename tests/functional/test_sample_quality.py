"""Distances of sets of features against scipy, torchmetrics and closed forms."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from zoo.functional import sample_quality as quality
from zoo.functional.sample_quality import frechet_distance, kernel_distance, manifold_scores


class AsTheyAre(nn.Module):
    num_features = 6

    def forward(self, features: Tensor) -> Tensor:
        return features


@pytest.fixture
def sets() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    mix = torch.rand(6, 6, generator=random, dtype=torch.float64)
    first = torch.randn(120, 6, generator=random, dtype=torch.float64) @ mix
    return first, torch.randn(90, 6, generator=random, dtype=torch.float64) * 0.7 + 0.4


def test_frechet_as_scipy_and_torchmetrics(sets: tuple[Tensor, Tensor]) -> None:
    first, second = sets
    (a, b), (m, n) = (one.mean(0).numpy() for one in sets), (np.cov(one.numpy().T) for one in sets)
    expected = ((a - b) ** 2).sum() + np.trace(m + n - 2 * sqrtm(m @ n).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    library = FrechetInceptionDistance(AsTheyAre()).set_dtype(torch.float64)
    library.update(first, real=True)
    library.update(second, real=False)
    assert frechet_distance(first, second) == pytest.approx(float(library.compute()), rel=1e-6)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_frechet_of_fewer_samples_than_features() -> None:
    few = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(few, few + 1) == pytest.approx(10, rel=1e-6)


def test_kernel_distance_as_torchmetrics(sets: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sets[0][:90], sets[1]
    library = KernelInceptionDistance(AsTheyAre(), subsets=1, subset_size=90).set_dtype(torch.float64)
    library.update(first, real=True)
    library.update(second, real=False)
    assert kernel_distance(first, second) == pytest.approx(float(library.compute()[0]), rel=1e-6)
    monkeypatch.setattr(quality, "ROWS", 7)
    assert kernel_distance(first, second) == pytest.approx(float(library.compute()[0]), rel=1e-6)


def test_precision_recall_density_and_coverage_by_their_definitions(
    sets: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, samples = (one[:40].numpy() for one in sets)
    samples, k = samples[:30], 3

    def radius(points: np.ndarray, i: int) -> float:
        return sorted(float(np.linalg.norm(points[i] - p)) for j, p in enumerate(points) if j != i)[k - 1]

    def inside(x: np.ndarray, points: np.ndarray, i: int) -> bool:
        return bool(np.linalg.norm(x - points[i]) <= radius(points, i))

    expected = {
        "precision": np.mean([any(inside(s, real, i) for i in range(len(real))) for s in samples]),
        "recall": np.mean([any(inside(r, samples, i) for i in range(len(samples))) for r in real]),
        "density": sum(inside(s, real, i) for s in samples for i in range(len(real))) / (k * len(samples)),
        "coverage": np.mean([any(inside(s, real, i) for s in samples) for i in range(len(real))]),
    }
    monkeypatch.setattr(quality, "ROWS", 7)
    assert manifold_scores(torch.from_numpy(real), torch.from_numpy(samples), k) == pytest.approx(expected)


def test_copies_are_nearer_than_real_pictures() -> None:
    random = torch.Generator().manual_seed(0)
    training, test = torch.randn(200, 3, generator=random), torch.randn(100, 3, generator=random)
    copies = training[:50] + 0.001
    far, own = quality.nearest(test, training), quality.nearest(copies, training)
    assert own[1].tolist() == list(range(50))
    assert quality.share_nearer(own[0], far[0]) > 0.99
    assert quality.share_nearer(far[0], far[0]) == 0.5
    assert quality.share_nearer(torch.tensor([1.0, 5.0]), torch.tensor([1.0, 2.0])) == (0.75 + 0.0) / 2


def test_a_class_of_one_picture_has_no_spread() -> None:
    random = torch.Generator().manual_seed(0)
    real, labels = torch.randn(300, 4, generator=random), torch.arange(300) % 3
    samples = torch.where((labels == 1)[:, None], real[1], real)  # one digit of class 1, again and again
    found = quality.class_spreads(samples, labels, real, labels)
    assert found == pytest.approx({0: 1.0, 1: 0.0, 2: 1.0}, abs=1e-6)
