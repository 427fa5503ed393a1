"""Every image network of timm (Wightman, "PyTorch Image Models"), under timm's name, with timm's weights.

Network and initialisation are timm's; this file adds the zoo's arguments, errors and feature maps. With
``num_classes: 0`` it is a backbone: the layers after the last stage are omitted, and the others keep the classifier's
names, so that a classifier's checkpoint fits.

Pretrained weights for other than three channels are adapted as timm does: for one channel the filters are summed over
the colours, for several they are repeated cyclically and scaled. ``mean`` and ``std`` are adapted accordingly.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import PretrainedCfg
from torch import Tensor

from zoo.architectures.base import (
    Architecture,
    Stage,
    by_channel,
    first_line,
    refuse_bad_size,
    refuse_options,
    should_load_pretrained,
)
from zoo.architectures.weights import start_head
from zoo.errors import UserError
from zoo.registry import did_you_mean

OFFLINE = "EfficientNetLite0 includes its ImageNet weights"
# Set by this class's arguments, or naming files to be read.
TAKEN = (
    "num_classes",
    "in_chans",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
)
FILES = ("model.safetensors", "pytorch_model.bin")  # in each of timm's repositories on the hub


class Timm(Architecture):
    """A network of timm, as a classifier or as a backbone.

    Args:
        name: as in ``timm.list_models()``, with a tag (``resnet18.a1_in1k``) to choose the weights.
        pretrained: start from timm's weights, which are downloaded once from huggingface.co; with another number
            of classes the last layer is initialised near zero.
        num_classes: length of the output; 0 for a backbone.
        in_channels: channels of the images.
        image_size: height and width of the images. Networks with a fixed size (ViT, Swin) are built for this one;
            every network is run on it once as a check. By default the network's own size, without a check.
        options: further arguments of ``timm.create_model``, such as ``drop_path_rate``; not those that choose weights.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes), or the last stage's feature map (B, C', H', W') for
        0

    Raises:
        UserError: timm has no such network or weights, they can't be downloaded, or the network can't take the
            arguments or the image size.
    """

    network: Any  # an nn.Module with the methods that timm's have

    licence: ClassVar[str | None] = "each network's weights have their own: timm.get_pretrained_cfg(name).license"
    example: ClassVar[dict[str, Any]] = {"name": "test_resnet", "num_classes": 4, "image_size": [32, 32]}

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        refuse_options("Timm", options, TAKEN)
        cfg = _pretrained_cfg(name, pretrained)
        self.num_classes = num_classes
        arguments = {"num_classes": num_classes, "in_chans": in_channels, **(options or {})}
        if image_size is not None and cfg.fixed_input_size:
            arguments.setdefault("img_size", tuple(image_size))
        self.network = _create(name, cfg, pretrained and should_load_pretrained(), arguments)
        self._head = [cfg.classifier] if isinstance(cfg.classifier, str) else list(cfg.classifier or ())
        if pretrained:
            if num_classes not in (0, cfg.num_classes) and should_load_pretrained():
                for head in self.head_layers:
                    start_head(self.get_submodule(head))
            self.mean, self.std = by_channel(cfg.mean, in_channels), by_channel(cfg.std, in_channels)
        self._indices = _last_of_each_reduction(self.network.feature_info)
        if num_classes == 0:
            self.network.prune_intermediate_layers(list(self._indices.values()), prune_norm=True, prune_head=True)
        if image_size is not None:
            refuse_bad_size(self, name, in_channels, image_size)

    @classmethod
    def pretrained_classes(cls, arguments: Mapping[str, Any]) -> list[str]:
        """The classes of the pretrained weights, where they are one of timm's ImageNet label sets."""
        if not arguments.get("pretrained"):
            return []
        subset = infer_imagenet_subset(_pretrained_cfg(arguments["name"], True).to_dict())
        return list(ImageNetInfo(subset).label_descriptions()) if subset else []

    @property
    def head_layers(self) -> list[str]:
        """The classifier; a distilled network has two. None for a backbone."""
        return [f"network.{name}" for name in self._head] if self.num_classes else []

    @property
    def stages(self) -> list[Stage]:
        """The last layer at each resolution, of those that timm returns feature maps of."""
        return list(self._indices)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last stage's feature map without classes."""
        return self.network(images) if self.num_classes else self._maps(images, list(self._indices.values())[-1:])[0]

    def features(self, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Outputs of the named layers, as ``Architecture.features`` gives them.

        Outputs of ``stages`` are always (B, C, H, W); outputs of other layers keep the network's layout. A mixture of
        both takes two forward passes.
        """
        indices = {stage.layer: i for stage, i in self._indices.items()}
        names = list(indices) if layers is None else list(layers)
        others = [name for name in names if name not in indices]
        found = super().features(images, others) if others else {}
        told = [name for name in indices if name in names]  # timm returns them in its own order
        if told:
            found |= dict(zip(told, self._maps(images, [indices[name] for name in told]), strict=True))
        return {name: found[name] for name in names}

    def _maps(self, images: Tensor, indices: list[int]) -> list[Tensor]:
        return self.network.forward_intermediates(
            images, indices=indices, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )


def _pretrained_cfg(name: str, pretrained: bool) -> PretrainedCfg:
    """timm's configuration of this network and its weights."""
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise UserError(f"timm has no network {name}{did_you_mean(base, timm.list_models())}")
    known = timm.list_pretrained(f"{base}.*") if tag or pretrained else []
    if tag and name not in known:
        raise UserError(f"timm has no weights {name}{did_you_mean(name, known)}")
    cfg = timm.get_pretrained_cfg(name)
    if pretrained and not (cfg and cfg.has_weights):
        raise UserError(f"timm has no pretrained weights of {base}: give pretrained: false; {OFFLINE}")
    return cfg or PretrainedCfg()


def _create(name: str, cfg: PretrainedCfg, pretrained: bool, arguments: dict[str, Any]) -> Any:
    if pretrained:
        _reach_hub(name, cfg)
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except OSError as error:
        raise _not_fetched(name, cfg, error) from error
    except Exception as error:  # assertions, TypeErrors and more, by family
        told = ", ".join(f"{k} {v}" for k, v in arguments.items())
        raise UserError(f"timm can't build {name} with {told}: {first_line(error)}") from error


def _reach_hub(name: str, cfg: PretrainedCfg) -> None:
    """Check once whether the hub can be reached: its client retries for 50 seconds and prints a dozen lines."""
    if not cfg.hf_hub_id or cfg.file:
        return
    from huggingface_hub import HfApi, try_to_load_from_cache

    files = (cfg.hf_hub_filename,) if cfg.hf_hub_filename else FILES
    if any(isinstance(try_to_load_from_cache(cfg.hf_hub_id, file), str) for file in files):
        return
    try:
        HfApi().model_info(cfg.hf_hub_id, timeout=10)
    except Exception as error:  # from the client, the library below it, or the system
        raise _not_fetched(name, cfg, error) from error


def _not_fetched(name: str, cfg: PretrainedCfg, error: Exception) -> UserError:
    source = f"huggingface.co/{cfg.hf_hub_id}" if cfg.hf_hub_id else cfg.url
    return UserError(
        f"timm's weights of {name} could not be fetched from {source} ({first_line(error)}); offline, {OFFLINE}"
    )


def _last_of_each_reduction(feature_info: Any) -> dict[Stage, int]:
    """Stages with their indices in ``forward_intermediates``, finest first."""
    told = {info["reduction"]: (info, i) for i, info in enumerate(feature_info)}
    return {Stage(f"network.{told[r][0]['module']}", told[r][0]["num_chs"], r): told[r][1] for r in sorted(told)}


logging.getLogger("timm.models").setLevel(logging.ERROR)  # it logs that weights were adapted, which was requested
