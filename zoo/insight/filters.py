"""``zoo inspect filters``: the first convolution's kernels as images, and how colour-specific each of them is.

AlexNet's authors trained two towers on two GPUs, and found the kernels of one "largely color-agnostic", those of the
other "largely color-specific" (Krizhevsky, Sutskever and Hinton, 2012, section 6.1). Here a tower is the input of one
group of the next convolution. In an implementation for one device the towers are not quite separate: response
normalisation mixes neighbouring channels, also at the border between the towers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from zoo import drawing
from zoo.errors import UserError
from zoo.insight.subject import Report, Subject
from zoo.tasks.first_images import still_to_see

PERMUTATIONS = 20_000


class First(NamedTuple):
    """The first convolution, and the channels of each of its towers."""

    name: str
    convolution: nn.Conv2d
    towers: list[Tensor]


def first_convolution(network: nn.Module) -> First:
    """The first two-dimensional convolution in the order of definition, and how the next one divides its channels.

    A depthwise next convolution (as many groups as channels) does not define towers.

    Raises:
        UserError: the network has no convolution.
    """
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    if not found:
        raise UserError(f"{type(network).__name__} has no convolution whose filters could be shown")
    name, first = found[0]
    groups = found[1][1].groups if len(found) > 1 and found[1][1].in_channels == first.out_channels else 1
    groups = 1 if groups == first.out_channels else groups
    return First(name, first, list(torch.arange(first.out_channels).chunk(groups)))


def colour_share(kernels: Tensor) -> Tensor:
    """The share of each kernel's energy that does not respond to grey images: 0 for a grey kernel, 1 for a
    colour-opponent one.

    A kernel w has a vector of C values at each position. Its part along the grey axis (1, …, 1)/√C has the energy
    C·‖mean of w over channels‖², so the share is 1 − C·‖mean over channels‖² / ‖w‖². Independent random values have
    1 − 1/C on average: two thirds in RGB.

    Args:
        kernels: (K, C, H, W), for pixels in [0, 1] (divided by the normalisation's std).

    Returns:
        (K,), in [0, 1]; 0 for a kernel of zeros.
    """
    energy = kernels.square().flatten(1).sum(1)
    grey = kernels.shape[1] * kernels.mean(1).square().flatten(1).sum(1)
    return (1 - grey / energy).nan_to_num(0).clamp(0, 1)


def smoothness(kernels: Tensor) -> Tensor:
    """Correlation of neighbours within each kernel: about 0 for noise, such as random weights, near 1 for a low
    frequency.

    The correlation ⟨a, b⟩ / (‖a‖ ‖b‖) of the values a with their right and lower neighbours b, by channel, about 0.

    Args:
        kernels: (K, C, H, W), at least 2×2.

    Returns:
        (K,), in [-1, 1]; 0 for a kernel of zeros.
    """
    pairs = [(kernels[..., :-1], kernels[..., 1:]), (kernels[..., :-1, :], kernels[..., 1:, :])]
    a, b = (torch.cat([pair[i].flatten(1) for pair in pairs], 1) for i in (0, 1))
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).nan_to_num(0)


def permutation_test(groups: list[Tensor], permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """Two-sided p-value of the largest difference of the groups' means, by random permutations.

    Args:
        groups: values of each group, each (n,).
        permutations: number of random assignments of the values to the groups.
        seed: seed of the permutations.
    """
    sizes, values = [len(g) for g in groups], torch.cat(groups).double()
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(permutations, len(values), generator=generator).argsort(1)
    apart = _apart(values[order].split(sizes, 1))
    measured = _apart([g.double()[None] for g in groups])
    return float(((apart >= measured - 1e-12).sum() + 1) / (permutations + 1))


def _apart(groups: Any) -> Tensor:
    means = torch.stack([g.mean(1) for g in groups])
    return means.amax(0) - means.amin(0)


def filters(subject: Subject) -> Report:
    """Images and statistics of the first convolution's kernels.

    Raises:
        UserError: the network has no convolution.
    """
    name, convolution, towers = first_convolution(subject.network)
    kernels = convolution.weight.detach().float().cpu()
    kernels = kernels / subject.deviation(kernels.shape[1])
    share, energy, smooth = colour_share(kernels), kernels.square().flatten(1).sum(1), smoothness(kernels)
    numbers: dict[str, Any] = {"layer": name, "shape": list(kernels.shape), "towers": [t.tolist() for t in towers]}
    numbers |= {"norm": energy.sqrt().tolist(), "smoothness": smooth.tolist()}
    pictures = {"filters": _picture(kernels, share, towers)}
    if kernels.shape[1] == 3:
        numbers |= {
            "colour_share": share.tolist(),
            "by_tower": [_summary(share[t], energy[t], smooth[t]) for t in towers],
        }
        if len(towers) > 1:
            numbers["p_value"] = permutation_test([share[t] for t in towers])
        pictures["colour"] = _histogram([share[t] for t in towers], numbers.get("p_value"))
    unseen = ["untrained    these filters are to come from training images: give --data NAME"]
    return Report(numbers, pictures, _lines(numbers) + unseen * bool(still_to_see(subject.network)))


def _summary(share: Tensor, energy: Tensor, smooth: Tensor) -> dict[str, float]:
    """Statistics of one tower: the plain mean over kernels, and the mean weighted by energy."""
    return {
        "mean": float(share.mean()),
        "median": float(share.median()),
        "std": float(share.std()) if len(share) > 1 else 0.0,
        "weighted_mean": float((share * energy).sum() / energy.sum().clamp(min=1e-30)),
        "smoothness": float(smooth.mean()),
    }


def _lines(numbers: dict[str, Any]) -> list[str]:
    lines = [f"layer        {numbers['layer']}, kernels {'×'.join(map(str, numbers['shape']))}"]
    for i, one in enumerate(numbers.get("by_tower", ())):
        of = f"tower {i + 1}" if len(numbers["towers"]) > 1 else "kernels"
        share = f"colour share {one['mean']:.2f} ± {one['std']:.2f}, by energy {one['weighted_mean']:.2f}"
        lines.append(f"{of:<12} {share}; smoothness {one['smoothness']:.2f}")
    if "p_value" in numbers:
        lines.append(f"difference   of the towers' mean shares: p = {numbers['p_value']:.2g} (permutation test)")
    return lines


# Pictures


def kernel_picture(kernel: Tensor, side: int = 44) -> Image.Image:
    """A kernel (C, H, W) as an image: 0 is middle grey, its largest value black or white.

    In colour if it has three channels, else the mean over its channels.
    """
    kernel = kernel if kernel.shape[0] == 3 else kernel.mean(0, keepdim=True)
    return drawing.to_picture(0.5 + kernel / kernel.abs().max().clamp(min=1e-30) / 2, side)


def _picture(kernels: Tensor, share: Tensor, towers: list[Tensor]) -> Image.Image:
    """One grid per tower, with the kernels sorted from grey to colour-specific."""
    made = []
    columns = max(8, round((2 * len(kernels)) ** 0.5))
    for i, tower in enumerate(towers):
        ordered = tower[share[tower].argsort()] if kernels.shape[1] == 3 else tower
        sheet = drawing.grid([kernel_picture(kernels[k]) for k in ordered.tolist()], columns, gap=4)
        what = f"tower {i + 1}: {len(tower)} kernels" if len(towers) > 1 else f"{len(tower)} kernels"
        if kernels.shape[1] == 3:
            what += f", greyest first; mean colour share {share[tower].mean():.2f}"
        made.append(drawing.captioned(sheet, [what]))
    return drawing.stacked(made)


def _histogram(towers: list[Tensor], p_value: float | None) -> Image.Image:
    figure, grid = drawing.new_figure(6.4, 3.2)
    axes = grid[0, 0]
    edges = torch.linspace(0, 1, 21).tolist()
    labels = [f"tower {i + 1}, mean {t.mean():.2f}" for i, t in enumerate(towers)]
    axes.hist([t.numpy() for t in towers], bins=edges, label=labels if len(towers) > 1 else None)
    axes.axvline(2 / 3, color="0.5", linestyle=":", label="random values")
    test = "" if p_value is None else f"; difference of the towers' means: p = {p_value:.2g}"
    axes.set(xlabel=f"colour share (0 grey, 1 purely colour){test}", ylabel="kernels", xlim=(0, 1))
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(towers) + 1, frameon=False)
    return drawing.figure_picture(figure)
