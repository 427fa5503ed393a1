"""PreActResNet against its paper's counts, a reference in plain functions, timm's block, and the sum that it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models.resnetv2 import DownsampleConv, PreActBottleneck
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import output_shape, parameter_count
from zoo.architectures.preact_resnet import PreActBlock, PreActResNet
from zoo.errors import UserError
from zoo.testing.architectures import randomise


@pytest.mark.parametrize(("depth", "millions", "projections"), [(110, 1.7, 0), (164, 1.7, 3), (1001, 10.2, 3)])
def test_parameters_of_the_paper(depth: int, millions: float, projections: int) -> None:
    """Table 4; its 10.2 M of the deepest leave batch normalisation out."""
    with torch.device("meta"):
        network = PreActResNet(depth=depth)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth + projections
    assert sum(parameter_count(m) for m in layers) / 1e6 == pytest.approx(millions, abs=0.05)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert parameter_count(network) == sum(parameter_count(m) for m in (*layers, *norms))


def reference(state: dict[str, Tensor], images: Tensor, depth: int) -> Tensor:
    """The paper's network as a function of its tensors, in the order in which it uses them."""
    bottleneck = depth > 110
    values: Iterator[Tensor] = iter([v for k, v in state.items() if "running" not in k and "num_batches" not in k])

    def activate(x: Tensor) -> Tensor:
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        weight, bias = next(values).view(1, -1, 1, 1), next(values).view(1, -1, 1, 1)
        return F.relu((x - mean) / (var + 1e-5).sqrt() * weight + bias)

    x = activate(F.conv2d(images, next(values), padding=1))
    for group in range(3):
        for k in range((depth - 2) // (9 if bottleneck else 6)):
            stride, first, grows = 2 if group and not k else 1, group + k == 0, bottleneck and not k
            if grows and not first:
                x = activate(x)
            branch = x if first or grows else activate(x)
            for i in range(3 if bottleneck else 2):
                branch = activate(branch) if i else branch
                weight = next(values)
                branch = F.conv2d(branch, weight, stride=1 if i else stride, padding=weight.shape[-1] // 2)
            if grows:
                x = F.conv2d(x, next(values), stride=stride)
            elif stride == 2:
                x = torch.cat((x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])), 1)
            x = x + branch
    x = activate(x).mean((2, 3))
    return F.linear(x, next(values), next(values))


@pytest.mark.parametrize("depth", [14, 20, 119])
def test_the_reference_in_plain_functions(depth: int) -> None:
    network = PreActResNet(5, depth=depth, width=0.25).double()
    images = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    randomise(network)
    torch.testing.assert_close(network(images), reference(network.state_dict(), images, depth), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("in_channels", [32, 16])
def test_timm_s_bottleneck(in_channels: int) -> None:
    """The block of the identity, and the one that projects what it has activated; timm has other strides."""
    projection = DownsampleConv if in_channels == 16 else None
    convolution = partial(create_conv2d, bias=False)
    theirs = PreActBottleneck(in_channels, 32, 0.25, 1, 1, None, 1, None, convolution, BatchNormAct2d, projection)
    ours = PreActBlock(in_channels, 8, 1, bottleneck=True, first=False)
    randomise(theirs)
    mine, other = ours.state_dict(), theirs.state_dict()
    if projection:  # timm defines it first
        other["end"] = other.pop("downsample.conv.weight")
    ours.load_state_dict(dict(zip(mine, other.values(), strict=True)))
    x = torch.randn(3, in_channels, 6, 6)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", [20, 119])
def test_the_signal_path_is_the_identity(depth: int) -> None:
    """Between two changes of resolution a map is the one at the start plus the sum of all branches, exactly."""
    network = PreActResNet(0, depth=depth, width=0.25).double()
    blocks, branches = list(network.layer2)[1:], list[Tensor]()
    for block in blocks:
        block.branch.register_forward_hook(lambda _m, _a, output: branches.append(output.clone()))
    maps = network.features(torch.randn(2, 3, 8, 8, dtype=torch.float64), ["layer2.0", "layer2"])
    assert len(branches) == len(blocks) > 1
    torch.testing.assert_close(maps["layer2"], maps["layer2.0"] + sum(branches))
    for block in blocks:
        assert isinstance(block.shortcut, nn.Identity)
        nn.init.zeros_(block.branch[-1].weight)
    x = maps["layer2.0"].detach()
    assert torch.equal(network.layer2[1:](x), x)


def test_zero_init_residual_can_still_learn() -> None:
    """Blocks start as the identity, and every branch gets a gradient that takes it away from there."""
    network = PreActResNet(4, depth=20, width=0.5, zero_init_residual=True)
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(network.layer1[1](x), x)
    F.cross_entropy(network(torch.randn(4, 3, 8, 8)), torch.arange(4)).backward()
    lasts = [m.branch[-1].weight for m in network.modules() if isinstance(m, PreActBlock)]
    assert len(lasts) == 9
    assert all(weight.grad.abs().max() > 0 for weight in lasts)


def test_initial_variance() -> None:
    network = PreActResNet(depth=164)
    assert network.layer3[3].branch[-1].weight.var().item() == pytest.approx(2 / 256, rel=0.05)
    assert PreActResNet(depth=20, init="normal").layer3[0].branch[2].weight.std().item() == pytest.approx(0.01, 0.05)


def test_variance_grows_with_the_blocks_as_the_page_says(repo: Path) -> None:
    """Each branch adds about 1, up to the 18th block, where the resolution changes."""
    text = (repo / "docs" / "ideas" / "identity-skips.md").read_text(encoding="utf-8")
    said = {int(block): float(variance) for variance, block in re.findall(r"([\d.]+)\s+after\s+block\s+(\d+)", text)}
    assert set(said) == {2, 6, 18}
    sums, branches = torch.zeros(8, 54), torch.zeros(8, 54)
    for seed in range(8):
        torch.manual_seed(seed)
        network = PreActResNet(depth=110)
        blocks = [name for name, module in network.named_modules() if isinstance(module, PreActBlock)]
        names = [*blocks, *(f"{name}.branch" for name in blocks)]
        maps = network.train().features(torch.randn(4, 3, 16, 16), names)
        variances = torch.stack([maps[name].var() for name in names]).detach()
        sums[seed], branches[seed] = variances[:54], variances[54:]
    assert {block: sums[:, block - 1].mean().item() for block in said} == pytest.approx(said, rel=0.1)
    assert 0.65 < branches.mean(0).min() < branches.mean(0).max() < 1.35


def test_depths_and_sizes() -> None:
    assert output_shape(PreActResNet(0, depth=8, width=0.5), 3, 4, 7) == (1, 32, 1, 2)
    assert output_shape(PreActResNet(0, 1, depth=119, width=0.25), 1, 8, 8) == (1, 64, 2, 2)
    with pytest.raises(UserError, match=r"no depth 21: 6n\+2 layers are possible, such as 20 or 26"):
        PreActResNet(depth=21)
    with pytest.raises(UserError, match=r"no depth 1000: 9n\+2 layers are possible, such as 992 or 1001"):
        PreActResNet(depth=1000)
    with pytest.raises(UserError, match="at least 4×4 pixels, not 3×9"):
        PreActResNet(depth=8)(torch.zeros(1, 3, 3, 9))
