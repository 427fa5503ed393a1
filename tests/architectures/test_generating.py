"""DCGAN's and R3GAN's networks: sizes, classes, and what their papers say of layers, parameters and first outputs."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, parameter_count
from zoo.architectures.dcgan import DCGANDiscriminator, DCGANGenerator
from zoo.architectures.r3gan import Block, R3GANDiscriminator, R3GANGenerator
from zoo.errors import UserError

R3 = {"blocks": 1, "group_width": 4}
GENERATORS = [
    partial(DCGANGenerator, latent=6, widths=[8, 4]),
    partial(R3GANGenerator, latent=6, widths=[8, 4], **R3),
    partial(R3GANGenerator, latent=6, widths=[8, 4], patch=2, **R3),
]
DISCRIMINATORS = [
    partial(DCGANDiscriminator, widths=[4, 8]),
    partial(DCGANDiscriminator, widths=[4, 8], norm="spectral"),
    partial(R3GANDiscriminator, embedding=6, widths=[4, 8], **R3),
    partial(R3GANDiscriminator, embedding=6, widths=[4, 8], patch=2, **R3),
]


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (13, 22)])
@torch.no_grad()
def test_any_size_of_image(size: tuple[int, int]) -> None:
    for make in GENERATORS:
        assert make(3, 1, size)(torch.randn(2, 6), torch.tensor([0, 2])).shape == (2, 1, *size)
    for make in DISCRIMINATORS:
        assert make(3, 1, size)(torch.rand(2, 1, *size), torch.tensor([0, 2])).shape == (2, 1)


def test_parameters_are_the_authors() -> None:
    """DCGAN's widely used 64×64 networks without the first layer's and the last's form; R3GAN's sums by hand."""
    filters = 16 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
    assert parameter_count(DCGANGenerator()) == 100 * 512 * 16 + filters + 3 + 2 * (512 + 256 + 128 + 64)
    assert parameter_count(DCGANDiscriminator()) == filters + 64 + 2 * (128 + 256 + 512) + 512 * 16 + 1
    with torch.device("meta"):
        inner = 1536
        block = 768 * inner + inner + inner * 16 * 9 + inner + inner * 768
        assert parameter_count(R3GANGenerator()) == 8 * block + 64 * 768 + 768 * 16 + 768 * 3
        assert parameter_count(R3GANDiscriminator(10)) == 8 * block + 3 * 768 + 768 * 16 + 768 * 64 + 10 * 64


@pytest.mark.parametrize("make", DISCRIMINATORS)
def test_the_class_is_told_to_discriminators(make: partial[Architecture]) -> None:
    torch.manual_seed(0)
    network, images = make(3, 1, (8, 8)).double().eval(), torch.randn(4, 1, 8, 8).double()
    with torch.no_grad():
        found = [network(images, torch.full((4,), label)) for label in range(3)]
        assert float((found[0] - found[1]).abs().min()) > 1e-9
        if isinstance(network, R3GANDiscriminator):
            torch.testing.assert_close(network(images), torch.stack(found).mean(0))


def test_projection_is_miyato_and_koyamas() -> None:
    network, images = DCGANDiscriminator(3, 1, (8, 8), [4, 8]).double().eval(), torch.randn(5, 1, 8, 8).double()
    features = []
    network.score.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    labels = torch.tensor([0, 1, 2, 1, 0])
    with torch.no_grad():
        found = network(images, labels)
        expected = [
            network.score(h) + network.told.table.weight[y] @ h for h, y in zip(features[0], labels, strict=True)
        ]
    torch.testing.assert_close(found, torch.stack(expected))


def test_several_outputs_are_told_no_class() -> None:
    network = DCGANDiscriminator(3, 1, (8, 8), [4, 8], outputs=4).eval()
    with torch.no_grad():
        one, other = (network(torch.ones(2, 1, 8, 8), torch.full((2,), label)) for label in (0, 1))
    assert one.shape == (2, 4)
    assert torch.equal(one[:, 1:], other[:, 1:])
    assert not torch.equal(one[:, :1], other[:, :1])


def test_generators_begin_with_the_class_behind_the_noise() -> None:
    torch.manual_seed(0)
    for make in GENERATORS:
        network, z = make(3, 1, (8, 8)).eval(), torch.randn(2, 6)
        with torch.no_grad():
            one, other, none = network(z, torch.tensor([0, 0])), network(z, torch.tensor([1, 1])), network(z)
            table = network.told.embedding.table
            table.weight.zero_()
            assert torch.equal(network(z, torch.tensor([1, 2])), none), "no class is an embedding of zeros"
        assert not torch.equal(one, other)


def test_spectral_normalisation_bounds_every_layer_by_one() -> None:
    network = DCGANDiscriminator(3, 1, (8, 8), [4, 8], norm="spectral")
    with torch.no_grad():
        for _ in range(30):
            network(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 4
    for layer in layers:
        assert float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2)) == pytest.approx(1, abs=0.02)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_layers_with_batch_normalisation() -> None:
    """All but the discriminator's first and the networks' last."""
    norms = {n: m.num_features for n, m in DCGANDiscriminator().named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert list(norms.values()) == [128, 256, 512]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in DCGANDiscriminator(norm="none").modules())
    norms = [m.num_features for m in DCGANGenerator().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == [512, 256, 128, 64]


def test_a_residual_block_begins_as_the_identity_and_is_the_papers() -> None:
    torch.manual_seed(0)
    block, maps = Block(64, 16, 4), torch.randn(2, 64, 7, 7)
    assert torch.equal(block(maps), maps)
    gain = (2 / 1.04) ** 0.5 / 4**0.25
    assert float(block.conv1.weight.std()) == pytest.approx(gain / 8, rel=0.03)
    assert float(block.conv2.weight.std()) == pytest.approx(gain / (16 * 9) ** 0.5, rel=0.03)
    nn.init.normal_(block.conv3.weight)
    nn.init.normal_(block.conv2.bias)
    inner = F.leaky_relu(F.conv2d(maps, block.conv1.weight, block.conv1.bias), 0.2)
    halves = zip(inner.split(16, 1), block.conv2.weight.split(16), strict=True)
    inner = torch.cat([F.conv2d(part, weight, padding=1) for part, weight in halves], 1)
    inner = F.leaky_relu(inner + block.conv2.bias[:, None, None], 0.2)
    torch.testing.assert_close(block(maps), maps + F.conv2d(inner, block.conv3.weight), rtol=1e-4, atol=1e-4)


def test_labels_for_networks_without_classes() -> None:
    for make in GENERATORS:
        with pytest.raises(UserError, match="without classes"):
            make(0, 1, (8, 8))(torch.randn(2, 6), torch.tensor([0, 1]))
    for make in DISCRIMINATORS:
        with pytest.raises(UserError, match="without classes"):
            make(0, 1, (8, 8))(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))


def test_mistakes_end_in_one_line() -> None:
    for make, options, said in (
        (DCGANGenerator, {"widths": []}, "at least one of widths"),
        (DCGANGenerator, {"latent": 0}, "must be at least 1"),
        (DCGANDiscriminator, {"widths": [4, 0]}, "must be at least 1"),
        (DCGANDiscriminator, {"norm": "layer"}, "norm is batch, spectral or none, not layer"),
        (R3GANGenerator, {"widths": [8, 6]}, "12 channels can't be divided into groups of 16"),
        (R3GANDiscriminator, {"blocks": 0}, "must be at least 1"),
        (R3GANDiscriminator, {"patch": 0}, "must be at least 1"),
    ):
        with pytest.raises(UserError, match=said):
            make(**options)
