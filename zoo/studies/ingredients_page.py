"""Table and plot of the ingredient study, made from its rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.studies.book import Row, conditions
from zoo.studies.pages import COLORS, chosen, figure, mean_and_spread, save, table
from zoo.studies.training import epochs_to

WHOLE = "all of them"
LEVEL = 0.25  # training error of figure 1 of the paper
CLAIMS = {
    "overlapping pooling": "top-1 0.4, top-5 0.3 points better",
    "response normalisation": "top-1 1.4, top-5 1.2 points better; CIFAR-10 13 % to 11 %",
    "dropout": "without it, substantial overfitting",
    "crops and reflections": "without them, substantial overfitting",
    "colour shifts": "top-1 over 1 point better",
    "ten crops averaged": "top-1 1.5, top-5 1.3 points better",
}


def tables(content: Row) -> str:
    """The study's tables, as Markdown."""
    s = content["settings"]
    return "\n".join(
        [
            "Test error in %, and how many points it rises without the ingredient, ± the standard error of the",
            "difference; a difference counts where it is more than twice that. The gap is test less training error.\n",
            parts_table(content["runs"]),
            f"Epochs until the training error is {LEVEL:.0%}, without any regularisation, mean and standard deviation",
            f"over the seeds (a training error that was not reached in {s['race_epochs']} epochs is a –):\n",
            race_table(content["runs"]),
            f"{s['data']}, {s['images']} training images of {s['image_size']}×{s['image_size']} pixels, AlexNet of "
            f"width {s['width']}, {s['epochs']} epochs, batch {s['batch_size']}, seeds "
            f"{', '.join(map(str, s['seeds']))}, {s['precision']}. {conditions(content)}\n",
        ]
    )


def difference(without: Sequence[float], whole: Sequence[float]) -> tuple[float, float]:
    """Difference of two means, and its standard error (Welch's); no number where there is one value only."""
    gap = statistics.fmean(without) - statistics.fmean(whole)
    if min(len(without), len(whole)) < 2:
        return gap, math.nan
    return gap, math.sqrt(sum(statistics.variance(v) / len(v) for v in (without, whole)))


def effects(runs: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """What the test error rises by without each ingredient, and the standard error of that, in points.

    Networks are compared by ten crops, as in the paper; the ten crops themselves with the centre alone, on the same
    networks, seed by seed.
    """
    whole, found = chosen(runs, "ten_error", without=WHOLE), {}
    for name in dict.fromkeys(run["without"] for run in runs if "without" in run):
        if name != WHOLE:
            found[name] = difference(chosen(runs, "ten_error", without=name), whole)
    if whole:
        gains = [one - ten for one, ten in zip(chosen(runs, "one_error", without=WHOLE), whole, strict=True)]
        error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        found["ten crops averaged"] = statistics.fmean(gains), error
    return {name: (100 * gap, 100 * error) for name, (gap, error) in found.items()}


def verdict(gap: float, error: float) -> str:
    """Whether the ingredient helped, by more than twice the standard error."""
    if math.isnan(error):
        return "one seed"
    return "helps" if gap > 2 * error else "harms" if gap < -2 * error else "within the noise"


def parts_table(runs: Sequence[Row]) -> str:
    """A line an ingredient: errors without it, the difference, the paper's claim."""
    found = effects(runs)
    lines = [_line(runs, WHOLE, "", "", "")]
    for name, (gap, error) in found.items():
        lines.append(_line(runs, name, f"{gap:+.2f} ± {error:.2f}", verdict(gap, error), CLAIMS[name]))
    titles = ("without", "ten crops", "one crop", "training", "gap", "rise, points", "here it", "the paper")
    return table(titles, lines)


def _line(runs: Sequence[Row], name: str, *rest: str) -> list[str]:
    if name == "ten crops averaged":
        return [name, *[""] * 4, *rest]
    here = [run for run in runs if run.get("without") == name]
    kinds = ("ten_error", "one_error", "train_error")
    errors = [mean_and_spread([run[kind] for run in here], 1, 100) for kind in kinds]
    gap = mean_and_spread([run["one_error"] - run["train_error"] for run in here], 1, 100)
    return ["(nothing left out)" if name == WHOLE else name, *errors, gap, *rest]


# ReLU against tanh


def race(runs: Sequence[Row], activation: str, lr: float) -> list[float | None]:
    """Epochs to the level, a seed each."""
    return [epochs_to(errors, LEVEL, 0.9) for errors in chosen(runs, "errors", activation=activation, lr=lr)]


def rates(runs: Sequence[Row]) -> list[float]:
    """The learning rates that were tried."""
    return sorted({run["lr"] for run in runs if "activation" in run})


def best_rate(runs: Sequence[Row], activation: str) -> float | None:
    """The rate with the fewest epochs of those at which every seed arrived; None where there is none."""
    times = {lr: race(runs, activation, lr) for lr in rates(runs)}
    arrived = {lr: statistics.fmean(e for e in t if e) for lr, t in times.items() if t and None not in t}
    return min(arrived, key=lambda lr: arrived[lr]) if arrived else None


def race_table(runs: Sequence[Row]) -> str:
    """A line a function, a column a learning rate, and the best of them."""
    lines = []
    for name in ("relu", "tanh"):
        best = best_rate(runs, name)
        times = [mean_and_spread(race(runs, name, lr), 2) for lr in rates(runs)]
        lines.append([name, *times, "–" if best is None else f"{best:g}"])
    return table(["", *(f"rate {lr:g}" for lr in rates(runs)), "best rate"], lines)


# Plot


def draw(content: Row, folder: Path) -> list[str]:
    """Write the study's plot; its name, in a list."""
    drawn, axes = figure(10, 3.8, 1, 2)
    _draw_effects(axes[0, 0], effects(content["runs"]))
    _draw_race(axes[0, 1], content["runs"])
    save(drawn, folder / "ingredients-errors.png")
    return ["ingredients-errors.png"]


def _draw_effects(axis: Any, found: dict[str, tuple[float, float]]) -> None:
    names = list(found)[::-1]
    for y, name in enumerate(names):
        gap, error = found[name]
        width = 0 if math.isnan(error) else 2 * error
        axis.errorbar(gap, y, xerr=width, fmt="o", color=COLORS[3] if abs(gap) > width else COLORS[0], capsize=3)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("rise of the test error without it, points (± 2 standard errors)")


def _draw_race(axis: Any, runs: Sequence[Row]) -> None:
    for name, color in (("relu", COLORS[3]), ("tanh", COLORS[1])):
        best = best_rate(runs, name)
        for n, errors in enumerate(chosen(runs, "errors", activation=name, lr=best) if best else ()):
            places = [0.5 + k for k in range(len(errors))]
            axis.plot([0, *places], [90, *(100 * e for e in errors)], color=color, label=None if n else name)
    axis.axhline(100 * LEVEL, color="black", linewidth=0.8, linestyle=":")
    axis.set(xlabel="epochs", ylabel="training error, %", ylim=(0, 92))
    axis.legend(*axis.get_legend_handles_labels(), frameon=False)
