"""What a metric of several numbers gives, as single numbers with names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def named_values(
    values: Mapping[str, Any],
    class_names: Sequence[str] = (),
    missing: float | None = None,
    skip: Collection[str] = (),
) -> dict[str, Tensor]:
    """Single numbers by name; a vector over the classes gives one for each class, ``name/class``.

    A number that is not defined (no ground truth for it) is NaN; a class's is left out.

    Args:
        values: tensors or numbers by name.
        class_names: of the vectors' entries; without them, whatever is not a single number is left out.
        missing: the value that stands for one that is not defined, such as the -1 of mean average precision.
        skip: names that are left out.

    Raises:
        ValueError: a vector is not as long as ``class_names``.
    """
    found: dict[str, Tensor] = {}
    for name in (name for name in values if name not in skip):
        value = torch.as_tensor(values[name]).detach().float()
        if missing is not None:
            value = value.masked_fill(value == missing, torch.nan)
        if value.dim() == 0:
            found[name] = value
        elif class_names:
            found |= _of_classes(name, value, class_names)
    return found


def _of_classes(name: str, values: Tensor, class_names: Sequence[str]) -> dict[str, Tensor]:
    if values.shape != (len(class_names),):
        raise ValueError(f"{name} has shape {tuple(values.shape)}, but there are {len(class_names)} classes")
    return {f"{name}/{c}": v for c, v in zip(class_names, values, strict=True) if not v.isnan()}
