"""Frozen feature extractors, with blurred strides and less memory for large images.

A strided layer samples every second pixel, so that its gradient leaves a grid pattern in the image: Odena,
Dumoulin and Olah, "Deconvolution and Checkerboard Artifacts", 2016. A blur before the stride (Zhang, "Making
Convolutional Networks Shift-Invariant Again", 2019) spreads the gradient, and speeds the optimisation up severalfold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from zoo.architectures.base import Architecture

STRIDED = (nn.Conv2d, nn.MaxPool2d)  # average pooling blurs already


def freeze(network: Architecture, blur_strides: bool) -> Architecture:
    """Put the network in evaluation mode, without gradients to its weights.

    Convolutions pad by replication instead of zeros, since optimisation would exploit the dark border, and a decoder
    would draw one.

    Args:
        network: changed in place.
        blur_strides: blur the input of every strided convolution and max pooling.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
            module.padding_mode = "replicate"
        if blur_strides and isinstance(module, STRIDED) and _stride(module) > 1:
            module.register_forward_pre_hook(_blur_input)
        if type(module).__name__ == "Conv2dSame":  # timm's, which pads with zeros in forward, as TensorFlow does
            module.__class__ = nn.Conv2d
            module.register_forward_pre_hook(_repeat_edge)
    return network.requires_grad_(False).eval()


def _stride(module: Any) -> int:
    return max(module.stride) if isinstance(module.stride, tuple) else module.stride


def _blur_input(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (blur(inputs[0]), *inputs[1:])


def _repeat_edge(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pad by replication to output size ceil(input / stride), an odd pixel at the right and bottom."""
    margins: list[int] = []
    for n, kernel, stride in zip(inputs[0].shape[:1:-1], module.kernel_size[::-1], module.stride[::-1], strict=True):
        missing = max(0, (-(-n // stride) - 1) * stride + kernel - n)  # timm's networks here have no dilation
        margins += [missing // 2, missing - missing // 2]
    return (F.pad(inputs[0], margins, mode="replicate"), *inputs[1:])


def blur(maps: Tensor) -> Tensor:
    """The binomial filter (1, 2, 1) / 4 along both axes, with replicated edges; it removes the Nyquist frequency.

    Shape:
        (B, C, H, W) -> (B, C, H, W)
    """
    one = maps.new_tensor([0.25, 0.5, 0.25])
    kernel = (one[:, None] * one).expand(maps.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), kernel, groups=maps.shape[1])


@contextmanager
def rerun_blocks(network: Architecture, layers: Collection[str]) -> Iterator[None]:
    """Activation checkpointing of a frozen network's blocks: they are recomputed in the backward pass.

    Only their inputs are stored, at a third more time. Outputs and gradients do not change.

    Args:
        network: frozen by ``freeze``.
        layers: layers whose outputs are requested from ``features``.
    """
    with ExitStack() as stack:
        for block in _blocks(network, {network.get_submodule(name) for name in layers}):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            stack.callback(block.__dict__.pop, "forward")  # the class's method remains
        yield


def _blocks(module: nn.Module, wanted: set[nn.Module]) -> Iterator[nn.Module]:
    """The outermost modules that are not plain sequences and do not contain a requested layer."""
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList) or wanted & {*child.modules()} - {child}:
            yield from _blocks(child, wanted)
        elif any(child.children()):
            yield child
