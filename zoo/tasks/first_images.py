"""Networks that need training images before their first step (data-dependent initialisation)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from zoo.data.base import Data


@runtime_checkable
class SeesImages(Protocol):
    """A network, or a part of one, that needs training images before its first step.

    It saves what it computes from them with its weights, and then needs no more: a resumed run, a fine-tuned network
    and each of several processes see them once, or not at all.
    """

    wants_images: int  # how many it needs; 0 once it has seen them

    def see(self, images: Tensor) -> None:
        """Initialise from these images, which are preprocessed as the network's input, (N, C, H, W)."""
        ...


def still_to_see(network: nn.Module) -> list[SeesImages]:
    """The parts of a network that need images and have not seen any."""
    return [module for module in network.modules() if isinstance(module, SeesImages) and module.wants_images]


def show_images(network: nn.Module, data: Data, normalize: nn.Module, device: torch.device) -> None:
    """Pass training images, the same on every process, to those parts of a network that need some.

    Raises:
        UserError: the data can't provide any.
    """
    for module in still_to_see(network):
        module.see(normalize(data.first_images(module.wants_images).to(device)))
