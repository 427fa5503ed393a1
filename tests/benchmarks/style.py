"""Steps of textures, styles and dreams, and pictures a second of networks that paint in one pass.

A step of ``TextureSynthesis`` and ``StyleTransfer`` (ten iterations of L-BFGS, in a fit) against the same method in a
page of plain torch, ``plain_style.py``: same network, layers, size and optimiser; rounds alternate.
Run: ``python tests/benchmarks/style.py [--rounds N]``.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import plain_style
import torch
from common import own_folder, report, spread
from lightning.pytorch import Callback, Trainer
from torch import Tensor

BAR = 0.9
SIZE = 192  # of a texture and of a photograph
WIDE = 256  # of pictures that are painted in one pass
COUNTED = 2  # steps a round, after one that is not counted
LAYERS = [f"network.{name}" for name in ("bn1", "blocks.0.0", "blocks.1.1", "blocks.2.1", "blocks.3.2", "blocks.4.2")]
KEPT = "network.blocks.2.1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ABOUT = (
    f"A step is ten iterations of L-BFGS with a line search, at {SIZE}×{SIZE} pixels (textures) or a longer side of "
    f"{SIZE} (photographs), by EfficientNet-Lite0; the ratio is the plain page's time of an evaluation of the loss "
    "divided by ours: above 1, ours is faster. A dream's iteration is one gradient and one change. Networks that paint "
    f"in one pass do so at {WIDE}×{WIDE} pixels, a picture at a time. Median of the rounds (smallest to largest)."
)


class Clock(Callback):
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        finish()
        self.start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        finish()
        self.seconds.append(time.perf_counter() - self.start)


def finish() -> None:
    """Wait for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def zoo_seconds(task: Any, data: Any, count: Callable[[], int] | None = None) -> float:
    """Seconds of a step, or of each of the ``count`` evaluations of a loss, in a fit of one scale."""
    clock = Clock()
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    Trainer(max_epochs=1, callbacks=[clock], devices=1, accelerator="auto", **quiet).fit(task, datamodule=data)
    return sum(clock.seconds[1:]) / (count() if count else len(clock.seconds) - 1)


class Counted:
    """A function of which the calls are counted, but those of the first step."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run, self.calls = run, 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self.run(*args)


# Descent


def network() -> Any:
    """The perceptual network, frozen and with blurred strides as the tasks have it."""
    from zoo.architectures.efficientnet_lite import EfficientNetLite0
    from zoo.architectures.frozen import freeze

    return freeze(EfficientNetLite0(num_classes=0), blur_strides=True).to(DEVICE)


def texture() -> tuple[Any, Any]:
    """The task and its data."""
    from zoo.architectures.efficientnet_lite import EfficientNetLite0
    from zoo.data.art.pictures import Textures
    from zoo.tasks.art.texture import TextureSynthesis

    layers = dict.fromkeys(LAYERS, 1.0)
    task = TextureSynthesis(EfficientNetLite0, layers=layers, scales=[1.0])
    return task, Textures("ihc", size=SIZE, steps=1 + COUNTED)


def plain_texture() -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """An image and its loss."""
    from zoo.data.art.pictures import read_scaled

    wanted = read_scaled("ihc", SIZE)[None].to(DEVICE)
    noise = torch.rand(wanted.shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    return noise, plain_style.texture_loss(network(), wanted, LAYERS)


def style() -> tuple[Any, Any]:
    """The task and its data."""
    from zoo.architectures.efficientnet_lite import EfficientNetLite0
    from zoo.data.art.pictures import ContentAndStyle
    from zoo.tasks.art.style_transfer import StyleTransfer

    layers = dict.fromkeys(LAYERS, 1.0)
    task = StyleTransfer(EfficientNetLite0, style_layers=layers, content_layers={KEPT: 1.0}, scales=[1.0])
    return task, ContentAndStyle("china", "flower", size=SIZE, steps=1 + COUNTED)


def plain_style_transfer() -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """An image and its loss."""
    from zoo.data.art.pictures import read_scaled

    content, wanted = (read_scaled(name, SIZE)[None].to(DEVICE) for name in ("china", "flower"))
    return content.clone(), plain_style.style_loss(network(), content, wanted, LAYERS, KEPT)


def ours_seconds(build: Callable[[], tuple[Any, Any]]) -> float:
    """Seconds an evaluation of the loss and its gradient, in the counted steps."""
    task, data = build()
    losses = Counted(task.losses)
    task.losses, first = losses, []
    task.on_train_batch_start = lambda batch, batch_idx: first.append(losses.calls) if batch_idx == 1 else None
    return zoo_seconds(task, data, lambda: losses.calls - first[0])


def plain_seconds(build: Callable[[], tuple[Tensor, Callable[[Tensor], Tensor]]]) -> float:
    """The same of the plain page."""
    image, loss = build()
    counted = Counted(loss)
    step = plain_style.descend(image, counted)
    step()
    finish()
    start, before = time.perf_counter(), counted.calls
    for _ in range(COUNTED):
        step()
    finish()
    return (time.perf_counter() - start) / (counted.calls - before)


def descents(rounds: int) -> Iterator[dict[str, object]]:
    """Rows of textures and styles."""
    for name, ours, plain in (
        ("TextureSynthesis", texture, plain_texture),
        ("StyleTransfer", style, plain_style_transfer),
    ):
        times = [(ours_seconds(ours), plain_seconds(plain)) for _ in range(rounds)]
        ratios = [b / a for a, b in times]
        yield {
            "what": f"{name}, float32",
            "ours": f"{spread([1e3 * a for a, _ in times], 0)} ms an evaluation",
            "plain": f"{spread([1e3 * b for _, b in times], 0)} ms",
            "ratio": spread(ratios),
            "bar": BAR,
            "reached": statistics.median(ratios) >= BAR,
        }


def dreams(rounds: int) -> Iterator[dict[str, object]]:
    """The row of dreams."""
    from zoo.architectures.efficientnet_lite import EfficientNetLite0
    from zoo.data.art.pictures import Pictures
    from zoo.tasks.art.deepdream import DeepDream

    def seconds() -> float:
        task = DeepDream(EfficientNetLite0, layers={"network.blocks.4.1": 1.0}, scales=[1.0])
        return zoo_seconds(task, Pictures("china", size=WIDE, steps=11))

    yield {"what": "DeepDream, float32", "ours": f"{spread([1 / seconds() for _ in range(rounds)], 1)} iterations/s"}


# One pass


def painters() -> Iterator[tuple[str, Any, tuple[Tensor, ...]]]:
    """Networks, and what they are called with."""
    from zoo.architectures.adain import AdaIN
    from zoo.architectures.efficientnet_lite import EfficientNetLite0
    from zoo.architectures.transform_net import TransformNet

    image = torch.rand(1, 3, WIDE, WIDE, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    layers = [f"network.blocks.{i}.0.bn1" for i in (1, 2, 3, 4)]
    yield "TransformNet", TransformNet().to(DEVICE).eval(), (image,)
    yield "AdaIN", AdaIN(partial(EfficientNetLite0), layers=layers).to(DEVICE).eval(), (image, image.flip(3))


@torch.no_grad()
def rate(network: Any, inputs: tuple[Tensor, ...], dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Pictures a second."""
    done, start = 0, time.perf_counter()
    with torch.autocast(DEVICE.type, dtype, enabled=dtype is not torch.float32):
        while done == 0 or time.perf_counter() - start < seconds:
            network(*inputs)
            finish()
            done += 1
    return done / (time.perf_counter() - start)


def passes(rounds: int) -> Iterator[dict[str, object]]:
    """Rows of networks that paint in one pass, in both precisions, as they are and compiled."""
    for name, network, inputs in painters():
        runs = {"": network, ", compiled": torch.compile(network)} if name == "TransformNet" else {"": network}
        for how, run in runs.items():
            for dtype in (torch.float32, torch.bfloat16):
                rate(run, inputs, dtype, seconds=0.0)  # compiles, chooses kernels
                rates = [rate(run, inputs, dtype) for _ in range(rounds)]
                what = f"{name}, {str(dtype).removeprefix('torch.')}{how}"
                yield {"what": what, "ours": f"{spread(rates, 1)} pictures/s"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with own_folder():
        rows = [row for rows in (descents, dreams, passes) for row in rows(options.rounds)]
    report("Textures, styles and dreams", ABOUT, rows)


if __name__ == "__main__":
    main()
