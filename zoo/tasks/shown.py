"""The default selection of images that a task shows after an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_map

from zoo import contracts

if TYPE_CHECKING:
    from zoo.tasks.base import Task

COUNT = 16  # images


class Shown(NamedTuple):
    """Some images of a batch with their predictions, on the CPU."""

    images: Any
    results: Any
    truth: Any


def keep_shown(task: Task, shown: list[Shown], batch: Any, batch_idx: int) -> None:
    """Collect predictions of a batch's images, until there are ``COUNT``; start again with the first batch.

    Args:
        task: predicts them.
        shown: what was collected so far, changed in place.
        batch: as the task evaluates it.
        batch_idx: its number in the evaluation.
    """
    from zoo.tasks.base import Task

    if batch_idx == 0:
        shown.clear()
    room = COUNT - sum(len(one.images) for one in shown)
    cls = type(task)
    if room <= 0 or cls.draw is Task.draw or cls.predict_step is Task.predict_step:
        return
    batch = tuple(part[:room] for part in batch)
    names = [str(index) for index in range(len(batch[0]))]
    results = task.predict_step(contracts.form(task.batch).to_predict(batch, names), batch_idx)
    shown.append(Shown(*(tree_map(kept, part) for part in (batch[0], results, batch[-1]))))


def kept(value: Any) -> Any:
    """A copy of a tensor on the CPU, which keeps no batch alive; another value as it is."""
    return value.detach().cpu().clone() if isinstance(value, Tensor) else value
