"""A small convolutional network. Name the paper here, and every deviation from it."""

from typing import Any, ClassVar

from torch import Tensor, nn

from zoo import Architecture


class ExampleNet(Architecture):
    """Three convolutions, the mean over the image, and a linear layer.

    Args:
        num_classes: length of the output.
        in_channels: channels of the images.
        width: filters of the first convolution; each further one doubles them.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes)
    """

    # The arguments of a small instance, for tests.
    example: ClassVar[dict[str, Any]] = {"num_classes": 2, "width": 4}

    # An argument with the name of a fact (num_classes, in_channels, image_size) is filled in from the data, so recipes
    # don't set it. All others are set by the recipe, and their types are checked.
    def __init__(self, num_classes: int = 2, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _block(in_channels, width),
            _block(width, 2 * width),
            _block(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits. Loss, metrics and optimiser belong to the task; an architecture only has this."""
        return self.classifier(self.layers(images))


def _block(channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, filters, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()
    )
