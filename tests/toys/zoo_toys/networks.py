"""Networks of a few hundred parameters, with everything that makes resuming hard: batch statistics and dropout."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Architecture


class ToyNet(Architecture):
    """One convolution, batch normalisation, dropout, one linear layer.

    Shape:
        images (B, C, H, W) -> logits (B, num_classes)
    """

    roles = ("classifier", "discriminator")
    example = {"num_classes": 3, "in_channels": 1}

    def __init__(self, num_classes: int = 3, in_channels: int = 1, channels: int = 4, dropout: float = 0.3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3)
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.head(self.dropout(torch.relu(self.norm(self.conv(images))).mean((2, 3))))


class ToyGenerator(Architecture):
    """Noise to a small picture.

    Shape:
        noise (B, latent) -> images (B, C, H, W) in [0, 1]
    """

    roles = ("generator",)

    def __init__(self, image_size: list[int] | None = None, in_channels: int = 1, latent: int = 5) -> None:
        super().__init__()
        self.latent_shape = (latent,)
        self.shape = (in_channels, *(image_size or [6, 6]))
        self.net = nn.Linear(latent, self.shape[0] * self.shape[1] * self.shape[2])

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.sigmoid(self.net(z)).view(-1, *self.shape)


class ToyEncoder(Architecture):
    """Pictures to pictures.

    Shape:
        images (B, C, H, W) -> images (B, C, H, W)
    """

    roles = ("transform",)

    def __init__(self, in_channels: int = 3, width: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.decoder = nn.ConvTranspose2d(width, in_channels, 4, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(torch.relu(self.encoder(images))))


class ToyDetector(Architecture):
    """One box per image, from the brightest values of each channel.

    Shape:
        list of images (C, H, W), targets in training -> losses by name, or detections
    """

    roles = ("detector",)
    example = {"num_classes": 2}

    def __init__(self, num_classes: int = 2, in_channels: int = 3) -> None:
        super().__init__()
        self.classes = nn.Linear(in_channels, num_classes)
        self.corners = nn.Linear(in_channels, 4)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        seen = torch.stack([image.amax((1, 2)) for image in images])  # the colours of what is brightest
        logits, boxes = self.classes(seen), self.corners(seen).sigmoid()
        if self.training and targets is not None:
            return self._losses(images, targets, logits, boxes)
        return [self._detection(*one) for one in zip(images, logits, boxes, strict=True)]

    def _losses(self, images: Any, targets: Any, logits: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        losses = {"classes": logits.new_zeros(()), "boxes": logits.new_zeros(())}
        for image, target, logit, box in zip(images, targets, logits, boxes, strict=True):
            if not len(target["labels"]):
                continue
            height, width = image.shape[-2:]
            wanted = target["boxes"][0] / image.new_tensor([width, height, width, height])
            losses["boxes"] = losses["boxes"] + F.l1_loss(box, wanted.to(box))
            losses["classes"] = losses["classes"] + F.cross_entropy(logit[None], target["labels"][:1])
        count = max(1, sum(len(target["labels"]) > 0 for target in targets))
        return {name: loss / count for name, loss in losses.items()}

    @staticmethod
    def _detection(image: Tensor, logit: Tensor, box: Tensor) -> dict[str, Tensor]:
        height, width = image.shape[-2:]
        score, label = logit.softmax(0).max(0)
        corners = torch.cat([torch.minimum(box[:2], box[2:]), torch.maximum(box[:2], box[2:])])
        return {
            "boxes": (corners * image.new_tensor([width, height, width, height]))[None],
            "scores": score[None],
            "labels": label[None],
        }
