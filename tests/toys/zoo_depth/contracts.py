"""What a batch of depth estimation is, how its networks are called, and the fact that they share."""

from typing import Any

import torch
from torch import Generator, Tensor

from zoo.contracts import Form, Role, expect
from zoo.contracts.forms import check_images
from zoo.facts import Fact, Facts

SIDE, FARTHEST = 16, 10.0

MAX_DEPTH = Fact("max_depth", lambda value, facts: isinstance(value, float) and value > 0, "a number of metres above 0")


def check_batch(batch: Any, facts: Facts, split: str) -> None:
    images, depths = batch
    check_images(images, facts, split)
    wanted = (len(images), 1, *images.shape[2:])
    expect(tuple(depths.shape) == wanted, f"{split}: depths {tuple(depths.shape)}, expected {wanted}")
    farthest = facts["max_depth"]  # type: ignore[typeddict-item]
    expect(float(depths.min()) >= 0 and float(depths.max()) <= farthest, f"{split}: depths beyond {farthest} metres")


def ramp(index: int) -> tuple[Tensor, Tensor]:
    """A picture that is darker the farther away it is, and its depth in metres."""
    near = torch.linspace(0, 1, SIDE) ** (1 + index % 3)
    depth = near.flip(0).expand(SIDE, SIDE) if index % 2 else near[:, None].expand(SIDE, SIDE)
    noise = 0.1 * torch.rand(3, SIDE, SIDE, generator=Generator().manual_seed(index))
    return 0.9 * (1 - depth)[None] + noise, FARTHEST * depth[None]


def inputs(network: Any, sizes: Any, count: int, generator: Generator) -> list[tuple[Tensor]]:
    return [(torch.rand(count, sizes["in_channels"], *sizes["image_size"], generator=generator),)]


def check_depths(found: Any, inputs: Any, sizes: Any) -> None:
    wanted = (len(inputs[0]), 1, *inputs[0].shape[2:])
    expect(tuple(found.shape) == wanted, f"depths {tuple(found.shape)}, expected {wanted}")
    expect(bool((found >= 0).all()), "expected depths of at least 0")


FACTS: Any = {"in_channels": 3, "image_size": [SIDE, SIDE], "max_depth": FARTHEST}
DEPTH_ESTIMATION = Form(
    "depth_estimation",
    "images (B, C, H, W), depths (B, 1, H, W) in metres",
    ("in_channels", "image_size", "max_depth"),
    check_batch,
    role="depth_estimator",
    example_facts=FACTS,
    example=ramp,
)
DEPTH_ESTIMATOR = Role(
    "depth_estimator",
    "images -> depths (B, 1, H, W) in metres",
    inputs,
    check_depths,
    outputs=("depth",),
    needs=("max_depth",),
)
