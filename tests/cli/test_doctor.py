"""``zoo doctor``: it finds what is broken, says why, and leaves the rest alone."""

import importlib.metadata
import re
import sys

import pytest

from zoo.__main__ import main
from zoo.cli import doctor


@pytest.fixture
def said(capsys, monkeypatch):
    """Run it; the lines with single spaces. What the zoo itself registers is left out, so that only plugins count."""
    from zoo import registry

    everything = registry.entries

    monkeypatch.setattr(registry, "entries", lambda: tuple(e for e in everything() if e.package == "acme-zoo"))
    monkeypatch.setattr(registry.entries, "cache_clear", everything.cache_clear, raising=False)

    def run(*words, status=0):
        assert main(["doctor", *words]) == status
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.fixture
def net(fake_plugin):
    def install(text="class Net: ...\n", target="acme.net:Net", kind="parts", **entries):
        return fake_plugin(
            files={"acme/net.py": text, "acme/recipes/x.yaml": "# x\n"}, entries={kind: {"Net": target}, **entries}
        )

    return install


def test_versions_are_those_installed(said):
    lines = said("--quick")
    assert f"Python {sys.version.split()[0]}, {sys.executable}" in lines
    for name in ("torch", "torchvision", "lightning", "timm", "torchmetrics", "jsonargparse", "wandb"):
        assert f"{name} {importlib.metadata.version(name)}" in lines


def test_version_out_of_range_and_missing_library_are_broken(said, monkeypatch):
    def version(name):
        if name == "timm":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "lightning" else importlib.metadata.version(name)

    monkeypatch.setattr(doctor, "version", version)
    lines = said("--quick", status=1)
    assert any(line.startswith("! lightning 1.0, outside of the range") and "2.6.6" in line for line in lines)
    assert any(line.startswith("! timm not installed (wanted: >=") for line in lines)
    assert lines[-1].startswith("2 broken")


def test_version_ranges_are_read_from_the_metadata():
    ranges = doctor._ranges()
    assert ranges["jsonargparse"].startswith((">=", "<"))  # it has an extra in brackets
    assert "pytest" not in ranges  # of an optional extra
    assert not doctor._fits("5.0", ranges["jsonargparse"])


@pytest.mark.parametrize(
    ("text", "target", "reason"),
    [
        ("", "acme.gone:Net", "there is no module acme.gone"),
        ("", "gone:Net", "there is no module gone"),
        ("class Other: ...", "acme.net:Net", "acme.net has no Net"),
    ],
)
def test_quick_finds_what_is_not_there(net, said, text, target, reason):
    net(text, target)
    [line] = [line for line in said("--quick", status=1) if line.startswith("!")]
    assert line == f"! Net registered by acme-zoo 1.0 as {target}: {reason}"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("raise RuntimeError", "math:Net"),
        ("raise RuntimeError('Net')", "acme.net:Net"),
        ("from x import *", "acme.net:Net"),
    ],
)
def test_quick_blames_nothing_that_only_an_import_can_tell(net, said, text, target):
    net(text, target)
    assert said("--quick")[-1] == "nothing broken (looked up, not imported)"
    assert "acme.net" not in sys.modules


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import numpy as np\nraise RuntimeError('no sea')", "RuntimeError: no sea"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("Net = 3", "it must be a class called Net"),
    ],
)
def test_full_imports_and_tells_why_not(net, said, monkeypatch, text, reason):
    monkeypatch.setattr(doctor, "_devices", lambda report: None)
    net(text)
    [line] = [line for line in said(status=1) if line.startswith("!")]
    assert "acme-zoo 1.0" in line
    assert line.endswith(reason)


def test_class_of_another_kind_is_broken(net, said, monkeypatch):
    monkeypatch.setattr(doctor, "_devices", lambda report: None)
    net(kind="architectures")
    line = "! Net registered by acme-zoo 1.0 among the architectures, but is not a subclass of Architecture"
    assert line in said(status=1)


def test_devices_are_torchs(said):
    import torch

    lines = said()
    assert f"cpu {torch.get_num_threads()} threads" in lines
    assert sum(line.startswith("cuda:") for line in lines) == torch.cuda.device_count()


def test_malformed_distribution_is_told(net, said, fake_plugin):
    from zoo import registry

    site = fake_plugin("broken-zoo", entries={"parts": {"X": "x:X"}})
    (site / "broken_zoo-1.0.dist-info" / "entry_points.txt").write_text("[zoo.parts]\nno equals sign\n")
    registry.clear()
    assert any(
        line.startswith("! distribution broken-zoo 1.0: its entry_points.txt") for line in said("--quick", status=1)
    )


def test_recipes_are_counted_and_their_missing_packages_and_clashes_told(net, said, fake_plugin):
    site = net(recipes={"acme-zoo": "acme.recipes", "gone": "gone.recipes"})
    fake_plugin(
        "other-zoo", files={"other/recipes/x.yaml": "# x\n"}, entries={"recipes": {"other-zoo": "other.recipes"}}
    )
    lines = said("--quick", status=1)
    assert f"acme-zoo 1 in {site / 'acme' / 'recipes'}" in lines
    assert "! gone there is no package gone.recipes" in lines
    assert "x claimed twice; say acme-zoo:x or other-zoo:x" in lines


def test_names_that_clash_are_told(fake_plugin, capsys):
    for package in ("acme", "other"):
        files = {f"{package}/net.py": "class Net: ...\n"}
        fake_plugin(f"{package}-zoo", files=files, entries={"parts": {"Net": f"{package}.net:Net"}})
    main(["doctor", "--quick"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Net is claimed by acme.net.Net and other.net.Net; use one of these paths" in text


def test_plugins_class_with_one_of_the_zoos_names_is_told(fake_plugin, capsys):
    entries = {"architectures": {"AlexNet": "acme.net:AlexNet"}, "recipes": {"acme-zoo": "acme.recipes"}}
    files = {"acme/net.py": "class AlexNet: ...\n", "acme/recipes/alexnet.yaml": "# x\n"}
    fake_plugin(files=files, entries=entries)
    assert main(["doctor", "--quick"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "AlexNet is the zoo's own; that of acme-zoo needs its full path, acme.net.AlexNet" in text
    assert "alexnet is the zoo's own; plugins have others: say acme-zoo:alexnet" in text


@pytest.mark.parametrize(
    ("group", "advice"),
    [
        ("networks", "did you mean zoo.architectures?"),
        ("architecture", "did you mean zoo.architectures?"),
        ("recipe", "did you mean zoo.recipes?"),
        ("xyz", "it reads zoo.architectures, zoo.tasks, zoo.data, zoo.parts, zoo.recipes, zoo.commands, zoo.contracts"),
    ],
)
def test_unknown_group_is_broken_with_a_close_match(fake_plugin, said, group, advice):
    fake_plugin(files={"acme/net.py": "class Net: ..."}, entries={group: {"Other": "acme.net:Net"}})
    [line] = [line for line in said("--quick", status=1) if line.startswith("!")]
    assert line == f"! Other registered by acme-zoo 1.0 in zoo.{group}, which the zoo does not read; {advice}"


def test_recipe_package_without_a_file_is_broken(fake_plugin, said):
    fake_plugin(files={"acme/recipes/__init__.py": ""}, entries={"recipes": {"acme-zoo": "acme.recipes"}})
    [line] = [line for line in said("--quick", status=1) if line.startswith("!")]
    assert line == "! acme-zoo no .yaml file in acme.recipes; are they among the distribution's package data?"


@pytest.mark.parametrize(
    ("text", "target", "quick", "reason"),
    [
        ("def main(argv): ...", "acme.gone:main", True, "there is no module acme.gone"),
        ("x = 1", "acme.swim:main", True, "acme.swim has no main"),
        ("main = 3", "acme.swim:main", False, "as acme.swim:main, not a function"),
        ("def main(argv): ...\n1/0", "acme.swim:main", False, "ZeroDivisionError: division by zero"),
    ],
)
def test_broken_verbs_are_told(fake_plugin, said, monkeypatch, text, target, quick, reason):
    monkeypatch.setattr(doctor, "_devices", lambda report: None)
    fake_plugin(files={"acme/swim.py": text}, entries={"commands": {"swim": target}})
    [line] = [line for line in said(*["--quick"] * quick, status=1) if line.startswith("!")]
    assert line.startswith("! swim registered by acme-zoo 1.0 as ")
    assert line.endswith(reason)


@pytest.mark.parametrize(
    ("target", "quick", "status", "line"),
    [
        ("acme.facts:depth", (), 0, "depth of acme-zoo 1.0"),
        ("acme.facts:missing", ("--quick",), 1, "depth .*acme.facts has no missing"),
        ("acme.facts:other", (), 1, "depth .*expected a zoo.contracts.Form, Role or Fact of that name"),
    ],
)
def test_contracts_of_plugins_are_told(fake_plugin, said, target, quick, status, line):
    text = "from zoo.facts import Fact\ndepth = Fact('depth', 'a number', lambda *_: True)\nother = 'depth'\n"
    fake_plugin(files={"acme/facts.py": text}, entries={"contracts": {"depth": target}})
    lines = said(*quick, status=status)
    assert any(re.search(line, " ".join(found.split())) for found in lines), lines


def test_verbs_of_plugins_and_their_clashes_are_told(fake_plugin, said):
    files = {"acme/swim.py": "def main(argv): ...\n"}
    fake_plugin(files=files, entries={"commands": {"swim": "acme.swim:main", "list": "acme.swim:main"}})
    lines = said("--quick")
    assert "swim zoo swim, of acme-zoo 1.0" in lines
    assert "acme-zoo:list zoo acme-zoo:list, of acme-zoo 1.0; list is the zoo's, too" in lines


# W&B and data


@pytest.fixture
def account(monkeypatch, tmp_path):
    """No key and no mode, whoever runs the tests; the file that would hold a key."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_without_a_key_runs_are_kept_offline(account, said):
    lines = said("--quick")
    assert "API key none (`wandb login` keeps one)" in lines
    assert "runs kept offline; `wandb sync` sends them later" in lines


@pytest.mark.parametrize("where", ["file", "environment"])
def test_key_is_found_and_never_printed(account, said, monkeypatch, where):
    secret = "0123456789abcdef" * 2
    if where == "file":
        account.write_text(f"machine api.wandb.ai\n  login user\n  password {secret}\n")
    else:
        monkeypatch.setenv("WANDB_API_KEY", secret)
    lines = said("--quick")
    assert f"API key in {account if where == 'file' else 'WANDB_API_KEY'}" in lines
    assert "runs kept online; offline without an internet connection" in lines
    assert secret not in "".join(lines)


def test_malformed_file_of_keys_is_told_without_its_text(account, said):
    account.write_text("machine api.wandb.ai\n  login user\n  pasword 0123456789abcdef\n")
    text = "\n".join(said("--quick", status=1))
    assert f"! netrc {account} is malformed in line" in text
    assert "0123456789abcdef" not in text
    assert "pasword" not in text


def test_key_for_another_server_does_not_count(account, said):
    account.write_text("machine example.org\n  login user\n  password x\n")
    assert "API key none (`wandb login` keeps one)" in said("--quick")


@pytest.mark.parametrize(
    ("mode", "status", "line"),
    [
        ("offline", 0, "runs kept offline; `wandb sync` sends them later"),
        ("disabled", 0, "runs not kept"),
        ("online", 1, "! runs can't be kept: WANDB_MODE asks for online, and there is no key"),
    ],
)
def test_mode_of_the_environment(account, said, monkeypatch, mode, status, line):
    monkeypatch.setenv("WANDB_MODE", mode)
    assert line in said("--quick", status=status)


def test_data_root_and_what_lies_there(said, tmp_path, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    assert "there nothing: the folder does not exist" in said("--quick")
    (tmp_path / "MNIST").mkdir()
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "notes.txt").touch()
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    lines = said("--quick")
    assert f"root {tmp_path} (from ZOO_DATA)" in lines
    assert "there MNIST, cifar-10-batches-py" in lines


def test_other_words_are_refused(capsys):
    assert main(["doctor", "--quik"]) == 2
    err = capsys.readouterr().err
    assert err == "zoo: error: zoo doctor: unrecognized arguments: --quik (`zoo doctor --help` says more)\n"
