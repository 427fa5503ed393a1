"""How good generated samples are, by what a judge sees in them and in real pictures."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.functional.sample_quality import (
    NEIGHBOURS,
    class_spreads,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    share_nearer,
)


class Seen(NamedTuple):
    """Pictures as the judge sees them.

    Args:
        features: (N, D).
        labels: true or asked for, (N,); -1 where there is none.
        classes: most probable ones, (N,).
    """

    features: Tensor
    labels: Tensor
    classes: Tensor


class GenerationMetrics(Metric):
    """Generated samples compared with real pictures that were not trained on.

    - ``class_accuracy``: the share of samples in which the judge sees the class that was asked for; ``judge_accuracy``
      is its own on the real pictures.
    - ``frechet`` and ``kid``: distances of the samples' features from those of one half of the real pictures, at the
      same number (``compared``); ``frechet_floor`` and ``kid_floor``: of the other half from it, which is as near as
      real pictures come. All grow where there are fewer pictures.
    - ``precision``, ``recall``, ``density``, ``coverage``.
    - ``spread`` and ``least_spread``: within each class, how far samples are from their mean relative to real pictures;
      mean and least over the classes. A generator of one picture a class has 0.
    - ``nearer_to_training``: the probability that a sample is nearer to its nearest training picture than a real one is
      to its own; 0.5 is as far away as these, 1 copies. Only where ``add_nearest`` was called.
    - ``samples``: their number.

    What can't be computed, for want of classes or pictures, is NaN.

    Args:
        with_classes: whether the judge's classes are the data's.
        kwargs: as for every metric.
    """

    full_state_update = False
    real_features: list[Tensor]
    made_features: list[Tensor]
    real_nearest: list[Tensor]
    made_nearest: list[Tensor]

    def __init__(self, with_classes: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.with_classes = with_classes
        for kind in ("real", "made"):
            for name in Seen._fields:
                self.add_state(f"{kind}_{name}", [], dist_reduce_fx=None)
            self.add_state(f"{kind}_nearest", [], dist_reduce_fx=None)

    def update(self, features: Tensor, log_probs: Tensor, labels: Tensor | None, real: bool) -> None:
        """Add a batch.

        Args:
            features: as the judge gives them, (B, D).
            log_probs: likewise, (B, K).
            labels: the true classes or those that were asked for, (B,); None without.
            real: whether the pictures are real.
        """
        none = torch.full((len(features),), -1, device=features.device)
        seen = Seen(features.detach().float(), none if labels is None else labels.long(), log_probs.argmax(1))
        for name, values in zip(Seen._fields, seen, strict=True):
            getattr(self, f"{'real' if real else 'made'}_{name}").append(values.cpu())

    def own_features(self, real: bool) -> Tensor:
        """Features (N, D) of all pictures of a kind that this process has added, in their order; on the CPU."""
        added = self.real_features if real else self.made_features
        return torch.cat(added) if added else torch.zeros(0, 1)

    def add_nearest(self, distances: Tensor, real: bool) -> None:
        """Add distances (N,) from the nearest training pictures, of real pictures or of samples."""
        (self.real_nearest if real else self.made_nearest).append(distances.detach().double().cpu())

    def _seen(self, kind: str) -> Seen:
        """All of a kind, in an order that does not depend on who saw them."""
        parts = [getattr(self, f"{kind}_{name}") for name in Seen._fields]
        empty = (torch.zeros(0, 1), torch.zeros(0).long(), torch.zeros(0).long())
        seen = Seen(*(torch.cat(part) if part else none for part, none in zip(parts, empty, strict=True)))
        order = seen.features.double().sum(1).argsort(stable=True)
        return Seen(*(part[order] for part in seen))

    def compute(self) -> dict[str, float]:
        """The metrics by name."""
        real, made = self._seen("real"), self._seen("made")
        found = {"samples": float(len(made.features)), **_distances(real.features, made.features)}
        enough = min(len(real.features), len(made.features)) > NEIGHBOURS
        names = ("precision", "recall", "density", "coverage")
        found |= manifold_scores(real.features, made.features) if enough else dict.fromkeys(names, math.nan)
        real_near, made_near = (torch.cat([*p, torch.zeros(0)]) for p in (self.real_nearest, self.made_nearest))
        if len(real_near) and len(made_near):
            found["nearer_to_training"] = share_nearer(made_near, real_near)
        if self.with_classes:
            found |= {"judge_accuracy": _accuracy(real), "class_accuracy": _accuracy(made), **_spreads(real, made)}
        return found


def _accuracy(seen: Seen) -> float:
    """Of those that have a label."""
    known = seen.labels >= 0
    return float((seen.classes == seen.labels)[known].double().mean()) if known.any() else math.nan


def _distances(real: Tensor, made: Tensor) -> dict[str, float]:
    """Fréchet's and the kernel's to one half of the real pictures: of the samples, and of the other half."""
    one, other = real[::2], real[1::2]
    count = min(len(one), len(other), len(made))
    if count < 2:
        return dict.fromkeys(("frechet", "frechet_floor", "kid", "kid_floor"), math.nan) | {"compared": float(count)}
    rows = torch.linspace(0, len(made) - 1, count).round().long()
    one, other, made = one[:count], other[:count], made[rows]
    return {
        "frechet": frechet_distance(made, one),
        "frechet_floor": frechet_distance(other, one),
        "kid": kernel_distance(made, one),
        "kid_floor": kernel_distance(other, one),
        "compared": float(count),
    }


def _spreads(real: Seen, made: Seen) -> dict[str, float]:
    labels = torch.where(made.labels >= 0, made.labels, made.classes)
    found = [*class_spreads(made.features, labels, real.features, real.labels).values()]
    return {
        "spread": math.fsum(found) / len(found) if found else math.nan,
        "least_spread": min(found, default=math.nan),
    }
