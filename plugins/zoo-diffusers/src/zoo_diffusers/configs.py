"""Configurations of the library's networks from plain options, and their weights from a folder or huggingface.co."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusers.utils import logging
from torch import Tensor, nn

from zoo.architectures.base import first_line
from zoo.errors import UserError
from zoo.registry import did_you_mean


@contextmanager
def quiet() -> Iterator[None]:
    """The library's warnings and progress bars are for who calls it."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def fields(library: Any) -> list[str]:
    """The fields of the configuration of a class of the library."""
    return [name for name in inspect.signature(library.__init__).parameters if name != "self"]


def made(name: str, library: Any, config: Mapping[str, Any], taken: Sequence[str], **given: Any) -> Any:
    """A network of the library.

    Args:
        name: of the architecture, for messages.
        library: the class.
        config: fields that differ from its defaults.
        taken: fields that ``config`` may not have.
        given: further fields.

    Raises:
        UserError: a field is unknown, or a value is wrong.
    """
    known = [field for field in fields(library) if field not in taken]
    if unknown := [field for field in config if field not in known]:
        raise UserError(f"config: {library.__name__} has no {unknown[0]} here{did_you_mean(unknown[0], known)}")
    try:
        with quiet():
            return library(**{**given, **config})
    except Exception as error:  # of many types
        raise UserError(f"{name} can't be built: {first_line(error)}") from error


def load(own: Any, name: str, folder: str, free: Sequence[str], without: Sequence[str] = ()) -> None:
    """Load weights of the library into a network.

    Args:
        own: the network.
        name: a folder that the library or ``zoo diffusers write`` wrote, or a repository on huggingface.co.
        folder: of this network within such a folder, if there are several; of a repository it is a part of the name.
        free: fields of the configuration that do not change what weights compute.
        without: layers that the network has not.

    Raises:
        UserError: they can't be read, or are of another network.
    """
    theirs = _fetched(type(own), name, folder)
    for layer in without:
        setattr(theirs, layer, None)
    own_values, their_values = (_plain(network.config, fields(type(own))) for network in (own, theirs))
    needed = {k: v for k, v in their_values.items() if k not in free and own_values[k] != v}
    if needed:
        raise UserError(f"pretrained: {name} was built otherwise: give config: {needed}")
    _take_over(own, theirs, name)


def _plain(config: Any, names: Sequence[str]) -> dict[str, Any]:
    found = {name: config[name] for name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _fetched(library: Any, name: str, folder: str) -> Any:
    place = Path(name).expanduser()
    place = place / folder if (place / folder).is_dir() else place
    options: dict[str, Any] = {"use_safetensors": True, "low_cpu_mem_usage": False}
    if place.is_dir():
        source, options["local_files_only"] = str(place), True
    else:
        owner, _, rest = name.partition("/")
        repository, _, below = rest.partition("/")
        source, options["subfolder"] = f"{owner}/{repository}", below or None
        _reach(source)
    try:
        with quiet():
            return library.from_pretrained(source, **options)
    except Exception as error:  # from the library, the hub's client, or the system
        raise UserError(f"pretrained: {name} could not be read: {first_line(error)}") from error


def _reach(name: str) -> None:
    """Ask once whether the repository can be downloaded: the client retries for a minute and more.

    Raises:
        UserError: it can't, and is not in the cache.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_CACHE

    if Path(HF_HUB_CACHE, f"models--{name.replace('/', '--')}").is_dir():
        return
    try:
        HfApi().model_info(name, timeout=10)
    except Exception as error:  # of the client, the library below it, or the system
        raise UserError(
            f"pretrained: huggingface.co/{name} could not be reached ({first_line(error)}); offline, leave pretrained "
            "out or give a folder that the library's save_pretrained wrote"
        ) from error


def _take_over(own: nn.Module, theirs: nn.Module, name: str) -> None:
    have, given = own.state_dict(), theirs.state_dict()
    for key in {**have, **given}:
        if _shape(have, key) != _shape(given, key):
            raise UserError(
                f"pretrained: {key} of {name} has shape {_shape(given, key)}, here it has {_shape(have, key)}"
            )
    own.load_state_dict(given)


def _shape(tensors: Mapping[str, Tensor], key: str) -> list[int] | None:
    return list(tensors[key].shape) if key in tensors else None
