"""The base of captioners: networks that say what is in a picture, word by word.

A captioner encodes a picture once, and decodes words from that memory: all words of a known caption at once
(``decode``, for training), or one word a step (``start`` and ``step``, for generation). ``zoo.functional.decoding`` has
the searches, which work for every captioner.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from zoo.architectures.base import Architecture
from zoo.errors import UserError

State = dict[str, Tensor]


class Captioner(Architecture):
    """Base of captioners. A subclass gives ``encode`` and ``decode``; what it can do faster, it overrides.

    The defaults of ``start`` and ``step`` keep the words said so far and decode all of them again for each new one: a
    subclass that keeps what the past amounts to (an LSTM's state, a Transformer's keys and values) takes a fraction of
    the time and must give the same logits.

    A word has no say in the logits before it. Captions in a batch may therefore be padded at their end by any token.

    Attributes:
        picture_state: names of the state's tensors that depend on the picture alone. Decoding keeps one of them for all
            the captions of a picture: with R tokens and B rows of such a tensor, row r of the tokens belongs to
            picture r // (R / B). All other tensors have R rows.
        extra_places: vectors of the memory in front of those of the places that stand for the whole picture, such as a
            class token.

    Shape:
        images (B, C, H, W), normalised, and tokens (B, T), the start first -> logits (B, T, vocabulary_size) of the
        word after each
    """

    roles: ClassVar[tuple[str, ...]] = ("captioner",)
    picture_state: tuple[str, ...] = ()
    extra_places: int = 0

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """The memory of pictures, (B, N, D): a vector for each of N places, or a single one for all."""

    @abstractmethod
    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the next word after each of the tokens (B, T), as (B, T, vocabulary_size)."""

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the next word after each token."""
        return self.decode(self.encode(images), tokens)

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """As ``decode``, and the weight of each place for each word, (B, T, N) with sum 1; None without attention."""
        return self.decode(memory, tokens), None

    # One word a step

    def start(self, memory: Tensor) -> State:
        """The state before the first step: tensors with the batch first."""
        return {"memory": memory, "tokens": memory.new_zeros((len(memory), 0), dtype=torch.int64)}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Say one word to the network.

        Args:
            tokens: the word of each row, int64 (R,); the start at the first step.
            state: as ``start`` or the last step gave it; it is not changed.

        Returns:
            Logits of the next word (R, vocabulary_size), and the state after this one.
        """
        said = torch.cat([state["tokens"], tokens[:, None]], 1)
        logits, attention = self.decode_with_attention(state["memory"], said)
        after = {"memory": state["memory"], "tokens": said}
        return logits[:, -1], after if attention is None else {**after, "attention": attention[:, -1]}

    def attention(self, state: State) -> Tensor | None:
        """Where the last step looked: the weights of the picture's places (R, h, w), with sum 1.

        By default they are the state's ``attention``, (R, N), without ``extra_places``; None if it has none.
        """
        weights = state.get("attention")
        if weights is None:
            return None
        weights = of_places(weights, self.extra_places)
        return weights.unflatten(1, self.grid_of(weights.shape[1]))

    def grid_of(self, places: int) -> tuple[int, int]:
        """Height and width of the grid that a memory of this many places comes from, row by row; by default a square.

        Raises:
            UserError: there is no such square.
        """
        side = math.isqrt(places)
        if side * side != places:
            raise UserError(f"{type(self).__name__}: {places} places are not a square, so their grid is not known")
        return side, side


def of_places(weights: Tensor, extra: int) -> Tensor:
    """Weights (..., extra + N) of attention without the first ``extra``, scaled to sum 1."""
    weights = weights[..., extra:]
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny) if extra else weights


class Uncached:
    """A captioner without its own steps: all words are decoded again for each new one. To compare results and speed.

    Args:
        network: the captioner.
    """

    picture_state: tuple[str, ...] = ()

    def __init__(self, network: Captioner) -> None:
        self.network = network

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the next word after each token."""
        return self.network.decode(memory, tokens)

    def start(self, memory: Tensor) -> State:
        """No words."""
        return Captioner.start(self.network, memory)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the next word, and the state with this one."""
        return Captioner.step(self.network, tokens, state)

    def attention(self, state: State) -> Tensor | None:
        """Where the last step looked."""
        return Captioner.attention(self.network, state)
