"""Diffusion: training steps and samples a second against plain loops, a fast solver against DDPM, averaging's cost.

Run: ``python tests/benchmarks/generation.py [--steps N] [--samples N] [--width N] [--rounds N]``.
"""

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from common import WARM_UP, report, spread
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW

from zoo import Data, Facts
from zoo.architectures.denoising_unet import DenoisingUNet
from zoo.data.loading import TensorSource
from zoo.tasks.diffusion import Diffusion
from zoo.training.averaging import MovingAverage

BATCH, SIDE, FAST, SLOW = 32, 28, 20, 1000
ABOUT = (
    "Diffusion with a small U-Net of random weights on grey images of 28 by 28 pixels, on one thread, by CPU time, "
    "median of the rounds (smallest to largest), which take turns. The plain loops have the same network, optimiser, "
    "loss and schedule in a dozen lines, without a trainer. Sampling is DDIM with 20 steps in both; the last row is "
    "DPM-Solver++ with 20 steps against DDPM with 1,000. Bar: not slower; averaging costs at most 3 % of a step."
)


class Images(Data):
    """Random images in memory."""

    batch = "images"

    def __init__(self, count: int) -> None:
        super().__init__(batch_size=BATCH)
        self.images = torch.rand(count, 1, SIDE, SIDE)

    @property
    def facts(self) -> Facts:
        """Their shape."""
        return Facts(in_channels=1, image_size=[SIDE, SIDE])

    def samples(self, split: str) -> Any:
        """For training alone."""
        return TensorSource(self.images) if split == "train" else None


class Clock(Callback):
    """CPU time of the steps after the first ones."""

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Start late, and read."""
        if trainer.global_step == WARM_UP:
            self.start = time.process_time()
        self.seconds = (time.process_time() - getattr(self, "start", math.nan)) / max(1, trainer.global_step - WARM_UP)


def built(width: int, **options: Any) -> Diffusion:
    """The task with its network."""
    torch.manual_seed(0)
    network: Any = partial(DenoisingUNet, width=width, multipliers=[1, 2], blocks=1, attention=[], patch=2)
    task = Diffusion(network, facts=Images(1).facts, weighting="simple", prediction="noise", **options)
    task.configure_model()
    return task


def zoo_step(width: int, steps: int, *more: Callback) -> float:
    """Seconds of a training step by the zoo's task and Lightning's trainer."""
    clock, task = Clock(), built(width)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "use_distributed_sampler": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=WARM_UP + steps, max_epochs=-1, callbacks=[*more, clock], **quiet)
    trainer.fit(task, datamodule=Images(BATCH * 20))
    return clock.seconds


def plain_step(width: int, steps: int) -> float:
    """Seconds of a training step by a loop of its own."""
    task, data = built(width), Images(BATCH * 20).images
    network, bars = task.denoiser.train(), (1 - task.path.betas).cumprod(0).float()
    optimizer, start = AdamW(network.parameters()), 0.0
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            start = time.process_time()
        images, times = 2 * data[torch.randint(len(data), (BATCH,))] - 1, torch.randint(SLOW, (BATCH,))
        noise, bar = torch.randn_like(images), bars[times].view(-1, 1, 1, 1)
        predicted = network(bar.sqrt() * images + (1 - bar).sqrt() * noise, (times + 1) / SLOW)
        optimizer.zero_grad()
        F.mse_loss(predicted, noise).backward()
        optimizer.step()
    return (time.process_time() - start) / steps


@torch.no_grad()
def plain_samples(task: Diffusion, count: int) -> Tensor:
    """DDIM in a dozen lines."""
    bars = torch.cat([torch.ones(1), (1 - task.path.betas).cumprod(0).float()])
    x = torch.randn(count, 1, SIDE, SIDE)
    times = [round(SLOW * (1 - i / FAST)) for i in range(FAST + 1)]
    for now, after in pairwise(times):
        noise = task.denoiser(x, torch.full((count,), now / SLOW))
        image = ((x - (1 - bars[now]).sqrt() * noise) / bars[now].sqrt()).clamp(-1, 1)
        noise = (x - bars[now].sqrt() * image) / (1 - bars[now]).sqrt()
        x = bars[after].sqrt() * image + (1 - bars[after]).sqrt() * noise
    return x


def seconds(call: Callable[[], Any]) -> float:
    """CPU time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def in_turns(rounds: int, calls: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each gives in each round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(call())
    return found


def ratio(first: list[float], second: list[float]) -> str:
    """Of two rounds that were next to each other."""
    return spread([a / b for a, b in zip(first, second, strict=True)])


def training(width: int, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of the training step."""
    found = in_turns(
        rounds,
        {
            "plain": partial(plain_step, width, steps),
            "zoo": partial(zoo_step, width, steps),
            "averaged": lambda: zoo_step(width, steps, MovingAverage()),
        },
    )
    median = {name: f"{1000 * statistics.median(times):.1f}" for name, times in found.items()}
    return [
        {"what": "training step, ms", "plain": median["plain"], "zoo": median["zoo"],
         "zoo / plain": ratio(found["zoo"], found["plain"])},
        {"what": "with a moving average, ms", "zoo": median["averaged"],
         "with / without": ratio(found["averaged"], found["zoo"])},
    ]  # fmt: skip


def sampling(width: int, count: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of samples."""
    tasks = {
        "ddim": built(width, solver="ddim", steps=FAST).eval(),
        "fast": built(width, solver="dpm", steps=FAST).eval(),
        "ddpm": built(width, solver="ddpm", steps=SLOW).eval(),
    }
    numbers, few = torch.arange(count), torch.arange(min(count, 16))
    plain, slow = copy.deepcopy(tasks["ddim"]), tasks["ddpm"]
    found = in_turns(
        rounds,
        {
            "plain": lambda: seconds(lambda: plain_samples(plain, count)) / count,
            "ddim": lambda: seconds(lambda: tasks["ddim"].sample(numbers)) / count,
            "fast": lambda: seconds(lambda: tasks["fast"].sample(numbers)) / count,
            "ddpm": lambda: seconds(lambda: slow.sample(few)) / len(few),
        },
    )
    rate = {name: f"{1 / statistics.median(times):.1f}" for name, times in found.items()}
    return [
        {"what": f"samples a second, DDIM, {FAST} steps", "plain": rate["plain"], "zoo": rate["ddim"],
         "zoo / plain": ratio(found["plain"], found["ddim"])},
        {"what": "samples a second", f"DPM-Solver++, {FAST} steps": rate["fast"], f"DDPM, {SLOW} steps": rate["ddpm"],
         "faster by": ratio(found["ddpm"], found["fast"])},
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = training(options.width, options.steps, options.rounds)
    rows += sampling(options.width, options.samples, options.rounds)
    report("Diffusion", ABOUT, rows)


if __name__ == "__main__":
    main()
