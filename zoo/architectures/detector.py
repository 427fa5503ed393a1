"""What torchvision's detectors have in common as architectures of the zoo.

A task normalises images and numbers classes from 0, without background. A detector resizes and pads, and adds the
background class itself. Losses and matching are torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from zoo.architectures.base import Architecture
from zoo.architectures.traceable import OwnLabels, Traceable
from zoo.errors import UserError

Target = Mapping[str, Tensor]


class Detector(Architecture):
    """A detector of torchvision over a feature pyramid; see its subclasses.

    Attributes:
        network: torchvision's, with a ``FeaturePyramid`` as its ``backbone``.
        background: classes that the network counts before the data's first.
        target_names: what the network takes of a target.
        tracer: the network in tensors, for export.

    Shape:
        images: list of (C, H, W) of any sizes, normalised. In training with targets, a list of dictionaries with
        ``boxes`` (N, 4) as x1 y1 x2 y2 in pixels and ``labels`` (N,) from 0 -> losses by name. In evaluation -> a list
        of dictionaries with ``boxes`` inside the image, ``scores`` in [0, 1], highest first, and ``labels``
    """

    roles: ClassVar[tuple[str, ...]] = ("detector",)
    background: ClassVar[int] = 1
    target_names: ClassVar[tuple[str, ...]] = ("boxes", "labels")
    tracer: ClassVar[type[Traceable]]
    network: Any  # a module with the attributes of torchvision's detectors

    def find_backbone(self) -> Architecture | None:
        """The pyramid's."""
        return self.network.backbone.body

    def traceable(self, image_size: Sequence[int]) -> nn.Module:
        """The network on one image of this size, with suppression inside, for export."""
        return OwnLabels(self.tracer(self.network, image_size), self._labels_from_network)

    @property
    def traced_size(self) -> list[int] | None:
        """A square of the size that images are resized to."""
        sizes = self.network.transform.min_size
        return [sizes[-1]] * 2 if sizes else None

    def forward(self, images: Sequence[Tensor], targets: Sequence[Target] | None = None) -> Any:
        """Losses in training, detections in evaluation."""
        if self.training:
            return self.network(list(images), [self._to_network(target) for target in targets or ()])
        found = self.network(list(images))
        return [self._from_network(one, image.shape[-2:]) for one, image in zip(found, images, strict=True)]

    def _to_network(self, target: Target) -> dict[str, Tensor]:
        """The target as torchvision has it, without boxes of no area, which torchvision refuses."""
        if missing := [name for name in self.target_names if name not in target]:
            raise UserError(f"{type(self).__name__} is trained with {missing[0]}, which the targets do not have")
        boxes = target["boxes"]
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        known = {name: target[name][kept] for name in self.target_names}
        return {**known, "labels": self._labels_to_network(known["labels"])}

    def _from_network(self, found: dict[str, Tensor], size: Sequence[int]) -> dict[str, Tensor]:
        """Detections with our labels; boxes resized to the image's size may be a rounding error outside."""
        boxes, (height, width) = found["boxes"], size
        inside = [boxes[:, ::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)]
        boxes = boxes.new_zeros(boxes.shape)
        boxes[:, ::2], boxes[:, 1::2] = inside
        return {**found, "boxes": boxes, "labels": self._labels_from_network(found["labels"])}

    def _labels_to_network(self, labels: Tensor) -> Tensor:
        return labels + self.background

    def _labels_from_network(self, labels: Tensor) -> Tensor:
        return labels - self.background


def keep_float32(*heads: nn.Module) -> None:
    """Give these heads' outputs in float32 in mixed precision: torchvision decodes boxes in their dtype.

    In bfloat16 coordinates above 256 would be rounded to even pixels, above 512 to multiples of 4.
    """
    for head in heads:
        head.register_forward_hook(_in_float32)


def _in_float32(_head: nn.Module, _inputs: Any, outputs: Any) -> Any:
    return tree_map(lambda t: t.float() if t.dtype.itemsize == 2 else t, outputs)


class Resize(GeneralizedRCNNTransform):
    """torchvision's resizing and padding of a list of images to one batch, without normalisation.

    Args:
        min_size: the shorter side in pixels; of several, training draws one for each image, and evaluation takes the
            last. None leaves images as they are.
        max_size: the longer side at most.
        divisor: height and width of the batch are padded to a multiple of it.
        fixed_size: width and height to resize to instead, whatever the proportions.
    """

    def __init__(
        self,
        min_size: int | Sequence[int] | None,
        max_size: int,
        divisor: int,
        fixed_size: tuple[int, int] | None = None,
    ) -> None:
        sizes = [min_size] if isinstance(min_size, int) else list(min_size or ())
        if min_size is not None and not (sizes and min(sizes) > 0 and max(sizes) <= max_size):
            raise UserError(f"min_size must be from 1 to max_size, which is {max_size}, not {min_size}")
        super().__init__(sizes, max_size, [], [], divisor, fixed_size)

    def normalize(self, image: Tensor) -> Tensor:
        """The image, which the task has normalised."""
        return image

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> Any:
        """The image and its target in their new size."""
        return super().resize(image, target) if self.min_size else (image, target)
