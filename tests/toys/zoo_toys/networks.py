"""Networks of a few hundred parameters, with everything that makes resuming hard: batch statistics and dropout."""

import torch
from torch import Tensor, nn

from zoo import Architecture


class ToyNet(Architecture):
    """One convolution, batch normalisation, dropout, one linear layer."""

    example = {"num_classes": 3, "in_channels": 1}

    def __init__(self, num_classes: int = 3, in_channels: int = 1, channels: int = 4, dropout: float = 0.3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3)
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(torch.relu(self.norm(self.conv(images))).mean((2, 3))))


class ToyGenerator(Architecture):
    """Noise to a small grey picture."""

    roles = ("generator",)

    def __init__(self, image_size: list[int] | None = None, latent: int = 5) -> None:
        super().__init__()
        self.latent, self.size = latent, image_size or [6, 6]
        self.net = nn.Linear(latent, self.size[0] * self.size[1])

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.sigmoid(self.net(z)).view(-1, 1, *self.size)
