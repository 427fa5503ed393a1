"""The results file of a study: each finished run is written at once, so that an interrupted study can be resumed.

Like the rows of ``zoo measure`` it records what was measured, with which versions, on which machine and when, but no
path, host or user name.
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
DIGITS = 5  # significant digits that are written: more than the precision of any metric here


class ResultsFile:
    """The rows of one study, in a JSON file.

    Args:
        path: the file; an existing study with the same settings is resumed.
        command: the command that repeats the study.
        about: description in one sentence.
        settings: everything that the metrics depend on.

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
        """Index of this process's conditions; there are several if a study was resumed elsewhere or later."""
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
        """The finished runs, in the order in which they ended."""
        return self.content["runs"]

    def once(self, key: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]) -> Row:
        """The run with this key: read if it is finished, else computed now and saved.

        Args:
            key: plain values that identify the run.
            work: computes its metrics.
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
    """One line per item of a list, so that a changed run is a changed line."""
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"


def read(path: Path) -> Row:
    """The rows of a study.

    Raises:
        UserError: it is not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: content[key] for key in ("command", "about", "settings", "conditions", "runs")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no rows of a study: {error!r}") from error


def rounded(value: Any) -> Any:
    """Plain data for JSON: a few significant digits, lists for tuples, None for values that are not finite."""
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
    """The metrics that are single numbers."""
    return "  ".join(f"{k} {v:.4g}" for k, v in figures.items() if isinstance(v, float))


def conditions(content: Row) -> str:
    """A sentence on the conditions of the measurement, and how to repeat it."""
    found = []
    for n, condition in enumerate(content["conditions"]):
        if runs := sum(run["condition"] == n for run in content["runs"]):
            versions = ", ".join(f"{k} {v}" for k, v in condition["versions"].items())
            code = f"{condition['commit'] or ''} {condition['date']}".strip()
            found.append(f"{runs} runs on {results.machine(condition)}; {versions}; {code}")
    spent = results.clock(sum(run["seconds"] for run in content["runs"]))
    return f"{'. '.join(found)}. Time of all runs: {spent}. Again: `{content['command']}`."
