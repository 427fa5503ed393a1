"""On a real SLURM cluster of two nodes: the right folder and world size, and a requeued job ends as if undisturbed."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import different, state, write_recipe
from slurm_cluster import Cluster, missing

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

TESTS = Path(__file__).parent
SCRIPT = (TESTS.parent / "zoo" / "cli" / "slurm.sh").read_text()
# MASTER_ADDR: the nodes' names are known to this cluster alone.
ENVIRONMENT = {
    "MASTER_ADDR": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{TESTS / 'toys'}{os.pathsep}{TESTS.parent}",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp", ignore_cleanup_errors=True) as folder:
        here = Cluster(Path(folder))
        programs = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{here.environment['PATH']}"}
        here.environment |= ENVIRONMENT | programs
        try:
            try:
                here.start()
            except RuntimeError as error:
                pytest.skip(f"SLURM is installed, but does not start here: {error}")
            yield here
        finally:
            here.stop()


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where a job of two nodes has run, and its number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        job = train(cluster)
        assert cluster.wait(job) == "COMPLETED", log(job)
        return Path.cwd(), job


def train(cluster: Cluster) -> str:
    """Start the batch script that is installed."""
    toy = [{"class_path": "ToyClassification"}, {"class_path": "ToyTensors"}]
    write_recipe(Path("toy.yaml"), *toy, max_epochs=40)
    return cluster.submit(SCRIPT, "--config", "toy.yaml", "--no_test")


def log(job: str) -> str:
    return Path(f"slurm-{job}.out").read_text()


def when_it_trains(cluster: Cluster, job: str) -> Path:
    """The checkpoint that the job has written, as soon as it has."""
    last, until = Path(f"runs/toy/slurm-{job}.0/checkpoints/last.ckpt"), time.monotonic() + 400
    while not last.is_file():
        assert time.monotonic() < until, log(job)
        assert cluster.field(job, "JobState") in ("PENDING", "CONFIGURING", "RUNNING"), log(job)
        time.sleep(0.1)
    time.sleep(0.5)
    return last


def test_a_job_of_two_nodes_is_one_run_of_two_processes(undisturbed: tuple[Path, str]) -> None:
    folder, job = undisturbed
    assert "waiting for all 2 processes to start" in (folder / f"slurm-{job}.out").read_text()
    assert [run.name for run in (folder / "runs" / "toy").iterdir()] == [f"slurm-{job}.0"]


@pytest.mark.parametrize("told", [False, True], ids=["requeued", "warned"])
def test_a_requeued_job_goes_on_and_ends_with_the_same_weights(
    told: bool, cluster: Cluster, undisturbed: tuple[Path, str]
) -> None:
    """By whoever runs the cluster, and by itself, after the signal that SLURM sends before a time limit."""
    job = train(cluster)
    last = when_it_trains(cluster, job)
    cluster.call(*(["scancel", "--signal=USR1", job] if told else ["scontrol", "requeue", job]))
    assert cluster.wait(job) == "COMPLETED", log(job)
    assert cluster.field(job, "Restarts") == "1", log(job)
    assert log(job).count(f"zoo: saved, job {job} is requeued\n") == told
    assert [run.name for run in Path("runs/toy").iterdir()] == [f"slurm-{job}.0"]
    before, number = undisturbed
    assert not different(state(last), state(before / "runs/toy" / f"slurm-{number}.0" / "checkpoints" / "last.ckpt"))


def test_a_script_that_loops_over_seeds_has_a_folder_for_each(cluster: Cluster) -> None:
    write_recipe(Path("toy.yaml"), {"class_path": "ToyClassification"}, {"class_path": "ToyTensors"})
    loop = (
        "#!/bin/sh\nfor seed in 0 1; do zoo fit --config toy.yaml --no_test --seed_everything $seed || exit 1; done\n"
    )
    job = cluster.submit(loop)
    assert cluster.wait(job) == "COMPLETED", log(job)
    folders = {run.name: run for run in Path("runs/toy").iterdir()}
    assert sorted(folders) == [f"slurm-{job}.batch", f"slurm-{job}.batch-2"]
    for seed, run in enumerate(folders[name] for name in sorted(folders)):
        assert f"seed_everything: {seed}" in (run / "recipe.yaml").read_text()
