"""Checkpoints are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest
import torch

from zoo.cli.resuming import checkpoint_after_restart
from zoo.errors import UserError
from zoo.training.checkpoints import AtomicCheckpointIO, find_last, read, resolve

CONTENT = {"state_dict": {"w": torch.arange(5.0)}}


def test_a_failed_write_leaves_what_was_there(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workspace / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    before = path.read_bytes()
    real = torch.save

    def full(content: object, target: Path) -> None:
        real(content, target)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last\.ckpt could not be written: .*No space left"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, path)
    assert path.read_bytes() == before
    assert [p.name for p in workspace.iterdir()] == ["last.ckpt"], "no temporary file is left"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_the_target_is_never_half_written(call: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever system call fails, the target is the old file or the new one."""
    path = workspace / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)

    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(UserError, match="Input/output error"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(1)}}, path)
    assert torch.equal(read(path)["state_dict"]["w"], torch.arange(5.0))


def test_the_file_is_synced_before_it_takes_its_name(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("sync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("rename"), replace(self, to))[1])
    AtomicCheckpointIO().save_checkpoint(CONTENT, workspace / "last.ckpt")
    assert done == ["sync", "rename", "sync"], "the file, its name, the folder that holds the name"


def test_last_is_the_newest_whole_one(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, name in enumerate(("old", "new", "damaged")):
        path = Path("runs/x") / name / "checkpoints" / "last.ckpt"
        AtomicCheckpointIO().save_checkpoint(CONTENT, path)
        if name == "damaged":
            path.write_bytes(path.read_bytes()[:-100])
        os.utime(path, (1e9 + i, 1e9 + i))
    assert find_last(Path("runs")).parts[2] == "new"
    assert "damaged" in capsys.readouterr().out
    with pytest.raises(UserError, match="no whole checkpoint"):
        find_last(Path("nowhere"))


def test_whole_checkpoints_beside_a_damaged_one_are_offered_newest_first(workspace: Path) -> None:
    folder = Path("runs/my run/1/checkpoints")
    for step, name in ((2, "best"), (5, "step=5"), (4, "step=4"), (6, "last"), (3, "step=3"), (7, "step=7")):
        AtomicCheckpointIO().save_checkpoint({**CONTENT, "global_step": step}, folder / f"{name}.ckpt")
    for name in ("last", "step=7"):
        (folder / f"{name}.ckpt").write_bytes((folder / f"{name}.ckpt").read_bytes()[:-100])
    offer = (
        "step=5.ckpt (step 5), step=4.ckpt (step 4), step=3.ckpt (step 3): --ckpt_path 'runs/my run/1/checkpoints/step"
    )
    with pytest.raises(UserError, match="damaged") as refused:
        read(folder / "last.ckpt")
    assert f"whole beside it: {offer}" in str(refused.value)
    (folder / "last.ckpt").unlink()
    (folder / "best.ckpt").unlink()
    with pytest.raises(UserError, match="no such checkpoint") as refused:
        read(resolve("runs/my run/1"))
    assert offer in str(refused.value)


def test_a_damaged_last_means_the_newest_whole_one_of_the_same_run(workspace: Path, monkeypatch) -> None:
    for step, name in ((9, "other/checkpoints/last"), (1, "run/checkpoints/best"), (2, "run/checkpoints/last")):
        AtomicCheckpointIO().save_checkpoint({**CONTENT, "global_step": step}, Path("runs/x") / f"{name}.ckpt")
    last = Path("runs/x/run/checkpoints/last.ckpt")
    last.write_bytes(b"")
    assert find_last(Path("runs")) == last.with_name("best.ckpt")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert checkpoint_after_restart(Path("runs/x/run")) is None, "the job's first start"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert checkpoint_after_restart(Path("runs/x/run")) == last.with_name("best.ckpt")
    assert checkpoint_after_restart(Path("runs/x/new")) is None
    monkeypatch.delenv("SLURM_JOB_ID")
    assert checkpoint_after_restart(Path("runs/x/run")) is None


def test_a_folder_without_checkpoints_is_said_to_be_one(workspace: Path) -> None:
    Path("runs").mkdir()
    with pytest.raises(UserError, match=r"the folder runs holds no best\.ckpt or last\.ckpt"):
        read(resolve("runs"))


def test_a_run_folder_means_its_best(workspace: Path) -> None:
    folder = Path("runs/x/1/checkpoints")
    for name in ("last", "best"):
        AtomicCheckpointIO().save_checkpoint(CONTENT, folder / f"{name}.ckpt")
    assert resolve("runs/x/1") == folder / "best.ckpt"
    (folder / "best.ckpt").unlink()
    assert resolve("runs/x/1") == folder / "last.ckpt"
