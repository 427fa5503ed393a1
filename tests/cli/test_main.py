"""The dispatcher: every command reaches its function, and every error ends in one line."""

import contextlib
import importlib.metadata
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from zoo import __main__ as entrance
from zoo import registry
from zoo.cli import verbs
from zoo.errors import UserError


@pytest.fixture
def module(monkeypatch):
    """Put a module with one function into the place of a heavy command's."""

    def put(name: str, function: str, behaviour):
        fake = types.ModuleType(name)
        setattr(fake, function, behaviour)
        monkeypatch.setitem(sys.modules, name, fake)

    return put


def test_help_names_every_command_and_fits_80_columns(capsys):
    assert entrance.main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in verbs.OWN:
        assert f"\n  {command} " in text
    assert max(map(len, text.splitlines())) <= 80
    assert entrance.main([]) == 0
    assert capsys.readouterr().out == text


def test_version_is_the_distributions(capsys):
    assert entrance.main(["--version"]) == 0
    assert capsys.readouterr().out == f"zoo {importlib.metadata.version('lightning-zoo')}\n"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_lightnings_commands_get_the_whole_line(module, command):
    seen = []
    module("zoo.cli.lightning", "run", lambda argv: seen.append(argv) or 7)
    assert entrance.main([command, "--config", "alexnet"]) == 7
    assert seen == [[command, "--config", "alexnet"]]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("export", "zoo.cli.export"),
        ("check", "zoo.cli.check"),
        ("schema", "zoo.cli.schema"),
        ("new-plugin", "zoo.cli.new_plugin"),
        ("measure", "zoo.cli.measure"),
    ],
)
def test_other_commands_get_what_stands_behind_them(module, command, name):
    seen = []
    module(name, "main", lambda argv: seen.append(argv) or 0)
    assert entrance.main([command, "a", "--b"]) == 0
    assert seen == [["a", "--b"]]


def test_every_command_has_its_function():
    for verb in verbs.OWN.values():
        spec = registry.locate(verb.module)  # importing them all takes seconds
        assert spec, verb
        name = verb.target.partition(":")[2]
        assert re.search(rf"^def {name}\(argv", Path(spec.origin).read_text(), re.M), verb


# Verbs of plugins

VERB = '''"""A plugin's verb."""

import torch


def main(argv):
    """``zoo swim --far``: move through water, as fish of any size do when they are let.

    More of it.
    """
    print("swimming", *argv)
    return 3
'''


@pytest.fixture
def swim(fake_plugin):
    def install(name="acme-zoo", package="acme", text=VERB, target="main", verb="swim"):
        entries = {"commands": {verb: f"{package}.swim:{target}"}}
        return fake_plugin(name, files={f"{package}/swim.py": text}, entries=entries)

    return install


def test_plugins_verb_gets_the_words_and_gives_the_status(swim, capsys):
    swim()
    assert entrance.main(["swim", "far", "--and", "back"]) == 3
    assert capsys.readouterr().out == "swimming far --and back\n"


def test_plugins_verb_is_in_the_help_with_its_package_and_not_imported(swim, capsys):
    swim()
    assert entrance.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "  swim        move through water, as fish of  zoo swim --far [acme-zoo]\n" in text
    assert "                any size do when they are let\n" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "acme.swim" not in sys.modules


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        ("def main(argv): ...", "main", "zoo swim [acme-zoo]"),
        ("from acme.other import main", "main", "(no module acme.other)"),
        ("x = 1", "main", "(acme.swim has no function"),
    ],
)
def test_help_does_with_a_verb_that_says_nothing_or_is_broken(swim, capsys, text, target, said):
    swim(text=text, target=target)
    assert entrance.main(["--help"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


def test_broken_verb_is_one_line_and_harms_no_other(swim, capsys):
    swim(text="raise RuntimeError('no sea')")
    assert entrance.main(["swim"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(part in err for part in ("swim", "acme-zoo 1.0", "RuntimeError: no sea"))
    assert entrance.main(["--version"]) == 0
    swim("other-zoo", "other", text="main = 3", verb="dive")
    assert entrance.main(["dive"]) == 2
    assert "which is not a function" in capsys.readouterr().err


def test_the_zoos_own_verb_wins_and_the_plugins_is_called_with_its_package(swim, capsys):
    swim(verb="list")
    assert entrance.main(["list", "parts"]) == 0
    assert "swimming" not in capsys.readouterr().out
    assert entrance.main(["acme-zoo:list"]) == 3
    assert capsys.readouterr().out == "swimming\n"
    entrance.main(["--help"])
    assert "\n  acme-zoo:list " in capsys.readouterr().out


def test_verb_of_two_plugins_must_be_qualified(swim, capsys):
    swim()
    swim("other-zoo", "other")
    assert entrance.main(["swim"]) == 2
    assert "several plugins have a command swim: say zoo acme-zoo:swim or zoo other-zoo:swim" in capsys.readouterr().err
    assert entrance.main(["other-zoo:swim"]) == 3


def test_processes_own_line_is_read_and_kept_for_other_processes(module, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["zoo", "--debug", "fit", "--trainer.devices", "2"])
    seen = []
    module("zoo.cli.lightning", "run", lambda argv: seen.append((argv, sys.argv[1:])) or 0)
    assert entrance.main() == 0
    assert seen == [(["fit", "--trainer.devices", "2"],) * 2]
    assert os.environ["ZOO_DEBUG"] == "1"


@pytest.mark.parametrize(("wrong", "right"), [("fti", "fit"), ("shwo", "show"), ("lst", "list")])
def test_unknown_command_is_one_line_with_close_matches(capsys, wrong, right):
    assert entrance.main([wrong]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"zoo: error: no command {wrong}; did you mean {right}")
    assert err.count("\n") == 1


def test_option_before_the_command_is_told(capsys):
    assert entrance.main(["--config", "alexnet", "test"]) == 2
    assert "zoo test --config" in capsys.readouterr().err


def fail(argv):
    raise UserError("model.width must be positive, not -1")


def test_user_error_is_one_line_and_status_2(module, capsys):
    module("zoo.cli.lightning", "run", fail)
    assert entrance.main(["fit"]) == 2
    assert capsys.readouterr().err == "zoo: error: model.width must be positive, not -1\n"


@pytest.mark.parametrize("line", [["--debug", "fit"], ["fit", "--debug"]])
def test_debug_shows_the_traceback(module, capsys, line):
    module("zoo.cli.lightning", "run", fail)
    assert entrance.main(line) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in fail" in err
    assert err.endswith("zoo: error: model.width must be positive, not -1\n")


def test_interruption_ends_with_130(module, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    module("zoo.cli.lightning", "run", interrupted)
    assert entrance.main(["fit"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_terminal_without_the_signs_gets_question_marks(zoo_process):
    left = zoo_process("list", "--help", PYTHONIOENCODING="ascii")
    assert left.returncode == 0
    assert "[WORD?]" in left.stdout


@pytest.mark.parametrize("command", ["list", "show", "doctor", "completion"])
def test_light_commands_help_fits_80_columns(capsys, command):
    with contextlib.suppress(SystemExit):  # argparse leaves so
        assert entrance.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: zoo {command}")
    assert max(map(len, text.splitlines())) <= 80


def test_closed_pipe_is_quiet():
    command = [sys.executable, "-m", "zoo", "list"]
    reader, writer = os.pipe()
    os.close(reader)
    left = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writer)
    assert left.stderr == ""
    assert left.returncode == 141
