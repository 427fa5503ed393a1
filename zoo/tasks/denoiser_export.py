"""A denoiser as two exported graphs: what it takes for image and noise, and a step of the sampler, with guidance.

A dozen lines loop over the step's times, which lie beside the graphs, and give the task's samples without the zoo;
``zoo export`` prints them. Times are float64, so that the step's factors are those of the task to the last digits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from zoo.functional.diffusion import Denoiser, Estimate, Path, forward_variance, posterior, split
from zoo.functional.samplers import DDIM, DDPM, DPMSolver, Euler, Heun, Midpoint, Solver, Step, moved
from zoo.tasks.exported import Exported

if TYPE_CHECKING:
    from zoo.tasks.denoising import Denoising

LOAD = {
    "onnx": """\
import json, numpy, onnxruntime
session = onnxruntime.InferenceSession("{stem}.step.onnx")
def step(**given):
    return session.run(None, given)
""",
    "torch_export": """\
import json, numpy, torch
module = torch.export.load("{stem}.step.pt2").module()
def step(**given):
    return [tensor.detach().numpy() for tensor in module(*(torch.as_tensor(value) for value in given.values()))]
""",
}
# What is given, lines before the loop, what else the step takes in its order, and lines at the step's end.
LOOP = """\
sampler = json.load(open("{{stem}}.sampler.json"))
x = numpy.float32(sampler["sigma"]) * noise  # standard normal, float32 (B, {sizes}){labels}{before}
for t, t_next in zip(sampler["times"], sampler["times"][1:]):
    t, t_next = numpy.full(len(x), t), numpy.full(len(x), t_next)
    {result} = step(x=x, t=t, t_next=t_next{given}){after}
images = (x / 2 + 0.5).clip(0, 1)"""


class AtTensors(Path):
    """A path whose factors at times (B,) have the shape of a batch of images.

    Args:
        path: the task's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def alpha(self, t: Tensor) -> Tensor:
        """The images' factor."""
        return self.path.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        """The noise's factor."""
        return self.path.sigma(t)

    def at(self, t: Any) -> Any:
        """Both at times (B,), each (B, 1, 1, 1)."""
        return self.alpha(t).view(-1, 1, 1, 1), self.sigma(t).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class TracedDenoiser(Denoiser):
    """A denoiser that takes times (B,) and never looks at their values, so that it can be traced."""

    def estimate(self, x: Tensor, t: Any) -> Estimate:
        """Image and noise in a batch at times (B,)."""
        alpha, sigma = self.path.at(t)
        found = split(self.prediction, self.predict(x, t.float()), x, alpha, sigma)
        if not self.clip:
            return found
        image = found.image.clamp(-1, 1)
        return Estimate(image, (x - alpha * image) / sigma)


class Estimates(nn.Module):
    """Images with noise, their times, and labels where there are classes -> image and noise, with guidance."""

    def __init__(self, task: Denoising) -> None:
        super().__init__()
        self.task = task

    def denoiser(self, labels: Tensor | None) -> TracedDenoiser:
        """The task's, for these labels."""
        plain = self.task.denoiser_for(None)
        return TracedDenoiser(
            partial(self._predicted, labels), AtTensors(self.task.path), self.task.prediction, plain.clip
        )

    def _predicted(self, labels: Tensor | None, x: Tensor, t: Tensor) -> Tensor:
        task = self.task
        if labels is None or task.guidance == 1:
            return task.predicted(x, t, labels)
        # One after the other: joined, a tracer would fix the number of samples.
        known, unknown = (task.predicted(x, t, which) for which in (labels, torch.full_like(labels, task.class_count)))
        found = torch.lerp(unknown, known, task.guidance)
        if task.interval is None:
            return found
        inside = (t >= task.interval[0]) & (t <= task.interval[1])
        return torch.where(inside.view(-1, 1, 1, 1), found, known)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the image is, and what the noise."""
        found = self.denoiser(labels).estimate(x, t)
        return found.image.float(), found.noise.float()


# Steps of solvers; what a step takes beside x and two times is in ``extra``


Stepper = Callable[[Step, Mapping[str, Tensor]], tuple[Tensor, Tensor]]


def plain_step(solver: Solver, step: Step, extra: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """That of a solver that does not look at the times."""
    x, found = solver.step(step)
    return x, found.image


def heun_step(step: Step, extra: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Heun's, and Euler's where it ends without noise."""
    s, t = torch.as_tensor(step.s), torch.as_tensor(step.t)
    first = step.denoiser.estimate(step.x, step.s)
    guess, sigma = moved(step, first, step.t), torch.as_tensor(step.denoiser.path.at(step.t)[1])
    later: Any = torch.where(sigma.flatten() == 0, s, t)  # where there is no noise, nothing can be asked
    second = step.denoiser.estimate(guess, later)
    mean = Estimate((first.image + second.image) / 2, (first.noise + second.noise) / 2)
    return torch.where(sigma == 0, guess, moved(step, mean, step.t)), first.image


def ddpm_step(solver: DDPM, step: Step, extra: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The posterior's mean with noise."""
    found, path = step.denoiser.estimate(step.x, step.s), step.denoiser.path
    on_x, on_image, std = posterior(path, step.s, step.t)
    if solver.variance == "beta":
        sigma = torch.as_tensor(path.at(step.t)[1])
        std = torch.where(sigma == 0, 0.0, forward_variance(path, step.s, step.t) ** 0.5)  # type: ignore[assignment]
    return on_x * step.x + on_image * found.image + std * extra["noise"], found.image


def ddim_step(solver: DDIM, step: Step, extra: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """DDIM's with noise."""
    found, path = step.denoiser.estimate(step.x, step.s), step.denoiser.path
    alpha, sigma = path.at(step.t)
    std = solver.eta * torch.as_tensor(posterior(path, step.s, step.t).std)
    kept = (sigma**2 - std**2).clamp(min=0).sqrt()
    return alpha * found.image + kept * found.noise + std * extra["noise"], found.image


def dpm_step(step: Step, extra: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """DPM-Solver++'s, of first order where ``t_past`` is t, and at the ends of the path."""
    found, path = step.denoiser.estimate(step.x, step.s), step.denoiser.path
    times: Any = (extra["t_past"], step.s, step.t)
    factors: Any = [path.at(time) for time in times]
    before, now, after = (torch.log(alpha / sigma) for alpha, sigma in factors)
    ahead, behind = after - now, now - before
    usable = torch.isfinite(ahead + behind) & (behind > 0)
    image = found.image + ahead / (2 * behind) * (found.image - extra["image_past"])
    _, (alpha_s, sigma_s), (alpha_t, sigma_t) = factors
    kept = sigma_t / sigma_s
    second = kept * step.x + (alpha_t - kept * alpha_s) * image
    return torch.where(usable, second, moved(step, found, step.t)), found.image


def stepper_of(solver: Solver) -> tuple[Stepper, tuple[str, ...]] | None:
    """How a solver's step is traced, and what else it takes; None for one that can't be."""
    kind = type(solver)
    if kind in (Euler, Midpoint) or (isinstance(solver, DDIM) and solver.is_deterministic):
        return partial(plain_step, solver), ()
    if isinstance(solver, Heun) and solver.is_deterministic:
        return heun_step, ()
    if isinstance(solver, DDIM):
        return partial(ddim_step, solver), ("noise",)
    if isinstance(solver, DDPM):
        return partial(ddpm_step, solver), ("noise",)
    return (dpm_step, ("t_past", "image_past")) if kind is DPMSolver else None


class OneStep(nn.Module):
    """Samples at their times -> samples at the next times, and what the image is taken for.

    Args:
        task: whose solver takes the step.
        stepper: how.
        extra: names of what the step takes after the labels.
    """

    def __init__(self, task: Denoising, stepper: Stepper, extra: tuple[str, ...]) -> None:
        super().__init__()
        self.estimates, self.stepper, self.extra = Estimates(task), stepper, extra
        self.has_labels = bool(task.class_count)

    def forward(self, x: Tensor, t: Tensor, t_next: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        """The next samples."""
        labels, rest = (others[0], others[1:]) if self.has_labels else (None, others)
        now: Any = t
        after: Any = t_next
        step = Step(self.estimates.denoiser(labels), x.double(), now, after, None, None, 1)
        made, image = self.stepper(step, dict(zip(self.extra, rest, strict=True)))
        return made.float(), image.float()


# What is written


def exported_denoiser(task: Denoising) -> Exported:
    """What ``zoo export`` writes of a task that trains a denoiser: ``denoiser``, ``step`` and ``sampler.json``.

    Of a solver whose step can't be traced (one of a plugin, or Heun's with churn) there is only the denoiser.
    """
    times = task.sampling_times(task.steps)
    size = [task.facts["in_channels"], *task.facts["image_size"]]
    notes = {"x": "images in [-1, 1] with noise", "t": "as the sampler's times", "image": "in [-1, 1]"}
    if task.class_count:
        notes["labels"] = f"from 0 to {task.class_count - 1}; {task.class_count} for no class"
    found = stepper_of(task.solver)
    others = []
    if found is not None:
        extra = found[1]
        more = {"t_next": "the next time", "t_past": "the time before, or t", "image_past": "image of the step before"}
        others = [
            Exported(
                OneStep(task, *found),
                lambda count, generator: _inputs(task, count, generator, ("t_next",), extra),
                ("x_next", "image"),
                "samples, their time and the next one -> samples at the next time, and what the image is taken for",
                notes={**notes, **{k: v for k, v in more.items() if k in ("t_next", *extra)}},
                part="denoiser",
                name="step",
            )
        ]
    start = {"times": times, "sigma": task.path.at(times[0])[1], "solver": type(task.solver).__name__}
    return Exported(
        Estimates(task),
        lambda count, generator: _inputs(task, count, generator, (), ()),
        ("image", "noise"),
        "images with noise and their times -> what the image is taken for, and what the noise",
        notes={**notes, "noise": "of unit variance"},
        part="denoiser",
        name="denoiser",
        others=others,
        texts={"sampler.json": json.dumps({**start, "guidance": task.guidance})} if others else {},
        usage={format: lines + _loop(task, size, found[1]) for format, lines in LOAD.items()} if found else {},
    )


def _inputs(
    task: Denoising, count: int, generator: Generator, later: tuple[str, ...], extra: tuple[str, ...]
) -> dict[str, Tensor]:
    """Examples at some of the sampler's times."""
    times = torch.tensor(task.sampling_times(task.steps), dtype=torch.float64)
    rows = torch.randint(0, len(times) - 1, (count,), generator=generator)
    shape = (count, task.facts["in_channels"], *task.facts["image_size"])
    image, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    alpha, sigma = AtTensors(task.path).at(times[rows])
    labels = {"labels": torch.randint(0, task.class_count, (count,), generator=generator)} if task.class_count else {}
    known = {
        "t_next": times[rows + 1],
        "noise": torch.randn(shape, generator=generator),
        "t_past": times[(rows - 1).clamp(min=0)],
        "image_past": image / 2,
    }
    x = (alpha * image / 2 + sigma * noise).float()
    return {"x": x, "t": times[rows], **{k: known[k] for k in later}, **labels, **{k: known[k] for k in extra}}


def _loop(task: Denoising, size: list[int], extra: tuple[str, ...]) -> str:
    """The lines that make samples by the step."""
    given = ", labels=labels" if task.class_count else ""
    past = "t_past" in extra
    if "noise" in extra:
        given += ", noise=numpy.random.standard_normal(x.shape).astype(x.dtype)"
    return LOOP.format(
        sizes=", ".join(map(str, size)),
        labels="; labels are int64 (B,)" if task.class_count else "",
        before="\nt_past, image = None, numpy.zeros_like(x)" if past else "",
        result="x, image" if past else "x, _",
        given=given + (", t_past=t if t_past is None else t_past, image_past=image" if past else ""),
        after="\n    t_past = t" if past else "",
    )
