"""DenseNet against its paper's numbers, torchvision's network, and what "dense" and "memory-saving" mean."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from zoo.architectures.base import parameter_count
from zoo.architectures.densenet import BottleneckLayer, DenseNet, Transition
from zoo.errors import UserError
from zoo.testing.architectures import randomise

PLAIN: dict[str, Any] = {"bottleneck": False, "compression": 1.0}
KINDS = pytest.mark.parametrize("kind", [{"depth": 16}, {"depth": 13, **PLAIN}], ids=["bottleneck", "plain"])


def small(**changes: Any) -> DenseNet:
    torch.manual_seed(0)
    return DenseNet(**{"num_classes": 5, "depth": 16, "growth_rate": 4, **changes})


@pytest.mark.parametrize(
    ("arguments", "millions"),  # table 2; 769,162 is the authors' code's
    [
        ({"depth": 40, **PLAIN}, 1.0),
        ({"depth": 100, **PLAIN}, 7.0),
        ({"depth": 100}, 0.769162),
        ({"depth": 250, "growth_rate": 24}, 15.3),
        ({"depth": 190, "growth_rate": 40}, 25.6),
    ],
)
def test_parameters_of_the_paper(arguments: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        count = parameter_count(DenseNet(10, **arguments)) / 1e6
    assert round(count, len(str(millions).partition(".")[2])) == millions


def test_depth_counts_convolutions_and_the_linear_layer() -> None:
    for arguments in ({"depth": 40, **PLAIN}, {"depth": 100}, {"depth": 121}, {"depth": 201}):
        with torch.device("meta"):
            network = DenseNet(**arguments)
        assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == arguments["depth"]


@pytest.mark.parametrize("depth", [121, 161, 169, 201])
def test_torchvision_s_tensors_have_their_places(depth: int) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"densenet{depth}")()
        told = DenseNet(depth=depth).load_state_dict(theirs.state_dict(), strict=False)
    assert not told.missing_keys
    assert not told.unexpected_keys


@pytest.mark.parametrize("training", [False, True])
def test_same_output_as_torchvision(training: bool) -> None:
    theirs = torchvision.models.densenet121(num_classes=7).train(training)
    randomise(theirs)
    ours = DenseNet(7, depth=121).train(training)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(3, 3, 48, 64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
    state = dict(ours.layers.named_buffers())  # what training mode has written
    for name, expected in theirs.features.named_buffers():
        torch.testing.assert_close(state[name], expected, rtol=1e-5, atol=1e-5)


def test_names_in_torchvision_s_files() -> None:
    """Its files were written by an old version, with a dot: ``denselayer1.norm.1.weight``."""
    with torch.device("meta"):
        state = torchvision.models.densenet121().state_dict()
        old = {}
        for name, tensor in state.items():
            for part in ("norm", "relu", "conv"):
                for number in "12":
                    if "denselayer" in name:
                        name = name.replace(f".{part}{number}.", f".{part}.{number}.")
            old[name] = tensor
        assert old.keys() != state.keys()
        DenseNet().load_state_dict(old)


def seen(network: DenseNet, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What goes into the modules and what comes out, by name."""
    into: dict[str, Tensor] = {}
    out: dict[str, Tensor] = {}

    def note(name: str, given: Any, made: Tensor) -> None:
        into[name], out[name] = given[0].clone() if isinstance(given[0], Tensor) else given[0], made.clone()

    wanted = [(n, m) for n, m in network.named_modules() if n.rpartition(".")[2] not in ("relu1", "relu2", "relu")]
    handles = [m.register_forward_hook(lambda _m, given, made, n=n: note(n, given, made)) for n, m in wanted]
    network(images)
    for handle in handles:
        handle.remove()
    return into, out


@KINDS
def test_a_layer_sees_all_outputs_before_it(kind: dict[str, Any]) -> None:
    network = small(**kind).eval()
    randomise(network)
    into, out = seen(network, torch.randn(2, 3, 8, 8))
    for block in ("layers.denseblock1", "layers.denseblock2", "layers.denseblock3"):
        outputs = [into[block]]
        for layer in network.get_submodule(block):
            assert torch.equal(into[f"{block}.{layer}.norm1"], torch.cat(outputs, 1))
            last = "conv2" if "bottleneck" not in kind else "conv1"
            outputs.append(out[f"{block}.{layer}.{last}"])
            assert outputs[-1].shape[1] == 4
        assert torch.equal(out[block], torch.cat(outputs, 1))


def test_transitions_separate_the_blocks() -> None:
    network = small().eval()
    into, out = seen(network, torch.randn(2, 3, 12, 12))
    assert [n for n, m in network.layers.named_children() if isinstance(m, Transition)] == [
        "transition1",
        "transition2",
    ]
    for i in (1, 2):
        norm, _, conv, pool = network.layers.get_submodule(f"transition{i}")
        assert conv.kernel_size == (1, 1)
        assert torch.equal(into[f"layers.transition{i}"], out[f"layers.denseblock{i}"])
        # By hand: 2×2 means of a 1×1 convolution of the rectified, normalised maps, half as many.
        maps = torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], norm(into[f"layers.transition{i}"]).relu())
        means = maps.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
        torch.testing.assert_close(into[f"layers.denseblock{i + 1}"], means, rtol=1e-5, atol=1e-6)
        assert means.shape[1] == maps.shape[1] == into[f"layers.transition{i}"].shape[1] // 2
        assert isinstance(pool, nn.AvgPool2d)


def steps(network: DenseNet, images: Tensor, count: int = 2) -> dict[str, Tensor]:
    """Gradients and buffers after some passes forward and backward in training mode."""
    network.train()
    for _ in range(count):
        network(images).square().sum().backward()
    return {**{n: p.grad for n, p in network.named_parameters()}, **dict(network.named_buffers())}


@KINDS
def test_memory_saving_changes_no_number(kind: dict[str, Any]) -> None:
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    normal, lean = small(**kind).double(), small(**kind, memory_efficient=True).double()
    lean.load_state_dict(normal.state_dict())
    expected, found = steps(normal, images), steps(lean, images)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
    assert {int(v) for n, v in found.items() if n.endswith("num_batches_tracked")} == {2}


def test_memory_saving_goes_backward_twice() -> None:
    network = small(memory_efficient=True).train()
    loss = network(torch.randn(3, 3, 8, 8)).sum()
    before = deepcopy(dict(network.named_buffers()))
    first = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(network.parameters()))
    torch.testing.assert_close(first, second)
    assert all(torch.equal(v, before[n]) for n, v in network.named_buffers())


def test_memory_saving_is_compiled() -> None:
    """A compiled layer, too, has the same gradients and counts a batch once."""
    outputs = [torch.randn(3, 4, 4, 4), torch.randn(3, 2, 4, 4)]
    normal, lean = BottleneckLayer(6, 2), BottleneckLayer(6, 2, memory_efficient=True)
    lean.load_state_dict(normal.state_dict())
    lean.compile(backend="aot_eager")
    for layer in (normal, lean):
        layer(outputs).square().sum().backward()
    for expected, found in zip(normal.parameters(), lean.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(dict(lean.named_buffers()), dict(normal.named_buffers()))


def kept_bytes(network: DenseNet, images: Tensor) -> int:
    """Bytes of activations that autograd keeps for the backward pass; checkpointing saves its inputs there, too."""
    own = {p.untyped_storage().data_ptr() for p in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}  # by storage; holding the tensors keeps addresses from being used again

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(images)
    return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in own)


@pytest.mark.parametrize(
    ("arguments", "factor"), [({"depth": 40, **PLAIN}, 8), ({"depth": 100}, 3), ({"depth": 121}, 2)]
)
def test_memory_saving_keeps_less(arguments: dict[str, Any], factor: float) -> None:
    images = torch.randn(2, 3, 32, 32)
    normal, lean = (kept_bytes(DenseNet(10, **arguments, memory_efficient=m), images) for m in (False, True))
    assert lean * factor < normal


@pytest.mark.parametrize(
    ("row", "arguments", "pixels"),
    [
        ("40 layers, k = 12", {"depth": 40, **PLAIN}, 32),
        ("BC, 100 layers, k = 12", {"depth": 100}, 32),
        ("BC, 190 layers, k = 40", {"depth": 190, "growth_rate": 40}, 32),
        ("121 layers, k = 32", {"depth": 121}, 224),
    ],
)
def test_the_page_says_what_is_kept(row: str, arguments: dict[str, Any], pixels: int, repo: Path) -> None:
    text = (repo / "docs" / "ideas" / "dense.md").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {row} | {pixels}×{pixels} |"))
    normal, lean, ratio = (float(word) for word in re.findall(r"\d+\.\d+", line))
    image = torch.randn(1, 3, pixels, pixels)
    kept = [kept_bytes(DenseNet(10, **arguments, memory_efficient=m), image) / 1e6 for m in (False, True)]
    assert kept == pytest.approx([normal, lean], rel=0.02)
    assert kept[0] / kept[1] == pytest.approx(ratio, rel=0.02)


def test_initialisation() -> None:
    """He et al.'s by fan-in: what stands behind a ReLU has a variance of 2 / fan-in."""
    network = small(depth=22, growth_rate=32)
    conv = network.layers.get_submodule("denseblock1.denselayer3.conv2")
    assert conv.weight.std().item() == pytest.approx((2 / (4 * 32 * 9)) ** 0.5, rel=0.02)
    assert not network.classifier.bias.any()


def test_layers_by_kind() -> None:
    assert any(isinstance(m, BottleneckLayer) for m in small().modules())
    assert not any(isinstance(m, BottleneckLayer) for m in small(depth=13, **PLAIN).modules())
    assert small().layers.conv0.out_channels == 8
    assert small(depth=13, **PLAIN).layers.conv0.out_channels == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 41}, "next are 40 and 46"),
        ({"depth": 5}, "next are 10 and 16"),
        ({"depth": 121, "bottleneck": False}, "which has bottlenecks"),
        ({"compression": 0.0}, "compression must be above 0"),
        ({"growth_rate": 0}, "growth_rate at least 1"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**arguments)


@pytest.mark.parametrize(("depth", "side"), [(16, 4), (121, 29)])
def test_smallest_images(depth: int, side: int) -> None:
    network = small(depth=depth).eval()
    assert network(torch.randn(1, 3, side, side + 3)).shape == (1, 5)
    with pytest.raises(UserError, match=f"at least {side}×{side} pixels, not {side + 3}×{side - 1}"):
        network(torch.randn(1, 3, side + 3, side - 1))
