"""What is special about the task; what every task must do is asked by the zoo's kit, in ``test_plugin.py``."""

import pytest
import torch
from zoo_example.task import brier

from zoo.__main__ import main


def test_score_is_the_squared_distance_from_the_truth() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    labels = torch.tensor([0, 1, 2])
    by_hand = torch.tensor([0.3**2 + 0.2**2 + 0.1**2, 0.0, 2.0])
    torch.testing.assert_close(brier(probabilities.clamp(min=1e-30).log(), labels), by_hand)


def test_recipe_learns(tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert main(["fit", "--config", "zoo-example-task", "--trainer.logger=false"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("test/top1 ")]
    assert float(line.split()[1]) >= 0.95
