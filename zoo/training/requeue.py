"""A SLURM job whose time is nearly up: its run saves at a safe point, and the job is put back into the queue.

SLURM says so by a signal (``sbatch --signal=USR1@90``), or newer releases by the time at which the job ends
(``SLURM_JOB_END_TIME``). Lightning's own handler of the signal saves in the middle of a step, but leaves a signal alone
that has a handler; so ours is there first, and keeps the process alive from its start on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

AT_LEAST = 60.0  # seconds that are left when the run saves; SLURM itself looks at its clock about twice a minute
PROCESS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # the number of a process, by whatever has started it


class RequeueSignal:
    """The handler of the signal that asks for a requeue: it only notes that it came.

    Attributes:
        received: the signal, once it came.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __call__(self, number: int, frame: Any) -> None:
        """Note it; whatever waits or reads goes on."""
        self.received = number
        if all(os.environ.get(variable, "0") in ("", "0") for variable in PROCESS):
            with suppress(OSError):
                os.write(2, f"\nzoo: {signal.Signals(number).name}: saving at the next safe point\n".encode())

    def listen_to(self, number: int) -> None:
        """Handle this signal and no other; one that has a handler, such as a launcher's own, is left alone."""
        if signal.getsignal(number) is self:
            return
        self.leave()
        if signal.getsignal(number) == signal.SIG_DFL:
            self._before[number] = signal.signal(number, self)

    def leave(self) -> None:
        """Give back what it handles."""
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)


@contextmanager
def listening(command: str) -> Iterator[None]:
    """Within a SLURM job, SIGUSR1 is noted while ``fit`` runs, from before the trainer is built.

    Args:
        command: the one that runs within; for all but ``fit`` nothing is done.
    """
    if command != "fit" or "SLURM_JOB_ID" not in os.environ:
        yield
        return
    handler, sigterm = RequeueSignal(), signal.getsignal(signal.SIGTERM)
    handler.listen_to(signal.SIGUSR1)
    try:
        yield
    finally:
        handler.leave()
        if sigterm is not None:  # which is what a library's is
            signal.signal(signal.SIGTERM, sigterm)


class RunningJob:
    """The SLURM job of a run, as long as it trains.

    Args:
        handler: notes the signal.
        number: the signal that asks for a requeue.
        requeues: whether the job is requeued, or the run only saves and stops.
    """

    def __init__(self, handler: RequeueSignal, number: int, requeues: bool) -> None:
        self.handler, self.number, self.requeues = handler, number, requeues
        self._last, self._longest = float("inf"), 0.0
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        self._end = float(end) if end.isdigit() else None
        self._half = (self._end - time.time()) / 2 if self._end is not None else 0.0

    def asked(self) -> int:
        """The signal if a requeue is asked for, else 0; called at each safe point.

        The end of the job asks, too: when less time is left than a minute or three times the longest way between two
        safe points, whichever is more, but never before half of the time has been used.
        """
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now  # not the first: it may have compiled
        if self.handler.received:
            return self.number
        needed = min(max(AT_LEAST, 3 * self._longest), self._half)
        return self.number if self._end is not None and self._end - time.time() < needed else 0

    def requeue(self, trainer: Trainer) -> str | None:
        """Put the job back into the queue, after all processes have saved.

        Returns:
            what the process has to say about it, which is nothing in all but the first; None if the run only stops.
        """
        if not self.requeues:
            return None
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # SLURM ends the job now, and we are leaving already
        trainer.strategy.barrier()
        said = _requeue() if trainer.is_global_zero else ""
        trainer.strategy.barrier()  # else srun might end the first process before it has asked
        return said


def job_of(trainer: Trainer) -> RunningJob | None:
    """The job that this process belongs to; None outside, or where another handler of SIGUSR1 was there before ours.

    A recipe's ``SLURMEnvironment`` may name another signal, and that the job is not requeued.
    """
    handler = signal.getsignal(signal.SIGUSR1) if "SLURM_JOB_ID" in os.environ else None
    if not isinstance(handler, RequeueSignal):
        return None
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment):
        return RunningJob(handler, signal.SIGUSR1, requeues=True)
    number = environment.requeue_signal or signal.SIGUSR1
    handler.listen_to(number)
    return RunningJob(handler, number, environment.auto_requeue)


def _job_id() -> str:
    """As ``scontrol`` wants it: a task of an array by the array's number and its own."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ["SLURM_JOB_ID"]


def _requeue() -> str:
    job = _job_id()
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"saved, but job {job} is not requeued: {error}"
    if done.returncode == 0:
        return f"saved, job {job} is requeued"
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return f"saved, but job {job} is not requeued: scontrol: {said[-1]}"
