"""Detections merged over views: a detector that finds bright rectangles exactly must find them in every view."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from zoo.functional.detection_views import Detections, DetectionViews, windows


def find(images: list[Tensor]) -> list[Detections]:
    """Bright rectangles as objects of class 0 or, if they are less bright, 1; the larger, the more confident."""
    return [_find(image) for image in images]


def _find(image: Tensor) -> Detections:
    places, count = ndimage.label(image[0].numpy() > 0.5)
    boxes = [[s[1].start, s[0].start, s[1].stop, s[0].stop] for s in ndimage.find_objects(places)]
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    width, height = (found[:, 2:] - found[:, :2]).unbind(1)
    masks = torch.from_numpy(np.stack([places == i + 1 for i in range(count)])) if count else torch.zeros(0, 1, 1)
    return {
        "boxes": found,
        "labels": torch.tensor([int(image[0][s].max() < 0.9) for s in ndimage.find_objects(places)], dtype=torch.int64),
        "scores": (width * height) / image[0].numel(),
        "masks": masks.float() if count else torch.zeros(0, *image.shape[1:]),
    }


def picture(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (60, 100)) -> Tensor:
    image = torch.zeros(1, *size)
    for index, (left, top, right, bottom) in enumerate(boxes):
        image[:, top:bottom, left:right] = 1 - 0.2 * (index % 2)
    return image


BOXES = [(4, 6, 20, 30), (40, 10, 70, 24), (80, 40, 98, 58)]


def by_place(found: Detections) -> Tensor:
    return found["boxes"][found["boxes"][:, 0].argsort()]


@pytest.mark.parametrize(
    "views",
    [
        DetectionViews(flip=True),
        DetectionViews(scales=(1.0, 2.0)),
        DetectionViews(scales=(2.0,), flip=True),
        DetectionViews(window=48, overlap=0.5),
        DetectionViews(window=40, flip=True, scales=(1.0, 2.0)),
    ],
)
def test_every_view_gives_the_same_objects_once(views: DetectionViews) -> None:
    (found,) = views(find, [picture(*BOXES)])
    torch.testing.assert_close(by_place(found), torch.tensor(BOXES).float(), atol=1.0, rtol=0)
    assert sorted(found["labels"].tolist()) == [0, 0, 1]
    assert found["masks"].shape == (3, 60, 100)
    for box, mask in zip(found["boxes"].round().int().tolist(), found["masks"], strict=True):
        inside = picture(tuple(box))[0].bool()
        assert mask[inside].mean() > 0.9
        assert mask[~inside].mean() < 0.02


def test_a_view_alone_is_in_the_pictures_own_pixels() -> None:
    one = DetectionViews(scales=(3.0,))(find, [picture(*BOXES)])[0]
    torch.testing.assert_close(by_place(one), torch.tensor(BOXES).float(), atol=0.5, rtol=0)


def test_objects_that_a_window_cuts_off_are_not_reported_in_parts() -> None:
    image = picture((10, 10, 90, 50))  # larger than a window
    (found,) = DetectionViews(window=32)(find, [image])
    assert found["boxes"].tolist() == [[10.0, 10.0, 90.0, 50.0]]
    small = picture((30, 5, 36, 11), (31, 40, 37, 46))  # at the border of the first window
    (found,) = DetectionViews(window=32, overlap=0.25)(find, [small])
    assert by_place(found).tolist() == [[30.0, 5.0, 36.0, 11.0], [31.0, 40.0, 37.0, 46.0]]


def test_what_only_a_window_sees_is_kept() -> None:
    def near(images: list[Tensor]) -> list[Detections]:  # sees nothing in pictures wider than 64
        found = zip(find(images), images, strict=True)
        return [one if i.shape[-1] <= 64 else {k: v[:0] for k, v in one.items()} for one, i in found]

    (found,) = DetectionViews(window=64)(near, [picture(*BOXES)])
    assert len(found["boxes"]) == 3
    (whole,) = DetectionViews()(near, [picture(*BOXES)])
    assert len(whole["boxes"]) == 0


def test_the_most_confident_are_kept() -> None:
    for views in (DetectionViews(most=2), DetectionViews(most=2, flip=True)):
        (found,) = views(find, [picture(*BOXES)])
        assert len(found["boxes"]) == 2
        assert found["scores"].tolist() == sorted(find([picture(*BOXES)])[0]["scores"].tolist())[:0:-1]


def test_pictures_of_several_sizes_and_none_with_objects() -> None:
    views = DetectionViews(flip=True, window=48)
    found = views(find, [picture(size=(30, 40)), picture(*BOXES), picture(size=(90, 50))])
    assert [len(one["boxes"]) for one in found] == [0, 3, 0]


def test_a_picture_within_the_window_is_seen_as_without_larger_ones_in_its_batch() -> None:
    def twice(images: list[Tensor]) -> list[Detections]:
        return [{name: torch.cat([rows, rows]) for name, rows in one.items()} for one in find(images)]

    views, small, large = DetectionViews(window=48), picture((4, 6, 20, 30), size=(40, 48)), picture(*BOXES)
    alone, beside = views(twice, [small])[0], views(twice, [small, large])[0]
    assert len(alone["boxes"]) == 2
    assert torch.equal(alone["boxes"], beside["boxes"])


@pytest.mark.parametrize("size", [(10, 10), (64, 64), (65, 64), (200, 333), (1000, 70)])
def test_windows_cover_the_picture_with_overlap(size: tuple[int, int]) -> None:
    seen = torch.zeros(size, dtype=torch.int64)
    for left, top in windows(size, 64, 0.2):
        assert left >= 0
        assert top >= 0
        assert left + 64 <= max(64, size[1])
        assert top + 64 <= max(64, size[0])
        seen[top : top + 64, left : left + 64] += 1
    assert seen.min() >= 1
    if size[1] > 64:
        starts = sorted({left for left, _ in windows(size, 64, 0.2)})
        assert max(b - a for a, b in pairwise(starts)) <= 64 * 0.8 + 1
