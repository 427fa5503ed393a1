"""Schedules against their closed form, through the task that gives them the length of the run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from zoo.errors import UserError
from zoo.training.schedulers import WarmupCosine, WarmupSteps


def rates(total: int, groups: tuple[float, ...] = (0.4,), **arguments: Any) -> list[list[float]]:
    made = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in groups]
    optimizer = torch.optim.SGD(made)
    scheduler = WarmupCosine(optimizer, total, **arguments)
    found = []
    for _ in range(total):
        found.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


def test_closed_form() -> None:
    found = [r[0] for r in rates(20, warmup_steps=4, final_fraction=0.1)]
    assert found[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    tail = [0.04 + 0.36 * (1 + math.cos(math.pi * k / 15)) / 2 for k in range(16)]
    assert found[4:] == pytest.approx(tail)
    assert found[-1] == pytest.approx(0.04)


def test_tail_is_torch_s_cosine() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=15)
    expected = []
    for _ in range(16):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert [r[0] for r in rates(20, warmup_steps=4)][4:] == pytest.approx(expected, abs=1e-9)


def test_fraction_and_groups() -> None:
    found = rates(40, (0.4, 0.04), warmup_fraction=0.25)
    assert [r[0] for r in found[:10]] == pytest.approx([0.04 * k for k in range(1, 11)])
    assert all(low == pytest.approx(high / 10) for high, low in found)


def test_without_warm_up() -> None:
    assert rates(5, warmup_fraction=0.0)[0][0] == pytest.approx(0.4)


def test_goes_on_from_its_state() -> None:
    def made() -> tuple[torch.optim.Optimizer, WarmupCosine]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
        return optimizer, WarmupCosine(optimizer, 10, warmup_steps=2)

    (a, first), (b, second) = made(), made()
    for _ in range(5):
        a.step()
        first.step()
    second.load_state_dict(first.state_dict())
    b.load_state_dict(a.state_dict())
    for optimizer, scheduler in ((a, first), (b, second)):
        optimizer.step()
        scheduler.step()
    assert a.param_groups[0]["lr"] == b.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"warmup_steps": 10}, "warm-up of 10 steps"), ({"warmup_fraction": 1.5}, "from 0 to 1")],
)
def test_wrong_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rates(10, **arguments)  # type: ignore[arg-type]


def test_a_line_is_torch_s() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    line = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.25, total_iters=15)
    expected = []
    for _ in range(16):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        line.step()
    found = [r[0] for r in rates(18, warmup_steps=2, final_fraction=0.25, anneal="linear")]
    assert found[:2] == pytest.approx([0.2, 0.4])
    assert found[2:] == pytest.approx(expected)


def stepped(total: int, **arguments: Any) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = WarmupSteps(optimizer, total, **arguments)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_steps_are_the_papers() -> None:
    found = stepped(640, warmup_fraction=0.00625)
    assert found[:4] == pytest.approx([0.01] * 4)
    assert found[4:320] == pytest.approx([0.1] * 316)
    assert found[320:480] == pytest.approx([0.01] * 160)
    assert found[480:] == pytest.approx([0.001] * 160)


@pytest.mark.parametrize(
    "arguments", [{"milestones": [0.7, 0.5]}, {"milestones": [1.0]}, {"milestones": [0.1], "warmup_fraction": 0.2}]
)
def test_milestones_that_do_not_rise(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must rise"):
        stepped(10, **arguments)
