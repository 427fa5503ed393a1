"""The job that a process belongs to, and which of the job's run folders is its own.

A job may hold several runs, one after the other, and may be started again: SLURM requeues it, torchrun starts its
workers anew, a submitter sends it once more. A restart is what says so (``SLURM_RESTART_COUNT``,
``TORCHELASTIC_RESTART_COUNT``, or ``ZOO_RESTART_COUNT`` from whatever else starts jobs); it goes through the folders of
the earlier starts in their order. All else gets a folder of its own.

The processes of a run agree without talking to each other, since each takes the first folder of the job that it has
not taken in this start and that is of its recipe. What a process has taken is a file in the folder.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import UserError

COUNTS = ("SLURM_RESTART_COUNT", "ZOO_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")  # from the outer to the inner
TAKEN = ".job"  # the folder within a run's, with a file for each process
MOST = 1000  # runs in a job
PATIENCE = 5.0  # seconds for a note that is being written


@dataclass(frozen=True)
class Job:
    """A job as one of its processes sees it.

    Args:
        name: the same for all processes, and in all starts.
        start: how often it was started before, as ``COUNTS`` says.
        process: the number of this one.
    """

    name: str
    start: tuple[int, ...]
    process: str

    @property
    def restarted(self) -> bool:
        """Whether it has been started before."""
        return any(self.start)

    def folder(self, parent: Path, recipe: str) -> Path:
        """The folder of this process's next run, taken: one that is there, or the next name for a new one.

        Args:
            parent: of the folders.
            recipe: what the run does; a restarted job's folder is of the same.

        Raises:
            UserError: there are too many, or it can't be created.
        """
        for number in range(1, MOST):
            folder = parent / (self.name if number == 1 else f"{self.name}-{number}")
            if self.take(folder, recipe):
                return folder
        raise UserError(f"{parent} has too many runs of {self.name}")

    def take(self, folder: Path, recipe: str) -> bool:
        """Whether the folder is for this process's next run; if it is, that is noted in it.

        Args:
            folder: created if it is not there.
            recipe: what the run does.

        Raises:
            UserError: it can't be created.
        """
        of = f"{self.name} {hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
        mine = folder / TAKEN / self.process
        written = {path.name: _written(path) for path in mine.parent.glob("*") if path.suffix != ".tmp"}
        if any(which != of for which, _ in written.values()):
            return False
        before = written.get(self.process)
        if before is not None and before[1] >= self.start:
            return False
        try:
            mine.parent.mkdir(parents=True, exist_ok=True)
            return _note(mine, f"{of} {','.join(map(str, self.start))}", again=before is not None)
        except OSError as error:
            raise UserError(f"the run folder {folder} can't be created: {error.strerror}") from error


def _note(path: Path, text: str, again: bool) -> bool:
    """Whether the note is this process's; not where another run of the same number was faster."""
    if again:
        whole = path.with_name(f"{path.name}.tmp")  # others may be reading
        whole.write_text(text)
        whole.replace(path)
        return True
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _written(path: Path) -> tuple[str, tuple[int, ...]]:
    """Of which job and recipe a note is, and of which start; nothing that any job has, where it can't be read."""
    until = time.monotonic() + PATIENCE
    while not (text := path.read_text()) and time.monotonic() < until:
        time.sleep(0.01)  # it is being written
    of, _, counts = text.rpartition(" ")
    return of, tuple(int(part) for part in counts.split(",") if part.isdigit())


def current_job() -> Job | None:
    """The job of SLURM or torchrun that this process belongs to; None outside.

    Raises:
        UserError: torchrun on several nodes without a run id, or a count of restarts that is none.
    """
    if (name := _name()) is None:
        return None
    start = tuple(_restarts(variable) for variable in COUNTS)
    torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    process = os.environ.get("RANK" if torchrun else "SLURM_PROCID", "0")
    return Job(name, start, process if process.isdigit() else "0")


def _restarts(variable: str) -> int:
    text = os.environ.get(variable) or "0"
    if not text.isdigit():
        raise UserError(f"{variable} is {text!r}; it must be the number of earlier starts")
    return int(text)


def _name() -> str | None:
    if job := os.environ.get("SLURM_JOB_ID"):
        return f"slurm-{job}.{os.environ.get('SLURM_STEP_ID', 'batch')}"  # unchanged when the job is requeued
    if (run := os.environ.get("TORCHELASTIC_RUN_ID")) is None:
        return None
    if run != "none":
        return f"torchrun-{run}"
    if os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE"):
        raise UserError("torchrun on several nodes needs a run id, so that all use the same run folder: --rdzv-id NAME")
    return f"torchrun-{os.getppid()}"
