"""What every run says and keeps: lines, pictures, the best and the last checkpoint."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from running import folder_of, write_recipe, zoo

from zoo.training.callbacks import RunCheckpoints, _clock
from zoo.training.checkpoints import read

MODEL = {"class_path": "ToyClassification", "init_args": {"architecture": "ToyNet"}}


@pytest.mark.parametrize(
    ("mode", "scores", "kept"), [("max", [0.2, 0.5, 0.4], 0.5), ("min", [3.0, math.nan, 2.0, 2.5], 2.0)]
)
def test_the_best_score_is_kept(mode: str, scores: list[float], kept: float, tmp_path: Path) -> None:
    saver = RunCheckpoints(tmp_path, "val/x", mode)
    for score in scores:
        saver._note_score(score)
        saver._safe_point(Mock(world_size=1, is_global_zero=False))
    assert saver.best_score == kept


@pytest.mark.parametrize(
    ("every", "interval", "epoch", "safe"),
    [
        (None, 4, 0, [0, 1, 2, 4, 5, 6, 8, 9, 10]),  # counted over epochs
        (1, 4, 0, [0, 1, 2, 4, 5, 6, 7, 8, 10, 11]),
        (2, 1, 0, list(range(12))),  # an epoch without a validation
        (2, 1, 1, []),
        (1, None, 0, list(range(12))),  # due by the clock
    ],
)
def test_a_validation_that_is_due_is_waited_for(
    every: int | None, interval: int | None, epoch: int, safe: list[int], tmp_path: Path, monkeypatch
) -> None:
    """A checkpoint between a step and its validation would leave the validation out when the run goes on."""
    found: list[int] = []
    saver = RunCheckpoints(tmp_path, None)
    monkeypatch.setattr(saver, "_safe_point", lambda trainer: found.append(trainer.fit_loop.total_batch_idx))
    for total in range(12):
        trainer: Any = SimpleNamespace(
            accumulate_grad_batches=1,
            check_val_every_n_epoch=every,
            current_epoch=epoch,
            enable_validation=True,
            val_check_batch=interval,
            is_last_batch=False,
            should_stop=False,
            fit_loop=SimpleNamespace(total_batch_idx=total),
        )
        saver.on_train_batch_end(trainer, None, None, None, total % 6)  # type: ignore[arg-type]
    assert found == safe


def test_best_and_last(workspace: Path) -> None:
    recipe = str(write_recipe(workspace / "toy.yaml", MODEL, {"class_path": "ToyTensors"}, max_epochs=6))
    assert zoo("fit", "--config", recipe, "--no_test", "--model.optimizer.lr", "2") == 0
    folder = folder_of("toy") / "checkpoints"
    assert {p.name for p in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    best, last = read(folder / "best.ckpt"), read(folder / "last.ckpt")
    assert last["epoch"] == 5
    assert best["epoch"] < 5, "a rate of 2 diverges"
    key = next(k for k in last["callbacks"] if "RunCheckpoints" in k)
    assert best["callbacks"][key] == last["callbacks"][key]


def test_without_validation_the_last_is_tested(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"class_path": "ToyTensors", "init_args": {"validation": False}}
    recipe = str(write_recipe(workspace / "toy.yaml", MODEL, data, max_epochs=1))
    assert zoo("fit", "--config", recipe) == 0
    assert "checkpoints/last.ckpt" in capsys.readouterr().out
    assert not (folder_of("toy") / "checkpoints/best.ckpt").exists()


def test_weight_averaging_is_what_is_tested(workspace: Path) -> None:
    """The checkpoint that is tested holds the averaged weights, not the current ones."""
    ema = [{"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9}}]
    recipe = str(write_recipe(workspace / "toy.yaml", MODEL, {"class_path": "ToyTensors"}, callbacks=ema))
    assert zoo("fit", "--config", recipe) == 0
    from zoo.training.restore import load

    folder = folder_of("toy")
    checkpoint = read(folder / "checkpoints/best.ckpt")
    averaged, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert not torch.equal(averaged["architecture.conv.weight"], current["architecture.conv.weight"])
    assert torch.equal(load(folder).architecture.conv.weight, averaged["architecture.conv.weight"])


def test_a_line_an_epoch(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(write_recipe(workspace / "toy.yaml", MODEL, {"class_path": "ToyTensors"}))
    assert zoo("fit", "--config", recipe, "--no_test") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  train/loss ")
    assert "val/loss" in lines[0]
    assert lines[0].endswith(" left")
    assert _clock(3725) == "1:02:05"
