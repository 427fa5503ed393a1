"""The tokens of captions: their probabilities, and what a caption may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import UserError

INF = float("inf")
MAX_LENGTH = 20  # tokens, with the end


class SpecialIds(NamedTuple):
    """The tokens that are not words; padding and start may be the same as the end."""

    pad: int
    start: int
    end: int

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> SpecialIds:
        """Those of the data."""
        return cls(facts["pad_id"], facts["start_id"], facts["end_id"])


class Limits(NamedTuple):
    """What captions may be.

    Args:
        max_length: tokens at most, with the end.
        prefix: the beginning of every caption, int64 (P,), or one for each picture, (B, P), padded at its end.
        no_repeat_ngram: no sequence of this many tokens occurs twice in a caption; 0 allows all. A prefix may repeat.
    """

    max_length: int = MAX_LENGTH
    prefix: Tensor | None = None
    no_repeat_ngram: int = 0

    def check(self) -> None:
        """Check the numbers.

        Raises:
            UserError: one is out of range, or the prefix fills the whole caption.
        """
        if self.max_length < 1 or self.no_repeat_ngram < 0:
            raise UserError("decoding: max_length must be at least 1, no_repeat_ngram at least 0")
        if self.prefix is not None and self.prefix.shape[-1] >= self.max_length:
            raise UserError(f"decoding: a prefix of {self.prefix.shape[-1]} tokens leaves none of {self.max_length}")


# Probabilities


def log_probabilities(logits: Tensor, ids: SpecialIds) -> Tensor:
    """Log-probabilities of the next token, (..., V) in at least float32; -inf for padding and start."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
    for never in {ids.pad, ids.start} - {ids.end}:
        logits[..., never] = -INF
    return logits.log_softmax(-1)


def is_padding(tokens: Tensor, ids: SpecialIds) -> Tensor:
    """Which tokens (..., T), without the start, are padding: all behind the first end, even if they are the same."""
    ends = (tokens == ids.end).long()
    behind = ends.cumsum(-1) > ends
    return behind if ids.pad == ids.end else behind | (tokens == ids.pad)


def token_log_probs(logits: Tensor, tokens: Tensor, ids: SpecialIds) -> Tensor:
    """Log-probability of each token, with gradients, 0 for padding.

    Args:
        logits: (..., T, V).
        tokens: int64 (..., T), each to be predicted by the logits at its place: without the start.

    Returns:
        (..., T)
    """
    padding = is_padding(tokens, ids)
    said = tokens.masked_fill(padding, ids.end)  # padding's own is -inf, and so would be its gradient
    found = log_probabilities(logits, ids).gather(-1, said[..., None])[..., 0]
    return found.masked_fill(padding, 0)


# What may be said


def restricted(log_probs: Tensor, said: Tensor, limits: Limits, ids: SpecialIds) -> Tensor:
    """Log-probabilities (R, V) with -inf for what may not be said after these tokens (R, t)."""
    allowed, rows, at = log_probs, len(log_probs), said.shape[1]
    if 0 < limits.no_repeat_ngram <= at:
        allowed = allowed.masked_fill(repeats(said, limits.no_repeat_ngram, log_probs.shape[1]), -INF)
    if limits.prefix is not None and at < limits.prefix.shape[-1]:
        given = limits.prefix.to(said.device).reshape(-1, limits.prefix.shape[-1])[:, at]
        given = given.repeat_interleave(rows // len(given))[:, None]
        forced = torch.full_like(log_probs, -INF).scatter(1, given, log_probs.gather(1, given))
        allowed = torch.where(given == ids.pad, allowed, forced)
    return allowed


def repeats(said: Tensor, n: int, size: int) -> Tensor:
    """Which tokens would complete a sequence of ``n`` tokens that was said before, bool (R, size).

    Args:
        said: int64 (R, t), with t of at least n.
        n: length of the sequences.
        size: of the vocabulary.
    """
    windows = said.unfold(1, n, 1)
    same = (windows[..., :-1] == said[:, None, said.shape[1] - n + 1 :]).all(-1)
    row, place = same.nonzero(as_tuple=True)
    found = torch.zeros(len(said), size, dtype=torch.bool, device=said.device)
    found[row, windows[row, place, -1]] = True
    return found
