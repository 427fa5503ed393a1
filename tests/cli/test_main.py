"""The dispatcher: every command reaches its function, and every error ends in one line."""

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
    for command in entrance.COMMANDS:
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
        ("check", "zoo.testing"),
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
    for target in entrance.COMMANDS.values():
        module, _, name = target.partition(":")
        spec = registry.locate(module)  # importing them all takes seconds
        assert spec, target
        assert re.search(rf"^def {name}\(argv|^from .* import .*\b{name}\b", Path(spec.origin).read_text(), re.M), (
            target
        )


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
