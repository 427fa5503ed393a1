"""What the networks of segmentation-models-pytorch share here: arguments, images of any size, errors.

Network and initialisation are the library's, and so are the parameters' names below ``network``, so that its files fit.
Three things are added:

- Images whose sides are no multiple of the encoder's stride, which most of the library's networks refuse, are padded
  with zeros at the bottom and on the right, after the normalisation the mean colour; the logits are cropped.
- Parameters that no output depends on are removed: the stages behind PSPNet's encoder of depth 3 (94 % of ResNet-18), a
  transformer's classifier. Training on several devices stops at such parameters, and checkpoints would hold them.
- Mean and standard deviation of the encoder's weights are the network's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Architecture
from zoo.architectures.base import by_channel, first_line, refuse_options, should_load_pretrained
from zoo.architectures.timm import TAKEN as TAKEN_BY_TIMM
from zoo.errors import UserError
from zoo.registry import did_you_mean
from zoo_smp.encoders import TIMM, check_encoder, not_fetched, reach_weights, statistics

# Set by the arguments, giving other outputs than logits, or naming files to be read.
TAKEN = (
    "encoder_name",
    "encoder_weights",
    "in_channels",
    "classes",
    "activation",
    "aux_params",
    "out_indices",
    *TAKEN_BY_TIMM,
)


class SmpSegmenter(Architecture):
    """Base of the library's networks; a subclass says which.

    Args:
        encoder_name: one of the library's encoders, such as ``resnet34`` or ``mit_b0``, or a network of timm, such as
            ``tu-resnet18.a1_in1k``.
        encoder_weights: name of pretrained weights of the encoder, such as ``imagenet``, downloaded once from
            huggingface.co; for encoders of timm ``imagenet``, and the tag in the encoder's name chooses them. None
            for random weights.
        options: further arguments of the library's class, such as ``decoder_channels``, and for timm's encoders of
            ``timm.create_model``.
        num_classes: channels of the logits.
        in_channels: channels of the images.

    Attributes:
        library: the library's class.
        smallest_map: smallest height and width of the encoder's last feature map.
    """

    roles: ClassVar[tuple[str, ...]] = ("segmenter",)
    licence: ClassVar[str | None] = (
        "MIT (segmentation-models-pytorch); each encoder's weights have their own, those of mit_b0 to mit_b5 for "
        "research only (NVIDIA)"
    )
    library: ClassVar[Any]
    smallest_map: ClassVar[int] = 1
    network: Any  # an nn.Module with the attributes that the library's have

    def __init__(
        self,
        encoder_name: str = "resnet34",
        encoder_weights: str | None = None,
        options: dict[str, Any] | None = None,
        num_classes: int = 21,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if num_classes < 1 or in_channels < 1:
            raise UserError(f"{name}: num_classes and in_channels must be at least 1")
        refuse_options(name, options, TAKEN)
        check_encoder(encoder_name, encoder_weights)
        self._check_options(encoder_name, options or {})
        weights = encoder_weights if should_load_pretrained() else None
        arguments = {"in_channels": in_channels, "classes": num_classes, **(options or {})}
        self.network = self._create(encoder_name, weights, arguments)
        if encoder_weights is not None:
            mean, std = statistics(encoder_name, encoder_weights)
            self.mean, self.std = by_channel(mean, in_channels), by_channel(std, in_channels)

    def _check_options(self, encoder: str, options: Mapping[str, Any]) -> None:
        """Refuse unknown options, which the library ignores unless the encoder is timm's; timm refuses them itself."""
        known = [p.name for p in inspect.signature(self.library).parameters.values() if p.kind is not p.VAR_KEYWORD]
        unknown = [option for option in options if option not in known]
        if unknown and not encoder.startswith(TIMM):
            raise UserError(
                f"{type(self).__name__}: {self.library.__name__} of segmentation-models-pytorch has no option "
                f"{unknown[0]}{did_you_mean(unknown[0], known)}"
            )

    def _create(self, encoder: str, weights: str | None, arguments: dict[str, Any]) -> Any:
        if weights is not None:
            reach_weights(encoder, weights)
        given = True if weights is not None and encoder.startswith(TIMM) else weights
        try:
            network = self.library(encoder_name=encoder, encoder_weights=given, **arguments)
            side = self._side(network, 2 * network.encoder.output_stride)  # group norm takes no map of one value
            remove_unused(network, torch.zeros(1, arguments["in_channels"], side, side))
        except Exception as error:  # of many types
            if weights is not None and isinstance(error, OSError):
                raise not_fetched(encoder, weights, error) from error
            told = ", ".join(f"{k} {v}" for k, v in arguments.items())
            raise UserError(
                f"{type(self).__name__} can't be built over {encoder} with {told}: {first_line(error)}"
            ) from error
        return network

    def multiple(self, network: Any) -> int:
        """The sides of the images that the network itself takes are multiples of this."""
        return network.encoder.output_stride if network.requires_divisible_input_shape else 1

    def _side(self, network: Any, side: int = 1) -> int:
        """The smallest side of at least ``side`` pixels that the network takes."""
        multiple = self.multiple(network)
        return max(-(-side // multiple) * multiple, self.smallest_map * network.encoder.output_stride)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the images' size, or as the options say for images that need no padding."""
        height, width = images.shape[-2:]
        down, right = self._side(self.network, height) - height, self._side(self.network, width) - width
        if not (down or right):
            return self.network(images)
        padded = F.pad(images, (0, right, 0, down))
        logits = self.network(padded)
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def remove_unused(network: nn.Module, images: Tensor) -> None:
    """Replace the submodules that have parameters, none of which the output depends on, by identities.

    Args:
        network: its mode and its running statistics do not change.
        images: a batch to run the network on.
    """
    training, parameters = network.training, list(network.parameters())
    with torch.enable_grad():
        found = torch.autograd.grad(network.eval()(images).sum(), parameters, allow_unused=True)
    network.train(training)
    _replace_unused(network, {id(p) for p, gradient in zip(parameters, found, strict=True) if gradient is not None})


def _replace_unused(module: nn.Module, used: set[int]) -> None:
    for name, child in module.named_children():
        parameters = list(child.parameters())
        if parameters and not any(id(p) in used for p in parameters):
            setattr(module, name, nn.Identity())
        else:
            _replace_unused(child, used)
