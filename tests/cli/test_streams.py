"""A run outlives whoever reads its output."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import TOYS, write_recipe

from zoo.training.checkpoints import read

PRINTS = """
import sys, time
from zoo.cli.streams import outlive_readers
outlive_readers(); outlive_readers()
for i in range(2000):
    print(i, "x" * 100, flush=i % 2 == 0)
    print(i, "x" * 100, file=sys.stderr)
open("done", "w").write(sys.stdout.encoding)
"""


def test_a_reader_that_leaves_ends_nothing(workspace: Path) -> None:
    command = [sys.executable, "-c", PRINTS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("0 x")
        process.stdout.close()
        assert process.wait(60) == 0
    assert Path("done").read_text() == "utf-8"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_log_on_a_full_disk_ends_nothing(workspace: Path) -> None:
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([sys.executable, "-c", PRINTS], stdout=full, stderr=full, timeout=60).returncode == 0
    assert Path("done").exists()


def test_a_terminal_that_closes_loses_nothing(workspace: Path) -> None:
    """SIGHUP, with nobody left to read what the run says."""
    model = {"class_path": "ToyClassification", "init_args": {"architecture": "ToyNet"}}
    recipe = write_recipe(Path("toy.yaml"), model, {"class_path": "ToyTensors"}, max_epochs=100000)
    command = [sys.executable, "-m", "zoo", "fit", "--config", str(recipe), "--out", "run"]
    environment = {**os.environ, "PYTHONPATH": TOYS, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith(b"epoch 2/"):
            assert process.poll() is None
        process.stdout.close()
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 129
    assert read("run/checkpoints/last.ckpt")["epoch"] >= 1
