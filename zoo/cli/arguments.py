"""Arguments that are read before the parser sees them: recipes by name, and the checkpoint to start from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from zoo import registry
from zoo.errors import UserError
from zoo.factories import spec
from zoo.parsing import load_recipe
from zoo.parsing_yaml import explain
from zoo.training import checkpoints
from zoo.training.run_folder import refuse_remote

# Options of a single run, not of a recipe. A recipe may come from anyone.
ONE_RUN = ("ckpt_path", "config", "out", "print_config", "return_predictions", "verbose", "weights_only")


def option_values(argv: Sequence[str], *flags: str) -> list[tuple[int, str]]:
    """Position and value of each use of an option, ``--x v`` and ``--x=v`` alike."""
    found = []
    for i, text in enumerate(argv):
        if text in flags and i + 1 < len(argv):
            found.append((i + 1, argv[i + 1]))
        elif text.startswith(tuple(f"{flag}=" for flag in flags if flag.startswith("--"))):
            found.append((i, text.split("=", 1)[1]))
    return found


def _replaced(argv: list[str], at: int, value: str) -> None:
    argv[at] = f"{argv[at].split('=', 1)[0]}={value}" if argv[at].startswith("--") else value


def spelt_out(argv: Sequence[str]) -> list[str]:
    """The arguments with ``-cRECIPE`` and ``-c=RECIPE``, which argparse takes too, as ``-c RECIPE``."""
    attached = re.compile("-c=?(.+)", re.DOTALL)
    found = [(word, attached.fullmatch(word)) for word in argv]
    return [part for word, match in found for part in (("-c", match[1]) if match else (word,))]


def with_recipe_files(argv: list[str]) -> list[str]:
    """The arguments with the files of all recipes before any flag, which therefore overrides them.

    A recipe that is given twice counts once, at its last place: what it adds to a list (``callbacks+``) is added once.
    """
    paths: dict[Path, str] = {}
    rest = list(argv)
    for at, value in reversed(option_values(argv, "--config", "-c")):
        path = registry.find_recipe(value)
        paths.setdefault(path.resolve(), str(path))
        del rest[at - (argv[at] == value and argv[at - 1] in ("--config", "-c")) : at + 1]
    names = [*reversed(paths.values())]
    for name in names:
        _check_recipe(Path(name))
    command = 0 if rest[:1] and rest[0].startswith("-") else min(1, len(rest))
    options = [f"--config={name}" for name in names]
    return [*rest[:command], *options, *rest[command:]]


def _check_recipe(path: Path) -> None:
    try:
        content = load_recipe(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {explain(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a recipe: it must hold keys (model, data, trainer)")
    for key in content:
        if not isinstance(key, str):
            raise UserError(f"{path}: the key {key} is not a word; a recipe has model, data, trainer, seed_everything")
        if key.rstrip("+") in ONE_RUN:
            raise UserError(f"{path}: {key} belongs to the command line (--{key.rstrip('+')}), not to a recipe")
        if (head := key.partition(".")[0]) != key and head in content:
            raise UserError(f"{path}: {key} and {head} are both there, so one would override the other; write one key")
    if (found := _not_a_word(content, "")) is not None:
        raise UserError(f"{path}: {found}, a key that is not a word; in quotes it would be one")


def _not_a_word(node: Any, where: str) -> str | None:
    """The place of a key in the trainer's settings or a class's arguments that is a number, a date or ``on``."""
    if isinstance(node, list):
        return next(filter(None, (_not_a_word(value, where) for value in node)), None)
    if not isinstance(node, dict):
        return None
    named = where in ("", "trainer") or "class_path" in node or where.endswith("init_args")
    for key, value in node.items():
        if not isinstance(key, str) and named:
            return f"{where} has {key}".strip()
        if (found := _not_a_word(value, f"{where}.{key}".lstrip("."))) is not None:
            return found
    return None


def refuse_other_ways(config: Namespace, argv: Sequence[str]) -> None:
    """Options of a single run must come from the command line alone; checkpoints are always read as data.

    Args:
        config: the command's parsed configuration; its ``weights_only`` becomes True.
        argv: the arguments that were parsed.

    Raises:
        UserError: a value came from elsewhere, or ``weights_only`` is disabled.
    """
    for key in ("ckpt_path", "out"):
        given = [value for _, value in option_values(argv, f"--{key}")]
        if config.get(key) is not None and (not given or str(config[key]) != given[-1]):
            raise UserError(f"{key} {config[key]} did not come from the command line, where it belongs (--{key})")
    if config.get("weights_only") not in (None, True):
        raise UserError("weights_only can't be switched off: checkpoints are read as data (docs: security)")
    if "weights_only" in config:
        config.weights_only = True


# Numbers that Lightning counts by; it would fail at 0 in the middle of a step.
COUNTED_BY = ("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval")


def refuse_zero(trainer: Namespace) -> None:
    """Check the numbers of batches and epochs between two events.

    Raises:
        UserError: one of them is not above 0.
    """
    for key in COUNTED_BY:
        value = trainer.get(key)
        if isinstance(value, int | float) and value <= 0:
            hint = "" if key.startswith("accumulate") else " (--trainer.limit_val_batches 0 disables validation)"
            raise UserError(f"trainer.{key} must be above 0, not {value}{hint}")


def with_checkpoint_file(argv: list[str], recipe_names: list[str]) -> tuple[Path | None, list[str]]:
    """The checkpoint's file, and the arguments with ``last`` or a run folder replaced by it."""
    argv, found = list(argv), None
    for at, value in option_values(argv, "--ckpt_path"):
        refuse_remote(value)
        if value == "last":
            found = checkpoints.find_last(Path("runs") / (label_of(recipe_names) or ""))
        elif argv[0] == "fit" and (last := Path(value) / "checkpoints" / "last.ckpt").is_file():
            found = last
        else:
            found = checkpoints.resolve(value)
        _replaced(argv, at, str(found))
    return found, argv


def label_of(recipe_names: list[str]) -> str | None:
    """What runs of these recipes are called: the first one's name that is not an overlay; None where all are."""
    named = [n for n in recipe_names if not n.startswith("trainer/") and "/trainer/" not in n]
    if not named:
        return None
    installed = {r.path.resolve(): r.name for r in registry.recipes()}
    stem = Path(named[0].rpartition(":")[2]).name.removesuffix(".yaml")
    return installed.get(registry.find_recipe(named[0]).resolve(), stem)


def plain_recipe(parser: Any, config: Any) -> dict[str, Any]:
    """The resolved recipe of a command under stable names, without what belongs to one run.

    Args:
        parser: the command's.
        config: what it has parsed.

    Raises:
        UserError: something in it is no plain value.
    """
    try:
        text = parser.dump(config, format="yaml", skip_unset=False, skip_validation=True)
    except yaml.YAMLError as error:  # a class whose default is no plain value, such as Lightning's Timer
        raise UserError(f"the recipe can't be kept as YAML: {error}") from error
    found = yaml.safe_load(text)
    keep = ("seed_everything", "trainer", "model", "data")
    return spec({k: found[k] for k in keep if k in found}, "recipe")
