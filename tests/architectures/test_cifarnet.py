"""The network of fast CIFAR-10 training: its paper's size, its whitening, its first weights."""

from __future__ import annotations

import copy
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from running import different, folder_of, state, write_recipe, zoo
from torch.nn import functional as F

from zoo import load
from zoo.architectures.base import parameter_count
from zoo.architectures.cifarnet import CifarNet, whitening
from zoo.data import CIFAR10, Digits
from zoo.errors import UserError
from zoo.tasks.classification import Classification
from zoo.tasks.first_images import SeesImages

SMALL = {"class_path": "CifarNet", "init_args": {"width": 0.125}}


def natural(count: int = 40, channels: int = 3, side: int = 20) -> torch.Tensor:
    """Smooth random images whose channels go together, as in photographs."""
    torch.manual_seed(0)
    noise = F.interpolate(torch.randn(count, channels, side // 4, side // 4), size=side, mode="bicubic")
    return noise + noise.mean(1, keepdim=True) + 0.2 * torch.randn(count, channels, side, side)


def test_size_is_the_author_s() -> None:
    network = CifarNet()
    assert parameter_count(network) == 1_972_792
    fixed = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert fixed == {"whiten.weight", *(f"group{i}.norm{j}.weight" for i in (1, 2, 3) for j in (1, 2))}
    maps = network.features(torch.randn(2, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps.values()] == [(24, 31, 31), (64, 15, 15), (256, 7, 7), (256, 3, 3)]
    assert CifarNet(0, width=0.5)(torch.randn(1, 3, 45, 32)).shape == (1, 128, 5, 3)


def test_layers_in_their_order() -> None:
    """The forward pass in torch's own words, with batch statistics."""
    network, images = CifarNet(width=0.125).double(), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    x = F.gelu(F.conv2d(images, network.whiten.weight, network.whiten.bias))
    for group in (network.group1, network.group2, network.group3):
        x = F.max_pool2d(F.conv2d(x, group.conv1.weight, padding=1), 2)
        x = F.gelu(F.batch_norm(x, None, None, training=True, eps=1e-12))
        x = F.conv2d(x, group.conv2.weight, padding=1)
        x = F.gelu(F.batch_norm(x, None, None, training=True, eps=1e-12))
    expected = F.max_pool2d(x, 3).flatten(1) @ network.head.weight.T / 32
    torch.testing.assert_close(network(images), expected)
    mean = F.max_pool2d(F.conv2d(F.gelu(network.whiten(images)), network.group1.conv1.weight, padding=1), 2).mean(
        (0, 2, 3)
    )
    torch.testing.assert_close(network.group1.norm1.running_mean, 0.4 * mean)


def test_convolutions_start_as_the_identity_where_they_can() -> None:
    network, maps = CifarNet(), torch.randn(1, 64, 6, 6)
    torch.testing.assert_close(network.group2.conv1(maps)[:, :64], maps)
    torch.testing.assert_close(network.group1.conv2(maps), maps)
    assert float(network.group2.conv1.weight[64:].std()) == pytest.approx((3 * 64 * 9) ** -0.5, rel=0.02)  # torch's own
    assert float(network.head.weight.std()) == pytest.approx(1.0)
    other = CifarNet(init="forward")
    assert not torch.allclose(other.group1.conv2(maps), maps, atol=0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_are_uncorrelated(channels: int) -> None:
    images = natural(channels=channels)
    filters = whitening(images, eps=0.0, chunk=7)
    half = 4 * channels
    assert filters.shape == (2 * half, channels, 2, 2)
    assert torch.equal(filters[:half], -filters[half:])
    outputs = F.conv2d(images, filters[:half]).transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(outputs @ outputs.T / outputs.shape[1], torch.eye(half).double(), atol=1e-3, rtol=0)
    before = F.unfold(images, 2).transpose(0, 1).flatten(1).double()
    assert (before @ before.T / before.shape[1] - torch.eye(half)).abs().max() > 0.3
    damped = F.conv2d(images, whitening(images, eps=10.0)[:half]).square().mean((0, 2, 3))
    assert damped.max() < 1


def test_it_sees_images_once() -> None:
    network = CifarNet(width=0.125)
    assert isinstance(network, SeesImages)
    assert network.wants_images == 5000
    network.see(natural())
    assert network.wants_images == 0
    torch.testing.assert_close(network.whiten.weight, whitening(natural()))
    twin = CifarNet(width=0.125)
    twin.load_state_dict(network.state_dict())
    assert twin.wants_images == 0


def fitted(**options: Any) -> Classification:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    run = Trainer(accelerator="cpu", max_epochs=1, enable_checkpointing=False, **quiet, **options)
    task = Classification(partial(CifarNet, width=0.125), partial(torch.optim.SGD, lr=0.01))
    run.fit(task, datamodule=Digits(image_size=16, batch_size=500, val_fraction=0))
    return task


def test_the_task_shows_it_normalised_training_images() -> None:
    task = fitted(limit_train_batches=1)
    data = Digits(image_size=16, val_fraction=0)
    data.setup("fit")
    images = data.samples("train").fetch(torch.arange(len(data.samples("train"))))[0] / 255
    images = F.interpolate(images, size=(16, 16), mode="bilinear", antialias=True).clamp(0, 1)
    mean, std = data.facts["mean"][0], data.facts["std"][0]
    torch.testing.assert_close(task.architecture.whiten.weight, whitening((images - mean) / std), atol=1e-4, rtol=1e-3)


def test_a_resumed_run_keeps_what_it_saw(tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    see = CifarNet.see
    monkeypatch.setattr(CifarNet, "see", lambda self, images: (looks.append(len(images)), see(self, images)))
    model = {"class_path": "Classification", "init_args": {"architecture": SMALL, "optimizer": "SGD"}}
    average = {"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.5}}
    data = {"class_path": "Digits", "init_args": {"image_size": 16, "augment": ["FlipAlternately"], "val_fraction": 0}}
    options = {"limit_train_batches": 2, "callbacks": [average]}
    recipe = write_recipe(tmp_path / "case.yaml", model, data, **options)
    assert zoo("fit", "--config", str(recipe), "--no_test", "--checkpoint_every_n_steps", "1") == 0
    whole = folder_of("case") / "checkpoints"
    assert looks == [1438]
    alone = shutil.copy(whole / "step=3.ckpt", tmp_path / "alone.ckpt")
    assert zoo("fit", "--ckpt_path", str(alone), "--no_test") == 0
    assert not different(state(whole / "last.ckpt"), state(folder_of("case") / "checkpoints" / "last.ckpt"))
    task = load(whole / "last.ckpt")
    assert task.architecture.wants_images == 0
    model["init_args"]["weights"] = str(whole / "last.ckpt")  # what fine-tuning starts from has seen its images
    recipe = write_recipe(tmp_path / "fine.yaml", model, data, **options)
    assert zoo("fit", "--config", str(recipe), "--no_test") == 0
    assert looks == [1438]


def test_the_fast_recipe_resumes_exactly(tmp_path: Path, workspace: Path) -> None:
    CIFAR10.write_example(tmp_path / "files")
    few = ["--data.root", str(tmp_path / "files"), "--data.check", "false", "--data.batch_size", "12"]
    few += ["--trainer.max_epochs", "2", "--trainer.logger", "false", "--trainer.accelerator", "cpu"]
    small = ["--model.architecture.width", "0.125", "--no_test", "--checkpoint_every_n_steps", "1"]
    assert zoo("fit", "--config", "cifar10/fast", *few, *small) == 0
    whole = folder_of("cifar10/fast") / "checkpoints"
    assert state(whole / "last.ckpt")["global_step"] == 6
    for step in (2, 4):
        alone = shutil.copy(whole / f"step={step}.ckpt", tmp_path / "alone.ckpt")
        assert zoo("fit", "--ckpt_path", str(alone), "--no_test") == 0
        found = different(state(whole / "last.ckpt"), state(folder_of("cifar10/fast") / "checkpoints" / "last.ckpt"))
        assert not found, f"resumed at step {step}, these differ: {found[:5]}"


def test_data_that_shows_nothing() -> None:
    from zoo_toys.data import ToyTensors

    class Coloured(ToyTensors):
        facts = {"num_classes": 3, "in_channels": 3, "image_size": [16, 16]}  # type: ignore[assignment]

    task = Classification(partial(CifarNet, width=0.125))
    run = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match="needs 5000 training images, but Coloured provides none"):
        run.fit(task, datamodule=Coloured())


def test_errors() -> None:
    with pytest.raises(UserError, match="at least 9×9 pixels, not 8×32"):
        CifarNet()(torch.randn(1, 3, 8, 32))
    assert CifarNet(3, width=0.1)(torch.randn(2, 3, 9, 9)).shape == (2, 3)
    with pytest.raises(UserError, match="width above 0"):
        CifarNet(width=0)
    copy.deepcopy(CifarNet(width=0.1))
