"""The annotations of a set of pictures, in a few arrays: a million objects need no million Python objects.

The readers of the formats fill a ``Builder``; what is wrong with an entry goes to ``Faults``, and it is left out.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.outlines import Outlines

LISTED = 1000  # problems that are kept as text; the others are counted
TOLERANCE = 1.0  # pixels that a box may stick out of its picture: tools round, and count from 0 or from 1
TOLERANCE_RELATIVE = 0.01  # the same for boxes in fractions of the picture


class Faults:
    """What is wrong with annotations: the first entries as text, and the number of all.

    Attributes:
        wrong: mistakes that have to be repaired before training.
        empty: objects without area, which are left out.
    """

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.empty: list[str] = []
        self.count, self.count_empty = 0, 0

    def add(self, line: str) -> None:
        """A mistake."""
        self.count += 1
        if len(self.wrong) < LISTED:
            self.wrong.append(line)

    def add_each(self, which: NDArray[Any], line: Callable[[int], str]) -> None:
        """The same mistake of these objects."""
        self.count += len(which)
        self.wrong += [line(index) for index in which[: LISTED - len(self.wrong)].tolist()]

    def add_empty(self, which: NDArray[Any], line: Callable[[int], str]) -> None:
        """Objects without area."""
        self.count_empty += len(which)
        self.empty += [line(index) for index in which[: LISTED - len(self.empty)].tolist()]

    @property
    def lines(self) -> list[str]:
        """All of it, and how many are not listed."""
        more = self.count + self.count_empty - len(self.wrong) - len(self.empty)
        return [*self.wrong, *self.empty, *([f"and {more:,} more"] if more else [])]


@dataclass
class Annotations:
    """Pictures and the objects in them.

    Args:
        names: of the classes.
        paths: of the pictures, P of them.
        sizes: of the pictures, (P, 2), height and width; 0 where boxes and outlines are in fractions of the picture.
        starts: the objects of picture i are those from ``starts[i]`` to ``starts[i + 1]``; (P + 1,).
        boxes: (N, 4), x1 y1 x2 y2.
        labels: (N,), indices among the names.
        crowd: (N,), regions of many objects, or objects that are to be ignored.
        areas: (N,), as the file has them; None if it lacks some.
        outlines: polygons and masks.
        places: (N,), the outline of each object.
    """

    names: list[str]
    paths: list[str]
    sizes: NDArray[np.int32]
    starts: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float32] | None
    outlines: Outlines
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, row: int) -> slice:
        """The objects of a picture."""
        return slice(int(self.starts[row]), int(self.starts[row + 1]))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Objects of each picture, (P,)."""
        return np.diff(self.starts)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The picture of each object, (N,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    def selected(self, labels: NDArray[np.int32], names: list[str]) -> Annotations:
        """With other classes; objects whose class has the new label -1 are left out.

        Args:
            labels: the new label of each class.
            names: of the new classes.
        """
        new = labels[self.labels]
        return self._kept(new >= 0, new, names)

    def _kept(self, keep: NDArray[np.bool_], labels: NDArray[np.int32], names: list[str]) -> Annotations:
        before = np.concatenate([[0], np.cumsum(keep)])
        areas = None if self.areas is None else self.areas[keep]
        crowd, boxes, places = self.crowd[keep], self.boxes[keep], self.places[keep]
        starts, kept = before[self.starts], labels[keep]
        return Annotations(names, self.paths, self.sizes, starts, boxes, kept, crowd, areas, self.outlines, places)


class Builder:
    """Collects pictures and objects as they are read.

    Args:
        faults: receives what is wrong.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.paths: list[str] = []
        self.sizes = array("i")
        self.integers = array("q")  # of each object: picture, class, crowd, entry
        self.floats = array("d")  # of each object: x1, y1, x2, y2, area
        self.outlines = Outlines()

    def add_picture(self, path: str, height: int = 0, width: int = 0) -> int:
        """The row of a picture; without its size, boxes and outlines are in fractions of it."""
        self.sizes.fromlist([height, width])
        self.paths.append(path)
        return len(self.paths) - 1

    def add(
        self,
        picture: int,
        label: int,
        box: Sequence[float],
        outline: Any = None,
        crowd: int = 0,
        area: float = float("nan"),
        entry: int = 0,
    ) -> None:
        """An object.

        Args:
            picture: its row, or another number that ``build`` translates.
            label: its class, likewise.
            box: x1 y1 x2 y2.
            outline: as ``Outlines`` takes it.
            crowd: 1 for a region of many objects, or one that is to be ignored.
            area: in pixels.
            entry: its number in the file, for messages.

        Raises:
            TypeError, ValueError: some of it is no number, or the outline is none.
        """
        count = len(self.outlines)
        try:
            self.integers.fromlist([picture, label, int(crowd), entry])
            self.floats.fromlist([*box, area])
            if len(self.floats) != 5 * (count + 1):
                raise ValueError("a box needs four numbers")
            self.outlines.add(outline)
        except (TypeError, ValueError, OverflowError):
            del self.integers[4 * count :], self.floats[5 * count :]
            raise

    def build(
        self,
        names: list[str],
        where: Callable[[int, int], str],
        row_of: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None,
        label_of: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None,
    ) -> Annotations:
        """The annotations without what is wrong, by picture.

        Args:
            names: of the classes.
            where: names an object for a message, from its picture and its entry.
            row_of: the pictures' rows from the numbers that ``add`` got; -1 for an object that is left out.
            label_of: labels, likewise.
        """
        integers = (
            np.frombuffer(self.integers, np.int64).reshape(-1, 4) if self.integers else np.zeros((0, 4), np.int64)
        )
        floats = np.frombuffer(self.floats, np.float64).reshape(-1, 5) if self.floats else np.zeros((0, 5))
        sizes = np.array(self.sizes, np.int32).reshape(-1, 2)
        rows = integers[:, 0] if row_of is None else row_of(integers[:, 0])
        labels = integers[:, 1] if label_of is None else label_of(integers[:, 1])
        keep = (rows >= 0) & (labels >= 0)
        places = np.flatnonzero(keep)
        low, high = self.outlines.extents()
        checked = _Checked(floats[places, :4], sizes[rows[places]], np.hstack([low, high])[places])

        def name(index: int) -> str:
            return where(int(rows[places[index]]), int(integers[places[index], 3]))

        self._report(checked, places, sizes[rows[places]], name)
        good = checked.good & ~self._mask_of_another_size(places, sizes[rows[places]])
        order = np.flatnonzero(good)
        order = order[np.argsort(rows[places[order]], kind="stable")]
        kept = places[order]
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=len(sizes)))]).astype(np.int64)
        areas = floats[kept, 4].astype(np.float32)
        return Annotations(
            names,
            self.paths,
            sizes,
            starts,
            checked.boxes[order],
            labels[kept].astype(np.int32),
            integers[kept, 2] > 0,
            None if np.isnan(areas).any() else areas,
            self.outlines,
            kept,
        )

    def _mask_of_another_size(self, places: NDArray[np.int64], sizes: NDArray[np.int32]) -> NDArray[np.bool_]:
        found = self.outlines.run_sizes[places]
        wrong: NDArray[np.bool_] = ((found != sizes) & (found > 0) & (sizes > 0)).any(1)
        return wrong

    def _report(
        self, checked: _Checked, places: NDArray[np.int64], sizes: NDArray[np.int32], name: Callable[[int], str]
    ) -> None:
        def line(index: int) -> str:
            return f"{name(index)}: {checked.what(index)}"

        self.faults.add_each(np.flatnonzero(checked.wrong), line)
        self.faults.add_empty(np.flatnonzero(checked.empty), line)
        found = self.outlines.run_sizes[places]

        def another_size(index: int) -> str:
            (height, width), (rows, columns) = found[index].tolist(), sizes[index].tolist()
            return f"{name(index)}: its mask is {width}x{height} pixels, the picture {columns}x{rows}"

        self.faults.add_each(np.flatnonzero(self._mask_of_another_size(places, sizes)), another_size)


class _Checked:
    """Boxes, clipped to their pictures.

    Args:
        boxes: (N, 4).
        sizes: height and width of each one's picture, (N, 2); 0 for boxes in fractions.
        extents: the boxes of its outline, (N, 4).
    """

    def __init__(self, boxes: NDArray[np.float64], sizes: NDArray[np.int32], extents: NDArray[np.float64]) -> None:
        self.given, self.sizes, self.extents = boxes, sizes, extents
        ends = np.where(sizes > 0, sizes, 1)[:, [1, 0, 1, 0]].astype(np.float64)
        slack = np.where(sizes[:, :1] > 0, TOLERANCE, TOLERANCE_RELATIVE)
        self.finite: NDArray[np.bool_] = np.isfinite(np.concatenate([boxes, extents], 1)).all(axis=1)
        with np.errstate(invalid="ignore"):
            self.boxes = np.clip(boxes, 0, ends).astype(np.float32)
            far = [((given < -slack) | (given > ends + slack)).any(1) for given in (boxes, extents)]
            positive = (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        self.outside: NDArray[np.bool_] = self.finite & far[0]
        self.outline_outside: NDArray[np.bool_] = self.finite & far[1] & ~far[0]
        self.wrong: NDArray[np.bool_] = ~self.finite | self.outside | self.outline_outside
        self.empty: NDArray[np.bool_] = ~self.wrong & ~positive
        self.good = ~self.wrong & positive

    def what(self, index: int) -> str:
        """What is wrong with a box."""
        given, name = self.given[index], "box"
        if self.outline_outside[index] or not np.isfinite(self.extents[index]).all():
            given, name = self.extents[index], "outline"
        box = ", ".join(f"{value:.6g}" for value in given)
        if not self.finite[index]:
            return f"its {name} (x1 y1 x2 y2: {box}) is not of finite numbers"
        if self.empty[index]:
            return f"its box (x1 y1 x2 y2: {box}) has no area"
        height, width = self.sizes[index].tolist()
        size = f"of {width}x{height} pixels" if height else "(in fractions of it)"
        return f"its {name} (x1 y1 x2 y2: {box}) is outside of the picture {size}"
