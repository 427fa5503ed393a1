"""The folder of a run: each new run has its own, and a resumed or restarted run continues in its old one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from contextlib import suppress
from pathlib import Path

from zoo.errors import UserError
from zoo.training.jobs import TAKEN, current_job

VARIABLE = "ZOO_RUN_DIR"  # set for the processes that Lightning starts
_created: set[Path] = set()  # by this process; a folder that was there before is its owner's
RECIPE = "recipe.yaml"
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # http:, s3:, memory:, file:; a single letter is a Windows drive


def refuse_remote(path: str | Path) -> None:
    """Check that a path is on this machine, since Lightning could also open remote file systems.

    Raises:
        UserError: the path names another file system (``http:``, ``s3:``, ``memory:``), or holds a NUL.
    """
    text = os.fspath(path)
    if "\0" in text or "::" in text or _REMOTE.match(text):
        raise UserError(f"{text!r} is not a path on this machine; copy the file here, and give its path")


def inside(path: str | Path, folder: Path) -> Path:
    """The path, if it lies below the folder; links are followed. Every writer of a run calls this.

    Raises:
        UserError: it lies outside.
    """
    refuse_remote(path)
    try:
        within = Path(path).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of symbolic links
        within = False
    if not within:
        raise UserError(f"{path} lies outside the run's folder {folder}: nothing is written or removed there")
    return Path(path)


def safe_name(text: object, default: str = "run") -> str:
    """A name from a file as a single path component: letters, digits and ``.+-_``, not hidden, at most 100 long."""
    name = re.sub(r"[^\w.+-]+", "-", str(text), flags=re.ASCII).strip(".-")[:100]
    return name or default


def new_folder(parent: Path, name: str | None = None) -> Path:
    """Create ``parent/name`` (default: the time), with a number appended if it exists already."""
    stem = name or time.strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
            _created.add(folder.resolve())
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"the run folder {folder} can't be created: {error.strerror}") from error
    raise UserError(f"{parent} has too many runs called {stem}")


def folder_for(
    label: str,
    checkpoint: Path | None = None,
    out: str | None = None,
    root: Path = Path("runs"),
    trains: bool = True,
    recipe: str = "",
) -> Path:
    """The folder of this run.

    Args:
        label: ``alexnet`` for a fit, ``test-alexnet`` for another command.
        checkpoint: what a fit resumes from; if it lies in a run folder, the run continues in that folder.
        out: folder that the user chose instead.
        root: parent folder of all runs.
        trains: the command writes a recipe and checkpoints; one that does not may add to another run's folder.
        recipe: what the run does, by which a job that is started again knows its runs.
    """
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    folder = _chosen(label, checkpoint, out, root, trains, recipe)
    os.environ[VARIABLE] = str(folder)
    return folder


def _chosen(label: str, checkpoint: Path | None, out: str | None, root: Path, trains: bool, recipe: str) -> Path:
    owner = owner_of(checkpoint) if checkpoint is not None else None
    if out:
        resumed = owner is not None and owner.resolve() == Path(out).resolve()
        return _made(Path(out), recipe, shared=resumed or not trains)
    if owner is not None:
        return owner
    if (job := current_job()) is not None:
        before = set((root / label).glob(f"{job.name}*"))
        folder = job.folder(root / label, recipe)
        _created.update({folder.resolve()} if folder not in before else ())
        return folder
    return new_folder(root / label)


def _made(out: Path, recipe: str, shared: bool) -> Path:
    """The folder that the user chose; another run's is refused, but for the same run of a job that starts again."""
    refuse_remote(out)
    job = current_job()
    there = None if shared else _of_a_run(out)
    try:
        own = _there(out)
        if shared or (there is None and job is None):
            return own
        if job is not None and (there is None or (out / TAKEN).is_dir()) and job.take(out, recipe):
            return own
    except OSError as error:
        raise UserError(f"the run folder {out} can't be created: {error.strerror}") from error
    name = there.name if there is not None else TAKEN
    raise UserError(
        f"--out {out} already holds a run ({name}), and nothing is overwritten: give another folder, or "
        f"resume that run (zoo fit --ckpt_path {shlex.quote(str(out))})"
    )


def _there(folder: Path) -> Path:
    """The folder, created if it is not there yet."""
    with suppress(FileExistsError):
        folder.mkdir(parents=True)
        _created.add(folder.resolve())
    folder.mkdir(exist_ok=True)  # an error where it is a file
    return folder


def _of_a_run(folder: Path) -> Path | None:
    """A file that only a fit writes, if the folder has one."""
    written = (folder / RECIPE, folder / "model.txt", *folder.glob("checkpoints/*.ckpt"))
    return next((path for path in written if path.exists()), None)


def unused_path(path: Path) -> Path:
    """The path; if the file exists already, the path with the next number appended to its name."""
    taken = [path, *path.parent.glob(f"{path.stem}-*{path.suffix}")]
    numbers = [int(n) for p in taken[1:] if (n := p.stem.removeprefix(f"{path.stem}-")).isdigit()]
    return path if not path.exists() else path.with_stem(f"{path.stem}-{max([1, *numbers]) + 1}")


def forget_if_empty() -> None:
    """Remove the run's folder if this process created it and the run ended before it wrote a file."""
    folder = Path(os.environ.get(VARIABLE) or "")
    if folder.resolve() in _created and folder.is_dir() and not any(map(_matters, folder.rglob("*"))):
        shutil.rmtree(folder)
        if folder.parent.parts and not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def _matters(path: Path) -> bool:
    """Whether it is a file that a run has written."""
    return path.is_file() and path.parent.name != TAKEN


def owner_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in."""
    parent = checkpoint.resolve().parent
    for folder in (parent, parent.parent):
        if (folder / RECIPE).is_file():
            return Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder
    return None
