"""The constants against integrals, the fans against convolutions, and what both are for: the variance at 100 layers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import registry
from zoo.architectures.initialisation import (
    Activation,
    Init,
    activation_factors,
    fans_on_maps,
    initialise,
    weight_layers,
)
from zoo.errors import UserError

Direction = Literal["forward", "backward"]
# Each function as torch has it, which its table here does not use.
FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z,
    "relu": F.relu,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.2),
    "tanh": torch.tanh,
    "scaled_tanh": lambda z: 1.7159 * torch.tanh(2 / 3 * z),
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
}
MODULES: dict[str, type[nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
KINKED = ("linear", "relu", "leaky_relu")
SEGMENTERS = (
    "BackboneUNet",
    "DeepLabV3",
    "DeepLabV3Plus",
    "FCN",
    "LRASPP",
    "SegFormer",
    "SemanticFPN",
    "UNet",
)  # their papers'
CAPTIONERS = ("CaptionTransformer", "ShowAndTell", "ShowAttendAndTell")
AUTOENCODERS = ("ConvDecoder", "ConvEncoder")
DENOISERS = ("DenoisingUNet", "DiT")
ADVERSARIAL = ("DCGANDiscriminator", "DCGANGenerator", "R3GANDiscriminator", "R3GANGenerator")
DETECTORS = (
    "FCOS",
    "FasterRCNN",
    "MaskRCNN",
    "RetinaNet",
    "SSDlite",
    "TorchVisionDetector",
    "TorchVisionInstanceSegmenter",
)  # their heads are torchvision's


@pytest.mark.parametrize("variance", [0.03, 1.0, 57.0])
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_factors_are_the_integrals(activation: Activation, variance: float) -> None:
    """scipy's adaptive quadrature, told where the kink is; the derivative is autograd's."""
    deviation = math.sqrt(variance)

    def integrand(x: float, derivative: bool) -> float:
        z = torch.tensor(deviation * x, dtype=torch.float64, requires_grad=True)
        value = FUNCTIONS[activation](z)
        wanted = torch.autograd.grad(value, z)[0] if derivative else value
        return wanted.item() ** 2 * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def expectation(derivative: bool) -> float:
        return sum(quad(integrand, *ends, args=(derivative,), limit=100)[0] for ends in ((-12, 0), (0, 12)))

    factors = activation_factors(activation, variance, 0.2)
    assert factors.forward * variance == pytest.approx(expectation(False), rel=1e-7)
    assert factors.backward == pytest.approx(expectation(True), rel=1e-7)


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_factors_are_the_means_of_a_sample(activation: Activation) -> None:
    z = torch.randn(1_000_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mul_(1.5)
    z.requires_grad_()
    value = FUNCTIONS[activation](z)
    (derivative,) = torch.autograd.grad(value.sum(), z)
    factors = activation_factors(activation, 1.5**2, 0.2)
    assert factors.forward * 1.5**2 == pytest.approx(value.square().mean().item(), rel=0.01)
    assert factors.backward == pytest.approx(derivative.square().mean().item(), rel=0.01)


def test_kinked_functions_have_closed_forms() -> None:
    """He et al. 2015, equations 8 and 15: 1/2 and (1 + a²)/2, at every variance, without an error of quadrature."""
    for variance in (1e-200, 1.0, 1e200):
        assert activation_factors("relu", variance) == (0.5, 0.5)
        assert activation_factors("leaky_relu", variance, 0.25) == (0.53125, 0.53125)
        assert activation_factors("linear", variance) == (1.0, 1.0)


def test_relation_to_torch_s_gain() -> None:
    """gain² = 1 / E[f²] at variance 1 where torch derives it; its tanh and sigmoid are other numbers."""
    for activation, slope in (("linear", 0.01), ("relu", 0.01), ("leaky_relu", 0.3)):
        gain = nn.init.calculate_gain(activation, slope)
        assert gain**2 == pytest.approx(1 / activation_factors(activation, 1.0, slope).forward, rel=1e-12)
    ours = {t: activation_factors(t).forward ** -0.5 for t in ("tanh", "sigmoid")}
    assert ours == pytest.approx({"tanh": 1.5925, "sigmoid": 1.8462}, abs=1e-4)
    assert nn.init.calculate_gain("tanh") == 5 / 3
    assert nn.init.calculate_gain("sigmoid") == 1
    for unknown in ("gelu", "silu"):
        with pytest.raises(ValueError, match="nonlinearity"):
            nn.init.calculate_gain(unknown)  # type: ignore[arg-type]


def test_names_of_others() -> None:
    """He et al.'s two choices and Glorot's compromise, as torch has them, behind a ReLU and behind nothing."""
    network = nn.Sequential(nn.Linear(300, 900), nn.ReLU(), nn.Linear(900, 1500))
    first, last = network[0], network[2]
    glorot = nn.init.xavier_normal_(torch.empty(900, 300)).std().item()
    initialise(network, "compromise")
    assert first.weight.std().item() == pytest.approx(glorot, rel=0.02)
    for init, mode in (("forward", "fan_in"), ("backward", "fan_out")):
        torch_s = nn.init.kaiming_normal_(torch.empty(1500, 900), mode=mode, nonlinearity="relu").std().item()
        initialise(network, init)  # type: ignore[arg-type]
        assert last.weight.std().item() == pytest.approx(torch_s, rel=0.01)
        assert last.bias.abs().max() == 0


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 128, 3),
        nn.Conv2d(64, 128, 3, stride=2, dilation=2, groups=2),
        nn.Conv2d(64, 128, 1, stride=2, bias=False),
        nn.ConvTranspose2d(128, 64, 4, stride=2, groups=4),
        nn.ConvTranspose2d(64, 128, 3, stride=3),
        nn.Conv1d(64, 192, 5, stride=3),
    ],
    ids=str,
)
def test_fans_of_convolutions(layer: nn.Module, direction: Direction) -> None:
    """The variance is kept away from the margins, where filters see padding, or no filter looks."""
    torch.manual_seed(0)
    initialise(layer, direction)
    across = 24 if isinstance(layer, nn.Conv1d | nn.Conv2d) else 12
    dimensions = layer.weight.dim() - 2
    images = torch.randn(64, layer.in_channels, *[across] * dimensions, requires_grad=True)
    output = layer(images)
    gradient = torch.randn_like(output)
    (reached,) = torch.autograd.grad(output, images, gradient)
    kept = output if direction == "forward" else reached
    inner = kept[(..., *[slice(6, 18) if kept.shape[-1] >= 24 else slice(None)] * dimensions)]
    assert inner.var().item() == pytest.approx(1, rel=0.06)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_margins_are_counted_where_the_images_size_is_known(direction: Direction) -> None:
    """Thirty convolutions on small maps, most padded, one with a stride, one transposed."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 64, 3), *(nn.Conv2d(64, 64, 3, padding="same") for _ in range(6))]
    convolutions += [nn.Conv2d(64, 128, 3, 2, 1), *(nn.Conv2d(128, 128, 3, 1, 1, groups=2) for _ in range(20))]
    convolutions += [nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.Conv2d(64, 64, 5, 1, 2)]
    layers = [module for conv in convolutions for module in (nn.ReLU(), conv)]
    network, found = nn.Sequential(*layers[1:]), {}
    for shape in (None, (3, 10, 10)):
        means = []
        for seed in range(30):
            torch.manual_seed(seed)
            initialise(network, direction, image_shape=shape)
            means.append(ratio(network, direction, torch.randn(2, 3, 10, 10)))
        found[shape] = sum(means) / len(means)
    assert found[None] < 0.01
    assert 0.5 < found[3, 10, 10] < 2


def test_terms_at_the_margins_by_hand() -> None:
    """At 4×4 pixels a padded 3×3 filter has (10 / 4)² terms on average, and then, where the margins have less, more."""
    first, second = fans_on_maps(nn.Sequential(*(nn.Conv2d(5, 5, 3, padding=1) for _ in range(2))), (5, 4, 4))
    assert first.into == pytest.approx(5 * 2.5**2)
    assert second.into == pytest.approx(5 * 2.6**2)
    assert second.out == pytest.approx(5 * 2.5**2)
    assert first.out == pytest.approx(5 * 2.6**2)


def stack(activation: Activation, depth: int, widths: Sequence[int] = (512,)) -> nn.Sequential:
    """Linear layers with the function between them; ``widths`` are gone through in turn."""
    layers: list[nn.Module] = []
    for i in range(depth):
        sizes = widths[i % len(widths)], widths[(i + 1) % len(widths)]
        layers += [MODULES[activation](), nn.utils.skip_init(nn.Linear, *sizes)]
    return nn.Sequential(*layers[1:]).requires_grad_(False)


def ratio(network: nn.Sequential, direction: Direction, images: Tensor) -> float:
    """Var[output] / Var[input], or Var[gradient at the input] / Var[gradient at the output]."""
    output = network(images.requires_grad_(direction == "backward"))
    if direction == "forward":
        return (output.double().var() / images.double().var()).item()
    gradient = torch.randn_like(output)
    (reached,) = torch.autograd.grad(output, images, gradient)
    return (reached.double().var() / gradient.double().var()).item()


def mean_ratios(
    activation: Activation, init: Init, depth: int, directions: Sequence[Direction], seeds: int = 30
) -> dict[Direction, float]:
    network, found = stack(activation, depth), dict.fromkeys(directions, 0.0)
    for seed in range(seeds):
        torch.manual_seed(seed)
        initialise(network, init, activation)
        for direction in directions:
            found[direction] += ratio(network, direction, torch.randn(8, 512)) / seeds
    return found


@pytest.mark.parametrize(
    ("activation", "init", "directions"),
    [
        # Of one width the two formulas are one for these, so that both directions are kept.
        ("linear", "backward", ("forward", "backward")),
        ("relu", "backward", ("forward", "backward")),
        ("leaky_relu", "forward", ("forward", "backward")),
        ("tanh", "forward", ("forward",)),
        ("tanh", "backward", ("backward",)),
        ("sigmoid", "forward", ("forward",)),
        ("sigmoid", "backward", ("backward",)),
    ],
)
def test_variance_is_kept_through_100_layers(
    activation: Activation, init: Init, directions: Sequence[Direction]
) -> None:
    for direction, mean in mean_ratios(activation, init, 100, directions).items():
        assert 0.5 < mean < 2, direction


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_variance_is_kept_through_10_layers(activation: Activation, direction: Direction) -> None:
    assert 0.5 < mean_ratios(activation, direction, 10, (direction,))[direction] < 2


@pytest.mark.parametrize(
    ("activation", "init", "direction"),
    [
        ("linear", "torch", "forward"),
        ("linear", "normal", "backward"),
        ("relu", "torch", "backward"),
        ("relu", "normal", "forward"),
        ("tanh", "torch", "backward"),
        ("tanh", "normal", "forward"),
        ("sigmoid", "torch", "backward"),
        # The other direction's formula, too: tanh and sigmoid can't keep both.
        ("tanh", "forward", "backward"),
        ("sigmoid", "forward", "backward"),
    ],
)
def test_wrong_initialisation_leaves_by_orders_of_magnitude(
    activation: Activation, init: Init, direction: Direction
) -> None:
    torch.manual_seed(0)
    network = stack(activation, 100)
    for layer in weight_layers(network):
        layer.reset_parameters()
    initialise(network, init, activation)
    found = ratio(network, direction, torch.randn(8, 512))
    assert not 1e-2 < found < 1e2


def test_weights_for_another_function_leave_by_orders_of_magnitude() -> None:
    """Each ReLU halves what weights for linear layers keep: 2**-99."""
    torch.manual_seed(0)
    network = stack("relu", 100)
    initialise(network, "forward", "linear")
    assert ratio(network, "forward", torch.randn(8, 512)) < 2**-90


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu", "silu"])
def test_backward_takes_g0_where_the_signal_is(activation: Activation) -> None:
    """G0 · n_out · Var[w] is 1 with the G0 that the network's own signal has, which is not that at variance 1."""
    torch.manual_seed(0)
    network = stack(activation, 8, widths=(512, 2048))
    initialise(network, "backward", activation)
    z, at_one = network[0](torch.randn(64, 512)), []
    for function, layer in zip(network[1::2], network[2::2], strict=True):
        inputs = z.requires_grad_()
        (slope,) = torch.autograd.grad(function(inputs).sum(), inputs)
        spread = layer.out_features * layer.weight.var().item()
        assert slope.square().mean().item() * spread == pytest.approx(1, rel=0.1)
        at_one.append(activation_factors(activation).backward * spread)
        z = layer(function(z)).detach()
    assert max(abs(one - 1) for one in at_one) > 0.2
    initialise(network, "backward", activation, normalised=True)
    last = network[-1]
    assert activation_factors(activation).backward * last.out_features * last.weight.var().item() == pytest.approx(
        1, rel=0.02
    )


def test_gelu_and_silu_have_an_unstable_fixed_point() -> None:
    """An error of the variance grows from layer to layer for these; a tanh's shrinks, a ReLU's stays."""
    later = {t: _elasticity(t) for t in ("tanh", "sigmoid", "relu", "gelu", "silu")}
    assert max(later["tanh"], later["sigmoid"]) < 0.5
    assert later["relu"] == pytest.approx(1, abs=1e-6)
    assert min(later["gelu"], later["silu"]) > 1.1


def _elasticity(activation: Activation, step: float = 1e-4) -> float:
    """d log Var[z_l] / d log Var[z_{l-1}] at 1."""
    high, low = (v * activation_factors(activation, v).forward for v in (1 + step, 1 - step))
    return (math.log(high) - math.log(low)) / (2 * step)


def test_gelu_and_silu_diverge_with_depth() -> None:
    """Images of variance 1.5 and 0.5: behind 60 layers the variance is far above or below, but a tanh's is right."""
    for activation in ("gelu", "silu", "tanh"):
        torch.manual_seed(0)
        network, images = stack(activation, 60, widths=(1024,)), torch.randn(8, 1024)
        initialise(network, "forward", activation)  # type: ignore[arg-type]
        bright, dim = (network(images * math.sqrt(v)).var().item() for v in (1.5, 0.5))
        if activation == "tanh":
            assert 0.8 < dim / bright < 1.25
        else:
            assert bright > 100
            assert dim < 0.01


def test_torch_s_own_weights_are_left() -> None:
    network = nn.Linear(5, 7)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    initialise(network, "torch")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_other_layers_are_left_and_shapes_alone_will_do() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        network[1].weight.fill_(0.25)
    initialise(network, "backward", normalised=True)
    assert torch.equal(network[1].weight, torch.full((8,), 0.25))
    with torch.device("meta"), torch.inference_mode():
        initialise(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)), "compromise", "gelu")


def test_every_architecture_of_ours_takes_init() -> None:
    """By the same function; libraries' networks and those whose heads or papers have their own keep it, and a CPPN's
    weights are its pattern.
    """
    entries = [e for e in registry.entries() if e.kind == "architectures" and e.full_path.startswith("zoo.")]
    without = {e.name for e in entries if "init" not in inspect.signature(e.load()).parameters}
    libraries = {"Timm", "TorchVision", "EfficientNetLite0", "Pretrained"}
    own = {*DETECTORS, *SEGMENTERS, *CAPTIONERS, *AUTOENCODERS, *DENOISERS, *ADVERSARIAL}
    assert without == {*libraries, "CPPN", "RTDETR", *own}
    assert len(entries) > 10


def test_mistakes_end_in_a_line() -> None:
    with pytest.raises(UserError, match=r"init is one of backward, .*, not 'kaiming'"):
        initialise(nn.Linear(2, 2), "kaiming")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"activation is one of linear, relu, .*, not 'elu'"):
        initialise(nn.Linear(2, 2), "forward", "elu")  # type: ignore[arg-type]
