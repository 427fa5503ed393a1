"""Every detector of torchvision, under torchvision's name, with torchvision's weights of COCO.

Those that predict masks, too, are ``TorchVisionInstanceSegmenter``.

Networks, losses and initialisation are torchvision's. For other backbones see ``FasterRCNN``, ``RetinaNet``, ``FCOS``
and ``MaskRCNN``.

Deviations from ``torchvision.models.get_model``:
- Images are normalised by the task; ``mean`` and ``std`` are the weights'.
- torchvision's weights number COCO's 80 classes from 1 to 90, with ten that do not exist. The outputs of these, and of
  a background class that RetinaNet and FCOS do not use, are left out. Where a softmax is over the classes, scores
  differ by what a missing class would have taken, which is next to nothing.
- The backbone's batch normalisation is trained unless ``parameter_groups`` freezes it; torchvision freezes it, and the
  first stages, where weights are loaded.
- For other than three channels the first convolution is replaced, as ``TorchVision`` does.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum, detection

from zoo.architectures.base import Architecture, by_channel, first_line, refuse_options, should_load_pretrained
from zoo.architectures.detector import Detector, Resize, keep_float32
from zoo.architectures.torchvision import fetching, find_weights, replace_stem
from zoo.architectures.traceable import (
    Traceable,
    TraceableFCOS,
    TraceableMasks,
    TraceableOneStage,
    TraceableSSD,
    TraceableTwoStage,
)
from zoo.errors import UserError
from zoo.registry import did_you_mean

NO_CLASSES = ("__background__", "N/A")  # entries of torchvision's list of COCO's classes
# Their files were made without the epsilon of batch normalisation.
NO_EPSILON = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
TAKEN = ("weights", "weights_backbone", "num_classes", "image_mean", "image_std", "trainable_backbone_layers")
TRACERS: dict[type, type[Traceable]] = {
    detection.MaskRCNN: TraceableMasks,
    detection.FasterRCNN: TraceableTwoStage,
    detection.RetinaNet: TraceableOneStage,
    detection.FCOS: TraceableFCOS,
    detection.ssd.SSD: TraceableSSD,
}


class TorchVisionDetector(Detector):
    """A detector of torchvision.

    Args:
        name: such as ``fasterrcnn_resnet50_fpn_v2``, as in ``torchvision.models.list_models``.
        weights: name of torchvision's weights for it, ``COCO_V1`` or ``DEFAULT``, downloaded once from
            download.pytorch.org; None for random weights. With other than COCO's 80 classes the last layers are new.
        num_classes: without background.
        in_channels: channels of the images.
        options: further arguments of torchvision's function, such as ``min_size`` or ``box_score_thresh``.

    Shape:
        as ``Detector``: images, targets -> losses; images -> detections

    Raises:
        UserError: torchvision has no such detector or weights, they can't be downloaded, or the network can't take the
            options.
    """

    licence: ClassVar[str | None] = "BSD-3-Clause"
    partly_trained: ClassVar[tuple[str, ...]] = ("network.head.", "network.backbone.extra.")  # SSD's levels
    with_masks: ClassVar[bool] = False  # whether it takes torchvision's networks that predict masks, or the others
    example: ClassVar[dict[str, Any]] = {"name": "ssdlite320_mobilenet_v3_large", "num_classes": 4}

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        num_classes: int = 80,
        in_channels: int = 3,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        refuse_options(type(self).__name__, options, TAKEN)
        pretrained = _find(name, weights, self.with_masks)
        background = 0 if name.startswith(("retinanet", "fcos")) else 1
        self.network = _create(name, num_classes + background, options or {})
        self.background, self.tracer = background, TRACERS[type(self.network)]  # type: ignore[misc]
        if pretrained is not None:
            transform = self.network.transform
            self.mean = by_channel(transform.image_mean, in_channels)
            self.std = by_channel(transform.image_std, in_channels)
            if name in NO_EPSILON:
                for norm in (m for m in self.network.backbone.modules() if isinstance(m, nn.BatchNorm2d)):
                    norm.eps = 0.0
            if should_load_pretrained():
                load_coco(self.network, pretrained, num_classes, background)
        if in_channels != 3:
            replace_stem(self.network.backbone, in_channels, keep=pretrained is not None)
        _take_normalised(self.network)

    @classmethod
    def pretrained_classes(cls, arguments: Mapping[str, Any]) -> list[str]:
        """COCO's 80 classes, in the order of their ids."""
        weights = _find(arguments["name"], arguments.get("weights"), cls.with_masks)
        return [] if weights is None else [weights.meta["categories"][i] for i in _real(weights)]

    def find_backbone(self) -> Architecture | None:
        """None: it has statistics of its own."""
        return None


def _find(name: str, weights: str | None, masks: bool) -> WeightsEnum | None:
    every = [n for n in torchvision.models.list_models(module=detection) if not n.startswith("keypoint")]
    known = [n for n in every if n.startswith("mask") == masks]
    if name not in known:
        other = "TorchVisionDetector" if masks else "TorchVisionInstanceSegmenter"
        close = f": give it to {other}" if name in every else did_you_mean(name, known)
        raise UserError(f"torchvision has no {'instance segmenter' if masks else 'detector'} {name}{close}")
    return find_weights(name, weights)


def _create(name: str, outputs: int, options: dict[str, Any]) -> Any:
    known = _options(name)
    if unknown := [option for option in options if option not in known]:  # torchvision ignores them
        raise UserError(f"torchvision's {name} has no option {unknown[0]}{did_you_mean(unknown[0], known)}")
    try:
        return torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=outputs, **options)
    except Exception as error:  # TypeErrors and more, by family
        told = ", ".join(f"{k} {v}" for k, v in options.items()) or "these arguments"
        raise UserError(f"torchvision can't build {name} with {told}: {first_line(error)}") from error


def _options(name: str) -> list[str]:
    """Arguments of the class that torchvision's function builds, and of its transform."""
    build: Any = torchvision.models.get_model_builder(name)
    kind = {"fcos": detection.FCOS, "retinanet": detection.RetinaNet, "ssd": detection.ssd.SSD}
    cls = next((cls for start, cls in kind.items() if name.startswith(start)), detection.MaskRCNN)
    known = {**inspect.signature(build).parameters, **inspect.signature(cls.__init__).parameters}
    return [option for option in (*known, "size_divisible") if option not in ("self", "kwargs", "backbone", *TAKEN)]


def _take_normalised(network: Any) -> None:
    """Replace the transform by one that does not normalise; keep boxes in float32."""
    old = network.transform
    network.transform = Resize(old.min_size, old.max_size, old.size_divisible, old.fixed_size)
    if isinstance(network, detection.FasterRCNN):
        keep_float32(network.rpn.head, network.roi_heads.box_predictor)
    else:
        keep_float32(network.head)


def _real(weights: WeightsEnum) -> list[int]:
    """Ids of the classes that exist."""
    return [i for i, name in enumerate(weights.meta["categories"]) if name not in NO_CLASSES]


def load_coco(network: nn.Module, weights: WeightsEnum, num_classes: int, background: int) -> None:
    """Load torchvision's weights; those of the last layers for COCO's classes alone, or not at all for other classes.

    Args:
        network: a detector of torchvision.
        weights: of it.
        num_classes: of the network, without background.
        background: 1 if the network has a background class, else 0.

    Raises:
        UserError: the weights can't be downloaded, or are not this network's.
    """
    with fetching(weights):
        given = weights.get_state_dict(progress=True, check_hash=True).copy()
    own, real = network.state_dict(), _real(weights)
    ids, count = torch.tensor([0] * background + real), len(weights.meta["categories"])
    other = [n for n, t in own.items() if n in given and given[n].shape != t.shape]
    for name in other:
        found = given.pop(name)
        if num_classes == len(real) and len(found) % count == 0:
            given[name] = _rows_of(name, found, ids, count)
    missing, unexpected = network.load_state_dict(given, strict=False)
    absent = [n for n in missing if n not in other and not n.endswith("num_batches_tracked")]
    if absent or unexpected:
        raise UserError(f"torchvision's weights {weights} are not this network's: {[*absent, *unexpected][0]}")


def _rows_of(name: str, values: Tensor, ids: Tensor, count: int) -> Tensor:
    """The rows of these classes: of each class its four sides, else of each anchor its classes."""
    if ".box_predictor.bbox_pred." in name:
        return values.unflatten(0, (count, 4))[ids].flatten(0, 1)
    return values.unflatten(0, (-1, count))[:, ids].flatten(0, 1)
