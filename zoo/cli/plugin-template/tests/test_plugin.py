"""What every entry must do is asked by the zoo's own kit; below it stands what is special about this plugin."""

import pytest
import torch
from zoo_example.data import draw
from zoo_example.network import ExampleNet

from zoo.__main__ import main
from zoo.architectures.base import parameter_count
from zoo.testing import conformance

test_everything = conformance("zoo-example")


def test_parameters_are_as_many_as_counted_by_hand() -> None:
    convolutions = 9 * (3 * 16 + 16 * 32 + 32 * 64)
    batch_norms = 2 * (16 + 32 + 64)
    assert parameter_count(ExampleNet()) == convolutions + batch_norms + 64 * 2 + 2


def test_standing_bars_are_higher_than_wide() -> None:
    images, labels = draw(count=100, seed=3)
    bright = images[:, 0] >= 160
    height, width = bright.any(2).sum(1), bright.any(1).sum(1)
    assert torch.equal(height > width, labels == 1)
    assert torch.equal(height * width, bright.sum((1, 2)))


def test_recipe_learns(tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert main(["fit", "--config", "zoo-example", "--trainer.logger=false"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("test/top1 ")]
    assert float(line.split()[1]) >= 0.95
