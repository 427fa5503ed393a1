"""Whether captions of composed scenes are true: what they say by the grammar is compared with the scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.errors import UserError
from zoo.functional.scene_reading import Verdict, judge

# The metrics, each a share: what is counted, and of what; without the latter, of all captions.
SHARES = {
    "content_accuracy": ("content", None),
    "class_accuracy": ("classes", "objects"),
    "colour_accuracy": ("colours", "objects"),
    "relation_accuracy": ("relations_right", "relations"),
    "size_accuracy": ("sizes_right", "sizes"),
    "place_accuracy": ("places_right", "places"),
    "count_accuracy": ("counted", None),
    "parsed": ("parsed", None),
}


class SceneContent(Metric):
    """How true captions of composed scenes are.

    ``content_accuracy`` is the share of captions in which every object said is there with its class and colour, every
    relation is true, and as many objects are said as asked for. The others look at one thing each: a caption that the
    grammar does not read has no object right; an object that is missing or too much has neither class nor colour right;
    relations, sizes and places count where they are said, and are NaN where none is. ``relations`` is the number of
    relations in a caption.
    """

    full_state_update = False
    counts: Tensor
    captions: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", torch.zeros(len(Verdict._fields), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("captions", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, captions: Sequence[str], details: Sequence[Mapping[str, Any]]) -> None:
        """Add captions.

        Args:
            captions: the sentences.
            details: of each its ``scene``, a description, and the number of objects ``asked`` for.

        Raises:
            UserError: the data has no scenes.
        """
        for caption, one in zip(captions, details, strict=True):
            if "scene" not in one or "asked" not in one:
                raise UserError("SceneContent compares captions with composed scenes: use it with data SceneCaptions")
            verdict = judge(caption, one["scene"], one["asked"])
            self.counts += torch.tensor([int(value) for value in verdict], device=self.counts.device)
        self.captions += len(captions)

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name."""
        counts = dict(zip(Verdict._fields, self.counts.double(), strict=True))
        found = {
            name: counts[part] / (self.captions if whole is None else counts[whole])
            for name, (part, whole) in SHARES.items()
        }
        return {**found, "relations": counts["relations"] / self.captions}
