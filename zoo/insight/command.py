"""The four commands of ``zoo inspect``: their options and what they write."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from zoo.cli.lightning import quiet
from zoo.insight.activations import activations
from zoo.insight.attribution import attribution
from zoo.insight.filters import filters
from zoo.insight.options import add_own_options
from zoo.insight.signal_report import signal
from zoo.insight.subject import Report, Subject, parse, parser_for
from zoo.training import run_folder


def inspect(what: str, about: str, argv: Sequence[str]) -> int:
    """Run one of the commands.

    Returns:
        0.

    Raises:
        UserError: the user made a mistake; nothing is written then.
    """
    quiet()
    parser = parser_for(what, about)
    add_own_options(parser, what, PositiveInt)
    options, subject_of = parse(parser, argv)
    subject = subject_of()
    report = _RUN[what](subject, options)
    folder = (
        run_folder.new_folder(Path("runs") / f"inspect-{subject.label}") if options.out is None else Path(options.out)
    )
    rows = write(report, what, folder)
    if options.wandb:
        rows += _log(report, what, folder, f"inspect-{subject.label}")
    print("\n".join([*report.lines, *(f"{name:<12} {place}" for name, place in rows)]), flush=True)
    return 0


_RUN: dict[str, Callable[[Subject, Namespace], Report]] = {
    "filters": lambda subject, options: filters(subject),
    "activations": lambda subject, options: activations(subject, options.image, options.whole, options.layers),
    "signal": lambda subject, options: signal(subject, options.images, options.layers),
    "attribution": lambda subject, options: attribution(
        subject, options.image, options.whole, options["class"], options.layer
    ),
}


def write(report: Report, what: str, folder: Path) -> list[tuple[str, str]]:
    """Write the numbers as JSON and the images as PNG; nothing is overwritten.

    Returns:
        Names and paths of what was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = run_folder.unused_path(folder / f"{what}.json")
    path.write_text(json.dumps(report.numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = [("numbers", str(path))]
    for name, picture in report.pictures.items():
        path = run_folder.unused_path(folder / f"{name}.png")
        picture.save(path, optimize=True)
        rows.append(("picture", str(path)))
    return rows


def _log(report: Report, what: str, folder: Path, name: str) -> list[tuple[str, str]]:
    """Log everything to W&B, offline unless there is an account."""
    from zoo.training.wandb import configure_wandb, place_of

    configure_wandb(folder)
    import wandb

    run = wandb.init(project="zoo", name=f"{name}-{folder.name}", job_type="inspect", dir=folder)
    media: dict[str, Any] = {f"{what}/{key}": wandb.Image(picture) for key, picture in report.pictures.items()}
    run.log(media)
    run.summary[what] = report.numbers
    place, upload = place_of(run)
    wandb.finish(0)
    return [("W&B", place), *([("upload it", upload)] if upload else [])]
