"""How the signal passes through a network: variances of activations and gradients, and what each residual block adds.

A deep network can be trained if neither vanishes nor explodes on the way through the layers (Glorot and Bengio, 2010),
and if all layers change at about the same relative speed. A residual block refines its input if its branch F is small
compared with the input x, and if removing it hardly changes the accuracy (Veit, Wilber and Belongie, 2016, remove
blocks in the same way).

Nothing here changes the network: weights, their ``.grad``, running statistics and training mode are restored.

The activations of a thousand layers do not fit into memory. So long chains of layers use activation checkpointing (Chen
et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): the measurements are bitwise the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import timm.models.resnet
import torch
import torchvision.models.resnet
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from zoo.architectures.base import find_layers
from zoo.architectures.densenet import DenseLayer, Transition
from zoo.errors import UserError

LIBRARY_BLOCKS = (
    torchvision.models.resnet.BasicBlock,
    torchvision.models.resnet.Bottleneck,
    timm.models.resnet.BasicBlock,
    timm.models.resnet.Bottleneck,
)
LONG = 4  # minimum length of a chain that uses activation checkpointing
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


@dataclass
class LayerSignal:
    """The signal at one layer.

    Args:
        layer: its name, as in ``named_modules``.
        activation: variance of its output, over images, channels and positions.
        gradient: variance of the loss's gradient with respect to that output.
        weight_ratio: RMS(gradient of its weight) / RMS(weight); None if it has no weight or a frozen one.
    """

    layer: str
    activation: float
    gradient: float
    weight_ratio: float | None


@dataclass
class BranchRatio:
    """The size of a residual block's branch relative to its input.

    Args:
        block: its name, as in ``named_modules``.
        ratio: ‖F(x)‖ / ‖x‖, mean over images; x is what F(x) is added to.
        identity: whether the shortcut is the identity, so that the block can be removed.
    """

    block: str
    ratio: float
    identity: bool


def measure_signal(
    network: nn.Module, images: Tensor, labels: Tensor, layers: Sequence[str] | None = None
) -> list[LayerSignal]:
    """Variances and weight ratios by layer, in the order of the forward pass, on one batch.

    Batch normalisation uses the batch's statistics, as in training; dropout and stochastic depth are off.

    Args:
        network: from images to logits (B, K).
        images: as the network takes them, (B, C, H, W).
        labels: class numbers (B,), or shares of the classes (B, K); the loss is the cross-entropy's mean over them.
        layers: names of layers whose output is one tensor; by default every convolution and fully connected layer.

    Raises:
        UserError: there is no such layer, it is not called, or its output is not a tensor.
    """
    chosen = find_layers(network, layers) if layers is not None else _weighted(network)
    weights = _learnt_weights(chosen)
    seen: dict[str, _Seen] = {}
    with as_measured(network), torch.enable_grad(), _little_kept(network):
        # A copy that requires a gradient: gradients reach frozen layers, too, and the first layer may work in place.
        inputs = images.detach().clone().requires_grad_()
        with _hooked(chosen, partial(_note, seen)):  # but not during recomputation in the backward pass
            loss = F.cross_entropy(network(inputs.clone()), labels)
        grads = torch.autograd.grad(loss, [inputs, *weights.values()], allow_unused=True)[1:]
    if layers is not None and (uncalled := [name for name in layers if name not in seen]):
        raise UserError(f"{type(network).__name__} has a layer {uncalled[0]}, but its forward does not call it")
    ratios = {
        name: None if grad is None else _rms(grad) / max(_rms(weights[name]), 1e-30)
        for name, grad in zip(weights, grads, strict=True)
    }
    return [LayerSignal(name, s.activation, s.gradient, ratios.get(name)) for name, s in seen.items()]


@dataclass
class _Seen:
    activation: float
    gradient: float = math.nan


def _note(seen: dict[str, _Seen], name: str, output: Any) -> None:
    """Measure an output at once, before later layers can modify it in place, and its gradient when it is computed."""
    if not isinstance(output, Tensor):
        raise UserError(f"the output of layer {name} is a {type(output).__name__}, not one tensor")
    seen[name] = record = _Seen(_variance(output))  # the last call, if a layer is called several times
    if output.requires_grad:

        def hook(gradient: Tensor) -> None:
            record.gradient = _variance(gradient)

        output.register_hook(hook)


def branch_ratios(network: nn.Module, images: Tensor) -> list[BranchRatio]:
    """‖F(x)‖ / ‖x‖ of every residual block, in the order of the forward pass; empty if there is none.

    Batch normalisation uses the batch's statistics, so that an untrained network can be measured, too.

    Args:
        network: see ``residual_blocks`` for the supported blocks.
        images: as the network takes them, (B, C, H, W).
    """
    blocks = residual_blocks(network)
    wholes = {name: block.whole for name, block in blocks.items()}
    branches = {name: block.last for name, block in blocks.items()}
    shortcuts = {name: block.shortcut for name, block in blocks.items() if block.shortcut is not None}
    entering: dict[str, Tensor] = {}
    added: dict[str, Tensor] = {}
    carried: dict[str, Tensor] = {}
    with (
        as_measured(network),
        torch.no_grad(),
        _entered(wholes, entering),
        _hooked(branches, partial(_note_norm, added)),
        _hooked(shortcuts, partial(_note_norm, carried)),
    ):
        network(images)
    return [
        BranchRatio(name, float((norm / carried.get(name, entering[name])).mean()), blocks[name].shortcut is None)
        for name, norm in added.items()
    ]


def _note_norm(norms: dict[str, Tensor], name: str, values: Tensor) -> None:
    norms[name] = values.detach().float().flatten(1).norm(dim=1).clamp(min=1e-30)


def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Top-1 accuracy in evaluation mode.

    Args:
        network: from images to logits (B, K).
        batches: images as the network takes them, and labels (B,).
    """
    right = total = 0
    with _modes_kept(network), torch.no_grad():
        network.eval()
        for images, labels in batches:
            right += int((network(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / max(total, 1)


def accuracy_without(
    network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], most: int | None = None
) -> dict[str, float]:
    """Accuracy with one residual block removed, for each block whose shortcut is the identity.

    Args:
        network: see ``residual_blocks`` for the supported blocks.
        batches: as in ``accuracy``.
        most: maximum number of blocks, spaced evenly from the first to the last. By default all.
    """
    blocks = [(name, block) for name, block in residual_blocks(network).items() if block.shortcut is None]
    found: dict[str, float] = {}
    for k in evenly(len(blocks), most or len(blocks)):
        name, block = blocks[k]
        with taken_out(block):
            found[name] = accuracy(network, batches)
    return found


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` evenly spaced indices below ``count``, including the first and the last."""
    if count <= most:
        return list(range(count))
    return [round(k * (count - 1) / (most - 1)) for k in range(most)]


@contextmanager
def taken_out(block: Residual) -> Iterator[None]:
    """A residual block without its branch: x + F(x) becomes x."""
    with _removed_after([block.last.register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))]):
        yield


# Layers and blocks


class Residual(NamedTuple):
    """A residual block.

    Args:
        whole: the block.
        last: the layer whose output is F(x).
        shortcut: the module that changes the shape of x; None for an identity shortcut.
    """

    whole: nn.Module
    last: nn.Module
    shortcut: nn.Module | None


def residual_blocks(network: nn.Module) -> dict[str, Residual]:
    """Residual blocks by name, in the order of definition.

    Supported are blocks with a ``branch`` (F) and a ``shortcut``, as in this package, and those of torchvision's and
    timm's ResNets and variants (ResNeXt, wide ones, ResNet-D, with squeeze and excitation).
    """
    found = {name: _as_residual(module) for name, module in network.named_modules()}
    return {name: block for name, block in found.items() if block is not None}


def _as_residual(module: Any) -> Residual | None:
    if hasattr(module, "branch") and hasattr(module, "shortcut"):
        identity = isinstance(module.shortcut, nn.Identity)
        return Residual(module, module.branch, None if identity else module.shortcut)
    if not isinstance(module, LIBRARY_BLOCKS):
        return None
    ends = [getattr(module, name, None) for name in ("bn2", "bn3", "se", "drop_path")]  # in this order, if present
    return Residual(module, [end for end in ends if end is not None][-1], module.downsample)


def _weighted(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if isinstance(module, WEIGHTED)}


def _learnt_weights(layers: dict[str, nn.Module]) -> dict[str, nn.Parameter]:
    found = {name: getattr(module, "weight", None) for name, module in layers.items()}
    return {name: w for name, w in found.items() if isinstance(w, nn.Parameter) and w.requires_grad}


@contextmanager
def _hooked(layers: dict[str, nn.Module], note: Callable[[str, Any], None]) -> Iterator[None]:
    """Call ``note`` with the name and each output of these layers."""
    with _removed_after([m.register_forward_hook(lambda _m, _i, out, n=n: note(n, out)) for n, m in layers.items()]):
        yield


@contextmanager
def _entered(blocks: dict[str, nn.Module], norms: dict[str, Tensor]) -> Iterator[None]:
    """Record the norms of these blocks' inputs."""
    handles = [
        block.register_forward_pre_hook(lambda _m, args, n=n: _note_norm(norms, n, args[0]))
        for n, block in blocks.items()
    ]
    with _removed_after(handles):
        yield


@contextmanager
def _removed_after(handles: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def as_measured(network: nn.Module) -> Iterator[None]:
    """Batch statistics as in training, nothing random; running statistics are restored afterwards."""
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with _modes_kept(network):
        network.eval()
        for module in network.modules():
            if isinstance(module, _NormBase):
                module.train()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in network.named_buffers():
                    buffer.copy_(kept[name])


@contextmanager
def _little_kept(network: nn.Module) -> Iterator[None]:
    """Activation checkpointing of long chains in √n parts; DenseNet's layers use their memory-efficient mode.

    The network must be deterministic.
    """
    chains = list(dict.fromkeys(_long_chains(network)))
    dense = [module for module in network.modules() if isinstance(module, DenseLayer | Transition)]
    before = [(module, module.memory_efficient, module.training) for module in dense]
    try:
        for chain in chains:
            chain.forward = partial(_in_parts, list(chain))  # type: ignore[method-assign]
        for module in dense:
            module.memory_efficient = module.training = True
        yield
    finally:
        for chain in chains:
            del chain.forward
        for module, efficient, training in before:
            module.memory_efficient, module.training = efficient, training


def _long_chains(module: nn.Module) -> Iterator[nn.Sequential]:
    """The outermost chains of at least ``LONG`` modules."""
    if type(module).forward is nn.Sequential.forward and len(cast(nn.Sequential, module)) >= LONG:
        yield cast(nn.Sequential, module)
    else:
        for child in module.children():
            yield from _long_chains(child)


def _in_parts(chain: Sequence[nn.Module], x: Tensor) -> Tensor:
    size = math.isqrt(len(chain))
    for start in range(0, len(chain), size):
        part = partial(_run, chain[start : start + size])
        x = cast(Tensor, checkpoint(part, x, use_reentrant=False, preserve_rng_state=False))
    return x


def _run(part: Sequence[nn.Module], x: Tensor) -> Tensor:
    x = x.clone()  # the first layer may modify its input in place, which is needed again
    for module in part:
        x = module(x)
    return x


@contextmanager
def _modes_kept(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


# Numbers


def _variance(values: Tensor) -> float:
    return float(values.detach().float().var(correction=0))


def _rms(values: Tensor) -> float:
    return float(values.detach().float().square().mean().sqrt())
