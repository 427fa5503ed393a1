"""Load tensors into a network from any file: the part of the file that fits best, with a report of what does not fit.

Names of the same layer depend on what was saved: a classifier's checkpoint has ``architecture.conv1.weight``, the same
network as an encoder ``architecture.encoder.conv1.weight``, a library's file ``conv1.weight``, and an adapter of the
library's network ``network.conv1.weight``. So prefixes are removed on both sides such that the most values agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.registry import did_you_mean

OWN = ("", "architecture.", "network.", "architecture.network.")  # possible prefixes of the network's names
USUAL = ("", "architecture.", "architecture.encoder.", "encoder.")  # preferred where several parts fit equally well
LISTED = 30  # maximum lines of a list


@dataclass
class Report:
    """What was loaded into a network.

    Args:
        part: prefix of the names of the given tensors.
        loaded: names of the network's tensors that were loaded.
        left: the network's other tensors, with shape and reason.
        unused: tensors of that part that do not match any of the network's, with shape.
        file: the file that they come from, if any.
        facts: the file's facts of the data that they were trained on.
        own: ``mean`` and ``std`` of this part of the file's network, where they are not the data's.
    """

    part: str
    loaded: list[str]
    left: list[str]
    unused: list[str]
    file: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    own: dict[str, list[float]] = field(default_factory=dict)

    @property
    def statistics(self) -> dict[str, list[float]]:
        """``mean`` and ``std`` of the images that the weights were trained on, if the file has them."""
        return self.own or {name: list(self.facts[name]) for name in ("mean", "std") if self.facts.get(name)}

    @rank_zero_only
    def show(self) -> None:
        """Print a one-line summary, and below it what did not fit."""
        part = f" ({self.part.removesuffix('.')})" if self.part else ""
        print(f"weights: {len(self.loaded)} of {len(self.loaded) + len(self.left)} tensors from {self.file}{part}")
        for title, lines in (("left as initialised", self.left), ("without a place here", self.unused)):
            if lines:
                more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
                print("\n  ".join([f"{title}:", *lines[:LISTED], *more]), flush=True)


def load_tensors(
    network: nn.Module, tensors: Mapping[str, Tensor], part: str | None = None, whole: bool = False
) -> Report:
    """Load the tensors whose name and shape match the network's, from the part that fits best.

    Args:
        network: a network, or a task with its networks.
        tensors: by name.
        part: prefix of the names, up to a dot; by default the one that fits the most values.
        whole: raise unless every tensor of the network is loaded.

    Raises:
        UserError: there is no such part, nothing in it fits, or not the whole network; nothing was loaded then.
    """
    own, name = network.state_dict(), type(network).__name__
    front, prefix = best_prefixes(own, tensors, None if part is None else f"{part}.")
    given = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    if not given:
        raise UserError(f"it has no part {part}{did_you_mean(part or '', _parts(tensors))}")
    wanted = {n: given.get(n.removeprefix(front)) if n.startswith(front) else None for n in own}
    fitting = {n: t for n, t in wanted.items() if t is not None and t.shape == own[n].shape}
    left = [f"{n} {tuple(own[n].shape)} {_reason(t)}" for n, t in wanted.items() if n not in fitting]
    matrices = {n for n, p in network.named_parameters() if p.dim() > 1}  # a bias may fit by chance
    if not fitting.keys() & (matrices or {n for n, _ in network.named_parameters()}):
        such = f", such as {left[0]}" if left else ""
        raise UserError(f"no tensor in it has the name and shape of one of {name}{such}")
    if whole and left:
        raise UserError(f"it holds no {name} with these arguments: {left[0]}")
    own.update(fitting)  # load the full state dict: some layers read its version metadata
    network.load_state_dict(own)
    taken = {n.removeprefix(front) for n in wanted if n.startswith(front)}
    unused = [f"{prefix}{n} {tuple(t.shape)}" for n, t in given.items() if n not in taken]
    return Report(prefix, list(fitting), left, unused)


def misfit(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Why the given tensors are not those of a network, in a few words."""
    for name, value in own.items():
        if name in given and given[name].shape != value.shape:
            return f"{name} has shape {list(given[name].shape)} there, {list(value.shape)} here"
    missing, stray = [n for n in own if n not in given], [n for n in given if n not in own]
    parts = [(missing, "not there"), (stray, "without a place here")]
    return ", ".join(f"{len(names)} tensors are {what} ({names[0]} …)" for names, what in parts if names) or "damaged"


def _reason(given: Tensor | None) -> str:
    return "is not there" if given is None else f"has shape {tuple(given.shape)} there"


def _parts(tensors: Mapping[str, Tensor]) -> list[str]:
    return [*dict.fromkeys(before[:-1] for name in tensors for before, _ in _splits(name) if before)]


def best_prefixes(own: Mapping[str, Tensor], given: Mapping[str, Tensor], prefix: str | None = None) -> tuple[str, str]:
    """The prefixes to remove from both sides' names so that the most values agree in name and shape.

    Args:
        own: a network's tensors.
        given: the tensors to load.
        prefix: the given side's prefix, if known.
    """
    fit: dict[tuple[str, str], int] = {("", prefix or ""): 0}
    for front in OWN:
        shapes = {n.removeprefix(front): t.shape for n, t in own.items() if n.startswith(front)}
        for name, tensor in given.items():
            for before, rest in _splits(name):
                if shapes.get(rest) == tensor.shape and prefix in (None, before):
                    fit[front, before] = fit.get((front, before), 0) + tensor.numel()
    usual = {before: len(USUAL) - i for i, before in enumerate(USUAL)}
    return max(fit, key=lambda pair: (fit[pair], usual.get(pair[1], 0)))


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """All splits of a name into a prefix and the rest, at each dot: ``("", "a.b"), ("a.", "b")``."""
    yield "", name
    for i, letter in enumerate(name):
        if letter == ".":
            yield name[: i + 1], name[i + 1 :]


@torch.no_grad()
def start_head(head: nn.Module, std: float = 0.01) -> None:
    """Initialise a new last layer so small that all classes are almost equally probable at first.

    A library's default may be too large on pretrained features: timm's for EfficientNets has a standard deviation of
    0.4 at two classes, and the first loss is 2.9 instead of log(2).

    Args:
        head: every linear or convolutional layer in it is initialised.
        std: standard deviation of the weights; biases are zero.
    """
    for layer in head.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
