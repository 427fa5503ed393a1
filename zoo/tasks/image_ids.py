"""The numbers that COCO's result files know pictures by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def image_ids(names: Sequence[str]) -> list[int]:
    """A number for each picture: the one that its file's name is, or ends with behind a ``_``, as in COCO's own sets,
    if all have different ones; else its place in the list, from 1.

    Args:
        names: of the pictures' files.
    """
    found = [re.fullmatch(r"(?:.*_)?([0-9]+)", Path(name).stem) for name in names]
    numbers = [int(one[1]) for one in found if one]
    return numbers if len({*numbers}) == len(names) else [*range(1, len(names) + 1)]
