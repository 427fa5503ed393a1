"""What is special about this plugin; what every entry must do is asked by the zoo's own kit, in one line."""

import pytest
import torch
import torchvision
from zoo_squeezenet.faces import LFWSubset
from zoo_squeezenet.squeezenet import SqueezeNet

from zoo import registry
from zoo.architectures.base import parameter_count
from zoo.errors import UserError
from zoo.testing import conformance

test_everything = conformance("zoo-squeezenet")

VERSIONS = pytest.mark.parametrize(
    ("version", "count", "peer"),
    [
        ("1.0", 1_248_424, torchvision.models.squeezenet1_0),
        ("1.1", 1_235_496, torchvision.models.squeezenet1_1),
    ],
)


@VERSIONS
def test_as_many_parameters_as_published(version: str, count: int, peer: object) -> None:
    assert parameter_count(SqueezeNet(version=version)) == count


@VERSIONS
def test_torchvisions_network_with_the_same_weights_agrees(version: str, count: int, peer: object) -> None:
    torch.manual_seed(0)
    own, other = SqueezeNet(num_classes=7, version=version).eval(), peer(num_classes=7).eval()
    assert [v.shape for v in own.state_dict().values()] == [v.shape for v in other.state_dict().values()]
    other.load_state_dict(dict(zip(other.state_dict(), own.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 79, 96)
    torch.testing.assert_close(own(images), other(images))


@pytest.mark.parametrize(("init", "fan"), [("forward", 16), ("backward", 64)])
def test_weights_start_as_asked_for(init: str, fan: int) -> None:
    """He et al. 2015: a standard deviation of √(2 / fan), here of a layer from 16 to 64 channels; biases of 0."""
    torch.manual_seed(0)
    layer = SqueezeNet(num_classes=7, init=init).layers.fire2.expand1
    assert float(layer.weight.std()) == pytest.approx((2 / fan) ** 0.5, rel=0.1)
    assert not layer.bias.any()


@pytest.mark.parametrize(("version", "side"), [("1.0", 21), ("1.1", 17)])
def test_smallest_image(version: str, side: int) -> None:
    network = SqueezeNet(num_classes=2, version=version)
    assert network(torch.zeros(1, 3, side, side)).shape == (1, 2)
    with pytest.raises(UserError, match=f"at least {side} pixels"):
        network(torch.zeros(1, 3, side, side - 1))


def test_faces_and_backgrounds_are_told_apart_by_their_label() -> None:
    from skimage.data import lfw_subset

    data = LFWSubset()
    data.setup()
    pictures = {}
    for split in ("train", "val", "test"):
        samples = data.samples(split)
        images, labels = samples.fetch(torch.arange(len(samples)))
        pictures |= {image.numpy().tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    assert len(pictures) == 200
    for i, image in enumerate(lfw_subset()):  # scikit-image: the first hundred are faces
        assert pictures[(image * 255).round().astype("uint8").tobytes()] == (i < 100)


def test_splits_have_the_stated_sizes() -> None:
    data = LFWSubset()
    data.setup()
    assert [len(data.samples(split)) for split in ("train", "val", "test")] == [144, 16, 40]
    assert data.class_counts == [72, 72]


def test_the_recipe_is_found_by_its_name() -> None:
    assert registry.find_recipe("faces") == registry.find_recipe("zoo-squeezenet:faces")


@pytest.mark.slow
def test_the_recipe_learns_to_see_faces(tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    from zoo.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(["fit", "--config", "faces"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("test/top1 ")]
    assert float(line.split()[1]) >= 0.9
