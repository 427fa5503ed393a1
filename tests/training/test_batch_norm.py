"""Batch normalisation in our networks does what its formula says, computed by hand in float64 (docs/ideas)."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.plain import PlainNet
from zoo.architectures.resnet import ResNet

EXACT = {"rtol": 1e-10, "atol": 1e-12}
EPS, MOMENTUM = 1e-5, 0.1


def plain() -> PlainNet:
    """Its layers are a convolution, a normalisation and a ReLU in turn."""
    torch.manual_seed(0)
    network = PlainNet(num_classes=4, depth=6, width=0.5).double()
    with torch.no_grad():
        for norm in norms(network).values():
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_()
    return network


def norms(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}


def pictures(count: int = 6, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def around(network: PlainNet, images: Tensor) -> list[tuple[nn.BatchNorm2d, Tensor, Tensor]]:
    """Each normalisation with its input and its output."""
    names = [f"layers.{i}" for i in range(len(network.layers)) if i % 3 < 2]
    maps = list(network.features(images, names).values())
    return list(zip(norms(network).values(), maps[::2], maps[1::2], strict=True))


def of_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of a channel, over images and places; the variance divided by their number."""
    rows = x.transpose(0, 1).flatten(1)
    mean = rows.sum(1) / rows.shape[1]
    return mean, ((rows - mean[:, None]) ** 2).sum(1) / rows.shape[1]


def normalised(x: Tensor, mean: Tensor, variance: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    hat = (x - of_channel(mean)) / (of_channel(variance) + EPS).sqrt()
    return of_channel(norm.weight) * hat + of_channel(norm.bias)


def test_training_normalises_by_the_batch_and_then_scales_and_shifts():
    seen = around(plain().train(), pictures())
    assert len(seen) == 5
    for norm, x, y in seen:
        torch.testing.assert_close(y, normalised(x, *mean_and_variance(x), norm), **EXACT)
        mean, variance = mean_and_variance(y)
        torch.testing.assert_close(mean, norm.bias, **EXACT)
        torch.testing.assert_close(variance.sqrt(), norm.weight, rtol=1e-3, atol=0)  # but for epsilon


def test_running_statistics_follow_the_batches_with_the_unbiased_variance():
    network = plain().train()
    means, variances = (
        {norm: torch.full_like(norm.bias, start).detach() for norm in norms(network).values()} for start in (0.0, 1.0)
    )
    for seed in range(3):
        for norm, x, _ in around(network, pictures(seed=seed)):
            mean, variance = mean_and_variance(x)
            count = x.numel() / x.shape[1]
            means[norm] = (1 - MOMENTUM) * means[norm] + MOMENTUM * mean
            variances[norm] = (1 - MOMENTUM) * variances[norm] + MOMENTUM * variance * count / (count - 1)
    for norm in norms(network).values():
        torch.testing.assert_close(norm.running_mean, means[norm], **EXACT)
        torch.testing.assert_close(norm.running_var, variances[norm], **EXACT)
        assert int(norm.num_batches_tracked) == 3


def test_evaluation_uses_the_running_statistics_so_that_an_image_stands_alone():
    network, images = plain().train(), pictures()
    network(images)
    before = {name: buffer.clone() for name, buffer in network.eval().named_buffers()}
    for norm, x, y in around(network, images):
        torch.testing.assert_close(y, normalised(x, norm.running_mean, norm.running_var, norm), **EXACT)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), **EXACT)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    network.train()
    assert not torch.allclose(network(images)[:2], network(images[:2]))


def test_gradients_of_scale_shift_and_input_are_those_of_the_formula():
    network = plain().train()
    norm, x, _ = around(network, pictures())[1]
    x = x.detach().requires_grad_()
    gradient = torch.randn(x.shape, dtype=x.dtype)
    norm(x).backward(gradient)
    mean, variance = mean_and_variance(x.detach())
    sigma = (of_channel(variance) + EPS).sqrt()
    hat = (x.detach() - of_channel(mean)) / sigma
    over = (0, 2, 3)
    torch.testing.assert_close(norm.bias.grad, gradient.sum(over), **EXACT)
    torch.testing.assert_close(norm.weight.grad, (gradient * hat).sum(over), **EXACT)
    rest = gradient - gradient.mean(over, keepdim=True) - hat * (gradient * hat).mean(over, keepdim=True)
    torch.testing.assert_close(x.grad, of_channel(norm.weight) / sigma * rest, **EXACT)


def test_scale_and_shift_are_learnt_and_can_undo_the_normalisation():
    network = plain().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    F.cross_entropy(network(pictures()), torch.arange(6) % 4).backward()
    optimizer.step()
    for name in norms(network):
        for parameter in ("weight", "bias"):
            own = network.get_parameter(f"{name}.{parameter}")
            assert own.grad.abs().max() > 0
            torch.testing.assert_close(own, before[f"{name}.{parameter}"] - 0.1 * own.grad, **EXACT)
    norm, x, _ = around(network, pictures())[0]
    mean, variance = mean_and_variance(x)
    with torch.no_grad():
        norm.weight.copy_((variance + EPS).sqrt())
        norm.bias.copy_(mean)
        torch.testing.assert_close(norm(x), x, **EXACT)


def test_the_size_of_the_weights_in_front_does_not_matter():
    network, images = plain().train(), pictures()
    logits = network(images)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight *= 30
    torch.testing.assert_close(network(images), logits, rtol=1e-3, atol=1e-3)  # but for epsilon


def test_every_normalisation_of_a_residual_network_is_of_this_kind():
    found = norms(ResNet(num_classes=4, depth=8, width=0.25))
    assert len(found) == 7
    for norm in found.values():
        assert (norm.eps, norm.momentum, norm.affine, norm.track_running_stats) == (EPS, MOMENTUM, True, True)
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert torch.equal(norm.bias, torch.zeros_like(norm.bias))


# Two processes on one accelerator, each with half of the batch; arguments are the file where they meet, and the rank.
TWO = """
import sys
import torch
from torch import distributed, nn
from zoo.architectures.plain import PlainNet

rank, device = int(sys.argv[2]), torch.accelerator.current_accelerator()
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
torch.manual_seed(0)
whole = PlainNet(num_classes=4, depth=6, width=0.5).to(device)
torch.manual_seed(0)
shared = nn.SyncBatchNorm.convert_sync_batchnorm(PlainNet(num_classes=4, depth=6, width=0.5)).to(device)
assert whole.state_dict().keys() == shared.state_dict().keys()
images = torch.randn(8, 3, 8, 8, device=device)
rows = slice(4 * rank, 4 * rank + 4)
torch.testing.assert_close(shared(images[rows]), whole(images)[rows], rtol=1e-3, atol=1e-4)
for name, buffer in whole.named_buffers():
    torch.testing.assert_close(shared.get_buffer(name), buffer, rtol=1e-3, atol=1e-4)
distributed.destroy_process_group()
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="PyTorch synchronises batch norm on GPUs only")
def test_synchronised_statistics_are_those_of_the_whole_batch(tmp_path):
    words = [sys.executable, "-c", TWO, str(tmp_path / "meeting")]
    processes = [subprocess.Popen([*words, str(rank)], env=os.environ, stderr=subprocess.PIPE) for rank in (0, 1)]
    for process in processes:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()


def test_a_network_keeps_its_names_when_its_normalisation_is_synchronised():
    network = plain()
    names = network.state_dict().keys()
    shared = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert shared.state_dict().keys() == names
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in shared.modules()) == 5
