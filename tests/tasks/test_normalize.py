"""Images as the network wants them: of an encoder's statistics, and in lists."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo import Architecture
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, build
from zoo.tasks.normalize import Normalize


class Encoder(Architecture):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, 2, 1)
        self.mean, self.std, self.fixed_channels = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125), 3

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


class Detector(Architecture):
    """Takes an encoder, and never thinks of its statistics."""

    def __init__(self, backbone: ArchitectureFactory) -> None:
        super().__init__()
        self.backbone = build(backbone)

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images)


DATA: Any = {"in_channels": 3, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


def test_images_for_a_network_on_an_encoder_are_the_encoders() -> None:
    image = torch.tensor([0.6, 0.45, 0.425]).view(1, 3, 1, 1)
    torch.testing.assert_close(Normalize(Detector(Encoder), DATA)(image), torch.ones(1, 3, 1, 1))
    grey = Normalize(Detector(Encoder), {"in_channels": 1})(torch.full((1, 1, 1, 1), 0.1))
    torch.testing.assert_close(grey.flatten(), torch.tensor([0.0, -0.4, -1.6]))
    with pytest.raises(UserError, match="Detector takes 3 channels, the data has 4"):
        Normalize(Detector(Encoder), {"in_channels": 4})


@pytest.mark.parametrize(("channels", "dtype"), [(3, torch.float32), (1, torch.float32), (3, torch.float64)])
def test_images_of_different_sizes_are_normalised_one_by_one(channels: int, dtype: torch.dtype) -> None:
    normalize = Normalize(Detector(Encoder), {"in_channels": channels})
    images = [torch.rand(channels, *size, dtype=dtype) for size in ((4, 6), (9, 3), (1, 1))]
    found = normalize(images)
    assert isinstance(found, list)
    for image, one in zip(images, found, strict=True):
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.1, 0.2, 0.3), (0.5, 0.25, 0.125)))
        assert one.dtype == dtype
        assert one.shape == (3, *image.shape[1:])
        torch.testing.assert_close(one, (image - mean) / std)
    assert normalize([]) == []


def test_a_list_is_as_the_batch_of_its_images() -> None:
    images = torch.rand(3, 3, 5, 7)
    normalize = Normalize(Encoder(), DATA)
    assert torch.equal(torch.stack(normalize(list(images))), normalize(images))
    half = normalize.half()([images[0].half()])
    assert half[0].dtype == torch.float16
