"""A full disk and a run folder that is gone end a run in words."""

import errno
import shutil
from pathlib import Path

import pytest
import torch
from running import folder_of, said, write_recipe

from zoo.errors import UserError
from zoo.training.checkpoints import AtomicCheckpointIO
from zoo.training.storage import message, reason


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_named_whatever_the_library_makes_of_it() -> None:
    file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115  to close it fails, too
    with pytest.raises((RuntimeError, OSError)) as failed:
        torch.save({"w": torch.zeros(100_000)}, file)
    assert reason(failed.value) == "the disk is full, or your quota on it used up (No space left on device)"
    assert reason(RuntimeError("something\nelse")) == "something"


def test_each_cause_is_one_line(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "x/metrics.csv")
    assert str(message(full, tmp_path)).startswith("x/metrics.csv could not be written: the disk is full")
    assert f"written to {tmp_path}: the disk is full" in str(message(OSError(errno.EDQUOT, "Quota"), tmp_path))
    lost = FileNotFoundError(errno.ENOENT, "No such file", "x")
    assert str(message(lost, Path("gone/run"))).startswith("the run's folder gone/run is gone")
    for other in (lost, ValueError("odd"), OSError("odd")):
        assert message(other, tmp_path) is None


def test_nothing_is_saved_into_a_folder_that_is_gone(workspace: Path) -> None:
    folder = Path("runs/x/1")
    folder.mkdir(parents=True)
    shutil.rmtree("runs")
    with pytest.raises(UserError, match="the run's folder runs/x/1 is gone"):
        AtomicCheckpointIO(folder).save_checkpoint({}, folder / "checkpoints/last.ckpt")
    assert not Path("runs").exists()


def test_a_disk_that_is_full_before_the_first_file(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(Path("toy.yaml"), {"class_path": "ToyClassification"}, {"class_path": "ToyTensors"})

    def full(*given: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert "could not be written" not in (line := said(capsys, "fit", "--config", str(recipe)))
    assert "nothing can be written to runs/toy/" in line
    assert "the disk is full" in line
    with pytest.raises(FileNotFoundError):
        folder_of("toy")
