"""Networks and data of the benchmarks, as a plugin, so that ``zoo fit`` runs them as it runs anything."""

import time
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from zoo import Architecture
from zoo.data.images import InMemoryImages
from zoo.data.scenes import SceneMasks, Scenes


class Watch:
    """Notes the time when the first and the last of the counted training steps begin, and nothing in between.

    Reading a thread's time at each step would cost more than the step.
    """

    def __init__(self) -> None:
        self.start(0, 0)
        self.profiler: Any = None

    def start(self, first: int, last: int) -> None:
        """Count from here; steps ``first`` to ``last`` are what is measured."""
        self.first, self.last, self.count = first, last, 0
        self.noted: list[tuple[float, float]] = []

    def tick(self) -> None:
        """A step begins."""
        if self.count in (self.first, self.last):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.noted.append((time.perf_counter(), time.thread_time()))
            if self.profiler is not None:
                (self.profiler.enable if self.count == self.first else self.profiler.disable)()
        self.count += 1

    def per_step(self) -> tuple[float, float]:
        """Seconds a step, by the wall's clock and by this thread's time on a CPU."""
        (wall, cpu), (later_wall, later_cpu) = self.noted
        count = self.last - self.first
        return (later_wall - wall) / count, (later_cpu - cpu) / count


WATCH = Watch()


class ResNet18At32(Architecture):
    """torchvision's ResNet-18 with the stem that 32×32 images want: 3×3, stride 1, no pooling."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.net = resnet18(num_classes=num_classes)
        self.net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.net.maxpool = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


class TinyNet(Architecture):
    """Two layers: what surrounds a training step weighs more than the step."""

    def __init__(self, num_classes: int = 10, channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride=2)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(images)).mean((2, 3)))


class RandomImages(InMemoryImages):
    """Random bytes with random labels, which notes when each training step begins."""

    class_names = [str(i) for i in range(10)]

    def __init__(self, count: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count

    def read(self, part: str) -> tuple[Tensor, Tensor]:
        return random_images(self.count if part == "train" else 8, self.image_size)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer.training:
            WATCH.tick()
        return super().on_before_batch_transfer(batch, dataloader_idx)


def random_images(count: int, side: int) -> tuple[Tensor, Tensor]:
    """Bytes (count, 3, side, side) and labels, the same each time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 10


class TimedScenes(Scenes):
    """``Scenes``, which notes when each training step begins."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer.training:
            WATCH.tick()
        return super().on_before_batch_transfer(batch, dataloader_idx)


class TimedSceneMasks(SceneMasks):
    """``SceneMasks``, likewise."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer.training:
            WATCH.tick()
        return super().on_before_batch_transfer(batch, dataloader_idx)
