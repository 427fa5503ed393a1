"""EfficientNet-Lite0 and its packaged weights, on photographs."""

from __future__ import annotations

import json
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import timm
import torch
from lightning.pytorch import Trainer
from PIL import Image
from running import folder_of, write_recipe, zoo
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from zoo import load
from zoo.architectures.base import parameter_count, skip_pretrained
from zoo.architectures.efficientnet_lite import EfficientNetLite0, imagenet_weights
from zoo.data.mnist import MNIST5k
from zoo.errors import UserError
from zoo.tasks.classification import Classification

SIZE: dict[str, Any] = {"in_channels": 3, "image_size": [32, 32]}
VIEW = v2.Compose(
    [v2.Resize(256), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])]
)


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return EfficientNetLite0().eval()


def seen(array: Any) -> Tensor:
    return VIEW(F.to_image(array))


def test_parameters(network: EfficientNetLite0) -> None:
    """4.7 M of the published table; the tensors of the package, each once."""
    assert parameter_count(network) == 4_652_008
    assert all(torch.equal(t, network.network.state_dict()[name]) for name, t in imagenet_weights().items())


@torch.no_grad()
def test_tells_photographs_apart(network: EfficientNetLite0) -> None:
    names = timm.data.ImageNetInfo()
    pictures = [skimage.data.chelsea(), skimage.data.coffee(), skimage.data.rocket()]
    top = network(torch.stack([seen(p) for p in pictures])).topk(3).indices.tolist()
    told = [" ".join(names.index_to_description(i) for i in row) for row in top]
    for words, expected in zip(told, ("cat", "espresso", "missile"), strict=True):
        assert expected in words.lower()


@pytest.mark.data
@torch.no_grad()
def test_top1_on_imagenet_photographs(network: EfficientNetLite0) -> None:
    """Every fifth of one photograph a class; 87.0 % were measured on all of them elsewhere."""
    root = Path(os.environ.get("ZOO_DATA", "none")) / "imagenet-sample"
    if not root.is_dir():
        pytest.skip("no imagenet-sample below ZOO_DATA")
    files = [next(folder.iterdir()) for folder in sorted(root.iterdir())][::5]
    right = 0
    for start in range(0, len(files), 25):
        images = torch.stack([VIEW(F.to_image(Image.open(f).convert("RGB"))) for f in files[start : start + 25]])
        labels = torch.arange(start, start + len(images)) * 5
        right += int((network(images).argmax(1) == labels).sum())
    assert right / len(files) >= 0.86


@torch.no_grad()
def test_grey_is_a_picture_repeated(network: EfficientNetLite0) -> None:
    grey = torch.rand(2, 1, 64, 64)
    ours = EfficientNetLite0(in_channels=1).eval()
    torch.testing.assert_close(ours(grey), network(grey.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_other_classes_and_backbone(network: EfficientNetLite0) -> None:
    images = torch.rand(2, 3, 64, 64)
    torch.manual_seed(0)
    ten = EfficientNetLite0(num_classes=10).eval()
    backbone = EfficientNetLite0(num_classes=0).eval()
    (last,) = network.features(images, ["network.blocks.6"]).values()
    assert ten(images).shape == (2, 10)
    assert torch.equal(ten.features(images, ["network.blocks.6"])["network.blocks.6"], last)
    assert torch.equal(backbone(images), last)
    assert [stage.channels for stage in backbone.stages] == [16, 24, 40, 112, 320]


@torch.no_grad()
def test_two_classes_start_equally_probable() -> None:
    """timm's default last layer would have a standard deviation of 0.4, and the loss would be 2.9."""
    torch.manual_seed(0)
    network = EfficientNetLite0(num_classes=2).eval()
    photographs = torch.stack([seen(p) for p in (skimage.data.chelsea(), skimage.data.coffee())])
    for labels in ([0, 0], [1, 1], [0, 1]):
        loss = nn.functional.cross_entropy(network(photographs), torch.tensor(labels))
        assert loss.item() == pytest.approx(math.log(2), abs=0.15)
    assert EfficientNetLite0(num_classes=2, weights=None).network.classifier.weight.std() > 0.3  # as timm draws it


def test_none_are_random() -> None:
    stem = EfficientNetLite0(weights=None).network.conv_stem.weight
    assert not torch.allclose(stem, imagenet_weights()["conv_stem.weight"])


def test_predicts_by_its_own_classes(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With neither checkpoint nor data set: one command gives names."""
    picture = str(Path(skimage.data.__file__).parent / "chelsea.png")
    named = ["--model", "Classification", "--model.architecture", "EfficientNetLite0"]
    photo = ["--data", "ImageFolder", "--data.image_size", "64", "--data.files", picture]
    assert zoo("predict", *named, *photo, "--out", "told") == 0
    (row,) = json.loads(Path("told/predictions.json").read_text())
    assert "cat" in row["class"]
    assert len({guess["class"] for guess in row["top"]}) == 5
    assert "untrained" not in capsys.readouterr().err
    photo[1] = "CIFAR10"
    assert zoo("predict", *named, "--model.architecture.weights", "null", *photo, "--out", "guessed") == 0
    assert "the network is untrained" in capsys.readouterr().err


def test_its_classes_are_those_of_its_own_weights() -> None:
    def facts(known: dict[str, Any], **arguments: Any) -> Any:
        task = Classification(partial(EfficientNetLite0, **arguments), facts={**SIZE, **known})
        task.configure_model()
        return task.facts

    assert facts({})["num_classes"] == 1000
    assert facts({})["class_names"][285] == "Egyptian cat"
    assert "class_names" not in facts({"num_classes": 3})
    assert "class_names" not in facts({"num_classes": 1000}, weights=None)
    own = [f"kind {k}" for k in range(1000)]
    assert facts({"num_classes": 1000, "class_names": own})["class_names"] == own
    for arguments in ({"weights": None}, {"num_classes": 3}):
        with pytest.raises(UserError, match="needs num_classes"):
            facts({}, **arguments)
    with skip_pretrained():  # a checkpoint's, whose classes only it knows
        assert "class_names" not in facts({"num_classes": 1000})


def trained(groups: list[Any]) -> tuple[Classification, Path]:
    """A task after two steps of training on digits, and its checkpoint."""
    task = Classification(EfficientNetLite0, parameter_groups=groups)
    data = MNIST5k(image_size=32, batch_size=8)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_steps=2, limit_val_batches=0, accelerator="cpu", enable_model_summary=False, **options)
    trainer.fit(task, data)
    trainer.save_checkpoint(Path("probe.ckpt"))
    return task, Path("probe.ckpt")


def test_linear_probe_moves_nothing_but_the_head() -> None:
    """Neither weights nor running statistics."""
    task, _ = trained([{"pattern": r"^network\.(?!classifier)", "frozen": True}])
    given, now = EfficientNetLite0(in_channels=1).network.state_dict(), task.architecture.network.state_dict()
    moved = [name for name in given if not name.startswith("classifier") and not torch.equal(given[name], now[name])]
    assert not moved
    assert now["classifier.bias"].abs().max() > 0


def test_fine_tuning_moves_all_of_it() -> None:
    task, _ = trained([{"pattern": "classifier"}, {"pattern": "", "lr": 0.001}])
    given, now = imagenet_weights(), task.architecture.network.state_dict()
    moved = [n for n in now if given[n].shape == now[n].shape and not torch.equal(given[n], now[n])]
    assert {"bn1.running_mean", "blocks.0.0.conv_dw.weight", "conv_head.weight"} <= set(moved)


def test_checkpoint_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is loaded where the package with the weights is missing."""
    task, file = trained([])
    monkeypatch.setattr("zoo.architectures.efficientnet_lite.imagenet_weights", lambda: pytest.fail("looked for them"))
    loaded = load(file)
    assert torch.equal(loaded.architecture.network.conv_stem.weight, task.architecture.network.conv_stem.weight)


def test_resumes_and_tests_without_the_package(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_recipe(
        Path("tune.yaml"),
        {
            "class_path": "Classification",
            "init_args": {"architecture": {"class_path": "EfficientNetLite0", "init_args": {"weights": "imagenet"}}},
        },
        {"class_path": "MNIST5k", "init_args": {"image_size": 32, "batch_size": 8, "eval_batch_size": 8}},
        limit_train_batches=1,
        limit_val_batches=1,
        limit_test_batches=1,
    )
    assert zoo("fit", "--config", str(recipe), "--no_test", "--trainer.max_epochs", "1") == 0
    last = str(folder_of("tune") / "checkpoints" / "last.ckpt")
    monkeypatch.setattr("zoo.architectures.efficientnet_lite.imagenet_weights", lambda: pytest.fail("looked for them"))
    assert zoo("fit", "--ckpt_path", last, "--trainer.max_epochs", "2") == 0
    assert zoo("test", "--ckpt_path", last) == 0
