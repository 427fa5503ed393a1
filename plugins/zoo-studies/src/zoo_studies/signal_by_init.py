"""The variance of the signal by layer in deep fully connected networks, for good and naive initialisation.

Images are N(0, 1), and so is the gradient with respect to the last layer's output, so that only the network's effect is
measured. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from zoo.architectures.initialisation import Activation, Init, activation_factors, initialise
from zoo.drawing import new_figure
from zoo_studies.book import ResultsFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FUNCTIONS: dict[str, type[nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
NAMES: dict[Activation, str] = {
    "linear": "linear",
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "gelu": "GELU",
    "silu": "SiLU",
}
# Naive: weights for linear layers, PyTorch's default, N(0, 0.01²).
Way = Literal["forward", "backward", "linear", "torch", "normal"]
WAYS: dict[Way, str] = {
    "forward": "forward",
    "backward": "backward",
    "linear": "as for linear layers",
    "torch": "PyTorch's own",
    "normal": "N(0, 0.01²)",
}
SHOWN: tuple[Activation, ...] = ("relu", "tanh", "sigmoid")
UNSTABLE: tuple[Activation, ...] = ("gelu", "silu")
SETTINGS = {"depth": 100, "width": 512, "images": 16, "seeds": 8, "every": 4}
Signal = list[float]


def run(out: Path) -> None:
    """Measure, and write ``initialisation.json``, ``factors.md``, ``init-variance.png`` and ``init-unstable.png``.

    Args:
        out: a folder; a study that was interrupted there is resumed.
    """
    about = "Variance of the input and of every fourth layer's output, and of the gradient with respect to it, by seed."
    book = ResultsFile(out / "initialisation.json", "zoo study initialisation", about, SETTINGS)
    # "function", since "activation" is the name of a metric
    found = {(t, way): book.once({"function": t, "way": way}, partial(measure, t, way)) for t, way in _plan()}
    (out / "factors.md").write_text(factor_table(), encoding="utf-8")
    draw_variances(found).savefig(out / "init-variance.png")
    draw_unstable(found).savefig(out / "init-unstable.png")


def _plan() -> list[tuple[Activation, Way]]:
    careful: tuple[Way, ...] = ("forward", "backward")
    return [(t, way) for t in SHOWN for way in WAYS] + [(t, way) for t in UNSTABLE for way in careful]


def measure(activation: Activation, way: Way) -> dict[str, list[Signal]]:
    """Variances by seed and layer of networks whose settings are above; index 0 is the input."""
    rows: dict[str, list[Signal]] = {"activation": [], "gradient": []}
    for seed in range(SETTINGS["seeds"]):
        torch.manual_seed(seed)
        network = chain(activation, SETTINGS["depth"], SETTINGS["width"])
        draw(network, activation, way)
        size = SETTINGS["images"], SETTINGS["width"]
        images, gradient = (torch.randn(size, dtype=torch.float64) for _ in range(2))
        for name, values in zip(rows, variances(network, images, gradient), strict=True):
            rows[name].append(values[:: SETTINGS["every"]])
    return rows


def chain(activation: Activation, depth: int, width: int) -> nn.Sequential:
    """Linear layers of one width with an activation between them; float64, since variances fall to 1e-160."""
    layers: list[nn.Module] = [nn.Linear(width, width, dtype=torch.float64)]
    for _ in range(depth - 1):
        layers += [FUNCTIONS[activation](), nn.Linear(width, width, dtype=torch.float64)]
    return nn.Sequential(*layers).requires_grad_(False)


def draw(network: nn.Module, activation: Activation, way: Way) -> None:
    """Initialise the weights in one of the compared ways."""
    if way == "linear":
        initialise(network, "backward", "linear")
    else:
        init: Init = way
        initialise(network, init, activation)


def variances(network: nn.Sequential, images: Tensor, gradient: Tensor) -> tuple[Signal, Signal]:
    """Variance of the input and of each linear layer's output, and of the gradients with respect to these.

    Args:
        images: (B, inputs).
        gradient: with respect to the output, (B, outputs).
    """
    signal = [images.requires_grad_()]
    z = images
    for layer in network:
        z = layer(z)
        if isinstance(layer, nn.Linear):
            signal.append(z)
    gradients = torch.autograd.grad(z, signal, gradient)
    return [z.var().item() for z in signal], [g.var().item() for g in gradients]


def factor_table() -> str:
    """A Markdown table of each activation's constants at v = 1, with PyTorch's gain if it has one.

    "1 % more becomes": where a layer gets a variance 1 % above 1, what is too much behind the next, drawn ``forward``.
    """
    lines = [
        "| f | E[f²] | G0 = E[f′²] | G0 at v = 0.1 | G0 at v = 10 | 1 % more becomes | 1 / √E[f²] | PyTorch's gain |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for activation, name in NAMES.items():
        one, low, high = (activation_factors(activation, v) for v in (1.0, 0.1, 10.0))
        later = (1.01 * activation_factors(activation, 1.01).forward / one.forward - 1) * 100
        cells = [one.forward, one.backward, low.backward, high.backward]
        ours, theirs = f"{one.forward**-0.5:.4f}", _torch_gain(activation)
        lines.append(f"| {name} | {' | '.join(f'{v:.4f}' for v in cells)} | {later:.2f} % | {ours} | {theirs} |")
    return "\n".join(lines) + "\n"


def _torch_gain(activation: str) -> str:
    try:
        return f"{nn.init.calculate_gain(activation):.4f}"  # type: ignore[arg-type]
    except ValueError:
        return "none"


def draw_variances(found: dict[tuple[Activation, Way], dict[str, Any]]) -> Figure:
    """Activations and gradients by layer: one row per function, one line per initialisation; mean over seeds."""
    figure, grid = new_figure(10, 9, len(SHOWN), 2)
    for axes, (activation, quantity) in zip(
        grid.flat, [(t, q) for t in SHOWN for q in ("activation", "gradient")], strict=True
    ):
        for i, (way, label) in enumerate(WAYS.items()):
            mean = torch.tensor(found[activation, way][quantity], dtype=torch.float64).mean(0)
            # The second line is dashed, so that overlapping lines can both be seen.
            axes.plot(_layers(), mean, label=label, color=f"C{i}", linestyle=("-", "--")[i % 2], linewidth=2)
        axes.set_title(f"{NAMES[activation]}: {'Var[z]' if quantity == 'activation' else 'Var[∂L/∂z]'}")
        _log(axes, 1e-12, 1e12)
    grid[0, 0].legend(fontsize=8, loc="upper left", ncols=2)
    return figure


def draw_unstable(found: dict[tuple[Activation, Way], dict[str, Any]]) -> Figure:
    """The effect of one layer on a wrong variance, and of many layers: one line per network."""
    figure, ((one, many),) = new_figure(10, 3.8, 1, 2)
    levels = torch.logspace(-1, 1, 41)
    shown: tuple[Activation, ...] = ("relu", "gelu", "silu", "tanh")
    for i, activation in enumerate(shown):
        right = activation_factors(activation).forward
        factor = [activation_factors(activation, float(v)).forward / right for v in levels]
        one.plot(levels, factor, color=f"C{i}", label=NAMES[activation], linewidth=2)
        for seed, values in enumerate(found[activation, "forward"]["activation"]):
            many.plot(_layers(), values, color=f"C{i}", linewidth=1, label=NAMES[activation] if not seed else None)
    one.set(
        xscale="log", xlabel="v = Var[z] in front of f", title="what one layer (forward) does to v", ylabel="factor"
    )
    one.grid(alpha=0.3)
    one.legend()
    many.set_title(f"Var[z] by layer, {SETTINGS['seeds']} networks each")
    _log(many, 1e-4, 1e14)
    return figure


def _layers() -> Sequence[int]:
    return range(0, SETTINGS["depth"] + 1, SETTINGS["every"])


def _log(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis; lines that vanish or explode leave it."""
    axes.set(yscale="log", ylim=(low, high), xlim=(0, SETTINGS["depth"]), xlabel="layer (0: the input)")
    axes.grid(alpha=0.3)
