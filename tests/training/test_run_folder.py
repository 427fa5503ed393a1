"""Run folders: one each, shared where several processes make one run."""

import os
from pathlib import Path

import pytest

from zoo.errors import UserError
from zoo.training import run_folder


def test_two_runs_in_one_second_have_two_folders(workspace: Path) -> None:
    made = [run_folder.new_folder(Path("runs/x"), "20260101-000000").name for _ in range(3)]
    assert made == ["20260101-000000", "20260101-000000-2", "20260101-000000-3"]


def test_processes_that_lightning_starts_share_the_folder(workspace: Path) -> None:
    first = run_folder.folder_for("x")
    assert run_folder.folder_for("y") == first, "told by the environment"


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"}, "slurm-17.0"),
        ({"TORCHELASTIC_RUN_ID": "abc"}, "torchrun-abc"),
    ],
)
def test_a_restarted_job_finds_its_folder(environment, name, workspace: Path, monkeypatch) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    first = run_folder.folder_for("x")
    monkeypatch.delenv(run_folder.VARIABLE)
    assert run_folder.folder_for("x") == first == Path("runs/x") / name


def test_torchrun_on_several_nodes_needs_a_run_id(workspace: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--rdzv-id"):
        run_folder.folder_for("x")


def test_a_run_is_not_written_over_but_may_be_added_to(workspace: Path, monkeypatch) -> None:
    Path("mine/checkpoints").mkdir(parents=True)
    Path("mine/checkpoints/last.ckpt").write_text("")
    with pytest.raises(UserError, match="already holds a run"):
        run_folder.folder_for("x", out="mine")
    assert run_folder.folder_for("test-x", out="mine", trains=False) == Path("mine")
    monkeypatch.delenv(run_folder.VARIABLE)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert run_folder.folder_for("x", out="mine") == Path("mine"), "a requeued job goes on there"


def test_a_checkpoint_outside_a_run_has_no_owner(workspace: Path) -> None:
    folder = run_folder.new_folder(Path("runs/x"))
    (folder / "checkpoints").mkdir()
    assert run_folder.owner_of(folder / "checkpoints/last.ckpt") is None
    (folder / run_folder.RECIPE).write_text("")
    assert run_folder.owner_of(folder / "checkpoints/last.ckpt") == folder
    assert run_folder.owner_of(Path("elsewhere.ckpt")) is None


def test_a_run_that_did_not_start_leaves_no_folder(workspace: Path) -> None:
    folder = run_folder.folder_for("x")
    run_folder.forget_if_empty()
    assert not Path("runs/x").exists()
    run_folder.new_folder(Path("runs/x"), folder.name)
    (folder / "kept.txt").write_text("")
    run_folder.forget_if_empty()
    assert folder.is_dir()


def test_a_folder_that_was_there_is_never_removed(workspace: Path) -> None:
    """Though it holds no file: its folders and links are the user's."""
    (workspace / "elsewhere").mkdir()
    for given, made in (("mine", True), ("new", False)):
        if made:
            (workspace / given / "empty").mkdir(parents=True)
            (workspace / given / "link").symlink_to("../elsewhere")
        run_folder.folder_for("x", out=given)
        run_folder.forget_if_empty()
        assert (workspace / given / "link").is_symlink() is (workspace / given / "empty").is_dir() is made
        del os.environ[run_folder.VARIABLE]
