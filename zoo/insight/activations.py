"""``zoo inspect activations``: the feature maps of chosen layers for one image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from zoo import drawing
from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.insight.subject import Report, Subject

SHOWN, STRONGEST, SIDE = 64, 6, 88  # channels per layer's image and per row of the overview; a channel's height


def activations(
    subject: Subject, file: str | None = None, whole: bool = False, layers: Sequence[str] | None = None
) -> Report:
    """Images and statistics of the feature maps for one image.

    Args:
        subject: the network to inspect.
        file: an image file; by default the data's first test image, else a photograph of a cat.
        whole: use the whole image instead of the centre crop, for networks that take any size.
        layers: names of layers; by default the network's stages, or its convolutions if it has no stages.

    Raises:
        UserError: there is no such layer, or its output is not a feature map.
    """
    image = subject.image(file, whole)
    names = list(layers) if layers else default_layers(subject.network)
    with torch.no_grad():
        found = subject.network.features(subject.normalize(image[None].to(subject.device)), names)
    maps = {name: _maps(name, output).cpu().float() for name, output in found.items()}
    pictures = {"activations": _overview(image, maps)}
    for name, each in maps.items():
        pictures[f"activations-{name}"] = drawing.captioned(
            _grid(each, range(min(SHOWN, len(each)))), [_title(name, each)]
        )
    numbers = {"layers": [_numbers(name, each) for name, each in maps.items()]}
    return Report(numbers, pictures, [_line(one) for one in numbers["layers"]])


def default_layers(network: Architecture) -> list[str]:
    """The stages of a network, or its convolutions if it has no stages.

    Raises:
        UserError: it has neither.
    """
    try:
        return [stage.layer for stage in network.stages]
    except UserError:
        found = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
        if not found:
            raise UserError(f"{type(network).__name__} has no stages and no convolutions: give --layers") from None
        return found


def _maps(name: str, output: Any) -> Tensor:
    if not isinstance(output, Tensor) or output.dim() != 4:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"layer {name} gives no feature maps (B, C, H, W), but {shape}")
    return output[0]


def _numbers(name: str, maps: Tensor) -> dict[str, Any]:
    """Statistics of one layer's values, and how many channels are dead (all zeros) for this image."""
    flat = maps.flatten(1)
    return {
        "layer": name,
        "shape": list(maps.shape),
        "mean": float(maps.mean()),
        "std": float(maps.std(correction=0)),
        "zeros": float((maps == 0).float().mean()),
        "dead_maps": int((flat == 0).all(1).sum()),
        "mean_by_map": flat.mean(1).tolist(),
    }


def _line(one: dict[str, Any]) -> str:
    shape = "×".join(map(str, one["shape"]))
    return (
        f"{one['layer']:<18} {shape:<11} mean {one['mean']:7.2g}  std {one['std']:7.2g}  zeros {one['zeros']:4.0%}  "
        f"dead {one['dead_maps']}"
    )


# Pictures


def map_pictures(maps: Tensor, side: int = SIDE) -> list[Image.Image]:
    """Channels of a feature map (C, H, W) as grey images on one common scale.

    If no value is negative, 0 is black; else 0 is middle grey. A thousandth of the values may be clipped.
    """
    scale = maps.abs().flatten().quantile(0.999) if maps.numel() < 2**24 else maps.abs().max()
    scale = scale.clamp(min=1e-30)
    shown = maps / scale if bool((maps >= 0).all()) else 0.5 + maps / scale / 2
    height, width = maps.shape[-2:]
    method = Image.Resampling.NEAREST if height <= side else Image.Resampling.BOX
    return [drawing.to_picture(one[None], 1).resize((round(side * width / height), side), method) for one in shown]


def _grid(maps: Tensor, which: Sequence[int], columns: int | None = None) -> Image.Image:
    drawn = map_pictures(maps)
    return drawing.grid([drawn[i] for i in which], columns, gap=4)


def _title(name: str, maps: Tensor) -> str:
    more = f", the first {SHOWN} of {len(maps)}" if len(maps) > SHOWN else ""
    return f"{name}: {'×'.join(map(str, maps.shape))}{more}"


def _overview(image: Tensor, maps: dict[str, Tensor]) -> Image.Image:
    """The image, and the strongest channels of each layer."""
    rows = [drawing.captioned(drawing.to_picture(image), ["image"])]
    for name, each in maps.items():
        strongest = each.abs().flatten(1).mean(1).argsort(descending=True)[:STRONGEST].tolist()
        row = _grid(each, strongest, columns=STRONGEST)
        rows.append(drawing.captioned(row, [f"{name}: {'×'.join(map(str, each.shape))}, the strongest maps"]))
    return drawing.stacked(rows)
