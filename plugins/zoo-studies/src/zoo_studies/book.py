"""The file of a study's rows: each finished run is written at once, so that an interrupted study goes on where it was.

It says what was measured, with what, on what and when, as the rows of ``zoo measure`` do; it holds no path, host or
user name.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zoo import results
from zoo.errors import UserError

Row = dict[str, Any]
DIGITS = 5  # significant ones of what is written: more than any figure here can be trusted to


class ResultsFile:
    """The rows of one study, in a JSON file.

    Args:
        path: the file; a study of the same settings that lies there is gone on with.
        command: what a reader types to measure the same again.
        about: one sentence.
        settings: all that the figures depend on.

    Raises:
        UserError: the file can't be read, or belongs to a study with other settings.
    """

    def __init__(self, path: Path, command: str, about: str, settings: Mapping[str, Any]) -> None:
        self.path = path
        fresh: Row = {"command": command, "about": about, "settings": rounded(settings), "conditions": [], "runs": []}
        self.content = read(path) if path.is_file() else fresh
        if self.content["settings"] != fresh["settings"]:
            raise UserError(f"{path} holds a study with other settings: name another folder by --out, or remove it")
        self._condition = self._note_conditions()

    def _note_conditions(self) -> int:
        """Number of what this process measures with; several where a study went on elsewhere or later."""
        now = {
            "hardware": results.hardware(),
            "versions": results.versions(),
            "commit": results.commit(),
            "date": time.strftime("%Y-%m-%d"),
        }
        if now not in self.content["conditions"]:
            self.content["conditions"].append(now)
        return self.content["conditions"].index(now)

    @property
    def runs(self) -> list[Row]:
        """The finished ones, in the order in which they ended."""
        return self.content["runs"]

    def once(self, key: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]) -> Row:
        """The run of this key: read where it is finished, else worked out now and kept.

        Args:
            key: plain values that tell it from all others.
            work: gives its figures.
        """
        found = next((row for row in self.runs if all(row.get(k) == v for k, v in key.items())), None)
        if found is not None:
            return found
        start = time.monotonic()
        figures = work()
        seconds = time.monotonic() - start
        row = rounded({**key, **figures, "seconds": seconds, "condition": self._condition})
        self.runs.append(row)
        self.write()
        said = shown(figures)
        print(f"{label(key)}  {results.clock(seconds)}" + (f"\n  {said}" if said else ""), flush=True)
        return row

    def write(self) -> None:
        """Replace the file in one step."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".part")
        lines = [f" {json.dumps(k)}: {_by_line(v)}" for k, v in self.content.items()]
        draft.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        draft.replace(self.path)


def _by_line(value: Any) -> str:
    """A list's items a line each, so that a changed run is a changed line."""
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"


def read(path: Path) -> Row:
    """The rows of a study.

    Raises:
        UserError: it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: content[key] for key in ("command", "about", "settings", "conditions", "runs")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no rows of a study: {error!r}") from error


def rounded(value: Any) -> Any:
    """Plain data as JSON has it: a few significant digits, lists for tuples, None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(k): rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def label(key: Mapping[str, Any]) -> str:
    """``plain, depth 8, seed 0``."""
    return ", ".join(str(v) if isinstance(v, str) else f"{k} {v:g}" for k, v in key.items())


def shown(figures: Mapping[str, Any]) -> str:
    """The figures that are single numbers."""
    return "  ".join(f"{k} {v:.4g}" for k, v in figures.items() if isinstance(v, float))


def conditions(content: Row) -> str:
    """A sentence on what was measured with what, and how to measure it again."""
    found = []
    for n, condition in enumerate(content["conditions"]):
        if runs := sum(run["condition"] == n for run in content["runs"]):
            versions = ", ".join(f"{k} {v}" for k, v in condition["versions"].items())
            code = f"{condition['commit'] or ''} {condition['date']}".strip()
            found.append(f"{runs} runs on {results.machine(condition)}; {versions}; {code}")
    spent = results.clock(sum(run["seconds"] for run in content["runs"]))
    return f"{'. '.join(found)}. Time of all runs: {spent}. Again: `{content['command']}`."
