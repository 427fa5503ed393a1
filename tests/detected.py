"""Made-up objects and detections, for the tests of metrics."""

import torch
from torch import Tensor

K = 4
Lists = tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]


def _filled(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Ellipses in the boxes, bool (N, H, W)."""
    y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in size), indexing="ij")
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    far = [((p - centre[:, i, None, None]) / half[:, i, None, None].clamp(min=0.5)) ** 2 for i, p in enumerate((x, y))]
    return far[0] + far[1] <= 1


def _boxes(count: int, generator: torch.Generator) -> Tensor:
    corners = 120 * torch.rand(count, 2, generator=generator)
    return torch.cat([corners, corners + 4 + 120 * torch.rand(count, 2, generator=generator) ** 2], 1)


def scenes(images: int = 12, found: int = 40, masks: bool = False, seed: int = 0, crowds: float = 0.2) -> Lists:
    """Objects of all sizes, crowds among them, and detections near them and anywhere; scores are tied.

    The third class is in no image, the last one is never detected; some images have no objects, some no detections.
    """
    generator = torch.Generator().manual_seed(seed)
    detections, targets = [], []
    for i in range(images):
        truth = _boxes(0 if i % 5 == 3 else 1 + i % 7, generator)
        labels = torch.tensor([0, 1, 3])[torch.randint(0, 3, (len(truth),), generator=generator)]
        near = truth.repeat(3, 1) + 2 * torch.randn(3 * len(truth), 4, generator=generator)
        near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 1)
        boxes = torch.cat([near, _boxes(found, generator)]) if i % 6 != 4 else truth[:0]
        guesses = torch.cat([labels.repeat(3), torch.randint(0, 3, (len(boxes),), generator=generator)])[: len(boxes)]
        scores = torch.rand(len(boxes), generator=generator) * torch.where(torch.arange(len(boxes)) < len(near), 1, 0.6)
        scores = (20 * scores).round() / 20
        crowd = torch.rand(len(truth), generator=generator) < crowds
        target = {"boxes": truth, "labels": labels, "iscrowd": crowd}
        if i % 2:
            target["area"] = (truth[:, 2:] - truth[:, :2]).prod(1) * 0.7
        detection = {"boxes": boxes, "labels": guesses.clamp(max=2), "scores": scores}
        if masks:
            target["masks"] = _filled(truth, (250, 260))
            detection["masks"] = _filled(boxes, (250, 260)).float() * 0.9
        targets.append(target)
        detections.append(detection)
    return detections, targets
