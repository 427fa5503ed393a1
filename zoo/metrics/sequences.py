"""The base of metrics that keep what they were given, sample by sample, and evaluate all of it at the end.

Such are metrics of sentences: a sample is of strings, token ids or plain dictionaries, of any length, and the score of
a set is not the mean of its batches'. torchmetrics keeps and gathers tensors alone, as many on each process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import distributed, nn
from torchmetrics import Metric


class SampleMetric(Metric):
    """A metric whose state is the list ``samples``: append to it in ``update``, evaluate it in ``compute``.

    What several processes compute is what one would of all their samples, those of the first process first: with
    shares that are not even, with none on some of them, and with none at all. It may be computed by itself or by
    ``compute_and_reset``. Make what is computed independent of the order (``math.fsum``), and it is the same to the
    last bit.

    Args:
        kwargs: as for every metric.
    """

    full_state_update = False
    samples: list[Any]  # of plain Python objects: they can be pickled, and stay on the CPU

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("samples", [], dist_reduce_fx=None)

    def keep(self, *columns: Sequence[Any]) -> None:
        """Add a batch: what the columns have of each sample becomes one tuple.

        Raises:
            ValueError: the columns differ in length.
        """
        self.samples += list(zip(*columns, strict=True))

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None) -> None:
        """Every process's samples, sent as one object."""
        group = process_group or self.process_group
        every: list[Any] = [None] * distributed.get_world_size(group)
        distributed.all_gather_object(every, self.samples, group)
        self.samples = [sample for own in every for sample in own]

    def _apply(self, fn: Callable[..., Any], exclude_state: Iterable[str] = ()) -> nn.Module:
        return super()._apply(fn, [*exclude_state, "samples"])

    def __hash__(self) -> int:
        return id(self)  # torchmetrics' takes in every sample
