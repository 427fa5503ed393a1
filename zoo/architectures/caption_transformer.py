"""A Transformer's decoder over a feature map: each word attends to the words before it and to the picture's places.

The decoder is that of Vaswani et al., "Attention Is All You Need", 2017 (arXiv 1706.03762), see
``zoo.architectures.caption_decoder``; Cornia et al., "Meshed-Memory Transformer for Image Captioning", 2020, and many
others put it on feature maps of a picture. Here there is no encoder on top of the feature map, which has seen all of
the picture already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.backbone_captioner import BackboneCaptioner, check_captioner
from zoo.architectures.caption_decoder import DecoderLayer, Pair, grid_sinusoids, sinusoids
from zoo.architectures.captioner import State
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory


class CaptionTransformer(BackboneCaptioner):
    """A Transformer that says what it sees.

    The feature map is projected to the decoder's width and normalised; sines and cosines of row and column tell its
    places apart. Attention for drawing is the mean of the heads in the last layer.

    Args:
        backbone: any architecture with stages; built without classes.
        reduction: of the stage whose feature map is decoded; None for the coarsest.
        width: length of the vectors of words and places.
        layers: of the decoder.
        heads: of every attention.
        mlp_width: of the layers' MLP.
        dropout: on words and places, after every part of a layer, in its MLP, and on the weights of attentions.
        positions: of the words: a vector each that is learned, or sines and cosines.
        max_length: tokens of a caption at most, where positions are learned.
        tie_embeddings: a word's vector is its weights in the classifier, too (section 3.4).
        vocabulary_size: tokens.
        in_channels: channels of the images.
        image_size: height and width.

    Shape:
        images (B, C, H, W), normalised, and tokens (B, T), the start first -> logits (B, T, vocabulary_size)

    Raises:
        UserError: a number is out of range, the backbone has no such stage, or a caption is longer than ``max_length``.
    """

    layers: Any  # a ModuleList of DecoderLayer

    example: ClassVar[dict[str, Any]] = {"reduction": 8, "width": 16, "layers": 2, "heads": 2, "mlp_width": 24}

    def __init__(
        self,
        backbone: ArchitectureFactory,
        reduction: int | None = None,
        width: int = 512,
        layers: int = 6,
        heads: int = 8,
        mlp_width: int = 2048,
        dropout: float = 0.1,
        positions: Literal["learned", "sinusoidal"] = "learned",
        max_length: int = 64,
        tie_embeddings: bool = True,
        vocabulary_size: int = 10_000,
        in_channels: int = 3,
        image_size: Sequence[int] = (224, 224),
    ) -> None:
        check_captioner("CaptionTransformer", vocabulary_size, dropout, width, layers, heads, mlp_width, max_length)
        if width % heads or width % 4:
            raise UserError(f"CaptionTransformer: width must be a multiple of 4 and of the {heads} heads, not {width}")
        super().__init__(backbone, reduction, in_channels, image_size)
        self.width, self.max_length = width, max_length
        self.project = nn.Sequential(nn.Linear(self.stage.channels, width), nn.LayerNorm(width))
        self.words = nn.Embedding(vocabulary_size, width)
        nn.init.normal_(self.words.weight, std=width**-0.5)
        self.positions = nn.Embedding(max_length, width) if positions == "learned" else None
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(DecoderLayer(width, heads, mlp_width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.classifier = None if tie_embeddings else nn.Linear(width, vocabulary_size)
        self.bias = nn.Parameter(torch.zeros(vocabulary_size)) if tie_embeddings else None
        self.picture_state = tuple(f"place_{name}_{i}" for i in range(layers) for name in ("keys", "values"))

    def encode_maps(self, maps: Tensor) -> Tensor:
        """The vectors of the places, row by row, (B, N, width)."""
        places = self.project(maps.flatten(2).transpose(1, 2))
        return self.dropout(places + grid_sinusoids(maps.shape[2], maps.shape[3], self.width, places))

    # All words at once

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the next word after each token."""
        return self._decode(memory, tokens, looks=False)[0]

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and the weight of each place for each word, (B, T, N)."""
        return self._decode(memory, tokens, looks=True)

    def _decode(self, memory: Tensor, tokens: Tensor, looks: bool) -> tuple[Tensor, Tensor | None]:
        x, weights = self.embed(tokens), None
        for i, layer in enumerate(self.layers):
            x, weights = layer(x, layer.places.keys_values(memory), looks and i == len(self.layers) - 1)
        return self.say(x), weights

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Vectors of tokens (B, T), the first of which is at this position of its caption, (B, T, width).

        Raises:
            UserError: there are more than ``max_length`` positions.
        """
        words, last = self.words(tokens) * math.sqrt(self.width), first + tokens.shape[1]
        at = torch.arange(first, last, device=tokens.device)
        if self.positions is None:
            return self.dropout(words + sinusoids(at.to(words.dtype), self.width))
        if not torch.compiler.is_exporting() and last > self.max_length:
            raise UserError(f"CaptionTransformer: a caption has {last} tokens, max_length is {self.max_length}")
        return self.dropout(words + self.positions(at))

    def say(self, x: Tensor) -> Tensor:
        """Logits of the next word."""
        if self.classifier is None:
            return F.linear(self.norm(x), self.words.weight, self.bias)
        return self.classifier(self.norm(x))

    # One word a step

    def start(self, memory: Tensor) -> State:
        """Keys and values of each layer: of no words, (B, heads, 0, width / heads), and of the places."""
        state: State = {}
        for i, layer in enumerate(self.layers):
            keys, values = layer.places.keys_values(memory)
            state |= {f"keys_{i}": keys[:, :, :0], f"values_{i}": values[:, :, :0]}
            state |= {f"place_keys_{i}": keys, f"place_values_{i}": values}
        return state

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the next word; keys and values have one word more."""
        x, after = self.embed(tokens[:, None], state["keys_0"].shape[2]), dict(state)
        for i, layer in enumerate(self.layers):
            past: Pair = (state[f"keys_{i}"], state[f"values_{i}"])
            places: Pair = (state[f"place_keys_{i}"], state[f"place_values_{i}"])
            x, (keys, values), weights = layer.step(x, past, places, i == len(self.layers) - 1)
            after |= {f"keys_{i}": keys, f"values_{i}": values}
            if weights is not None:
                after["attention"] = weights[:, 0]
        return self.say(x)[:, 0], after
