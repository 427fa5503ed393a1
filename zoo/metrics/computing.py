"""Computing a metric of torchmetrics over all processes, also where one of them was given nothing.

torchmetrics gathers its states tensor by tensor. A state that is a list has as many tensors as the process had updates
(``dist_reduce_fx=None``, as in mean average precision), or on a process without any an empty tensor of one dimension
and float type (``"cat"``): the processes then wait for each other for ever, or stop with an error. Here each process
sends all of its states at once as one object, and each merges them by the metric's own reductions, in the order of the
processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils._pytree import tree_map
from torchmetrics import Metric, MetricCollection


def compute_and_reset(metric: Metric | MetricCollection) -> Any:
    """What the metric gives of all processes' samples together, the same on each; its states are reset.

    Every process must call this, also one without samples. The states pass through the CPU, and each process holds
    those of all for a moment.

    Args:
        metric: one, a collection, or a wrapper of others; of library classes or own ones.
    """
    with _merged(metric):
        values = metric.compute()
    metric.reset()
    return values


@contextmanager
def _merged(metric: Metric | MetricCollection) -> Iterator[None]:
    """The metric with the states of all processes, which it then does not gather itself."""
    if not _is_distributed():
        yield
        return
    parts = [module for module in metric.modules() if isinstance(module, Metric)]
    for part, states in zip(parts, _gather(metric, parts), strict=True):
        _merge(part, states)
    available = [part.distributed_available_fn for part in parts]
    for part in parts:
        part.distributed_available_fn = _alone
    try:
        yield
    finally:
        for part, own in zip(parts, available, strict=True):
            part.distributed_available_fn = own


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _alone() -> bool:
    return False


_States = tuple[int, dict[str, Any]]  # how many updates a process made, and the states that they left


def _gather(metric: Metric | MetricCollection, parts: list[Metric]) -> list[list[_States]]:
    """The states of each part on each process."""
    for module in metric.modules():
        if isinstance(module, MetricCollection):
            module.values(copy_state=False)  # members of a compute group take over the states of its first
    own = [(part.update_count, tree_map(_packed, part.metric_state)) for part in parts]
    every: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(every, own)
    return [list(states) for states in zip(*every, strict=True)]


def _packed(value: Any) -> Any:
    """A tensor on the CPU that does not drag along the storage that it is a view of."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()


def _merge(part: Metric, states: list[_States]) -> None:
    """Set the states of all processes together; defaults of those without updates are left out: a mean counts them."""
    updated = [values for count, values in states if count] or [values for _, values in states]
    for name, reduction in part._reductions.items():
        is_list = isinstance(part._defaults[name], list)
        merged = _reduced([values[name] for values in updated], is_list, reduction)  # type: ignore[arg-type]
        setattr(part, name, tree_map(lambda v: v.to(part.device) if isinstance(v, Tensor) else v, merged))
    part._update_count = sum(count for count, _ in states)
    part._computed = None


def _reduced(values: list[Any], is_list: bool, reduction: Callable[[Any], Any] | None) -> Any:
    """Tensors are stacked and reduced, as by torchmetrics; lists are joined, as they were after one's own updates."""
    if is_list:
        return [item for value in values for item in value]
    stacked = torch.stack(values)
    return stacked if reduction is None else reduction(stacked)
