"""Tensors of one network for another: by the part that fits best, with a list of what does not."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.architectures.adain import AdaIN
from zoo.architectures.torchvision import TorchVision
from zoo.architectures.vgg import VGG
from zoo.architectures.weights import load_tensors
from zoo.errors import UserError
from zoo.tasks.classification import Classification
from zoo.training.checkpoints import load_matching, load_part

SMALL: Any = partial(VGG, depth=11, width=0.0625, norm="batch")
FACTS: Any = {
    "num_classes": 4,
    "in_channels": 3,
    "image_size": [32, 32],
    "mean": [0.1, 0.2, 0.3],
    "std": [0.4, 0.5, 0.6],
}


def renamed(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}


def same(network: nn.Module, other: nn.Module, prefix: str = "") -> bool:
    own, theirs = network.state_dict(), other.state_dict()
    return all(torch.equal(own[name], theirs[prefix + name]) for name in own)


@pytest.fixture
def classifier(tmp_path: Path) -> tuple[Classification, Path]:
    """A task's checkpoint, as the task itself writes it."""
    torch.manual_seed(1)
    task = Classification(SMALL, facts=FACTS)
    task.configure_model()
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    file = tmp_path / "checkpoints" / "last.ckpt"
    file.parent.mkdir()
    torch.save(checkpoint, file)
    return task, file


def test_a_classifiers_checkpoint_fits_the_same_network_as_an_encoder(
    classifier: tuple[Classification, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, file = classifier
    encoder = SMALL(num_classes=0)
    report = load_part(encoder, tmp_path)  # a run folder
    assert same(encoder, task.architecture)
    assert (report.part, report.file, report.left) == ("architecture.", file, [])
    assert report.unused[0] == "architecture.classifier.fc6.weight (256, 1568)"
    assert (encoder.mean, encoder.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    report.show()
    said = capsys.readouterr().out
    assert f"weights: {len(encoder.state_dict())} of {len(encoder.state_dict())} tensors from {file}" in said
    assert "without a place here:\n  architecture.classifier.fc6.weight (256, 1568)\n" in said


def test_an_encoders_checkpoint_fits_a_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(2)
    adain, network = AdaIN(SMALL, width=2), SMALL(num_classes=4)
    report = load_tensors(network, renamed(adain, "architecture."))
    assert report.part == "architecture.encoder."
    assert same(adain.encoder, network)
    assert report.left[-1] == "classifier.fc8.bias (4,) is not there"
    assert not report.unused


def test_adains_encoder_takes_weights_and_statistics_together(classifier: tuple[Classification, Path]) -> None:
    task, file = classifier
    adain = AdaIN(SMALL, width=2)
    adain.load_encoder(str(file))
    assert same(adain.encoder, task.architecture)
    assert adain.encoder_mean.flatten().tolist() == pytest.approx(FACTS["mean"])
    again = AdaIN(SMALL, width=2)
    again.load_state_dict(adain.state_dict())
    assert torch.equal(again.encoder_std, adain.encoder_std)


@pytest.mark.parametrize("prefix", ["", "network.", "architecture.network.", "teacher.backbone."])
def test_names_may_begin_with_anything_on_either_side(prefix: str) -> None:
    given = SMALL(num_classes=4)
    network = nn.ModuleDict({"network": SMALL(num_classes=4)})
    report = load_tensors(network, renamed(given, prefix))
    assert (report.left, report.unused) == ([], [])
    assert same(network["network"], given)
    alone = SMALL(num_classes=0)
    load_tensors(alone, renamed(given, prefix))
    assert same(alone, given)


def test_of_several_parts_the_one_with_most_of_the_network_or_the_one_that_is_named() -> None:
    torch.manual_seed(3)
    student, teacher = SMALL(num_classes=4), SMALL(num_classes=4)
    narrow = VGG(4, depth=11, width=0.03125, norm="batch")
    given = renamed(teacher, "teacher.") | renamed(student, "architecture.") | renamed(narrow, "")
    network = SMALL(num_classes=4)
    load_tensors(network, given)
    assert same(network, student)
    load_tensors(network, given, "teacher")
    assert same(network, teacher)
    with pytest.raises(UserError, match=r"it has no part teachr; did you mean teacher"):
        load_tensors(network, given, "teachr")


def test_the_networks_own_statistics_stay(classifier: tuple[Classification, Path]) -> None:
    encoder = SMALL(num_classes=0)
    encoder.mean = (0.5,)
    load_part(encoder, classifier[1])
    assert (encoder.mean, encoder.std) == ((0.5,), (0.4, 0.5, 0.6))


def test_safetensors(tmp_path: Path) -> None:
    given, file = SMALL(num_classes=0), tmp_path / "weights.safetensors"
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in given.state_dict().items()}
    save_file({f"encoder.{name}": t for name, t in tensors.items()}, file)
    network = SMALL(num_classes=4)
    assert load_part(network, file).part == "encoder."
    own = network.state_dict()
    assert all(torch.equal(own[name], t.to(own[name].dtype)) for name, t in tensors.items())
    assert network.mean is None
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="can't be read as safetensors"):
        load_part(network, file)
    with pytest.raises(UserError, match="no such file"):
        load_part(network, tmp_path / "none.safetensors")


def test_what_does_not_fit_is_refused_in_one_line_and_nothing_is_loaded(
    classifier: tuple[Classification, Path],
) -> None:
    _, file = classifier
    torch.manual_seed(4)
    for other, whole, words in (
        (
            VGG(4, depth=11, width=0.03125),
            False,
            r"no tensor in it has the name and shape of one of VGG, such as layers",
        ),
        (
            SMALL(num_classes=4, in_channels=1),
            True,
            r"no VGG .*: layers.conv1_1.weight \(4, 1, 3, 3\) has shape \(4, 3",
        ),
        (VGG(4, depth=13, width=0.0625), True, r"layers.conv1_2.weight \(4, 4, 3, 3\) is not there"),
    ):
        before = {name: t.clone() for name, t in other.state_dict().items()}
        with pytest.raises(UserError, match=words) as caught:
            load_part(other, file, whole=whole)
        assert "\n" not in str(caught.value)
        assert "it was trained with in_channels 3, image_size [32, 32]" in str(caught.value)
        assert all(torch.equal(t, before[name]) for name, t in other.state_dict().items())


def test_a_task_starts_from_a_bare_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, file = SMALL(num_classes=4), tmp_path / "network.safetensors"
    save_file(given.state_dict(), file)
    task = Classification(SMALL, facts={**FACTS, "num_classes": 7})
    task.configure_model()
    load_matching(task, str(file))
    assert torch.equal(
        task.architecture.state_dict()["layers.conv1_1.weight"], given.state_dict()["layers.conv1_1.weight"]
    )
    assert "architecture.classifier.fc8.weight (7, 256) has shape (4, 256) there" in capsys.readouterr().out


def test_layers_that_read_the_version_of_their_state_take_it() -> None:
    """MNASNet refuses a state without one."""
    networks = [TorchVision("mnasnet0_5", num_classes=classes) for classes in (4, 0)]
    load_tensors(networks[1], dict(networks[0].state_dict()), whole=True)
    assert same(networks[1], networks[0])
