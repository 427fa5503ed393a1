"""Networks that look at training images before their first step, and how they are shown them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from zoo.data.base import Data


@runtime_checkable
class SeesImages(Protocol):
    """A network, or a part of one, that wants to see training images before its first step.

    What it makes of them it keeps with its weights, and then wants no more: so a resumed run, a fine-tuned network
    and every process of several see them once, or not at all.
    """

    wants_images: int  # how many; 0 when it has seen them

    def see(self, images: Tensor) -> None:
        """Look at them; as the network's own input, (N, C, H, W)."""
        ...


def still_to_see(network: nn.Module) -> list[SeesImages]:
    """The parts of a network that want to see images and have seen none."""
    return [module for module in network.modules() if isinstance(module, SeesImages) and module.wants_images]


def show_images(network: nn.Module, data: Data, normalize: nn.Module, device: torch.device) -> None:
    """Show training images, the same on every process, to those parts of a network that want to see some.

    Raises:
        UserError: the data has none to show.
    """
    for module in still_to_see(network):
        module.see(normalize(data.first_images(module.wants_images).to(device)))
