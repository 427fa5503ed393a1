"""Checkpoints: self-contained, written atomically, and read as plain data.

A file holds the task's hyper-parameters and what is needed to resume the run, as plain data. So it is loaded with
``weights_only=True``, and the task is rebuilt under the import allowlist of recipes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zoo import registry
from zoo.architectures.base import Architecture
from zoo.architectures.weights import Report, load_tensors
from zoo.contracts import check_facts
from zoo.errors import UserError
from zoo.training.reading import find_last as find_last
from zoo.training.reading import read, resolve
from zoo.training.run_folder import inside, refuse_remote, safe_name
from zoo.training.storage import gone, reason

RUN_KEY = "zoo"  # what the file records about its run, besides Lightning's own keys
NOT_FINITE = "zoo/not finite"  # marks what is not to be written


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A temporary path beside the target, renamed to the target once everything is written and synced to disk."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written atomically and read as data.

    Lightning's own goes through another disk's temporary folder and does not sync.

    Args:
        folder: the run's folder, outside of which nothing is written or removed; None for a writer outside of a run.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the target, sync, rename; nothing if it is marked as not finite.

        Raises:
            UserError: the path lies outside the run's folder, this folder is gone, the disk is full or the folder
                can't be written; an existing file is unchanged.
        """
        if NOT_FINITE in checkpoint:
            return
        if self.folder is not None and not self.folder.is_dir():
            raise UserError(gone(self.folder))
        target = self._place(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(target) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)  # not to a path, since torch would lose the system's error
        except (OSError, RuntimeError) as error:
            raise UserError(f"the checkpoint {target} could not be written: {reason(error)}") from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read as data, even if ``weights_only`` is false; paths in callbacks' states are not trusted."""
        found = read(path, map_location or "cpu")
        if isinstance(found.get("callbacks"), dict):
            found["callbacks"] = {k: without_foreign_paths(v, self.folder) for k, v in found["callbacks"].items()}
        return found

    def remove_checkpoint(self, path: Any) -> None:
        """Remove one file of the run; never a folder, as Lightning's would.

        Raises:
            UserError: it lies outside the run's folder.
        """
        target = self._place(path)
        if target.is_file() or target.is_symlink():
            target.unlink()

    def _place(self, path: Any) -> Path:
        refuse_remote(path)
        return Path(path) if self.folder is None else inside(path, self.folder)


_PLACES = ("path", "dir", "file", "best_k_models")  # part of the keys of a callback's state that hold file paths


def without_foreign_paths(state: Any, folder: Path | None) -> Any:
    """A callback's state from a checkpoint, without its file paths if one of them lies outside the run's folder.

    Lightning's ``ModelCheckpoint`` removes the files that its state names. All are left out together, since they belong
    together.
    """
    if not isinstance(state, dict) or all(_believed(k, v, folder) for k, v in state.items()):
        return state
    places = {k: v for k, v in state.items() if any(word in str(k) for word in _PLACES)}
    emptied = {k: {} if isinstance(v, dict) else "" for k, v in places.items() if k != "dirpath"}
    others = {k: v for k, v in state.items() if k not in places and _believed(k, v, folder)}
    return {**others, **emptied}


def _believed(key: Any, value: Any, folder: Path | None) -> bool:
    is_place = any(word in str(key) for word in _PLACES)
    return all(_harmless(text, is_place, folder) for text in _texts(value))


def _harmless(text: str, is_place: bool, folder: Path | None) -> bool:
    """Whether a text is a path inside this run's folder, or not a path at all."""
    if not text or not (is_place or _looks_like_a_path(text)):
        return True
    try:
        return folder is not None and bool(inside(text, folder))
    except UserError:
        return False


def _looks_like_a_path(text: str) -> bool:
    return text.startswith(("/", "~", "\\")) or ".." in text or ":" in text or "\0" in text


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str | bytes | os.PathLike) or depth > 20:
        yield os.fsdecode(value) if depth <= 20 else "/"  # deeper than any callback's state: not trusted
    elif isinstance(value, dict):
        for k, v in value.items():
            yield from _texts(k, depth + 1)
            yield from _texts(v, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for v in value:
            yield from _texts(v, depth + 1)


def task_spec(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """``class_path`` and ``init_args`` of the task in a checkpoint, without its facts, which the parser must not see.

    Raises:
        UserError: the file was not written by a task of the zoo.
    """
    found = checkpoint.get("hyper_parameters")
    values = dict(found) if isinstance(found, dict) else {}
    for key in ("_instantiator", "facts"):
        values.pop(key, None)
    if not isinstance(class_path := values.pop("_class_path", None), str):
        raise UserError(f"{path} does not say which task wrote it: it can't be loaded on its own")
    return {"class_path": class_path, "init_args": values}


def facts_in(checkpoint: dict[str, Any]) -> Any:
    """The facts of the data that the checkpoint's task was trained on, as in the file; empty if there are none."""
    found = checkpoint.get("hyper_parameters")
    return (found.get("facts") if isinstance(found, dict) else None) or {}


def run_record(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What the file records about its run: ``data``, ``trainer``, ``seed_everything``; empty if nothing.

    Names are made safe, since folders are named after them: ``recipe_name`` is an installed recipe's or a single path
    component, ``wandb_id`` a valid W&B id or None.
    """
    found = checkpoint.get(RUN_KEY)
    if not isinstance(found, dict):
        return {}
    names = {"recipe_name": _recipe_name(found.get("recipe_name")), "wandb_id": _wandb_id(found.get("wandb_id"))}
    return {**found, **names}


def _recipe_name(found: Any) -> str | None:
    if not found:
        return None
    installed = {recipe.name for recipe in registry.recipes()}
    return found if isinstance(found, str) and found in installed else safe_name(found)


def _wandb_id(found: Any) -> str | None:
    return found if isinstance(found, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found) else None


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Tensors by name, the facts of the data that they were trained on, and the ``mean`` and ``std`` of networks that
    have their own, by name; as far as the file has them.

    Args:
        file: a checkpoint of any task, or ``.safetensors``, which has no facts.

    Raises:
        UserError: it can't be read.
    """
    if file.suffix == ".safetensors":
        return _read_safetensors(file), {}, {}
    checkpoint = read(file)
    known = run_record(checkpoint).get("statistics")
    return checkpoint["state_dict"], facts_of(checkpoint), known if isinstance(known, dict) else {}


def facts_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The facts of the data in a checkpoint; empty if there are none."""
    found = checkpoint.get("hyper_parameters")
    return dict(found.get("facts") or {}) if isinstance(found, dict) else {}


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise UserError(f"no such file: {file}")
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} can't be read as safetensors: {reason(error)}") from error


def _nearest(known: Mapping[str, Any], part: str) -> dict[str, list[float]]:
    """The statistics of the network of this prefix, else of the one that it is in."""
    names = [name for name in known if not name or f"{part.removesuffix('.')}.".startswith(f"{name}.")]
    found = known[max(names, key=len)] if names else {}
    check_facts(found, "the file's statistics")
    return dict(found)


def load_part(
    network: nn.Module, path: str | Path, part: str | None = None, whole: bool = False, advice: str = ""
) -> Report:
    """Load a network's weights from the checkpoint of any task that trained a network like it, as any part of that
    task.

    The file's mean and standard deviation become the network's own, if it is an architecture without any.

    Args:
        network: loads the tensors whose name and shape match; prefixes of names are ignored.
        path: a checkpoint, a run folder, or ``.safetensors``.
        part: prefix of the network's tensors in the file, such as ``architecture.encoder``; default: the best match.
        whole: refuse a file that does not set every tensor of the network.
        advice: added to that error's message.

    Raises:
        UserError: the file can't be read, there is no such part, or nothing in it matches.
    """
    file = resolve(path)
    tensors, facts, known = read_tensors(file)
    try:
        report = load_tensors(network, tensors, part, whole)
    except UserError as error:
        trained = ", ".join(f"{k} {facts[k]}" for k in ("in_channels", "image_size") if k in facts)
        told = (f"; it was trained with {trained}" if trained else "") + (f" ({advice})" if advice else "")
        raise UserError(f"{file} does not fit: {error}{told}") from error
    report.file, report.facts, report.own = file, facts, _nearest(known, report.part)
    if isinstance(network, Architecture):
        for name, values in report.statistics.items():
            if getattr(network, name) is None:
                setattr(network, name, tuple(values))
    return report


def load_matching(task: nn.Module, path: str) -> None:
    """Load the tensors whose name and shape match, and list the others.

    Raises:
        UserError: nothing matches.
    """
    load_part(task, path).show()
