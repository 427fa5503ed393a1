"""Shell completion: small scripts for bash, zsh and fish that ask ``zoo completion --complete`` on each TAB.

jsonargparse completes through argcomplete and shtab, but both need the whole parser, so each TAB (or the writing of
the script, which then knows no plugin installed later) imports torch and Lightning: five seconds. This reads entry
points and sources instead, in about 0.05 s, and so knows the names of every plugin. Nested options are read from the
source of the ``__init__`` of Lightning's Trainer and of the classes named on the line. Those of the small verbs come
from the parser in each verb's module, which does not need torch.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from zoo import registry
from zoo.cli import verbs
from zoo.cli.verbs import Verb
from zoo.errors import UserError
from zoo.source import Parameter, SourceError, parameters

BASH = """\
# zoo completion for bash: eval "$(zoo completion bash)" in ~/.bashrc
_zoo() {
    local IFS=$'\\n'
    COMPREPLY=($(zoo completion --complete "$COMP_CWORD" "${COMP_WORDS[@]}" 2>/dev/null))
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *. ]] && compopt -o nospace
    return 0
}
complete -o bashdefault -o default -F _zoo zoo
"""

ZSH = """\
#compdef zoo
# zoo completion for zsh: eval "$(zoo completion zsh)" in ~/.zshrc, behind compinit
_zoo() {
    local -a found
    found=(${(f)"$(zoo completion --complete $((CURRENT - 1)) "${words[@]}" 2>/dev/null)"})
    if (( ${#found} )); then
        compadd -a found
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _zoo ]]; then
    _zoo "$@"
else
    compdef _zoo zoo
fi
"""

FISH = """\
# zoo completion for fish: zoo completion fish > ~/.config/fish/completions/zoo.fish
function __zoo_complete
    set -l before (commandline -opc)
    zoo completion --complete (count $before) $before (commandline -ct) 2>/dev/null
end
complete -c zoo -a '(__zoo_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

HELP = """\
usage: zoo completion bash|zsh|fish

Print a script that completes commands, options, classes and recipes:

  bash  eval "$(zoo completion bash)"    in ~/.bashrc
  zsh   eval "$(zoo completion zsh)"     in ~/.zshrc, behind compinit
  fish  zoo completion fish > ~/.config/fish/completions/zoo.fish
"""

OPTIONS = ("--config", "--model", "--data", "--ckpt_path", "--out", "--trainer.", "--seed_everything", "--print_config")
FIT_OPTIONS = ("--no-test", "--checkpoint_every_n_steps")
OWNERS = {"--model": "tasks", "--data": "data", "--architecture": "architectures"}  # options that take a class
SEVERAL = ("check", "measure")  # options that take any number of names
TRAINER = ("lightning.pytorch.trainer.trainer", "Trainer")


def main(argv: list[str]) -> int:
    """Print a shell's script; or, for these scripts, the completions of a word.

    Args:
        argv: the shell; or ``--complete``, the position of the word on the line, and the line's words.

    Raises:
        UserError: the shell is not supported.
    """
    if argv[:1] == ["--complete"]:
        print("".join(f"{word}\n" for word in candidates(argv[2:], int(argv[1]))), end="")
        return 0
    if any(word in ("-h", "--help") for word in argv):
        print(HELP, end="")
        return 0
    if len(argv) != 1 or argv[0] not in SCRIPTS:
        raise UserError(f"zoo completion takes one of {', '.join(SCRIPTS)}, not {' '.join(argv) or 'nothing'}")
    print(SCRIPTS[argv[0]], end="")
    return 0


def candidates(words: list[str], position: int) -> list[str]:
    """The completions of the word at this position; empty if the shell should offer files.

    Args:
        words: the words of the line, starting with ``zoo``; bash also splits them at ``=`` and ``:``.
        position: index of the word to complete; it may be one after the last.
    """
    before, word = _rejoined([*words, ""][: position + 1])
    if position == 0:
        return []
    option, sign, value = word.partition("=")
    if sign:  # --config=alexnet in one word (zsh and fish); bash replaces only what follows the sign
        lead = "" if "=" in words[: position + 1] else f"{option}="
        return [f"{lead}{found}" for found in _starting(_behind(option, before), value)]
    offered = _starting(_offers(before, word), word)
    if ":" in word and ":" in words[: position + 1]:
        start = word.rindex(":") + 1
        return [found[start:] for found in offered]
    return offered


def _rejoined(words: list[str]) -> tuple[list[str], str]:
    """The words as they were before bash split them, and the last one."""
    joined: list[str] = []
    glue = False
    for word in words:
        if word in ("=", ":") and joined:
            joined[-1] += word
            glue = True
        elif glue:
            joined[-1] += word
            glue = False
        else:
            joined.append(word)
    return joined[:-1], joined[-1]


def _starting(names: list[str], word: str) -> list[str]:
    found = [name for name in names if name.startswith(word)]
    return found or [name for name in names if name.lower().startswith(word.lower())]


def _offers(before: list[str], word: str) -> list[str]:
    if len(before) == 1:
        return [*verbs.names(), "--help", "--version"]
    verb = verbs.find(before[1])
    if verb is None:
        return []
    if word.startswith("-"):
        return _options(before, word) if verb.trains else _options_of(verb, before, word)
    last = before[-1]
    if verb.trains or (last.startswith("-") and _takes_value(verb, before)):
        return _behind(last, before)
    return _words_of(verb, before)


def _options_of(verb: Verb, before: list[str], word: str) -> list[str]:
    """The options of the verb's own parser, and those of the classes that the line names."""
    parser, _ = _innermost(_parser_of(verb), before[2:])
    own = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    return [*own, *_reached(before, word)]


def _words_of(verb: Verb, before: list[str]) -> list[str]:
    """Completions of the verb's positional arguments."""
    parser, behind = _innermost(_parser_of(verb), before[2:])
    if behind and verb.name not in SEVERAL:
        return []
    return _arguments(verb.name) or [name for a in parser._actions if not a.option_strings for name in _choices(a)]


def _option(verb: Verb, option: str, before: list[str]) -> argparse.Action | None:
    parser, _ = _innermost(_parser_of(verb), before[2:])
    return next((action for action in parser._actions if option in action.option_strings), None)


def _takes_value(verb: Verb, before: list[str]) -> bool:
    found = _option(verb, before[-1], before)
    return found is not None and found.nargs != 0


def _behind(option: str, before: list[str]) -> list[str]:
    """Values of an option of the line's verb."""
    verb = verbs.find(before[1]) if len(before) > 1 else None
    action = _option(verb, option, before) if verb and not verb.trains else None
    return (_choices(action) if action else []) or _values(option, before)


def _parser_of(verb: Verb) -> argparse.ArgumentParser:
    """If its module has none, or can't be imported, only --help is offered."""
    try:
        return import_module(verb.module).parser()
    except (Exception, SystemExit):
        return argparse.ArgumentParser()


def _innermost(parser: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The subcommand's parser if one is named, and the words after its name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and words and words[0] in action.choices:
            return _innermost(action.choices[words[0]], words[1:])
    return parser, words


def _choices(action: argparse.Action) -> list[str]:
    return [str(choice) for choice in action.choices or ()]


def _reached(before: list[str], word: str) -> list[str]:
    """The options of the classes that the line names, once the word reaches into one."""
    owner, dot, _ = word.rpartition(".")
    if dot:
        return [f"{owner}.{parameter.name}" for parameter in _parameters(owner, before)]
    return [f"{name}." for name in OWNERS if _given(name, before)]


def _arguments(command: str) -> list[str]:
    if command == "list":
        return [*registry.KINDS, "recipes"]
    if command == "completion":
        return list(SCRIPTS)
    classes = list(dict.fromkeys(entry.label for entry in registry.entries()))
    packages = list(dict.fromkeys(entry.package for entry in registry.entries()))
    return {"show": [*classes, *_recipes()], "check": [*classes, *packages], "measure": _recipes()}.get(command, [])


def _values(option: str, before: list[str]) -> list[str]:
    """Values of an option."""
    if option in ("--config", "-c"):
        return _recipes()
    if option in OWNERS:
        return _classes(OWNERS[option])
    owner, _, name = option.rpartition(".")
    annotation = next((p.annotation for p in _parameters(owner, before) if p.name == name), "")
    return _classes("architectures") if "ArchitectureFactory" in annotation or name == "architecture" else []


def _recipes() -> list[str]:
    return list(dict.fromkeys(recipe.label for recipe in registry.recipes()))


def _classes(kind: str) -> list[str]:
    return list(dict.fromkeys(entry.label for entry in registry.entries() if entry.kind == kind))


def _options(before: list[str], word: str) -> list[str]:
    """The options of ``fit`` and similar commands; those of a class once the word reaches into it."""
    own = () if "." in word else (*OPTIONS, *(FIT_OPTIONS if before[1] == "fit" else ()), "--help")
    return [*own, *_reached(before, word)]


def _parameters(owner: str, before: list[str]) -> list[Parameter]:
    if owner == "--trainer":
        return _of_class(*TRAINER)
    if owner.partition(".")[0] not in OWNERS:
        return []
    found = registry.mentioned(_given(owner, before))
    return [parameter for entry in found for parameter in _of_class(entry.module, entry.name)]


def _of_class(module: str, name: str) -> list[Parameter]:
    try:
        return parameters(module, name)
    except SourceError:  # not installed, or not written in Python: nothing to offer
        return []


def _given(option: str, before: list[str]) -> str:
    """The value of an option on the line, so far."""
    for i, word in enumerate(before):
        if word == option and i + 1 < len(before):
            return before[i + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""
