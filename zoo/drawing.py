"""Pictures made of images and results: enlarging, captions that fit, grids, overlays, and the confusion matrix.

Text stands on a strip of its own, never on the image, so that it can be read whatever the image is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Color = tuple[int, int, int]
RIGHT: Color = (24, 110, 54)
WRONG: Color = (176, 32, 38)
PLAIN: Color = (52, 58, 70)
WHITE: Color = (255, 255, 255)
NO_CLASS = 255  # the label of a mask's pixels that have none, as in VOC


def to_picture(image: Tensor, side: int = 192) -> Image.Image:
    """A colour picture of an image, enlarged by whole pixels until its longer side has at least ``side`` pixels.

    Args:
        image: in [0, 1], (C, H, W): grey for one channel or two, else the first three as red, green and blue.
    """
    image = image.detach().float().cpu()
    image = image[:3] if image.shape[0] >= 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
    pixels = image.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(pixels)
    times = max(1, math.ceil(side / max(picture.size)))
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib includes: it has the Greek and Cyrillic that Pillow's own lacks."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def fit_text(text: str, width: int, size: int = 15, smallest: int = 11) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text in the largest font up to ``size`` in which it fits; below the smallest, its middle is left out."""
    text = " ".join(text.split())
    for points in range(size, smallest - 1, -1):
        if font(points).getlength(text) <= width:
            return text, font(points)
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: kept - kept // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}"
        if font(smallest).getlength(short) <= width:
            return short, font(smallest)
    return "…", font(smallest)


def wrap_text(text: str, width: int, size: int = 15) -> list[str]:
    """The text in lines that fit; only a word that is wider than a line is broken."""
    lines, face = list[str](), font(size)
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) <= width:
            lines[-1] = longer
            continue
        while face.getlength(word) > width and len(word) > 1:
            kept = next((n for n in range(len(word) - 1, 1, -1) if face.getlength(word[:n]) <= width), 1)
            lines.append(word[:kept])
            word = word[kept:]
        lines.append(word)
    return lines


def captioned(picture: Image.Image, lines: Sequence[str], color: Color = PLAIN) -> Image.Image:
    """The picture with lines of white text on a strip of this colour below it."""
    height, margin = 22, 5
    made = Image.new("RGB", (picture.width, picture.height + height * len(lines) + 2), color)
    made.paste(picture, (0, 0))
    draw = ImageDraw.Draw(made)
    for i, line in enumerate(lines):
        text, face = fit_text(line, picture.width - 2 * margin)
        draw.text((margin, picture.height + 1 + height * (i + 0.5)), text, WHITE, face, anchor="lm")
    return made


def grid(pictures: Sequence[Image.Image], columns: int | None = None, gap: int = 6) -> Image.Image:
    """Pictures side by side on white, in rows; about square unless ``columns`` says otherwise."""
    columns = min(len(pictures), columns or math.ceil(math.sqrt(len(pictures))))
    rows = math.ceil(len(pictures) / columns)
    width, height = max(p.width for p in pictures) + gap, max(p.height for p in pictures) + gap
    made = Image.new("RGB", (columns * width + gap, rows * height + gap), WHITE)
    for i, picture in enumerate(pictures):
        made.paste(picture, (gap + i % columns * width, gap + i // columns * height))
    return made


def stacked(pictures: Sequence[Image.Image], gap: int = 6) -> Image.Image:
    """Pictures one below another on white, each at its own height, all at the left."""
    made = Image.new("RGB", (max(p.width for p in pictures), sum(p.height + gap for p in pictures) - gap), WHITE)
    top = 0
    for picture in pictures:
        made.paste(picture, (0, top))
        top += picture.height + gap
    return made


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, dpi: int = 100) -> tuple[Figure, Any]:
    """A figure of matplotlib's that needs no screen, and its axes as an array of rows and columns.

    Args:
        width: in inches.
        height: in inches.
        rows: of axes.
        columns: of axes.
        dpi: dots an inch.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def figure_picture(figure: Figure) -> Image.Image:
    """A figure of matplotlib's as a picture, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.frombuffer("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")


def heated(image: Tensor, heat: Tensor) -> Tensor:
    """The image in grey with a heat map over it, in [0, 1], (3, H, W).

    Args:
        image: in [0, 1], (C, H, W).
        heat: in [0, 1], (H, W); at 0 the grey image alone is seen.
    """
    import matplotlib

    grey = image.detach().float().cpu()[:3].mean(0).expand(3, -1, -1)
    colours = torch.from_numpy(matplotlib.colormaps["inferno"](heat.numpy())[..., :3]).float().movedim(2, 0)
    weight = 0.8 * heat**0.75  # so that moderate heat is seen, and the image through it
    return (1 - weight) * grey + weight * colours


# What loggers show themselves


@dataclass
class Boxes:
    """Boxes on an image.

    Args:
        corners: x1 y1 x2 y2 in the image's pixels, (N, 4).
        labels: class numbers, (N,).
        scores: in [0, 1], (N,); None where they are the truth.

    Raises:
        ValueError: the shapes don't fit.
    """

    corners: Tensor
    labels: Tensor
    scores: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.corners)
        shapes = [tuple(t.shape) for t in (self.corners, self.labels, self.scores) if t is not None]
        if shapes != [(count, 4), (count,), (count,)][: len(shapes)]:
            raise ValueError(f"corners, labels and scores of {shapes}, expected (N, 4), (N,) and (N,)")

    def text(self, index: int, names: Sequence[str]) -> str:
        """A box's class, and its score where it has one."""
        label = int(self.labels[index])
        name = names[label] if names else str(label)
        return name if self.scores is None else f"{name} {float(self.scores[index]):.0%}"


@dataclass
class Overlay:
    """An image with boxes and masks that a logger lays over it itself, so that they can be switched on and off.

    Args:
        image: floats in [0, 1], (C, H, W).
        boxes: by what they are: ``prediction``, ``truth``, …
        masks: by what they are, each (H, W) of class numbers below 255; 255 is no class.
        class_names: of boxes and masks; without them, classes are numbers.
        caption: a line about the image.

    Raises:
        ValueError: a mask is not of the image's size.
    """

    image: Tensor
    boxes: dict[str, Boxes] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    caption: str = ""

    def __post_init__(self) -> None:
        for name, mask in self.masks.items():
            if mask.shape != self.image.shape[1:]:
                shapes = tuple(mask.shape), tuple(self.image.shape)
                raise ValueError(f"mask {name} of {shapes[0]} on an image of {shapes[1]}")


@dataclass
class Table:
    """Rows of plain values and PIL pictures under named columns.

    Raises:
        ValueError: a row has another length than the columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells under {len(self.columns)} columns")


def class_color(label: int) -> Color:
    """A class's color in every picture: matplotlib's ten, with white for grey, then hues by the golden ratio.

    Args:
        label: the class's number, from 0.
    """
    import colorsys

    import matplotlib

    if label == 7:
        red = green = blue = 0.96
    elif label < 10:
        red, green, blue = matplotlib.colormaps["tab10"](label)[:3]
    else:
        shade = 0.62 + 0.3 * ((label // 7) % 2)
        red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.55 + 0.15 * (label % 4), shade)
    return round(255 * red), round(255 * green), round(255 * blue)


def text_color(background: Color) -> Color:
    """Black or white, whichever contrasts more with the background (relative luminance of WCAG 2)."""
    linear = [(v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4) for v in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else WHITE


NAMED = 100  # up to so many classes, the whole confusion matrix is drawn
CONFUSED = 30  # of more, so many classes


def confusion_picture(matrix: Tensor, names: Sequence[str]) -> Image.Image:
    """The confusion matrix: a row for each true class, shaded by its share of the row.

    Up to 30 classes the counts are written into the cells; of more than 100 classes only those are drawn that are most
    often confused with each other.

    Args:
        matrix: counts, (K, K), rows are the truth; dense or sparse.
        names: of the K classes.
    """
    total = len(matrix)
    totals = matrix.sum(1)
    totals = totals.to_dense() if totals.is_sparse else totals
    chosen = most_confused(matrix, CONFUSED) if total > NAMED else list(range(total))
    matrix = _rows_and_columns(matrix, chosen)
    classes, names = len(chosen), [names[k] for k in chosen]
    share = matrix / totals[chosen, None].clamp(min=1)
    inches = min(14.0, max(5.0, 2.5 + 0.45 * classes))
    figure, grid = new_figure(inches, inches * 0.92)
    axes = grid[0, 0]
    # The square root lets a confusion of one in a hundred be seen beside a diagonal of one.
    shown = axes.imshow(share.sqrt().numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, ticks=[math.sqrt(v) for v in (0, 0.01, 0.05, 0.2, 0.5, 1)])
    bar.ax.set_yticklabels(["0 %", "1 %", "5 %", "20 %", "50 %", "100 %"])
    bar.set_label("share of the true class")
    axes.set(xlabel="predicted class", ylabel="true class")
    if classes < total:
        axes.set_title(f"the {classes} most confused of {total:,} classes")
    _name_axes(axes, names)
    if classes <= 30:
        _write_counts(axes, matrix, share)
    return figure_picture(figure)


def most_confused(matrix: Tensor, count: int) -> list[int]:
    """At most ``count`` classes in ascending order: those of the most frequent confusions, in either direction.

    Without enough confusions, the classes with the most images are added.

    Args:
        matrix: counts, (K, K), rows are the truth; dense or sparse.
        count: at least 2.
    """
    sparse = matrix.to_sparse().coalesce()
    (truth, predicted), counts = sparse.indices(), sparse.values()
    wrong = truth != predicted
    low, high = torch.minimum(truth, predicted)[wrong], torch.maximum(truth, predicted)[wrong]
    pairs, places = torch.stack([low, high], 1).unique(dim=0, return_inverse=True)
    often = torch.zeros(len(pairs), dtype=counts.dtype).index_add_(0, places, counts[wrong])
    chosen: dict[int, None] = {}
    for pair in pairs[often.argsort(descending=True, stable=True)[:count]].tolist():
        if len(chosen.keys() | set(pair)) <= count:
            chosen |= dict.fromkeys(pair)
    images = torch.zeros(len(matrix), dtype=counts.dtype).index_add_(0, truth, counts)
    for label in images.argsort(descending=True, stable=True)[:count].tolist():
        if len(chosen) < count:
            chosen[label] = None
    return sorted(chosen)


def _rows_and_columns(matrix: Tensor, chosen: Sequence[int]) -> Tensor:
    """The dense part of a dense or sparse matrix, (n, n)."""
    if not matrix.is_sparse:
        return matrix[chosen][:, chosen]
    places = torch.tensor(chosen)
    return matrix.index_select(0, places).index_select(1, places).to_dense()


def _name_axes(axes: object, names: Sequence[str]) -> None:
    labels = [name if len(name) <= 20 else f"{name[:19]}…" for name in names]
    size = 9 if len(names) <= 30 else 5
    axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=size)  # type: ignore[attr-defined]
    axes.set_yticks(range(len(names)), labels, fontsize=size)  # type: ignore[attr-defined]


def _write_counts(axes: object, matrix: Tensor, share: Tensor) -> None:
    for i, j in matrix.nonzero().tolist():
        color = "white" if share[i, j].sqrt() > 0.6 else "black"
        axes.text(j, i, short_count(int(matrix[i, j])), ha="center", va="center", color=color, fontsize=7)  # type: ignore[attr-defined]


def short_count(count: int) -> str:
    """A count in at most six characters: counts of pixels have up to ten."""
    for unit, least in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 100 * least:
            return f"{count // least}{unit}"
    return str(count)
