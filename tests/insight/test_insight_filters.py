"""Colour shares of made-up kernels are what their making says; towers are those of the next layer's groups."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor, nn

from zoo.architectures.alexnet import AlexNet
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.insight.filters import (
    colour_share,
    filters,
    first_convolution,
    kernel_picture,
    permutation_test,
    smoothness,
)
from zoo.insight.subject import Subject
from zoo.tasks.normalize import Normalize


def painted(*colour: float, count: int = 4) -> Tensor:
    """Kernels whose every place is some multiple of one colour."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 1, 5, 5, generator=generator) * torch.tensor(colour)[None, :, None, None]


def subject(network: AlexNet, std: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Subject:
    facts = Facts(num_classes=4, in_channels=3, image_size=[32, 32], mean=[0.0] * 3, std=list(std))
    return Subject(network, facts, Normalize(network, facts), "test")


@pytest.mark.parametrize(
    ("colour", "share"),
    [
        ((1, 1, 1), 0),
        ((-2, -2, -2), 0),
        ((1, -1, 0), 1),  # red against green
        ((-1, -1, 2), 1),  # blue against yellow
        ((1, 0, 0), 2 / 3),  # red alone: a third of it is grey
        ((1, 1, 0), 1 / 3),
    ],
)
def test_colour_share_of_made_up_kernels(colour, share):
    assert colour_share(painted(*colour)).tolist() == pytest.approx([share] * 4, abs=1e-6)


def test_colour_share_is_the_part_off_the_grey_axis():
    kernels = torch.randn(500, 3, 7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grey = np.full(3, 3**-0.5)
    off = np.eye(3) - np.outer(grey, grey)  # the projection onto the plane of opponent colours
    vectors = kernels.numpy().transpose(0, 2, 3, 1).reshape(500, -1, 3)
    expected = ((vectors @ off) ** 2).sum((1, 2)) / (vectors**2).sum((1, 2))
    assert colour_share(kernels).numpy() == pytest.approx(expected)
    assert expected.mean() == pytest.approx(2 / 3, abs=0.01)  # what the docstring says of random values
    assert colour_share(torch.zeros(1, 3, 2, 2)).tolist() == [0]
    assert colour_share(torch.rand(3, 1, 2, 2)).tolist() == pytest.approx([0] * 3, abs=1e-6)


def test_smoothness_tells_noise_from_a_wave():
    noise = torch.randn(200, 3, 11, 11, generator=torch.Generator().manual_seed(0))
    wave = torch.sin(torch.linspace(0, torch.pi, 11))[None, None, None].expand(1, 3, 11, 11)
    assert smoothness(noise).mean().item() == pytest.approx(0, abs=0.02)
    assert smoothness(wave).item() > 0.95
    board = torch.ones(11, 11)
    board[::2, ::2] = board[1::2, 1::2] = -1
    assert smoothness(board[None, None]).item() == pytest.approx(-1)


@pytest.mark.parametrize(("channels", "groups", "towers"), [(8, 2, 2), (8, 1, 1), (8, 4, 4), (8, 8, 1)])
def test_towers_are_what_the_groups_of_the_next_convolution_see(channels, groups, towers):
    network = nn.Sequential(nn.Conv2d(3, channels, 3), nn.ReLU(), nn.Conv2d(channels, 16, 3, groups=groups))
    found = first_convolution(network)
    assert found.name == "0"
    assert len(found.towers) == towers
    if towers > 1:  # independently: what the first half of the next layer's maps depends on
        images = torch.randn(1, channels, 3, 3, requires_grad=True)
        network[2](images)[:, : 16 // groups].sum().backward()
        assert images.grad.abs().sum((0, 2, 3)).nonzero().flatten().tolist() == found.towers[0].tolist()
    assert torch.cat(found.towers).tolist() == list(range(channels))


def test_a_network_without_convolution_is_told():
    with pytest.raises(UserError, match="Linear has no convolution"):
        first_convolution(nn.Linear(2, 2))


def test_p_values_are_scipys():
    generator = torch.Generator().manual_seed(3)
    a, b = torch.rand(12, generator=generator), torch.rand(12, generator=generator) + 0.2
    expected = stats.permutation_test(
        (a.numpy(), b.numpy()), lambda x, y, axis: x.mean(axis) - y.mean(axis), n_resamples=20_000, vectorized=True
    ).pvalue
    assert permutation_test([a, b]) == pytest.approx(expected, abs=0.01)
    assert permutation_test([torch.zeros(8), torch.ones(8)]) < 1e-3
    assert permutation_test([torch.ones(8), torch.ones(8)]) == 1


def test_a_coloured_and_a_grey_tower_are_told_apart():
    network = AlexNet(num_classes=4, image_size=[32, 32], width=0.25)
    weight = network.layers.conv1.weight.data
    half = len(weight) // 2
    weight[:half] = weight[:half].mean(1, keepdim=True)
    weight[half:] -= weight[half:].mean(1, keepdim=True)
    report = filters(subject(network))
    grey, coloured = report.numbers["by_tower"]
    assert (grey["mean"], coloured["mean"]) == pytest.approx((0, 1), abs=1e-6)
    assert report.numbers["p_value"] < 1e-3
    assert set(report.pictures) == {"filters", "colour"}
    assert "tower 2" in "\n".join(report.lines)


def test_kernels_are_measured_in_pixels_not_in_normalised_values():
    network = AlexNet(num_classes=4, image_size=[32, 32], width=0.25)
    std = (0.1, 0.2, 0.4)
    network.layers.conv1.weight.data = torch.ones(24, 3, 11, 11) * torch.tensor(std)[:, None, None]
    assert max(filters(subject(network, std)).numbers["colour_share"]) < 1e-6  # grey to pixels
    assert min(filters(subject(network)).numbers["colour_share"]) > 0.2


def test_kernels_are_drawn_around_middle_grey_and_grey_ones_in_grey():
    kernel = torch.zeros(3, 3, 3)
    kernel[0, 0, 0], kernel[2, 2, 2] = 0.002, -0.001  # tiny weights are seen, too
    pixels = np.asarray(kernel_picture(kernel, side=3))
    assert pixels[0, 0].tolist() == [255, 128, 128]
    assert pixels[2, 2].tolist() == [128, 128, 64]
    assert pixels[1, 1].tolist() == [128] * 3
    many = np.asarray(kernel_picture(torch.randn(5, 3, 3), side=3))
    assert (many == many[..., :1]).all()


def kernels_of(picture: Path, count: int) -> list[Tensor]:
    """The kernels (count, 3, 11, 11) of both towers, each up to a factor, from what ``_picture`` drew: 10 in a row."""
    pixels = np.asarray(Image.open(picture).convert("RGB"), dtype=np.float32) / 255 - 0.5
    corners = [(4 + i // 10 * 48, 4 + i % 10 * 48) for i in range(count)]  # of 44 pixels, 4 for each weight
    below = -(-count // 10) * 48 + 4 + 24 + 6  # the rows, a caption and a gap
    towers = [
        [pixels[y + 2 : y + 44 : 4, x + 2 : x + 44 : 4] for y, x in corners] for pixels in (pixels, pixels[below:])
    ]
    return [torch.from_numpy(np.stack(tower)).movedim(3, 1) for tower in towers]


def test_the_page_says_of_alexnets_towers_what_its_picture_shows(repo):
    text = (repo / "docs" / "ideas" / "looking-inside.md").read_text(encoding="utf-8")
    said = re.findall(r"^tower \d +colour share (\S+) ± (\S+), by energy \S+; smoothness (\S+)$", text, re.MULTILINE)
    towers = kernels_of(repo / "docs" / "images" / "inspect-filters.png", 24)
    shares = [colour_share(tower) for tower in towers]
    assert len(said) == 2
    for line, share, tower in zip(said, shares, towers, strict=True):
        found = share.mean(), share.std(), smoothness(tower).mean()
        assert [float(word) for word in line] == pytest.approx([float(f) for f in found], abs=0.01)
        assert (share.diff() > -0.02).all()  # the greyest first
    assert [int((share < 0.3).sum()) for share in shares] == [1, 12]
    assert "12 of its 24 have a share below 0.3, in tower 1 only one" in " ".join(text.split())
    assert float(re.findall(r"p = (\S+)", text)[0]) == pytest.approx(permutation_test(shares), abs=1e-3)
