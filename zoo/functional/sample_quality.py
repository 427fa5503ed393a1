"""How a set of generated samples compares with a set of real ones, by their features.

All in float64. Fréchet distance: Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local
Nash equilibrium". Kernel distance: Bińkowski et al. 2018, "Demystifying MMD GANs". Precision, recall: Kynkäänniemi et
al. 2019, "Improved precision and recall metric for assessing generative models"; density and coverage: Naeem et al.
2020, "Reliable fidelity and diversity metrics for generative models".
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 2048  # of a matrix of distances that are held at once
NEIGHBOURS = 5


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """The squared Fréchet distance of two Gaussians with the means and covariances of two sets of features.

    Args:
        first: (N, D), with N of at least 2.
        second: (M, D).
    """
    (mean1, cov1), (mean2, cov2) = (_moments(one) for one in (first, second))
    # The trace of the root of a product is the sum of the roots of its eigenvalues, which are those of the symmetric
    # root1 cov2 root1, too.
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    return float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * product)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    features = features.double()
    return features.mean(0), torch.atleast_2d(features.T.cov())


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy with the kernel (x y / D + 1)^3.

    Args:
        first: (N, D), with N of at least 2.
        second: (M, D), likewise.
    """
    first, second = first.double(), second.double()
    n, m = len(first), len(second)
    within = _kernel_sum(first, first, True) / (n * (n - 1)) + _kernel_sum(second, second, True) / (m * (m - 1))
    return float(within - 2 * _kernel_sum(first, second) / (n * m))


def _kernel_sum(first: Tensor, second: Tensor, without_itself: bool = False) -> Tensor:
    total = torch.stack([(rows @ second.T / first.shape[1] + 1).pow(3).sum() for rows in first.split(ROWS)]).sum()
    return total - (first.square().sum(1) / first.shape[1] + 1).pow(3).sum() if without_itself else total


def manifold_scores(real: Tensor, samples: Tensor, neighbours: int = NEIGHBOURS) -> dict[str, float]:
    """``precision``, ``recall``, ``density`` and ``coverage``; 1 is as good as real, and density may be above.

    Args:
        real: features (N, D).
        samples: features (M, D).
        neighbours: number of the nearest neighbour whose distance is the radius of a point's ball; below N and M.
    """
    real, samples = real.double(), samples.double()
    real_radii, sample_radii = (_radii(one, neighbours) for one in (real, samples))
    inside, covered, recalled = 0.0, [], []
    precise = torch.zeros(len(samples), dtype=torch.bool)
    for rows, radii in zip(real.split(ROWS), real_radii.split(ROWS), strict=True):
        distances = torch.cdist(rows, samples)
        within = distances <= radii[:, None]
        inside += float(within.sum())
        precise |= within.any(0).cpu()
        covered.append(within.any(1))
        recalled.append((distances <= sample_radii).any(1))
    return {
        "precision": float(precise.double().mean()),
        "recall": float(torch.cat(recalled).double().mean()),
        "density": inside / (neighbours * len(samples)),
        "coverage": float(torch.cat(covered).double().mean()),
    }


def _radii(features: Tensor, neighbours: int) -> Tensor:
    """The distance of each point to its k-th nearest other point."""
    found = [torch.cdist(rows, features).kthvalue(neighbours + 1).values for rows in features.split(ROWS)]
    return torch.cat(found)


def nearest(features: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The distance to the nearest of known points, and its index, each (N,).

    Args:
        features: (N, D).
        known: (M, D).
    """
    found = [torch.cdist(rows, known).min(1) for rows in features.split(ROWS)]
    return torch.cat([one.values for one in found]), torch.cat([one.indices for one in found])


def share_nearer(first: Tensor, second: Tensor) -> float:
    """The probability that a number of the first is smaller than one of the second; ties count half.

    Args:
        first: (N,), such as the distances of samples to the nearest training picture.
        second: (M,), such as those of real test pictures: 0.5 is as far away as these.
    """
    ordered = second.sort().values
    below, upto = (torch.searchsorted(ordered, first, right=right) for right in (False, True))
    return float(1 - (below + upto).double().mean() / (2 * len(second)))


def spread(features: Tensor) -> float:
    """The root mean square distance from the mean."""
    features = features.double()
    return float((features - features.mean(0)).square().sum(1).mean().sqrt())


def class_spreads(features: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor) -> dict[int, float]:
    """For each class with two real pictures and two samples: the samples' spread relative to that of the real ones."""
    found = {}
    for label in real_labels.unique().tolist():
        own, other = features[labels == label], real[real_labels == label]
        if len(own) > 1 and len(other) > 1:
            found[int(label)] = spread(own) / max(spread(other), 1e-12)
    return found
