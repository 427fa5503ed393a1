"""Statistics of a set's objects: classes, sizes and proportions, to be looked at before a training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.data.annotations import Annotations
from zoo.data.files import UnreadableImage, upright_size

SMALL, MEDIUM = 32**2, 96**2  # COCO's limits of small and medium objects, in pixels
QUANTILES = (0.05, 0.5, 0.95)


def object_statistics(known: Annotations, rows: NDArray[np.int64]) -> list[str]:
    """Lines on the objects in some pictures: of each class, their sizes, proportions and number in a picture.

    Args:
        known: the annotations.
        rows: the pictures.
    """
    chosen = np.zeros(len(known), bool)
    chosen[rows] = True
    pictures = known.rows
    of_objects = chosen[pictures]
    labels, crowd, pictures = known.labels[of_objects], known.crowd[of_objects], pictures[of_objects]
    lines = _classes(known.names, labels, crowd, pictures)
    counts = known.counts[rows]
    if len(counts):
        lines.append(f"objects in a picture: {counts.min()} to {counts.max()}, on average {counts.mean():.1f}")
    if len(labels):
        lines += _sizes(known.boxes[of_objects], _pixels(known, rows)[pictures], known.sizes[pictures])
    return lines


def _classes(
    names: list[str], labels: NDArray[np.int32], crowd: NDArray[np.bool_], pictures: NDArray[np.int64]
) -> list[str]:
    width = max(len("class"), *(len(name) for name in names))
    lines = [f"{'class':{width}}  {'objects':>9}  {'pictures':>9}  {'ignored':>9}"]
    for label, name in enumerate(names):
        own = labels == label
        counts = (own & ~crowd).sum(), len(np.unique(pictures[own])), (own & crowd).sum()
        lines.append(f"{name:{width}}  " + "  ".join(f"{count:9,}" for count in counts))
    return lines


def _pixels(known: Annotations, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Height and width of the pictures, (P, 2); read from the files where the annotations do not say; else NaN."""
    sizes = np.where(known.sizes > 0, known.sizes, np.nan).astype(np.float64)
    for row in rows[np.isnan(sizes[rows, 0])].tolist():
        try:
            sizes[row] = upright_size(known.paths[row])
        except UnreadableImage:
            continue
    return sizes


def _sizes(boxes: NDArray[np.float32], pixels: NDArray[np.float64], given: NDArray[np.int32]) -> list[str]:
    """Lines on the areas and proportions of boxes; without pixels, those in fractions are left out."""
    scale = np.where(given > 0, 1.0, pixels)[:, ::-1]
    sides = (boxes[:, 2:] - boxes[:, :2]) * scale
    sides = sides[np.isfinite(sides).all(1)]
    if not len(sides):
        return []
    areas, ratios = sides.prod(1), sides[:, 0] / sides[:, 1]
    shares = [(areas < SMALL).mean(), ((areas >= SMALL) & (areas < MEDIUM)).mean(), (areas >= MEDIUM).mean()]
    small, medium, large = (f"{100 * share:.0f} %" for share in shares)
    low, middle, high = (f"{side:.0f}" for side in np.quantile(np.sqrt(areas), QUANTILES))
    narrow, usual, wide = (f"{ratio:.2f}" for ratio in np.quantile(ratios, QUANTILES))
    return [
        f"sizes of boxes: {small} small (below 32x32 pixels), {medium} medium, {large} large (from 96x96)",
        f"side of boxes (square root of the area): median {middle} pixels, 90 % from {low} to {high}",
        f"width to height of boxes: median {usual}, 90 % from {narrow} to {wide}",
    ]
