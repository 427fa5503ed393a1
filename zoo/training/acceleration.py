"""Two callbacks that give the same results in less time: compiled networks, and channels-last memory format.

Both change the task's networks in place while the trainer runs, and undo it at the end. Names of weights, checkpoints
and hyper-parameters do not change; a run may be resumed with or without them.
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
    """The task's networks, each once, without those that are part of another."""
    found: list[Architecture] = []
    for child in task.children():
        found += [child] if isinstance(child, Architecture) else networks_of(child)
    return list(dict.fromkeys(found))


class _OnNetworks(Callback, ABC):
    """Base of callbacks that change a task's networks once they are built and on their device, and undo it at the
    end.
    """

    def __init__(self) -> None:
        self._changed: list[Architecture] = []

    @abstractmethod
    def change(self, network: Architecture, device: torch.device) -> None:
        """Change a network in place."""

    @abstractmethod
    def restore(self, network: Architecture) -> None:
        """Undo the change."""

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for network in networks_of(pl_module):
            if network not in self._changed:
                self.change(network, trainer.strategy.root_device)
                self._changed.append(network)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Change the networks."""
        self._start(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Change the networks; within a fit they are changed already."""
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
    """Stores images, feature maps and filters in channels-last memory format.

    Values and shapes stay the same, only the memory layout differs: (B, C, H, W) is stored as (B, H, W, C). On GPUs,
    convolutions in half precision prefer this layout, and on CPUs most convolutions do.
    """

    def __init__(self) -> None:
        super().__init__()
        self._handles: dict[Architecture, Any] = {}

    def change(self, network: Architecture, device: torch.device) -> None:
        """Convert the filters now, and the images whenever the network is called."""
        network.to(memory_format=torch.channels_last)
        self._handles[network] = network.register_forward_pre_hook(_images_channels_last)

    def restore(self, network: Architecture) -> None:
        """Restore the filters' layout."""
        self._handles.pop(network).remove()
        network.to(memory_format=torch.contiguous_format)


def _images_channels_last(network: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        arg.contiguous(memory_format=torch.channels_last) if isinstance(arg, Tensor) and arg.dim() == 4 else arg
        for arg in args
    )


class Compile(_OnNetworks):
    """Compiles the task's networks with ``torch.compile``: the first steps take about a minute, later ones are faster.

    A network is compiled in place (``module.compile()``), so it stays the same module. A batch of another size (the
    last of an epoch) makes torch compile once more, with a dynamic size.

    Args:
        mode: mode of ``torch.compile``; ``max-autotune`` takes minutes to try kernels, ``reduce-overhead`` replays
            steps as CUDA graphs.

    Raises:
        UserError: this machine has no working compiler.
    """

    def __init__(self, mode: Mode = "default") -> None:
        super().__init__()
        self.mode = mode

    def change(self, network: Architecture, device: torch.device) -> None:
        """Compile the network at its next call."""
        check_compiler(device)
        network.compile(mode=self.mode)

    def restore(self, network: Architecture) -> None:
        """Run the network eagerly again, so that hooks and export work."""
        network._compiled_call_impl = None  # torch has no public way to undo this; its own copies of a module drop it


def compile_error_message(error: BaseException) -> str | None:
    """A one-line message if a network can't be compiled; None for any other error."""
    if "torch._dynamo" not in sys.modules:
        return None
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    if not isinstance(error, TorchDynamoException):
        return None
    # Files that a killed compiler left incomplete cause the same error.
    return (
        f"Compile: the network can't be compiled: {_reason(error)} (if an earlier run was stopped while it compiled, "
        f"remove {cache_dir()})"
    )


def check_compiler(device: torch.device) -> None:
    """Compile one addition for this device, as a check.

    Raises:
        UserError: it fails, because there is no C++ compiler or, on a GPU, no Triton.
    """

    def add(x: Tensor) -> Tensor:
        return x + 1

    try:
        torch.compile(add)(torch.zeros(8, device=device))
    except Exception as error:  # Dynamo's and Inductor's errors have no common base class
        needs = "a C++ compiler (g++)" if device.type == "cpu" else "a C compiler and Triton"
        raise UserError(
            f"Compile: {needs} is needed on {device.type}, which does not work here: {_reason(error)}"
        ) from error


def _reason(error: BaseException) -> str:
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{first} {rest[0]}" if first.endswith(":") and rest else first
