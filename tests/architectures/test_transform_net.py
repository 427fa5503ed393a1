"""Transform networks: against their formulas, and without marks of their own."""

import pytest
import torch
from torch.nn import functional as F

from zoo.architectures.transform_net import Residual, TransformNet
from zoo.errors import UserError


@pytest.mark.parametrize(("width", "blocks"), [(1.0, 5), (0.25, 2)])
def test_parameters_are_those_of_the_papers_table(width: float, blocks: int) -> None:
    full, half, quarter = (round(n * width) for n in (32, 64, 128))

    def conv(inputs: int, outputs: int, kernel: int) -> int:
        return (inputs * kernel**2 + 1) * outputs

    def layer(inputs: int, outputs: int, kernel: int) -> int:
        return conv(inputs, outputs, kernel) + 2 * outputs  # scale and shift

    expected = layer(3, full, 9) + layer(full, half, 3) + layer(half, quarter, 3) + conv(full, 3, 9)
    expected += 2 * blocks * layer(quarter, quarter, 3) + layer(quarter, half, 3) + layer(half, full, 3)
    found = sum(p.numel() for p in TransformNet(width=width, blocks=blocks).parameters())
    assert found == expected
    assert width != 1.0 or found == 1_679_235


def test_a_block_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    block = Residual(6).double()
    for p in block.parameters():
        p.data.normal_()
    maps = torch.randn(2, 6, 9, 7, dtype=torch.float64) * 3 + 1
    (first, norm, _), second, last = block.branch[0], block.branch[1], block.branch[2]

    def convolved(x: torch.Tensor, conv: torch.nn.Conv2d) -> torch.Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), conv.weight, conv.bias)

    def normalised(x: torch.Tensor, norm: torch.nn.InstanceNorm2d) -> torch.Tensor:
        mean = x.sum((2, 3), keepdim=True) / 63
        variance = (x - mean).square().sum((2, 3), keepdim=True) / 63
        scale, shift = (p.view(1, -1, 1, 1) for p in (norm.weight, norm.bias))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    inside = normalised(convolved(maps, first), norm).clamp(min=0)
    expected = maps + normalised(convolved(inside, second), last)
    assert torch.allclose(block(maps), expected, atol=1e-10)


@pytest.mark.parametrize("size", [(32, 32), (33, 46), (8, 11)])
def test_an_even_picture_gets_no_pattern_and_no_edge_at_any_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = TransformNet(width=0.25, blocks=2).double()
    for p in network.parameters():
        p.data.normal_(0.1, 0.2)
    made = network(torch.full((1, 3, *size), 0.3, dtype=torch.float64))
    assert made.shape == (1, 3, *size)
    assert float((made - made[..., :1, :1]).abs().max()) < 1e-4  # rounding, enlarged where the variance is 0


def test_halves_keep_the_result_in_fine_steps() -> None:
    torch.manual_seed(0)
    network, images = TransformNet(width=0.25, blocks=2), torch.randn(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        made = network(images)
    assert made.dtype == torch.float32
    assert float((made - network(images)).abs().mean()) < 0.01


def test_wrong_numbers_end_in_one_line() -> None:
    with pytest.raises(UserError, match="blocks must be at least 0"):
        TransformNet(blocks=-1)
    with pytest.raises(UserError, match="at least 8×8 pixels"):
        TransformNet(width=0.1)(torch.rand(1, 3, 7, 20))
