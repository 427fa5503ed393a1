"""Arguments that are read before the parser sees them: recipes by name, and the checkpoint to start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from jsonargparse import Namespace

from zoo import registry
from zoo.errors import UserError
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
