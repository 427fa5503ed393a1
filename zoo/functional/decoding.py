"""Captions from a captioner: greedy decoding, beam search, nucleus sampling, and the score of a given caption.

Beam search is that of Show, Attend and Tell's authors (Xu et al. 2015): a caption that has ended keeps its place in the
beam, the others share what is left, and the search is over when all places are taken. Nucleus sampling is that of
Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020.

Padding and start can't be said: log-probabilities are those of the network over all other tokens, so that those of all
captions add up to 1. A caption's is the sum over its words and its end, of a given beginning, too. What else is in the
batch changes nothing; networks are to be in evaluation mode for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from zoo.errors import UserError
from zoo.functional.caption_tokens import Limits as Limits
from zoo.functional.caption_tokens import SpecialIds as SpecialIds
from zoo.functional.caption_tokens import is_padding as is_padding
from zoo.functional.caption_tokens import log_probabilities, restricted
from zoo.functional.caption_tokens import token_log_probs as token_log_probs

INF = float("inf")
DEFAULTS = Limits()
State = dict[str, Tensor]


class Steps(Protocol):
    """What decoding needs of a network; ``zoo.architectures.captioner.Captioner`` says what the methods do."""

    @property
    def picture_state(self) -> tuple[str, ...]:
        """Names of the state's tensors that depend on the picture alone."""
        ...

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Logits of all the words of captions."""
        ...

    def start(self, memory: Tensor) -> State:
        """The state before the first step."""
        ...

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the next word, and the state after this one."""
        ...

    def attention(self, state: State) -> Tensor | None:
        """Where the last step looked."""
        ...


class Captions(NamedTuple):
    """Captions of B pictures, n of each, best first.

    Args:
        tokens: int64 (B, n, T) without the start, with the end unless the caption is cut at ``max_length``; then
            padding.
        log_probs: (B, n); -inf where there are fewer than n captions, which are then all padding.
        attention: where the network looked before it said each token, (B, n, T, h, w), without meaning at padding; None
            if it was not asked for or the network does not say.
    """

    tokens: Tensor
    log_probs: Tensor
    attention: Tensor | None


# The score of a given caption


def score(network: Steps, memory: Tensor, tokens: Tensor, ids: SpecialIds) -> Tensor:
    """Log-probability of a given caption of each picture, (B,).

    Args:
        network: a captioner.
        memory: of B pictures.
        tokens: int64 (B, T) from the start to the end, padded, as batches have them.
        ids: of the vocabulary.
    """
    return token_log_probs(network.decode(memory, tokens[:, :-1]), tokens[:, 1:], ids).sum(-1)


def with_start(tokens: Tensor, ids: SpecialIds) -> Tensor:
    """Decoded tokens (..., T) with the start in front, (..., T + 1), as ``score`` and a network take them."""
    return F.pad(tokens, (1, 0), value=ids.start)


# One caption a row


@torch.no_grad()
def greedy(
    network: Steps, memory: Tensor, ids: SpecialIds, limits: Limits = DEFAULTS, with_attention: bool = False
) -> Captions:
    """The caption of each picture whose every word is the most probable one.

    Args:
        network: a captioner.
        memory: of B pictures, as its ``encode`` gives it.
        ids: of the vocabulary.
        limits: what captions may be.
        with_attention: give the attention, too.

    Returns:
        One caption a picture.

    Raises:
        UserError: as ``Limits.check``.
    """
    return _unroll(network, memory, ids, lambda log_probs: log_probs.argmax(-1), 1, limits, with_attention)


@torch.no_grad()
def sample(
    network: Steps,
    memory: Tensor,
    ids: SpecialIds,
    limits: Limits = DEFAULTS,
    with_attention: bool = False,
    count: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    generator: Generator | Sequence[Generator] | None = None,
) -> Captions:
    """Captions drawn at random.

    Args:
        network: a captioner.
        memory: of B pictures, as its ``encode`` gives it.
        ids: of the vocabulary.
        limits: what captions may be.
        with_attention: give the attention, too.
        count: captions a picture.
        temperature: log-probabilities are divided by it; below 1 favours the probable words.
        top_p: choose from the fewest words whose probabilities add up to this.
        generator: of the random numbers; one for each picture makes them independent of the batch.

    Returns:
        ``count`` captions a picture, in no order, with the network's log-probabilities (not those at the temperature,
        nor among the few).

    Raises:
        UserError: a number is out of range.
    """
    if temperature <= 0 or not 0 < top_p <= 1 or count < 1:
        raise UserError("decoding: temperature must be above 0, top_p in (0, 1], and count at least 1")

    def choose(log_probs: Tensor) -> Tensor:
        drawn = _uniform(generator, len(memory), count).to(log_probs.device)
        return pick(log_probs / temperature, drawn, top_p)

    return _unroll(network, memory, ids, choose, count, limits, with_attention)


def pick(logits: Tensor, uniform: Tensor, top_p: float = 1.0) -> Tensor:
    """One token a row from the nucleus of its distribution.

    Args:
        logits: (R, V).
        uniform: numbers in [0, 1) that decide, (R,): the same number chooses the same token.
        top_p: probability of the nucleus, at least.

    Returns:
        int64 (R,)
    """
    ranked, order = logits.softmax(-1).sort(-1, descending=True)
    kept = ranked * (ranked.cumsum(-1) - ranked < top_p)
    cdf = kept.cumsum(-1)
    place = torch.searchsorted(cdf, uniform.to(cdf.dtype)[:, None] * cdf[:, -1:], right=True)
    last = (kept > 0).sum(-1, keepdim=True) - 1  # rounding may put the number on the sum itself
    return order.gather(-1, torch.minimum(place, last))[:, 0]


def _uniform(generator: Generator | Sequence[Generator] | None, pictures: int, count: int) -> Tensor:
    if isinstance(generator, Sequence):
        return torch.cat([torch.rand(count, generator=one, device=one.device) for one in generator])
    device = None if generator is None else generator.device
    return torch.rand(pictures * count, generator=generator, device=device)


def _unroll(
    network: Steps,
    memory: Tensor,
    ids: SpecialIds,
    choose: Callable[[Tensor], Tensor],
    count: int,
    limits: Limits,
    with_attention: bool,
) -> Captions:
    """``count`` captions a picture, each word as ``choose`` takes it from log-probabilities (R, V)."""
    limits.check()
    state = _repeated(network, network.start(memory), count)
    tokens = torch.full((len(memory) * count,), ids.start, device=memory.device)
    said, total = tokens[:, None][:, :0], torch.zeros(len(tokens), device=memory.device)
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    looked: list[Tensor] = []
    for _ in range(limits.max_length):
        logits, state = network.step(tokens, state)
        log_probs = log_probabilities(logits, ids)
        chosen = choose(restricted(log_probs, said, limits, ids))
        total = total + log_probs.gather(1, chosen[:, None])[:, 0].masked_fill(ended, 0)
        tokens = chosen.masked_fill(ended, ids.pad)
        said, ended = torch.cat([said, tokens[:, None]], 1), ended | (tokens == ids.end)
        looked += _looked(network, state, with_attention)
        if ended.all():
            break
    shape = (len(memory), count)
    attention = torch.stack(looked, 1).unflatten(0, shape) if looked else None
    return Captions(said.unflatten(0, shape), total.unflatten(0, shape), attention)


# Beam search


@torch.no_grad()
def beam(
    network: Steps,
    memory: Tensor,
    ids: SpecialIds,
    limits: Limits = DEFAULTS,
    with_attention: bool = False,
    width: int = 3,
    count: int = 1,
    length_penalty: float = 1.0,
) -> Captions:
    """The best captions that a beam of ``width`` finds.

    Args:
        network: a captioner.
        memory: of B pictures, as its ``encode`` gives it.
        ids: of the vocabulary.
        limits: what captions may be.
        with_attention: give the attention, too.
        width: captions that are followed at once, for each picture; 1 is greedy decoding.
        count: captions a picture to return, at most ``width``.
        length_penalty: captions are ranked by log-probability / tokens ** length_penalty, with the end among the
            tokens: 1 ranks by the mean, 0 by the sum, which favours short ones.

    Returns:
        ``count`` captions a picture, best first.

    Raises:
        UserError: a number is out of range.
    """
    limits.check()
    if not 1 <= count <= width or length_penalty < 0:
        raise UserError("decoding: expected count from 1 to the beam's width, and length_penalty of at least 0")
    batch, device = len(memory), memory.device
    state = _repeated(network, network.start(memory), width)
    first = torch.arange(0, batch * width, width, device=device)[:, None]
    tokens = torch.full((batch, width), ids.start, device=device)
    said, ended = tokens.flatten()[:, None][:, :0], torch.zeros_like(tokens, dtype=torch.bool)
    total = torch.zeros_like(tokens, dtype=torch.float32).index_fill(1, torch.arange(1, width, device=device), -INF)
    looked: Tensor | None = None
    for _ in range(limits.max_length):
        logits, state = network.step(tokens.flatten(), state)
        log_probs = restricted(log_probabilities(logits, ids), said, limits, ids).unflatten(0, (batch, width))
        total, source, tokens = _best(total.to(log_probs.dtype), ended, log_probs, ids)
        rows = (first + source).flatten()
        for found in _looked(network, state, with_attention):
            looked = found[rows, None] if looked is None else torch.cat([looked, found[:, None]], 1)[rows]
        state = _reordered(network, state, rows)
        said = torch.cat([said[rows], tokens.flatten()[:, None]], 1)
        empty = total.isneginf()
        ended = (ended.gather(1, source) | (tokens == ids.end)) & ~empty
        if (ended | empty).all():
            break
    return _ranked(said, total, looked, count, length_penalty, ids)


def _best(total: Tensor, ended: Tensor, log_probs: Tensor, ids: SpecialIds) -> tuple[Tensor, Tensor, Tensor]:
    """The captions that stay in the beam: those that have ended, and the most probable continuations of the others.

    Returns:
        Of each, (B, width): log-probability, the place in the beam that it continues, and its new token.
    """
    width, size = log_probs.shape[1:]
    ranks = (total[..., None] + log_probs).masked_fill(ended[..., None], -INF)
    ranks[..., ids.pad] = torch.where(ended, INF, ranks[..., ids.pad])
    best, index = ranks.flatten(1).topk(width)
    source, tokens = index // size, index % size
    tokens = tokens.masked_fill(best.isneginf(), ids.pad)  # fewer captions than places: nothing was said there
    return torch.where(best.isposinf(), total.gather(1, source), best), source, tokens


def _ranked(
    said: Tensor, total: Tensor, looked: Tensor | None, count: int, length_penalty: float, ids: SpecialIds
) -> Captions:
    """The best ``count`` captions of each picture, without columns that are all padding."""
    said = said.unflatten(0, total.shape).masked_fill(total.isneginf()[..., None], ids.pad)
    lengths = (~is_padding(said, ids)).sum(-1).clamp(min=1)
    order = (total / lengths**length_penalty).topk(count).indices
    rows = torch.arange(len(total), device=total.device)[:, None]
    longest = int(lengths[rows, order].max())
    attention = None if looked is None else looked.unflatten(0, total.shape)[rows, order, :longest]
    return Captions(said[rows, order, :longest], total[rows, order], attention)


# Small parts


def _repeated(network: Steps, state: State, count: int) -> State:
    """The state for ``count`` captions a picture."""
    if count == 1:
        return state
    return {k: v if k in network.picture_state else v.repeat_interleave(count, 0) for k, v in state.items()}


def _reordered(network: Steps, state: State, rows: Tensor) -> State:
    """The state of other rows of the same pictures."""
    return {k: v if k in network.picture_state else v.index_select(0, rows) for k, v in state.items()}


def _looked(network: Steps, state: State, wanted: bool) -> list[Tensor]:
    found = network.attention(state) if wanted else None
    return [] if found is None else [found]
