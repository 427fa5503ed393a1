import pytest
import torch

from zoo.architectures.efficientnet_lite import EfficientNetLite0
from zoo.architectures.frozen import freeze

LAYERS = ["network.bn1", "network.blocks.1.1", "network.blocks.2.1"]


def network():
    torch.manual_seed(0)
    return EfficientNetLite0(num_classes=0, weights=None).double().eval()


@pytest.mark.parametrize("blur_strides", [False, True])
def test_a_frozen_network_draws_no_edge(blur_strides):
    """Padding by zeros, TensorFlow's of timm's strided layers too, would make an edge of a plain picture's."""
    plain = torch.full((1, 3, 50, 38), 0.7).double()
    framed = network().features(plain, LAYERS)["network.bn1"]
    assert framed.std((2, 3)).max() > 1e-2
    found = freeze(network(), blur_strides).features(plain, LAYERS)
    assert [tuple(maps.shape[2:]) for maps in found.values()] == [(25, 19), (13, 10), (7, 5)]
    for maps in found.values():
        assert maps.std((2, 3)).max() < 1e-9
        assert maps.abs().max() > 1e-3


def test_away_from_the_edge_it_sees_what_it_saw():
    images = torch.randn(2, 3, 96, 96).double()
    before, after = network().features(images, LAYERS), freeze(network(), False).features(images, LAYERS)
    for name, margin in zip(LAYERS, (1, 3, 5), strict=True):
        inner = (..., slice(margin, -margin), slice(margin, -margin))
        assert torch.allclose(before[name][inner], after[name][inner], atol=1e-10)
        assert not torch.allclose(before[name], after[name], atol=1e-3)
