"""What the library's networks share as denoisers: how they are told time and class, and sides of images.

Networks and the parameters' names below ``network`` are the library's, so its files fit. The library counts steps where
the zoo has times; the task says how the one follows from the other (``timestep``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.architectures.base import Architecture, check_numbers, should_load_pretrained
from zoo.errors import UserError
from zoo_diffusers.configs import load, made


class LibraryDenoiser(Architecture):
    """Base of the library's denoisers.

    Attributes:
        library: the library's class.
        folder: its name in the library's folders of several parts.
        taken: fields of its configuration that facts and tasks fill in.
        free: further fields that do not change what weights compute.
        network: an object of it.
        num_classes: 0 for none.
        timestep: factor and offset that make the library's step of a time.
    """

    roles: ClassVar[tuple[str, ...]] = ("denoiser",)
    licence: ClassVar[str | None] = "that of the weights"
    library: ClassVar[Any]
    folder: ClassVar[str]
    taken: ClassVar[tuple[str, ...]]
    free: ClassVar[tuple[str, ...]] = ("sample_size", "dropout")
    network: Any

    def build(
        self, config: Mapping[str, Any], num_classes: int, in_channels: int, timestep: Sequence[float], **given: Any
    ) -> None:
        """Make the network; for the constructor.

        Args:
            config: fields of its configuration.
            num_classes: 0 for none.
            in_channels: of the images.
            timestep: factor and offset.
            given: fields that facts give; ``config`` may have those that are not ``taken``.

        Raises:
            UserError: the library can't make it.
        """
        name = type(self).__name__
        check_numbers(name, num_classes, in_channels, 1)
        self.num_classes, self.timestep = num_classes, (float(timestep[0]), float(timestep[1]))
        given |= {"in_channels": in_channels, "out_channels": config.get("out_channels") or in_channels}
        self.network = made(name, self.library, config, self.taken, **given)
        if given["out_channels"] < in_channels:
            raise UserError(f"{name}: out_channels must be at least the images' {in_channels} channels")

    def load(self, pretrained: str | None) -> None:
        """Load weights, if there are to be any and no checkpoint brings them; for the constructor.

        Raises:
            UserError: they can't be read, or are of another network.
        """
        if pretrained is not None and should_load_pretrained():
            load(self.network, pretrained, self.folder, self.free)

    @abstractmethod
    def fitted(self, x: Tensor) -> Tensor:
        """The images, extended at the right and the bottom to sides that the library's network takes."""

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the task trains it to predict; of more outputs, such as learnt variances, the first."""
        factor, offset = self.timestep
        found = self.network(self.fitted(x_t), factor * t + offset, class_labels=self.told(t, labels)).sample
        return found[:, : x_t.shape[1], : x_t.shape[2], : x_t.shape[3]]

    def told(self, t: Tensor, labels: Tensor | None) -> Tensor | None:
        """The labels for the library, which always wants some where there are classes.

        Raises:
            UserError: labels for a network without classes.
        """
        if self.num_classes:
            return torch.full_like(t, self.num_classes, dtype=torch.long) if labels is None else labels
        if labels is not None:
            raise UserError("labels were given to a network without classes: build it with num_classes")
        return None
