"""Tables and plots of the depth study, made from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo_studies.book import Row, conditions
from zoo_studies.pages import COLORS, chosen, figure, mean_and_spread, save, table

SIGNAL_TITLE = """\
What is left of the variance before any training: of the activations from the first layer to the last, of the gradients
from the last layer to the first.
"""
FLOOR = 1e-40  # lower limit of the plots, about that of float32


def tables(content: Row) -> str:
    """The study's tables, as Markdown."""
    parts = [
        "Test accuracy in %, mean and standard deviation over the seeds:\n",
        by_depth(content, "accuracy", 1, 100),
    ]
    if any("train_loss" in run for run in content["runs"]):
        parts += ["Training loss of the last epoch:\n", by_depth(content, "train_loss", 3)]
    if signals(content["runs"]):
        parts += [SIGNAL_TITLE, signal_table(content["runs"])]
    return "\n".join([*parts, f"{_setting(content['settings'])} {conditions(content)}"]) + "\n"


def _setting(s: Row) -> str:
    """A sentence on the training settings; for the papers' depths these are in the recipes."""
    seeds = ", ".join(map(str, s["seeds"]))
    if "images" not in s:
        return f"CIFAR-10, by the recipes of that name, seeds {seeds}."
    size, rates = s["image_size"], ", ".join(f"{k} {v:g}" for k, v in s["rates"].items())
    return (
        f"{s['images']} training images of {size}×{size} pixels, {s['epochs']} epochs, batch {s['batch_size']}, "
        f"seeds {seeds}, {s['precision']}; highest rates: {rates}."
    )


def by_depth(content: Row, what: str, digits: int, factor: float = 1.0) -> str:
    """One row per family, one column per depth."""
    runs = trained(content)
    depths = sorted({run["depth"] for run in runs})
    lines = [
        [name, *(mean_and_spread(chosen(runs, what, network=name, depth=d), digits, factor) for d in depths)]
        for name in families(runs)
    ]
    return table(["layers", *map(str, depths)], lines)


def trained(content: Row) -> list[Row]:
    """The runs that trained a network."""
    return [run for run in content["runs"] if "accuracy" in run]


def families(runs: Sequence[Row]) -> list[str]:
    """Names of the networks, in the order of their first runs."""
    return list(dict.fromkeys(run["network"] for run in runs))


def signals(runs: Sequence[Row]) -> list[Row]:
    """The runs that measured a signal."""
    return [run for run in runs if "signal" in run]


def signal_table(runs: Sequence[Row]) -> str:
    """How much of the variance arrives at the other end, by family and depth."""
    lines = []
    for run in signals(runs):
        forward, backward = left_over(run["signal"])
        lines.append([run["network"], str(run["depth"]), _power(forward), _power(backward)])
    return table(["network", "layers", "activations, last / first", "gradients, first / last"], lines)


def left_over(signal: dict[str, list[float | None]]) -> tuple[float | None, float | None]:
    """Last over first variance of the activations, first over last of the gradients; None where one is not a number."""
    (first, *_, last), (top, *_, bottom) = signal["activation"], signal["gradient"][::-1]
    forward = last / first if first and last is not None else None
    backward = bottom / top if top and bottom is not None else None
    return forward, backward


def _power(ratio: float | None) -> str:
    return "beyond float32" if ratio is None else "0 (below float32)" if ratio == 0 else f"{ratio:.2g}"


# Plots


def draw(content: Row, folder: Path, stem: str = "depth") -> list[str]:
    """Write the study's plots; their names, which begin with the stem."""
    runs, made = trained(content), []
    if runs:
        _draw_by_depth(runs, "accuracy", "test accuracy, %", folder / f"{stem}-accuracy.png")
        made.append(f"{stem}-accuracy.png")
    if losses := [run for run in runs if "train_loss" in run]:
        _draw_by_depth(losses, "train_loss", "training loss, last epoch", folder / f"{stem}-loss.png")
        made.append(f"{stem}-loss.png")
    if measured := signals(content["runs"]):
        _draw_signals(measured, folder / f"{stem}-signal.png")
        made.append(f"{stem}-signal.png")
    return made


def _draw_by_depth(runs: Sequence[Row], what: str, title: str, path: Path) -> None:
    drawn, axes = figure(6.4, 4)
    axis, factor = axes[0, 0], 100 if what == "accuracy" else 1
    depths = sorted({run["depth"] for run in runs})
    for name, color in zip(families(runs), COLORS, strict=False):
        points = [(d, v) for d in depths if (v := [x for x in chosen(runs, what, network=name, depth=d) if x])]
        means = [factor * sum(values) / len(values) for _, values in points]
        axis.plot([d for d, _ in points], means, "o-", color=color, label=name, markersize=4)
        for depth, values in points:
            axis.plot([depth] * len(values), [factor * v for v in values], "_", color=color, alpha=0.7)
    axis.set_xscale("log")
    axis.set_xticks(depths, [str(d) for d in depths])
    axis.minorticks_off()
    if what == "train_loss":
        axis.set_yscale("log")
    axis.set(xlabel="layers", ylabel=title)
    axis.legend(frameon=False, fontsize=8)
    save(drawn, path)


def _draw_signals(runs: Sequence[Row], path: Path) -> None:
    """Activations above, gradients below; a column for each power of ten of the depth."""
    columns = sorted({len(str(run["depth"])) for run in runs})
    drawn, axes = figure(4.6 * len(columns), 5.6, 2, len(columns))
    names = families(runs)
    for c, digits in enumerate(columns):
        here = [run for run in runs if len(str(run["depth"])) == digits]
        for run in here:
            signal, color = run["signal"], COLORS[names.index(run["network"])]
            label = f"{run['network']}, {run['depth']}"
            _draw_line(axes[0, c], signal["position"], signal["activation"], signal["activation"][0], color, label)
            _draw_line(axes[1, c], signal["position"], signal["gradient"], signal["gradient"][-1], color, label)
        axes[0, c].legend(frameon=False, fontsize=7)
        axes[1, c].set_xlabel("place in the network (0 images, 1 logits)")
    axes[0, 0].set_ylabel("variance of activations,\nrelative to the first layer")
    axes[1, 0].set_ylabel("variance of gradients,\nrelative to the last layer")
    save(drawn, path)


def _draw_line(axis: Any, places: Sequence[float], values: Sequence[Any], unit: Any, color: str, label: str) -> None:
    points = [(p, v / unit) for p, v in zip(places, values, strict=True) if v and unit and v / unit > FLOOR]
    axis.plot([p for p, _ in points], [v for _, v in points], color=color, label=label, linewidth=1.5)
    axis.set_yscale("log")
    axis.set_xlim(0, 1)
