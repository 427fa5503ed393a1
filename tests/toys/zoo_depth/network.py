"""The smallest network for depth."""

from torch import Tensor, nn

from zoo import Architecture


class DepthNet(Architecture):
    """Two convolutions.

    Args:
        in_channels: channels of the images.
        max_depth: metres that an output of 1 stands for.

    Shape:
        images (B, C, H, W) -> depths (B, 1, H, W) in metres
    """

    roles = ("depth_estimator",)

    def __init__(self, in_channels: int = 3, max_depth: float = 1.0) -> None:
        super().__init__()
        self.max_depth = max_depth
        self.layers = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.max_depth * self.layers(images).sigmoid()
