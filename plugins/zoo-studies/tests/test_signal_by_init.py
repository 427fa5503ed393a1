"""What ``zoo study initialisation`` measures and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from zoo_studies import main, signal_by_init


def test_variances_are_of_outputs_and_of_the_gradients_with_respect_to_them() -> None:
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False)).double()
    with torch.no_grad():
        network[0].weight.copy_(2 * torch.eye(3))
        network[2].weight.copy_(5 * torch.eye(3))
    images, gradient = (torch.rand(4, 3, dtype=torch.float64) for _ in range(2))
    one, other = images.var().item(), gradient.var().item()
    activations, gradients = signal_by_init.variances(network, images, gradient)
    assert activations == pytest.approx([one, 4 * one, 100 * one])
    assert gradients == pytest.approx([100 * other, 25 * other, other])


def test_the_command_writes_rows_a_table_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"depth": 8, "width": 6, "images": 4, "seeds": 2, "every": 2}
    monkeypatch.setattr(signal_by_init, "SETTINGS", small)
    assert main(["initialisation", "--out", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out" / "initialisation.json").read_text())
    assert content["settings"] == small
    ways = {(run["function"], run["way"]) for run in content["runs"]}
    assert {("relu", "torch"), ("tanh", "forward"), ("sigmoid", "backward"), ("silu", "forward")} < ways
    assert all(len(run["gradient"]) == 2 and len(run["gradient"][0]) == 5 for run in content["runs"])
    for name in ("init-variance.png", "init-unstable.png"):
        assert Image.open(tmp_path / "out" / name).size[0] == 1000
    assert "| SiLU | 0.3558 | 0.3795 |" in (tmp_path / "out" / "factors.md").read_text()
    count = len(content["runs"])
    monkeypatch.setattr(signal_by_init, "measure", lambda *key: pytest.fail(f"{key} was there already"))
    assert main(["initialisation", "--out", str(tmp_path / "out")]) == 0
    assert len(json.loads((tmp_path / "out" / "initialisation.json").read_text())["runs"]) == count


def test_the_page_has_the_table_of_today() -> None:
    page = Path(__file__).parents[3] / "docs" / "ideas" / "initialisation.md"
    if not page.is_file():
        pytest.skip("not in a checkout of the zoo, whose page this is")
    assert signal_by_init.factor_table() in page.read_text(encoding="utf-8")
