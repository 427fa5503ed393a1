"""Reading every sample of a data set, to find all that can't be read at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from zoo.data.files import BROKEN
from zoo.errors import UserError

CHUNK = 32  # samples that a worker process reads between two messages


class _Problems(Dataset):
    """For each sample what is wrong with it, or None."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> str | None:
        try:
            self.samples[index]
        except (UserError, *BROKEN) as error:
            return str(error) if isinstance(error, UserError) else f"sample {index}: {error}"
        return None


def usable_cpus() -> int:
    """CPUs that this process may use: on a shared machine or in a batch job fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def problems(samples: Any, num_workers: int | None = None, world: int = 1) -> Iterator[str | None]:
    """Read all samples in order.

    Args:
        samples: a map-style data set.
        num_workers: processes that read; default: one per usable CPU, none for few samples.
        world: processes that do the same and share the CPUs; each takes its part of them.

    Yields:
        what is wrong with each sample; None if it can be read
    """
    if num_workers is None:
        num_workers = usable_cpus() // world if len(samples) > 4 * CHUNK else 0
    own = torch.Generator()  # the default one would be drawn from, and a run's random weights would change
    for chunk in DataLoader(_Problems(samples), CHUNK, num_workers=num_workers, collate_fn=list, generator=own):
        yield from chunk
