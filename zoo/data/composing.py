"""Scenes composed of handwritten digits and plain shapes on photographs of textures, for tasks that need more than a
class.

A scene is a pure function of a generator, of the digits and of the options. Every object in it can be seen: its colour
differs from what is around it, and enough of it stays uncovered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

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
SMALL, LARGE = (
    0.25,
    1 / 3,
)  # the longer sides, relative to the scene's, below and above which an object is said to be so
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")  # words for thirds of the scene

INK = 64  # a digit's pixels that are brighter belong to it
# Opacity by the brightness of a digit's pixels: a stroke's middle is opaque.
_OPACITY = np.clip(1.6 * np.arange(256) / 255, 0, 1).astype(np.float32)

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

    @property
    def size(self) -> str:
        """``small``, ``medium`` or ``large``, by its longer side as drawn."""
        return "small" if self.scale < SMALL else "large" if self.scale > LARGE else "medium"

    @property
    def place(self) -> str:
        """The ninth of the scene that the middle of its box is in: ``top left``, ``top``, … ``centre``, …."""
        height, width = self.mask.shape
        x1, y1, x2, y2 = self.box
        words = ROWS[3 * (y1 + y2) // (2 * height)], COLUMNS[3 * (x1 + x2) // (2 * width)]
        return " ".join(word for word in words if word) or "centre"


class Relation(NamedTuple):
    """How two objects of a scene lie to each other. Read backwards it is ``right of``, ``below`` or ``in front of``.

    Args:
        first: an object's index in the scene.
        name: ``left of`` or ``above``, if the first one's box ends before the second's begins; ``behind`` if the
            second one covers some of the first.
        second: the other's index.
    """

    first: int
    name: str
    second: int


class Scene(NamedTuple):
    """A composed picture.

    Args:
        image: (H, W, 3), bytes.
        objects: from the back to the front.
        covered: pairs of objects, by index, of which the second covers some of the first.
    """

    image: NDArray[np.uint8]
    objects: list[SceneObject]
    covered: list[tuple[int, int]]

    @property
    def relations(self) -> list[Relation]:
        """All that hold between two objects."""
        boxes = [one.box for one in self.objects]
        found = [Relation(i, "behind", j) for i, j in self.covered]
        for name, axis in (("left of", 0), ("above", 1)):
            found += [
                Relation(i, name, j)
                for i, a in enumerate(boxes)
                for j, b in enumerate(boxes)
                if i != j and a[axis + 2] <= b[axis]
            ]
        return found

    def description(self) -> dict[str, list[dict[str, Any]]]:
        """The scene as plain data, for captions: ``objects`` with ``class``, ``colour``, ``size``, ``place`` and
        ``box``; ``relations`` with ``first``, ``name`` and ``second``, where objects are given by index.
        """
        objects = [
            {"class": CLASSES[o.label], "colour": o.colour, "size": o.size, "place": o.place, "box": [*o.box]}
            for o in self.objects
        ]
        return {"objects": objects, "relations": [relation._asdict() for relation in self.relations]}


class _Stamp(NamedTuple):
    """An object yet to be placed: its class, and its opacity (h, w) in [0, 1]."""

    label: int
    opacity: Pixels


class _Layers:
    """A scene that is being painted.

    Args:
        background: (3, H, W).

    Attributes:
        canvas: what is painted so far, (3, H, W).
        owners: for each pixel the number of the object that is seen there, from 1 on; 0 for none.
        placed: the objects and their colours.
        areas: pixels of each object as painted.
        visible: those of them that are not covered.
        covered: pairs of objects, from 0 on, of which the second covers some of the first.
    """

    def __init__(self, background: Pixels) -> None:
        self.canvas = background
        self.owners = np.zeros(background.shape[1:], np.int16)
        self.placed: list[tuple[_Stamp, int]] = []
        self.areas, self.visible = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.covered: list[tuple[int, int]] = []

    def hides_too_much(self, covered: NDArray[np.int64], overlap: float) -> bool:
        """Whether some object would lose too much, if so many more of each one's pixels were covered."""
        return bool((self.visible - covered < (1 - overlap) * self.areas).any())

    def colours_in(self, where: tuple[slice, slice]) -> set[int]:
        """The colours of the objects that are seen there."""
        if not self.placed:
            return set()
        counts = np.bincount(self.owners[where].ravel())
        return {self.placed[owner - 1][1] for owner in np.flatnonzero(counts).tolist() if owner}

    def paint(
        self,
        inner: tuple[slice, slice],
        stamp: _Stamp,
        solid: NDArray[np.bool_],
        shade: Pixels,
        colour: int,
        covered: NDArray[np.int64],
    ) -> None:
        """Paint an object in front of all others, of whose pixels it covers so many."""
        there = self.canvas[:, *inner]
        there += stamp.opacity * (shade[:, None, None] - there)
        number = len(self.placed)
        self.owners[inner][solid] = number + 1
        self.placed.append((stamp, colour))
        self.covered += [(one, number) for one in np.flatnonzero(covered).tolist()]
        area = np.count_nonzero(solid)
        self.areas, self.visible = np.append(self.areas, area), np.append(self.visible - covered, area)


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
        self._squares = (self._palette**2).sum(1)

    def __call__(self, generator: Generator) -> Scene:
        """A scene."""
        size, (least, most) = self.difficulty.size, self.difficulty.objects
        layers = _Layers(_background(generator, size))
        for _ in range(generator.integers(least, most + 1)):
            self._place(generator, layers)
        noise = generator.random((size, size), np.float32)
        noise *= 2 * NOISE
        noise -= NOISE
        layers.canvas += noise
        image = np.clip(layers.canvas, 0, 255, out=layers.canvas).astype(np.uint8).transpose(1, 2, 0)
        objects = [self._described(layers.owners == i, *one) for i, one in enumerate(layers.placed, 1)]
        return Scene(image, objects, layers.covered)

    def _place(self, generator: Generator, layers: _Layers) -> None:
        """Paint one more object at a place where it and all others can be seen, if such a place is found."""
        stamp = self._stamp(generator)
        height, width = stamp.opacity.shape
        solid, size = stamp.opacity > 0.5, self.difficulty.size
        for top, left in zip(
            generator.integers(0, size - height + 1, TRIES).tolist(),
            generator.integers(0, size - width + 1, TRIES).tolist(),
            strict=True,
        ):
            inner = slice(top, top + height), slice(left, left + width)
            covered = np.bincount(layers.owners[inner][solid], minlength=len(layers.placed) + 1)[1:]
            if layers.hides_too_much(covered, self.difficulty.overlap):
                continue
            near = _near(inner, size)
            colour = self._colour(generator, layers.canvas[:, *near], layers.colours_in(near))
            if colour is not None:
                shade = self._palette[colour] + generator.normal(0, 6, 3).astype(np.float32)
                layers.paint(inner, stamp, solid, shade, colour, covered)
                return

    def _colour(self, generator: Generator, around: Pixels, taken: set[int]) -> int | None:
        """A colour that differs from those around (3, h, w) and is none of an object that is near."""
        step = 1 + int((around[0].size / LOOKED_AT) ** 0.5)
        seen = around[:, ::step, ::step].reshape(3, -1)
        squares = self._squares[:, None] - 2 * self._palette @ seen + (seen * seen).sum(0)
        share = (squares > (self.difficulty.contrast * FURTHEST) ** 2).sum(1) / seen.shape[1]
        fitting = [i for i, one in enumerate(share.tolist()) if one >= DIFFERENT and i not in taken]
        return fitting[generator.integers(len(fitting))] if fitting else None

    def _stamp(self, generator: Generator) -> _Stamp:
        label = int(generator.integers(len(CLASSES)))
        side = max(8, round(generator.uniform(*self.difficulty.scale) * self.difficulty.size))
        if label >= len(DIGITS):
            return _Stamp(label, _shape(CLASSES[label], side, generator.uniform(0, 2 * np.pi)))
        members = self._of_class[label]
        digit = self.digits[members[generator.integers(len(members))]]
        return _Stamp(label, _digit(digit, side, generator.uniform(-20, 20)))

    def _described(self, mask: NDArray[np.bool_], stamp: _Stamp, colour: int) -> SceneObject:
        return SceneObject(stamp.label, self._names[colour], mask, box_of(mask), max(stamp.opacity.shape) / len(mask))


def _near(inner: tuple[slice, slice], size: int) -> tuple[slice, slice]:
    rows, columns = (slice(max(0, s.start - MARGIN), min(size, s.stop + MARGIN)) for s in inner)
    return rows, columns


def _background(generator: Generator, size: int) -> Pixels:
    """A cut of a texture, at full, half or a third of its resolution, in a pale or dark colour; (3, H, W)."""
    texture = textures()[generator.integers(len(TEXTURES))]
    step = int(generator.integers(1, max(1, min(3, len(texture) // size)) + 1))
    if len(texture) < size * step:
        texture = np.tile(texture, (-(-size // len(texture)) + 1,) * 2)
    top, left = generator.integers(0, len(texture) - size * step + 1, 2)
    cut = texture[top : top + size * step : step, left : left + size * step : step]
    low, high = sorted(generator.uniform(30, 225, 2).tolist())  # Python's floats leave the pixels float32
    tint = generator.uniform(0.75, 1.0, 3).astype(np.float32)
    return tint[:, None, None] * (low + (0.3 * (high - low) + 20) * cut)


def _digit(digit: NDArray[np.uint8], side: int, degrees: float) -> Pixels:
    """A digit turned and scaled such that its longer side has this many pixels; one resampling does both."""
    y, x = np.nonzero(digit > INK)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    u, v = cos * x - sin * y, sin * x + cos * y
    left, top = float(u.min()) - 0.5, float(v.min()) - 0.5
    length = (float(u.max()) + 0.5 - left, float(v.max()) + 0.5 - top)
    step = max(length) / side
    size = (max(1, round(length[0] / step)), max(1, round(length[1] / step)))
    left, top = left + 0.5, top + 0.5  # a pixel's middle is half a pixel from its edge
    inverse = (cos * step, sin * step, cos * left + sin * top, -sin * step, cos * step, cos * top - sin * left)
    turned = Image.fromarray(digit).transform(size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
    return _OPACITY[np.asarray(turned)]


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
