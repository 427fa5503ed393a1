"""Composed scenes with sentences that say what is in them, embedded: captioning without a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.base import Split
from zoo.data.caption_data import CaptionData
from zoo.data.scenes import Scenes, SceneSamples
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.functional.scene_grammar import references, vocabulary
from zoo.functional.tokenizing import SPECIAL, WordTokenizer
from zoo.metrics.scene_content import SceneContent


class SceneCaptions(CaptionData, Scenes):
    """Scenes of handwritten digits and plain shapes, with sentences that say the largest objects and how they lie.

    The sentences are those of a small grammar, which says classes, colors, sizes, places and relations in several ways;
    they are a pure function of the scene. ``SceneContent`` reads captions by the same grammar and compares them with
    the scene. The vocabulary is fixed and small.

    Args:
        objects: least and largest number of objects in a scene.
        asked: number of objects that a sentence says, if there are so many.
        sentences: number of sentences for a scene; fewer where the grammar has no more.
        kwargs: as for ``Scenes``.

    Shape:
        batch: images (B, 3, image_size, image_size) in [0, 1]; tokens int64 (B, T); a list of B dictionaries with
            ``references``, ``scene`` (its description as plain data) and ``asked``
    """

    batch: ClassVar[str] = "captioning"
    about: ClassVar[str] = "1 to 2 of 13 classes (digits, circle, square, triangle) in 9 colors, 5 sentences a scene"

    def __init__(self, objects: Sequence[int] = (1, 2), asked: int = 2, sentences: int = 5, **kwargs: Any) -> None:
        super().__init__(objects=objects, **kwargs)
        for name, value in (("asked", asked), ("sentences", sentences)):
            if value < 1:
                raise UserError(f"data.{name} must be at least 1, not {value}")
        self.asked, self.sentences = asked, sentences

    @cached_property
    def tokenizer(self) -> WordTokenizer:
        """Of the grammar's words."""
        return WordTokenizer([*SPECIAL, *vocabulary()])

    @property
    def facts(self) -> Facts:
        """Vocabulary, channels and size."""
        facts = Facts(in_channels=3, image_size=[self.difficulty.size] * 2, mirror=False)
        return Facts(**{**facts, **self.tokenizer.facts()})

    def annotated(self, split: Split) -> Any:
        """The split's scenes; None for a validation of none."""
        found = super().annotated(split)
        return None if found is None else CaptionedScenes(found, self.asked, self.sentences)

    def references(self, split: Split) -> Iterable[Sequence[str]]:
        """The sentences of each scene; of fresh ones, as they are without a training."""
        samples = self.annotated(split)
        return (samples.details(index)["references"] for index in range(len(samples)))

    @property
    def repeats_images(self) -> bool:
        """Not if scenes are fresh in every epoch."""
        return super().repeats_images and not self.fresh

    def own_metric(self) -> SceneContent:
        """Whether captions are true."""
        return SceneContent()


class CaptionedScenes(Dataset[tuple[Tensor, dict[str, Any]]]):
    """Scenes with their sentences.

    Args:
        scenes: the scenes.
        asked: number of objects that are said.
        sentences: number of sentences.
    """

    def __init__(self, scenes: SceneSamples, asked: int, sentences: int) -> None:
        self.scenes, self.asked, self.sentences = scenes, asked, sentences

    def __len__(self) -> int:
        return len(self.scenes)

    def details(self, index: int) -> dict[str, Any]:
        """A scene's sentences and description."""
        return self._of(self.scenes.scene(index).description())

    def _of(self, scene: dict[str, Any]) -> dict[str, Any]:
        return {"references": references(scene, self.asked, self.sentences), "scene": scene, "asked": self.asked}

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        scene = self.scenes.scene(index)
        return torch.from_numpy(scene.image.transpose(2, 0, 1)), self._of(scene.description())
