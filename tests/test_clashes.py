"""A plugin that claims one of the zoo's own names breaks no recipe and no checkpoint, and works by its full path."""

import pytest
from running import zoo as zoo_command

import zoo.architectures
from zoo import factories, registry
from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.parsing import ZooParser, from_spec

# Two networks in one module, so that naming the one imports the other.
NETS = """\
from zoo.architectures.base import Architecture

class LeNet(Architecture):
    \"\"\"The plugin's.\"\"\"

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()

    def forward(self, images):
        return images

class Unrelated(LeNet):
    \"\"\"Another.\"\"\"
"""


@pytest.fixture
def acme(fake_plugin):
    points = {"LeNet": "acme.nets:LeNet", "Unrelated": "acme.nets:Unrelated"}
    files = {"acme/nets.py": NETS, "acme/recipes/mnist/lenet.yaml": "model: {class_path: Classification}\n"}
    return fake_plugin(files=files, entries={"architectures": points, "recipes": {"acme-zoo": "acme.recipes"}})


def built(path: str) -> type:
    return type(from_spec(Architecture, {"class_path": path, "init_args": {"num_classes": 3}}))


@pytest.mark.parametrize("before", ["", "Unrelated", "acme.nets.LeNet"])
def test_checkpoints_and_plain_data_mean_the_zoos_own(acme, before):
    if before:
        assert built(before).__module__ == "acme.nets"
    for path in ("zoo.architectures.LeNet", "zoo.architectures.lenet.LeNet", "LeNet"):
        assert built(path).__module__ == "zoo.architectures.lenet", path


def test_the_plugins_works_and_is_written_by_its_full_path(acme):
    cls = built("acme.nets.LeNet")
    assert cls.__module__ == "acme.nets"
    assert factories.spec(cls)["class_path"] == "acme.nets.LeNet"
    assert factories.spec(zoo.architectures.LeNet)["class_path"] == "zoo.architectures.LeNet"


def parsed(*words: str) -> str:
    parser = ZooParser(exit_on_error=False)
    parser.add_subclass_arguments(Architecture, "architecture", fail_untyped=False)
    return parser.parse_args(list(words)).architecture.class_path


@pytest.mark.parametrize("words", [["--architecture", "LeNet"], ["--architecture=LeNet"]])
def test_the_command_line_means_the_zoos_own(acme, words):
    registry.import_named("Unrelated")
    assert parsed(*words) == "zoo.architectures.LeNet"
    assert parsed("--architecture", "acme.nets.LeNet") == "acme.nets.LeNet"


def test_the_zoos_recipe_is_resolved_as_before(acme, capsys):
    registry.import_named("Unrelated")
    assert zoo_command("fit", "--config", "mnist/lenet", "--print_config") == 0
    assert "class_path: zoo.architectures.LeNet" in capsys.readouterr().out


def test_two_plugins_that_claim_a_name_are_told_apart_by_path(fake_plugin):
    for package in ("acme", "other"):
        text = NETS.replace("LeNet", "Net").replace("Unrelated", f"Unrelated{package}")
        entries = {"architectures": {"Net": f"{package}.nets:Net"}}
        fake_plugin(f"{package}-zoo", files={f"{package}/nets.py": text}, entries=entries)
    assert built("other.nets.Net").__module__ == "other.nets"
    with pytest.raises(UserError, match=r"acme\.nets\.Net and other\.nets\.Net"):
        built("Net")
