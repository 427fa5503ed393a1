"""The signal that SLURM sends before a job's time limit, and the limit itself: saved at a safe point, then requeued."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from running import folder_of, quiet_trainer, write_recipe, zoo
from zoo_toys.data import ToyTensors
from zoo_toys.tasks import ToyClassification

from zoo.cli.own_callbacks import SaveWhenStopped
from zoo.training.callbacks import RunCheckpoints, Stopped
from zoo.training.checkpoints import AtomicCheckpointIO, read
from zoo.training.requeue import RequeueSignal, RunningJob, listening


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Job 17, and the file in which its ``scontrol`` notes what it is asked for."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = tmp_path / "asked"
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\ncat {tmp_path}/refusal >&2 2>/dev/null && exit 1\nexit 0\n')
    program.chmod(0o755)
    return asked


class SignalAfter(Callback):
    """Sends the process a signal in the middle of its fourth batch, of which three make a step."""

    def __init__(self, number: int | None) -> None:
        self.number = number

    def on_before_backward(self, trainer: Trainer, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == 3 and self.number:
            os.kill(os.getpid(), self.number)


def stopped(folder: Path, number: int | None, cls: Any = RunCheckpoints, **options: Any) -> Stopped:
    """How a run ends that gets the signal; ``options`` are the trainer's."""
    saver = cls(folder, **({"monitor": None} if cls is RunCheckpoints else {}))
    plugins = [AtomicCheckpointIO(), *options.pop("plugins", [])]
    options = {"max_epochs": 9, "accumulate_grad_batches": 3, **options}
    with listening("fit"):
        trainer = quiet_trainer(callbacks=[SignalAfter(number), saver], plugins=plugins, **options)
        with pytest.raises(Stopped) as left:
            trainer.fit(ToyClassification(), datamodule=ToyTensors())
    for one in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        assert signal.getsignal(one) == signal.SIG_DFL
    return left.value


@pytest.mark.parametrize("cls", [RunCheckpoints, SaveWhenStopped])
def test_the_signal_saves_after_the_step_and_requeues(cls: Any, job: Path, tmp_path: Path) -> None:
    end = stopped(tmp_path, signal.SIGUSR1, cls)
    assert (str(end), end.status) == ("saved, job 17 is requeued", 138)
    assert read(tmp_path / "last.ckpt")["global_step"] == 2, "gathered gradients were applied first"
    assert job.read_text() == "requeue 17\n"


def test_a_task_of_an_array_is_requeued_by_its_own_number(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "16")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert str(stopped(tmp_path, signal.SIGUSR1)) == "saved, job 16_3 is requeued"
    assert job.read_text() == "requeue 16_3\n"


def test_a_refusal_is_said_in_one_line(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "refusal").write_text("slurm_requeue error:\nRequested operation is presently disabled for job 17\n")
    end = stopped(tmp_path, signal.SIGUSR1)
    said = "scontrol: Requested operation is presently disabled for job 17"
    assert (str(end), end.status) == (f"saved, but job 17 is not requeued: {said}", 138)
    monkeypatch.setenv("PATH", "/nowhere")
    end = stopped(tmp_path, signal.SIGUSR1)
    assert str(end).startswith("saved, but job 17 is not requeued: ")
    assert "\n" not in str(end)
    assert end.status == 138


def test_a_recipe_s_environment_names_the_signal_and_that_nothing_is_requeued(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with listening("validate"):
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    end = stopped(tmp_path, signal.SIGUSR2, plugins=[SLURMEnvironment(requeue_signal=signal.SIGUSR2)])
    assert (str(end), end.status) == ("saved, job 17 is requeued", 140)
    job.unlink()
    end = stopped(tmp_path, signal.SIGUSR1, plugins=[SLURMEnvironment(auto_requeue=False)])
    assert str(end) == f"stopped by SIGUSR1; resume with: zoo fit --ckpt_path {tmp_path / 'last.ckpt'}"
    assert end.status == 138
    assert not job.exists()


def test_sigterm_stops_without_requeue(job: Path, tmp_path: Path) -> None:
    assert stopped(tmp_path, signal.SIGTERM).status == 143
    assert not job.exists()


@pytest.mark.parametrize(
    ("lasts", "step", "asks_after"),
    [(1000, 5, 945), (1000, 100, 800), (60, 5, 35), (None, 5, None)],
    ids=["a minute before", "three steps before", "not before half of it", "no end"],
)
def test_a_run_asks_for_itself_before_the_job_ends(
    lasts: int | None, step: int, asks_after: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1e9)
    clock.time = clock.monotonic = lambda: clock.now
    monkeypatch.setattr("zoo.training.requeue.time", clock)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(clock.now) + lasts) if lasts else "")
    job = RunningJob(RequeueSignal(), signal.SIGUSR1, requeues=True)
    for used in range(step, 1001, step):
        clock.now = 1e9 + used
        if job.asked():
            assert job.asked() == signal.SIGUSR1
            assert used == asks_after
            return
    assert asks_after is None


def test_the_end_of_a_job_saves_and_requeues(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) - 1))
    end = stopped(tmp_path, None)
    assert (str(end), end.status) == ("saved, job 17 is requeued", 138)
    assert read(tmp_path / "last.ckpt")["global_step"] == 1


def test_another_s_handler_is_left_alone(job: Path) -> None:
    def own(number: int, frame: Any) -> None:
        raise AssertionError

    signal.signal(signal.SIGUSR1, own)
    try:
        with listening("fit"):
            assert signal.getsignal(signal.SIGUSR1) is own
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_the_command_heeds_a_signal_that_came_before_training(job: Path, workspace: Path, capsys, monkeypatch) -> None:
    """While it downloads, for example; the job's folder is the one that its next start goes on with."""
    model = {"class_path": "ToyClassification"}
    recipe = str(write_recipe(workspace / "toy.yaml", model, {"class_path": "ToyTensors"}, max_epochs=3))
    prepare = ToyTensors.prepare_data
    monkeypatch.setattr(ToyTensors, "prepare_data", lambda s: (os.kill(os.getpid(), signal.SIGUSR1), prepare(s))[1])
    assert zoo("fit", "--config", recipe, "--no_test") == 138
    printed = capsys.readouterr().out
    assert printed.endswith("\nzoo: saved, job 17 is requeued\n"), printed
    assert read(folder_of("toy") / "checkpoints" / "last.ckpt")["global_step"] == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    monkeypatch.setattr(ToyTensors, "prepare_data", prepare)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert zoo("fit", "--config", recipe, "--no_test") == 0
    assert [run.name for run in Path("runs/toy").iterdir()] == ["slurm-17.batch"]
