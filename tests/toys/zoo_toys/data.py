"""Twenty-two small noisy pictures in each form that a batch can have."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from zoo import Data, Facts
from zoo.data.loading import TensorSource
from zoo.data.order import Order, part_of_each, rare_more_often

COUNT, SIZE, CLASSES = 22, 6, 3


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(COUNT) % CLASSES
    return torch.rand(COUNT, 1, SIZE, SIZE, generator=generator) * 0.5 + labels.view(-1, 1, 1, 1) * 0.1, labels


class _Toy(Data):
    def __init__(self, batch_size: int = 4, num_workers: int = 0, validation: bool = True) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        self.validation = validation

    @property
    def facts(self) -> Facts:
        return {
            "num_classes": CLASSES,
            "class_names": ["a", "b", "c"],
            "in_channels": 1,
            "image_size": [SIZE, SIZE],
            "mirror": False,
        }


class ToyTensors(_Toy):
    """In memory, with noise added by the batch."""

    def samples(self, split: str) -> Any:
        return TensorSource(*pictures()) if split != "val" or self.validation else None

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, labels = batch
        return (images + 0.1 * torch.randn_like(images) if self.trainer.training else images), labels


class _Noisy(torch.utils.data.Dataset):
    def __init__(self, noise: bool) -> None:
        self.images, self.labels = pictures()
        self.noise = noise

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        return (image + 0.1 * torch.randn_like(image) if self.noise else image), self.labels[index]


class ToySamples(_Toy):
    """Read one by one by workers, with noise added by the sample."""

    def samples(self, split: str) -> Any:
        return _Noisy(split == "train") if split != "val" or self.validation else None


class ToyParts(ToySamples):
    """A part of the samples each epoch, the last ones twice as often."""

    def order(self, samples: Any) -> Order:
        return part_of_each(rare_more_often(torch.linspace(1, 2, len(samples))), 10)


class _Boxes(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        size = 5 + index % 3
        boxes = torch.tensor([[0.0, 0.0, 1.0 + i, 2.0] for i in range(index % 3)]).view(-1, 4)
        return torch.rand(1, size, size), {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64)}


class ToyBoxes(_Toy):
    """Images of several sizes as a list, with none to two boxes each."""

    batch = "detection"

    def samples(self, split: str) -> Any:
        return _Boxes()

    def collate(self, samples: list[Any]) -> Any:
        images, targets = zip(*samples, strict=True)
        return list(images), list(targets)


class _Same(torch.utils.data.Dataset):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(5))


class ToyPicture(Data):
    """One picture, as often as there are steps in an epoch."""

    batch = "style_transfer"

    def __init__(self, steps: int = 5) -> None:
        super().__init__(batch_size=1)
        self.steps = steps

    @property
    def facts(self) -> Facts:
        return {"in_channels": 1, "image_size": [12, 12]}

    def samples(self, split: str) -> Any:
        return _Same(self.steps) if split == "train" else None

    def collate(self, samples: list[Any]) -> Any:
        return default_collate(samples)
