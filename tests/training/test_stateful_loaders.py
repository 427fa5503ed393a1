"""A third party's loader that keeps its own position is given it back, also where the number of steps was asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from running import quiet_trainer
from torch import Tensor, nn

from zoo.training.callbacks import RunCheckpoints
from zoo.training.loader_states import RestoreLoaders


class Stateful:
    """Six numbers an epoch; remembers where it is, as litData's and torchdata's loaders do."""

    def __init__(self) -> None:
        self.at = 0

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[Tensor]:
        self.at %= 6
        while self.at < 6:
            self.at += 1
            yield torch.tensor([[float(self.at)]])

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class Sees(LightningModule):
    """Notes what it sees; asks for the number of steps if ``asks``."""

    def __init__(self, asks: bool) -> None:
        super().__init__()
        self.line, self.asks, self.seen = nn.Linear(1, 1), asks, []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append(int(batch))
        return self.line(batch).mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        if not self.asks:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=int(steps))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def fit(folder: Path, loader: Any, asks: bool, resumed: Path | None = None) -> list[int]:
    task = Sees(asks)
    trainer = quiet_trainer(callbacks=[RestoreLoaders(), RunCheckpoints(folder, None, every_n_steps=1)])
    trainer.fit(task, loader, [torch.zeros(1, 1)], ckpt_path=resumed, weights_only=True)
    return task.seen


@pytest.mark.parametrize("asks", [False, True])
def test_the_position_is_restored(asks: bool, tmp_path: Path) -> None:
    both = 2 * [1, 2, 3, 4, 5, 6]
    assert fit(tmp_path / "whole", Stateful(), asks) == both
    for step in (2, 5, 6, 8, 11):
        seen = fit(tmp_path / str(step), Stateful(), asks, tmp_path / "whole" / f"step={step}.ckpt")
        assert seen == both[step:], f"resumed at step {step}"
