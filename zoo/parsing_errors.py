"""Library errors in one line: what jsonargparse and the constructors report, reworded for the user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from zoo import registry, source
from zoo.errors import UserError
from zoo.parsing_yaml import explain, load_yaml

_KEY = re.compile(r'^(?:- )?(?:Parser key|Problem with|Key) "?([\w.+]+)"?:?$')
_NOISE = re.compile(
    r"^(- )?(Does not validate against any of the Union|Subtypes: |Errors:$|Given value|"
    r"Expected a <class 'NoneType'>|Problem with given class_path '[\w.]+':$|"
    r"Expected a path but .* not accessible|Not a valid subclass of)"
)


def condense(message: str) -> str:
    """``model.architecture.width: Expected a float`` from jsonargparse's nested report, if understood."""
    text = _REFUSED.sub(_refusal, message)
    text = re.sub(r"Type [^\n]*? expects a function or a callable class: ", "\n", text)
    text = _OF_ANOTHER_CLASS.sub(r"\1 is not of the class \2", text)
    text = re.sub(r"\.? Got value: (Namespace\(|\{).*$", "", text, flags=re.M)
    keys: list[str] = []
    found: list[str] = []
    for line in (raw.strip() for raw in text.splitlines()):
        if match := _KEY.match(line):
            keys.append(match[1])
        elif line.strip("- ") and not _NOISE.search(line):
            found.append(line.removeprefix("- "))
    if not found:
        return _one_line(message)
    if (nested := _NESTED.search(text)) and _CLASSLESS.search(text):
        where = _join(keys)
        return f"{where}.{nested[1]}: of which class? Give --{where} NAME first, or a recipe (--config FILE)"
    if found[0].startswith("unrecognized arguments"):
        found[0] += " (one value an option: quote a pattern, and write a list as '[a, b]')"
    said = "; ".join(dict.fromkeys(_best(found)))
    given = re.search(r"^\s*Given value: ([^\n(]{1,60})$", text, flags=re.M)
    if given and "Got value" not in said and not re.search(_TELLING[0], said):
        said += f". Got value: {given[1]}"
    said = re.sub(r"Expected a typing\.Literal\[([^\]]*)\]\. Got value: ", r"must be one of \1, not ", said)
    where = _join(keys)
    return _one_line(f"{where}: {said}" if where and not said.startswith(where) else said)


_OF_ANOTHER_CLASS = re.compile(
    r"Expected '([\w.]+)' to be a subclass of (?:<class ')?([\w.]*\w)(?:'>)?\.*(?: Got value: [^\n]*)?"
)
# An argument of a class, if no class was given.
_NESTED = re.compile(r"NestedArg\(key='([\w.+]+)'")
_CLASSLESS = re.compile(
    r"must include a class_path|Subclass types expect one of|given class_path 'zoo\.(Task|Data|Architecture)'"
)
_REFUSED = re.compile(
    r"(?:Option '([\w+]+)' is not accepted(?:\. Got value: Namespace\(class_path='([\w.]+)')?"
    r"|Subcommand '\w+' does not accept option 'trainer\.(\w+)'|unrecognized arguments: --trainer\.(\w+))[^\n]*"
)
_TRAINER = "lightning.pytorch.Trainer"


def _refusal(match: re.Match[str]) -> str:
    """Which class does not take an argument, and its arguments with a similar name."""
    if name := match[3] or match[4]:
        return f"trainer: {_not_taken(name, _TRAINER)}"
    around = re.findall(r"given class_path '([\w.]+)'", match.string[: match.start()])
    return _not_taken(match[1], match[2] or (around[-1] if around else ""))


def _not_taken(argument: str, path: str) -> str:
    module, _, name = path.rpartition(".")
    registered = registry.find(name)
    try:
        found = source.parameters(registered[0].module if registered else module, name)
    except source.SourceError:
        found = []
    known = [parameter.name for parameter in found]
    if argument in known:
        return f"{name}'s {argument} is filled in by what the data or the task knows"
    close = registry.did_you_mean(argument, known)
    others = f" (`zoo show {name}` lists what it takes)" if registered else f": it takes {', '.join(known)}"
    return f"{name or 'its class'} takes no {argument}{close or others}"


def _join(keys: list[str]) -> str:
    path: list[str] = []
    for key in keys:
        if not (path and (key == path[-1] or ".".join(path).endswith(f".{key}"))):
            path.append(key)
    return ".".join(path)


_TELLING = (
    r"required|not accepted| takes no | is filled in| is not valid YAML| is not of the class ",
    r"^Requirement '.*' not met",
    r"Expected a <class '(int|float)'>",
    r"dot import path",
    r"not allowed, denied",
    r"Multiple",
)


def _best(found: list[str]) -> list[str]:
    """The most informative of several reports on the alternatives of one type."""
    for pattern in _TELLING:
        told = [line for line in found if re.search(pattern, line)]
        if told and pattern == r"dot import path":
            return [_broken(told[0]) or _unknown(told[0].rpartition(": ")[2])]
        if told and pattern == r"not allowed, denied":
            name = re.search(r"Importing '([^']+)'", told[0])
            return [f"{name[1] if name else 'this path'} is not allowed in a recipe (docs: security)"]
        if told:
            return told
    return [line for line in found if not _KINDS.search(line)] or found


# How a class may be given, and which others would do, beside what is wrong with the one that was given.
_KINDS = re.compile(r"^(Subclass types expect one of|a class path \(str\)|a dict with|Import path \S+ does not corr)")


def _broken(line: str) -> str:
    """What is wrong with a text that is no name, and no YAML either; empty if it is one of them."""
    text = line.partition("dot import path string: ")[2].removesuffix(".")
    try:
        load_yaml(text)
    except yaml.YAMLError as error:
        return f"{shortened(text, 80)} is not valid YAML: {explain(error)}"
    return ""


def _unknown(name: str) -> str:
    short = name.rpartition(".")[2]
    if (reason := registry.failure(name) or registry.failure(short)) is not None:
        return reason
    if entries := registry.find(short):
        return f"{short} is one of the {entries[0].kind}, which does not fit here"
    close = registry.did_you_mean(short, _known_names())
    return f"nothing called {name} is installed{close} (`zoo list` shows every name)"


def _known_names() -> list[str]:
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    def below(cls: Any) -> Iterator[str]:
        for sub in cls.__subclasses__():
            yield sub.__name__
            yield from below(sub)

    known = [name for base in (Callback, Logger, Optimizer, LRScheduler) for name in below(base)]
    return [*known, *(entry.name for entry in registry.entries())]


def shortened(text: str, longest: int = 600) -> str:
    """A message that repeats what it was given, of bounded length."""
    return text if len(text) <= longest else f"{text[:longest]} …"


def user_message(error: BaseException) -> str:
    """The message of an error raised while building objects: the ``UserError`` behind it, if there is one."""
    behind = user_error_behind(error)
    return condense(str(error)) if behind is None else str(behind)


def user_error_behind(error: BaseException) -> UserError | None:
    """The user's mistake that an error reports, if there is one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<class '([\w.]+)'>", r"\1", text)).strip()
