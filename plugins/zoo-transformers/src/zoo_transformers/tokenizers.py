"""Tokenisers of the library as the zoo's.

The zoo knows padding, start, end and unknown by the names of its special tokens, the library by ids in configurations
and by names that each family has of its own (GPT-2's start is its end, BLIP's start is no token of its tokeniser). Here
the tokens with these ids get the zoo's names, and what is missing is added behind the vocabulary, so that the file says
all there is to know: ``zoo.functional.tokenizing.SubwordTokenizer.read`` and every data set that takes such a file read
it without this plugin.
"""

from __future__ import annotations

import json
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from zoo.errors import UserError
from zoo.functional.tokenizing import SPECIAL, SubwordTokenizer
from zoo_transformers.configs import start_and_end, text_config
from zoo_transformers.hub import fetched


def read(name: str) -> SubwordTokenizer:
    """The tokeniser of a repository on huggingface.co, or of a folder.

    Args:
        name: with a tokeniser and a network's configuration.

    Raises:
        UserError: it can't be read, or is not one of the library ``tokenizers``.
    """
    return converted(fetched(AutoTokenizer.from_pretrained, name), fetched(AutoConfig.from_pretrained, name))


def converted(tokenizer: Any, config: Any) -> SubwordTokenizer:
    """A tokeniser of the library as the zoo's.

    Args:
        tokenizer: the tokeniser.
        config: of the network that it belongs to; it says which tokens start and end a caption, and how many there are.

    Raises:
        UserError: it is not one of the library ``tokenizers``.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"{type(tokenizer).__name__} is not a tokeniser of the library tokenizers")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content |= {"post_processor": None, "truncation": None, "padding": None}
    names = dict(zip(_special_ids(tokenizer, config), SPECIAL, strict=True))
    names.pop(None, None)
    _rename(content, names)
    tokens = {token["id"] for token in content["added_tokens"]} | {*_vocabulary(content).values()}
    size = max(len(tokens), getattr(text_config(config), "vocab_size", 0), *(index + 1 for index in names))
    content["added_tokens"] += [_added(i, names.get(i, f"<unused {i}>")) for i in range(size) if i not in tokens]
    missing = [name for name in SPECIAL if name not in names.values()]
    content["added_tokens"] += [_added(size + i, name) for i, name in enumerate(missing)]
    every = {token["content"]: token["id"] for token in content["added_tokens"]} | _vocabulary(content)
    return SubwordTokenizer(json.dumps(content), *(every[name] for name in SPECIAL))


def _special_ids(tokenizer: Any, config: Any) -> list[Any]:
    """Of padding, start, end and unknown; None for one that is another one, too: each needs an id of its own."""
    start, end = start_and_end(config)
    start = next((i for i in (start, tokenizer.bos_token_id, tokenizer.cls_token_id) if i is not None), None)
    end = next((i for i in (end, tokenizer.eos_token_id, tokenizer.sep_token_id) if i is not None), None)
    found: list[Any] = [end]
    for one in (start, tokenizer.pad_token_id, tokenizer.unk_token_id):
        found.append(None if one in found else one)
    return [found[2], found[1], end, found[3]]


def _vocabulary(content: dict[str, Any]) -> dict[str, int]:
    """The tokens of the model; one of unigrams lists them with their scores."""
    known = content["model"]["vocab"]
    return known if isinstance(known, dict) else {token: index for index, (token, _) in enumerate(known)}


def _rename(content: dict[str, Any], names: dict[int, str]) -> None:
    """Give the tokens with these ids new names, wherever they are named."""
    model = content["model"]
    old = {token: names[index] for token, index in _vocabulary(content).items() if index in names}
    if isinstance(model["vocab"], dict):
        model["vocab"] = {old.get(token, token): index for token, index in model["vocab"].items()}
    else:
        model["vocab"] = [[old.get(token, token), score] for token, score in model["vocab"]]
    if model.get("unk_token") in old:
        model["unk_token"] = old[model["unk_token"]]
    for token in content["added_tokens"]:
        token["content"] = names.get(token["id"], token["content"])


def _added(index: int, name: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": name, **flags, "special": True}
