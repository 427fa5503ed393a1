"""How many CPUs this process may use."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """On a shared machine or in a batch job, fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
