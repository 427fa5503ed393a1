"""Two ways to the same results in less time, as callbacks: compiled networks, and images stored channels last.

Both change the task's networks where they stand, for as long as the trainer is at work, and take it back at the end.
Names of weights, checkpoints and hyper-parameters stay as they are; a run may go on with or without them.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from zoo.architectures.base import Architecture
from zoo.errors import UserError

Mode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


def networks_of(task: nn.Module) -> list[Architecture]:
    """The task's networks, each once and none that is part of another."""
    found: list[Architecture] = []
    for child in task.children():
        found += [child] if isinstance(child, Architecture) else networks_of(child)
    return list(dict.fromkeys(found))


class _OnNetworks(Callback, ABC):
    """Does something to a task's networks when they are built and on their device, and takes it back at the end."""

    def __init__(self) -> None:
        self._changed: list[Architecture] = []

    @abstractmethod
    def change(self, network: Architecture, device: torch.device) -> None:
        """Do it."""

    @abstractmethod
    def restore(self, network: Architecture) -> None:
        """Take it back."""

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for network in networks_of(pl_module):
            if network not in self._changed:
                self.change(network, trainer.strategy.root_device)
                self._changed.append(network)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Change the networks."""
        self._start(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Change the networks; within a fit that is done."""
        self._start(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Change the networks."""
        self._start(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Change the networks."""
        self._start(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the networks as they were."""
        while self._changed:
            self.restore(self._changed.pop())


class ChannelsLast(_OnNetworks):
    """Stores images, feature maps and filters with the channels of a pixel side by side.

    Values and shapes are those of always, only their order in memory is another: (B, C, H, W) is laid out as
    (B, H, W, C). Convolution kernels in half precision want it so on GPUs, and most on CPUs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._handles: dict[Architecture, Any] = {}

    def change(self, network: Architecture, device: torch.device) -> None:
        """The filters at once, the images whenever the network is called."""
        network.to(memory_format=torch.channels_last)
        self._handles[network] = network.register_forward_pre_hook(_images_channels_last)

    def restore(self, network: Architecture) -> None:
        """The filters as they were."""
        self._handles.pop(network).remove()
        network.to(memory_format=torch.contiguous_format)


def _images_channels_last(network: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        arg.contiguous(memory_format=torch.channels_last) if isinstance(arg, Tensor) and arg.dim() == 4 else arg
        for arg in args
    )


class Compile(_OnNetworks):
    """Compiles the task's networks with ``torch.compile``: the first steps take a minute or so, the others less time.

    A network is compiled in place (``module.compile()``), so it stays the module that it was. Batches of another size
    (the last of an epoch) make torch compile once more, with a size that is left open.

    Args:
        mode: of ``torch.compile``; ``max-autotune`` takes minutes and tries kernels, ``reduce-overhead`` replays
            steps as CUDA graphs.

    Raises:
        UserError: no program can be compiled on this machine.
    """

    def __init__(self, mode: Mode = "default") -> None:
        super().__init__()
        self.mode = mode

    def change(self, network: Architecture, device: torch.device) -> None:
        """Compiled when it is called next."""
        check_compiler(device)
        network.compile(mode=self.mode)

    def restore(self, network: Architecture) -> None:
        """Interpreted again: layer by layer, with hooks, and fit for export."""
        network._compiled_call_impl = None  # torch has no word for it; its own copies of a module leave it out


def compile_error_message(error: BaseException) -> str | None:
    """A line on a network that can't be compiled; None of any other error."""
    if "torch._dynamo" not in sys.modules:
        return None
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    if not isinstance(error, TorchDynamoException):
        return None
    # What a killed compiler left half written ends the same way.
    return (
        f"Compile: the network can't be compiled: {_reason(error)} (if an earlier run was stopped while it compiled, "
        f"remove {cache_dir()})"
    )


def check_compiler(device: torch.device) -> None:
    """Compile one addition for this device.

    Raises:
        UserError: it fails, because there is no C++ compiler or, on a GPU, no Triton.
    """

    def add(x: Tensor) -> Tensor:
        return x + 1

    try:
        torch.compile(add)(torch.zeros(8, device=device))
    except Exception as error:  # Dynamo's and Inductor's errors have no base in common
        needs = "a C++ compiler (g++)" if device.type == "cpu" else "a C compiler and Triton"
        raise UserError(
            f"Compile: {needs} is needed on {device.type}, which does not work here: {_reason(error)}"
        ) from error


def _reason(error: BaseException) -> str:
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{first} {rest[0]}" if first.endswith(":") and rest else first
