"""The layers of a Transformer's decoder, which can be run a word at a time.

Vaswani et al., "Attention Is All You Need", 2017 (arXiv 1706.03762), section 3.

Deviations: normalisation before each part and after the last layer (Xiong et al., "On Layer Normalization in the
Transformer Architecture", 2020), which trains without a warm-up; GELU in place of ReLU; dropout on the attention's
weights and in the MLP, too. With copied weights outputs equal those of ``torch.nn.TransformerDecoder``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[Tensor, Tensor]  # keys and values, (B, heads, N, width / heads)
BASE = 10_000.0  # ratio of the longest wavelength to the shortest (section 3.5)


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be computed once and kept.

    Shape:
        queries (B, Q, width), keys and values (B, heads, N, width / heads) -> (B, Q, width)
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        for layer in (self.query, self.key_value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def keys_values(self, x: Tensor) -> Pair:
        """Keys and values of (B, N, width)."""
        keys, values = self.key_value(x).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return keys, values

    def forward(self, x: Tensor, pair: Pair, causal: bool = False) -> Tensor:
        """The attended values."""
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(self._queries(x), *pair, dropout_p=dropout, is_causal=causal)
        return self._joined(found)

    def with_weights(self, x: Tensor, pair: Pair) -> tuple[Tensor, Tensor]:
        """As ``forward``, and the mean of the heads' weights, (B, Q, N), without dropout."""
        queries, (keys, values) = self._queries(x), pair
        weights = (queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[3])).softmax(-1)
        return self._joined(F.dropout(weights, self.dropout, self.training) @ values), weights.mean(1)

    def _queries(self, x: Tensor) -> Tensor:
        return self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _joined(self, values: Tensor) -> Tensor:
        return self.output(values.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Attention among the words, then to the picture, then an MLP, each added to its input and normalised before.

    Shape:
        words (B, T, width), keys and values of the places -> (B, T, width)
    """

    def __init__(self, width: int, heads: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.words, self.places = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_width, width)
        )
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, places: Pair, looks: bool = False) -> tuple[Tensor, Tensor | None]:
        """All words of captions; and, if ``looks``, the weights of the places (B, T, N)."""
        normed = self.norm1(x)
        x = x + self.dropout(self.words(normed, self.words.keys_values(normed), causal=True))
        return self._see(x, places, looks)

    def step(self, x: Tensor, past: Pair, places: Pair, looks: bool = False) -> tuple[Tensor, Pair, Tensor | None]:
        """One word of R captions, (R, 1, width), of which those of a picture are neighbours.

        Args:
            x: the words.
            past: keys and values of the words before, (R, heads, t, width / heads).
            places: those of the picture's places, with B rows.
            looks: give the weights of the places, too.

        Returns:
            The words after this layer, keys and values with theirs, and the weights (R, 1, N) or None.
        """
        normed = self.norm1(x)
        keys, values = (torch.cat(both, 2) for both in zip(past, self.words.keys_values(normed), strict=True))
        x = x + self.dropout(self.words(normed, (keys, values)))
        beside = x.view(places[0].shape[0], -1, x.shape[2])  # a picture's captions are as queries of one attention
        found, weights = self._see(beside, places, looks)
        return found.view(x.shape), (keys, values), None if weights is None else weights.flatten(0, 1)[:, None]

    def _see(self, x: Tensor, places: Pair, looks: bool) -> tuple[Tensor, Tensor | None]:
        normed, weights = self.norm2(x), None
        if looks:
            seen, weights = self.places.with_weights(normed, places)
        else:
            seen = self.places(normed, places)
        x = x + self.dropout(seen)
        return x + self.dropout(self.mlp(self.norm3(x))), weights


def sinusoids(places: Tensor, width: int) -> Tensor:
    """Sines of each place's number, then cosines, at ``width / 2`` frequencies (section 3.5), (N,) -> (N, width)."""
    count = width // 2
    frequencies = BASE ** (-torch.arange(count, device=places.device, dtype=places.dtype) / count)
    angles = places[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def grid_sinusoids(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Half of the channels are the row's ``sinusoids``, half the column's, (height · width, channels)."""
    rows, columns = (torch.arange(n, device=like.device).to(like.dtype) for n in (height, width))
    of_rows, of_columns = sinusoids(rows, channels // 2), sinusoids(columns, channels // 2)
    return torch.cat([of_rows.repeat_interleave(width, 0), of_columns.repeat(height, 1)], 1)
