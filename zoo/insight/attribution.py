"""``zoo inspect attribution``: where in an image the evidence for a class lies, by captum.

Grad-CAM: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017,
section 3. Integrated gradients: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017, section 3,
with a black baseline; their sum is the class's output minus that for the baseline (completeness).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import drawing
from zoo.architectures.base import Architecture, find_layers
from zoo.errors import UserError
from zoo.facts import class_index
from zoo.insight.activations import default_layers
from zoo.insight.subject import Report, Subject

STEPS, MOST = 64, 128  # steps of the integral: doubled once if the error of its sum exceeds TOLERANCE
TOLERANCE = 0.05  # relative to the outputs' difference
SIDE = 288  # of a panel, in pixels


class Integrated(NamedTuple):
    """Integrated gradients, and how complete they are.

    Args:
        attributions: (C, H, W), in units of the class's output.
        total: their sum.
        difference: the class's output for the image minus that for the black image.
    """

    attributions: Tensor
    total: float
    difference: float


def attribution(
    subject: Subject,
    file: str | None = None,
    whole: bool = False,
    which: str | None = None,
    layer: str | None = None,
) -> Report:
    """Images and numbers that show where the evidence for a class lies.

    Args:
        subject: a classifier.
        file: an image file; by default the data's first test image, else a photograph of a cat.
        whole: use the whole image instead of the centre crop, for networks that take any size.
        which: the class's name or number; by default the most probable one.
        layer: layer for Grad-CAM; by default the network's last stage with more than one pixel.

    Raises:
        UserError: the network is not a classifier, or there is no such class or layer.
    """
    _check(subject)
    image = subject.image(file, whole)
    pixels = image[None].to(subject.device)
    classifier = nn.Sequential(subject.normalize, subject.network)
    with torch.no_grad():
        shares = classifier(pixels).softmax(1)[0].cpu()
    target = class_index(which, subject.class_names) if which is not None else int(shares.argmax())
    layer = layer or default_layer(subject.network, subject.normalize(pixels))
    with usable(subject.network):
        cam = grad_cam(classifier, pixels, target, find_layers(subject.network, [layer])[layer])
        integrated = integrated_gradients(classifier, pixels, target)
    numbers = _numbers(shares, target, subject.class_names) | {
        "grad_cam": {"layer": layer, "peak": _peak(cam)},
        "integrated_gradients": _completeness(integrated) | {"peak": _peak(evidence(integrated.attributions))},
    }
    name = f"{short_name(subject.class_names[target])} · {float(shares[target]):.0%}"
    return Report(numbers, {"attribution": _picture(image, name, layer, cam, integrated)}, _lines(numbers))


def _check(subject: Subject) -> None:
    network = subject.network
    if "classifier" not in network.roles:
        raise UserError(f"{type(network).__name__} is not a classifier: there are no classes to show evidence for")
    if not subject.facts.get("num_classes"):
        raise UserError(f"{type(network).__name__} was built without classes, so there is no evidence to show")


def short_name(name: str) -> str:
    """The first of a class's names."""
    return name.split(",")[0]


def default_layer(network: Architecture, images: Tensor) -> str:
    """The last of the network's stages, or of its convolutions if it has no stages, with more than one pixel.

    Raises:
        UserError: there is none.
    """
    names = default_layers(network)
    with torch.no_grad():
        maps = network.features(images, names)
    found = [name for name in names if maps[name].dim() == 4 and maps[name][0, 0].numel() > 1]
    if not found:
        raise UserError(f"{type(network).__name__} has no layer with a feature map for Grad-CAM: give --layer")
    return found[-1]


# The methods


@contextmanager
def usable(network: nn.Module) -> Iterator[None]:
    """Without in-place activations, which would overwrite layer outputs that captum keeps."""
    in_place: list[Any] = [module for module in network.modules() if getattr(module, "inplace", False) is True]
    try:
        for module in in_place:
            module.inplace = False
        yield
    finally:
        for module in in_place:
            module.inplace = True


def grad_cam(classifier: nn.Module, images: Tensor, target: int, layer: nn.Module) -> Tensor:
    """Grad-CAM of one image, resized to the image and scaled to [0, 1]; (H, W).

    Args:
        classifier: from images to logits.
        images: (1, C, H, W).
        target: the class.
        layer: one of the classifier's modules, whose output is (1, K, h, w).

    Raises:
        UserError: the layer's output has no such shape.
    """
    from captum.attr import LayerGradCam

    try:
        found = LayerGradCam(classifier, layer).attribute(images, target, relu_attributions=True)
    except (AssertionError, IndexError, RuntimeError) as error:
        raise UserError(f"Grad-CAM can't use this layer: {str(error).splitlines()[0]}") from error
    if not isinstance(found, Tensor) or found.dim() != 4:
        raise UserError("Grad-CAM needs a layer whose output is a feature map (B, C, H, W)")
    heat = F.interpolate(found.detach(), images.shape[-2:], mode="bilinear")[0, 0].cpu()
    return heat / heat.max().clamp(min=1e-30)


def integrated_gradients(classifier: nn.Module, images: Tensor, target: int) -> Integrated:
    """Integrated gradients of one image with a black baseline, with twice the steps if completeness requires it.

    Args:
        classifier: from images to logits.
        images: in [0, 1], (1, C, H, W).
        target: the class.
    """
    from captum.attr import IntegratedGradients

    method, black, steps = IntegratedGradients(classifier), torch.zeros_like(images), STEPS
    with torch.no_grad():
        difference = float(classifier(images)[0, target] - classifier(black)[0, target])
    while True:
        found: Tensor = method.attribute(images, black, target, n_steps=steps, internal_batch_size=16)
        total = float(found.double().sum())
        if abs(total - difference) <= TOLERANCE * abs(difference) or steps >= MOST:
            return Integrated(found[0].detach().float().cpu(), total, difference)
        steps *= 2


def evidence(attributions: Tensor) -> Tensor:
    """Positive evidence (H, W): attributions (C, H, W) summed over channels, negative sums set to 0."""
    return attributions.sum(0).clamp(min=0)


# Numbers and pictures


def _numbers(shares: Tensor, target: int, names: list[str]) -> dict[str, Any]:
    top = shares.topk(min(5, len(shares)))
    return {
        "class": names[target],
        "index": target,
        "confidence": float(shares[target]),
        "top": [
            {"class": names[k], "confidence": c} for k, c in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ],
    }


def _completeness(integrated: Integrated) -> dict[str, float]:
    error = abs(integrated.total - integrated.difference) / max(abs(integrated.difference), 1e-30)
    return {"sum": integrated.total, "difference": integrated.difference, "relative_error": error}


def _peak(heat: Tensor) -> list[int]:
    """Row and column of the largest value."""
    return list(divmod(int(heat.argmax()), heat.shape[1]))


def _lines(numbers: dict[str, Any]) -> list[str]:
    sums = numbers["integrated_gradients"]
    top = ", ".join(f"{short_name(one['class'])} {one['confidence']:.0%}" for one in numbers["top"])
    return [
        f"class        {numbers['class']} ({numbers['index']}), {numbers['confidence']:.1%}",
        textwrap.fill(f"top          {top}", 80, subsequent_indent=" " * 13),
        f"Grad-CAM     of {numbers['grad_cam']['layer']}, largest at row and column {numbers['grad_cam']['peak']}",
        f"integrated   sum {sums['sum']:.3f}, difference of the outputs {sums['difference']:.3f} "
        f"(apart by {sums['relative_error']:.1%})",
    ]


def _picture(image: Tensor, name: str, layer: str, cam: Tensor, integrated: Integrated) -> Image.Image:
    found = evidence(integrated.attributions)
    reach = max(1, min(found.shape) // 60)
    found = F.avg_pool2d(found[None, None], 2 * reach + 1, 1, reach)[0, 0]  # single pixels are hard to see
    found = (found / found.quantile(0.99).clamp(min=1e-30)).clamp(max=1)
    panels = [
        drawing.captioned(_panel(image), [name]),
        drawing.captioned(_panel(drawing.heated(image, cam)), [f"Grad-CAM of {layer}"]),
        drawing.captioned(_panel(drawing.heated(image, found)), ["integrated gradients"]),
    ]
    return drawing.grid(panels, columns=3)


def _panel(image: Tensor) -> Image.Image:
    picture = drawing.to_picture(image, 1)
    height = round(SIDE * picture.height / picture.width)
    method = Image.Resampling.NEAREST if picture.width <= SIDE // 4 else Image.Resampling.BICUBIC
    return picture.resize((SIDE, height), method)
