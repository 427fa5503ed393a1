"""Names, clashes, broken plugins and recipes, with distributions written on the spot."""

import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import zoo.architectures
import zoo.data
from zoo import registry
from zoo.errors import UserError

NET = 'class Net:\n    """A net."""\n'


def net(package: str = "acme", name: str = "Net") -> dict:
    return {
        "files": {f"{package}/net.py": NET.replace("Net", name)},
        "entries": {"architectures": {name: f"{package}.net:{name}"}},
    }


def test_own_entries_are_those_that_the_standard_library_finds():
    found = {(e.kind, e.name, e.point.value) for e in registry.entries()}
    expected = {(k, p.name, p.value) for k in registry.KINDS for p in entry_points(group=f"zoo.{k}")}
    assert found == expected
    assert ("architectures", "AlexNet", "zoo.architectures.alexnet:AlexNet") in found


def test_entry_says_where_it_comes_from(fake_plugin):
    fake_plugin("acme-zoo", version="2.5", **net())
    [entry] = registry.find("Net")
    assert (entry.kind, entry.full_path, entry.stable_path) == (
        "architectures",
        "acme.net.Net",
        "zoo.architectures.Net",
    )
    assert (entry.package, entry.distribution) == ("acme-zoo", "acme-zoo 2.5")
    assert registry.find("Net", "tasks") == ()


def test_attribute_access_reaches_a_plugins_class_and_imports_it_only_then(fake_plugin):
    fake_plugin(**net())
    assert "Net" in dir(zoo.architectures)
    assert "acme.net" not in sys.modules
    assert zoo.architectures.Net is sys.modules["acme.net"].Net
    assert zoo.architectures.Net.__doc__ == "A net."
    with pytest.raises(AttributeError):
        _ = zoo.data.Net


def test_attribute_of_no_class_is_told_with_close_matches():
    with pytest.raises(AttributeError, match=r"zoo\.architectures has nothing called AlexNat; did you mean AlexNet"):
        _ = zoo.architectures.AlexNat


def test_name_claimed_twice_gives_both_full_paths_which_work(fake_plugin):
    fake_plugin("acme-zoo", **net("acme"))
    fake_plugin("other-zoo", **net("other"))
    with pytest.raises(AttributeError, match=r"Net is claimed by acme\.net\.Net and other\.net\.Net"):
        _ = zoo.architectures.Net
    assert "acme.net.Net and other.net.Net" in (registry.clash("Net") or "")
    assert [e.stable_path for e in registry.find("Net")] == ["acme.net.Net", "other.net.Net"]
    assert [e.load().__module__ for e in registry.find("Net")] == ["acme.net", "other.net"]
    assert registry.stable("other.net.Net") == "other.net.Net"


def test_plugin_that_claims_one_of_the_zoos_names_needs_its_full_path(fake_plugin):
    fake_plugin("acme-zoo", **net("acme", "AlexNet"))
    own, others = sorted(registry.find("AlexNet"), key=lambda e: e.package != "lightning-zoo")
    assert (own.stable_path, own.label) == ("zoo.architectures.AlexNet", "AlexNet")
    assert (others.stable_path, others.label) == ("acme.net.AlexNet",) * 2
    assert registry.clash("AlexNet") is None
    assert zoo.architectures.AlexNet.__module__ == "zoo.architectures.alexnet"
    assert registry.mentioned("AlexNet") == registry.mentioned("zoo.architectures.AlexNet") == (own,)
    assert registry.mentioned("acme.net.AlexNet") == (others,)
    assert registry.stable("zoo.architectures.alexnet.AlexNet") == "zoo.architectures.AlexNet"
    assert registry.stable("acme.net.AlexNet") == "acme.net.AlexNet"


def test_third_claim_changes_nothing_for_the_zoos_own(fake_plugin):
    fake_plugin("acme-zoo", **net("acme", "AlexNet"))
    fake_plugin("other-zoo", **net("other", "AlexNet"))
    assert zoo.architectures.AlexNet.__module__ == "zoo.architectures.alexnet"
    assert [e.label for e in registry.find("AlexNet")] == ["acme.net.AlexNet", "other.net.AlexNet", "AlexNet"]


def test_broken_plugin_with_one_of_the_zoos_names_does_not_break_the_zoos(fake_plugin):
    plugin = net("acme", "AlexNet")
    fake_plugin("acme-zoo", files={"acme/net.py": "raise RuntimeError('no licence')"}, entries=plugin["entries"])
    registry.import_named("acme.net.AlexNet")
    registry.import_named("AlexNet")
    assert "no licence" in (registry.failure("acme.net.AlexNet") or "")
    assert registry.failure("AlexNet") is None


def test_one_name_in_two_kinds_is_no_clash(fake_plugin):
    files = {"acme/net.py": NET, "acme/task.py": NET}
    fake_plugin(files=files, entries={"architectures": {"Net": "acme.net:Net"}, "tasks": {"Net": "acme.task:Net"}})
    assert registry.clash("Net") is None
    assert zoo.architectures.Net.__module__ == "acme.net"


def test_distribution_that_lies_on_the_path_twice_counts_once(fake_plugin, tmp_path, monkeypatch):
    fake_plugin("acme-zoo", version="2.0", **net("acme"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    fake_plugin("Acme_Zoo", site=tmp_path, version="1.0", **net("older"))
    assert [e.full_path for e in registry.find("Net")] == ["acme.net.Net"]


def test_broken_plugin_harms_only_who_names_it(fake_plugin):
    fake_plugin("acme-zoo", **net())
    files = {"broken/net.py": "raise RuntimeError('no licence found')"}
    fake_plugin("broken-zoo", files=files, entries={"architectures": {"Broken": "broken.net:Broken"}})
    registry.import_named("Net")
    registry.import_named("Broken")
    registry.import_named("a caption with a Net in it")
    assert registry.failure("Net") is None
    reason = registry.failure("Broken")
    assert reason is not None
    for part in ("Broken", "broken-zoo 1.0", "broken.net:Broken", "RuntimeError: no licence found"):
        assert part in reason
    with pytest.raises(UserError, match="no licence found"):
        _ = zoo.architectures.Broken


def test_plugin_is_imported_only_when_its_name_is_mentioned(fake_plugin):
    files = {"loud/__init__.py": "raise RuntimeError('imported')", "loud/net.py": NET}
    fake_plugin("loud-zoo", files=files, entries={"architectures": {"Loud": "loud.net:Loud"}})
    fake_plugin("acme-zoo", **net())
    registry.import_named("Net")
    assert {m for m in sys.modules if m.startswith(("loud", "acme"))} == {"acme", "acme.net"}
    assert registry.failure("Loud") is None
    registry.import_named("Loud")
    assert "RuntimeError: imported" in (registry.failure("Loud") or "")


def test_plugin_that_ends_the_process_on_import_is_named(fake_plugin):
    fake_plugin(files={"acme/net.py": "raise SystemExit(3)"}, entries={"parts": {"Net": "acme.net:Net"}})
    with pytest.raises(UserError, match="can't be imported: SystemExit"):
        registry.find("Net")[0].load()


@pytest.mark.parametrize("text", ["class Other: ...\nNet = Other", "def Net(): ...", "Net = 3"])
def test_entry_must_be_a_class_of_that_name(fake_plugin, text):
    fake_plugin(files={"acme/net.py": text}, entries={"architectures": {"Net": "acme.net:Net"}})
    with pytest.raises(UserError, match=r"acme-zoo 1\.0 registers Net as acme\.net:Net.*a class called Net"):
        registry.find("Net")[0].load()


@pytest.mark.parametrize("text", ["[zoo.architectures]\nno equals sign\n", "[zoo.architectures]\nNet = not a path!\n"])
def test_malformed_entry_points_do_not_hide_other_plugins(fake_plugin, text):
    site = fake_plugin("acme-zoo", **net())
    fake_plugin("broken-zoo", entries={"architectures": {"X": "x:X"}})
    (site / "broken_zoo-1.0.dist-info" / "entry_points.txt").write_text(text)
    registry.clear()
    assert registry.find("AlexNet")
    assert "acme.net.Net" in [e.full_path for e in registry.find("Net")]
    if "equals" in text:
        assert any(line.startswith("broken-zoo 1.0:") for line in registry.unreadable())
    else:
        with pytest.raises(UserError, match="can't be imported"):
            next(e for e in registry.find("Net") if e.package == "broken-zoo").load()


def test_close_matches_are_found_whatever_the_case():
    assert registry.suggest("alexnet")[0] == "AlexNet"
    assert registry.suggest("Clasification")[0] == "Classification"
    assert registry.suggest("AlexNat", ["AlexNet", "alexnet", "x"]) == ["AlexNet", "alexnet"]
    assert registry.did_you_mean("qqqqqq") == ""
    assert registry.did_you_mean("colour", ["color", "x"]) == "; did you mean color?"


def test_stable_path_of_own_class_and_of_a_class_that_is_not_registered():
    assert registry.stable("zoo.architectures.alexnet.AlexNet") == "zoo.architectures.AlexNet"
    assert registry.stable("zoo.architectures.AlexNet") == "zoo.architectures.AlexNet"
    assert registry.stable("torch.optim.AdamW") == "torch.optim.AdamW"


# Modules that are located, not imported


def test_modules_are_located_without_importing_their_parents(fake_plugin):
    site = fake_plugin(files={"acme/__init__.py": "1/0", "acme/deep/net.py": NET})
    spec = registry.locate("acme.deep.net")
    assert spec is not None
    assert spec.origin == str(site / "acme/deep/net.py")
    assert registry.locate("acme.deep.missing") is None
    assert registry.locate("missing.deep") is None
    assert not any(module.startswith("acme") for module in sys.modules)


# Recipes


def recipe_plugin(name: str, package: str, *recipes: str) -> dict:
    files = {f"{package}/__init__.py": "raise RuntimeError('imported')"}
    files |= {f"{package}/recipes/{recipe}.yaml": f"# {recipe} of {name}\nmodel: Net\n" for recipe in recipes}
    return {"files": files, "entries": {"recipes": {name: f"{package}.recipes"}}}


def test_recipes_are_found_by_name_at_every_depth_without_importing_the_plugin(fake_plugin):
    site = fake_plugin("acme-zoo", **recipe_plugin("acme-zoo", "acme", "tiny", "imagenet/deep/net"))
    assert registry.find_recipe("tiny") == site / "acme/recipes/tiny.yaml"
    assert registry.find_recipe("tiny.yaml") == site / "acme/recipes/tiny.yaml"
    assert registry.find_recipe("imagenet/deep/net") == site / "acme/recipes/imagenet/deep/net.yaml"
    assert registry.find_recipe("acme-zoo:tiny") == site / "acme/recipes/tiny.yaml"
    assert "acme" not in sys.modules


def test_recipe_of_two_packages_must_be_qualified(fake_plugin):
    site = fake_plugin("acme-zoo", **recipe_plugin("acme-zoo", "acme", "tiny"))
    fake_plugin("other-zoo", **recipe_plugin("other-zoo", "other", "tiny"))
    with pytest.raises(UserError, match="several packages have a recipe tiny: say acme-zoo:tiny or other-zoo:tiny"):
        registry.find_recipe("tiny")
    assert registry.find_recipe("other-zoo:tiny") == site / "other/recipes/tiny.yaml"


def test_the_zoos_own_recipe_keeps_its_name(fake_plugin, repo):
    site = fake_plugin("acme-zoo", **recipe_plugin("acme-zoo", "acme", "alexnet"))
    assert registry.find_recipe("alexnet") == repo / "recipes" / "alexnet.yaml"
    assert registry.find_recipe("lightning-zoo:alexnet") == repo / "recipes" / "alexnet.yaml"
    assert registry.find_recipe("acme-zoo:alexnet") == site / "acme/recipes/alexnet.yaml"
    assert [r.label for r in registry.named_recipes("alexnet")] == ["alexnet", "acme-zoo:alexnet"]


def test_plugin_that_takes_the_zoos_own_name_for_its_recipes_is_not_the_zoo(fake_plugin, repo):
    fake_plugin("acme-zoo", **recipe_plugin("lightning-zoo", "acme", "alexnet"))
    assert registry.find_recipe("alexnet") == repo / "recipes" / "alexnet.yaml"


def test_two_packages_that_call_themselves_alike_are_told_apart_by_file(fake_plugin):
    fake_plugin("acme-zoo", **recipe_plugin("same", "acme", "tiny"))
    fake_plugin("other-zoo", **recipe_plugin("same", "other", "tiny"))
    with pytest.raises(UserError, match=r"acme/recipes/tiny\.yaml or .*other/recipes/tiny\.yaml"):
        registry.find_recipe("same:tiny")


def test_existing_file_wins_over_a_recipes_name(fake_plugin):
    fake_plugin("acme-zoo", **recipe_plugin("acme-zoo", "acme", "tiny"))
    Path("tiny").write_text("model: Mine\n")
    assert registry.find_recipe("tiny") == Path("tiny")


@pytest.mark.parametrize("wrong", ["tinny", "recipes/tiny.yaml", "acme-zoo:tin", "Tiny"])
def test_unknown_recipe_is_told_with_close_matches_and_where_to_look(fake_plugin, wrong):
    fake_plugin("acme-zoo", **recipe_plugin("acme-zoo", "acme", "tiny"))
    with pytest.raises(UserError, match=r"no recipe .*did you mean tiny.*`zoo list recipes`"):
        registry.find_recipe(wrong)


def test_missing_recipe_package_harms_no_other(fake_plugin):
    fake_plugin("gone-zoo", entries={"recipes": {"gone-zoo": "gone.recipes"}})
    site = fake_plugin("acme-zoo", **recipe_plugin("acme-zoo", "acme", "tiny"))
    assert registry.find_recipe("tiny") == site / "acme/recipes/tiny.yaml"
    assert [registry.recipe_folders(p) for p in registry.recipe_packages() if p.name == "gone-zoo"] == [[]]


def test_own_recipes_carry_the_distributions_name(repo):
    own = {r.name: r.path for r in registry.recipes() if r.package == "lightning-zoo"}
    on_disk = {p.relative_to(repo / "recipes").with_suffix("").as_posix() for p in (repo / "recipes").rglob("*.yaml")}
    assert set(own) == on_disk
