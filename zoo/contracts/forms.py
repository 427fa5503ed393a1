"""The forms of batch of the zoo's tasks and data.

Images are floats in [0, 1], channels first. In training they are exactly ``image_size``; in evaluation they may be
larger, so that a task can take several test-time crops.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.contracts.base import Form, expect
from zoo.facts import TOKEN_IDS, Facts

SIDE = 32  # side of the example images in pixels
COLOURS = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8], [0.5, 0.5, 0.5]])
NAMES = ["red", "green", "blue", "grey"]


# Checks shared by the forms


def check_images(images: Any, facts: Facts, split: str) -> None:
    """Images (B, C, H, W) of the facts' channels and size, in [0, 1].

    Raises:
        ContractError: they are not.
    """
    check_pixels(images, facts["in_channels"], split)
    size, wanted = list(images.shape[2:]), facts["image_size"]
    fits = size == wanted if split == "train" else all(n >= w for n, w in zip(size, wanted, strict=True))
    expect(fits, f"{split}: images of {size} pixels, image_size is {wanted}")


def check_pixels(images: Any, channels: int, split: str) -> None:
    """Floats (B, channels, H, W) in [0, 1] that use the whole range.

    Raises:
        ContractError: they are not.
    """
    expect(isinstance(images, Tensor), f"{split}: images are a {type(images).__name__}, expected a tensor")
    expect(images.is_floating_point(), f"{split}: images are {images.dtype}, expected floats")
    shape = tuple(images.shape)
    expect(images.dim() == 4, f"{split}: images {shape}, expected (B, C, H, W)")
    expect(shape[1] == channels, f"{split}: {shape[1]} channels, the facts say {channels}")
    low, high = float(images.min()), float(images.max())
    expect(low >= 0 and high <= 1, f"{split}: images from {low:.3g} to {high:.3g}, expected within [0, 1]")
    expect(high > 2 / 255, f"{split}: no pixel is brighter than {high:.2g}, expected the range [0, 1]")


# Classification


def _classification(batch: Any, facts: Facts, split: str) -> None:
    images, labels = batch
    check_images(images, facts, split)
    classes, count = facts["num_classes"], len(images)
    if labels.dim() == 1:
        expect(labels.dtype == torch.int64, f"{split}: labels are {labels.dtype}, expected int64")
        right = len(labels) == count and int(labels.min()) >= 0 and int(labels.max()) < classes
        expect(right, f"{split}: expected one label per image, 0 to {classes - 1}; found up to {int(labels.max())}")
    else:
        sums = labels.sum(1)
        right = labels.shape == (count, classes) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2)
        expect(right and split == "train", f"{split}: soft labels are for training, ({count}, {classes}), sum 1")


def _image(index: int, channels: int = 3) -> tuple[Tensor, int]:
    """Noise around one of four colours, and the colour's index."""
    generator, label = torch.Generator().manual_seed(index), index % len(COLOURS)
    image = COLOURS[label][:, None, None] + 0.2 * torch.rand(3, SIDE, SIDE, generator=generator)
    return image[:channels], label


def _example_facts(**changes: Any) -> Facts:
    facts = Facts(
        num_classes=4,
        class_names=NAMES,
        in_channels=3,
        image_size=[SIDE, SIDE],
        mean=[0.5, 0.5, 0.5],
        std=[0.25, 0.25, 0.25],
        mirror=True,
        class_counts=[6, 6, 6, 6],
    )
    return Facts(**{**facts, **changes})  # type: ignore[typeddict-item]


# Detection and instance segmentation: lists of images of any size


def _detection(batch: Any, facts: Facts, split: str) -> None:
    images, targets = batch
    expect(isinstance(images, list | tuple), f"{split}: expected a list of images, got {type(images).__name__}")
    expect(len(images) == len(targets), f"{split}: {len(images)} images, {len(targets)} targets")
    for image, target in zip(images, targets, strict=True):
        right = image.is_floating_point() and image.dim() == 3 and float(image.min()) >= 0 and float(image.max()) <= 1
        expect(right and image.shape[0] == facts["in_channels"], f"{split}: expected images (C, H, W) within [0, 1]")
        _boxes(target, image.shape[-2:], facts["num_classes"], split)


def _boxes(target: dict[str, Tensor], size: Any, classes: int, split: str) -> None:
    boxes, labels = target["boxes"], target["labels"]
    expect(boxes.shape == (len(labels), 4), f"{split}: boxes {tuple(boxes.shape)} for {len(labels)} labels")
    if not len(labels):
        return
    inside = (boxes >= 0).all() and (boxes[:, ::2] <= size[1]).all() and (boxes[:, 1::2] <= size[0]).all()
    expect(inside and (boxes[:, 2:] > boxes[:, :2]).all(), f"{split}: boxes must be x1 y1 x2 y2 inside the image")
    right = labels.dtype == torch.int64 and int(labels.min()) >= 0 and int(labels.max()) < classes
    expect(right, f"{split}: expected labels from 0 to {classes - 1}, without a background class")


def _instance_segmentation(batch: Any, facts: Facts, split: str) -> None:
    _detection(batch, facts, split)
    for image, target in zip(*batch, strict=True):
        found, wanted = tuple(target["masks"].shape), (len(target["labels"]), *image.shape[-2:])
        expect(found == wanted, f"{split}: masks {found}, expected {wanted}")


def _scene(index: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Up to two coloured rectangles on grey, in images of two sizes; every third image has none."""
    generator = torch.Generator().manual_seed(index)
    height, width = SIDE, SIDE + 8 * (index % 2)
    image = 0.1 * torch.rand(3, height, width, generator=generator)
    count = (index + 1) % 3
    boxes, labels, masks = torch.zeros(count, 4), torch.zeros(count, dtype=torch.int64), []
    for i in range(count):
        left, top = (int(n) for n in torch.randint(0, SIDE // 2, (2,), generator=generator))
        boxes[i] = torch.tensor([left, top, left + SIDE // 3, top + SIDE // 3], dtype=torch.float32)
        labels[i] = (index + i) % len(COLOURS)
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[top : top + SIDE // 3, left : left + SIDE // 3] = True
        image = torch.where(mask, COLOURS[labels[i]][:, None, None], image)
        masks.append(mask)
    empty = torch.zeros(0, height, width, dtype=torch.bool)
    return image, {"boxes": boxes, "labels": labels, "masks": torch.stack(masks) if masks else empty}


def lists(samples: list[Any]) -> tuple[list[Any], list[Any]]:
    """A batch of lists, since images and targets differ in size."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def _list_facts() -> Facts:
    facts = _example_facts()
    for name in ("image_size", "class_counts"):
        facts.pop(name, None)  # type: ignore[misc]
    return facts


# Semantic segmentation

IGNORED = 255  # the label of pixels that losses and metrics ignore, as in VOC


def _semantic_segmentation(batch: Any, facts: Facts, split: str) -> None:
    images, masks = batch
    check_images(images, facts, split)
    wanted = (len(images), *images.shape[2:])
    expect(tuple(masks.shape) == wanted, f"{split}: masks {tuple(masks.shape)}, expected {wanted}")
    expect(masks.dtype == torch.int64, f"{split}: masks are {masks.dtype}, expected int64")
    known = masks[masks != IGNORED]
    right = not known.numel() or (int(known.min()) >= 0 and int(known.max()) < facts["num_classes"])
    expect(right, f"{split}: expected classes from 0 to {facts['num_classes'] - 1}, or {IGNORED} for ignored pixels")


def _halves(index: int) -> tuple[Tensor, Tensor]:
    """Two colours side by side, and the class of each pixel."""
    (left, first), (right, second) = _image(index), _image(index + 1)
    on_left = torch.arange(SIDE).expand(SIDE, SIDE) < SIDE // 4 + index % (SIDE // 2)
    return torch.where(on_left, left, right), torch.where(on_left, first, second)


# Captioning

WORDS = ["<pad>", "<start>", "<end>", "<unknown>", "image", "one", *NAMES]
PAD, START, END = 0, 1, 2


def _captioning(batch: Any, facts: Facts, split: str) -> None:
    expect(len(batch) == 3, f"{split}: {len(batch)} parts, expected images, tokens and details")
    images, tokens, details = batch
    check_images(images, facts, split)
    expect(tokens.dim() == 2 and len(tokens) == len(images), f"{split}: tokens {tuple(tokens.shape)}, expected (B, T)")
    expect(tokens.dtype == torch.int64, f"{split}: tokens are {tokens.dtype}, expected int64")
    words = len(facts["vocabulary"])
    right = int(tokens.min()) >= 0 and int(tokens.max()) < words
    expect(right, f"{split}: expected tokens from 0 to {words - 1}")
    _start_to_end(tokens, facts, split)
    expect(isinstance(details, list) and len(details) == len(images), f"{split}: expected a list of a dict per image")
    for one in details:
        found = one.get("references") if isinstance(one, dict) else None
        sentences = found if isinstance(found, list) else []
        expect(
            sentences and all(isinstance(one, str) for one in sentences),
            f"{split}: expected details with references, a list of sentences, not {str(one)[:60]}",
        )


def _start_to_end(tokens: Tensor, facts: Facts, split: str) -> None:
    """Every row: the start, tokens, the end once, and nothing but padding."""
    start, end, pad = facts["start_id"], facts["end_id"], facts["pad_id"]
    expect((tokens[:, 0] == start).all(), f"{split}: expected tokens that begin with start_id {start}")
    is_end = tokens == end
    expect(is_end.any(1).all(), f"{split}: expected tokens that end with end_id {end}")
    behind = torch.arange(tokens.shape[1], device=tokens.device) > is_end.int().argmax(1, keepdim=True)
    expect((tokens[behind] == pad).all(), f"{split}: expected nothing but pad_id {pad} behind the end")
    expect(pad == end or not (tokens[~behind] == pad).any(), f"{split}: pad_id {pad} within a caption")


def _captioned(index: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """An image and one of its two captions, of different lengths."""
    image, label = _image(index)
    sentences = [[NAMES[label], "image"], ["one", NAMES[label], "image"]]
    words = ["<start>", *sentences[index // len(COLOURS) % 2], "<end>"]
    references = [" ".join(sentence) for sentence in sentences]
    return image, torch.tensor([WORDS.index(word) for word in words]), {"references": references}


def captions(samples: list[Any], pad_id: int = PAD) -> tuple[Tensor, Tensor, list[dict[str, Any]]]:
    """A batch of images, their tokens and details.

    Args:
        samples: images (C, H, W), tokens (T,) of any length from start to end, and details.
        pad_id: what shorter captions are padded with.

    Returns:
        images (B, C, H, W), tokens (B, T), details as a list of B dictionaries
    """
    images, tokens, details = zip(*samples, strict=True)
    padded = torch.nn.utils.rnn.pad_sequence(list(tokens), batch_first=True, padding_value=pad_id)
    return torch.stack(images), padded, list(details)


# Images without labels, and tasks whose result is an image


def _unlabelled(batch: Any, facts: Facts, split: str) -> None:
    check_images(batch[0], facts, split)


def _requests(batch: Any, facts: Facts, split: str) -> None:
    asked, names = batch
    right = asked.shape in ((len(names), 3), (len(names), 7)) and asked.dtype == torch.int64
    expect(right, f"{split}: expected requests int64 (B, 3) or (B, 7)")


def _stylization(batch: Any, facts: Facts, split: str) -> None:
    contents, styles = batch
    check_images(contents, facts, split)
    check_images(styles, facts, split)
    expect(len(contents) == len(styles), f"{split}: {len(contents)} contents, {len(styles)} styles")


def _style_transfer(batch: Any, facts: Facts, split: str) -> None:
    content, styles = batch
    check_pixels(content, facts["in_channels"], split)
    expect(len(content) == facts["num_images"], f"{split}: {len(content)} pictures, num_images {facts['num_images']}")
    expect(list(content.shape[2:]) == facts["image_size"], f"{split}: contents {tuple(content.shape)} and image_size")
    for style in styles:
        check_pixels(style.image[None], facts["in_channels"], split)
        fits = style.mask is None or style.mask.shape == (1, *facts["image_size"])
        expect(fits, f"{split}: expected masks (1, H, W) of the content's size")
    total = sum(style.weight for style in styles)
    expect(abs(total - 1) < 1e-6, f"{split}: the styles' weights add up to {total:.4g}, expected 1")


def _texture(batch: Any, facts: Facts, split: str) -> None:
    images, names = batch
    for image in images:
        check_pixels(image[None], facts["in_channels"], split)
    counts = len(images), len(names), facts["num_images"]
    expect(len({*counts}) == 1, f"{split}: {counts[0]} textures, {counts[1]} names, num_images {counts[2]}")


def _pictures(batch: Any, facts: Facts, split: str) -> None:
    images, names = batch
    check_pixels(images, facts["in_channels"], split)
    counts = len(images), len(names), facts["num_images"]
    expect(len({*counts}) == 1, f"{split}: {counts[0]} pictures, {counts[1]} names, num_images {counts[2]}")
    expect(list(images.shape[2:]) == facts["image_size"], f"{split}: pictures {tuple(images.shape)} and image_size")


_IMAGES = ("in_channels", "image_size")
_CLASSES = ("num_classes", "class_names")
_PICTURE = (*_IMAGES, "num_images")

FORMS = (
    Form(
        "classification",
        "images (B, C, H, W), labels (B,) or, in training, soft (B, num_classes)",
        (*_CLASSES, *_IMAGES, "mean", "std", "mirror"),
        _classification,
        "classifier",
        _example_facts(),
        _image,
    ),
    Form(
        "detection",
        "list of images (C, H, W), list of {'boxes': (N, 4) as x1 y1 x2 y2 in pixels, 'labels': (N,)}",
        (*_CLASSES, "in_channels"),
        _detection,
        "detector",
        _list_facts(),
        _scene,
        lists,
        accepts=("instance_segmentation",),
    ),
    Form(
        "instance_segmentation",
        "as detection, with 'masks': (N, H, W) among the targets",
        (*_CLASSES, "in_channels"),
        _instance_segmentation,
        "instance_segmenter",
        _list_facts(),
        _scene,
        lists,
    ),
    Form(
        "semantic_segmentation",
        "images (B, C, H, W), masks (B, H, W) of classes",
        (*_CLASSES, *_IMAGES),
        _semantic_segmentation,
        "segmenter",
        _example_facts(),
        _halves,
    ),
    Form(
        "captioning",
        "images (B, C, H, W), tokens int64 (B, T) = start … end, padded; a list of dicts with 'references', all the "
        "sentences of an image",
        ("vocabulary", *TOKEN_IDS, *_IMAGES),
        _captioning,
        "captioner",
        Facts(
            vocabulary=WORDS,
            pad_id=PAD,
            start_id=START,
            end_id=END,
            unknown_id=WORDS.index("<unknown>"),
            in_channels=3,
            image_size=[SIDE, SIDE],
        ),
        _captioned,
        captions,
    ),
    Form(
        "images",
        "images (B, C, H, W), and whatever comes with them: for tasks that learn from images alone",
        _IMAGES,
        _unlabelled,
        "",
        _example_facts(),
        _image,
        accepts=("classification", "semantic_segmentation", "captioning"),
        loss_falls=False,
    ),
    Form(
        "requests",
        "for prediction alone: seed, number and class (-1 for any) of samples to generate, int64 (B, 3), and names; "
        "(B, 7) where they are to be interpolated or animated",
        (),
        _requests,
    ),
    Form("stylization", "contents (B, 3, H, W), styles (B, 3, H, W)", _IMAGES, _stylization, loss_falls=False),
    Form(
        "style_transfer",
        "contents (B, 3, H, W), styles as a list of image, weight and mask",
        _PICTURE,
        _style_transfer,
        repeats=True,
        loss_falls=False,
    ),
    Form(
        "texture",
        "textures as a list of images (3, h, w), their names",
        _PICTURE,
        _texture,
        repeats=True,
        loss_falls=False,
    ),
    Form(
        "pictures", "images (B, 3, H, W), their names", _PICTURE, _pictures, "pattern", repeats=True, loss_falls=False
    ),
)
