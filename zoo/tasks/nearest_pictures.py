"""The nearest training picture of each sample, so that copies are seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from zoo import drawing
from zoo.data.base import Data
from zoo.errors import UserError
from zoo.functional.sample_quality import nearest
from zoo.tasks.judge import pictures_of

LARGEST_SET = 100_000  # training pictures; all are looked at, and of more than these none
PAIRS = 5  # in a row


class Nearest(NamedTuple):
    """What is nearest among the training pictures.

    Args:
        distances: of each query, (N,).
        pictures: of the first ones, (M, C, H, W) in [0, 1], on the CPU.
    """

    distances: Tensor
    pictures: Tensor


@torch.no_grad()
def nearest_training(
    data: Data, look: Callable[[Tensor], Tensor], queries: Tensor, shown: Tensor, device: torch.device
) -> Nearest | None:
    """Look for the nearest training picture of each query; None where there are none, or more than ``LARGEST_SET``.

    Args:
        data: set up.
        look: takes images (B, C, H, W) in [0, 1]; gives features (B, D), in which distances are measured.
        queries: features (N, D), the first of which are those of ``shown``.
        shown: images (M, C, H, W) for which the pictures are kept.
        device: on which the images are looked at.
    """
    if not len(queries) or not _has_training_pictures(data):
        return None
    queries, pictures = queries.double().to(device), shown.cpu().clone()
    distances = queries.new_full((len(queries),), float("inf"))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # files may be cropped at random, on all processes alike
        for batch in pictures_of(data, "train"):
            found, indices = nearest(queries, look(batch[0].to(device)).double())
            rows = (found < distances)[: len(shown)].nonzero().flatten().cpu()
            if len(rows):
                pictures[rows] = batch[0][indices.cpu()[rows]].to(pictures)
            distances = torch.minimum(distances, found)
    return Nearest(distances, pictures)


def _has_training_pictures(data: Data) -> bool:
    """Whether there are some, and not too many; a test alone has not set them up, and may be where they are not."""
    try:
        data.setup("fit")
        samples = data.samples("train")
    except UserError as error:
        print(f"zoo: no nearest training pictures: {error}", flush=True)
        return False
    return samples is not None and len(samples) <= LARGEST_SET


def draw_pairs(samples: Sequence[Tensor], pictures: Sequence[Tensor], side: int) -> Image.Image:
    """Samples, each with the training picture that is nearest at its right.

    Args:
        samples: in [0, 1], each (C, H, W).
        pictures: likewise.
        side: of the larger side in pixels, at least.
    """
    pairs = zip(samples, pictures, strict=True)
    return drawing.grid([drawing.grid([drawing.to_picture(i, side) for i in pair], 2, 0) for pair in pairs], PAIRS, 8)
