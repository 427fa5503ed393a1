"""W&B: offline without an account, everything in the run's folder, and readable by W&B's own reader."""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace
from running import folder_of

from zoo.cli.loggers import choose_loggers
from zoo.errors import UserError
from zoo.training import wandb as zoo_wandb

BLOCK, HEAD = 32768, 7


def payloads(content: bytes) -> Iterator[bytes]:
    """The entries of W&B's file: a head of seven bytes, then LevelDB's log format (blocks of 32 KiB, joined parts)."""
    assert content.startswith(b":W&B")
    at, whole = HEAD, b""
    while at + HEAD <= len(content):
        if BLOCK - at % BLOCK < HEAD:
            at += BLOCK - at % BLOCK  # the rest of a block that can't hold a head is padding
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if kind == 0 or at + HEAD + length > len(content):
            return  # written only in part so far
        whole += content[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def records(folder: Path) -> list[Any]:
    """The records of an offline run that has ended; W&B's own process may still be writing the last of them."""
    deadline = time.monotonic() + 30
    while not (found := _records(folder)) or found[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < deadline, [r.WhichOneof("record_type") for r in found]
        time.sleep(0.2)
    return found


def _records(folder: Path) -> list[Any]:
    from wandb.proto import wandb_internal_pb2

    found = []
    for file in folder.glob("wandb/offline-run-*/run-*.wandb"):
        for payload in payloads(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(payload)
            found.append(record)
    return found


OTHER = """
import os, wandb
wandb.init(mode="offline", dir=".").finish()
print(os.environ["WANDB_SERVICE"], flush=True)
input()
"""


@pytest.mark.slow
def test_an_offline_run_holds_metrics_config_and_pictures(workspace: Path, zoo_process) -> None:
    argv = ["--model.architecture.width", "0.05", "--data", "Digits", "--data.image_size", "32", "--data.resize", "36"]
    limits = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"]
    limits += ["--trainer.log_every_n_steps", "1", "--trainer.limit_test_batches", "1"]
    # In a process of its own, whose end W&B's process waits for: in a shared one, the file may be written much later.
    # As if started by a process that has a run of W&B's, which leaves its service's address in the environment.
    (other := workspace.parent / f"{workspace.name}-other").mkdir()
    starting = {"args": [sys.executable, "-c", OTHER], "cwd": other, "text": True}
    with subprocess.Popen(**starting, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        service = process.stdout.readline().strip()
        done = zoo_process("fit", "--config", "alexnet", *argv, *limits, WANDB_SERVICE=service)
    assert done.returncode == 0, done.stderr
    folder = folder_of("alexnet")
    keys, configs = set(), {}
    for record in records(folder):
        keys |= {item.key or ".".join(item.nested_key) for item in record.history.item}
        configs |= {item.key: item.value_json for item in record.config.update}
    assert {"train/loss", "val/loss", "val/top1", "test/top1"} <= keys, keys
    media = [str(p.relative_to(folder)) for p in folder.rglob("media/images/**/*.png")]
    assert any("val" in m for m in media), media
    assert any("test" in m for m in media), media
    recipe = json.loads(configs["recipe"])
    assert recipe["data"]["class_path"] == "zoo.data.Digits"
    assert json.loads(configs["model_summary"])["parameters"] > 1000
    assert (folder / "wandb" / "cache").is_dir()
    assert {p.name for p in Path.cwd().iterdir()} == {"runs"}, "nothing lies outside the run's folder"
    assert list((folder / "pictures").glob("val-*.png"))


def _answering(delay: float) -> tuple[str, socket.socket]:
    server = socket.create_server(("127.0.0.1", 0))
    return f"http://127.0.0.1:{server.getsockname()[1]}", server


def test_a_server_that_does_not_answer_is_given_up() -> None:
    url, server = _answering(0)
    with server:  # accepts, says nothing
        start = time.monotonic()
        assert not zoo_wandb.reachable(url, timeout=0.3)
        assert time.monotonic() - start < 3
    assert not zoo_wandb.reachable(url, timeout=0.3), "nobody listens"


def test_a_key_without_network_goes_offline_in_one_line(workspace: Path, monkeypatch, capsys) -> None:
    import wandb

    url, server = _answering(0)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(zoo_wandb, "TIMEOUT", 0.3)
    monkeypatch.setattr(wandb, "login", lambda **kwargs: True)
    with server:
        monkeypatch.setattr(wandb.setup().settings, "base_url", url)
        assert zoo_wandb.configure_wandb(workspace) == "offline"
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "offline" in out
    assert os.environ["WANDB_MODE"] == "offline"


def test_without_an_account_there_is_no_prompt(workspace: Path, zoo_process, monkeypatch) -> None:
    code = "from zoo.training import wandb; from pathlib import Path; print(wandb.configure_wandb(Path('x')))"
    import subprocess

    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | {"HOME": str(workspace)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=env,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.stdout.strip().splitlines()[-1] == "offline", done.stderr


def test_the_environment_names_a_run_where_the_recipe_does_not(monkeypatch, tmp_path):
    def chosen(**own: str) -> tuple[str, str]:
        logger = Namespace(class_path="lightning.pytorch.loggers.WandbLogger", init_args=Namespace(**own))
        choose_loggers(Namespace(logger=logger), tmp_path / "run", "alexnet", None)
        return logger.init_args.project, logger.init_args.name

    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.delenv("WANDB_NAME", raising=False)
    assert chosen() == ("zoo", "alexnet-run")
    monkeypatch.setenv("WANDB_PROJECT", "digits")
    monkeypatch.setenv("WANDB_NAME", "first")
    assert chosen() == ("digits", "first")
    assert chosen(project="mine") == ("mine", "first")
    assert chosen(name="own") == ("digits", "own")


def test_a_mode_that_there_is_not_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "off")
    with pytest.raises(UserError, match="WANDB_MODE is 'off': give online, offline or disabled"):
        zoo_wandb.configure_wandb(tmp_path)
