"""The command ``zoo``: finds the command's function, and imports nothing before it is known which."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module

from zoo.errors import UserError

HELP = """\
usage: zoo COMMAND [options]

Train, test and use the networks of the zoo and of its plugins.

  fit         train a recipe, then test it    zoo fit --config alexnet
  validate    validate a checkpoint           zoo validate --ckpt_path FILE
  test        test a checkpoint               zoo test --ckpt_path FILE
  predict     results for your own files      zoo predict --ckpt_path FILE
                                                --data.files 'photos/*.jpg'
  export      write ONNX or torch.export      zoo export --ckpt_path FILE

  list        what is installed               zoo list architectures
  show        one class or recipe in detail   zoo show AlexNet
  inspect     look inside a network           zoo inspect signal -c plain
  study       rerun a page's experiment       zoo study depth
  doctor      what works on this machine      zoo doctor
  check       conformance of a class          zoo check AlexNet
  measure     run recipes, keep the figures   zoo measure alexnet
  schema      JSON Schema of recipes          zoo schema
  new-plugin  write a plugin's package        zoo new-plugin NAME
  completion  completion for your shell       zoo completion bash

`zoo COMMAND --help` says more. `--debug` shows the traceback of an error.
"""

# Where each command lives. Those in the first lines answer without importing torch.
COMMANDS = {
    "list": "zoo.cli.catalogue:list_",
    "show": "zoo.cli.catalogue:show",
    "doctor": "zoo.cli.doctor:main",
    "completion": "zoo.cli.completion:main",
    "fit": "zoo.cli.lightning:run",
    "validate": "zoo.cli.lightning:run",
    "test": "zoo.cli.lightning:run",
    "predict": "zoo.cli.lightning:run",
    "export": "zoo.cli.export:main",
    "check": "zoo.testing:main",
    "schema": "zoo.cli.schema:main",
    "new-plugin": "zoo.cli.new_plugin:main",
    "measure": "zoo.cli.measure:main",
    "inspect": "zoo.insight:main",
    "study": "zoo.studies:main",
}
_WHOLE = ("zoo.cli.lightning:run",)  # these want the command's name, too

INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 and the signal's number, as shells have it


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the words behind ``zoo``; left out, those of the process.

    Returns:
        The exit status: 2 for what the user can put right, 130 after Ctrl-C.
    """
    words = _take_debug(sys.argv[1:] if argv is None else argv)
    _allow_any_terminal()
    if argv is None:
        sys.argv[1:] = words  # Lightning starts its other processes with these; ZOO_DEBUG they inherit
    try:
        status = _dispatch(words)
        sys.stdout.flush()  # here, so that a closed pipe is met here
        return status
    except UserError as error:
        if os.environ.get("ZOO_DEBUG"):
            import traceback

            traceback.print_exc()
        print(f"zoo: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `zoo list | head`: nothing is left to say, and the interpreter must not say it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _take_debug(argv: list[str]) -> list[str]:
    if argv[:2] == ["completion", "--complete"] or "--debug" not in argv:
        return list(argv)  # what is completed there may be this very option
    os.environ["ZOO_DEBUG"] = "1"
    return [word for word in argv if word != "--debug"]


def _allow_any_terminal() -> None:
    """A terminal that lacks a sign shows a question mark, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _dispatch(argv: list[str]) -> int:
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if command == "--version":
        from zoo import __version__

        print(f"zoo {__version__}")
        return 0
    target = COMMANDS.get(command)
    if target is None:
        raise UserError(_unknown(command, argv))
    return _function(target)(argv if target in _WHOLE else argv[1:])


def _function(target: str) -> Callable[[list[str]], int]:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _unknown(command: str, argv: list[str]) -> str:
    from zoo.registry import did_you_mean

    if command.startswith("-"):
        later = next((word for word in argv if word in COMMANDS), "fit")
        return f"{command} comes before the command: say zoo {later} {command} … (`zoo --help` lists the commands)"
    return f"no command {command}{did_you_mean(command, COMMANDS)} (`zoo --help` lists them)"


if __name__ == "__main__":
    sys.exit(main())
