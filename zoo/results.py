"""Rows of measured results: what was measured, with what, on what and when, read and written in one place.

The tables of the documentation are made from these rows, so that no number in them is typed by hand. A row never
contains a path, host or user name.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zoo.cpus import usable_cpus
from zoo.errors import UserError

PACKAGES = ("torch", "torchvision", "lightning", "timm")
CODE = ("zoo", "recipes", "pyproject.toml")  # what a metric depends on; the rows themselves don't count


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

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _cpu(), "cores": usable_cpus(), "memory_gib": _memory(), "gpu": gpu}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (ValueError, AttributeError, OSError):  # not known on this system
        return None


def versions() -> dict[str, str]:
    """Python's, the zoo's, and those of the libraries that a metric depends on."""
    found = {"python": platform.python_version(), "zoo": _version("lightning-zoo")}
    return {**found, **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str | None:
    """The checkout's commit, with ``-dirty`` if code or recipes differ from it; None for an installed package."""
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
    """Write a row, replacing an earlier one of this name."""
    target = folder / f"{file_name(name)}.json"
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return target


def file_name(name: str) -> str:
    """A recipe's or row's name as a file name: separators become hyphens."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder, by name.

    Raises:
        UserError: a file is not a row of results.
    """
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            found.append({**row, "name": path.stem, "recipe": row["recipe"], "figures": row["figures"]})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a row of results: {error}") from error
    return found


def main_figures(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics of the whole test, without those of single classes, the main one first."""
    whole = {k: v for k, v in row["figures"].items() if k.count("/") == 1}
    return dict(sorted(whole.items(), key=lambda item: (item[0] != "test/top1", item[0])))


def shown(figure: Mapping[str, Any], digits: int = 4) -> str:
    """``0.9850 ± 0.0012``, or the mean alone for one seed."""
    spread = figure["spread"]
    mean = f"{figure['mean']:.{digits}f}"
    return mean if spread is None else f"{mean} ± {spread:.{digits}f}"


def machine(row: Mapping[str, Any]) -> str:
    """What a row was measured on, in a few words."""
    what = row["hardware"]
    cpu = re.sub(r"\((?:R|TM)\)| CPU| Processor|@.*", "", what["cpu"]).strip()
    return what["gpu"] or f"{cpu}, {what['cores']} core{'s' * (what['cores'] != 1)}"


def clock(seconds: float) -> str:
    """``2:05`` for 125 seconds; with hours in front if there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
