"""Weights of the library, from huggingface.co or a folder, into a network of this plugin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from zoo.architectures.base import first_line
from zoo.errors import UserError


@contextmanager
def quiet() -> Iterator[None]:
    """The library's warnings and progress bars are for who calls it."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        transformers.logging.enable_progress_bar()


def fetched(load: Any, name: str) -> Any:
    """What one of the library's ``from_pretrained`` gives.

    Args:
        load: the method, of a class of networks, configurations or tokenisers.
        name: of a repository on huggingface.co, or a folder.

    Raises:
        UserError: it can't be reached or read.
    """
    if not Path(name).expanduser().is_dir():
        _reach(name)
    try:
        with quiet():
            return load(str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name)
    except Exception as error:  # from the library, the hub's client, or the system
        raise UserError(f"pretrained: {name} could not be read: {first_line(error)}") from error


def _reach(name: str) -> None:
    """Ask once whether the repository is in the cache or can be downloaded: the client retries for a minute and more.

    Raises:
        UserError: it is not, and it can't.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            HfApi().model_info(name, timeout=10)
    except Exception as error:  # of the client, the library below it, or the system
        where = f"huggingface.co/{name}"
        raise UserError(
            f"pretrained: {where} could not be reached ({first_line(error)}); offline, leave pretrained out or give a "
            "folder that the library's save_pretrained wrote"
        ) from error


def enlarge(network: PreTrainedModel, size: int, start: int, name: str) -> None:
    """Give a language model of the library a larger vocabulary; new tokens begin as copies of its start.

    So a start of its own, which GPT-2 lacks (its start is its end), says the same as the old one.

    Args:
        network: with word vectors and a classifier.
        size: of the vocabulary.
        start: id of the token that is copied.
        name: of the weights, for the message.

    Raises:
        UserError: it has more tokens already.
    """
    vectors: Any = network.get_input_embeddings()
    old = vectors.num_embeddings
    if size < old:
        raise UserError(
            f"pretrained: {name} has {old} tokens, the data have {size}: give the data its tokeniser, which "
            f"`zoo tokenizer {name} FILE` writes"
        )
    if size == old:
        return
    network.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for layer in (network.get_input_embeddings(), network.get_output_embeddings()):
            for tensor in layer.parameters(recurse=False):
                tensor[old:] = tensor[start]


def take_over(own: nn.Module, theirs: nn.Module, name: str) -> None:
    """Load the tensors of another network of the same class.

    Raises:
        UserError: they do not fit.
    """
    have, given = own.state_dict(), theirs.state_dict()
    for key in {**have, **given}:
        if _shape(have, key) != _shape(given, key):
            raise UserError(
                f"pretrained: {key} of {name} has shape {_shape(given, key)}, here it has {_shape(have, key)}"
            )
    own.load_state_dict(given)


def _shape(tensors: dict[str, Tensor], key: str) -> list[int] | None:
    return list(tensors[key].shape) if key in tensors else None
