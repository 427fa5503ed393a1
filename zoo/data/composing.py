"""Scenes composed of handwritten digits and plain shapes on photographs of textures, for tasks that need more than a
class.

A scene is a pure function of a generator, of the digits and of the options. Every object in it can be seen: its colour
differs from what is around it, and enough of it stays uncovered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from zoo.errors import UserError

DIGITS = tuple(str(digit) for digit in range(10))
SHAPES = ("circle", "square", "triangle")
CLASSES = (*DIGITS, *SHAPES)
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (38, 84, 200),
    "yellow": (244, 208, 63),
    "purple": (136, 57, 180),
    "cyan": (72, 202, 208),
    "orange": (240, 130, 40),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
TEXTURES = ("brick", "grass", "gravel")  # of scikit-image, 512 pixels wide and high, grey
FURTHEST = 255 * 3**0.5  # distance of black and white
DIFFERENT = 0.9  # share of the pixels around an object whose colour must differ from its own
TRIES = 12  # places and colours that are tried for an object before the scene goes without it
MARGIN = 2  # pixels around an object that count as near it
LOOKED_AT = 250  # pixels around an object whose colours are compared, at most
NOISE = 7  # largest change of a pixel by noise, in bytes

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Difficulty:
    """How a scene is composed.

    Args:
        size: height and width in pixels.
        objects: least and largest number of objects; a scene has fewer where no more can be placed visibly.
        scale: least and largest longer side of an object, relative to the scene's.
        overlap: largest share of an object that others may cover.
        contrast: least distance of an object's colour from those around it, relative to that of black and white.

    Raises:
        UserError: a value is out of its range.
    """

    size: int = 128
    objects: tuple[int, int] = (1, 5)
    scale: tuple[float, float] = (0.18, 0.4)
    overlap: float = 0.4
    contrast: float = 0.25

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UserError(f"image_size must be at least 32, not {self.size}")
        if not 0 <= self.objects[0] <= self.objects[1]:
            raise UserError(f"objects must be a least and a largest number from 0 on, not {list(self.objects)}")
        if not 8 / self.size <= self.scale[0] <= self.scale[1] <= 0.9:
            raise UserError(
                f"scale must be a least and a largest share of the side, from {8 / self.size:.3g} (8 pixels) to 0.9, "
                f"not {list(self.scale)}"
            )
        for name, most in (("overlap", 0.9), ("contrast", 0.4)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name} must be from 0 to {most}, not {getattr(self, name)}")


class SceneObject(NamedTuple):
    """An object of a scene.

    Args:
        label: index among ``CLASSES``.
        colour: its name.
        mask: its visible pixels, (H, W).
        box: around these: x1, y1, x2, y2 in pixels, the right and lower ends exclusive.
        scale: its longer side as drawn, relative to the scene's.
    """

    label: int
    colour: str
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    scale: float


class Scene(NamedTuple):
    """A composed picture.

    Args:
        image: (H, W, 3), bytes.
        objects: from the back to the front.
    """

    image: NDArray[np.uint8]
    objects: list[SceneObject]


class _Stamp(NamedTuple):
    """An object yet to be placed: its class, its opacity (h, w) in [0, 1], and the longer side that was wanted."""

    label: int
    opacity: Pixels
    scale: float


@cache
def textures() -> list[Pixels]:
    """The photographs of textures, grey, in [0, 1], (512, 512)."""
    from zoo.data.art.pictures import picture_file

    pictures = (Image.open(picture_file(name)).convert("L") for name in TEXTURES)
    return [(np.asarray(picture) / 255).astype(np.float32) for picture in pictures]


class Composer:
    """Composes scenes of some digits.

    Args:
        digits: (N, 28, 28), bytes, white on black.
        labels: of the digits, (N,).
        difficulty: how scenes are composed.
    """

    def __init__(self, digits: NDArray[np.uint8], labels: NDArray[np.int64], difficulty: Difficulty) -> None:
        self.digits, self.difficulty = digits, difficulty
        self._of_class = [np.flatnonzero(labels == digit) for digit in range(len(DIGITS))]
        self._names = [*COLOURS]
        self._palette = np.asarray([*COLOURS.values()], np.float32)

    def __call__(self, generator: Generator) -> Scene:
        """A scene."""
        size, (least, most) = self.difficulty.size, self.difficulty.objects
        canvas = _background(generator, size)
        owners = np.zeros((size, size), np.int16)  # 0 where no object is
        placed: list[tuple[_Stamp, int]] = []
        areas, visible = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for _ in range(generator.integers(least, most + 1)):
            found = self._place(generator, canvas, owners, areas, visible, [colour for _, colour in placed])
            if found is None:
                continue
            placed.append(found)
            visible = np.bincount(owners.ravel(), minlength=len(placed) + 1)[1:]
            areas = np.append(areas, visible[-1])
        noise = generator.random((size, size, 1), np.float32)
        image = np.clip(canvas + NOISE * (2 * noise - 1), 0, 255).astype(np.uint8)
        return Scene(image, [self._described(owners == i, *one) for i, one in enumerate(placed, 1)])

    def _place(
        self,
        generator: Generator,
        canvas: Pixels,
        owners: NDArray[np.int16],
        areas: NDArray[np.int64],
        visible: NDArray[np.int64],
        colours: Sequence[int],
    ) -> tuple[_Stamp, int] | None:
        """Paint one more object at a place where it and all others can be seen; None if none was found."""
        stamp = self._stamp(generator)
        height, width = stamp.opacity.shape
        solid = stamp.opacity > 0.5
        for _ in range(TRIES):
            top = int(generator.integers(0, len(canvas) - height + 1))
            left = int(generator.integers(0, len(canvas) - width + 1))
            inner = slice(top, top + height), slice(left, left + width)
            near = _near(inner, len(canvas))
            covered = np.bincount(owners[inner][solid], minlength=len(areas) + 1)[1:]
            if (visible - covered < (1 - self.difficulty.overlap) * areas).any():
                continue
            taken = {colours[owner - 1] for owner in np.unique(owners[near]) if owner}
            colour = self._colour(generator, canvas[near].reshape(-1, 3), taken)
            if colour is None:
                continue
            shade = self._palette[colour] + generator.normal(0, 6, 3).astype(np.float32)
            opacity = stamp.opacity[..., None]
            canvas[inner] += opacity * (shade - canvas[inner])
            owners[inner][solid] = len(areas) + 1
            return stamp, colour
        return None

    def _colour(self, generator: Generator, around: Pixels, taken: set[int]) -> int | None:
        """A colour that differs from those around and is none of an object that is near."""
        around = around[:: 1 + len(around) // LOOKED_AT]
        distances = np.sqrt(((around[:, None] - self._palette) ** 2).sum(-1))
        differs = (distances > self.difficulty.contrast * FURTHEST).mean(0) >= DIFFERENT
        fitting = [i for i in np.flatnonzero(differs).tolist() if i not in taken]
        return fitting[generator.integers(len(fitting))] if fitting else None

    def _stamp(self, generator: Generator) -> _Stamp:
        label = int(generator.integers(len(CLASSES)))
        scale = float(generator.uniform(*self.difficulty.scale))
        side = max(8, round(scale * self.difficulty.size))
        if label >= len(DIGITS):
            return _Stamp(label, _shape(CLASSES[label], side, generator.uniform(0, 2 * np.pi)), scale)
        members = self._of_class[label]
        digit = self.digits[members[generator.integers(len(members))]]
        return _Stamp(label, _digit(digit, side, generator.uniform(-20, 20)), scale)

    def _described(self, mask: NDArray[np.bool_], stamp: _Stamp, colour: int) -> SceneObject:
        return SceneObject(stamp.label, self._names[colour], mask, box_of(mask), stamp.scale)


def _near(inner: tuple[slice, slice], size: int) -> tuple[slice, slice]:
    rows, columns = (slice(max(0, s.start - MARGIN), min(size, s.stop + MARGIN)) for s in inner)
    return rows, columns


def _background(generator: Generator, size: int) -> Pixels:
    """A cut of a texture, at full, half or a third of its resolution, in a pale or dark colour; (H, W, 3)."""
    texture = textures()[generator.integers(len(TEXTURES))]
    step = int(generator.integers(1, max(1, min(3, len(texture) // size)) + 1))
    if len(texture) < size * step:
        texture = np.tile(texture, (-(-size // len(texture)) + 1,) * 2)
    top, left = generator.integers(0, len(texture) - size * step + 1, 2)
    cut = texture[top : top + size * step : step, left : left + size * step : step]
    low, high = sorted(generator.uniform(30, 225, 2))
    tint = generator.uniform(0.75, 1.0, 3).astype(np.float32)
    return ((low + (0.3 * (high - low) + 20) * cut)[..., None] * tint).astype(np.float32)


def _digit(digit: NDArray[np.uint8], side: int, degrees: float) -> Pixels:
    """A digit turned and scaled such that its longer side has this many pixels."""
    turned = Image.fromarray(digit).rotate(degrees, Image.Resampling.BILINEAR, expand=True)
    turned = turned.crop(box_of(np.asarray(turned) > 64))
    factor = side / max(turned.size)
    width, height = (max(1, round(length * factor)) for length in turned.size)
    scaled = np.asarray(turned.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
    return np.clip(1.6 * scaled, 0, 1)  # a stroke's middle is opaque


def _shape(name: str, side: int, angle: float) -> Pixels:
    """A shape turned by an angle in radians, its edges smoothed over a pixel."""
    at = np.arange(side, dtype=np.float32) - (side - 1) / 2
    y, x = at[:, None], at[None]
    radius = side / 2 - 0.5
    if name == "circle":
        distance = np.sqrt(x * x + y * y) - radius
    elif name == "square":
        angle = (angle % (np.pi / 2)) / 3  # up to 30 degrees
        u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        distance = np.maximum(np.abs(u), np.abs(v)) - radius / (np.cos(angle) + np.sin(angle))
    else:
        normals = angle + np.arange(3) * 2 * np.pi / 3
        distance = np.max([np.cos(n) * x + np.sin(n) * y for n in normals], 0) - radius / 2
    opacity = np.clip(0.5 - distance, 0, 1).astype(np.float32)
    rows, columns = (np.flatnonzero(opacity.max(axis) > 0.5) for axis in (1, 0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 around the pixels of a mask that has some; the right and lower ends exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
