"""Reading every sample of a data set, to find all that can't be read at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset

from zoo.cpus import usable_cpus
from zoo.data.files import BROKEN
from zoo.errors import UserError

CHUNK = 32  # samples that a worker process reads between two messages


class _Problems(Dataset):
    """For each of these samples what is wrong with it, or None."""

    def __init__(self, samples: Any, indices: range) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> str | None:
        index = self.indices[number]
        try:
            self.samples[index]
        except (UserError, *BROKEN) as error:
            return str(error) if isinstance(error, UserError) else f"sample {index}: {error}"
        return None


def problems(samples: Any, num_workers: int | None = None, rank: int = 0, world: int = 1) -> list[str]:
    """What is wrong with the samples that can't be read, in their order.

    Args:
        samples: a map-style data set.
        num_workers: processes that read; default: one per usable CPU, none for few samples.
        rank: number of this process among those of a run.
        world: their number. Each reads its part of the samples, with its part of the CPUs, and learns of all.
    """
    shared = world > 1 and distributed.is_available() and distributed.is_initialized()
    own = range(rank, len(samples), world) if shared else range(len(samples))
    if num_workers is None:
        num_workers = usable_cpus() // world if len(own) > 4 * CHUNK else 0
    # The default generator would be drawn from, and a run's random weights would change.
    found = DataLoader(
        _Problems(samples, own), CHUNK, num_workers=num_workers, collate_fn=list, generator=torch.Generator()
    )
    told = [line for chunk in found for line in chunk]
    bad = [(index, line) for index, line in zip(own, told, strict=True) if line]
    return [line for _, line in sorted(_of_all(bad, world) if shared else bad)]


def _of_all(found: list[tuple[int, str]], world: int) -> list[tuple[int, str]]:
    """What all processes of a run have found."""
    every: list[Any] = [None] * world
    distributed.all_gather_object(every, found)
    return [one for of_one in every for one in of_one]
