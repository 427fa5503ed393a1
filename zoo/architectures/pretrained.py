"""Any network of images with weights from a file: as a backbone, an encoder, a judge, a teacher or a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo import factories
from zoo.architectures.base import Architecture, Stage, by_channel, should_load_pretrained
from zoo.architectures.vgg import VGG
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, build, plain
from zoo.training.checkpoints import facts_of, load_part, read, resolve


class Pretrained(Architecture):
    """A network that starts from a checkpoint of any task that trained one like it, wherever it stood there.

    It takes images in [0, 1] and normalises them by what the weights were trained with, which it keeps with them: a
    checkpoint of it stands alone. Without ``weights`` it is as the network itself.

    Args:
        network: the network.
        weights: a checkpoint, a run folder, or ``.safetensors``; None for the network's own.
        part: what the names of the network's tensors begin with there, such as ``architecture.encoder``; left out,
            whatever fits best.
        weights_mean: of the images that the weights were trained on, by channel; left out, the network's own, else the
            file's. It has not the name of a fact, which the new data would fill in.
        weights_std: likewise.
        num_classes: length of the output; 0 for a backbone. Left out, the network's own.
        in_channels: channels of the images; likewise.
        image_size: height and width; likewise.

    Shape:
        images (B, C, H, W) in [0, 1], normalised where there are no ``weights`` -> what the network gives

    Raises:
        UserError: the file can't be read, nothing in it fits, or it does not say its mean and std.
    """

    licence: ClassVar[str | None] = "the file's own"
    example: ClassVar[dict[str, Any]] = {
        "network": partial(VGG, depth=11, width=0.0625, norm="batch"),
        "num_classes": 4,
    }
    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        network: ArchitectureFactory,
        weights: str | None = None,
        part: str | None = None,
        weights_mean: Sequence[float] | None = None,
        weights_std: Sequence[float] | None = None,
        num_classes: int | None = None,
        in_channels: int | None = None,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        facts = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        known: dict[str, Any] = {name: value for name, value in facts.items() if value is not None}
        self.network: Architecture = build(plain(network, Architecture), **known)
        self.normalises = weights is not None
        channels = self.network.fixed_channels or in_channels or 3
        mean, std = weights_mean, weights_std
        if weights is not None and should_load_pretrained():
            mean, std = self._start_from(weights, part, mean, std)
        if self.normalises:
            self.mean, self.std = (0.0,), (1.0,)  # what a task is to do with the images
        for name, values in (("image_mean", mean or (0.0,)), ("image_std", std or (1.0,))):
            kept = torch.tensor(by_channel(values, channels)).view(1, channels, 1, 1)
            self.register_buffer(name, kept, persistent=self.normalises)

    def _start_from(
        self, weights: str, part: str | None, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> tuple[Sequence[float], Sequence[float]]:
        """Load the weights; what images they were trained on."""
        report = load_part(self.network, weights, part)
        report.show()
        mean, std = mean or self.network.mean, std or self.network.std
        if (mean is None or std is None) and not report.facts:
            raise UserError(f"{report.file} does not say its images' mean and std: give weights_mean and weights_std")
        return mean or (0.0,), std or (1.0,)  # a task normalises by nothing where the data says nothing

    @classmethod
    def pretrained_classes(cls, arguments: Mapping[str, Any]) -> list[str]:
        """Those that the file names, else those of the network's own weights."""
        weights = arguments.get("weights")
        if weights is None:
            return factories.pretrained_classes(arguments["network"])
        if Path(weights).suffix == ".safetensors" or not should_load_pretrained():
            return []
        return list(facts_of(read(resolve(weights), verify=False)).get("class_names") or [])

    def statistics(self) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
        """The network's, which this one normalises images by."""
        own = super().statistics()
        if not self.normalises:
            return own
        return {**own, "network": (self.image_mean.flatten().tolist(), self.image_std.flatten().tolist())}

    @property
    def stages(self) -> list[Stage]:
        """The network's."""
        return [stage._replace(layer=f"network.{stage.layer}") for stage in self.network.stages]

    def forward(self, images: Tensor) -> Any:
        """The network's output."""
        return self.network(self._normalised(images))

    def features(self, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Outputs of the named layers, as the network gives them."""
        names = [stage.layer for stage in self.stages] if layers is None else list(layers)
        found = self.network.features(self._normalised(images), [n.removeprefix("network.") for n in names])
        return {name: found[name.removeprefix("network.")] for name in names}

    def _normalised(self, images: Tensor) -> Tensor:
        return (images - self.image_mean) / self.image_std if self.normalises else images
