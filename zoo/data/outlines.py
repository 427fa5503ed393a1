"""Outlines of objects, as polygons or run lengths, held in a few arrays and drawn when they are needed."""

from __future__ import annotations

from array import array
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn.functional import interpolate

from zoo.errors import UserError


class Outlines:
    """The outlines of a set's objects, by the number of each object.

    An outline is a list of polygons, each a list x, y, x, y, … of at least three points; run lengths in COCO's form
    ``{"size": [height, width], "counts": …}``, where counts are a list or compressed text; or None.
    """

    def __init__(self) -> None:
        self._points = array("d")
        self._polygons = array("q", [0])  # where each polygon's points end
        self._objects = array("q", [0])  # where each object's polygons end
        self._runs = bytearray()
        self._run_ends = array("q", [0])
        self._run_sizes = array("i")

    def __len__(self) -> int:
        return len(self._objects) - 1

    def add(self, outline: Any) -> None:
        """The next object's outline.

        Raises:
            ValueError, TypeError: it is none; nothing is added then.
        """
        runs, size = b"", [0, 0]
        if isinstance(outline, dict):
            runs, size = _runs(outline)
        elif outline:
            self._add_polygons([outline] if isinstance(outline[0], int | float) else outline)
        self._runs += runs
        self._run_ends.append(len(self._runs))
        self._run_sizes.fromlist(size)
        self._objects.append(len(self._polygons) - 1)

    def _add_polygons(self, polygons: list[list[float]]) -> None:
        ends, end = [], len(self._points)
        try:
            for polygon in polygons:
                if len(polygon) < 6 or len(polygon) % 2:
                    raise ValueError(f"a polygon has {len(polygon)} numbers: three points or more are x, y, x, y, …")
                self._points.fromlist(polygon)
                ends.append(len(self._points))
        except (TypeError, ValueError):
            del self._points[end:]
            raise
        self._polygons.fromlist(ends)

    @cached_property
    def run_sizes(self) -> NDArray[np.int32]:
        """Height and width of each object's run lengths, (N, 2); 0 where it has none. After all are added."""
        return np.array(self._run_sizes, np.int32).reshape(-1, 2)

    def extents(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and largest x and y of each object's polygons, (N, 2) each; 0 for objects without."""
        low, high = np.zeros((len(self), 2)), np.zeros((len(self), 2))
        if self._points:
            points = np.frombuffer(self._points, np.float64).reshape(-1, 2)
            ends = np.frombuffer(self._polygons, np.int64)[np.frombuffer(self._objects, np.int64)] // 2
            some = np.flatnonzero(np.diff(ends))
            low[some], high[some] = (f.reduceat(points, ends[some]) for f in (np.minimum, np.maximum))
        return low, high

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Whether each object has an outline, (N,). After all are added."""
        polygons, runs = (np.diff(np.frombuffer(ends, np.int64)) for ends in (self._objects, self._run_ends))
        some: NDArray[np.bool_] = (polygons + runs) > 0
        return some

    def polygons(self, place: int) -> list[NDArray[np.float64]]:
        """The object's polygons, each (n, 2) of x, y; empty if it has none."""
        points = np.frombuffer(self._points, np.float64) if self._points else np.zeros(0)
        first, last = self._objects[place], self._objects[place + 1]
        return [points[self._polygons[i] : self._polygons[i + 1]].reshape(-1, 2) for i in range(first, last)]

    def mask(self, place: int, height: int, width: int, scale: tuple[float, float] = (1.0, 1.0)) -> Tensor:
        """The object's pixels, bool (height, width), as pycocotools has them.

        Args:
            place: number of the object.
            height: of the result.
            width: of the result.
            scale: factors that polygons' x and y are multiplied with; run lengths are resized.

        Raises:
            UserError: its run lengths are damaged.
        """
        if polygons := self.polygons(place):
            scaled = [(polygon * scale).ravel().tolist() for polygon in polygons]
            drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(scaled, height, width)))
            return torch.from_numpy(drawn).bool()
        runs = bytes(self._runs[self._run_ends[place] : self._run_ends[place + 1]])
        size = self._run_sizes[2 * place : 2 * place + 2].tolist()
        try:
            if _total(runs) != size[0] * size[1]:  # pycocotools would leave pixels at what is in its memory
                raise ValueError
            found = torch.from_numpy(coco_mask.decode({"size": size, "counts": runs}))
        except ValueError as error:
            raise UserError(f"the run lengths of a mask of {size[1]}x{size[0]} pixels are damaged") from error
        if size != [height, width]:
            found = interpolate(found[None, None], (height, width), mode="nearest-exact")[0, 0]
        return found.bool()


def _runs(outline: dict[str, Any]) -> tuple[bytes, list[int]]:
    """Compressed run lengths, and their height and width."""
    try:
        (height, width), counts = outline["size"], outline["counts"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("run lengths need a size (height, width) and counts") from error
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise ValueError(f"run lengths of the size {outline['size']}")
    if isinstance(counts, str):
        return counts.encode("ascii"), [height, width]
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
        raise ValueError(f"its run lengths do not add up to the {height * width} pixels of {width}x{height}")
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"], [height, width]


def _total(counts: bytes) -> int:
    """Number of pixels of compressed run lengths: the sum of all runs.

    A number has five bits in each character, the lowest first, of which the sixth says whether another follows; the
    highest is the sign. From the fourth run on, the run before the last is to be added.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    if not len(ends) or ends[-1] != len(codes) - 1:
        return -1
    starts = np.append(0, ends[:-1] + 1)
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, ends - starts + 1))
    values = np.add.reduceat((codes & 31) << shifts, starts) - ((codes[ends] >> 4 & 1) << shifts[ends] + 5)
    return int(values[0] + sum(values[first::2].cumsum().sum() for first in (1, 2)))
