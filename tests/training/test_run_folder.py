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
    first = in_job(monkeypatch)
    restart = "SLURM_RESTART_COUNT" if "SLURM_JOB_ID" in environment else "TORCHELASTIC_RESTART_COUNT"
    assert in_job(monkeypatch, **{restart: "1"}) == first == Path("runs/x") / name


def in_job(monkeypatch, recipe: str = "", **environment: str) -> Path:
    """The folder that a new process of a job gets."""
    monkeypatch.delenv(run_folder.VARIABLE, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    return run_folder.folder_for("x", recipe=recipe)


def test_each_run_of_a_job_has_its_own_folder_and_finds_it_again(workspace: Path, monkeypatch) -> None:
    """A batch script that loops over seeds, killed in its second; the restart leaves the first out."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    first, second = (in_job(monkeypatch, seed) for seed in ("seed 0", "seed 1"))
    assert [first.name, second.name] == ["slurm-17.batch", "slurm-17.batch-2"]
    again = in_job(monkeypatch, "seed 1", SLURM_RESTART_COUNT="1")
    assert again == second
    assert in_job(monkeypatch, "seed 2").name == "slurm-17.batch-3", "new in this start"
    assert in_job(monkeypatch, "seed 1").name == "slurm-17.batch-4", "the second of one recipe in one start"
    assert in_job(monkeypatch, "seed 1", SLURM_RESTART_COUNT="2") == second
    assert in_job(monkeypatch, "seed 1").name == "slurm-17.batch-4"


def test_processes_of_a_run_agree_and_their_second_run_has_another_folder(workspace: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    # Process 0 is ahead by a run.
    folders = [in_job(monkeypatch, "a", SLURM_PROCID=process).name for process in "00112"]
    assert folders == ["slurm-17.0", "slurm-17.0-2", "slurm-17.0", "slurm-17.0-2", "slurm-17.0"]
    more = [in_job(monkeypatch, "a", SLURM_PROCID=p, SLURM_RESTART_COUNT="1").name for p in "0123"]
    assert more == ["slurm-17.0"] * 4, "a process that was not there before goes along"


def test_a_count_of_restarts_that_is_none_is_refused(workspace: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with pytest.raises(UserError, match="ZOO_RESTART_COUNT is 'yes'"):
        in_job(monkeypatch, ZOO_RESTART_COUNT="yes")


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


def test_a_chosen_folder_is_a_jobs_for_one_run_and_its_restarts(workspace: Path, monkeypatch) -> None:
    def chosen(**environment: str) -> Path:
        monkeypatch.delenv(run_folder.VARIABLE, raising=False)
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        return run_folder.folder_for("x", out="mine")

    assert chosen(SLURM_JOB_ID="17") == Path("mine")
    Path("mine/checkpoints").mkdir()
    Path("mine/checkpoints/last.ckpt").write_text("")
    assert chosen(SLURM_PROCID="1") == Path("mine"), "the other process of the run"
    with pytest.raises(UserError, match="already holds a run"):
        chosen()
    assert chosen(SLURM_RESTART_COUNT="1") == Path("mine")
    with pytest.raises(UserError, match="already holds a run"):
        chosen(SLURM_JOB_ID="18")


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
