"""What captioners over a backbone share: the feature map that is decoded, and its grid."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.architectures.base import Architecture, Stage, first_line
from zoo.architectures.captioner import Captioner
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, build, check_role, plain


class BackboneCaptioner(Captioner):
    """Base of captioners that decode one feature map of a backbone: convolutional, or a vision transformer's tokens.

    ``encode`` has two halves. Where the backbone is frozen, the feature maps of ``maps`` can be computed once and kept,
    since ``encode_maps`` has all that is trained.

    Args:
        backbone: any architecture with stages; built without classes.
        reduction: of the stage whose feature map is decoded; None for the coarsest.
        in_channels: channels of the images.
        image_size: height and width.

    Raises:
        UserError: the backbone has no such stage, or can't take images of this size.
    """

    def __init__(
        self, backbone: ArchitectureFactory, reduction: int | None, in_channels: int, image_size: Sequence[int]
    ) -> None:
        super().__init__()
        check_role(backbone, "backbone", type(self).__name__)
        facts: dict[str, Any] = {"in_channels": in_channels, "image_size": list(image_size)}
        self.backbone: Architecture = build(plain(backbone, Architecture), num_classes=0, **facts)
        self.stage = self._stage_of(reduction)
        self.grid = self._measured(in_channels, image_size)

    def _stage_of(self, reduction: int | None) -> Stage:
        stages = self.backbone.stages
        found = stages[-1:] if reduction is None else [stage for stage in stages if stage.reduction == reduction]
        if not found:
            known = ", ".join(str(stage.reduction) for stage in stages)
            name = f"{type(self).__name__}: reduction {reduction}"
            raise UserError(f"{name}: {type(self.backbone).__name__} has feature maps of reduction {known}")
        return found[-1]

    def _measured(self, in_channels: int, image_size: Sequence[int]) -> tuple[int, int]:
        """Height and width of the feature map, by a forward pass that changes no running statistics.

        Parameters that the feature map does not depend on are frozen: weight decay would shrink them, and training on
        several processes waits for their gradients.
        """
        training, channels = self.backbone.training, self.backbone.fixed_channels or in_channels
        self.backbone.eval()
        try:
            found = self.maps(torch.zeros(1, channels, *image_size))
        except Exception as error:  # the types differ by library
            size, name = "×".join(map(str, image_size)), type(self.backbone).__name__
            raise UserError(f"{name} can't take images of {size} pixels: {first_line(error)}") from error
        self.backbone.train(training)
        trained = [p for p in self.backbone.parameters() if p.requires_grad]
        if found.requires_grad:
            grads = torch.autograd.grad(found.sum(), trained, allow_unused=True)
            for parameter, grad in zip(trained, grads, strict=True):
                parameter.requires_grad_(grad is not None)
        return found.shape[2], found.shape[3]

    def maps(self, images: Tensor) -> Tensor:
        """The backbone's feature map, (B, channels, h, w)."""
        return self.backbone.features(images, [self.stage.layer])[self.stage.layer]

    @abstractmethod
    def encode_maps(self, maps: Tensor) -> Tensor:
        """The memory of feature maps, (B, N, D)."""

    def encode(self, images: Tensor) -> Tensor:
        """The memory of pictures, (B, N, D)."""
        return self.encode_maps(self.maps(images))

    def grid_of(self, places: int) -> tuple[int, int]:
        """That of the image size that it was built for; of other sizes only squares are known."""
        return self.grid if places == self.grid[0] * self.grid[1] else super().grid_of(places)


def check_captioner(name: str, vocabulary_size: int, dropout: float, *widths: int) -> None:
    """Check the arguments that captioners share.

    Raises:
        UserError: one of them is out of range.
    """
    if vocabulary_size < 1 or min(widths) < 1:
        raise UserError(f"{name}: vocabulary_size and all widths must be at least 1")
    if not 0 <= dropout < 1:
        raise UserError(f"{name}: dropout must be at least 0 and below 1, not {dropout}")
