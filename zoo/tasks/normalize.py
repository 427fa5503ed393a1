"""Normalisation of images in [0, 1] for a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor, nn

from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.facts import Facts


def statistics_of(task: nn.Module) -> dict[str, dict[str, list[float]]]:
    """``mean`` and ``std`` of every network in a task whose images are not normalised by the data's, by its name."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, network in task.named_modules():  # a network comes before its parts, for which it may speak
        for part, (mean, std) in network.statistics().items() if isinstance(network, Architecture) else ():
            path = ".".join(filter(None, (name, part)))
            found.setdefault(path, {"mean": [float(v) for v in mean], "std": [float(v) for v in std]})
    return found


class Normalize(nn.Module):
    """Normalises images in [0, 1] for a network: mean 0 and std 1, with repeated channels if its number is fixed.

    Args:
        network: provides its own mean and std if it has them, and its number of channels if that is fixed.
        facts: provide what the network does not.

    Shape:
        images (B, C, H, W) in [0, 1] -> (B, C', H, W); or a list of images of any sizes, each (C, H, W) -> (C', H, W)
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Architecture, facts: Facts) -> None:
        super().__init__()
        channels = facts["in_channels"]
        fixed = network.fixed_channels
        if fixed is not None and channels not in (1, fixed):
            raise UserError(f"{type(network).__name__} takes {fixed} channels, the data has {channels}")
        self.repeat = fixed if fixed is not None and channels == 1 else 1
        for name, default in (("mean", 0.0), ("std", 1.0)):
            values: Sequence[float] = getattr(network, name) or facts.get(name) or [default]  # type: ignore[assignment]
            if len(values) not in (1, channels * self.repeat):
                raise UserError(f"the {name} has {len(values)} channels, the images have {channels * self.repeat}")
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    @overload
    def forward(self, images: Tensor) -> Tensor: ...
    @overload
    def forward(self, images: Sequence[Tensor]) -> list[Tensor]: ...
    def forward(self, images: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Normalised images; each image of a list as a batch of one."""
        if not isinstance(images, Tensor):
            return [self.forward(image[None])[0] for image in images]
        if self.repeat > 1:
            images = images.expand(-1, self.repeat, -1, -1)
        return (images - self.mean) / self.std
