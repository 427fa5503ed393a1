"""RT-DETR. Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection", 2024 (arXiv 2304.08069).

A detection transformer without anchor boxes to be tuned and without non-maximum suppression. The hybrid encoder fuses
the last feature maps of a backbone (section 4.2); the pixels whose best class scores highest become the queries
(section 4.3: since the target of a class is the IoU, a high score means that class and place are both certain);
decoder layers with deformable attention refine the queries' boxes step by step. Each layer is trained (auxiliary
losses), and denoising queries are decoded along with the others in training (``zoo.functional.denoising_queries``).
Losses and matching: ``zoo.functional.matching``.

Images of any size are resized to ``input_size`` without keeping their proportions, as in the paper (640×640).

Deviations:
- The paper's backbone is ResNet-50-vd (a stem of three convolutions, pooled shortcuts); here any backbone with stages.
- Shrinking images is antialiased.
- Boxes are clipped to the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, Stage, check_numbers
from zoo.architectures.hybrid_encoder import HybridEncoder
from zoo.architectures.query_decoder import Decoder
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, build, plain
from zoo.functional.denoising_queries import denoising_queries
from zoo.functional.matching import Objects, corners, match, relative_objects, set_losses

Targets = Sequence[Mapping[str, Tensor]]


class RTDETR(Architecture):
    """Real-time detection transformer; with ResNet-50 and the default arguments 42.9 million parameters (paper: 42).

    In evaluation every image has ``num_queries`` detections: the highest scores over queries and classes.

    Args:
        backbone: a network with stages; its last ``levels`` stages are used, each half the resolution of the one
            before.
        num_classes: number of classes, without a background class: scores are sigmoids.
        in_channels: channels of the images.
        input_size: height and width that images are resized to; multiples of the backbone's reduction.
        train_sizes: sides of squares, one of which is drawn for each training batch instead of ``input_size``
            (multi-scale training).
        width: channels of encoder and decoder.
        heads: heads of every attention.
        mlp_width: hidden width of the transformer layers.
        levels: number of feature maps.
        blocks: RepVGG blocks in each fusion of the encoder.
        decoder_layers: number of decoder layers.
        points: points per head and feature map of deformable attention.
        num_queries: number of queries, and of detections per image.
        num_denoising: number of groups of denoising queries times the most objects in an image of the batch; 0 for
            none.

    Shape:
        list of images (C, H, W), normalised, of any sizes; in training targets with ``boxes`` (N, 4) as x1, y1, x2, y2
        in pixels and ``labels`` (N,) -> in training a dictionary of weighted losses; in evaluation a list of
        dictionaries with ``boxes`` (num_queries, 4) in pixels of the image, ``scores`` and ``labels``, highest first

    Raises:
        UserError: the backbone's stages do not fit, the input size is not a multiple of its reduction or has fewer
            pixels than queries on the feature maps, or a number is out of range.
    """

    roles: ClassVar[tuple[str, ...]] = ("detector",)
    traces_batches: ClassVar[bool] = True
    example: ClassVar[dict[str, Any]] = {
        "num_classes": 4,
        "input_size": [32, 32],
        "width": 16,
        "heads": 2,
        "mlp_width": 16,
        "blocks": 1,
        "decoder_layers": 2,
        "points": 2,
        "num_queries": 6,
        "num_denoising": 6,
    }

    def __init__(
        self,
        backbone: ArchitectureFactory,
        num_classes: int = 80,
        in_channels: int = 3,
        input_size: Sequence[int] = (640, 640),
        train_sizes: Sequence[int] = (),
        width: int = 256,
        heads: int = 8,
        mlp_width: int = 1024,
        levels: int = 3,
        blocks: int = 3,
        decoder_layers: int = 6,
        points: int = 4,
        num_queries: int = 300,
        num_denoising: int = 100,
    ) -> None:
        super().__init__()
        check_numbers("RTDETR", num_classes - 1, in_channels, width)
        if width % 4 or width % heads:
            raise UserError(f"RTDETR: width must be a multiple of 4 and of heads ({heads}), not {width}")
        self.num_classes, self.num_denoising = num_classes, num_denoising
        self.size, self.train_sizes = (input_size[0], input_size[1]), tuple(train_sizes)
        self.backbone: Architecture = build(
            plain(backbone, Architecture), num_classes=0, in_channels=in_channels, image_size=list(input_size)
        )
        used = self.backbone.stages[-levels:]
        self.layers = [stage.layer for stage in used]
        check_stages(used, levels, [self.size, *((n, n) for n in train_sizes)], num_queries)
        self.encoder = HybridEncoder([stage.channels for stage in used], width, heads, mlp_width, blocks)
        self.decoder = Decoder(num_classes, width, heads, mlp_width, levels, decoder_layers, points, num_queries)

    def forward(self, images: Sequence[Tensor], targets: Targets | None = None) -> Any:
        """Losses by name in training, else detections."""
        if not self.training:
            every = zip(*self.detect(self.resized(images, self.size)), images, strict=True)
            return [_of_image(boxes, scores, labels, one.shape[-2:]) for boxes, scores, labels, one in every]
        if targets is None:
            raise UserError("RTDETR in training mode needs targets")
        maps = self.maps(self.resized(images, self._train_size()))
        objects = relative_objects(targets, [(i.shape[-2], i.shape[-1]) for i in images], maps[0])
        return self._losses(maps, objects)

    def _train_size(self) -> tuple[int, int]:
        if not self.train_sizes:
            return self.size
        side = self.train_sizes[int(torch.randint(len(self.train_sizes), ()))]
        return side, side

    @staticmethod
    def resized(images: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Images of any sizes as a batch of this size."""
        return torch.cat([resize(image[None], size) for image in images])

    def maps(self, images: Tensor) -> list[Tensor]:
        """The fused feature maps of a batch of images."""
        found = self.backbone.features(images, self.layers)
        return self.encoder([found[layer] for layer in self.layers])

    def detect(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detections of a batch of images of ``input_size``, a fixed number Q.

        Returns:
            boxes (B, Q, 4) as x1, y1, x2, y2 relative to the image, scores (B, Q), highest first, labels int64 (B, Q)
        """
        decoded = self.decoder(self.maps(images))
        logits, boxes = decoded.logits[-1], decoded.boxes[-1]
        scores, index = logits.flatten(1).topk(logits.shape[1])
        query = (index // self.num_classes)[..., None].expand(-1, -1, 4)
        return corners(boxes.gather(1, query)).clamp(0, 1), scores.sigmoid(), index % self.num_classes

    def traceable(self, image_size: Sequence[int]) -> nn.Module:
        """A batch of images of this size in, a fixed number of detections for each out."""
        return _Traceable(self, (image_size[0], image_size[1]))

    @property
    def traced_size(self) -> list[int]:
        """``input_size``."""
        return list(self.size)

    def _losses(self, maps: Sequence[Tensor], objects: Objects) -> dict[str, Tensor]:
        """The losses of the decoder's layers by kind, of the choice of queries and of the denoising queries."""
        noisy = denoising_queries(objects, self.num_classes, self.num_denoising) if self.num_denoising else None
        decoded = self.decoder(maps, noisy)
        with torch.autocast(maps[0].device.type, enabled=False):
            count = mean_count(len(objects.labels), maps[0].device)
            losses = {f"loss_{k}": v for k, v in matched_losses(decoded.logits, decoded.boxes, objects, count).items()}
            chosen = matched_losses(decoded.chosen_logits[None], decoded.chosen_boxes[None], objects, count)
            losses["loss_encoder"] = torch.stack([*chosen.values()]).sum()
            if noisy is not None:
                logits, boxes = decoded.noisy_logits, decoded.noisy_boxes
                pairs = noisy.pairs(len(logits))
                parts = set_losses(_widened(logits, boxes), boxes, objects, pairs, count * noisy.groups)
                losses["loss_denoising"] = torch.stack([*parts.values()]).sum()
        return losses


class _Traceable(nn.Module):
    def __init__(self, network: RTDETR, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.image_size = network, image_size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        boxes, scores, labels = self.network.detect(resize(images, self.network.size))
        height, width = self.image_size
        return boxes * boxes.new_tensor([width, height, width, height]), scores, labels


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) of another size by bilinear interpolation, antialiased."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def check_stages(used: Sequence[Stage], levels: int, sizes: Sequence[tuple[int, int]], num_queries: int) -> None:
    """Check that a backbone's last stages and the image sizes fit.

    Raises:
        UserError: they do not.
    """
    reductions = [stage.reduction for stage in used]
    if len(used) < levels or any(2 * a != b for a, b in pairwise(reductions)):
        raise UserError(
            f"RTDETR needs {levels} stages, each at half the resolution; the backbone's are at {reductions}"
        )
    for height, width in sizes:
        if height % reductions[-1] or width % reductions[-1]:
            raise UserError(
                f"RTDETR: input_size and train_sizes must be multiples of {reductions[-1]}, not {height}×{width}"
            )
        if num_queries > (pixels := sum(height * width // r**2 for r in reductions)):
            raise UserError(f"RTDETR: num_queries is {num_queries}, but {height}×{width} has {pixels} places for them")


def mean_count(count: int, device: torch.device) -> float:
    """The mean number of objects over all processes, at least 1, so that the mean of their gradients is that of one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        total = torch.tensor(float(count), device=device)
        torch.distributed.all_reduce(total)
        return max(1.0, total.item() / torch.distributed.get_world_size())
    return max(1.0, float(count))


def matched_losses(logits: Tensor, boxes: Tensor, objects: Objects, count: float) -> dict[str, Tensor]:
    """The losses of predictions (L, B, Q, …) after matching."""
    logits = _widened(logits, boxes)
    return set_losses(logits, boxes, objects, match(logits, boxes, objects), count)


def _widened(logits: Tensor, boxes: Tensor) -> Tensor:
    """Logits in the boxes' precision, which is at least that of the images."""
    return logits.to(boxes.dtype)


def _of_image(boxes: Tensor, scores: Tensor, labels: Tensor, size: Sequence[int]) -> dict[str, Tensor]:
    """An image's detections with boxes in its own pixels."""
    height, width = size
    return {"boxes": boxes * boxes.new_tensor([width, height, width, height]), "scores": scores, "labels": labels}
