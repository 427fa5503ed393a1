"""What the tests of detectors share: images, targets, and the comparison with a detector of torchvision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

SIZES = ((96, 128), (80, 64))  # height and width; resized to other sizes, padded to one
OBJECTS = ((3, 1), (0, 2), (0, 0))  # in each of both images


def pictures(sizes: Sequence[tuple[int, int]] = SIZES, channels: int = 3) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(channels, *size, generator=random) for size in sizes]


def target(count: int, size: tuple[int, int], classes: int, seed: int = 0) -> dict[str, Tensor]:
    """Objects of random boxes, each a filled rectangle."""
    random, (height, width) = torch.Generator().manual_seed(seed), size
    corner = torch.rand(count, 2, generator=random) * torch.tensor([width / 2, height / 2])
    side = 8 + torch.rand(count, 2, generator=random) * torch.tensor([width / 2 - 8, height / 2 - 8])
    boxes = torch.cat([corner, corner + side], 1)
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    labels = torch.randint(0, classes, (count,), generator=random)
    return {"boxes": boxes, "labels": labels, "masks": masks}


def targets(counts: Sequence[int], classes: int) -> list[dict[str, Tensor]]:
    return [target(n, size, classes, seed=i) for i, (n, size) in enumerate(zip(counts, SIZES, strict=True))]


def same_as_torchvision(ours: nn.Module, theirs: nn.Module, background: int, classes: int) -> list[dict[str, Tensor]]:
    """Assert that both give the same losses and detections with the same weights; our detections.

    Args:
        ours: its ``network`` takes the other's weights.
        theirs: normalises by mean 0 and std 1.
        background: of theirs, before the data's classes.
        classes: of the data.
    """
    enliven(theirs)
    ours.network.load_state_dict(theirs.state_dict())
    images = pictures()
    for counts in OBJECTS:
        given = targets(counts, classes)
        shifted = [{**one, "labels": one["labels"] + background, "masks": one["masks"].byte()} for one in given]
        losses, expected = seeded(lambda g=given: ours(images, g)), seeded(lambda s=shifted: theirs(images, s))
        assert losses.keys() == expected.keys()
        assert all(bool(torch.isfinite(loss)) for loss in losses.values())
        torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        found, wanted = ours.eval()(images), theirs.eval()(images)
    for one, other in zip(found, wanted, strict=True):
        assert len(one["scores"]) > 5
        known = {**other, "labels": other["labels"] - background}
        if "masks" in other:
            known["masks"] = other["masks"][:, 0]
        torch.testing.assert_close(one, known, atol=1e-5, rtol=1e-5)
    return found


def seeded(call: Callable[[], Any]) -> Any:
    torch.manual_seed(3)
    return call()


def enliven(network: nn.Module) -> None:
    """Random values instead of the heads' small initial ones, and statistics unlike a new network's."""
    torch.manual_seed(0)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.Conv2d | nn.Linear) and "backbone" not in name:
            nn.init.kaiming_uniform_(module.weight)
