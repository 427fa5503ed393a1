"""LeNet-5 against its paper's numbers, layer by layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from zoo.architectures.base import parameter_count
from zoo.architectures.lenet import TABLE, LeNet, ScaledTanh, Subsampling, TableConv2d
from zoo.errors import UserError


def test_parameters_of_the_paper() -> None:
    network = LeNet()
    counts = [parameter_count(m) for m in (network.c1, network.s2, network.c3, network.s4)]
    assert counts == [156, 12, 1_516, 32]
    assert network.classifier is not None
    c5, _, _, f6, _, output = network.classifier
    assert [parameter_count(c5), parameter_count(f6)] == [48_120, 10_164]
    assert parameter_count(network) == 60_000 + parameter_count(output)


def test_maps_of_the_paper() -> None:
    network = LeNet()
    maps = network.features(torch.randn(2, 1, 32, 32), ["c1", "s2", "c3", "s4", "classifier.0"])
    assert [tuple(m.shape[1:]) for m in maps.values()] == [
        (6, 28, 28),
        (6, 14, 14),
        (16, 10, 10),
        (16, 5, 5),
        (120, 1, 1),
    ]


def test_table_is_the_paper_s() -> None:
    """Three maps in a row, four in a row, four with a gap, all; every one of the six equally often in each group."""
    rows = [set(row) for row in TABLE]
    assert rows[:6] == [{i % 6, (i + 1) % 6, (i + 2) % 6} for i in range(6)]
    assert rows[6:12] == [{(i + j) % 6 for j in range(4)} for i in range(6)]
    assert rows[12:15] == [{i, i + 1, i + 3, (i + 4) % 6} for i in range(3)]
    assert rows[15] == set(range(6))


def test_connections() -> None:
    conv = TableConv2d(6, TABLE, 5)
    maps = torch.randn(1, 6, 14, 14, requires_grad=True)
    for i, output in enumerate(conv(maps)[0]):
        (grad,) = torch.autograd.grad(output.sum(), maps, retain_graph=True)
        assert {k for k in range(6) if grad[0, k].abs().max() > 0} == set(TABLE[i])
    one = F.conv2d(maps[:, list(TABLE[1])], conv.weight[3:6][None], conv.bias[1:2])
    torch.testing.assert_close(conv(maps)[:, 1:2], one)


def test_subsampling() -> None:
    layer, maps = Subsampling(2), torch.randn(1, 2, 4, 6)
    with torch.no_grad():
        layer.coefficient.copy_(torch.tensor([0.5, -1.0]))
        layer.bias.copy_(torch.tensor([0.1, 0.2]))
    a = 0.5 * (maps[0, 0, 0, 0] + maps[0, 0, 0, 1] + maps[0, 0, 1, 0] + maps[0, 0, 1, 1]) + 0.1
    assert layer(maps).shape == (1, 2, 2, 3)
    assert layer(maps)[0, 0, 0, 0].item() == pytest.approx(1.7159 * math.tanh(2 / 3 * a.item()), rel=1e-5)


def test_squash_keeps_one() -> None:
    """Appendix A: f(1) = 1 and f(-1) = -1."""
    torch.testing.assert_close(
        ScaledTanh()(torch.tensor([-1.0, 0.0, 1.0])), torch.tensor([-1.0, 0.0, 1.0]), atol=1e-4, rtol=0
    )


def test_initialisation() -> None:
    network = LeNet()
    conv, table = network.c1[0], network.c3[0]
    assert 0.95 * 2.4 / 25 < conv.weight.abs().max() <= 2.4 / 25
    assert table.weight[-6:].abs().max() <= 2.4 / 150 < table.weight[:3].abs().max() <= 2.4 / 75


def test_other_initialisations() -> None:
    """Appendix A's squash has E[f²] = 0.750 at variance 1, so that a linear layer needs 1 / (0.750 · 120)."""
    torch.manual_seed(0)
    network = LeNet(init="forward")
    assert network.c1[0].weight.std().item() == pytest.approx(1 / 5, rel=0.2)
    assert network.classifier is not None
    assert network.classifier[3].weight.std().item() == pytest.approx((0.75043 * 120) ** -0.5, rel=0.05)
    assert network.c3[0].weight.abs().max() <= 2.4 / 75


def test_other_sizes_and_errors() -> None:
    assert LeNet(3, in_channels=3, image_size=[16, 45])(torch.randn(2, 3, 16, 45)).shape == (2, 3)
    assert LeNet(0)(torch.randn(1, 1, 32, 32)).shape == (1, 16, 5, 5)
    with pytest.raises(UserError, match="at least 16×16"):
        LeNet(image_size=[15, 32])
    with pytest.raises(UserError, match="images are 28×28"):
        LeNet()(torch.randn(1, 1, 28, 28))
