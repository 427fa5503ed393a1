"""Pictures: enlarged exactly, texts that fit and can be read, matrices of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.drawing import (
    PLAIN,
    RIGHT,
    WHITE,
    WRONG,
    captioned,
    confusion_picture,
    fit_text,
    font,
    grid,
    most_confused,
    short_count,
    to_picture,
    wrap_text,
)


def luminance(color: tuple[int, int, int]) -> float:
    """Relative luminance, WCAG 2.1."""
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_picture_is_the_image_by_whole_pixels() -> None:
    image = torch.rand(3, 5, 7)
    picture = to_picture(image, side=20)
    assert picture.size == (21, 15)
    found = torch.from_numpy(np.array(picture))[1::3, 1::3].permute(2, 0, 1)
    assert torch.equal(found, (image * 255).round().to(torch.uint8))


@pytest.mark.parametrize("channels", [1, 2])
def test_few_channels_are_grey(channels: int) -> None:
    pixels = np.array(to_picture(torch.rand(channels, 4, 4), side=4))
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_values_out_of_range_and_other_types() -> None:
    pixels = np.array(to_picture(torch.tensor([[[-1.0, 2.0]]], dtype=torch.bfloat16), side=1))
    assert pixels[0, :, 0].tolist() == [0, 255]


def test_large_images_keep_their_size() -> None:
    assert to_picture(torch.rand(3, 300, 200)).size == (200, 300)


@pytest.mark.parametrize(
    "text", ["7 · 98%", "a rather long name of a class", "kitten " * 40, "Schäferhund Ωμέγα Щука", ""]
)
@pytest.mark.parametrize("width", [60, 190])
def test_texts_fit(text: str, width: int) -> None:
    found, face = fit_text(text, width)
    assert face.getlength(found) <= width
    words = " ".join(text.split())
    if found != words:
        start, end = found.split("…")
        assert words.startswith(start)
        assert words.endswith(end)
        assert font(11).getlength(words) > width, "shortened although it would fit"


def test_letters_are_there() -> None:
    """A letter that the font lacks is drawn as the same box as any other that it lacks."""
    missing = bytes(font(15).getmask("\U0010ffff"))
    for letter in "äßØčłΩЩé·…":
        assert bytes(font(15).getmask(letter)) != missing, letter


def test_caption_is_below_the_image_and_white() -> None:
    picture = Image.new("RGB", (100, 80), (1, 2, 3))
    made = captioned(picture, ["one", "two"], RIGHT)
    assert np.array_equal(np.array(made)[:80], np.array(picture))
    strip = np.array(made)[80:]
    assert strip.shape == (46, 100, 3)
    colors = {tuple(int(v) for v in c) for c in strip.reshape(-1, 3)}
    assert RIGHT in colors
    assert max(colors) == WHITE


def test_wrapped_text_fits_and_leaves_out_nothing() -> None:
    text = "a dog on a beach catches a red frisbee while two children watch"
    lines = wrap_text(text, 120)
    assert " ".join(lines) == text
    assert len(lines) > 3
    assert max(font(15).getlength(line) for line in lines) <= 120
    long = wrap_text("\u4e00\u53ea\u72d7" * 20 + " end", 60)  # Chinese has no spaces
    assert "".join(long) == "\u4e00\u53ea\u72d7" * 20 + "end"
    assert max(font(15).getlength(line) for line in long) <= 60
    assert wrap_text(" ", 60) == []


@pytest.mark.parametrize("color", [RIGHT, WRONG, PLAIN])
def test_captions_can_be_read(color: tuple[int, int, int]) -> None:
    """WCAG 2.1 asks for a contrast of 4.5."""
    assert (luminance(WHITE) + 0.05) / (luminance(color) + 0.05) > 4.5


def test_grid_places_each_once() -> None:
    pictures = [Image.new("RGB", (10 + k, 20), (k, 0, 0)) for k in range(5)]
    made = np.array(grid(pictures, gap=2))
    assert made.shape == (2 * 22 + 2, 3 * 16 + 2, 3)
    for k, picture in enumerate(pictures):
        inside = (made == np.array([k, 0, 0])).all(-1)
        assert inside.sum() == picture.width * 20


def test_grid_of_one() -> None:
    assert grid([Image.new("RGB", (10, 10))], columns=4).size == (22, 22)


@pytest.mark.parametrize("classes", [2, 10, 31, 100, 1000])
def test_confusion_at_every_size(classes: int) -> None:
    random = torch.Generator().manual_seed(0)
    matrix = torch.randint(0, 2, (classes, classes), generator=random) + 50 * torch.eye(classes, dtype=torch.int64)
    picture = confusion_picture(matrix, [f"class number {k}" for k in range(classes)])
    assert min(picture.size) >= 300
    assert max(picture.size) <= 1500


def test_confusion_shows_a_row_as_shares() -> None:
    """The same matrix with one class ten times as frequent is drawn alike, and a mistake moves with its place."""

    def cell_of(matrix: torch.Tensor) -> np.ndarray:
        return np.array(confusion_picture(matrix, [""] * 40)).astype(int)

    one = torch.eye(40, dtype=torch.int64) * 10
    scaled = one.clone()
    scaled[3, 3] = 100
    assert np.array_equal(cell_of(one), cell_of(scaled))
    wrong = one.clone()
    wrong[0, 39] = 10  # first true class, last predicted one: upper right
    changed = np.argwhere((cell_of(one) != cell_of(wrong)).any(-1))
    rows, columns = changed.mean(0) / cell_of(one).shape[:2]
    assert rows < 0.3
    assert changed[:, 1].max() / cell_of(one).shape[1] > 0.7
    assert columns > 0.2


def test_confusion_of_an_absent_class() -> None:
    """A row without samples is drawn as one without hits: nothing is divided by its sum."""
    matrix = torch.tensor([[2, 0, 0], [0, 0, 0], [0, 0, 3]])
    absent = np.array(confusion_picture(matrix, ["a", "b", "c"]))
    there = np.array(confusion_picture(matrix + torch.diag(torch.tensor([0, 4, 0])), ["a", "b", "c"]))
    changed = np.argwhere((absent != there).any(-1)) / absent.shape[:2]
    assert changed.min() > 0.2  # the middle cell alone
    assert changed.max() < 0.8


def test_the_most_confused_of_many_classes_are_drawn_with_their_names(monkeypatch) -> None:
    matrix = 50 * torch.eye(300, dtype=torch.int64)
    matrix[7, 250], matrix[250, 7], matrix[3, 4] = 5, 6, 9
    assert most_confused(matrix, 4) == most_confused(matrix.to_sparse(), 4) == [3, 4, 7, 250]
    assert most_confused(matrix, 3) == [3, 7, 250]  # 11 in both directions, then the class with the most images
    named = []
    monkeypatch.setattr("zoo.drawing._name_axes", lambda axes, names: named.extend(names))
    dense, sparse = (np.array(confusion_picture(m, [str(k) for k in range(300)])) for m in (matrix, matrix.to_sparse()))
    assert (dense == sparse).all()
    assert {"3", "4", "7", "250"} <= set(named)
    assert len(named) == 2 * 30


def test_counts_of_pixels_fit_into_a_cell() -> None:
    assert [short_count(n) for n in (0, 99_999, 100_000, 6_553_600, 99_999_999, 100_000_000, 10**11)] == [
        "0", "99999", "100k", "6553k", "99999k", "100M", "100G",
    ]  # fmt: skip
