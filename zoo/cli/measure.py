"""``zoo measure``: train a recipe with several seeds, and save its metrics as a row of results.

``zoo.results`` writes and reads the rows.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo import registry
from zoo.cli.parser import Parser
from zoo.errors import UserError
from zoo.results import clock, commit, file_name, hardware, main_figures, rows, shown, summary, versions, write_row
from zoo.training import run_folder

RESULTS = Path("docs/results")
SEEDS = (0, 1, 2)

EPILOG = """\
Words behind -- go to `zoo fit`. They change what is measured, so such a row needs a name of its own:
  zoo measure alexnet --name alexnet-tanh -- --model.architecture.activation tanh
What was trained is measured on other data by `zoo test`, to which the words then go:
  zoo measure alexnet --ckpt_path last --name alexnet-own -- --data ImageFolder --data.root photographs
"""


def main(argv: list[str]) -> int:
    """Measure recipes, or print what was measured.

    Args:
        argv: the arguments after ``zoo measure``.

    Raises:
        UserError: there is no such recipe, or arguments contradict each other.

    Returns:
        1 if a run failed; the other recipes are still measured.
    """
    own, flags = _split(argv)
    options = parser().parse_args(own)
    if options.table:
        print_table(rows(Path(options.results)))
        return 0
    names = _recipe_names(options.recipes, options.all)
    if flags and not options.name:
        raise UserError("flags change what is measured: give the row a name of its own by --name NAME")
    if options.ckpt_path and options.seeds:
        raise UserError("--seeds are for training, and --ckpt_path trains nothing: give one of them")
    if options.ckpt_path and not options.name:
        raise UserError("--ckpt_path measures what was trained: give the row a name of its own by --name NAME")
    if options.name and len(names) != 1:
        raise UserError("--name is for one recipe")
    return max([_measure_and_write(name, options, flags) for name in names])


def _measure_and_write(name: str, options: argparse.Namespace, flags: Sequence[str]) -> int:
    """Measure one recipe; print its failure, so that the others are still measured."""
    try:
        row = measure(name, options.seeds or SEEDS, flags, options.ckpt_path)
    except UserError as error:
        print(f"zoo: error: {error}", file=sys.stderr, flush=True)
        return 1
    target = write_row(Path(options.results), options.name or row["recipe"], row)
    print_table([row])
    print(f"row  {target}", flush=True)
    return 0


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def parser() -> Parser:
    """The command's options."""
    made = Parser("measure", "Train recipes with several seeds, and write a row of results for each.")
    made.epilog, made.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    made.add_argument("recipes", nargs="*", metavar="RECIPE", help="names or files of recipes")
    made.add_argument("--all", action="store_true", help="every installed recipe that is not an overlay")
    made.add_argument("--seeds", nargs="+", type=int, metavar="N", help="a run each (0 1 2)")
    made.add_argument("--ckpt_path", metavar="RUN", help="test this run, file or `last`, and train nothing")
    made.add_argument("--name", help="of the row; left out, the recipe's")
    made.add_argument("--results", default=str(RESULTS), metavar="FOLDER", help=f"of the rows ({RESULTS})")
    made.add_argument("--table", action="store_true", help="run nothing, print the rows that are there")
    return made


def _recipe_names(given: Sequence[str], everything: bool) -> list[str]:
    if bool(given) == everything:
        raise UserError("zoo measure takes names of recipes, or --all")
    if everything:
        return [r.label for r in measurable()]
    for name in given:
        registry.find_recipe(name)
    return list(given)


def measurable() -> list[registry.Recipe]:
    """Every installed recipe that can be run alone, so not overlays."""
    return [r for r in registry.recipes() if not r.name.startswith("trainer/")]


# Measuring


def measure(
    recipe: str, seeds: Sequence[int], flags: Sequence[str] = (), ckpt_path: str | None = None
) -> dict[str, Any]:
    """Train and test a recipe once per seed, or test an existing run of it.

    Args:
        recipe: its name or file.
        seeds: one run per seed.
        flags: further arguments for ``zoo fit`` or ``zoo test``.
        ckpt_path: run folder, checkpoint file or ``last`` to test; nothing is trained, and there are no seeds.

    Returns:
        The row: ``recipe``, ``command``, ``seeds``, ``figures``, ``duration`` in seconds with start-up,
        ``hardware``, ``versions``, ``commit``, ``date``.

    Raises:
        UserError: a run failed or gave no metrics.
    """
    label = _label(recipe)
    folder = run_folder.new_folder(Path("runs") / f"measure-{file_name(label)}")
    if ckpt_path:
        ckpt_path = _trained(ckpt_path, recipe)
        seeds, runs_ = [], {"test": ["test", "--ckpt_path", ckpt_path, *flags]}
    else:
        runs_ = {f"seed{n}": ["fit", "--config", recipe, "--seed_everything", str(n), *flags] for n in seeds}
    found = [_run_once(recipe, words, folder / name) for name, words in runs_.items()]
    figures = [one for one, _ in found]
    return {
        "recipe": label,
        "command": _command(["test", "--ckpt_path", ckpt_path] if ckpt_path else ["fit", "--config", label], flags),
        "seeds": list(seeds),
        "figures": {k: summary([one[k] for one in figures]) for k in figures[0] if all(k in one for one in figures)},
        "duration": summary([round(seconds, 1) for _, seconds in found]),
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _trained(ckpt_path: str, recipe: str) -> str:
    """The checkpoint of a run folder, file or ``last``.

    Raises:
        UserError: it is not a checkpoint, or belongs to another task than the recipe.
    """
    from zoo.parsing import load_recipe
    from zoo.training.checkpoints import find_last, read, resolve, task_spec

    file = find_last(Path("runs")) if ckpt_path == "last" else resolve(ckpt_path)
    found = task_spec(read(file), file)["class_path"]
    said = load_recipe(registry.find_recipe(recipe).read_text(encoding="utf-8")).get("model")
    if not said:
        raise UserError(f"--ckpt_path: the recipe {recipe} has no model, so nothing was trained by it alone")
    wanted = said["class_path"]
    if found.rpartition(".")[2] != wanted.rpartition(".")[2]:
        raise UserError(f"--ckpt_path: {file} was written by {found.rpartition('.')[2]}, not by the recipe {recipe}")
    return str(file) if ckpt_path == "last" else ckpt_path


def _label(recipe: str) -> str:
    """The name of an installed recipe, else the file's, so that no folder gets into a row."""
    path = registry.find_recipe(recipe)
    installed = {r.path.resolve(): r.label for r in registry.recipes()}
    return installed.get(path.resolve(), path.stem)


def _run_once(recipe: str, words: Sequence[str], folder: Path) -> tuple[dict[str, float], float]:
    words = [*words, "--out", str(folder)]
    print(f"{folder.name}: zoo {' '.join(words)}", flush=True)
    start = time.monotonic()
    status = subprocess.run([sys.executable, "-m", "zoo", *words]).returncode
    seconds = time.monotonic() - start
    if status:
        raise UserError(f"zoo measure: {recipe}, {folder.name}, ended with status {status}")
    path = folder / "results.json"
    if not path.is_file():
        raise UserError(f"zoo measure: {recipe} gave no metrics: its data has no test part, or --no-test was given")
    return json.loads(path.read_text(encoding="utf-8")), seconds


def _command(words: Sequence[str], flags: Sequence[str]) -> str:
    """The arguments without local paths, which are private."""
    shown = [re.sub(r"(?<![\w.*])[/~][^\s,\]}'\"]*", "PATH", word) for word in (*words, *flags)]
    return " ".join(["zoo", *shown])


def print_table(found: Iterable[Mapping[str, Any]]) -> None:
    """One line per metric: mean and spread over the seeds."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for title, side in (("recipe", "left"), ("figure", "left"), ("mean ± spread", "right"), ("seeds", "right")):
        table.add_column(title, justify=side, overflow="fold")  # type: ignore[arg-type]
    table.add_column("time", justify="right")
    table.add_column("commit", overflow="fold")
    for row in found:
        name, duration = row.get("name", row["recipe"]), clock(row["duration"]["mean"])
        runs_ = str(len(row["seeds"]) or "-")
        for figure, value in main_figures(row).items():
            table.add_row(name, figure, shown(value), runs_, duration, row["commit"] or row["versions"]["zoo"])
            name, runs_, duration = "", "", ""
    Console().print(table)
