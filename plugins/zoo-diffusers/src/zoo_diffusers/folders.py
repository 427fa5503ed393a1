"""A trained task as a folder of the library: the network with its weights, and the scheduler that it was trained for.

Written is what a checkpoint's network computes when it makes samples: the moving average, where there was one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch

from zoo.errors import UserError
from zoo.tasks.base import Task
from zoo.tasks.diffusion import Diffusion
from zoo.tasks.edm import EDM
from zoo.tasks.flow_matching import FlowMatching
from zoo.tasks.vae import VAE
from zoo_diffusers.autoencoder import KLDecoder, KLEncoder, whole
from zoo_diffusers.configs import quiet
from zoo_diffusers.denoiser import LibraryDenoiser
from zoo_diffusers.unet import UNet2D

PREDICTIONS = {"noise": "epsilon", "image": "sample", "velocity": "v_prediction"}


def discrete(task: Diffusion) -> Any:
    """DDPM's scheduler with the task's noise, prediction and bounds."""
    betas = task.path.betas
    named = {
        "linear": {"beta_schedule": "linear", "beta_start": float(betas[0]), "beta_end": float(betas[-1])},
        "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    }
    return diffusers.DDPMScheduler(
        num_train_timesteps=task.path.steps,
        **named[task.hparams["schedule"]],
        prediction_type=PREDICTIONS[task.prediction],  # type: ignore[arg-type]
        clip_sample=task.clip,
        timestep_spacing="trailing",
    )


def karras(task: EDM) -> Any:
    """EDM's scheduler, which also preconditions the network."""
    low, high, rho = task.schedule
    return diffusers.EDMEulerScheduler(sigma_min=low, sigma_max=high, sigma_data=task.sigma_data, rho=rho)


def flow(task: FlowMatching) -> Any:
    """The scheduler of straight paths."""
    return diffusers.FlowMatchEulerDiscreteScheduler()


SCHEDULERS: dict[type[Task], Callable[[Any], Any]] = {Diffusion: discrete, EDM: karras, FlowMatching: flow}


def scheduler_of(task: Task) -> Any:
    """The scheduler of the library that fits a task.

    Raises:
        UserError: there is none.
    """
    make = SCHEDULERS.get(type(task))
    if make is None:
        known = ", ".join(cls.__name__ for cls in SCHEDULERS)
        raise UserError(f"a {type(task).__name__} has no scheduler in diffusers; these have: {known}")
    return make(task)


def write(task: Task, folder: Path) -> list[str]:
    """Write network and scheduler.

    ``DDPMPipeline.from_pretrained`` of the library opens the folder of a ``UNet2D`` without classes that was trained as
    ``Diffusion``; for other tasks and classes the library has no pipeline without an autoencoder, but its classes open
    the two folders within. ``AutoencoderKL.from_pretrained`` opens that of a ``VAE``.

    Args:
        task: with networks of this plugin.
        folder: to make.

    Returns:
        What a reader should know, in sentences; most often nothing.

    Raises:
        UserError: it has another network, the library has no scheduler for it, or the folder is there.
    """
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise UserError(f"{folder} is there already; it is not overwritten")
    if isinstance(task, VAE):
        return _write_autoencoder(task, folder)
    scheduler, network = scheduler_of(task), task.denoiser
    _check(network, LibraryDenoiser, "UNet2D")
    with quiet():
        if isinstance(network, UNet2D) and isinstance(task, Diffusion) and not network.num_classes:
            pipeline: Any = diffusers.DDPMPipeline(network.network, scheduler)
            pipeline.save_pretrained(folder)
        else:
            network.network.save_pretrained(folder / network.folder)
            scheduler.save_pretrained(folder / "scheduler")
    return _remarks(task, network)


def _write_autoencoder(task: VAE, folder: Path) -> list[str]:
    _check(task.encoder, KLEncoder, "KLEncoder")
    _check(task.decoder, KLDecoder, "KLDecoder")
    made = whole(task.encoder, task.decoder)  # type: ignore[arg-type]  # they are checked
    with quiet():
        made.save_pretrained(folder)
    return [
        f"the decoder gives the parameters of the likelihood, {made.config.out_channels} for each pixel, not images"
    ]


def _check(network: Any, wanted: type, example: str) -> None:
    if not isinstance(network, wanted):
        raise UserError(
            f"a {type(network).__name__} is not a network of diffusers: train one of this plugin, such as {example}"
        )


def _remarks(task: Any, network: LibraryDenoiser) -> list[str]:
    found, size = [], tuple(task.facts["image_size"])
    side = network.fitted(torch.zeros(1, 1, *size)).shape[2:]
    if tuple(side) != size:
        wanted, given = ("×".join(map(str, s)) for s in (side, size))
        found.append(f"images of {given} were extended to {wanted} for this network; the library does not do so itself")
    if network.num_classes:
        found.append(f'the label {network.num_classes} is "no class"')
    return found
