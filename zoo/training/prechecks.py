"""Checks before what would fail late in a run: unknown metrics, batches that batch norm can't take."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from zoo.data.loading import Loader
from zoo.errors import UserError
from zoo.training.callbacks import RunCheckpoints


class CheckMonitors(Callback):
    """Refuses a callback that waits for a metric which the first validation did not give; before others look for it.

    The few batches before training may not suffice for each metric: they only warn.
    """

    def __init__(self) -> None:
        self._checked = False

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of what each callback monitors, but for the task's own metric."""
        for said in _unmet(trainer, getattr(pl_module, "monitor", None)):
            rank_zero_warn(f"{said}; unless the first validation on all data does, the run ends there")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what each callback monitors.

        Raises:
            UserError: there is no such metric.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit" or self._checked:
            return
        self._checked = True
        for said in _unmet(trainer):
            raise UserError(said)


def _unmet(trainer: Trainer, but: str | None = None) -> Iterator[str]:
    given = sorted(trainer.callback_metrics)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        name = getattr(callback, "monitor", None)
        own = isinstance(callback, RunCheckpoints)  # which says so itself
        if given and not own and isinstance(name, str) and name.startswith("val") and name not in (*given, but):
            yield (
                f"{type(callback).__name__} waits for {name}, which validation does not give "
                f"(it gives {', '.join(given)})"
            )


class CheckBatchNorm(Callback):
    """Refuses a run in which a batch norm will see one value per channel, before its first optimiser step.

    PyTorch raises an error only when that batch comes, often the last of the first epoch. The first batch shows which
    layers have nothing left to average over but the images; the loader's length, how few images a batch will have.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._images = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the layers if a batch will have a single image."""
        why = reason_for_one(trainer)
        if not why:
            return
        for name, layer in pl_module.named_modules():
            if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm):
                self._handles.append(layer.register_forward_pre_hook(self._check_of(name, why)))

    def _check_of(self, name: str, why: str) -> Any:
        def check(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0]
            by_batch = layer.training or layer.running_mean is None
            if torch.compiler.is_compiling() or not (by_batch and len(x) == self._images):
                return
            if x.numel() == x.shape[0] * x.shape[1]:
                raise UserError(why.format(f"{name} ({type(layer).__name__}) would see one value per channel"))

        return check

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the number of images."""
        self._images = _length(batch)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """One batch is enough."""
        while self._handles:
            self._handles.pop().remove()


def _length(batch: Any) -> int:
    first = batch[0] if isinstance(batch, list | tuple) and len(batch) else batch
    return len(first) if isinstance(first, list | tuple) or (isinstance(first, Tensor) and first.ndim) else 0


def reason_for_one(trainer: Trainer) -> str:
    """Why a training batch of a process will have a single image, and what to change; empty if none will.

    Returns:
        A format with one place, for what follows from it.
    """
    loader, world = trainer.train_dataloader, trainer.world_size
    if not isinstance(loader, Loader):
        return ""
    count = loader.order.length if loader.order else len(loader.samples)
    rest = count % loader.batch_size
    share = f" for each of {world} processes" if world > 1 else ""
    if loader.batch_size // world == 1 and count >= loader.batch_size:
        return f"data.batch_size {loader.batch_size} is one image{share}, of which {{}}: give a larger one"
    ends_before = 0 <= trainer.max_steps * trainer.accumulate_grad_batches < len(loader)
    reached = trainer.num_training_batches >= len(loader) and not ends_before
    if rest // world == 1 and not loader.drop_last and reached:
        return (
            f"data.batch_size {loader.batch_size} leaves one image{share} to the last batch of an epoch ({count} "
            "images), of which {}: give another one, or --data.drop_last true"
        )
    return ""


# Keys of a checkpoint that a resumed run goes on from, and what each must be.
NEEDED = {"loops": dict, "callbacks": dict, "optimizer_states": list, "lr_schedulers": list}
MOMENTS = ("momentum_buffer", "exp_avg", "exp_avg_sq", "square_avg", "sum")  # as large as their parameter


def refuse_incomplete(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume from a checkpoint from which Lightning would silently start anew.

    Args:
        checkpoint: its content.
        path: its file, for the message.

    Raises:
        UserError: it lacks what a resumed run needs.
    """
    lacking = [key for key, kind in NEEDED.items() if not isinstance(checkpoint.get(key), kind)]
    if not lacking and not isinstance(checkpoint["loops"].get("fit_loop"), dict):
        lacking = ["loops.fit_loop"]
    if not lacking and not checkpoint["optimizer_states"]:
        lacking = ["optimizer_states"]
    if lacking:
        raise UserError(
            f"{path} can't be resumed, it is incomplete: it has no usable {' and '.join(lacking)} "
            f"(--model.weights {shlex.quote(str(path))} starts a new run from its weights)"
        )


class CheckOptimizerStates(Callback):
    """Refuses to go on with the state of another kind of optimiser, or of other parameters.

    Args:
        path: the checkpoint's, for the message.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: list[list[set[str]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note which settings the groups of the new optimisers have, before their state is restored."""
        self._keys = [[set(group) & set(o.defaults) for group in o.param_groups] for o in trainer.optimizers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the restored optimisers.

        Raises:
            UserError: their state is not theirs.
        """
        for optimizer, keys in zip(trainer.optimizers, self._keys, strict=True):
            if why := _misfit(optimizer, keys):
                raise UserError(f"{self.path} can't be resumed: {type(optimizer).__name__}'s state there {why}")


def _misfit(optimizer: torch.optim.Optimizer, keys: list[set[str]]) -> str:
    for group, known in zip(optimizer.param_groups, keys, strict=False):
        if missing := sorted(known - group.keys()):
            return f"has no {missing[0]}: it is another optimiser's"
    own = type(optimizer).__module__.startswith("torch.optim")  # others keep moments of other shapes, as one per layer
    for parameter, state in optimizer.state.items():
        for name in MOMENTS if own else ():
            moment = state.get(name) if isinstance(state, dict) else None
            if isinstance(moment, Tensor) and moment.shape != parameter.shape:
                return f"has {name} of shape {list(moment.shape)} for a parameter of shape {list(parameter.shape)}"
    return ""


def refuse_synchronising_on_cpus(trainer: Trainer, wanted: bool) -> None:
    """PyTorch's synchronised batch norm would end every process in a traceback of its own.

    Raises:
        UserError: it is wanted on several CPU processes.
    """
    strategy = trainer.strategy
    if wanted and isinstance(strategy, ParallelStrategy) and strategy.root_device.type == "cpu":
        raise UserError(
            "trainer.sync_batchnorm: PyTorch synchronises batch norm on GPUs only; several CPU processes train "
            "without it, each with the statistics of its own share of the batch"
        )
