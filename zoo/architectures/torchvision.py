"""Every classification network of torchvision, under torchvision's name, with torchvision's weights.

Network and initialisation are torchvision's; this file adds the zoo's arguments, errors and feature maps. With
``num_classes: 0`` it is a backbone: the layers after the last stage are omitted, and the others keep the classifier's
names, so that a classifier's checkpoint fits.

Deviations from ``torchvision.models.get_model``:
- Weights can be used with any number of classes: the last weight layer, in order of definition, is then initialised
  near zero.
- For other than three channels the first convolution is replaced. Pretrained filters are adapted as in timm: for one
  channel they are summed over the colours, for several they are repeated cyclically and scaled; ``mean`` and ``std``
  are adapted accordingly. Random filters have the standard deviation of torchvision's.
- GoogLeNet and Inception v3 have no auxiliary classifiers. The input transform of their pretrained forms is expressed
  by ``mean`` and ``std`` instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import torch
import torchvision
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer, WeightsEnum

from zoo.architectures.base import (
    Architecture,
    Stage,
    by_channel,
    capture,
    first_line,
    refuse_bad_size,
    refuse_options,
    should_load_pretrained,
)
from zoo.architectures.weights import start_head
from zoo.errors import UserError
from zoo.registry import did_you_mean

INCEPTIONS = ("googlenet", "inception_v3")
WIDE = (128, 512)  # no pooled feature map has this aspect ratio; Inception's unpadded layers need it this large


class TorchVision(Architecture):
    """A classification network of torchvision, as a classifier or as a backbone.

    Args:
        name: as in ``torchvision.models.list_models(module=torchvision.models)``.
        weights: name of torchvision's weights for this network, such as ``IMAGENET1K_V1`` or ``DEFAULT``, downloaded
            once from download.pytorch.org; None for random weights.
        num_classes: length of the output; 0 for a backbone.
        in_channels: channels of the images.
        image_size: height and width of the images. ViT and MaxViT are built for this one; every network is run on
            it once as a check. By default the network's own size, without a check.
        options: further arguments of ``torchvision.models.get_model``, such as ``dropout``.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes), or the last stage's feature map (B, C', H', W') for
        0

    Raises:
        UserError: torchvision has no such network or weights, they can't be downloaded, or the network can't take the
            arguments or the image size.
    """

    licence: ClassVar[str | None] = "BSD-3-Clause; those called SWAG are CC BY-NC 4.0"
    example: ClassVar[dict[str, Any]] = {"name": "shufflenet_v2_x0_5", "num_classes": 4, "image_size": [32, 32]}

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise UserError(f"torchvision has no classification network {name}{did_you_mean(name, known)}")
        refuse_options("TorchVision", options, ("num_classes", "weights"))
        pretrained = find_weights(name, weights)
        self.num_classes = num_classes
        arguments = {**_size_argument(name, image_size), **(options or {})}
        self.network = _create(name, pretrained, num_classes or 1, arguments)
        if in_channels != 3:
            replace_stem(self.network, in_channels, keep=pretrained is not None)
        if pretrained is not None:
            self._normalise_as(pretrained, in_channels)
        self._traced_size = _traced_size(self.network, image_size)
        if num_classes == 0:
            self._cut()
        if image_size is not None:
            refuse_bad_size(self, name, in_channels, image_size)

    def _normalise_as(self, weights: WeightsEnum, in_channels: int) -> None:
        transforms = weights.transforms()
        inception = isinstance(self.network, torchvision.models.GoogLeNet | torchvision.models.Inception3)
        mean, std = ((0.5,), (0.5,)) if inception else (transforms.mean, transforms.std)
        self.mean, self.std = by_channel(mean, in_channels), by_channel(std, in_channels)

    @classmethod
    def pretrained_classes(cls, arguments: Mapping[str, Any]) -> list[str]:
        """The classes of the pretrained weights."""
        weights = find_weights(arguments["name"], arguments.get("weights"))
        return list(weights.meta["categories"] or ()) if weights else []

    # Feature maps

    @property
    def _last_layer(self) -> nn.Module:
        return self.get_submodule(self.stages[-1].layer)

    @property
    def stages(self) -> list[Stage]:
        """The last layer at each resolution before the classifier, found by a forward pass of zeros."""
        return self._stages

    @cached_property  # a backbone's removed layers can't be run any more
    def _stages(self) -> list[Stage]:
        found: dict[int, Stage] = {}
        head, _ = _last_weighted(self.network)  # SqueezeNet's is a convolution, whose output is logits
        for layer, channels, reduction in self._line:
            if reduction and layer.partition(".")[0] != head.partition(".")[0]:
                found[reduction] = Stage(f"network.{layer}", channels, reduction)
        return [found[reduction] for reduction in sorted(found)]

    @cached_property
    def _line(self) -> list[tuple[str, int, int]]:
        """The network's parts in the order in which they finish: name, channels and reduction (0 if not a feature map).

        Parts are its children, and the children of those that are plain sequences.
        """
        network, parts = self.network, _parts(self.network)
        line: list[tuple[str, int, int]] = []
        height, width = self._traced_size

        def note(name: str, output: Any) -> None:
            maps = _as_map(network, output, self._traced_size) if isinstance(output, Tensor) else None
            if maps is None or maps.dim() != 4 or isinstance(parts[name], nn.AdaptiveAvgPool2d):
                return line.append((name, 0, 0))
            _, channels, h, w = maps.shape
            proportional = abs(math.log2(w / h * height / width)) < 0.5  # else pooled, or another layout
            line.append((name, channels, _reduction(network, height / h) if proportional else 0))

        handles = [m.register_forward_hook(lambda _m, _a, out, n=n: note(n, out)) for n, m in parts.items()]
        stem = _weighted(network, nn.Conv2d)[0][1].weight
        training = network.training
        with torch.no_grad():
            network.eval()(stem.new_zeros(1, stem.shape[1], height, width))
        network.train(training)
        for handle in handles:
            handle.remove()
        return line

    def _cut(self) -> None:
        """Remove the layers after the last stage."""
        line, last = [name for name, *_ in self._line], self.stages[-1].layer.removeprefix("network.")
        for name in line[line.index(last) + 1 :]:
            _replace(self.network, name, nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last stage's feature map without classes."""
        if self.num_classes:
            return self.network(images)
        (output,) = capture(lambda: self.network(images), {"last": self._last_layer}).values()
        return _as_map(self.network, output, images.shape[-2:])

    def _run_layers(self, images: Tensor) -> None:
        self.network(images)

    def features(self, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Outputs of the named layers, as ``Architecture.features`` gives them.

        Outputs of ``stages`` are always (B, C, H, W); outputs of other layers keep the network's layout.
        """
        found, stages = super().features(images, layers), {stage.layer for stage in self.stages}
        return {n: _as_map(self.network, t, images.shape[-2:]) if n in stages else t for n, t in found.items()}


def _reduction(network: nn.Module, pixels: float) -> int:
    """The reduction as a power of two; unpadded layers make the measured ratio inexact."""
    return network.patch_size if isinstance(network, VisionTransformer) else 2 ** round(math.log2(pixels))


def _traced_size(network: nn.Module, image_size: Sequence[int] | None) -> tuple[int, int]:
    if isinstance(network, VisionTransformer):
        return network.image_size, network.image_size
    if isinstance(network, torchvision.models.MaxVit):
        height, width = image_size or (224, 224)
        return height, width
    return (256, 1024) if isinstance(network, torchvision.models.Inception3) else WIDE


def find_weights(name: str, text: str | None) -> WeightsEnum | None:
    """torchvision's weights of a network by name; None for None.

    Raises:
        UserError: there are no such weights.
    """
    if text is None:
        return None
    known = torchvision.models.get_model_weights(name)
    if text not in known.__members__:
        names = ", ".join(known.__members__) or "none"
        raise UserError(f"torchvision has no weights {text} of {name}; there are: {names}")
    return known[text]


def _size_argument(name: str, image_size: Sequence[int] | None) -> dict[str, Any]:
    """The size argument of transformers whose positional embeddings are for one size."""
    if image_size is None or not name.startswith(("vit_", "maxvit")):
        return {}
    if name.startswith("maxvit"):
        return {"input_size": tuple(image_size)}
    if len(set(image_size)) != 1:
        raise UserError(f"torchvision's {name} takes square images, not {'×'.join(map(str, image_size))}")
    return {"image_size": image_size[0]}


@contextmanager
def fetching(weights: WeightsEnum) -> Iterator[None]:
    """Weights are downloaded in this context, unless they are cached.

    Raises:
        UserError: they can't be downloaded.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"torchvision's weights {weights} could not be fetched from {weights.url} ({first_line(error)}); offline, "
            "EfficientNetLite0 includes its ImageNet weights"
        ) from error


def _create(name: str, weights: WeightsEnum | None, num_classes: int, arguments: dict[str, Any]) -> nn.Module:
    """The network with this number of classes; weights for another number get a new last layer."""
    load = weights if should_load_pretrained() else None
    try:
        if load is None:
            alone = {"aux_logits": False, "init_weights": True} if name in INCEPTIONS else {}
            return torchvision.models.get_model(name, num_classes=num_classes, **alone, **arguments)
        with fetching(load):
            network = torchvision.models.get_model(name, weights=load, **arguments)
    except UserError:
        raise
    except Exception as error:  # assertions, TypeErrors and more, by family
        told = ", ".join(f"{k} {v}" for k, v in {"weights": weights, **arguments}.items())
        raise UserError(f"torchvision can't build {name} with {told}: {first_line(error)}") from error
    if name in INCEPTIONS:
        network.transform_input = network.aux_logits = False  # ``mean`` and ``std`` do the same
        network.aux1 = network.aux2 = network.AuxLogits = None
    if num_classes != len(load.meta["categories"] or ()):  # VGG-16 has weights without a classifier
        _replace_head(network, num_classes)
    return network


def _weighted(network: nn.Module, kinds: Any) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in network.named_modules() if isinstance(module, kinds)]


def _last_weighted(network: nn.Module) -> tuple[str, Any]:
    return _weighted(network, nn.Linear | nn.Conv2d)[-1]


def _replace_head(network: nn.Module, num_classes: int) -> None:
    """A new last weight layer: linear, or SqueezeNet's convolution."""
    name, old = _last_weighted(network)
    bias = old.bias is not None
    if isinstance(old, nn.Linear):
        new: nn.Module = nn.Linear(old.in_features, num_classes, bias)
    else:
        new = nn.Conv2d(old.in_channels, num_classes, old.kernel_size, bias=bias)
    start_head(new)
    _replace(network, name, new)


def replace_stem(network: nn.Module, in_channels: int, keep: bool) -> None:
    """Replace the first convolution for other channels: adapted filters, or random ones of the same scale."""
    name, old = _weighted(network, nn.Conv2d)[0]
    new = nn.Conv2d(in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
    with torch.no_grad():
        drawn = torch.randn_like(new.weight) * old.weight.std()
        new.weight.copy_(adapt_input_conv(in_channels, old.weight) if keep else drawn)
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)
    _replace(network, name, new)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def _parts(network: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        found[f"{prefix}{name}"] = child
        if type(child) is nn.Sequential:
            found |= _parts(child, f"{prefix}{name}.")
    return found


def _as_map(network: nn.Module, output: Tensor, size: Sequence[int]) -> Tensor:
    """An output as (B, C, H, W): Swin is channels-last, ViT gives a sequence with a class token."""
    if isinstance(network, SwinTransformer) and output.dim() == 4:
        return output.permute(0, 3, 1, 2)
    if isinstance(network, VisionTransformer) and output.dim() == 3:
        height, width = (n // network.patch_size for n in size)
        return output[:, 1:].transpose(1, 2).unflatten(2, (height, width))
    return output
