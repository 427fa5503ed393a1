"""A detector's evaluation as pictures: precision and recall, F1, confusion with background, and errors by kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from zoo.drawing import confusion_picture, figure_picture, new_figure
from zoo.metrics.coco import Kind
from zoo.metrics.detection_analysis import KINDS, Curve, Errors, confusion, curve, curves, errors
from zoo.metrics.matching import interpolated, match, overlaps
from zoo.metrics.samples import Samples

NAMED = 10  # up to so many classes, each has a line of its own colour
_LONGEST = 18  # letters of a class's name in a legend


def detection_pictures(
    samples: Samples, class_names: Sequence[str], kind: Kind = "boxes", confidence: float = 0.25
) -> dict[str, Image.Image]:
    """``curves``, ``confusion`` and ``errors`` at IoU 0.5; none without objects.

    Args:
        samples: detections and objects, as ``DetectionMetrics`` gives them.
        class_names: of the K classes.
        kind: whether boxes or masks overlap.
        confidence: lowest score of the detections in the confusion matrix.
    """
    if samples.objects.crowd.all():
        return {}
    pairs = overlaps(samples, kind)
    everything = curve(samples, match(samples, pairs))
    matrix = confusion(samples, pairs, len(class_names), confidence)
    return {
        "curves": curves_picture(curves(samples, pairs, len(class_names)), class_names, everything),
        "confusion": confusion_picture(torch.from_numpy(matrix), [*class_names, "background"]),
        "errors": errors_picture(errors(samples, pairs)),
    }


def curves_picture(each: Sequence[Curve], class_names: Sequence[str], everything: Curve) -> Image.Image:
    """Precision against recall, and F1 against confidence.

    Up to ten classes have a line each; of more, the five with the lowest AP have.

    Args:
        each: curves of the classes; those without objects are left out.
        class_names: their names.
        everything: of all detections together.
    """
    known = sorted((k for k in range(len(each)) if each[k].objects), key=lambda k: each[k].ap)
    shown = sorted(known) if len(known) <= NAMED else known[:5]
    figure, grid = new_figure(11, 5, columns=2)
    left, right = grid[0]
    for k in [k for k in known if k not in shown]:
        _draw_curve(left, right, each[k], color="0.85", linewidth=0.6)
    for k in shown:
        _draw_curve(left, right, each[k], label=f"{_short(class_names[k])}  AP {each[k].ap:.2f}")
    best, confidence = everything.best()
    label = f"all together  AP {everything.ap:.2f}, F1 {best:.2f} at {confidence:.2f}"
    _draw_curve(left, right, everything, color="black", linewidth=2, label=label)
    right.axvline(confidence, color="0.5", linewidth=0.8, linestyle=":")
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="IoU 0.5")
    right.set(xlabel="confidence", ylabel="F1", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure_picture(figure)


def _draw_curve(left: Any, right: Any, one: Curve, **options: Any) -> None:
    reached = one.recall[-1] if len(one.recall) else 0.0
    recall = np.append(np.linspace(0, 1, 101)[np.linspace(0, 1, 101) <= reached], reached)
    left.plot(recall, interpolated(one.precision, one.recall, recall), **options)
    chosen = np.unique(np.linspace(0, len(one.score) - 1, 500).astype(int)) if len(one.score) else np.zeros(0, int)
    right.plot(one.score[chosen], one.f1[chosen], **options)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def errors_picture(made: Errors) -> Image.Image:
    """How many errors there are of each kind, and by how much AP would be higher without them."""
    figure, grid = new_figure(9, 3.4, columns=2)
    left, right = grid[0]
    _draw_bars(left, [float(made.counts[name]) for name in KINDS], "{:,.0f}")
    _draw_bars(right, [100 * made.cost[name] for name in KINDS], "{:.1f}")
    left.set(xlabel="errors")
    right.set(xlabel=f"AP lost, of 100 (AP at IoU 0.5: {100 * made.ap:.1f})")
    return figure_picture(figure)


def _draw_bars(axes: Any, values: Sequence[float], form: str) -> None:
    bars = axes.barh(range(len(KINDS)), values, color=[f"C{i}" for i in range(len(KINDS))])
    axes.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=9)
    axes.set_yticks(range(len(KINDS)), KINDS)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max(*values, 1e-9))
    axes.spines[["top", "right"]].set_visible(False)
