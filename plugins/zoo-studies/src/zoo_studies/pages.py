"""Helpers for the pages of all studies: Markdown tables, means with standard deviations, plot style."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import results
from zoo.drawing import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#8c8c8c", "#d1495b", "#e08e0b", "#2f6db5", "#2a8c4a", "#7a4fa3", "#0b8a8f", "#a0522d")


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    sides = [":---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, sides, *rows)) + "\n"


def mean_and_spread(values: Sequence[float | None], digits: int, factor: float = 1.0) -> str:
    """``98.2 ± 0.3``: mean and standard deviation; ``–`` without values, and no standard deviation for one value."""
    known = [value * factor for value in values if value is not None]
    return results.shown(results.summary(known), digits) if known and len(known) == len(values) else "–"


def chosen(runs: Iterable[Mapping[str, Any]], figure: str, **key: Any) -> list[Any]:
    """This metric of the runs that have these values."""
    return [run[figure] for run in runs if figure in run and all(run.get(k) == v for k, v in key.items())]


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """An empty plot, and its axes as an array of rows and columns."""
    made, axes = new_figure(width, height, rows, columns, dpi=110)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return made, axes


def save(drawn: Figure, path: Path) -> None:
    """Save as PNG without date and version, so that files are reproducible."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, metadata={"Software": None})
