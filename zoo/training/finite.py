"""Stops a run whose loss or weights are no longer finite, before such a network is saved or called the best."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from zoo.errors import RunFailed
from zoo.training.checkpoints import NOT_FINITE
from zoo.training.storage import newest_first

_ANOMALY = re.compile(r"Function '\w+' returned nan values in its \d+th output")


@dataclass(frozen=True)
class _Step:
    """A training step that has not been checked yet; the loss stays on its device."""

    number: int
    loss: Tensor
    rates: tuple[Any, ...]


class RequireFinite(Callback):
    """Ends the run with status 1 at the first loss that is NaN or infinite, and before such weights are saved.

    On one CPU every step is checked. Elsewhere reading a loss would stop the device, so that the steps since the last
    check are read together: every ``log_every_n_steps``, and before each validation and each save.

    Args:
        folder: the run's, where the last good checkpoint is looked for.
        resumed: the checkpoint that the run was resumed from.
    """

    def __init__(self, folder: Path, resumed: Path | None = None) -> None:
        self.folder, self.resumed = folder, resumed
        self._steps: list[_Step] = []
        self._rates: tuple[Any, ...] = ()
        self._last: _Step | None = None
        self._nan_before: frozenset[str] = frozenset()
        self._found = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the buffers that hold NaN from the start, as places not yet filled may."""
        buffers = {name for name, _ in pl_module.named_buffers()}
        self._nan_before = frozenset(buffers.intersection(_not_finite(pl_module)))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the learning rates; by the batch's end a scheduler has changed them."""
        rates = (group.get("lr") for optimizer in trainer.optimizers for group in optimizer.param_groups)
        self._rates = tuple(rate.clone() if isinstance(rate, Tensor) else rate for rate in rates)  # read when told

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss; check where that is cheap, or due."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self._steps.append(_Step(trainer.global_step, loss.detach().reshape(()), self._rates))
        if trainer.world_size == 1 and pl_module.device.type == "cpu":
            self._check_losses(trainer)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (trainer.fit_loop.total_batch_idx + 1) % max(1, every) == 0:
            self._check_losses(trainer)
            if not pl_module.automatic_optimization:  # whose loss is not known here
                self._check_weights(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before a validation, whose score would compare this network with others."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._check(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before other callbacks save."""
        self._check(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check before each save, whoever saves.

        While an error is handled, other processes are elsewhere and the error is what is to be told: what is not finite
        here is then not written.
        """
        if not trainer.interrupted:
            self._check(trainer, pl_module)
        elif self._found or not all(s.loss.isfinite() for s in self._steps) or self._name(pl_module):
            checkpoint[NOT_FINITE] = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say where it was that ``--trainer.detect_anomaly`` found a NaN."""
        if anomaly_message(exception) is not None:
            exception.add_note(f"of step {trainer.global_step + 1}, {_rates(self._rates)}; {self._last_good()}")

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_losses(trainer)
        self._check_weights(trainer, pl_module)

    def _check_losses(self, trainer: Trainer) -> None:
        steps, self._steps = self._steps, []
        values = torch.stack([s.loss.float() for s in steps]).tolist() if steps else []
        bad = next((i for i, value in enumerate(values) if not math.isfinite(value)), None)
        self._last = steps[-1] if steps else self._last
        number, loss = _first(
            trainer, math.inf if bad is None else steps[bad].number, 0.0 if bad is None else values[bad]
        )
        if number < math.inf:
            rates = next((s.rates for s in steps if s.number == number), self._rates)
            self._end(trainer, f"the loss is {loss} at step {number:.0f}", rates)

    def _check_weights(self, trainer: Trainer, pl_module: LightningModule) -> None:
        name, last = self._name(pl_module), self._last
        number, _ = _first(trainer, math.inf if name is None else trainer.global_step)
        if number < math.inf:
            loss = f" (the loss was {float(last.loss):.4g})" if last else ""
            text = f"{name or 'a weight of another process'} is no longer finite after step {number:.0f}{loss}"
            self._end(trainer, text, last.rates if last else self._rates)

    def _name(self, pl_module: LightningModule) -> str | None:
        return not_finite(pl_module, self._nan_before)

    def _end(self, trainer: Trainer, text: str, rates: tuple[Any, ...]) -> None:
        """Raise on every process; all but the first leave silently."""
        self._found = True
        if not trainer.is_global_zero:
            raise SystemExit(RunFailed.status)  # the first process says it
        raise RunFailed(f"{text}, {_rates(rates)}: {_advice(trainer)}; {self._last_good()}")

    def _last_good(self) -> str:
        files = newest_first(p for p in self.folder.rglob("*.ckpt") if not p.name.startswith("."))
        newest = files[0] if files else self.resumed
        return f"the last good checkpoint is {newest}" if newest else "no checkpoint was saved before"


def not_finite(module: torch.nn.Module, besides: Collection[str] = ()) -> str | None:
    """The name of the first parameter with NaN or infinite values, or buffer with NaN; None if there is none.

    Masks are often infinite, so that infinite values count only where they are trained. Buffers that no checkpoint
    holds do not count.

    Args:
        module: the network.
        besides: names that do not count.
    """
    return next((name for name in _not_finite(module) if name not in besides), None)


def _not_finite(module: torch.nn.Module) -> list[str]:
    names, flags = [], []
    for name, tensor, trained in _floats(module):
        values = tensor.detach()
        names.append(name)
        flags.append((values.isfinite() if trained else ~values.isnan()).all())
    if not flags:
        return []
    devices = {flag.device for flag in flags}
    fine = torch.stack(flags if len(devices) == 1 else [flag.cpu() for flag in flags]).tolist()
    return [name for name, ok in zip(names, fine, strict=True) if not ok]


def _floats(module: torch.nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    for name, parameter in module.named_parameters():
        if _has_nan(parameter):
            yield name, parameter, parameter.requires_grad
    parts = module.named_modules()
    passing = {f"{prefix}.{name}".lstrip(".") for prefix, part in parts for name in part._non_persistent_buffers_set}
    for name, buffer in module.named_buffers():
        if _has_nan(buffer) and name not in passing:
            yield name, buffer, False


def _has_nan(tensor: Tensor) -> bool:
    """Whether the type can hold NaN and has the operators to find it (8-bit floats have none)."""
    return (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype.itemsize > 1


def _first(trainer: Trainer, number: float, loss: float = 0.0) -> tuple[float, float]:
    """Of what the processes found, what came first: the number of the step, infinite if there is none, and its loss."""
    if trainer.world_size == 1:
        return number, loss
    own = torch.tensor([number, loss], dtype=torch.float64, device=trainer.strategy.root_device)
    every = torch.as_tensor(trainer.strategy.all_gather(own)).view(-1, 2).tolist()
    first: list[float] = min(every, key=lambda found: found[0])
    return first[0], first[1]


def _rates(rates: tuple[Any, ...]) -> str:
    """An optimiser may have none, or none that is set."""
    known = list(dict.fromkeys(float(rate) for rate in rates if rate is not None))
    return f"learning rate {' and '.join(f'{rate:.4g}' for rate in known[:3]) or 'unknown'}"


def _advice(trainer: Trainer) -> str:
    tries = ["a smaller learning rate"]
    if not trainer.gradient_clip_val and trainer.lightning_module.automatic_optimization:
        tries.append("--trainer.gradient_clip_val 1")
    if str(trainer.precision).startswith("16"):
        tries.append("--trainer.precision bf16-mixed")
    if trainer.global_step <= 1:
        tries.append("other data (the first loss does not depend on the learning rate)")
    return f"try {', '.join(tries)}; --trainer.detect_anomaly true names the operation"


def anomaly_message(error: BaseException) -> str | None:
    """The line for what ``--trainer.detect_anomaly`` finds in a backward pass; None for any other error."""
    if (match := _ANOMALY.search(str(error))) is None:
        return None
    return " ".join([f"{match[0]} in the backward pass", *getattr(error, "__notes__", ())])
