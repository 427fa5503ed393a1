"""``zoo measure``: train a recipe with several seeds, and keep its figures as a row of data.

The tables of the documentation are made from these rows, so that no figure in them is typed by hand. A row says what
was measured, with what, on what and when; it holds no path, host or user name.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zoo import registry
from zoo.cli.parser import Parser
from zoo.errors import UserError
from zoo.training import run_folder

PACKAGES = ("torch", "torchvision", "lightning", "timm")
CODE = ("zoo", "recipes", "pyproject.toml")  # what a figure depends on; the rows themselves don't count
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
        argv: the words behind ``zoo measure``.

    Raises:
        UserError: there is no such recipe, or the words do not go together.

    Returns:
        1 where a run failed; the other recipes are measured all the same.
    """
    own, flags = _split(argv)
    options = _parser().parse_args(own)
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
    """One recipe; where it fails, say so and let the others be measured."""
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


def _parser() -> Parser:
    parser = Parser("measure", "Train recipes with several seeds, and write a row of results for each.")
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="names or files of recipes")
    parser.add_argument("--all", action="store_true", help="every installed recipe that is no overlay")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="a run each (0 1 2)")
    parser.add_argument("--ckpt_path", metavar="RUN", help="test this run, file or `last`, and train nothing")
    parser.add_argument("--name", help="of the row; left out, the recipe's")
    parser.add_argument("--results", default=str(RESULTS), metavar="FOLDER", help=f"of the rows ({RESULTS})")
    parser.add_argument("--table", action="store_true", help="run nothing, print the rows that are there")
    return parser


def _recipe_names(given: Sequence[str], everything: bool) -> list[str]:
    if bool(given) == everything:
        raise UserError("zoo measure takes names of recipes, or --all")
    if everything:
        return [name_of(r) for r in measurable()]
    for name in given:
        registry.find_recipe(name)
    return list(given)


def measurable() -> list[registry.Recipe]:
    """Every installed recipe that runs as it stands: overlays are left out."""
    return [r for r in registry.recipes() if not r.name.startswith("trainer/")]


# Measuring


def measure(
    recipe: str, seeds: Sequence[int], flags: Sequence[str] = (), ckpt_path: str | None = None
) -> dict[str, Any]:
    """Train and test a recipe once a seed, or test what it has trained.

    Args:
        recipe: its name or file.
        seeds: a run each.
        flags: what else ``zoo fit``, or ``zoo test``, is given.
        ckpt_path: run folder, checkpoint file or ``last``, which is tested; nothing is trained, and there are no seeds.

    Returns:
        The row: ``recipe``, ``command``, ``seeds``, ``figures``, ``duration`` in seconds with start-up,
        ``hardware``, ``versions``, ``commit``, ``date``.

    Raises:
        UserError: a run failed or gave no figure.
    """
    label = _label(recipe)
    folder = run_folder.new_folder(Path("runs") / f"measure-{_file_name(label)}")
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
    """The run or file that is meant.

    Raises:
        UserError: it is no checkpoint, or another task's than the recipe's.
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
    installed = {r.path.resolve(): name_of(r) for r in registry.recipes()}
    return installed.get(path.resolve(), path.stem)


def name_of(recipe: registry.Recipe) -> str:
    """A recipe's name, with its package where several bring one of this name."""
    return recipe.name if len(registry.named_recipes(recipe.name)) == 1 else recipe.qualified


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
        raise UserError(f"zoo measure: {recipe} gave no figures: its data has no test part, or --no-test was given")
    return json.loads(path.read_text(encoding="utf-8")), seconds


def _command(words: Sequence[str], flags: Sequence[str]) -> str:
    """Without where things lie, which is private."""
    shown = [re.sub(r"(?<![\w.*])[/~][^\s,\]}'\"]*", "PATH", word) for word in (*words, *flags)]
    return " ".join(["zoo", *shown])


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (of a sample; None for one value) and the values themselves."""
    return {
        "mean": statistics.fmean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "values": list(values),
    }


# What it was measured with


def hardware() -> dict[str, Any]:
    """CPU's model, cores that this process may use, memory in GiB, and the GPU's name or None."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _cpu(), "cores": cores, "memory_gib": _memory(), "gpu": gpu}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (ValueError, AttributeError, OSError):  # not told on this system
        return None


def versions() -> dict[str, str]:
    """Python's, the zoo's, and those of the libraries that a figure depends on."""
    found = {"python": platform.python_version(), "zoo": _version("lightning-zoo")}
    return {**found, **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str | None:
    """The checkout's commit, with ``-dirty`` where code or recipes differ from it; None for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if _git(root, "ls-files", "--error-unmatch", "zoo/__init__.py") is None:
        return None
    name = _git(root, "describe", "--always", "--abbrev=12")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return f"{name}-dirty" if changed else name


def _git(root: Path, *words: str) -> str | None:
    try:
        found = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


# Rows


def write_row(folder: Path, name: str, row: Mapping[str, Any]) -> Path:
    """Write a row in the place of what was measured before under this name."""
    target = folder / f"{_file_name(name)}.json"
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return target


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder, by name.

    Raises:
        UserError: a file is no row.
    """
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            found.append({**row, "name": path.stem, "recipe": row["recipe"], "figures": row["figures"]})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no row of results: {error}") from error
    return found


def main_figures(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of the whole test, without those of single classes, the one that is looked at first in front."""
    whole = {k: v for k, v in row["figures"].items() if k.count("/") == 1}
    return dict(sorted(whole.items(), key=lambda item: (item[0] != "test/top1", item[0])))


def shown(figure: Mapping[str, Any], digits: int = 4) -> str:
    """``0.9850 ± 0.0012``, or the mean alone where there is one seed."""
    spread = figure["spread"]
    mean = f"{figure['mean']:.{digits}f}"
    return mean if spread is None else f"{mean} ± {spread:.{digits}f}"


def machine(row: Mapping[str, Any]) -> str:
    """What a row was measured on, in a few words."""
    what = row["hardware"]
    cpu = re.sub(r"\((?:R|TM)\)| CPU| Processor|@.*", "", what["cpu"]).strip()
    return what["gpu"] or f"{cpu}, {what['cores']} core{'s' * (what['cores'] != 1)}"


def clock(seconds: float) -> str:
    """``2:05`` for 125 seconds; hours in front where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def print_table(found: Iterable[Mapping[str, Any]]) -> None:
    """A line a figure: mean and spread over the seeds."""
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
