"""The signal by layer is what closed forms and manual derivatives say; measuring leaves the network as it was."""

import math
from contextlib import nullcontext

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F

from zoo.architectures.densenet import DenseNet
from zoo.architectures.plain import PlainNet
from zoo.architectures.preact_resnet import PreActResNet
from zoo.architectures.resnet import ResNet
from zoo.architectures.timm import Timm
from zoo.errors import UserError
from zoo.insight import signal
from zoo.insight.signal import (
    accuracy,
    accuracy_without,
    as_measured,
    branch_ratios,
    measure_signal,
    residual_blocks,
    taken_out,
)
from zoo.insight.signal_report import images_for


class Block(nn.Module):
    """A residual block whose branch is a factor."""

    def __init__(self, factor: float, identity: bool = True) -> None:
        super().__init__()
        self.branch = nn.Conv2d(2, 2, 1, bias=False)
        self.shortcut = nn.Identity() if identity else nn.Conv2d(2, 2, 1, bias=False)
        eye = torch.eye(2)[:, :, None, None]
        self.branch.weight.data = factor * eye
        if not identity:
            self.shortcut.weight.data = 4 * eye

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.shortcut, nn.Identity):
            return x + self.branch(x)
        return self.shortcut(x) + self.branch(x)


def labelled(batch: int = 4096, inputs: int = 256, classes: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, inputs, generator=generator), torch.randint(classes, (batch,), generator=generator)


def test_variances_of_a_linear_network_are_the_closed_form():
    """Var[y] = fan-in Var[w] Var[x] forwards; backwards Var[dL/dx] = fan-out Var[w] Var[dL/dy]."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(256, 512, bias=False), nn.Linear(512, 64, bias=False))
    for layer, deviation in zip(network, (0.05, 0.001), strict=True):
        nn.init.normal_(layer.weight, 0, deviation)
    images, labels = labelled()
    first, last = measure_signal(network, images, labels)
    assert (first.layer, last.layer) == ("0", "1")
    assert first.activation == pytest.approx(256 * 0.05**2, rel=0.1)
    assert last.activation == pytest.approx(512 * 0.001**2 * first.activation, rel=0.1)
    assert first.gradient == pytest.approx(64 * 0.001**2 * last.gradient, rel=0.1)
    # Logits near 0: the gradient is (1/K - onehot) / B, whose variance is (1/K)(1 - 1/K) / B².
    assert last.gradient == pytest.approx(1 / 64 * (1 - 1 / 64) / 4096**2, rel=0.02)


def test_gradients_and_ratios_are_autograds_own_despite_work_in_place():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(256, 32), nn.ReLU(inplace=True), nn.Linear(32, 8)).double()
    images, labels = labelled(64, classes=8)
    images = images.double()
    first, last = measure_signal(network, images, labels)
    a, b = network[0], network[2]
    hidden = F.linear(images, a.weight, a.bias)
    logits = F.linear(hidden.relu(), b.weight, b.bias)
    of_logits = (logits.softmax(1) - F.one_hot(labels, 8)) / 64  # by hand, without autograd
    of_hidden = (of_logits @ b.weight) * (hidden > 0)
    for found, output, gradient, layer, inputs in (
        (first, hidden, of_hidden, a, images),
        (last, logits, of_logits, b, hidden.relu()),
    ):
        assert found.activation == pytest.approx(output.var(correction=0).item(), rel=1e-5)
        assert found.gradient == pytest.approx(gradient.var(correction=0).item(), rel=1e-5)
        rms = (gradient.T @ inputs).square().mean().sqrt() / layer.weight.square().mean().sqrt()
        assert found.weight_ratio == pytest.approx(rms.item(), rel=1e-5)


def test_layers_are_chosen_by_name_and_a_frozen_one_has_no_ratio():
    network = nn.Sequential(nn.Linear(256, 32), nn.ReLU(inplace=True), nn.Linear(32, 8))
    network[0].weight.requires_grad_(False)
    images, labels = labelled(64, classes=8)
    linear, relu = measure_signal(network, images, labels, ["1", "0"])  # in the order of the forward pass
    assert (relu.layer, linear.layer) == ("1", "0")
    assert relu.weight_ratio is linear.weight_ratio is None
    assert linear.gradient > 0
    assert relu.activation < linear.activation
    with pytest.raises(UserError, match=r"Sequential has no layer 7"):
        measure_signal(network, images, labels, ["7"])


def test_measuring_takes_the_batchs_statistics_and_leaves_no_trace():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(256, 32), nn.BatchNorm1d(32), nn.Dropout(0.5), nn.Linear(32, 8)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = labelled(64, classes=8)
    found = measure_signal(network, 100 * images, labels, ["1", "2"])
    assert found[0].activation == pytest.approx(1, rel=1e-3)  # running statistics would leave 10,000 times as much
    assert found[1].activation == pytest.approx(found[0].activation)  # dropout would have doubled it
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    "network",
    [
        PlainNet(num_classes=4, depth=20, width=0.25),
        ResNet(num_classes=4, depth=20, width=0.25),
        PreActResNet(num_classes=4, depth=20, width=0.25),
        DenseNet(num_classes=4, depth=22, growth_rate=4),
        torchvision.models.vgg11(num_classes=4).features[:12].append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()),
        torchvision.models.densenet121(num_classes=4, drop_rate=0.5),
    ],
    ids=lambda network: type(network).__name__,
)
def test_what_is_computed_again_is_the_same_to_the_bit(network, monkeypatch):
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 4
    found = measure_signal(network, images, labels)
    assert not any("forward" in vars(module) for module in network.modules())
    assert not any(getattr(module, "memory_efficient", False) for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    monkeypatch.setattr(signal, "_little_kept", nullcontext)
    assert measure_signal(network, images, labels) == found


def most_maps(network: nn.Module) -> int:
    """How many outputs of layers are there at one time, at most."""
    alive: list[StorageWeakRef] = []
    most = 0

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal alive, most
        alive = [ref for ref in alive if not ref.expired()] + [StorageWeakRef(output.untyped_storage())]
        most = max(most, len({ref.cdata for ref in alive}))

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(hook)
    measure_signal(network, torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
    return most


@pytest.mark.parametrize("kind", [PlainNet, PreActResNet])
def test_memory_grows_with_the_root_of_the_depth(kind):
    shallow, deep = (most_maps(kind(num_classes=4, depth=depth, width=0.125)) for depth in (20, 326))
    assert deep < 7 * shallow  # 16 times as many layers
    assert deep < 150  # of about a thousand


def test_blocks_that_are_many_are_taken_out_with_fewer_images():
    assert [images_for(blocks) for blocks in (0, 9, 16, 54, 64, 333)] == [512, 512, 512, 151, 128, 128]


def test_blocks_that_are_many_are_taken_out_evenly():
    network = nn.Sequential(*(Block(0.5) for _ in range(7)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    batches = [(torch.rand(4, 2, 4, 4), torch.tensor([0, 1, 0, 1]))]
    assert list(accuracy_without(network, batches, 3)) == ["0", "3", "6"]
    assert len(accuracy_without(network, batches)) == 7


def test_branch_ratios_are_those_of_known_branches():
    network = nn.Sequential(Block(0.5), Block(-2.0), Block(3.0, identity=False))
    found = branch_ratios(network, torch.randn(3, 2, 4, 4))
    assert [b.ratio for b in found] == pytest.approx([0.5, 2.0, 3 / 4])
    assert [(b.block, b.identity) for b in found] == [("0", True), ("1", True), ("2", False)]
    assert branch_ratios(nn.Conv2d(2, 2, 1), torch.randn(1, 2, 4, 4)) == []


@pytest.mark.parametrize("depth", [18, 50])
def test_blocks_of_the_libraries_resnets_are_ours(depth):
    """The same weights in torchvision's, timm's and our network give the same ratios, and the same without a block."""
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(f"resnet{depth}", num_classes=3)
    for norm in [m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.2, 1)
    ours, timms = ResNet(depth=depth, num_classes=3), Timm(f"resnet{depth}", num_classes=3)
    ours.load_state_dict(theirs.state_dict())
    timms.network.load_state_dict(theirs.state_dict())
    images = torch.randn(4, 3, 64, 64)
    expected = branch_ratios(ours, images)
    blocks = list(residual_blocks(ours).values())
    batches = [(images, torch.tensor([0, 1, 2, 0]))]
    for network in (theirs, timms):
        found = branch_ratios(network, images)
        assert [b.ratio for b in found] == pytest.approx([b.ratio for b in expected], rel=1e-4)
        assert [b.identity for b in found] == [b.identity for b in expected]
        assert set(accuracy_without(network, batches)) == {b.block for b in found if b.identity}
        with as_measured(network), as_measured(ours), torch.no_grad():
            before = network(images)
            with taken_out(list(residual_blocks(network).values())[1]), taken_out(blocks[1]):
                torch.testing.assert_close(network(images), ours(images), rtol=1e-3, atol=1e-4)
                assert not torch.allclose(network(images), before, atol=1e-3)
            assert torch.equal(network(images), before)


def test_squeeze_and_excitation_is_part_of_the_branch():
    block = residual_blocks(Timm("seresnet18", num_classes=2, options={"drop_path_rate": 0.1}))["network.layer4.1"]
    assert block.last is block.whole.drop_path
    block = residual_blocks(Timm("seresnet18", num_classes=2))["network.layer4.1"]
    assert block.last is block.whole.se


def test_blocks_are_taken_out_one_at_a_time_and_put_back():
    class Net(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).mean((2, 3))

    network = Net(Block(0.5), Block(-2.0), Block(3.0, identity=False))
    images = torch.rand(8, 2, 4, 4)
    labels = images.mean((2, 3)).argmin(1)  # the second block's sign makes the smaller mean the larger logit
    batches = [(images[:5], labels[:5]), (images[5:], labels[5:])]
    assert accuracy(network, batches) == 1
    assert accuracy_without(network, batches) == {"0": 1.0, "1": 0.0}
    assert accuracy(network, batches) == 1
    assert not math.isnan(network[0].branch.weight.sum().item())
