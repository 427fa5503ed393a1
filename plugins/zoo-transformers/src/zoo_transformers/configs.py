"""Configurations of the library from plain options: unknown names and wrong values end in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from zoo.architectures.base import first_line
from zoo.errors import UserError
from zoo.registry import did_you_mean

# Set by the facts and by what a captioner is, or without a say here.
TAKEN = (
    "vocab_size",
    "num_channels",
    "is_decoder",
    "add_cross_attention",
    "encoder_hidden_size",
    "use_cache",
    "tie_word_embeddings",
    "vision_config",
    "bos_token_id",
    "eos_token_id",
    "sep_token_id",
)
# The library does not learn the vector of its padding, and warns of ids beyond a small vocabulary: the zoo's data know
# these, networks need none.
NO_TOKENS = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id"))
# Differences that do not change what weights compute.
FREE = frozenset(
    (
        *TAKEN,
        *NO_TOKENS,
        "image_size",
        "initializer_range",
        "initializer_factor",
        "label_smoothing",
        "projection_dim",
        "encoder_stride",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "attention_dropout",
        "activation_dropout",
        "resid_pdrop",
        "embd_pdrop",
        "attn_pdrop",
        "dropout",
        "layerdrop",
        "decoder_layerdrop",
    )
)


def configuration(where: str, model_type: str, options: Mapping[str, Any], **given: Any) -> PreTrainedConfig:
    """A configuration of the library.

    Args:
        where: the argument that the options come from, for messages.
        model_type: the library's name of a family, such as ``vit``.
        options: fields of its configuration.
        given: further fields; those that this configuration lacks are left out.

    Raises:
        UserError: there is no such family or field, or a value is wrong.
    """
    if model_type not in CONFIG_MAPPING_NAMES:
        close = did_you_mean(model_type, list(CONFIG_MAPPING_NAMES))
        raise UserError(f"{where}: transformers has no {model_type}{close}")
    plain = AutoConfig.for_model(model_type)
    known = [name for name in own_fields(plain) if name not in TAKEN]
    if unknown := [name for name in options if name not in known]:
        raise UserError(f"{where}: {type(plain).__name__} has no {unknown[0]}{did_you_mean(unknown[0], known)}")
    try:
        kept = {name: value for name, value in given.items() if name in own_fields(plain)}
        return AutoConfig.for_model(model_type, **{**kept, **options})
    except Exception as error:  # of many types
        raise UserError(f"{where}: {type(plain).__name__} with {dict(options)}: {last_line(error)}") from error


def own_fields(config: PreTrainedConfig) -> list[str]:
    """The fields of this family's configuration, without those that all have."""
    common = {field.name for field in fields(PreTrainedConfig)}
    return [field.name for field in fields(config) if field.name not in common]


def differences(own: PreTrainedConfig, theirs: PreTrainedConfig) -> dict[str, Any]:
    """The fields that weights of another configuration need otherwise, with the values that they need."""
    if type(own) is not type(theirs):
        return {"model_type": theirs.model_type}
    names = [name for name in own_fields(own) if name not in FREE]
    return {name: getattr(theirs, name) for name in names if getattr(own, name) != getattr(theirs, name)}


def text_config(config: Any) -> Any:
    """The configuration of the part that has the words."""
    return getattr(config, "decoder", None) or getattr(config, "text_config", None) or config


def start_and_end(config: Any) -> tuple[int | None, int | None]:
    """Ids of the tokens that start and end a caption; None where the configuration says nothing.

    BLIP's end is its separator, whatever its ``eos_token_id`` says.
    """
    text = text_config(config)
    start = getattr(config, "decoder_start_token_id", None)
    ends = (getattr(text, "sep_token_id", None), text.eos_token_id, getattr(config, "eos_token_id", None))
    return text.bos_token_id if start is None else start, next((i for i in ends if isinstance(i, int)), None)


def last_line(error: BaseException) -> str:
    """The library's checks say what is wrong in the last line of their message."""
    return (str(error).strip().splitlines() or [first_line(error)])[-1].strip()
