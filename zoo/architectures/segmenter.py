"""What segmentation networks over a backbone share: the backbone, its layers, and torchvision's weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torchvision
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from zoo.architectures.base import Architecture, Stage, by_channel, should_load_pretrained
from zoo.architectures.torchvision import fetching
from zoo.architectures.weights import load_tensors, start_head
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, build, plain
from zoo.registry import did_you_mean

PROBE = 64  # side in pixels of the image that the channels of a layer are measured with


class Segmenter(Architecture):
    """Base of segmentation networks over a backbone.

    Args:
        backbone: any architecture with stages.
        in_channels: channels of the images.
        image_size: height and width, for backbones that are built for one size.

    Attributes:
        published: torchvision's names of the networks whose weights fit.
    """

    roles: ClassVar[tuple[str, ...]] = ("segmenter",)
    published: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, backbone: ArchitectureFactory, in_channels: int = 3, image_size: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        size: dict[str, Any] = {} if image_size is None else {"image_size": list(image_size)}
        self.backbone: Architecture = build(
            plain(backbone, Architecture), num_classes=0, in_channels=in_channels, **size
        )
        self._probe = (self.backbone.fixed_channels or in_channels, *(image_size or (PROBE, PROBE)))

    # Layers

    def stage_at(self, reduction: int) -> Stage:
        """The backbone's stage of this reduction.

        Raises:
            UserError: it has none.
        """
        found = [stage for stage in self.backbone.stages if stage.reduction == reduction]
        if not found:
            known = ", ".join(str(stage.reduction) for stage in self.backbone.stages)
            raise UserError(
                f"{type(self).__name__} takes a feature map of a backbone's stage of reduction {reduction}, "
                f"{type(self.backbone).__name__} has {known}: give the layers"
            )
        return found[0]

    @torch.no_grad()
    def channels_of(self, layers: Sequence[str]) -> list[int]:
        """Channels of the backbone's layers; of those that are no stages measured by a forward pass.

        Raises:
            UserError: there is no such layer.
        """
        told = {stage.layer: stage.channels for stage in self.backbone.stages}
        if not all(layer in told for layer in layers):
            training = self.backbone.training
            maps = self.backbone.eval().features(torch.zeros(1, *self._probe), layers)
            self.backbone.train(training)
            told = {layer: found.shape[1] for layer, found in maps.items()}
        return [told[layer] for layer in layers]

    # torchvision's weights

    @classmethod
    def pretrained_classes(cls, arguments: Mapping[str, Any]) -> list[str]:
        """The classes of torchvision's weights; empty without."""
        weights = find_published(cls, arguments.get("weights"))
        return list(weights.meta["categories"]) if weights else []

    def load_published(self, name: str | None, in_channels: int, last: Sequence[nn.Module]) -> None:
        """Load torchvision's weights; layers for another number of classes are initialised near zero.

        Args:
            name: as ``FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1``; None loads nothing.
            in_channels: channels of the images.
            last: the layers that give the classes.

        Raises:
            UserError: there are no such weights for this class, they can't be downloaded, or the network is not the
                one that they are for.
        """
        weights = find_published(type(self), name)
        if weights is None:
            return
        transforms = weights.transforms()
        self.mean, self.std = by_channel(transforms.mean, in_channels), by_channel(transforms.std, in_channels)
        if not should_load_pretrained():
            return
        with fetching(weights):
            given = self.from_torchvision(weights.get_state_dict(progress=False, check_hash=True))
        stem = next(f"{n}.weight" for n, m in self.named_modules() if isinstance(m, nn.Conv2d))
        if stem in given:
            given[stem] = adapt_input_conv(in_channels, given[stem])
        own = {id(p): n for n, p in self.named_parameters()}
        for layer in last:
            if layer.weight.shape != given.get(own[id(layer.weight)], layer.weight).shape:
                start_head(layer)
                given |= {own[id(p)]: p.detach() for p in layer.parameters()}
        load_tensors(self, given, whole=True)

    def from_torchvision(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of torchvision's network under the names that they have here.

        Its backbones are ResNets, or of MobileNets the ``features`` alone, whose layers have numbers.
        """
        return {_BACKBONE.sub(_own_name, name): tensor for name, tensor in tensors.items()}


_BACKBONE = re.compile(r"^backbone\.(?=(\d)?)")


def _own_name(match: re.Match[str]) -> str:
    return "backbone.network.features." if match[1] else "backbone.network."


def find_published(cls: type[Segmenter], name: str | None) -> WeightsEnum | None:
    """torchvision's weights of one of the networks that fit a class; None for None.

    Raises:
        UserError: there are no such weights.
    """
    if name is None:
        return None
    known = {str(w): w for network in cls.published for w in torchvision.models.get_model_weights(network)}
    if name not in known:
        close = did_you_mean(name, list(known)) or f"; there are: {', '.join(known) or 'none'}"
        raise UserError(f"torchvision has no weights {name} of {cls.__name__}{close}")
    return known[name]


class AuxiliarySegmenter(Segmenter):
    """Base of networks with a head on one layer and, in training, an auxiliary one of the same kind on another.

    Args:
        backbone: any architecture with stages.
        layer: whose feature map the head takes; by default the last stage.
        aux_layer: whose feature map an auxiliary head takes in training; None for no auxiliary head.
        in_channels: channels of the images.
        image_size: height and width, for backbones that are built for one size.
    """

    def __init__(
        self,
        backbone: ArchitectureFactory,
        layer: str | None = None,
        aux_layer: str | None = None,
        in_channels: int = 3,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(backbone, in_channels, image_size)
        self.layers = [layer or self.backbone.stages[-1].layer, *([aux_layer] if aux_layer else [])]

    def add_heads(self, head: Callable[[int], nn.Module], aux_head: Callable[[int], nn.Module]) -> None:
        """Build the heads by functions of the channels of their feature maps."""
        channels = self.channels_of(self.layers)
        self.classifier = head(channels[0])
        self.aux_classifier = aux_head(channels[1]) if len(channels) > 1 else None

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits; in training a pair with the auxiliary head's, if there is one."""
        if self.aux_classifier is None or not self.training:
            return self.classifier(self.backbone.features(images, self.layers[:1])[self.layers[0]])
        maps = self.backbone.features(images, self.layers)
        return self.classifier(maps[self.layers[0]]), self.aux_classifier(maps[self.layers[1]])


def conv_norm(inputs: int, outputs: int, kernel_size: int) -> nn.Sequential:
    """A convolution that keeps the size, batch norm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
