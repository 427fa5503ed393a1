"""What the benchmarks share: the plugin on the path, a spread in words, and the line that ``run.py`` keeps."""

import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

WARM_UP = 10  # steps that are not counted
PLUGIN = str(Path(__file__).parent / "plugin")
sys.path.insert(0, PLUGIN)
os.environ.setdefault("WANDB_MODE", "offline")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``0.98 (0.95 to 1.01)``: median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def report(title: str, about: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows for people, and then all of it as one line of JSON for ``run.py``."""
    print(title)
    for row in rows:
        print("  " + ", ".join(f"{key}: {value}" for key, value in row.items()))
    print(json.dumps({"title": title, "about": about, "rows": list(rows)}), flush=True)


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Runs write into a folder that is thrown away."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def fit(*words: str) -> None:
    """``zoo fit`` in this process, silently.

    Raises:
        RuntimeError: it failed.
    """
    from zoo.cli.lightning import run

    said = io.StringIO()
    with contextlib.redirect_stdout(said) if not sys.stdout.isatty() else contextlib.nullcontext():
        status = run(["fit", *words])
    if status:
        raise RuntimeError(f"zoo fit ended with {status}: {said.getvalue()}")
