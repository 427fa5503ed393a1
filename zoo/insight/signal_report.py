"""``zoo inspect signal``: the measurements of ``zoo.insight.signal`` for a network and its data, as plots and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from PIL import Image

from zoo import drawing
from zoo.errors import UserError
from zoo.insight.signal import (
    BranchRatio,
    LayerSignal,
    accuracy,
    accuracy_without,
    branch_ratios,
    measure_signal,
    residual_blocks,
)
from zoo.insight.subject import Report, Subject

BATCH = 128  # images for the variances
BLOCKS = 64  # maximum number of residual blocks that are removed, one at a time
IMAGES = 512  # for the accuracies by default; BLOCKS * BATCH / blocks where that is fewer, but at least BATCH
NAMED = 24  # maximum number of layers that a plot labels by name


def signal(subject: Subject, images: int | None = None, layers: Sequence[str] | None = None) -> Report:
    """Plots and numbers of the signal by layer, and of each residual block's contribution.

    Args:
        subject: a classifier with data.
        images: number of images for the accuracies, sampled from the data's whole test split; variances are of 128 of
            them. By default 512; with more than 16 residual blocks, 8192 divided by their number, but at least 128.
            Of more than 64 blocks only 64 are removed.
        layers: by default every convolution and fully connected layer.

    Raises:
        UserError: the network is not a classifier, it has no data, or there is no such layer.
    """
    network = subject.network
    if "classifier" not in network.roles or not subject.facts.get("num_classes"):
        raise UserError(f"{type(network).__name__} is not a classifier: the signal needs a classification loss")
    batches = list(subject.batches(images or images_for(len(residual_blocks(network))), BATCH))
    signals = measure_signal(network, *batches[0], layers)
    ratios = branch_ratios(network, batches[0][0])
    numbers: dict[str, Any] = {
        "images": sum(len(labels) for _, labels in batches),
        "layers": [asdict(s) for s in signals],
    }
    pictures = {"signal": _signal_picture(signals)}
    if ratios:
        without = accuracy_without(network, batches, BLOCKS)
        numbers |= {"accuracy": accuracy(network, batches), "blocks": [_block(ratio, without) for ratio in ratios]}
        pictures["blocks"] = _blocks_picture(numbers["blocks"], numbers["accuracy"])
    return Report(numbers, pictures, _lines(numbers))


def images_for(blocks: int) -> int:
    """Number of images for removing each residual block, at a constant number of forward passes."""
    return max(BATCH, min(IMAGES, BLOCKS * BATCH // max(1, blocks)))


def _block(ratio: BranchRatio, without: dict[str, float]) -> dict[str, Any]:
    return {**asdict(ratio), "accuracy_without": without.get(ratio.block)}


def _lines(numbers: dict[str, Any]) -> list[str]:
    layers = numbers["layers"]
    lines = [f"layers       {len(layers)}, from {layers[0]['layer']} to {layers[-1]['layer']}"]
    for key, what in (("activation", "activations"), ("gradient", "gradients"), ("weight_ratio", "weight rate")):
        values = [one[key] for one in layers if one[key] is not None]
        if values:
            text = f"from {min(values):.2g} to {max(values):.2g}, first layer {values[0]:.2g}, last {values[-1]:.2g}"
            lines.append(f"{what:<12} {text}")
    return lines + (_block_lines(numbers) if "blocks" in numbers else ["blocks       none that is known as residual"])


def _block_lines(numbers: dict[str, Any]) -> list[str]:
    blocks, whole = numbers["blocks"], numbers["accuracy"]
    ratios = [b["ratio"] for b in blocks]
    lines = [f"‖F(x)‖/‖x‖   {len(blocks)} blocks, from {min(ratios):.2g} to {max(ratios):.2g}"]
    out = {b["block"]: b["accuracy_without"] for b in blocks if b["accuracy_without"] is not None}
    lines.append(f"accuracy     {whole:.3f} with all blocks, on {numbers['images']} images")
    if out:
        worst = min(out, key=lambda name: out[name])
        mean = sum(out.values()) / len(out)
        of = f"{len(out)} of {sum(b['identity'] for b in blocks)}"
        lines.append(f"without one  {mean:.3f} in the mean of {of} blocks, {out[worst]:.3f} without {worst}")
    return lines


# Plots


def _signal_picture(signals: list[LayerSignal]) -> Image.Image:
    figure, grid = drawing.new_figure(7.6, 7.2, rows=3)
    axes = grid[:, 0]
    rows: tuple[tuple[str, Callable[[LayerSignal], float | None]], ...] = (
        ("Var[activation]", lambda s: s.activation),
        ("Var[gradient]", lambda s: s.gradient),
        ("RMS(weight gradient)\n/ RMS(weight)", lambda s: s.weight_ratio),
    )
    for axis, (label, value) in zip(axes, rows, strict=True):
        _points(axis, [value(s) or None for s in signals], label)  # a log scale has no 0
        axis.set_yscale("log")
    _name_places(axes, [s.layer for s in signals], "layer")
    return drawing.figure_picture(figure)


def _blocks_picture(blocks: list[dict[str, Any]], whole: float) -> Image.Image:
    figure, grid = drawing.new_figure(7.6, 5.2, rows=2)
    axes = grid[:, 0]
    ratios = [b["ratio"] for b in blocks]
    _points(axes[0], ratios, "‖F(x)‖ / ‖x‖")
    if max(ratios) > 20 * min(ratios):
        axes[0].set_yscale("log")
    else:
        axes[0].set_ylim(0, 1.1 * max(ratios))
    axes[0].axhline(1, color="0.7", linewidth=1)
    _points(axes[1], [b["accuracy_without"] for b in blocks], "accuracy\nwithout the block")
    axes[1].axhline(whole, color="0.5", linestyle=":", label="all blocks")
    axes[1].set_ylim(-0.03, 1.03)
    axes[1].legend(loc="lower right")
    _name_places(axes, [b["block"] for b in blocks], "residual block (hollow: its shortcut changes the shape)")
    for i, block in enumerate(blocks):
        if not block["identity"]:
            axes[0].plot([i], [block["ratio"]], "o", markersize=5, markerfacecolor="white", color="C0")
    return drawing.figure_picture(figure)


def _points(axis: Any, values: Sequence[float | None], label: str) -> None:
    """One point per layer; None is omitted."""
    shown = [(i, v) for i, v in enumerate(values) if v is not None]
    axis.plot([i for i, _ in shown], [v for _, v in shown], "o-", markersize=4 if len(values) <= 60 else 2, linewidth=1)
    axis.set_ylabel(label)
    axis.grid(alpha=0.3)


def _name_places(axes: Any, names: Sequence[str], what: str) -> None:
    """Tick labels along x: names if they are readable, else numbers; on the last of the axes only."""
    for axis in axes:
        axis.set_xlim(-0.5, len(names) - 0.5)
        if len(names) <= NAMED:
            axis.set_xticks(range(len(names)), names if axis is axes[-1] else [], rotation=60, ha="right", fontsize=8)
        elif axis is not axes[-1]:
            axis.set_xticklabels([])
    axes[-1].set_xlabel(what if len(names) <= NAMED else f"{what}, in the order of the forward pass")
