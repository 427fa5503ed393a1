"""The classifier that judges generated images: which class it sees in them, and features to compare them by.

It is trained on the training pictures before the first step, by the run's seed, unless it comes with weights of its
own, and it is a part of the task: checkpoints hold it, and a resumed run and a test have the same one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from zoo.architectures.base import Architecture
from zoo.data.base import Data, Split
from zoo.data.loading import Loader
from zoo.data.seeds import derive_seed, run_seed
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, build, check_role, pretrained_classes
from zoo.facts import Facts
from zoo.tasks.normalize import Normalize

BATCH, RATE, SMOOTHING = 64, 2e-3, 0.1
SHIFT, TURN, ZOOM = 0.08, 12.0, 0.12  # augmentation: shares of the side, degrees, share of the size


class Judged(NamedTuple):
    """What the judge sees in images.

    Args:
        features: the input of its last layer, (B, D).
        log_probs: of the classes, (B, K).
    """

    features: Tensor
    log_probs: Tensor


class Judge(nn.Module):
    """A classifier whose features and classes samples are judged by.

    Args:
        factory: the classifier's; one with pretrained weights is used as it is.
        facts: of the data.
        epochs: over the training pictures, if it is to be trained.

    Shape:
        images (B, C, H, W) in [0, 1] -> features (B, D), log-probabilities (B, K)

    Raises:
        UserError: it has to be trained, and the data has no classes; or it has no linear layer at its end.
    """

    trained: Tensor

    def __init__(self, factory: ArchitectureFactory, facts: Facts, epochs: int) -> None:
        super().__init__()
        check_role(factory, "classifier", "model.judge")
        own = len(pretrained_classes(factory))
        self.knows_classes = not own or own == facts.get("num_classes")
        if not own and facts.get("num_classes", 0) < 2:
            raise UserError("model.judge is to be trained, but the data has no classes: give it pretrained weights")
        sizes: dict[str, Any] = {**facts, "num_classes": own or facts["num_classes"]}
        self.network: Architecture = build(factory, ("num_classes",), **sizes)
        self.normalize = Normalize(self.network, facts)
        self.epochs = epochs
        self.register_buffer("trained", torch.tensor(bool(own)))
        self.requires_grad_(False).eval()
        self._last = _last_linear(self.network, sizes["num_classes"])

    def train(self, mode: bool = True) -> Judge:
        """Always in evaluation mode, whatever the task is in."""
        return super().train(False)

    def forward(self, images: Tensor) -> Judged:
        """What it sees."""
        kept: list[Tensor] = []
        handle = self._last.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            logits = self.network(self.normalize(images))
        finally:
            handle.remove()
        return Judged(kept[-1].flatten(1), logits.float().log_softmax(1))

    def prepare(self, task: LightningModule, data: Data) -> None:
        """Train it, if that has not been done: on the first process, and then it is the same on all.

        Args:
            task: whose part it is.
            data: with labelled training pictures.
        """
        if bool(self.trained):
            return
        strategy = task.trainer.strategy
        if task.trainer.is_global_zero:
            self._fit(data, task.device)
        state = strategy.broadcast({name: value.cpu() for name, value in self.state_dict().items()})
        self.load_state_dict(state)

    def _fit(self, data: Data, device: torch.device) -> None:
        parts = [(images.cpu(), labels.cpu()) for images, labels, *_ in pictures_of(data, "train")]
        images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        print(f"the judge is trained on {len(images):,} pictures, {self.epochs} epochs", flush=True)
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.inference_mode(False):
            torch.default_generator.manual_seed(derive_seed(run_seed(), 0x6A75646765))
            self._descend(images, labels, device)
        self.requires_grad_(False).eval()
        self.trained.fill_(True)

    def _descend(self, images: Tensor, labels: Tensor, device: torch.device) -> None:
        self.requires_grad_(True)
        self.network.train()
        optimizer = AdamW(self.network.parameters(), RATE, weight_decay=0.02)
        steps = self.epochs * -(-len(images) // BATCH)
        schedule = OneCycleLR(optimizer, RATE, total_steps=max(2, steps))
        for _ in range(self.epochs):
            for rows in torch.randperm(len(images)).split(BATCH):
                batch = jittered(images[rows].to(device))
                loss = F.cross_entropy(
                    self.network(self.normalize(batch)), labels[rows].to(device), label_smoothing=0.1
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()


def _last_linear(network: nn.Module, outputs: int) -> nn.Module:
    found = [m for m in network.modules() if isinstance(m, nn.Linear) and m.out_features == outputs]
    if not found:
        raise UserError(f"model.judge: {type(network).__name__} has no linear layer to its classes")
    return found[-1]


def jittered(images: Tensor) -> Tensor:
    """Each image moved, turned and zoomed a little, filled with its corner's colour."""
    x, y, turn, zoom = (2 * torch.rand(4, len(images), dtype=images.dtype) - 1).to(images.device)
    angle, size = torch.deg2rad(TURN * turn), 1 + ZOOM * zoom
    first = torch.stack([size * angle.cos(), -size * angle.sin(), 2 * SHIFT * x], 1)
    second = torch.stack([size * angle.sin(), size * angle.cos(), 2 * SHIFT * y], 1)
    places = F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    ground = images[:, :, :1, :1]
    return F.grid_sample(images - ground, places, align_corners=False) + ground


def pictures_of(data: Data, split: Split) -> Iterator[tuple[Any, ...]]:
    """All batches of a split as an evaluation on one process sees them: whole, in order, without augmentation.

    Args:
        data: set up.
        split: ``train``, ``val`` or ``test``.
    """
    alone = copy.copy(data)
    alone.trainer = None if data.trainer is None else _AtRest(data.trainer)  # type: ignore[assignment]
    samples: Any = data.samples(split)
    for batch in Loader(samples, BATCH, collate=data.collate):
        yield alone.on_after_batch_transfer(batch, 0)


class _AtRest:
    """A trainer, but that it does not train: data augment training batches."""

    training = predicting = False

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)
