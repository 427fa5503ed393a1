"""Perceptual networks: frozen, with blurred strides, and with weights from any source."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Self

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.nn import functional as F

from zoo.architectures.base import Architecture, find_layers, should_load_pretrained
from zoo.architectures.frozen import freeze, rerun_blocks
from zoo.errors import UserError
from zoo.tasks.base import Task
from zoo.tasks.normalize import Normalize
from zoo.training.checkpoints import load_part

MARGIN = 32  # pixels, a multiple of most layers' stride; at 16, a seam at that distance from the edge is visible
LARGE = 1024**2  # number of pixels from which a picture trades time for memory (checkpointing)
GREY = "model.grey true is for one that was trained on grey pictures"


class PerceptualTask(Task):
    """Base of tasks with a perceptual network, built by their factory ``perceptual``.

    A subclass also takes the arguments ``blur_strides``, ``perceptual_weights`` and ``grey``.
    """

    may_change = ("perceptual_weights",)  # which are in the checkpoint

    def __init__(self) -> None:
        super().__init__()
        self.blur_strides: bool = self.hparams["blur_strides"]
        self.perceptual_weights: str | None = self.hparams["perceptual_weights"]
        self.grey: bool = self.hparams["grey"]

    def build(self) -> None:
        """The perceptual network."""
        channels = 1 if self.grey else self.facts["in_channels"]
        network: Architecture = self.make("perceptual", num_classes=self.num_outputs, in_channels=channels)
        if self.perceptual_weights and should_load_pretrained():
            report = load_part(network, self.perceptual_weights, whole=True, advice="" if self.grey else GREY)
            report.show()
            self.hparams["facts"] = {**self.facts, **report.statistics}
        elif should_load_pretrained() and not self._weights:
            say_if_random(network, self.factories["perceptual"], "perceptual", "perceptual_weights")
        self.hparams["perceptual_weights"] = None  # the task's own checkpoints contain them
        self.perceptual = freeze(network, self.blur_strides)
        self.normalize = Normalize(self.perceptual, {**self.facts, "in_channels": channels})

    @property
    def num_outputs(self) -> int:
        """Number of classes that the network is built with; 0 for a backbone, unless a subclass uses the classes."""
        return 0

    def stage_layers(self) -> list[str]:
        """The last layer of each resolution."""
        return [stage.layer for stage in self.perceptual.stages]

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, except for the perceptual network, which stays in evaluation mode."""
        super().train(mode)
        if self._built:
            self.perceptual.eval()
        return self

    def prepared(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the network takes them."""
        return self.normalize(images.mean(1, keepdim=True) if self.grey else images)

    def maps(self, images: Tensor, layers: Sequence[str], margin: int = MARGIN) -> dict[str, Tensor]:
        """Feature maps of images in [0, 1], in the images' precision.

        A network pads its input, which an optimisation of pixels would exploit along the edges. So the network sees the
        picture with a mirrored margin, and the margin's part of the feature maps is cropped again. For large pictures,
        activations are recomputed in the backward pass.
        """
        down, right = (min(margin, n - 1) for n in images.shape[2:])  # a mirror gives no more than the picture has
        seen = F.pad(self.prepared(images), (right, right, down, down), mode="reflect")
        large = seen.shape[2] * seen.shape[3] >= LARGE
        with rerun_blocks(self.perceptual, layers) if large else nullcontext():
            found = self.perceptual.features(seen, layers)
        shares = down / seen.shape[2], right / seen.shape[3]
        return {name: _without_margin(maps.to(images.dtype), shares) for name, maps in found.items()}


def _without_margin(maps: Tensor, shares: Sequence[float]) -> Tensor:
    """Feature maps cropped by these fractions of height and width at each edge, rounded; at least one cell remains."""
    down, right = (min(round(n * share), (n - 1) // 2) for n, share in zip(maps.shape[2:], shares, strict=True))
    return maps[..., down : maps.shape[2] - down, right : maps.shape[3] - right]


@rank_zero_only
def say_if_random(network: Architecture, factory: Any, argument: str, checkpoint: str) -> None:
    """Warn about a perceptual network with random weights: allowed, but hardly ever intended.

    Args:
        network: the network that the factory built.
        factory: the architecture's factory, whose pretrained weights are requested by ``weights`` or ``pretrained``.
        argument: name of the task's argument for the factory, for the message.
        checkpoint: name of the task's argument for a checkpoint of such a network, for the message.
    """
    known = inspect.signature(factory).parameters
    asked = [name for name in ("weights", "pretrained") if name in known]
    if not any(known[name].default for name in asked):
        ways = [f"model.{argument}.{name}" for name in asked] + [f"model.{checkpoint}"]
        line = f"zoo: {type(network).__name__} looks with random weights; trained ones: {', '.join(ways)}"
        print(line, file=sys.stderr, flush=True)


def layer_shares(
    network: Architecture, layers: dict[str, float] | None, default: Callable[[], Sequence[str]]
) -> dict[str, float]:
    """Names of layers with their weights, normalised to sum to 1; the default layers are weighted equally.

    Args:
        network: has the layers.
        layers: weights by name.
        default: names of layers, called only if ``layers`` is not given.

    Raises:
        UserError: the network has no such layer, or a weight is below 0.
    """
    chosen = dict.fromkeys(default(), 1.0) if layers is None else layers
    find_layers(network, list(chosen))
    if chosen and min(chosen.values()) < 0:
        raise UserError(f"weights of layers must be at least 0, not {min(chosen.values())}")
    total = sum(chosen.values())
    if not total > 0:
        raise UserError("no layer has a weight above 0")
    return {name: weight / total for name, weight in chosen.items() if weight > 0}


def middle(layers: Iterable[str]) -> list[str]:
    """The middle element; for an even number of elements, the later of the two."""
    names = list(layers)
    return [names[len(names) // 2]]


def resized(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resized images, antialiased when they get smaller.

    Shape:
        (B, C, H, W) -> (B, C, *size)
    """
    if list(images.shape[2:]) == list(size):
        return images
    mode = "bilinear" if size[0] < images.shape[2] else "bicubic"
    return F.interpolate(images, list(size), mode=mode, align_corners=False, antialias=True)


def scaled(images: Tensor, factor: float) -> Tensor:
    """Images whose sides are multiplied by this factor, (B, C, round(H * factor), round(W * factor))."""
    return resized(images, [max(1, round(n * factor)) for n in images.shape[2:]])
