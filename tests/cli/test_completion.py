"""What a TAB offers, asked as the shells ask; bash itself is run, zsh and fish where they are installed."""

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import registry
from zoo.cli import verbs
from zoo.cli.completion import FIT_OPTIONS, SCRIPTS, candidates, main


def offered(line: str) -> list[str]:
    words = line.split(" ")
    return candidates(words, len(words) - 1)


@pytest.fixture
def acme(fake_plugin):
    files = {
        "acme/net.py": "raise RuntimeError('imported')\n\nclass Net:\n    def __init__(self, width, depth=3): ...\n",
        "acme/recipes/fish/small.yaml": "model: Net\n",
    }
    entries = {"architectures": {"AcmeNet": "acme.net:AcmeNet"}, "recipes": {"acme-zoo": "acme.recipes"}}
    files["acme/net.py"] = files["acme/net.py"].replace("class Net", "class AcmeNet")
    return fake_plugin(files=files, entries=entries)


def test_commands():
    assert set(verbs.OWN) < set(offered("zoo "))
    assert offered("zoo va") == ["validate"]
    assert offered("zoo completion ") == ["bash", "zsh", "fish"]
    assert offered("zoo doctor --q") == ["--quick"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("zoo show Acm", ["AcmeNet"]),
        ("zoo show acm", ["AcmeNet"]),
        ("zoo check Acm", ["AcmeNet"]),
        ("zoo show fish", ["fish/small"]),
        ("zoo check AlexNet Acm", ["AcmeNet"]),
        ("zoo check acme-", ["acme-zoo"]),
        ("zoo show AlexNet Acm", []),
        ("zoo list arch", ["architectures"]),
        ("zoo fit --config fis", ["fish/small"]),
        ("zoo fit -c fis", ["fish/small"]),
        ("zoo fit --config=fis", ["--config=fish/small"]),
        ("zoo fit --config = fis", ["fish/small"]),
        ("zoo fit --model Clas", ["Classification"]),
        ("zoo test --data MNIST5", ["MNIST5k"]),
        ("zoo fit --model Classification --model.architecture Acm", ["AcmeNet"]),
        ("zoo fit --model.architecture Acm", ["AcmeNet"]),
        ("zoo fit --model.architecture AcmeNet --model.architecture.d", ["--model.architecture.depth"]),
        ("zoo fit --model Classification --model.label_s", ["--model.label_smoothing"]),
        ("zoo fit --model=Classification --model.label_s", ["--model.label_smoothing"]),
        ("zoo fit --data MNIST5k --data.val_f", ["--data.val_fraction"]),
        ("zoo fit --no", ["--no-test"]),
        ("zoo validate --no", []),
        ("zoo fit --ckpt_path la", []),
        ("zoo fit --config nothing/like/it", []),
        ("zoo fit --model Nothing --model.", []),
    ],
)
def test_words(acme, line, expected):
    assert offered(line) == expected
    assert "acme" not in sys.modules


def test_trainers_options_are_those_of_the_installed_lightning():
    from lightning.pytorch import Trainer

    assert offered("zoo fit --trainer.") == [f"--trainer.{name}" for name in inspect.signature(Trainer).parameters]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("zoo doctor --", ["--help", "--quick"]),
        ("zoo measure --c", ["--ckpt_path"]),
        ("zoo measure alexnet --se", ["--seeds"]),
        ("zoo measure --name x alex", ["alexnet"]),
        ("zoo schema --o", ["--out"]),
        ("zoo new-plugin --o", ["--out"]),
        ("zoo new-plugin --out ", []),
        ("zoo export --b", ["--batch_size"]),
        ("zoo export --format ", ["onnx", "torch_export"]),
        ("zoo export --format=o", ["--format=onnx"]),
        ("zoo export --ckpt_path ", []),
        ("zoo list --", ["--help"]),
        ("zoo inspect ", ["filters", "activations", "signal", "attribution"]),
        ("zoo inspect signal --im", ["--images"]),
        ("zoo inspect filters --im", []),
        ("zoo inspect filters --ck", ["--ckpt_path"]),
        ("zoo inspect signal -c alex", ["alexnet"]),
        ("zoo inspect filters --architecture AlexN", ["AlexNet"]),
        ("zoo inspect filters --architecture AlexNet --architecture.wid", ["--architecture.width"]),
    ],
)
def test_options_of_other_commands_are_their_parsers(line, expected):
    assert offered(line) == expected


def test_plugins_verb_and_its_parser_are_completed(fake_plugin):
    text = """
import argparse

def parser():
    made = argparse.ArgumentParser()
    far = made.add_subparsers().add_parser("far")
    far.add_argument("--speed", choices=["slow", "fast"])
    return made

def main(argv): ...
"""
    files = {"acme/swim.py": text, "acme/dive.py": "1/0"}
    fake_plugin(files=files, entries={"commands": {"swim": "acme.swim:main", "dive": "acme.dive:main"}})
    assert offered("zoo swi") == ["swim"]
    assert offered("zoo swim ") == ["far"]
    assert offered("zoo swim far --sp") == ["--speed"]
    assert offered("zoo swim far --speed f") == ["fast"]
    assert offered("zoo dive --") == ["--help"]
    assert offered("zoo dvie --") == []


def test_options_of_fit_are_its():
    text = module_text("zoo.cli.lightning")
    assert [option for option in ("--out", *FIT_OPTIONS) if f'"{option}"' not in text] == []


def module_text(module: str) -> str:
    return Path(registry.locate(module).origin).read_text(encoding="utf-8")


def test_recipe_that_two_packages_bring_is_offered_qualified_and_in_bashs_pieces(acme, fake_plugin):
    fake_plugin("other-zoo", files={"o/recipes/fish/small.yaml": ""}, entries={"recipes": {"other-zoo": "o.recipes"}})
    assert offered("zoo fit --config acme-zoo:f") == ["acme-zoo:fish/small"]
    assert offered("zoo fit --config acme-zoo : f") == ["fish/small"]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_script_is_printed(shell, capsys):
    assert main([shell]) == 0
    assert capsys.readouterr().out == SCRIPTS[shell]


def test_debug_is_completed_and_not_swallowed(zoo_process):
    left = zoo_process("completion", "--complete", "2", "zoo", "show", "--debug", "Alex")
    assert left.returncode == 0
    assert left.stdout == ""
    assert zoo_process("completion", "--complete", "3", "zoo", "show", "--debug", "Alex").stdout == ""


# The shells themselves


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A ``zoo`` on the PATH, that runs this interpreter."""
    program = tmp_path / "bin" / "zoo"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m zoo "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def shell(name: str, program: str) -> list[str]:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[name]
    left = subprocess.run([found, *options, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert left.returncode == 0, left.stderr
    assert left.stderr == ""
    return left.stdout.splitlines()


def test_bash_is_told_of_the_function(command):
    [line] = shell("bash", 'eval "$(zoo completion bash)"; complete -p zoo')
    assert line.endswith("-F _zoo zoo")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["zoo", "va"], ["validate"]),
        (["zoo", "show", "Acm"], ["AcmeNet"]),
        (["zoo", "fit", "--config", "=", "fis"], ["fish/small"]),
        (["zoo", "fit", "--config", "=", ""], None),
        (["zoo", "fit", "--ckpt_path", ""], []),
    ],
)
def test_bash_completes(acme, command, words, expected):
    line = " ".join(f"'{word}'" for word in words)
    program = (
        f'eval "$(zoo completion bash)"; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _zoo; '
        'for word in "${COMPREPLY[@]}"; do echo "$word"; done'
    )
    found = shell("bash", program)
    assert found == expected if expected is not None else "fish/small" in found


def test_zsh_script_parses_and_completes(acme, command):
    capture = (
        'compdef() { print "compdef $@"; }; compadd() { print -l ${(P)2}; }; _files() { print files; }\n'
        'eval "$(zoo completion zsh)"; words=(zoo show Acm); CURRENT=3; _zoo\n'
        'words=(zoo fit --ckpt_path ""); CURRENT=4; _zoo'
    )
    assert shell("zsh", capture) == ["compdef _zoo zoo", "AcmeNet", "files"]


def test_fish_completes(acme, command):
    Path("zoo.fish").write_text(SCRIPTS["fish"])
    assert "AcmeNet" in shell("fish", "source zoo.fish; complete -C 'zoo show Acm'")
