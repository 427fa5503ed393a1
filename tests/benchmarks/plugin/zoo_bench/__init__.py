"""Networks and data of the benchmarks, as a plugin, so that ``zoo fit`` runs them as it runs anything."""

import time
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from zoo import Architecture
from zoo.data.images import InMemoryImages

STEPS: list[tuple[float, float]] = []  # when each training step began, by both clocks; whoever measures empties it


def clocks() -> tuple[float, float]:
    """Seconds of the wall's clock and of this thread's time on a CPU, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.thread_time()


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
        self.keep()
        self.count = count

    def read(self, part: str) -> tuple[Tensor, Tensor]:
        return random_images(self.count if part == "train" else 8, self.image_size)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer.training:
            STEPS.append(clocks())
        return super().on_before_batch_transfer(batch, dataloader_idx)


def random_images(count: int, side: int) -> tuple[Tensor, Tensor]:
    """Bytes (count, 3, side, side) and labels, the same each time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 10
