"""Optimisers against independent ones, and several of them as one."""

import copy
import shutil
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from running import different, folder_of, state, write_recipe, zoo
from torch import nn
from torch.optim import LBFGS, SGD, Adam
from torch.optim.lr_scheduler import OneCycleLR

from zoo import load
from zoo.architectures.resnet import ResNet
from zoo.architectures.timm import Timm
from zoo.architectures.torchvision import TorchVision
from zoo.errors import UserError
from zoo.training.checkpoints import read
from zoo.training.optimizers import MultiOptimizer, Muon, orthogonalised
from zoo.training.parameter_groups import make_optimizer, split_parameters
from zoo.training.schedulers import WarmupCosine

# Orthogonalisation


@pytest.mark.parametrize("shape", [(64, 216), (216, 64), (48, 48)])
def test_all_singular_values_become_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    U, S, Vh = torch.linalg.svd(torch.randn(shape).double(), full_matrices=False)
    S = torch.logspace(0, -1, len(S), dtype=torch.float64)
    found = orthogonalised((U * S @ Vh).float() * 37).double()
    values = torch.linalg.svdvals(found)
    assert 0.65 < values.min() < values.max() < 1.25
    # In the same singular vectors: what is left off their diagonal is bfloat16's error.
    inner = U.T @ found @ Vh.T
    assert (inner - inner.diag().diag()).abs().max() < 0.05
    assert (inner.diag() - 1).abs().max() < 0.35


def test_fewer_steps_leave_small_ones_small() -> None:
    torch.manual_seed(0)
    U, S, Vh = torch.linalg.svd(torch.randn(64, 216), full_matrices=False)
    matrix = U * torch.logspace(0, -2, len(S)) @ Vh
    few, many = (torch.linalg.svdvals(orthogonalised(matrix, steps).float()).min() for steps in (3, 5))
    assert few < 0.3 < 0.6 < many
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4, dtype=torch.bfloat16))


# Muon


def filters(seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(seed)))


def step_with(optimizer: torch.optim.Optimizer, *parameters: nn.Parameter, steps: int = 3) -> None:
    for i in range(steps):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 + i))
        optimizer.step()


def test_without_held_norms_it_is_timm_s() -> None:
    theirs = pytest.importorskip("timm.optim.muon")
    one, other = filters(), filters()
    step_with(Muon([one], lr=0.1, momentum=0.6), one)
    options = {"momentum": 0.6, "weight_decay": 0.0, "nesterov": True, "adjust_lr_fn": "original"}
    step_with(theirs.Muon([other], lr=0.1, ns_coefficients="original", **options), other)
    # Both orthogonalise in bfloat16, one by sums of gradients and the other by their means.
    torch.testing.assert_close(one, other, atol=0.01, rtol=0)
    assert (one - filters()).abs().max() > 0.05


def test_of_matrices_it_is_torch_s() -> None:
    ours, theirs = (nn.Parameter(torch.eye(6, 10)) for _ in range(2))
    step_with(Muon([ours], lr=0.1), ours)
    step_with(torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0), theirs)
    torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0)


def test_norms_are_held() -> None:
    p = filters()
    step_with(Muon([p], lr=0.0, hold_norm=True), p, steps=1)
    torch.testing.assert_close(p, filters() * (8**0.5 / filters().norm()))


def test_momentum_without_a_look_ahead() -> None:
    p = nn.Parameter(torch.zeros(4, 6))
    step_with(Muon([p], lr=1.0, momentum=0.5, nesterov=False), p, steps=2)
    first, second = (torch.randn(4, 6, generator=torch.Generator().manual_seed(10 + i)) for i in range(2))
    torch.testing.assert_close(
        p, -(orthogonalised(first) + orthogonalised(0.5 * first + second)).float(), atol=0.02, rtol=0
    )


def test_biases_are_refused() -> None:
    with pytest.raises(UserError, match="two dimensions or more"):
        Muon([nn.Parameter(torch.zeros(3))])


# MultiOptimizer


def pair() -> tuple[nn.Parameter, nn.Parameter, MultiOptimizer]:
    weight, bias = filters(), nn.Parameter(torch.ones(5))
    return weight, bias, MultiOptimizer([Muon([weight], lr=0.1), SGD([bias], lr=0.5, momentum=0.9)])


def test_one_step_is_one_of_each() -> None:
    weight, bias, both = pair()
    alone, other = filters(), nn.Parameter(torch.ones(5))
    step_with(both, weight, bias)
    step_with(Muon([alone], lr=0.1), alone)
    step_with(SGD([other], lr=0.5, momentum=0.9), other)
    assert torch.equal(weight, alone)
    assert torch.equal(bias, other)
    assert set(both.state) == {weight, bias}


def test_the_loss_is_computed_once() -> None:
    weight, bias, both = pair()
    calls = []

    def closure() -> torch.Tensor:
        calls.append(1)
        both.zero_grad()
        loss = weight.square().sum() + bias.square().sum()
        loss.backward()
        return loss

    before = bias.detach().clone()
    assert both.step(closure).item() == pytest.approx(float(filters().square().sum() + 5))
    assert len(calls) == 1
    assert not torch.equal(bias, before)


def test_schedules_and_rates_reach_all() -> None:
    weight, bias, both = pair()
    schedule = WarmupCosine(both, total_steps=10, warmup_steps=2)
    assert [g["lr"] for g in both.param_groups] == [0.05, 0.25]
    assert [g["lr"] for one in both.optimizers for g in one.param_groups] == [0.05, 0.25]
    assert schedule.base_lrs == [0.1, 0.5]
    both.param_groups[1]["lr"] = 0.0
    before = bias.detach().clone()
    step_with(both, weight, bias, steps=1)
    assert torch.equal(bias, before)


def test_one_cycle_wants_a_momentum_in_each() -> None:
    *_, both = pair()
    OneCycleLR(both, max_lr=1.0, total_steps=10)
    assert [g["momentum"] for g in both.param_groups] == [0.95, 0.95]
    mixed = MultiOptimizer([Muon([filters()]), Adam([nn.Parameter(torch.ones(2))])])
    with pytest.raises(ValueError, match="momentum"):
        OneCycleLR(mixed, max_lr=1.0, total_steps=10)
    OneCycleLR(mixed, max_lr=1.0, total_steps=10, cycle_momentum=False)


@pytest.mark.parametrize("second", [partial(SGD, momentum=0.9), partial(Adam, foreach=False)])
def test_state_goes_on_exactly(second: Any) -> None:
    def made() -> tuple[nn.Parameter, nn.Parameter, MultiOptimizer]:
        weight, bias = filters(), nn.Parameter(torch.ones(5))
        return weight, bias, MultiOptimizer([Muon([weight], lr=0.1), second([bias], lr=0.5)])

    weight, bias, whole = made()
    step_with(whole, weight, bias)
    saved = copy.deepcopy(whole.state_dict())
    weight2, bias2, again = made()
    weight2.data.copy_(weight.data)
    bias2.data.copy_(bias.data)
    again.load_state_dict(saved)
    step_with(whole, weight, bias)
    step_with(again, weight2, bias2)
    assert torch.equal(weight, weight2)
    assert torch.equal(bias, bias2)
    assert again.param_groups[1] is again.optimizers[1].param_groups[0]


def test_copies_are_whole() -> None:
    weight, bias, both = pair()
    step_with(both, weight, bias)
    twin = copy.deepcopy(both)
    (copied,) = twin.param_groups[1]["params"]
    copied.grad = torch.ones(5)
    before = copied.detach().clone()
    twin.step()
    assert not torch.equal(copied, before)


def test_several_losses_a_step_are_refused() -> None:
    with pytest.raises(UserError, match="LBFGS"):
        MultiOptimizer([LBFGS([filters()]), SGD([nn.Parameter(torch.ones(2))])])


# In a run

BOTH = {
    "class_path": "Classification",
    "init_args": {
        "architecture": "LeNet",
        "optimizer": {"class_path": "SGD", "init_args": {"lr": 0.05, "momentum": 0.9}},
        "scheduler": {"class_path": "WarmupCosine", "init_args": {"warmup_steps": 1}},
        "parameter_groups": [
            {"pattern": "bias|coefficient", "lr": 0.1, "weight_decay": 0.01},
            {"pattern": r"^c\d", "optimizer": {"class_path": "zoo.parts.Muon", "init_args": {"lr": 0.02, "steps": 3}}},
        ],
    },
}
FEW = {"limit_train_batches": 3, "limit_val_batches": 1, "accumulate_grad_batches": 1, "gradient_clip_val": 1.0}


def test_a_recipe_of_two_optimisers_resumes_exactly(tmp_path: Path, workspace: Path) -> None:
    data = {"class_path": "Digits", "init_args": {"image_size": 16}}
    recipe = write_recipe(tmp_path / "case.yaml", BOTH, data, **FEW)
    assert zoo("fit", "--config", str(recipe), "--no_test", "--checkpoint_every_n_steps", "1") == 0
    whole = folder_of("case") / "checkpoints"
    wanted = state(whole / "last.ckpt")
    assert wanted["global_step"] == 6
    for step in range(1, 6):
        alone = shutil.copy(whole / f"step={step}.ckpt", tmp_path / "alone.ckpt")
        assert zoo("fit", "--ckpt_path", str(alone), "--no_test") == 0
        found = different(wanted, state(folder_of("case") / "checkpoints" / "last.ckpt"))
        assert not found, f"resumed at step {step}, these differ: {found[:5]}"


def test_groups_are_kept_as_plain_data(tmp_path: Path, workspace: Path) -> None:
    data = {"class_path": "Digits", "init_args": {"image_size": 16}}
    recipe = write_recipe(tmp_path / "case.yaml", BOTH, data, **FEW)
    assert zoo("fit", "--config", str(recipe), "--no_test") == 0
    file = folder_of("case") / "checkpoints" / "last.ckpt"
    written = read(file)["hyper_parameters"]["parameter_groups"]
    assert written[1]["optimizer"]["class_path"] == "zoo.parts.Muon"
    assert written[1]["optimizer"]["init_args"]["steps"] == 3
    task = load(file)
    for _ in range(2):  # what was loaded, and what is written of it
        made = task.parameter_groups[1]["optimizer"]([filters()])
        assert isinstance(made, Muon)
        assert made.defaults["lr"] == 0.02
        checkpoint: dict[str, Any] = {}
        task.on_save_checkpoint(checkpoint)
        assert checkpoint["hyper_parameters"]["parameter_groups"] == written
        copy.deepcopy(task)


def test_a_group_may_name_optimisers_only(tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("torch.nn.Linear", "os.system"):
        model = copy.deepcopy(BOTH)
        model["init_args"]["parameter_groups"] = [{"pattern": "c1", "optimizer": {"class_path": wrong}}]
        recipe = write_recipe(tmp_path / "case.yaml", model, {"class_path": "Digits"})
        assert zoo("fit", "--config", str(recipe)) == 2
        assert wrong.rpartition(".")[2] in capsys.readouterr().err


# Groups by the network's own words


def test_one_rate_changes_all_groups_that_have_a_factor() -> None:
    network = ResNet(depth=18, width=0.125, num_classes=3)
    groups = [{"part": "head"}, {"pattern": "", "lr_factor": 0.1}]
    for lr in (0.5, 2.0):
        made = make_optimizer(partial(SGD, lr=lr), split_parameters(network, cast(Any, groups)))
        assert [group["lr"] for group in made.param_groups] == pytest.approx([lr, lr / 10])
        assert [id(p) for p in made.param_groups[0]["params"]] == [id(p) for p in list(network.parameters())[-2:]]
        assert all("lr_factor" not in group for group in made.param_groups)


@pytest.mark.parametrize(
    ("group", "line"),
    [
        ({"part": "head", "pattern": "x"}, "either a pattern, or a part"),
        ({"lr": 0.1}, "either a pattern, or a part"),
        ({"part": "head", "lr_factor": 2.0, "lr": 0.1}, "has lr_factor and lr"),
        ({"part": "head", "lr_factor": 2.0, "frozen": True}, "lr_factor has no effect"),
        ({"part": "head", "lr_factor": -1.0}, "at least 0"),
    ],
)
def test_groups_that_contradict_themselves_are_refused(group: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        split_parameters(ResNet(depth=18, width=0.125, num_classes=3), [cast(Any, group)])


def test_only_a_network_of_the_zoo_has_a_head() -> None:
    with pytest.raises(UserError, match="Linear has no head"):
        split_parameters(nn.Linear(2, 2), [{"part": "head"}])


@pytest.mark.parametrize(
    ("network", "head"),
    [
        (partial(Timm, "resnet18", num_classes=3), ["network.fc"]),
        (partial(Timm, "deit_tiny_distilled_patch16_224", num_classes=3), ["network.head", "network.head_dist"]),
        (partial(TorchVision, "mobilenet_v3_small", num_classes=3), ["network.classifier.3"]),
        (partial(TorchVision, "squeezenet1_1", num_classes=3), ["network.classifier.1"]),
    ],
)
def test_libraries_networks_name_their_heads(network: Any, head: list[str]) -> None:
    with torch.device("meta"):
        assert list(network().head_layers) == head
