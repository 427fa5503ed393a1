"""Each planted fault of a denoiser is caught by the check that is meant for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo import registry
from zoo.architectures.base import Architecture
from zoo.testing import runner


class Sound(Architecture):
    """Noise of a time and a class. Shape: x_t (B, C, H, W), t (B,), labels (B,) or None -> like x_t."""

    roles = ("denoiser",)

    def __init__(self, num_classes: int = 3, in_channels: int = 3) -> None:
        super().__init__()
        self.no_class = num_classes
        self.noise = nn.Conv2d(in_channels, in_channels, 1)
        self.kinds = nn.Embedding(num_classes + 1, in_channels)

    def told(self, t: Tensor) -> Tensor:
        return 1 + t

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = torch.full_like(t, self.no_class, dtype=torch.long) if labels is None else labels
        return self.noise(x_t) * self.told(t)[:, None, None, None] + self.kinds(labels)[:, :, None, None]


class HasAnotherNoClass(Sound):
    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(x_t, t, torch.zeros_like(t, dtype=torch.long) if labels is None else labels)


class ForgetsTheClass(Sound):
    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(x_t, t)


class HasOneTimeForAll(Sound):
    def told(self, t: Tensor) -> Tensor:
        return (1 + t.mean()).expand_as(t)


class KeepsTimesInBounds(Sound):
    def told(self, t: Tensor) -> Tensor:
        return 1 + t.clamp(0.9, 0.95)


FAULTS: dict[type, str] = {
    HasAnotherNoClass: "no_class_is_the_last_label",
    ForgetsTheClass: "no_class_is_the_last_label",
    HasOneTimeForAll: "times_are_of_each_sample",
    KeepsTimesInBounds: "times_are_of_each_sample",
}


@pytest.fixture(autouse=True)
def _installed(fake_plugin: Callable[..., Path]) -> None:
    entries = {cls.__name__: f"{__name__}:{cls.__name__}" for cls in (Sound, *FAULTS)}
    fake_plugin("planted-denoisers", entries={"architectures": entries})


def outcomes(cls: type) -> list[Any]:
    (entry,) = registry.find(cls.__name__)
    items = [item for item in runner.items_of(entry) if item.check.name in {"is_built", *FAULTS.values()}]
    return runner.check_items(items)


def test_a_sound_denoiser_passes() -> None:
    found = outcomes(Sound)
    assert [str(o) for o in found if o.status != "passed"] == []
    assert len(found) == 3


@pytest.mark.parametrize(("cls", "meant"), FAULTS.items())
def test_each_fault_is_caught_by_the_check_meant_for_it(cls: type, meant: str) -> None:
    failed = {o.item.check.name: o.reason for o in outcomes(cls) if o.status == "failed"}
    assert meant in failed
    assert "\n" not in failed[meant]
