"""Weight initialisation that keeps the variance of the signal forward, backward, or a compromise of both.

Layers z_l = W_l f_l(z_{l-1}), where f_l is the activation *before* W_l (f_1 is the identity: the first
layer sees the images, of variance 1). With independent weights of mean 0

    forward:   Var[z_l]          = n_in  · Var[w_l] · E[f_l(z)²]  and z ~ N(0, Var[z_{l-1}])
    backward:  Var[dL/dz_{l-1}]  = n_out · Var[w_l] · G0 · Var[dL/dz_l],  G0 = E[f_l'(z)²]

``backward`` makes each factor G0 · n_out · Var[w_l] of the product over the layers 1, so that the gradient keeps its
variance all the way down; ``forward`` makes n_in · Var[w_l] · E[f²] / Var[z_{l-1}] 1, so that the signal keeps its
variance all the way up; ``compromise`` takes the mean of the two denominators. Sources: Glorot and Bengio 2010,
section 4.2.1 (linear; their compromise is 2 / (n_in + n_out)); He et al. 2015, "Delving Deep into Rectifiers", section
2.2 (ReLU and leaky ReLU).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from zoo.errors import UserError

Init = Literal["backward", "forward", "compromise", "normal", "torch"]
Activation = Literal["linear", "relu", "leaky_relu", "tanh", "scaled_tanh", "sigmoid", "gelu", "silu"]


def initialise(
    network: nn.Module,
    init: Init,
    activation: Activation = "relu",
    normalised: bool = False,
    negative_slope: float = 0.01,
    image_shape: Sequence[int] | None = None,
) -> None:
    """Initialise the weights of every convolution and linear layer from N(0, Var[w]), and set the biases to 0.

    Layers are taken in the order of their definition; other layers (normalisation, embeddings, custom weights) are left
    as they are. Layers between an activation and the next weights (pooling, dropout, response normalisation)
    are not taken into account.

    Args:
        network: changed in place.
        init: ``backward``, ``forward``, ``compromise``; ``normal`` is N(0, 0.01²) for every layer; ``torch``
            keeps PyTorch's default weights and biases.
        activation: the network's activation, before every weight layer except the first.
        normalised: batch norm keeps the variance before every activation at 1, so the variance is not propagated
            from layer to layer (which requires the layers to be a chain).
        negative_slope: of ``leaky_relu``.
        image_shape: (C, H, W) of the images that a chain of layers is made for: terms that are padding at
            the margins are then not counted in the fans (see ``fans_on_maps``).

    Raises:
        UserError: there is no such init or activation.
    """
    _check("init", init, get_args(Init))
    _check("activation", activation, get_args(Activation))
    if init == "torch":
        return
    layers = list(weight_layers(network))
    terms = [fans(layer) for layer in layers] if image_shape is None else fans_on_maps(network, image_shape)
    variances = weight_variances(terms, init, activation, normalised, negative_slope)
    for layer, variance in zip(layers, variances, strict=True):
        nn.init.normal_(layer.weight, 0.0, math.sqrt(variance))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class Fans(NamedTuple):
    """Number of terms in one output's sum (``into``) and in one input's gradient (``out``)."""

    into: float
    out: float


def weight_variances(
    fans: Sequence[Fans],
    init: Init,
    activation: Activation = "relu",
    normalised: bool = False,
    negative_slope: float = 0.01,
) -> list[float]:
    """Var[w] of each layer of a chain; see ``initialise`` for the arguments."""
    if init == "normal":
        return [0.01**2] * len(fans)
    variances: list[float] = []
    signal, function = 1.0, "linear"
    for layer in fans:
        factors = activation_factors(function, signal, negative_slope)
        forward, backward = layer.into * factors.forward, layer.out * factors.backward
        denominator = {"forward": forward, "backward": backward, "compromise": (forward + backward) / 2}[init]
        variances.append(1 / denominator)
        function = activation
        if not normalised:
            signal *= forward / denominator
    return variances


def weight_layers(network: nn.Module) -> Iterator[_ConvNd | nn.Linear]:
    """Convolutions (transposed ones too) and linear layers, in the order of definition."""
    return (module for module in network.modules() if isinstance(module, _ConvNd | nn.Linear))


def fans(layer: _ConvNd | nn.Linear) -> Fans:
    """Fan-in and fan-out of a layer.

    With a stride s an input pixel takes part in only 1 / s² of the k² windows that it would be in, on average over the
    pixels, so that the fan-out of a convolution (and the fan-in of a transposed one) is divided by s². PyTorch's
    ``fan_out`` ignores the stride. Padding counts as terms here.
    """
    if isinstance(layer, nn.Linear):
        return Fans(layer.in_features, layer.out_features)
    window, stride = math.prod(layer.kernel_size), math.prod(layer.stride)
    into, out = layer.in_channels // layer.groups * window, layer.out_channels // layer.groups * window
    return Fans(into / stride, out) if layer.transposed else Fans(into, out / stride)


def fans_on_maps(network: nn.Module, image_shape: Sequence[int]) -> list[Fans]:
    """Fan-in and fan-out of each layer of a chain on images of this shape, without terms that are padding.

    A 3×3 filter at the corner of a map has 4 terms, not 9. For small feature maps this matters: a hundred padded
    convolutions at 4×4 pixels lose a factor of 10¹¹. Since the margins receive less and pass less on, the energy is
    propagated along each side of the feature map, forward for the fan-in and backward for the fan-out, and the mean
    over pixels is preserved.

    Args:
        network: two-dimensional convolutions, padded with zeros or not at all, and linear layers.
        image_shape: (C, H, W).
    """
    sizes = _map_sizes(network, image_shape)
    found = []
    layers = list(weight_layers(network))
    sides = [[_pairs(layer, sizes.get(layer, (1, 1)), side) for layer in layers] for side in (0, 1)]
    up = [_terms(pairs) for pairs in sides]
    down = [_terms([p.T for p in reversed(pairs)])[::-1] for pairs in sides]
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            found.append(fans(layer))
        else:
            into, out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
            found.append(Fans(into * up[0][i] * up[1][i], out * down[0][i] * down[1][i]))
    return found


def _map_sizes(network: nn.Module, image_shape: Sequence[int]) -> dict[nn.Module, tuple[int, ...]]:
    """Height and width of each convolution's input."""
    sizes: dict[nn.Module, tuple[int, ...]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes[layer] = tuple(inputs[0].shape[2:])

    layers = [layer for layer in weight_layers(network) if not isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(layers[0].weight.new_zeros(1, *image_shape))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return sizes


def _pairs(layer: _ConvNd | nn.Linear, sizes: tuple[int, ...], side: int) -> Tensor:
    """Along one side, 1 where an input pixel is a term of an output pixel: (inputs, outputs)."""
    if isinstance(layer, nn.Linear):
        return torch.ones(1, 1, device="cpu")
    pixels = torch.eye(sizes[side], device="cpu").unsqueeze(1)
    filters = torch.ones(1, 1, layer.kernel_size[side], device="cpu")
    stride, dilation = layer.stride[side], layer.dilation[side]
    if layer.transposed:
        extra, margin = layer.output_padding[side], int(layer.padding[side])
        return F.conv_transpose1d(pixels, filters, None, stride, margin, extra, dilation=dilation).squeeze(1)
    padding = layer.padding if isinstance(layer.padding, str) else layer.padding[side]
    return F.conv1d(pixels, filters, None, stride, padding, dilation).squeeze(1)


def _terms(chain: Sequence[Tensor]) -> list[float]:
    """The factor on the energy along one side at each layer, given its distribution after the layer before."""
    found = []
    energy = torch.ones(0, device="cpu")
    for pairs in chain:
        if len(energy) != len(pairs):  # the first layer, or one after pooling: uniform
            energy = torch.ones(len(pairs), device="cpu")
        after = energy @ pairs
        found.append((after.mean() / energy.mean()).item())
        energy = after / after.mean()
    return found


class Factors(NamedTuple):
    """The factors of an activation f on variances, for z ~ N(0, v).

    Args:
        forward: E[f(z)²] / v.
        backward: E[f'(z)²], called G0 above.
    """

    forward: float
    backward: float


@lru_cache(maxsize=4096)
def activation_factors(activation: str, variance: float = 1.0, negative_slope: float = 0.01) -> Factors:
    """The factors of an activation at this variance of its input: closed forms where f has a kink, else quadrature.

    Quadrature is inaccurate at kinks; for smooth functions the trapezium rule on ±12 standard deviations is exact to
    rounding.
    """
    if activation in ("linear", "relu", "leaky_relu"):
        slope = {"linear": 1.0, "relu": 0.0, "leaky_relu": negative_slope}[activation]
        return Factors((1 + slope**2) / 2, (1 + slope**2) / 2)
    unit = torch.linspace(-12, 12, 4801, dtype=torch.float64, device="cpu")
    density = torch.exp(-(unit**2) / 2) / math.sqrt(2 * math.pi) * 0.005
    value, derivative = SMOOTH[activation](math.sqrt(variance) * unit)
    return Factors(float(value**2 @ density) / variance, float(derivative**2 @ density))


def _tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.tanh(), 1 - z.tanh() ** 2


def _scaled_tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    """LeNet's: LeCun et al. 1998, appendix A."""
    value, derivative = _tanh(2 / 3 * z)
    return 1.7159 * value, 1.7159 * 2 / 3 * derivative


def _sigmoid(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.sigmoid(), z.sigmoid() * (-z).sigmoid()


def _gelu(z: Tensor) -> tuple[Tensor, Tensor]:
    below = torch.special.ndtr(z)
    return z * below, below + z * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _silu(z: Tensor) -> tuple[Tensor, Tensor]:
    return z * z.sigmoid(), z.sigmoid() * (1 + z * (-z).sigmoid())


# f(z) and f'(z) of the functions without a kink.
SMOOTH: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "tanh": _tanh,
    "scaled_tanh": _scaled_tanh,
    "sigmoid": _sigmoid,
    "gelu": _gelu,
    "silu": _silu,
}


def _check(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"initialise: {what} is one of {', '.join(known)}, not {value!r}")
