"""Losses of pixels against torch, torchvision and loops in float64, and means over scales and flips."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from zoo.functional.segmentation import cross_entropy, dice, over_views, resized


def batch(classes: int = 4) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    logits = 3 * torch.randn(3, classes, 5, 7, dtype=torch.float64)
    masks = torch.randint(0, classes - 1, (3, 5, 7))  # the last class is absent
    masks[torch.rand(3, 5, 7) < 0.3] = 255
    masks[2] = 255
    return logits, masks


@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torchs(weighted: bool) -> None:
    logits, masks = batch()
    weight = torch.tensor([0.5, 2.0, 1.0, 9.0]) if weighted else None
    term = cross_entropy(logits, masks, weight)
    double = None if weight is None else weight.double()
    torch.testing.assert_close(term.mean, F.cross_entropy(logits, masks, double, ignore_index=255))
    for i in (0, 1):
        torch.testing.assert_close(term.means[i], F.cross_entropy(logits[i : i + 1], masks[i : i + 1], double,
                                                                  ignore_index=255))  # fmt: skip
    assert term.means[2] == 0
    torch.testing.assert_close(cross_entropy(logits.log_softmax(1), masks, weight).mean, term.mean)


def test_focal_loss_is_the_papers() -> None:
    """Equation 5, pixel by pixel; for two classes, torchvision's of the sigmoid of their difference."""
    logits, masks = batch()
    weight = torch.tensor([0.5, 2.0, 1.0, 9.0])
    term, known = cross_entropy(logits, masks, weight, gamma=2.0), masks != 255
    p = logits.softmax(1).movedim(1, 3)[known].gather(1, masks[known][:, None])[:, 0]
    alpha = weight.double()[masks[known]]
    torch.testing.assert_close(term.mean, (-alpha * (1 - p) ** 2 * p.log()).sum() / alpha.sum())
    torch.testing.assert_close(cross_entropy(logits, masks, gamma=0.0).mean, cross_entropy(logits, masks).mean)
    two, truth = logits[:2, :2], (masks[:2] == 1).long()
    expected = sigmoid_focal_loss(two[:, 1] - two[:, 0], truth.double(), alpha=-1, gamma=1.5, reduction="mean")
    torch.testing.assert_close(cross_entropy(two, truth, gamma=1.5).mean, expected)


def test_dice_by_a_loop() -> None:
    logits, masks = batch()
    shares, losses = logits.softmax(1), []
    for image in range(3):
        known = masks[image] != 255
        for label in masks[image][known].unique().tolist():
            p, g = shares[image, label][known], (masks[image][known] == label).double()
            losses.append(1 - 2 * (p * g).sum() / (p.sum() + g.sum()))
    term = dice(logits, masks)
    torch.testing.assert_close(term.mean, torch.stack(losses).mean())
    assert term.divisors.tolist() == [3, 3, 0]
    right = 100 * F.one_hot(masks.clamp(max=3), 4).movedim(3, 1).double()
    assert float(dice(right, masks).mean) < 1e-9


def test_nothing_known_has_no_loss_and_no_gradient() -> None:
    masks = torch.full((2, 3, 3), 255)
    for loss in (cross_entropy, dice):
        logits = torch.randn(2, 4, 3, 3, requires_grad=True)
        term = loss(logits, masks)
        term.mean.backward()
        assert float(term.mean) == 0
        assert logits.grad is not None
        assert not logits.grad.any()


def test_ignored_pixels_have_no_gradient() -> None:
    logits, masks = batch()
    for loss in (cross_entropy, dice, lambda a, b: cross_entropy(a, b, gamma=2.0)):
        given = logits.clone().requires_grad_()
        loss(given, masks).mean.backward()
        assert given.grad is not None
        assert not given.grad.movedim(1, 3)[masks == 255].any()
        assert given.grad.movedim(1, 3)[masks != 255].any()
        assert given.grad.isfinite().all()


def test_means_do_not_depend_on_how_images_are_batched() -> None:
    logits, masks = batch()
    for loss in (cross_entropy, dice):
        whole, parts = loss(logits, masks), [loss(logits[i : i + 1], masks[i : i + 1]) for i in range(3)]
        together = sum(p.sums.sum() for p in parts) / sum(p.divisors.sum() for p in parts)
        torch.testing.assert_close(whole.mean, together)


def test_views_are_of_the_image_scaled_and_flipped() -> None:
    images, seen = torch.rand(2, 3, 8, 12, dtype=torch.float64), []

    def call(view: Tensor) -> Tensor:
        seen.append(view)
        return torch.stack([view[:, 0], torch.linspace(0, 1, view.shape[3], dtype=view.dtype).expand_as(view[:, 0])], 1)

    found = over_views(images, [1.0, 0.5], True, call)
    half = F.interpolate(images, (4, 6), mode="bilinear", antialias=True)
    assert [tuple(v.shape[2:]) for v in seen] == [(8, 12), (8, 12), (4, 6), (4, 6)]
    assert torch.equal(seen[1], images.flip(-1))
    torch.testing.assert_close(seen[3], half.flip(-1))
    # The first map moves with the image, so that flips change nothing; the second does not: its mean is symmetric.
    torch.testing.assert_close(found[:, 0], (images[:, 0] + resized(half[:, :1], (8, 12))[:, 0]) / 2)
    torch.testing.assert_close(found[:, 1], torch.full_like(found[:, 1], 0.5))
    assert torch.equal(over_views(images, [1.0], False, call)[:, 0], images[:, 0])
