"""Loaders whose order is a pure function of seed, epoch, position and rank, so that a resumed run is exact.

Nothing here stores a position: it is read from the trainer's own restored counters when the first batch of an epoch is
requested. A loader is a plain iterable around its samples. Worker processes start when its first batch is requested,
and live until the run ends; they only receive indices to read.
"""

from __future__ import annotations

import math
import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from zoo.data.files import UnreadableImage
from zoo.data.order import Order, occurrences, shuffled
from zoo.data.seeds import derive_seed as derive_seed
from zoo.data.seeds import run_seed as run_seed
from zoo.data.seeds import seed_device_generators as seed_device_generators
from zoo.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


FEWEST = 2  # samples that a batch keeps, if it was to have as many: a batch norm can't train with one
CHECK = "; `zoo data check` lists all such files"


@runtime_checkable
class InMemory(Protocol):
    """Data that is indexed by the batch."""

    def __len__(self) -> int: ...

    def fetch(self, indices: Tensor) -> Any:
        """The batch of these samples."""
        ...


class TensorSource:
    """Tensors of one length, indexed together: a batch is the tuple of their rows.

    Args:
        tensors: each (N, ...).
    """

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    @property
    def device(self) -> torch.device:
        """The tensors' device."""
        return self.tensors[0].device

    def move(self, device: torch.device) -> None:
        """Move the tensors to a device; batches are then indexed there."""
        self.tensors = tuple(t.to(device) for t in self.tensors)

    def fetch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Rows of every tensor."""
        indices = indices.to(self.device)
        return tuple(t.index_select(0, indices) for t in self.tensors)  # several times as fast as t[indices]


class Rows:
    """Some rows of a source, without a copy of its tensors.

    Args:
        source: the tensors.
        rows: indices into it, (N,).
    """

    def __init__(self, source: InMemory, rows: Tensor) -> None:
        self.source, self.rows = source, rows

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """The batch of these rows."""
        return self.source.fetch(self.rows[indices.to(self.rows.device)])


@dataclass(frozen=True)
class _Failure:
    """A user's mistake in a worker: raised there, its message would arrive wrapped in a traceback."""

    message: str
    unreadable: bool


class _Partial(NamedTuple):
    """A batch without its unreadable samples, None if fewer than ``FEWEST`` are left; these; what was wrong with each
    of the others.
    """

    batch: Any
    left: list[Any]
    messages: list[str]


class EpochSamples(Dataset):
    """Base of map-style data sets whose samples depend on the epoch.

    Attributes:
        epoch: counted from 0; set by the loader before it reads a sample, in the process that reads.
    """

    epoch: int = 0


class _Keyed(Dataset):
    """Seeds every generator with the sample's key before it is read, so that augmentation depends on key and epoch
    alone.
    """

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __getitem__(self, item: tuple[int, int, int]) -> Any:
        index, seed, epoch = item
        if isinstance(self.samples, EpochSamples):
            self.samples.epoch = epoch
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            return self.samples[index]
        except UserError as error:
            return _Failure(str(error), isinstance(error, UnreadableImage))


@dataclass(frozen=True)
class _Collate:
    """The data's own ``collate``; or the first failure among the samples, unless all of them may be skipped."""

    collate: Callable[[list[Any]], Any]
    skips: bool

    def __call__(self, samples: list[Any]) -> Any:
        failures = [sample for sample in samples if isinstance(sample, _Failure)]
        if not failures:
            return self.collate(samples)
        if serious := [failure for failure in failures if not (self.skips and failure.unreadable)]:
            return serious[0]
        good = [sample for sample in samples if not isinstance(sample, _Failure)]
        few = len(good) < min(FEWEST, len(samples))
        return _Partial(None if few else self.collate(good), good if few else [], [f.message for f in failures])


def repeats_batches(trainer: Any) -> bool:
    """Whether every epoch has the same batches (``trainer.overfit_batches``); a trainer's stand-in may not say."""
    return bool(getattr(trainer, "overfit_batches", 0))


class _KeyedBatches:
    """An epoch's batches of (index, key, epoch), made on demand: a million keys at once take seconds.

    Worker processes outlive an epoch, and this object with them: ``epoch`` is what changes.
    """

    epoch: Callable[[], Iterator[list[tuple[int, int, int]]]]

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        return self.epoch()


class Loader:
    """The loader that a data module passes to the trainer.

    Args:
        samples: ``InMemory`` data, or a map-style data set whose samples are read one by one.
        batch_size: samples per step over all processes; each takes its part.
        trainer: provides epoch, position, rank and number of processes; None iterates once from the start.
        train: continue from the trainer's position in the epoch's order; otherwise in order, each sample once.
        seed: seed of the order and of the samples' randomness.
        num_workers: processes that read samples; in-memory data needs none.
        drop_last: leave out an incomplete last batch.
        collate: makes a batch from a list of samples.
        order: training order; default: reshuffled every epoch.
        skipped: receives the message of every unreadable picture, which is then left out of its batch; without it, such
            a picture is an error. A batch that keeps fewer than two samples is filled up to two (to one, if it was to
            have one) with the next readable ones of the epoch's order: so all processes have the same number of
            batches, and a batch norm can train.
    """

    def __init__(
        self,
        samples: Any,
        batch_size: int,
        trainer: Trainer | None = None,
        train: bool = False,
        seed: int | None = None,
        num_workers: int = 0,
        drop_last: bool = False,
        collate: Any = default_collate,
        order: Order | None = None,
        skipped: Callable[[str], None] | None = None,
    ) -> None:
        self.samples, self.batch_size, self.trainer, self.train = samples, batch_size, trainer, train
        self.seed, self.num_workers, self.drop_last, self.collate = seed, num_workers, drop_last, collate
        self.order, self.skipped = order, skipped
        self._batches = _KeyedBatches()
        self._workers: DataLoader | None = None
        self._epoch: Callable[[], Any] = lambda: None

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    @property
    def count(self) -> int:
        """Number of samples of an epoch, over all processes."""
        return self.order.length if self.train and self.order else len(self.samples)

    def __len__(self) -> int:
        """Number of batches of this process. In training every process has the same number."""
        full, rest = divmod(self.count, self.batch_size)
        if self.train:
            return full + (rest >= self._world and not self.drop_last)
        return full + (rest > self._rank)

    def _position(self) -> tuple[int, int]:
        if not (self.train and self.trainer):
            return 0, 0
        epoch = 0 if repeats_batches(self.trainer) else self.trainer.current_epoch
        return epoch, self.trainer.fit_loop.batch_idx + 1

    def _seed(self) -> int:
        return run_seed() if self.seed is None else self.seed

    def _in_order(self, epoch: int) -> Tensor:
        """Indices of an epoch's samples in order, over all processes."""
        if not self.train:
            return torch.arange(self.count)
        return (self.order or shuffled(self.count)).indices(self._seed(), epoch)

    def _shares(self, values: Tensor, start: int) -> Iterator[Tensor]:
        """From values for all samples of an epoch, this process's part of each batch from ``start`` on."""
        for b in range(start, len(self)):
            yield values[b * self.batch_size : (b + 1) * self.batch_size][self._rank :: self._world]

    def indices(self, epoch: int = 0, start: int = 0) -> Iterator[Tensor]:
        """This process's part of each batch from ``start`` on."""
        return self._shares(self._in_order(epoch), start)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.samples, InMemory):
            return self._in_memory()
        self._end_epoch()
        epoch = self._from_workers()
        self._epoch = weakref.ref(epoch)
        return epoch

    def _end_epoch(self) -> None:
        """End an unfinished iteration, whose workers are needed."""
        if (unfinished := self._epoch()) is not None:
            unfinished.close()

    def _in_memory(self) -> Iterator[Any]:
        for indices in self.indices(*self._position()):
            yield self.samples.fetch(indices)

    def _from_workers(self) -> Iterator[Any]:
        position = self._position()
        # No reference leads from the workers back to this loader: were they freed by the garbage collector, which ends
        # their queues first, the wait for each would take five seconds.
        plan = copy(self)
        plan._workers, plan._epoch = None, lambda: None
        self._batches.epoch = lambda: plan._keyed(*position)
        if self._workers is None:
            self._workers = self._start()
        for number, batch in enumerate(self._workers, position[1]):
            yield self._readable(batch, position[0], number)

    def _readable(self, batch: Any, epoch: int, number: int) -> Any:
        """A batch from the workers, without what can't be read."""
        if isinstance(batch, _Failure):
            self._workers = None
            raise UserError(f"{batch.message}{CHECK if batch.unreadable else ''}")
        if not isinstance(batch, _Partial):
            return batch
        assert self.skipped is not None
        for message in batch.messages:
            self.skipped(message)
        return self._filled(batch, epoch, number) if batch.batch is None else batch.batch

    def _filled(self, partial: _Partial, epoch: int, number: int) -> Any:
        """A batch of what is left and the first readable samples behind it in the epoch's order, which goes round."""
        order, samples, filled = self._in_order(epoch), _Keyed(self.samples), list(partial.left)
        wanted = min(FEWEST, len(partial.left) + len(partial.messages))
        for index in order.roll(-min(len(order), (number + 1) * self.batch_size)).tolist():
            sample = samples[index, derive_seed(self._seed(), epoch, index), epoch]
            if not isinstance(sample, _Failure):
                filled.append(sample)
            elif not sample.unreadable:
                raise UserError(sample.message)
            if len(filled) == wanted:
                return self.collate(filled)
        if not filled:
            raise UserError(f"none of the {len(order)} training pictures can be read: {partial.messages[0]}")
        return self.collate(filled)

    def _start(self) -> DataLoader:
        return DataLoader(
            _Keyed(self.samples),
            batch_sampler=self._batches,
            num_workers=self.num_workers,
            collate_fn=_Collate(self.collate, self.skipped is not None),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(derive_seed(self._seed())),
        )

    def _keyed(self, epoch: int, start: int) -> Iterator[list[tuple[int, int, int]]]:
        order, seed = self._in_order(epoch), self._seed()
        shares = zip(self._shares(order, start), self._shares(occurrences(order), start), strict=True)
        for indices, earlier in shares:
            pairs = zip(indices.tolist(), earlier.tolist(), strict=True)
            yield [(i, derive_seed(seed, epoch, i, *[n] * (n > 0)), epoch) for i, n in pairs]

    def close(self) -> None:
        """Stop the worker processes; a later epoch would start new ones."""
        self._end_epoch()
        self._workers = None

    def state_dict(self) -> dict[str, Any]:
        """Empty: the trainer's counters hold the position."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def split_indices(labels: Sequence[int] | Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Stratified split of a labelled set into (kept, held out), a pure function of its arguments.

    Args:
        labels: class of each sample.
        fraction: fraction of every class that is held out, rounded to the nearest sample.
        seed: seed of the choice.
    """
    labels = torch.as_tensor(labels)
    held = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(derive_seed(seed))
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        chosen = members[torch.randperm(len(members), generator=generator)[: round(fraction * len(members))]]
        held[chosen] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def check_split(argument: str, fraction: float, labels: Tensor, class_names: Sequence[str]) -> None:
    """Check that a fraction holds out something, and leaves something of every class.

    Args:
        argument: the fraction's name, for the message.
        fraction: as for ``split_indices``.
        labels: class of each sample.
        class_names: of the labels.

    Raises:
        UserError: it doesn't; the message says what would.
    """
    counts = torch.bincount(torch.as_tensor(labels), minlength=len(class_names)).tolist()
    held = [round(fraction * count) for count in counts]
    if not any(held):
        advice = _fraction_that_holds_out(max(counts, default=0))
        raise UserError(f"{argument}: {fraction} of {sum(counts)} images in {len(counts)} classes is none; {advice}")
    emptied = [label for label, count in enumerate(counts) if count and held[label] == count]
    if emptied:
        label = min(emptied, key=lambda one: counts[one])
        count = counts[label]
        below = math.ceil((count - 0.5) / count * 100) - 1
        advice = f"at most {below / 100:g}" if max(counts) > 1 else "0"
        raise UserError(
            f"{argument}: {fraction} of the {count} image{'s' * (count > 1)} of class {class_names[label]} is all of "
            f"them, and none is left to train; give more images, or {advice}"
        )


def _fraction_that_holds_out(count: int) -> str:
    """Advice for classes of at most so many samples, of which too small a fraction is held out."""
    return f"give at least {(50 // count + 1) / 100:g}, or 0" if count > 1 else "give more images, or 0"
