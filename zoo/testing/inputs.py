"""Arguments of networks: tensors with the batch first, or lists of tensors and of dictionaries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

Inputs = tuple[Any, ...]


def leaves(inputs: Any) -> list[Tensor]:
    """Every tensor in the arguments."""
    return [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]


def copied(inputs: Inputs) -> Inputs:
    """A copy of the arguments."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, inputs)


def doubles(inputs: Inputs) -> Inputs:
    """The arguments with floats as float64."""

    def double(leaf: Any) -> Any:
        return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return tree_map(double, inputs)


def first_samples(inputs: Inputs, count: int) -> Inputs:
    """The first samples of each argument."""
    return tuple(argument[:count] for argument in inputs)


def joined(first: Inputs, others: Inputs) -> Inputs:
    """Concatenate two batches of arguments."""
    return tuple(_joined(a, b[len(a) :]) for a, b in zip(first, others, strict=True))


def _joined(a: Any, b: Any) -> Any:
    return torch.cat((a, b)) if isinstance(a, Tensor) else [*a, *b]
