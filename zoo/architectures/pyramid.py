"""Feature pyramid. Lin, Dollár, Girshick, He, Hariharan and Belongie, "Feature Pyramid Networks for Object Detection",
2017 (arXiv 1612.03144).

Layers are torchvision's (``torchvision.ops.FeaturePyramidNetwork``); the backbone is any architecture with stages, so
that detectors stand on every network of the zoo, of timm and of torchvision.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from zoo.architectures.base import Architecture, Stage
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, build, check_role, plain


class FeaturePyramid(nn.Module):
    """A backbone's feature maps, each joined with the coarser ones, with the same number of channels.

    Args:
        backbone: an architecture with stages; it is built without classes.
        levels: reductions of the stages to use, finest first, each twice the one before.
        channels: of every level.
        extra: torchvision's block that adds coarser levels, if any.
        in_channels: channels of the images.

    Attributes:
        body: the backbone.
        out_channels: channels of every level, under the name that torchvision's detectors read.

    Shape:
        images (B, C, H, W), normalised -> a dictionary of maps (B, channels, H / level, W / level), finest first, named
        ``0``, ``1``, …, and those of ``extra``; in the images' dtype, in mixed precision too

    Raises:
        UserError: the backbone has no stages, or none of such a reduction.
    """

    def __init__(
        self,
        backbone: ArchitectureFactory,
        levels: Sequence[int],
        channels: int,
        extra: ExtraFPNBlock | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_role(backbone, "backbone", "A feature pyramid")
        body: Architecture = build(plain(backbone, Architecture), num_classes=0, in_channels=in_channels)
        self.stages = _stages(body, levels)
        self.body, self.out_channels = body, channels
        self.fpn = FeaturePyramidNetwork([stage.channels for stage in self.stages], channels, extra)

    @property
    def divisor(self) -> int:
        """Height and width of images are to be padded to a multiple of it, so that levels fit each other."""
        return math.lcm(*(stage.reduction for stage in self.stages))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The levels by name."""
        maps = self.body.features(images, [stage.layer for stage in self.stages])
        found = self.fpn(OrderedDict((str(i), m) for i, m in enumerate(maps.values())))
        # Anchors take the maps' dtype: in bfloat16 their coordinates would be rounded to multiples of 2, 4 or 8 pixels.
        return OrderedDict((name, m.to(images.dtype)) for name, m in found.items())


def _stages(body: Architecture, levels: Sequence[int]) -> list[Stage]:
    stages, name = {stage.reduction: stage for stage in body.stages}, type(body).__name__
    if missing := [level for level in levels if level not in stages]:
        known = ", ".join(map(str, sorted(stages)))
        raise UserError(f"levels: {name} has no stage of reduction {missing[0]}, only of {known}")
    if not levels or any(b != 2 * a for a, b in pairwise(levels)):
        raise UserError(f"levels must be reductions, each twice the one before, not {list(levels)}")
    return [stages[level] for level in levels]
