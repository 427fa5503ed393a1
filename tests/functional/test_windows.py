"""Overlapping windows and mirrored borders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.functional.windows import mirrored, over_windows, window_starts


def test_mirroring_is_numpys() -> None:
    images = torch.rand(2, 3, 5, 7)
    for vertical, horizontal in (((2, 3), (1, 0)), ((0, 0), (4, 6)), ((13, 21), (30, 2))):
        expected = np.pad(images.numpy(), ((0, 0), (0, 0), vertical, horizontal), mode="reflect")
        assert np.array_equal(mirrored(images, vertical, horizontal).numpy(), expected)
    assert torch.equal(mirrored(images[..., :1], (0, 0), (2, 2)), images[..., :1].expand(-1, -1, -1, 5))


@pytest.mark.parametrize(("side", "window", "overlap"), [(100, 32, 0.5), (33, 32, 0.0), (64, 32, 0.0), (97, 10, 0.9)])
def test_windows_cover_a_side_evenly_and_overlap(side: int, window: int, overlap: float) -> None:
    starts = window_starts(side, window, overlap)
    steps = np.diff(starts)
    assert starts[0] == 0
    assert starts[-1] == side - window
    assert steps.min() > 0
    assert steps.max() - steps.min() <= 1
    assert steps.max() <= max(1, window * (1 - overlap))
    assert window_starts(32, 32, overlap) == [0]


@pytest.mark.parametrize("size", [(8, 8), (5, 40), (16, 24), (64, 64)])
def test_windows_of_a_pointwise_network_are_the_whole(size: tuple[int, int]) -> None:
    """For windows that divide the image, that do not, and that are larger in one direction or in both."""
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    shapes = []

    def call(windows: Tensor) -> Tensor:
        shapes.append(tuple(windows.shape[1:]))
        return torch.stack([windows.sum(1), windows[:, 0] ** 2], 1)

    torch.testing.assert_close(over_windows(images, size, 0.3, call), call(images))
    assert set(shapes[:-1]) == {(3, *size)}


def test_the_middle_of_a_window_counts_more_than_its_border() -> None:
    """Two windows of four pixels on six, that overlap by two: weights 1 2 2 1 each."""
    images, calls = torch.zeros(1, 1, 1, 6), iter([0.0, 1.0])

    def call(windows: Tensor) -> Tensor:
        return torch.stack([torch.full((1, 1, 4), next(calls)) for _ in windows])

    found = over_windows(images, (1, 4), 0.5, call)[0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0, 0, 1 / 3, 2 / 3, 1, 1]))


def test_an_image_smaller_than_the_window_sees_its_mirror_image() -> None:
    images = torch.rand(1, 2, 5, 6)
    expected = F.avg_pool2d(F.pad(images, (0, 2, 0, 3), mode="reflect"), 3, 1, 1)[..., :5, :6]
    found = over_windows(images, (8, 8), 0.5, lambda windows: F.avg_pool2d(windows, 3, 1, 1))
    torch.testing.assert_close(found, expected)
