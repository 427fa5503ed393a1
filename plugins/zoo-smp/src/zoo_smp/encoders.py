"""Encoders of segmentation-models-pytorch: their names, and the weights that they can start from.

Its own encoders have their weights on huggingface.co by name (``imagenet``, ``ssl``, ``advprop``, …). Encoders called
``tu-NAME`` are timm's, and the tag in the name chooses their weights (``tu-resnet18.a1_in1k``).
"""

from __future__ import annotations

from collections.abc import Sequence

import timm
from segmentation_models_pytorch.encoders import encoders
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_DPN_MEAN,
    IMAGENET_DPN_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
)

from zoo.architectures.base import first_line
from zoo.architectures.timm import FILES
from zoo.errors import UserError
from zoo.registry import did_you_mean

TIMM = "tu-"
TIMM_WEIGHTS = "imagenet"  # the library's word for "the weights of the tag"
OWN_FILES = ("config.json", "model.safetensors")  # the library reads both
OFFLINE = "leave encoder_weights out, or take BackboneUNet over EfficientNetLite0, which includes its weights"


def check_encoder(name: str, weights: str | None) -> None:
    """Check that there are such an encoder and such weights.

    Raises:
        UserError: there are none.
    """
    if name.startswith(TIMM):
        _check_timm(name.removeprefix(TIMM), weights)
    elif name not in encoders:
        known = [*encoders, *(TIMM + network for network in timm.list_models())]
        raise UserError(f"segmentation-models-pytorch has no encoder {name}{did_you_mean(name, known)}")
    elif weights is not None and weights not in (known := list(encoders[name]["pretrained_settings"])):
        raise UserError(f"encoder_weights: {name} has no weights {weights}; there are: {', '.join(known)}")


def _check_timm(name: str, weights: str | None) -> None:
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise UserError(f"timm has no network {name}{did_you_mean(base, timm.list_models())}")
    known = timm.list_pretrained(f"{base}.*")
    if tag and name not in known:
        raise UserError(f"timm has no weights {name}{did_you_mean(name, known)}")
    if weights is None:
        return
    if weights != TIMM_WEIGHTS:
        raise UserError(
            f"encoder_weights: the tag in {TIMM}{name} chooses its weights: give {TIMM_WEIGHTS}, not {weights}"
        )
    if not known:
        raise UserError(f"encoder_weights: timm has no weights of {name}: leave encoder_weights out")


def statistics(name: str, weights: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std of the images that the weights were trained with, for images in [0, 1] of three channels.

    The library reads its own encoders' from the file beside the weights. Here they are known without it, since a
    checkpoint is opened where there may be no such file.
    """
    if name.startswith(TIMM):
        cfg = timm.get_pretrained_cfg(name.removeprefix(TIMM))
        return cfg.mean, cfg.std
    if weights == "advprop" or name.startswith(("inception", "xception", "timm-tf_efficientnet_lite")):
        return IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
    if name.startswith("dpn"):
        return IMAGENET_DPN_MEAN, IMAGENET_DPN_STD
    return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


def reach_weights(name: str, weights: str) -> None:
    """Check once that the weights are here or can be downloaded: the hub's client retries for a minute and more.

    Raises:
        UserError: they are not here and the hub can't be reached.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    repo, revision = _where(name, weights)
    here = [isinstance(try_to_load_from_cache(repo, file, revision=revision), str) for file in _files(name)]
    if any(here) if name.startswith(TIMM) else all(here):
        return
    try:
        HfApi().model_info(repo, revision=revision, timeout=10)
    except Exception as error:  # from the client, the library below it, or the system
        raise not_fetched(name, weights, error) from error


def not_fetched(name: str, weights: str, error: Exception) -> UserError:
    """The error of weights that could not be downloaded."""
    return UserError(
        f"the {weights} weights of {name} could not be fetched from huggingface.co/{_where(name, weights)[0]} "
        f"({first_line(error)}); offline, {OFFLINE}"
    )


def _where(name: str, weights: str) -> tuple[str, str | None]:
    """Repository and revision on the hub."""
    if name.startswith(TIMM):
        return timm.get_pretrained_cfg(name.removeprefix(TIMM)).hf_hub_id, None
    settings = encoders[name]["pretrained_settings"][weights]
    return settings["repo_id"], settings["revision"]


def _files(name: str) -> tuple[str, ...]:
    return FILES if name.startswith(TIMM) else OWN_FILES
