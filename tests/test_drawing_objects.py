"""Boxes and masks on pictures: colors fixed by class, texts inside the picture that avoid each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo import drawing_objects
from zoo.drawing import Boxes, class_color, text_color, to_picture
from zoo.drawing_objects import draw_boxes, draw_classes, draw_objects, legend


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Contrast ratio of WCAG 2.1, from 1 to 21."""

    def luminance(color: tuple[int, ...]) -> float:
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def boxes(*corners: tuple[float, float, float, float], scores: bool = False) -> Boxes:
    count = len(corners)
    return Boxes(
        torch.tensor(corners).reshape(-1, 4).float(),
        torch.arange(count),
        torch.linspace(0.9, 0.5, count) if scores else None,
    )


def test_colors_differ_and_texts_can_be_read_on_them() -> None:
    colors = [class_color(label) for label in range(100)]
    assert len(set(colors)) == 100
    assert class_color(7) == colors[7]
    assert min(contrast(color, text_color(color)) for color in colors) > 4.5
    near = [max(abs(a - b) for a, b in zip(colors[i], colors[j], strict=True)) for i in range(21) for j in range(i)]
    assert min(near) >= 20, "the first classes are told apart"


def test_boxes_lie_where_they_are() -> None:
    pixels = np.asarray(draw_objects(torch.zeros(3, 64, 64), boxes((16, 24, 48, 56)), side=320))
    assert pixels.shape == (320, 320, 3)
    assert tuple(pixels[200, 80]) == tuple(pixels[200, 240]) == tuple(pixels[280, 160]) == class_color(0)
    assert not pixels[130:270, 90:230].any(), "the inside stays"


@pytest.mark.parametrize(
    "corners", [(0, 0, 5, 5), (60, 0, 64, 4), (0, 60, 3, 64), (59, 59, 64, 64), (0, 0, 64, 64), (30, 30, 30, 30)]
)
def test_texts_stay_inside(corners: tuple[float, float, float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    write = drawing_objects._write
    monkeypatch.setattr(drawing_objects, "_write", lambda *a: taken.append(write(*a)) or taken[-1])
    draw_objects(torch.rand(1, 64, 64), boxes(corners, scores=True), ["a class with quite a long name, longer still"])
    ((left, top, right, bottom),) = taken
    assert left >= 0
    assert top >= 0
    assert right <= 320
    assert bottom <= 320


def test_texts_avoid_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[float, float, float, float]] = []
    write = drawing_objects._write
    monkeypatch.setattr(drawing_objects, "_write", lambda *a: taken.append(write(*a)) or taken[-1])
    same = (20.0, 20.0, 50.0, 50.0)
    draw_objects(torch.rand(3, 64, 64), boxes(same, same, same, same, scores=True), ["one", "two", "three", "four"])
    assert len(taken) == 4
    assert not any(drawing_objects._overlap(taken[i], taken[j]) for i in range(4) for j in range(i))


def test_masks_tint_and_outline_their_objects_only() -> None:
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 10:30, 10:30] = True
    drawn = draw_objects(torch.zeros(3, 64, 64), boxes((0, 40, 9, 60)), masks=masks, side=64)
    pixels = np.asarray(drawn).astype(int)
    np.testing.assert_allclose(pixels[20, 20], np.array(class_color(0)) / 2, atol=1)
    assert tuple(pixels[10, 20]) == class_color(0)
    assert not pixels[5, 20].any()


def test_no_object_leaves_the_image() -> None:
    image = torch.rand(3, 40, 60)
    none = Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert draw_objects(image, none, masks=torch.zeros(0, 40, 60)) == to_picture(image, drawing_objects.SIDE)


def test_boxes_of_no_area_or_turned_are_drawn() -> None:
    picture = to_picture(torch.zeros(3, 64, 64), side=64)
    draw_boxes(picture, boxes((50, 50, 50, 50), (40, 40, 20, 20)), ["a", "b"])
    drawn = np.asarray(picture)
    assert tuple(drawn[50, 50]) == class_color(0)
    assert (drawn == class_color(1)).all(-1).any()


def test_classes_of_pixels() -> None:
    classes = torch.zeros(16, 16, dtype=torch.int64)
    classes[:, 8:], classes[:4] = 3, 255
    image = torch.full((3, 16, 16), 0.2)
    pixels = np.asarray(draw_classes(image, classes, background=0, side=16)).astype(int)
    assert (pixels[:4] == 51).all(), "pixels without a class stay"
    assert (pixels[4:, :8] == 51).all(), "so does the background"
    np.testing.assert_allclose(pixels[8, 12], (np.array(class_color(3)) + 51) / 2, atol=1)


def test_a_legend_fits_its_width() -> None:
    names = [f"class number {i}" * (1 + i % 3) for i in range(30)]
    made = legend(range(30), names, 200)
    assert made.width == 200
    pixels = np.asarray(made)
    assert all((pixels == class_color(i)).all(-1).any() for i in range(30)), "each color is there"
