"""Classes that a recipe chooses, merges and renames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UserError
from zoo.registry import did_you_mean

BACKGROUND = ("background", "__background__", "_background_")  # what data call it, in lower case
Classes = dict[str, str | list[str]] | list[str]
"""Names of classes, or for each new name the class or the classes that it stands for."""


def is_background(name: str) -> bool:
    """Whether a class is the absence of the others."""
    return name.lower() in BACKGROUND


def chosen(names: Sequence[str], classes: Classes | None) -> tuple[list[str], NDArray[np.int32]]:
    """The new names, and the new label of each class, -1 for those that are left out.

    Args:
        names: of the data's classes.
        classes: the choice; None keeps all but a background class.

    Raises:
        UserError: the data has no class of a name, or one is in two places.
    """
    if classes is None:
        classes = [name for name in names if not is_background(name)]
    wanted: Mapping[str, str | list[str]] = (
        classes if isinstance(classes, Mapping) else {name: name for name in _different(classes)}
    )
    if not wanted:
        raise UserError("data.classes is empty: name at least one class" if classes is not None else "no classes")
    labels = np.full(len(names), -1, np.int32)
    for label, (new, old) in enumerate(wanted.items()):
        for name in [old] if isinstance(old, str) else old:
            if name not in names:
                known = did_you_mean(name, list(names)) or f": there are {', '.join(names[:20])}"
                raise UserError(f"data.classes: the data has no class {name!r}{known}")
            place = names.index(name)
            if labels[place] >= 0:
                raise UserError(f"data.classes: {name!r} is in {list(wanted)[labels[place]]!r} and in {new!r}")
            labels[place] = label
        if not old:
            raise UserError(f"data.classes: {new!r} stands for no class")
    return list(wanted), labels


def _different(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if list(names).count(name) > 1:
            raise UserError(f"data.classes names {name!r} twice")
    return names
