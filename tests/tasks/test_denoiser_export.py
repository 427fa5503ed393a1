"""Exported denoisers: the printed lines alone make the samples that the task makes of the same noise."""

from __future__ import annotations

import contextlib
import io
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from zoo import Facts
from zoo.architectures.base import Architecture
from zoo.architectures.conditioning import TimeAndClass
from zoo.cli.export import _report
from zoo.export import write
from zoo.tasks.denoiser_export import OneStep, stepper_of
from zoo.tasks.denoising import Denoising
from zoo.tasks.diffusion import Diffusion
from zoo.tasks.edm import EDM
from zoo.tasks.flow_matching import FlowMatching
from zoo.tasks.generation import generators_of

FACTS = Facts(num_classes=3, class_names=["a", "b", "c"], in_channels=2, image_size=[4, 6])


class Small(Architecture):
    """Two convolutions, told time and class between them."""

    roles = ("denoiser",)

    def __init__(self, num_classes: int = 0, in_channels: int = 2) -> None:
        super().__init__()
        self.told = TimeAndClass(num_classes, 8, 8)
        self.first, self.last = nn.Conv2d(in_channels, 8, 3, padding=1), nn.Conv2d(8, in_channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.last(torch.tanh(self.first(x_t) + self.told(t, labels)[:, :, None, None]))


def made(cls: Any, **options: Any) -> Denoising:
    torch.manual_seed(0)
    task = cls(Small, facts=FACTS, **{"conditional": True, "guidance": 2.0, "steps": 6, **options})
    task.configure_model()
    return task.eval()


def looped(task: Denoising, path: Path, format: Any, noise: Tensor, labels: Tensor | None) -> Tensor:
    """What the lines make that the command prints."""
    written = write(task, path, format)
    report = _report(format, written)
    lines = "\n".join(line.removeprefix("  ") for line in report[report.index("use it") + 1 :])
    known: dict[str, Any] = {"noise": noise.numpy(), "labels": None if labels is None else labels.numpy()}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(lines, known)
    return torch.from_numpy(known["images"])


CASES: list[tuple[Any, dict[str, Any], str]] = [
    (Diffusion, {}, "onnx"),  # DPM-Solver++, with bounded images
    (EDM, {"guidance_interval": [0.1, 5.0]}, "torch_export"),  # Heun
]


@pytest.mark.parametrize(("cls", "options", "format"), CASES)
def test_the_loop_makes_the_samples_of_the_task(cls: Any, options: dict[str, Any], format: str, tmp_path: Path) -> None:
    task = made(cls, **options)
    generators = generators_of(3, range(5))
    noise, labels = task.noise(generators), torch.arange(5) % 3 if task.class_count else None
    suffix = ".onnx" if format == "onnx" else ".pt2"
    found = looped(task, tmp_path / f"model{suffix}", format, noise, labels)
    expected = task.sample(torch.arange(5), labels, seed=3)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert float(expected.std()) > 0.05, "not all black or white"


TRACED: list[tuple[Any, dict[str, Any]]] = [
    (Diffusion, {"prediction": "noise", "solver": "ddpm"}),
    (Diffusion, {"solver": "ddpm", "solver_options": {"variance": "beta"}}),
    (Diffusion, {"solver": "ddim", "solver_options": {"eta": 0.7}, "clip": False}),
    (FlowMatching, {"solver": "ddpm", "conditional": False, "guidance": 1.0}),
    (FlowMatching, {"solver": "midpoint"}),
    (FlowMatching, {"solver": "euler", "guidance": 1.0}),
    (FlowMatching, {"solver": "dpm"}),
    (FlowMatching, {"solver": "heun", "guidance_interval": [0.3, 0.8]}),
    (EDM, {"solver": "dpm"}),
]


@pytest.mark.parametrize(("cls", "options"), TRACED)
@torch.no_grad()
def test_every_solver_has_a_step_for_tensors(cls: Any, options: dict[str, Any]) -> None:
    task = made(cls, **options)
    (stepper, extra), times = cast(Any, stepper_of(task.solver)), task.sampling_times(6)
    step, labels = OneStep(task, stepper, extra), torch.tensor([0, 1, 2, 0]) if task.class_count else None
    generators = generators_of(0, range(4))
    x = task.path.at(times[0])[1] * task.noise(generators)
    image, past = torch.zeros_like(x), times[0]
    for t, t_next in pairwise(times):
        others = [] if labels is None else [labels]
        if "noise" in extra:
            others.append(torch.stack([torch.randn(2, 4, 6, generator=one) for one in generators]))
        if "t_past" in extra:
            others += [torch.full((4,), past, dtype=torch.float64), image]
        now, after = (torch.full((4,), value, dtype=torch.float64) for value in (t, t_next))
        x, image = step(x, now, after, *others)
        past = t
    torch.testing.assert_close(task.unscaled(x), task.sample(torch.arange(4), labels), atol=2e-5, rtol=0)


@torch.no_grad()
def test_of_a_solver_that_cannot_be_traced_there_is_the_denoiser() -> None:
    task = made(EDM, solver_options={"churn": 20.0})
    written = task.exported()
    assert (written.name, written.others, written.texts, written.usage) == ("denoiser", [], {}, {})
    assert [*written.inputs(2, torch.Generator())] == ["x", "t", "labels"]
    x, labels = torch.randn(3, 2, 4, 6), torch.arange(3)
    found = written.network(x, torch.full((3,), 2.0, dtype=torch.float64), labels)
    torch.testing.assert_close(found, tuple(task.denoiser_for(labels).estimate(x, 2.0)), atol=1e-5, rtol=0)
