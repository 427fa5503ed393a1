"""Beside a recipe's own checkpoints, a signal is heeded as in every run."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from running import quiet_trainer
from zoo_toys.data import ToyTensors
from zoo_toys.tasks import ToyClassification

from zoo.cli.own_callbacks import SaveWhenStopped, say_inexact
from zoo.training.callbacks import Stopped
from zoo.training.checkpoints import AtomicCheckpointIO, read


class SignalAt(Callback):
    """Sends the process a signal after its first batches, of which three make a step."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == 3:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_callback_that_does_not_go_on_exactly_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    say_inexact([WeightAveraging(), ModelCheckpoint()])
    assert capsys.readouterr().out == ""
    say_inexact([StochasticWeightAveraging(swa_lrs=0.1)])
    assert "StochasticWeightAveraging does not go on exactly" in capsys.readouterr().out


@pytest.mark.parametrize("stopped", [False, True])
def test_a_signal_saves_at_the_next_safe_point_and_nothing_else_does(stopped: bool, tmp_path: Path) -> None:
    trainer = quiet_trainer(
        max_epochs=1,
        accumulate_grad_batches=3,
        callbacks=[
            *([SignalAt()] if stopped else []),
            ModelCheckpoint(tmp_path / "own", every_n_epochs=1),
            SaveWhenStopped(tmp_path),
        ],
        plugins=[AtomicCheckpointIO()],
    )
    handler = signal.getsignal(signal.SIGTERM)
    if stopped:
        with pytest.raises(Stopped, match=f"zoo fit --ckpt_path {tmp_path / 'last.ckpt'}") as left:
            trainer.fit(ToyClassification(), datamodule=ToyTensors())
        assert left.value.status == 143
        assert read(tmp_path / "last.ckpt")["global_step"] == 2, "gathered gradients were applied first"
    else:
        trainer.fit(ToyClassification(), datamodule=ToyTensors())
        assert not (tmp_path / "last.ckpt").exists()
        assert list((tmp_path / "own").iterdir())
    assert signal.getsignal(signal.SIGTERM) == handler
