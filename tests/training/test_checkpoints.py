"""Checkpoints are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest
import torch

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


def test_a_run_folder_means_its_best(workspace: Path) -> None:
    folder = Path("runs/x/1/checkpoints")
    for name in ("last", "best"):
        AtomicCheckpointIO().save_checkpoint(CONTENT, folder / f"{name}.ckpt")
    assert resolve("runs/x/1") == folder / "best.ckpt"
    (folder / "best.ckpt").unlink()
    assert resolve("runs/x/1") == folder / "last.ckpt"
