"""DDPM's U-Net and DiT against the papers' numbers of parameters and plain formulas."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, parameter_count
from zoo.architectures.conditioning import TimeAndClass, padded, sinusoids
from zoo.architectures.denoising_unet import Block, DenoisingUNet, SelfAttention, norm
from zoo.architectures.dit import Block as TransformerBlock
from zoo.architectures.dit import DiT, places
from zoo.errors import UserError

SMALL_UNET = partial(DenoisingUNet, 10, 1, width=8, multipliers=[1, 2], blocks=1, attention=[2], heads=2)
SMALL_DIT = partial(DiT, 10, 1, width=16, depth=2, heads=2)


def random(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return network


def test_parameters_are_the_papers() -> None:
    """Ho et al.: 35.7 M for CIFAR-10; Peebles and Xie, table 1: 33, 130, 458 and 675 M at 32×32×4, 1,000 classes."""
    with torch.device("meta"):
        assert parameter_count(DenoisingUNet(scale=False)) == 35_746_307
        sizes = {33: (384, 12, 6), 130: (768, 12, 12), 458: (1024, 24, 16), 675: (1152, 28, 16)}
        for millions, size in sizes.items():
            assert round(parameter_count(DiT(1000, 4, *size)) / 1e6) == millions


def test_attention_is_at_the_chosen_resolutions() -> None:
    network = DenoisingUNet(width=8, multipliers=[1, 2, 2], attention=[8], patch=2, heads=2)
    shapes: set[tuple[int, ...]] = set()
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.register_forward_hook(lambda _m, _a, out: shapes.add(tuple(out.shape[1:])))
    network(torch.zeros(1, 3, 32, 32), torch.zeros(1))
    assert shapes == {(16, 4, 4)}
    with pytest.raises(UserError, match="has no resolution 3; its levels have 2, 4, 8"):
        DenoisingUNet(width=8, multipliers=[1, 2, 2], attention=[3], patch=2)


@pytest.mark.parametrize("network", [SMALL_UNET(), SMALL_UNET(patch=2, attention=[4]), SMALL_DIT(), SMALL_DIT(patch=4)])
@torch.no_grad()
def test_any_size_of_image(network: Architecture) -> None:
    random(network)
    for size in ((28, 28), (27, 30), (1, 5)):
        images = torch.rand(2, 1, *size)
        assert network(images, torch.rand(2)).shape == images.shape


@pytest.mark.parametrize("make", [SMALL_UNET, SMALL_DIT])
def test_a_new_network_predicts_zero(make: partial[Architecture]) -> None:
    network, images = make(), torch.rand(2, 1, 8, 8)
    assert not network(images, torch.rand(2), torch.tensor([3, 10])).any()


@pytest.mark.parametrize("make", [SMALL_UNET, SMALL_DIT])
def test_labels_for_a_network_without_classes(make: partial[Architecture]) -> None:
    network = make.func(0, *make.args[1:], **make.keywords)
    with pytest.raises(UserError, match="without classes"):
        network(torch.rand(2, 1, 8, 8), torch.rand(2), torch.tensor([1, 2]))


def test_a_block_is_dhariwal_and_nichols() -> None:
    block = random(Block(8, 12, 6, True, 0.0)).double()
    maps, told = torch.randn(2, 8, 5, 5).double(), torch.randn(2, 6).double()
    groups = (block.norm1, block.norm2)
    first = block.conv1(F.silu(F.group_norm(maps, groups[0].num_groups, groups[0].weight, groups[0].bias)))
    scale, shift = block.told(told)[:, :12, None, None], block.told(told)[:, 12:, None, None]
    inner = (1 + scale) * F.group_norm(first, groups[1].num_groups, groups[1].weight, groups[1].bias) + shift
    torch.testing.assert_close(block(maps, told), block.shortcut(maps) + block.conv2(F.silu(inner)))


def test_self_attention_is_torchs() -> None:
    attention = random(SelfAttention(8, 2)).double()
    torchs = nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        torchs.in_proj_weight.copy_(attention.qkv.weight[..., 0, 0])
        torchs.in_proj_bias.copy_(attention.qkv.bias)
        torchs.out_proj.weight.copy_(attention.out.weight[..., 0, 0])
        torchs.out_proj.bias.copy_(attention.out.bias)
    maps = torch.randn(2, 8, 3, 4).double()
    tokens = attention.norm(maps).flatten(2).transpose(1, 2)
    expected = torchs(tokens, tokens, tokens)[0].transpose(1, 2).view_as(maps)
    torch.testing.assert_close(attention(maps), maps + expected)


def test_a_transformer_block_without_modulation_is_torchs() -> None:
    """Gates of one, no scale and no shift: a pre-normalised encoder layer."""
    block = random(TransformerBlock(16, 2)).double()
    torchs = nn.TransformerEncoderLayer(
        16, 2, 64, 0.0, partial(F.gelu, approximate="tanh"), 1e-6, batch_first=True, norm_first=True
    ).double()
    with torch.no_grad():
        for parameter in block.modulate.parameters():
            parameter.zero_()
        block.modulate.bias.view(2, 3, 16)[:, 2] = 1.0
        theirs = torchs.self_attn
        pairs = [(theirs.in_proj_weight, block.qkv.weight), (theirs.in_proj_bias, block.qkv.bias)]
        pairs += [(theirs.out_proj.weight, block.out.weight), (theirs.out_proj.bias, block.out.bias)]
        for one, two in ((torchs.linear1, block.mlp[0]), (torchs.linear2, block.mlp[2])):
            pairs += [(one.weight, two.weight), (one.bias, two.bias)]
        for one, two in pairs:
            one.copy_(two)
    tokens = torch.randn(3, 5, 16).double()
    torch.testing.assert_close(block(tokens, torch.randn(3, 16).double()), torchs(tokens))


def test_modulation_of_a_transformer_block() -> None:
    """Six rows of what is told: shift, scale and gate of attention, then of the MLP."""
    block = random(TransformerBlock(8, 2)).double()
    tokens, told = torch.randn(2, 3, 8).double(), torch.randn(2, 8).double()
    found, rows = block(tokens, told), block.modulate(told).view(2, 6, 1, 8)
    for number, part in ((0, block._attention), (3, block.mlp)):
        shift, scale, gate = (rows[:, number + i] for i in range(3))
        centred = tokens - tokens.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        tokens = tokens + gate * part(normed * (1 + scale) + shift)
    torch.testing.assert_close(found, tokens)


def test_sinusoids_of_time_and_place() -> None:
    t, size = np.array([0.0, 0.25, 0.731, -1.5]), 16
    frequencies = np.array([10_000.0 ** (-2 * i / size) for i in range(size // 2)])
    angles = 1000 * t[:, None] * frequencies
    expected = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    np.testing.assert_allclose(sinusoids(torch.from_numpy(t), size).numpy(), expected, atol=2e-4)
    found = places(2, 3, 8)[0].view(2, 3, 8)
    for row in range(2):
        for column in range(3):
            halves = [np.array([at, at / 100]) for at in (column, row)]
            values = np.concatenate([f(h) for h in halves for f in (np.sin, np.cos)])
            np.testing.assert_allclose(found[row, column].numpy(), values, atol=1e-12)


def test_class_and_time_are_added() -> None:
    told = random(TimeAndClass(3, 4, 6))
    t = torch.tensor([0.1, 0.2])
    without = told(t, None)
    table = told.label.weight
    torch.testing.assert_close(told(t, torch.tensor([0, 2])) - without, table[[0, 2]] - table[3])


def test_padding_repeats_the_last_pixels() -> None:
    images = torch.arange(6.0).view(1, 1, 2, 3)
    assert padded(images, 2)[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5]]
    assert padded(images[..., :2], 2).shape == (1, 1, 2, 2)


def test_groups_have_four_channels_or_more() -> None:
    assert [norm(c).num_groups for c in (4, 8, 48, 96, 128, 256)] == [1, 2, 12, 24, 32, 32]


def test_mistakes_end_in_one_line() -> None:
    for make, options, said in (
        (DenoisingUNet, {"width": 7}, "width must be even"),
        (DenoisingUNet, {"width": 6, "heads": 5}, "12 channels can't be divided among 5 heads"),
        (DiT, {"width": 10, "heads": 5}, "multiple of 4 and of heads"),
        (DiT, {"width": 16, "heads": 3}, "multiple of 4 and of heads"),
    ):
        with pytest.raises(UserError, match=said):
            make(**options)
