"""``zoo inspect``: what it writes, from checkpoints, recipes and names; and the line in which a mistake ends."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from zoo import insight
from zoo.__main__ import main
from zoo.architectures.alexnet import AlexNet
from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.insight import ABOUT
from zoo.insight.signal import measure_signal
from zoo.insight.subject import named_network
from zoo.tasks.base import Task

SMALL = ["--model.architecture.width", "0.0625", "--data.image_size", "32", "--data.resize", "36"]


def inspect(*words: str) -> int:
    return insight.main(words)


def files(folder: str | Path) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def only(label: str) -> Path:
    (folder,) = (Path("runs") / label).iterdir()
    return folder


def numbers(folder: str | Path, what: str) -> dict[str, Any]:
    return json.loads((Path(folder) / f"{what}.json").read_text())


def test_help_names_the_four(capsys):
    assert inspect("--help") == 0
    said = capsys.readouterr().out
    assert all(f"\n  {what} " in said for what in ABOUT)
    assert max(map(len, said.splitlines())) <= 80
    with pytest.raises(UserError, match=r"not filtres, did you mean filters|not filtres.*filters"):
        inspect("filtres")


def test_a_recipe_is_inspected_without_training(workspace, capsys):
    assert inspect("filters", "--config", "alexnet", *SMALL) == 0
    folder = only("inspect-alexnet")
    assert files(folder) == {"filters.json", "filters.png"}  # grey kernels: no colour to measure
    assert Image.open(folder / "filters.png").size[0] > 100
    said = capsys.readouterr().out
    assert f"picture      {folder / 'filters.png'}" in said
    assert "colour" not in said


def test_signal_is_measured_on_the_datas_test_part(workspace, capsys):
    words = ["--config", "alexnet", *SMALL, "--seed_everything", "3"]
    assert inspect("signal", *words, "--images", "40", "--out", "here") == 0
    assert files("here") == {"signal.json", "signal.png"}
    found = numbers("here", "signal")
    assert found["images"] == 40
    network = AlexNet(10, 1, [32, 32], 0.0625)
    assert len(found["layers"]) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules())
    assert all(layer["activation"] > 0 and layer["gradient"] > 0 for layer in found["layers"])
    assert inspect("signal", *words, "--images", "40", "--out", "here") == 0
    assert numbers("here", "signal-2") == found  # the same seed, and nothing is overwritten
    assert inspect("signal", *words, "--images", "40", "--out", "one", "--layers", "layers.act2") == 0
    assert [one["layer"] for one in numbers("one", "signal")["layers"]] == ["layers.act2"]


def test_a_residual_networks_blocks_are_measured_and_taken_out(workspace, capsys):
    words = ["--model", "Classification", "--model.architecture", "ResNet", "--model.architecture.depth", "8"]
    words += ["--model.architecture.width", "0.25", "--data", "Digits"]
    assert inspect("signal", *words, "--images", "50", "--out", "here") == 0
    assert files("here") == {"signal.json", "signal.png", "blocks.png"}
    found = numbers("here", "signal")
    assert len(found["blocks"]) == 3
    for block in found["blocks"]:
        assert (block["accuracy_without"] is None) == (not block["identity"])
        assert block["ratio"] > 0
    assert "blocks" in capsys.readouterr().out


def test_a_network_without_known_blocks_is_told(workspace, capsys):
    words = [
        "--model",
        "Classification",
        "--model.architecture",
        "LeNet",
        "--data",
        "Digits",
        "--data.image_size",
        "16",
    ]
    assert inspect("signal", *words, "--images", "50") == 0
    assert "blocks       none that is known as residual" in capsys.readouterr().out


def test_images_are_drawn_from_all_of_the_test_part(workspace):
    """``MNIST5k``'s test part begins with a hundred zeros, a folder's with all of its first class."""
    from zoo.data import ImageFolder
    from zoo.insight.subject import parse, parser_for

    options = ["--config", "alexnet", *SMALL]
    root = ImageFolder.write_example(workspace)["root"]
    for data in (
        [],
        ["--data", "ImageFolder", "--data.root", str(root), "--data.test_fraction", "0.5", "--data.val_fraction", "0"],
    ):
        subject = parse(parser_for("signal", ""), [*options, *data])[1]()
        labels = torch.cat([labels for _, labels in subject.batches(64, 32)])
        again = torch.cat([labels for _, labels in subject.batches(64, 32)])
        assert torch.equal(labels, again)
        assert not torch.equal(labels, labels.sort().values)
        assert len(labels.unique()) == subject.facts["num_classes"]


def test_an_accuracy_of_zero_is_drawn():
    from zoo.drawing import new_figure
    from zoo.insight.signal_report import _points

    axis = new_figure(2, 2)[1][0, 0]
    _points(axis, [0.5, None, 0.0], "accuracy")
    assert axis.lines[0].get_xydata().tolist() == [[0, 0.5], [2, 0]]


def test_a_checkpoint_is_enough(workspace, capsys):
    fit = ["--config", "alexnet", "--config", "trainer/debug", "--trainer.logger", "false", *SMALL, "--no-test"]
    assert main(["fit", *fit]) == 0
    run = only("alexnet")
    capsys.readouterr()
    assert inspect("activations", "--ckpt_path", str(run), "--layers", "layers.conv1", "layers.conv2") == 0
    folder = only("inspect-alexnet")
    assert files(folder) == {
        "activations.json", "activations.png", "activations-layers.conv1.png", "activations-layers.conv2.png"
    }  # fmt: skip
    assert inspect("filters", "--ckpt_path", "last", "--out", "kernels") == 0
    weight = torch.load(run / "checkpoints" / "last.ckpt")["state_dict"]["architecture.layers.conv1.weight"]
    norms = torch.tensor(numbers("kernels", "filters")["norm"])
    ratio = norms / weight.flatten(1).norm(dim=1)
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-4)  # these weights, divided by the grey's std
    with pytest.raises(UserError, match=r"no such checkpoint: nothing.ckpt"):
        inspect("filters", "--ckpt_path", "nothing.ckpt")
    with pytest.raises(UserError, match=r"do not fit this task: architecture.layers.conv1.weight has shape \[6, 1,"):
        inspect("filters", "--ckpt_path", str(run), "--model.architecture.width", "0.125")


def test_a_network_by_its_name(workspace, capsys):
    words = ["--architecture", "AlexNet", "--architecture.width", "0.0625", "--architecture.image_size", "[64, 64]"]
    assert inspect("attribution", *words, "--architecture.num_classes", "5", "--class", "3") == 0
    folder = only("inspect-AlexNet")
    assert files(folder) == {"attribution.json", "attribution.png"}
    assert numbers(folder, "attribution")["index"] == 3
    assert numbers(folder, "attribution")["class"] == "3"


def test_ready_weights_name_their_classes(workspace, capsys):
    words = ["--architecture", "EfficientNetLite0", "--architecture.num_classes", "1000"]
    assert inspect("attribution", *words, "--architecture.weights", "null", "--class", "3", "--out", "random") == 0
    assert numbers(Path("random"), "attribution")["class"] == "3"
    assert inspect("attribution", *words, "--class", "lynx", "--out", "ready") == 0
    assert numbers(Path("ready"), "attribution")["class"] == "lynx, catamount"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["filters"], "say which network"),
        (["filters", "--config", "alexnet", "--architecture", "AlexNet"], "leave out the recipe"),
        (["filters", "--config", "alexnet", "--trainer.max_epochs", "3"], "--trainer.max_epochs: nothing is trained"),
        (["filters", "--config", "alexnet", "--network", "generator"], "no network generator.*it has architecture"),
        (["filters", "--architecture", "AlexNet", "--network", "x"], "--architecture names one by itself"),
        (["signal", "--architecture", "AlexNet"], "there are no images to measure with"),
        (["activations", "--architecture", "AlexNet", "--image", "no.jpg"], "no.jpg can't be read.*no such file"),
        (["activations", "--config", "alexnet", *SMALL, "--layers", "conv1"], "no layer conv1"),
        (["attribution", "--architecture", "AlexNet", "--architecture.num_classes", "0"], "without classes"),
        (["signal", "--architecture", "AlexNet", "--data", "Digits", "--architecture.num_classes", "0"], "classifier"),
        (
            ["activations", "--architecture", "AlexNet", "--architecture.width", "0.1", "--whole"],
            "which is not the image_s",
        ),
        (["activations", "--config", "alexnet", "--whole"], "--whole needs your own image"),
        (["signal", "--architecture", "AlexNet", "--data", "Digits"], "made for in_channels 3, Digits has 1"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(words, says, workspace):
    with pytest.raises(UserError, match=says) as caught:
        inspect(*words)
    assert "\n" not in str(caught.value)
    assert not Path("runs").exists()


def test_options_that_do_not_exist_are_refused(workspace, capsys):
    for words in (["filters", "--image", "x.png"], ["activations", "--class", "3"], ["signal", "--images", "0"]):
        with pytest.raises(SystemExit) as left:
            inspect(*words, "--config", "alexnet")
        assert left.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_filters_of_images_are_shown_after_these_were_seen(workspace, capsys):
    words = ["--architecture", "CifarNet", "--architecture.in_channels", "1", "--architecture.width", "0.1"]
    assert inspect("filters", *words, "--out", "blind") == 0
    assert "come from training images: give --data NAME" in capsys.readouterr().out
    assert inspect("filters", *words, "--data", "Digits", "--data.image_size", "16", "--out", "seen") == 0
    assert "come from training images" not in capsys.readouterr().out
    blind, seen = (torch.tensor(numbers(folder, "filters")["smoothness"]) for folder in ("blind", "seen"))
    assert not torch.allclose(blind, seen, atol=0.1)
    halves = torch.tensor(numbers("seen", "filters")["norm"]).chunk(2)
    torch.testing.assert_close(*halves)  # a whitening has each filter with both signs


def test_pictures_and_numbers_go_to_wandb_on_request(workspace, capsys):
    assert inspect("filters", "--config", "alexnet", *SMALL, "--wandb") == 0
    folder = only("inspect-alexnet")
    (kept,) = (folder / "wandb").glob("offline-run-*")
    assert list(kept.rglob("media/images/filters/filters*.png"))
    assert f"wandb sync {kept.parent}/offline-run-*" in capsys.readouterr().out


def test_a_tasks_networks_have_names():
    class Pair(Task):
        def __init__(self) -> None:
            super().__init__()
            self.factories = {"generator": None, "discriminator": None, "optimizer": None}
            self.generator, self.discriminator = Net(), Net()

        def build(self) -> None: ...

    class Net(Architecture):
        def forward(self, images: Tensor) -> Tensor:
            return images

    task = Pair()
    assert named_network(task, "discriminator") is task.discriminator
    with pytest.raises(UserError, match="has 2 networks: say --network generator or discriminator"):
        named_network(task, None)


def test_docs_commands_parse(repo):
    from zoo.insight.options import add_own_options
    from zoo.insight.subject import parser_for

    found = []
    for page in ("ideas/looking-inside.md", "commands.md"):
        text = (repo / "docs" / page).read_text(encoding="utf-8").replace("\\\n", " ")
        found += [shlex.split(line) for line in re.findall(r"^zoo inspect (.*)$", text, re.MULTILINE)]
    assert {words[0] for words in found} == set(ABOUT)
    for what, *rest in found:
        parser = parser_for(what, ABOUT[what])
        add_own_options(parser, what)
        known = parser.format_help()
        for word in rest:
            flag = word.partition("=")[0]
            assert not flag.startswith("--") or flag in known or flag.startswith(("--data.", "--architecture.")), word


def test_the_command_measures_what_the_function_does(workspace):
    words = ["--config", "alexnet", *SMALL, "--images", "16", "--out", "here"]
    assert inspect("signal", *words) == 0
    from zoo.insight.subject import parse, parser_for

    options = ["--config", "alexnet", *SMALL]
    subject = parse(parser_for("signal", ""), options)[1]()
    images, labels = next(subject.batches(16))
    expected = measure_signal(subject.network, images, labels)
    found = numbers("here", "signal")["layers"]
    assert [one["activation"] for one in found] == pytest.approx([s.activation for s in expected])
