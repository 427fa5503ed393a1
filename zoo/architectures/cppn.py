"""Compositional pattern-producing networks. Stanley, "Compositional Pattern Producing Networks: A Novel Abstraction of
Development", 2007.

An image as a function: the network takes a pixel's coordinates and its distance from the centre, and returns the
colour there. The image has no fixed resolution; a larger one is the same function at more points.

Deviations: fully connected layers with random weights, or weights fitted by gradient descent, instead of an evolved
graph; three colours instead of one intensity. Weights are normally distributed, with a gain per layer that keeps
patterns rich, and initial colours spread over the whole range.

With sines alone, ``frequency`` 40 and ``scale`` √2 it fits images best and is the network of Sitzmann et al.,
"Implicit Neural Representations with Periodic Activation Functions", 2020 (SIREN). Their factor of 30 before every
sine is part of the weights here, whose learning rate is larger accordingly; the hidden weights have their variance, but
a normal distribution. The first layer then computes trainable random Fourier features (Tancik et al., "Fourier Features
Let Networks Learn High Frequency Functions in Low Dimensional Domains", 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn

from zoo.architectures.base import Architecture
from zoo.architectures.initialisation import weight_layers
from zoo.errors import UserError
from zoo.functional.patterns import grid
from zoo.functional.style import YIQ

Activation = Literal["sine", "gaussian", "tanh", "sigmoid", "absolute", "linear"]
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sine": torch.sin,
    "gaussian": lambda a: torch.exp(-a.square() / 2),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "absolute": torch.abs,
    "linear": lambda a: a,
}
# Initial standard deviations of the logits: luminance, and two colour differences, which vary less in natural images.
SPREAD = (1.4, 0.7, 0.7)


class CPPN(Architecture):
    """An MLP from coordinates to colours.

    Args:
        depth: number of hidden layers.
        units: width of each hidden layer.
        activations: names of activations, distributed evenly over the units of each layer.
        frequency: standard deviation of the first layer's weights: how fine a pattern is, in radians per half of the
            longer side.
        scale: gain of the other hidden layers, whose weights have standard deviation ``scale / √fan-in``: how complex
            the pattern is.
        radius: whether the distance from the centre is an input, too.

    Shape:
        coordinates (…, 2), x and y in [-1, 1] along the longer side -> colours in [0, 1], (…, 3)

    Raises:
        UserError: an activation is unknown, or a number out of range.
    """

    roles = ("pattern",)
    example: ClassVar[dict[str, Any]] = {"depth": 2, "units": 8}

    def __init__(
        self,
        depth: int = 5,
        units: int = 16,
        activations: Sequence[Activation] = ("sine", "gaussian", "tanh", "sigmoid"),
        frequency: float = 1.5,
        scale: float = 4.0,
        radius: bool = True,
    ) -> None:
        super().__init__()
        _check(depth, units, activations, frequency, scale)
        self.activations, self.radius = tuple(activations), radius
        widths = [2 + radius, *[units] * depth]
        self.layers = nn.ModuleList(nn.Linear(into, units) for into in widths[:-1])
        self.output = nn.Linear(units, 3)
        self._start(frequency, scale)

    @torch.no_grad()
    def _start(self, frequency: float, scale: float) -> None:
        """Random weights; colours have mean 0.5 over the square and the standard deviations ``SPREAD``."""
        for i, layer in enumerate(weight_layers(self.layers)):
            nn.init.normal_(layer.weight, 0.0, scale / math.sqrt(layer.weight.shape[1]) if i else frequency)
            nn.init.normal_(cast(Tensor, layer.bias))
        nn.init.normal_(self.output.weight)
        signal = self._hidden(grid([32, 32]).to(self.output.weight)).flatten(0, 1) @ self.output.weight.T
        deviation, mean = torch.std_mean(signal, 0)
        mix = torch.linalg.inv(torch.tensor(YIQ)) @ torch.tensor(SPREAD).diag()
        mix = mix.to(signal) / deviation.clamp(min=1e-6)
        self.output.weight.copy_(mix @ self.output.weight)
        self.output.bias.copy_(-(mix @ mean))

    def forward(self, places: Tensor) -> Tensor:
        """The colours at these coordinates."""
        return torch.sigmoid(self.output(self._hidden(places)))

    def _hidden(self, places: Tensor) -> Tensor:
        signal = torch.cat([places, places.norm(dim=-1, keepdim=True)], -1) if self.radius else places
        for i, layer in enumerate(self.layers):
            if i == 0:  # half precision can't represent the difference of neighbouring pixels
                with torch.autocast(places.device.type, enabled=False):
                    signal = layer(signal)
            else:
                signal = layer(signal)
            parts = zip(self.activations, signal.tensor_split(len(self.activations), -1), strict=True)
            signal = torch.cat([FUNCTIONS[name](part) for name, part in parts], -1)
        return signal


def _check(depth: int, units: int, activations: Sequence[str], frequency: float, scale: float) -> None:
    if unknown := [name for name in activations if name not in FUNCTIONS]:
        raise UserError(f"CPPN: there is no activation {unknown[0]}; known are {', '.join(get_args(Activation))}")
    if depth < 1 or not 1 <= len(activations) <= units:
        raise UserError("CPPN: depth must be at least 1, and units at least 1 for each of one activation or more")
    if frequency <= 0 or scale <= 0:
        raise UserError("CPPN: frequency and scale must be above 0")
