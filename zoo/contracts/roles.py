"""The roles of the zoo's networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from zoo.contracts.base import Inputs, Role, Sizes, expect

TOKENS = 6  # tokens per caption in the checks of captioners


def _images(sizes: Sizes, count: int, generator: Generator) -> Tensor:
    return torch.randn(count, sizes["in_channels"], *sizes["image_size"], generator=generator)


def _labels(sizes: Sizes, count: int, generator: Generator) -> Tensor:
    return torch.randint(0, max(1, sizes.get("num_classes", 1)), (count,), generator=generator)


def _on_images(network: Any, sizes: Sizes, count: int, generator: Generator) -> list[Inputs]:
    return [(_images(sizes, count, generator),)]


def _with_labels_or_none(sizes: Sizes, count: int, generator: Generator, *first: Any) -> list[Inputs]:
    """Ways to call a class-conditional network: with labels, and, as for guidance, without."""
    if not sizes.get("num_classes"):
        return [first]
    return [(*first, _labels(sizes, count, generator)), first]


def _with_every_label(sizes: Sizes, count: int, generator: Generator, *first: Any) -> list[Inputs]:
    """The same, and with the label that says "no class"."""
    ways = _with_labels_or_none(sizes, count, generator, *first)
    no_class = torch.full((count,), sizes.get("num_classes", 0))
    return [*ways, (*first, no_class)] if len(ways) > 1 else ways


# Checks


def _floats(found: Any) -> Tensor:
    expect(isinstance(found, Tensor), f"expected a tensor, got {type(found).__name__}")
    expect(found.is_floating_point(), f"expected floating-point values, got {found.dtype}")
    return found


def _logits(found: Any, inputs: Inputs, sizes: Sizes) -> None:
    wanted = (len(inputs[0]), sizes["num_classes"])
    shape = tuple(_floats(found).shape)
    expect(shape == wanted, f"logits {shape}, expected {wanted}")


def _dense_logits(found: Any, inputs: Inputs, sizes: Sizes) -> None:
    wanted = f"({len(inputs[0])}, {sizes['num_classes']}, h, w)"
    for logits in found if isinstance(found, tuple) else (found,):
        shape = tuple(_floats(logits).shape)
        right = len(shape) == 4 and shape[:2] == (len(inputs[0]), sizes["num_classes"])
        expect(right, f"logits {shape}, expected {wanted}")


def _like_first(found: Any, inputs: Inputs, sizes: Sizes) -> None:
    shape, wanted = tuple(_floats(found).shape), tuple(inputs[0].shape)
    expect(shape == wanted, f"output {shape}, expected {wanted} as the input")


def _one_a_sample(found: Any, inputs: Inputs, sizes: Sizes) -> None:
    shape, count = tuple(_floats(found).shape), len(inputs[0])
    expect(shape[:1] == (count,), f"output {shape}, expected {count} in front")


def _generated(found: Any, inputs: Inputs, sizes: Sizes) -> None:
    shape, wanted = tuple(_floats(found).shape), (len(inputs[0]), sizes["in_channels"], *sizes["image_size"])
    expect(shape == wanted, f"images {shape}, expected {wanted}")


def _two_of_latents(found: Any, inputs: Inputs, sizes: Sizes) -> None:
    expect(isinstance(found, tuple) and len(found) == 2, "expected a mean and a logarithm of the variance")
    (mean, log_variance), count = map(_floats, found), len(inputs[0])
    expect(mean.shape == log_variance.shape, f"a mean {tuple(mean.shape)}, a variance {tuple(log_variance.shape)}")
    expect(mean.shape[:1] == (count,), f"output {tuple(mean.shape)}, expected {count} in front")


def _words(found: Any, inputs: Inputs, sizes: Sizes) -> None:
    shape, wanted = tuple(_floats(found).shape), (*inputs[1].shape, sizes["vocabulary_size"])
    expect(shape == wanted, f"logits {shape}, expected {wanted}")


def _colours(found: Any, inputs: Inputs, sizes: Sizes) -> None:
    shape, wanted = tuple(_floats(found).shape), (*inputs[0].shape[:-1], 3)
    expect(shape == wanted, f"colours {shape}, expected {wanted}")
    expect(found.min() >= 0 and found.max() <= 1, "expected colours in [0, 1]")


def _anything(found: Any, inputs: Inputs, sizes: Sizes) -> None:
    """A backbone's output may be anything; its feature maps are checked via its stages."""


# Detectors, whose arguments are lists


def _detector_inputs(network: Any, sizes: Sizes, count: int, generator: Generator) -> list[Inputs]:
    images = list(_images(sizes, count, generator).sigmoid())
    height, width = sizes["image_size"]
    corner = torch.tensor([0.1 * width, 0.1 * height, 0.6 * width, 0.7 * height])
    return [(images, [_boxed(corner + i % 3, i % sizes["num_classes"], height, width) for i in range(count)])]


def _boxed(box: Tensor, label: int, height: int, width: int) -> dict[str, Tensor]:
    """A target of one object that fills its box; who is trained without masks does not look at them."""
    x1, y1, x2, y2 = box.round().int().tolist()
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, y1:y2, x1:x2] = True
    return {"boxes": box[None], "labels": torch.tensor([label]), "masks": mask}


def _call_detector(network: Any, inputs: Inputs) -> Any:
    return network(*inputs) if network.training else network(inputs[0])


def _detections(found: Any, inputs: Inputs, sizes: Sizes) -> None:
    expect(isinstance(found, list) and len(found) == len(inputs[0]), "expected a list with an entry for each image")
    for one, image in zip(found, inputs[0], strict=True):
        boxes, scores, labels = (one[name] for name in ("boxes", "scores", "labels"))
        expect(
            boxes.shape == (len(labels), 4) and len(scores) == len(labels), "expected as many boxes, scores and labels"
        )
        height, width = image.shape[-2:]
        inside = (boxes >= 0).all() and (boxes[:, ::2] <= width).all() and (boxes[:, 1::2] <= height).all()
        expect(inside, "expected boxes x1 y1 x2 y2 in pixels inside the image")
        right = not len(labels) or (int(labels.min()) >= 0 and int(labels.max()) < sizes["num_classes"])
        expect(right, f"expected labels from 0 to {sizes['num_classes'] - 1}, without a background class")


def _instances(found: Any, inputs: Inputs, sizes: Sizes) -> None:
    _detections(found, inputs, sizes)
    for one, image in zip(found, inputs[0], strict=True):
        shape, wanted = tuple(one["masks"].shape), (len(one["labels"]), *image.shape[-2:])
        expect(shape == wanted, f"masks {shape}, expected {wanted}")
        inside = not one["masks"].numel() or (float(one["masks"].min()) >= 0 and float(one["masks"].max()) <= 1)
        expect(inside, "expected masks as probabilities")


# Roles that need more than images


def _stylizer_inputs(network: Any, sizes: Sizes, count: int, generator: Generator) -> list[Inputs]:
    larger = [n + 16 for n in sizes["image_size"]]
    return [tuple(torch.rand(count, 3, *size, generator=generator) for size in (sizes["image_size"], larger))]


def _generator_inputs(network: Any, sizes: Sizes, count: int, generator: Generator) -> list[Inputs]:
    z = torch.randn(count, *network.latent_shape, generator=generator)
    return _with_labels_or_none(sizes, count, generator, z)


def _discriminator_inputs(network: Any, sizes: Sizes, count: int, generator: Generator) -> list[Inputs]:
    return _with_labels_or_none(sizes, count, generator, _images(sizes, count, generator))


def _encoder_inputs(network: Any, sizes: Sizes, count: int, generator: Generator) -> list[Inputs]:
    return _with_every_label(sizes, count, generator, _images(sizes, count, generator))


def _decoder_inputs(network: Any, sizes: Sizes, count: int, generator: Generator) -> list[Inputs]:
    return _with_every_label(sizes, count, generator, torch.randn(count, *network.latent_shape, generator=generator))


def _denoiser_inputs(network: Any, sizes: Sizes, count: int, generator: Generator) -> list[Inputs]:
    images, times = _images(sizes, count, generator), torch.rand(count, generator=generator)
    return _with_every_label(sizes, count, generator, images, times)


def _captioner_inputs(network: Any, sizes: Sizes, count: int, generator: Generator) -> list[Inputs]:
    tokens = torch.randint(0, sizes["vocabulary_size"], (count, TOKENS), generator=generator)
    return [(_images(sizes, count, generator), tokens)]


def _pattern_inputs(network: Any, sizes: Sizes, count: int, generator: Generator) -> list[Inputs]:
    return [(2 * torch.rand(count, 6, 2, generator=generator) - 1,)]


ROLES = (
    Role("classifier", "images -> logits (B, num_classes)", _on_images, _logits, ("logits",), needs=("num_classes",)),
    Role(
        "backbone",
        "images -> anything, with feature maps by stages; built with num_classes=0",
        _on_images,
        _anything,
        ("features",),
    ),
    Role(
        "segmenter",
        "images -> logits (B, num_classes, h, w); in training, with auxiliary heads, a tuple with theirs behind",
        _on_images,
        _dense_logits,
        ("logits",),
        needs=("num_classes",),
    ),
    Role(
        "detector",
        "list of images in [0, 1] (C, H, W), targets in training -> losses by name; in evaluation detections",
        _detector_inputs,
        _detections,
        input_names=(),
        outputs=("boxes", "scores", "labels"),
        needs=("num_classes",),
        call=_call_detector,
        of_sample=lambda found, index: found[index],
        smooth=False,
    ),
    Role(
        "instance_segmenter",
        "as a detector, with masks (N, H, W) among the targets, and as probabilities in the detections",
        _detector_inputs,
        _instances,
        input_names=(),
        outputs=("boxes", "scores", "labels", "masks"),
        needs=("num_classes",),
        call=_call_detector,
        of_sample=lambda found, index: found[index],
        smooth=False,
    ),
    Role("transform", "images -> images", _on_images, _like_first),
    Role(
        "stylizer",
        "contents, styles -> images as large as the contents",
        _stylizer_inputs,
        _like_first,
        input_names=("contents", "styles"),
        outputs=("images",),
    ),
    Role(
        "generator",
        "noise (B, *latent_shape), labels or none -> images",
        _generator_inputs,
        _generated,
        input_names=("z", "labels"),
        outputs=("images",),
    ),
    Role(
        "discriminator",
        "images, labels or none -> one or several numbers a sample",
        _discriminator_inputs,
        _one_a_sample,
        ("scores",),
    ),
    Role(
        "encoder",
        "images in [-1, 1], labels or none -> mean and logarithm of the variance of a Gaussian of the latent, both "
        "(B, *latent_shape); a label of num_classes is no class, as is none",
        _encoder_inputs,
        _two_of_latents,
        input_names=("images", "labels"),
        outputs=("mean", "log_variance"),
    ),
    Role(
        "decoder",
        "latents (B, *latent_shape), labels or none -> parameters of the images' likelihood (B, in_channels, H, W), "
        "several channels for one of the images if it has several; a label of num_classes is no class, as is none",
        _decoder_inputs,
        _generated,
        input_names=("z", "labels"),
        outputs=("parameters",),
    ),
    Role(
        "denoiser",
        "noisy images, times (B,) as floats in units of the task, labels or none -> like the images; a label of "
        "num_classes is no class, as is none",
        _denoiser_inputs,
        _like_first,
        input_names=(),
        outputs=("prediction",),
    ),
    Role(
        "captioner",
        "images, tokens (B, T) -> logits (B, T, vocabulary_size) of the token after each; the future has no say. It is "
        "a zoo.architectures.captioner.Captioner: encode(images) -> memory and decode(memory, tokens) -> logits; "
        "start(memory) -> state and step(tokens (B,), state) -> logits (B, vocabulary_size), state; "
        "attention(state) -> where the step looked, (B, h, w) with sum 1, or None",
        _captioner_inputs,
        _words,
        input_names=(),
        outputs=("logits",),
        needs=("vocabulary_size",),
    ),
    Role(
        "pattern",
        "places (..., 2) in [-1, 1] -> colours (..., 3) in [0, 1]",
        _pattern_inputs,
        _colours,
        input_names=("places",),
        outputs=("colours",),
    ),
)
