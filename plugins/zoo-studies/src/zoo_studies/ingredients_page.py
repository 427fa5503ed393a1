"""Table and plot of the ingredient study, made from its rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo_studies.book import Row, conditions
from zoo_studies.pages import COLORS, chosen, figure, mean_and_spread, save, table
from zoo_studies.training import epochs_to

WHOLE = "all of them"
LEVEL = 0.35  # training error; figure 1 of the paper has 0.25, on five times as many images per epoch
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
            "Error in % without each ingredient, mean and standard deviation over the seeds; how many points the test",
            "error (of ten crops) rises by that, with its 95 % interval. The gap is from the training error, of images",
            "without augmentation, to the test error of one crop.\n",
            parts_table(content["runs"]),
            f"Epochs until the training error is {LEVEL:.0%}, without any regularisation, mean and standard deviation",
            "over the seeds at the rate that was best with the first of them (– where "
            f"{s['race_epochs']} epochs were not enough):\n",
            race_table(content["runs"]),
            f"{s['data']}, {s['images']} training images of {s['image_size']}×{s['image_size']} pixels, AlexNet of "
            f"width {s['width']}, {s['epochs']} epochs, batch {s['batch_size']}, seeds "
            f"{', '.join(map(str, s['seeds']))}, {s['precision']}. {conditions(content)}\n",
        ]
    )


def difference(without: Sequence[float], whole: Sequence[float]) -> tuple[float, float]:
    """Difference of two means, and half of its 95 % interval (Welch's); NaN if there is only one value."""
    from scipy.stats import ttest_ind

    gap = statistics.fmean(without) - statistics.fmean(whole)
    if min(len(without), len(whole)) < 2:
        return gap, math.nan
    return gap, _half(ttest_ind(without, whole, equal_var=False))


def gain(values: Sequence[float]) -> tuple[float, float]:
    """Mean of differences that were taken seed by seed, and half of its 95 % interval (Student's)."""
    from scipy.stats import ttest_1samp

    return statistics.fmean(values), _half(ttest_1samp(values, 0)) if len(values) > 1 else math.nan


def _half(test: Any) -> float:
    low, high = test.confidence_interval(0.95)
    return float(high - low) / 2


def effects(runs: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """The rise of the test error without each ingredient, and half of its 95 % interval, in points.

    Networks are compared by ten crops, as in the paper; the ten crops themselves with the centre alone, on the same
    networks, seed by seed.
    """
    whole, found = chosen(runs, "ten_error", without=WHOLE), {}
    for name in dict.fromkeys(run["without"] for run in runs if "without" in run):
        if name != WHOLE:
            found[name] = difference(chosen(runs, "ten_error", without=name), whole)
    if whole:
        ones = chosen(runs, "one_error", without=WHOLE)
        found["ten crops averaged"] = gain([one - ten for one, ten in zip(ones, whole, strict=True)])
    return {name: (100 * gap, 100 * half) for name, (gap, half) in found.items()}


def verdict(gap: float, half: float) -> str:
    """Whether the ingredient helped: whether 0 is outside the interval."""
    if math.isnan(half):
        return "one seed"
    return "helps" if gap > half else "harms" if gap < -half else "within the noise"


def parts_table(runs: Sequence[Row]) -> str:
    """One row per ingredient: errors without it, the difference, the paper's claim."""
    found = effects(runs)
    lines = [_line(runs, WHOLE, "", "", "")]
    for name, (gap, half) in found.items():
        rise = f"{gap:+.2f}" if math.isnan(half) else f"{gap:+.2f} ± {half:.2f}"
        lines.append(_line(runs, name, rise, verdict(gap, half), CLAIMS[name]))
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
    """Epochs to the level, one value per seed."""
    return [epochs_to(errors, LEVEL, 0.9) for errors in chosen(runs, "errors", activation=activation, lr=lr)]


def rates(runs: Sequence[Row]) -> list[float]:
    """The learning rates that were tried."""
    return sorted({run["lr"] for run in runs if "activation" in run})


def best_rate(runs: Sequence[Row], activation: str) -> float | None:
    """The learning rate with the fewest epochs to the level with the first seed; None if it was never reached."""
    seed = min(run["seed"] for run in runs) if runs else 0
    here = {run["lr"]: run["errors"] for run in runs if run.get("activation") == activation and run["seed"] == seed}
    times = {lr: time for lr, errors in here.items() if (time := epochs_to(errors, LEVEL, 0.9)) is not None}
    return min(times, key=lambda lr: times[lr]) if times else None


def race_table(runs: Sequence[Row]) -> str:
    """One row per function, one column per learning rate, and the best of them."""
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
        gap, half = found[name]
        width = 0 if math.isnan(half) else half
        axis.errorbar(gap, y, xerr=width, fmt="o", color=COLORS[3] if abs(gap) > width else COLORS[0], capsize=3)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("rise of the test error without it, points (95 % interval)")


def _draw_race(axis: Any, runs: Sequence[Row]) -> None:
    for name, color in (("relu", COLORS[3]), ("tanh", COLORS[1])):
        best = best_rate(runs, name)
        for n, errors in enumerate(chosen(runs, "errors", activation=name, lr=best) if best else ()):
            places = [0.5 + k for k in range(len(errors))]
            axis.plot([0, *places], [90, *(100 * e for e in errors)], color=color, label=None if n else name)
    axis.axhline(100 * LEVEL, color="black", linewidth=0.8, linestyle=":")
    axis.set(xlabel="epochs", ylabel="training error, %", ylim=(0, 92))
    axis.legend(*axis.get_legend_handles_labels(), frameon=False)
