"""Factors on the loss of each class, as a recipe gives them or by the data's counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.facts import Facts

ClassWeights = Literal["balanced"] | list[float] | None


def class_weight(given: ClassWeights, facts: Facts) -> Tensor | None:
    """The factors (num_classes,); None for none.

    Raises:
        UserError: there are not as many as classes, or the data does not say its counts.
    """
    if given is None:
        return None
    if given == "balanced":
        if "class_counts" not in facts:
            raise UserError("model.class_weights: balanced needs class_counts, which the data does not say")
        return balanced_weights(facts["class_counts"])
    if len(given) != facts["num_classes"]:
        raise UserError(f"model.class_weights has {len(given)} values, the data {facts['num_classes']} classes")
    return torch.tensor(given, dtype=torch.float32)


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """Factors that give every class the same total weight, with a mean of one over the samples.

    A class without samples has the factor 1: it has no part in training, and its loss in evaluation stays one of many.
    """
    amount = torch.tensor(counts, dtype=torch.float32)
    present = int((amount > 0).sum())
    return torch.where(amount > 0, amount.sum() / (max(1, present) * amount.clamp(min=1)), 1.0)
