"""A sample that a generator is asked for."""

from __future__ import annotations

from typing import NamedTuple

NO_CLASS = -1  # the label of a sample whose class the generator may choose


class Request(NamedTuple):
    """A sample that is asked for: a row of a batch, which may end after the class.

    Args:
        seed: of its noise.
        number: within the seed.
        label: its class, -1 where the generator may choose.
        to_seed: another seed, towards which its noise lies.
        place: how far on the way, from 0 for its own noise to ``places - 1`` for that of the other seed.
        places: 1 where there is no way.
        animated: whether the steps in which it is made are kept, 0 or 1.
    """

    seed: int
    number: int
    label: int = NO_CLASS
    to_seed: int = 0
    place: int = 0
    places: int = 1
    animated: int = 0

    @property
    def weight(self) -> float:
        """The place on the way to the other seed, in [0, 1]."""
        return self.place / max(1, self.places - 1)
