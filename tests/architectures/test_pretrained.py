"""A network with weights from a file, in any place that takes a network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zoo import load
from zoo.architectures.adain import AdaIN
from zoo.architectures.pretrained import Pretrained
from zoo.architectures.vgg import VGG
from zoo.errors import UserError
from zoo.tasks.classification import Classification

SMALL: Any = partial(VGG, depth=11, width=0.0625, norm="batch")
FACTS: Any = {"num_classes": 4, "in_channels": 3, "image_size": [32, 32], "mean": [0.1, 0.2, 0.3], "std": [0.4] * 3}


def same(network: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in network.state_dict().items())


@pytest.fixture
def classifier(tmp_path: Path) -> tuple[Classification, Path]:
    torch.manual_seed(1)
    task = Classification(SMALL, facts={**FACTS, "class_names": ["a", "b", "c", "d"]})
    return saved(task, tmp_path / "classifier.ckpt")


def saved(task: Classification, file: Path) -> tuple[Classification, Path]:
    task.configure_model()
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, file)
    return task.eval(), file


@torch.no_grad()
def test_it_says_what_the_classifier_said_whatever_the_new_data_is(
    classifier: tuple[Classification, Path], tmp_path: Path
) -> None:
    """Its weights see images as in their training, and its own checkpoint needs the file no more."""
    trained, file = classifier
    images = torch.rand(2, 3, 32, 32)
    new: Any = {**FACTS, "mean": [0.9, 0.9, 0.9], "std": [0.1, 0.1, 0.1]}
    task, again = saved(
        Classification(partial(Pretrained, network=SMALL, weights=str(file)), facts=new), tmp_path / "new.ckpt"
    )
    torch.testing.assert_close(task(images), trained(images))
    file.unlink()
    torch.testing.assert_close(load(again)(images), trained(images))


@torch.no_grad()
def test_as_an_encoder_and_a_backbone(classifier: tuple[Classification, Path]) -> None:
    trained, file = classifier
    made = AdaIN(partial(Pretrained, network=SMALL, weights=str(file)), width=2)
    assert same(made.encoder.network, trained.architecture)
    assert [level.layer for level in made.levels][-1] == "network.layers.relu1_1"
    images, layer = torch.rand(2, 3, 32, 32), "layers.relu3_2"
    backbone = Pretrained(SMALL, str(file), num_classes=0, in_channels=3).eval()
    expected = trained.architecture.features(trained.normalize(images), [layer])[layer]
    torch.testing.assert_close(backbone.features(images, [f"network.{layer}"])[f"network.{layer}"], expected)
    assert [stage.reduction for stage in backbone.stages] == [1, 2, 4, 8, 16, 32]
    assert [*backbone.features(images)] == [stage.layer for stage in backbone.stages]


class OfOtherImages(VGG):
    """As with pretrained weights: images are normalised by its own mean and std, not by the data's."""

    def __init__(self, num_classes: int = 4, in_channels: int = 3) -> None:
        super().__init__(depth=11, width=0.0625, norm="batch", num_classes=num_classes, in_channels=in_channels)
        self.mean, self.std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)


@torch.no_grad()
def test_what_its_network_was_trained_with_is_known_over_two_files(tmp_path: Path) -> None:
    images, facts = torch.rand(2, 3, 32, 32), {**FACTS, "class_names": ["a", "b", "c", "d"]}
    first, file = saved(Classification(OfOtherImages, facts=facts), tmp_path / "first.ckpt")
    taken = partial(Pretrained, network=SMALL, weights=str(file))
    second, again = saved(Classification(taken, facts=FACTS), tmp_path / "second.ckpt")
    torch.testing.assert_close(second(images), first(images))
    third = Pretrained(SMALL, str(again), num_classes=4).eval()  # the weights of a network within that network
    torch.testing.assert_close(third(images), first(images))
    content = torch.load(again, weights_only=True)
    content["zoo"]["statistics"]["architecture.network"] = {"mean": "x"}
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match=r"statistics\.mean must be"):
        Pretrained(SMALL, str(tmp_path / "bad.ckpt"), num_classes=4)


def test_its_classes_are_the_files(classifier: tuple[Classification, Path]) -> None:
    assert Pretrained.pretrained_classes({"network": SMALL, "weights": str(classifier[1])}) == ["a", "b", "c", "d"]
    assert Pretrained.pretrained_classes({"network": SMALL}) == []


def test_safetensors_do_not_say_their_images(tmp_path: Path) -> None:
    file = str(tmp_path / "weights.safetensors")
    save_file(SMALL(num_classes=0).state_dict(), file)
    with pytest.raises(UserError, match="does not say its images' mean and std: give weights_mean and weights_std"):
        Pretrained(SMALL, file)
    made = Pretrained(SMALL, file, weights_mean=[0.5, 0.4, 0.3], weights_std=[0.2], num_classes=0)
    assert made.image_mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert made.image_std.flatten().tolist() == pytest.approx([0.2, 0.2, 0.2])


def test_without_weights_it_is_the_network() -> None:
    torch.manual_seed(0)
    made = Pretrained(SMALL, num_classes=4).eval()
    made.network.mean = (0.3,)
    images = torch.rand(2, 3, 32, 32)
    assert made.mean == (0.3,)
    assert torch.equal(made(images), made.network(images))
    assert not any("image" in name for name in made.state_dict())
