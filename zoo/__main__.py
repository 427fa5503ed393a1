"""The command ``zoo``: finds the verb's function, and imports nothing else before."""

from __future__ import annotations

import os
import sys

from zoo.errors import UserError
from zoo.home import with_home

FAILED, INTERRUPTED, BROKEN_PIPE = 1, 130, 141  # 128 plus the signal's number, as in shells


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments after ``zoo``; default: those of the process.

    Returns:
        The exit status: 2 for a user's mistake, 1 for what failed otherwise, 130 after Ctrl-C.
    """
    words = _with_home(_take_debug(sys.argv[1:] if argv is None else argv))
    _allow_any_terminal()
    if argv is None:
        sys.argv[1:] = words  # Lightning starts its other processes with these arguments; they inherit ZOO_DEBUG
    try:
        status = _dispatch(words)
        sys.stdout.flush()  # here, so that a closed pipe raises here
        return status
    except UserError as error:
        _show_traceback()
        print(f"zoo: error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `zoo list | head`: the reader is gone, and the interpreter must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # of a library or a plugin: also for these one line is enough
        _show_traceback()
        if isinstance(error, OSError) and error.filename:
            print(f"zoo: error: {error.filename}: {error.strerror}", file=sys.stderr)
            return UserError.status
        text = " ".join(str(error).split())[:400]
        hint = "" if os.environ.get("ZOO_DEBUG") else " (--debug shows the traceback)"
        print(f"zoo: error: {type(error).__name__}{f': {text}' if text else ''}{hint}", file=sys.stderr)
        return FAILED


def _show_traceback() -> None:
    if os.environ.get("ZOO_DEBUG"):
        import traceback

        traceback.print_exc()


def _take_debug(argv: list[str]) -> list[str]:
    if argv[:2] == ["completion", "--complete"] or "--debug" not in argv:
        return list(argv)  # the word to complete may be this option itself
    os.environ["ZOO_DEBUG"] = "1"
    return [word for word in argv if word != "--debug"]


def _with_home(argv: list[str]) -> list[str]:
    """``~`` where the shell leaves it as it is (``--out=~/run``, in quotes) is the home folder, too."""
    if argv[:1] == ["completion"]:
        return argv  # a word that is being completed stays as it was typed
    return [_word_with_home(word) for word in argv]


def _word_with_home(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{with_home(value)}" if value.startswith("~") else word


def _allow_any_terminal() -> None:
    """Print a question mark for characters that the terminal can't show, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _dispatch(argv: list[str]) -> int:
    word = argv[0] if argv else "--help"
    if word == "--version":
        from zoo import __version__

        print(f"zoo {__version__}")
        return 0
    from zoo.cli import verbs

    if word in ("-h", "--help", "help"):
        print(verbs.help_text(), end="")
        return 0
    verb = verbs.find(word)
    if verb is None:
        raise UserError(_unknown(word, argv))
    return verb.function()(argv if verb.trains else argv[1:])


def _unknown(word: str, argv: list[str]) -> str:
    from zoo.cli import verbs
    from zoo.registry import did_you_mean

    known = verbs.names()
    if word.startswith("-"):
        later = next((word for word in argv if word in known), "fit")
        return f"{word} comes before the command: say zoo {later} {word} … (`zoo --help` lists the commands)"
    if claims := [name for name in known if name.endswith(f":{word}")]:
        return f"several plugins have a command {word}: say zoo {' or zoo '.join(claims)}"
    return f"no command {word}{did_you_mean(word, known)} (`zoo --help` lists them)"


if __name__ == "__main__":
    sys.exit(main())
