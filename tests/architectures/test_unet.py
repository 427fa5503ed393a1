"""U-Net as its paper's figure has it, and its images extended by mirroring."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from zoo.architectures.base import parameter_count
from zoo.architectures.unet import UNet
from zoo.errors import UserError


def test_the_papers_figure() -> None:
    """23 convolutions; 572 pixels in, 388 out; the feature maps of figure 1 between them."""
    with torch.device("meta"):
        network = UNet()
        shapes: list[tuple[int, ...]] = []
        for block in (*network.down, *network.merge):
            block.register_forward_hook(lambda _m, _a, out: shapes.append(tuple(out.shape[1:])))
        logits = network(torch.zeros(1, 1, 572, 572))
    assert logits.shape == (1, 2, 388, 388)
    assert parameter_count(network) == 31_030_658
    assert sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in network.modules()) == 23
    down = [(64, 568), (128, 280), (256, 136), (512, 64), (1024, 28)]
    up = [(512, 52), (256, 100), (128, 196), (64, 388)]
    assert shapes == [(channels, side, side) for channels, side in down + up]


def test_incoming_nodes_of_each_weight() -> None:
    """N(0, 2 / N): a 3×3 convolution of 64 channels has N = 576 (section 3.1); a transposed one a node per channel."""
    torch.manual_seed(0)
    network = UNet(width=0.5)
    for layer, nodes in ((network.down[2][2], 9 * 128), (network.up[0], 512), (network.classifier, 32)):
        assert float(layer.weight.std()) == pytest.approx((2 / nodes) ** 0.5, rel=0.15)
        assert not layer.bias.any()


@torch.no_grad()
def test_a_mirrored_image_is_segmented_as_the_extended_one() -> None:
    torch.manual_seed(0)
    whole = UNet(padding="mirror", width=0.05).eval()
    central = UNet(padding="valid", width=0.05).eval()
    central.load_state_dict(whole.state_dict())
    images = torch.rand(1, 1, 20, 37)  # to 36 and 52 pixels of logits, and thus 220 and 236 of image
    extended = np.pad(images.numpy(), ((0, 0), (0, 0), (92, 92 + 16), (92, 92 + 15)), mode="reflect")
    expected = central(torch.from_numpy(extended))[..., :20, :37]
    torch.testing.assert_close(whole(images), expected)


@torch.no_grad()
def test_zero_padding_takes_any_size() -> None:
    network = UNet(padding="same", width=0.05).eval()
    for size in ((32, 48), (17, 33), (1, 16)):
        assert network(torch.rand(1, 1, *size)).shape == (1, 2, *size)


def test_a_task_gets_logits_of_the_whole_image() -> None:
    assert UNet(width=0.05).padding == "valid"
    assert UNet(width=0.05, image_size=[64, 64]).padding == "mirror"


def test_mistakes_end_in_one_line() -> None:
    for options, said in (
        ({"padding": "zeros"}, "padding is one of valid, mirror, same, not zeros"),
        ({"norm": "group"}, "norm is one of none, batch, not group"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"width": 0.0}, "width above 0"),
    ):
        with pytest.raises(UserError, match=said):
            UNet(**options)
    with pytest.raises(UserError, match=r"sides of 188, 204, … pixels .* not 388×570"):
        UNet(width=0.05)(torch.zeros(1, 1, 388, 570))
