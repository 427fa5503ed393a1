"""GIT. Wang et al., "GIT: A Generative Image-to-text Transformer for Vision and Language", 2022: one transformer over
the vectors of a picture, which attend to each other, and behind them those of the words, which attend to the picture
and to the words before.

The network is transformers' ``GitForCausalLM``. Deviation from its defaults: no token is left out of learning as
padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import GitForCausalLM, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from zoo.architectures.base import should_load_pretrained
from zoo.architectures.captioner import State
from zoo_transformers.captioner import LibraryCaptioner, named, of_names, pairs, repeated
from zoo_transformers.configs import NO_TOKENS, configuration


class GIT(LibraryCaptioner):
    """One transformer over the vectors of a picture and, behind them, of the words.

    By default of the size of ``microsoft/git-base-coco``: 176,619,066 parameters at 30,522 tokens. The memory is the
    picture's vectors before the transformer, which takes them together with the words.

    Args:
        vision: fields of the library's ``GitVisionConfig`` that differ from its defaults, such as ``hidden_size``.
            ``image_size`` is that of the position embeddings, by default of the images; images of other sizes get them
            interpolated.
        text: fields of ``GitConfig``.
        pretrained: weights: a repository on huggingface.co, such as ``microsoft/git-base-coco`` with
            ``vision: {image_size: 224}``, downloaded once, or a folder that ``save_pretrained`` wrote. The data need
            their tokeniser, which ``zoo tokenizer`` writes.
        vocabulary_size: tokens.
        image_size: height and width.

    Shape:
        images (B, 3, H, W), normalised, and tokens (B, T), the start first -> logits (B, T, vocabulary_size)

    Raises:
        UserError: a field is unknown or wrong, or the weights do not fit.
    """

    library = GitForCausalLM
    licence: ClassVar[str | None] = "MIT (Microsoft's weights)"
    example: ClassVar[dict[str, Any]] = {
        "vision": {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 8,
        },
        "text": {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 40,
        },
    }

    def __init__(
        self,
        vision: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        pretrained: str | None = None,
        vocabulary_size: int = 30_522,
        image_size: Sequence[int] = (224, 224),
    ) -> None:
        super().__init__()
        eyes = configuration("vision", "git_vision_model", vision or {}, image_size=max(image_size))
        whole = {"vision_config": eyes.to_dict(), "vocab_size": vocabulary_size}
        config: Any = configuration("text", "git", text or {}, **whole, **NO_TOKENS)
        self.build(lambda: GitForCausalLM(config), image_size)
        self.picture_state = tuple(f"place_{n}_{i}" for i in range(self.layers) for n in ("keys", "values"))
        if pretrained is not None:
            self.mean, self.std = tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD)
            if should_load_pretrained():
                self.load(pretrained, vocabulary_size)

    @property
    def language(self) -> PreTrainedModel:
        """All of it."""
        return self.network

    @property
    def configs(self) -> dict[str, Any]:
        """Of the picture's part, and of the whole."""
        return {"vision": self.network.config.vision_config, "text": self.network.config}

    @property
    def layers(self) -> int:
        """Layers of the transformer over picture and words."""
        return self.network.config.num_hidden_layers

    def places(self, image_size: Sequence[int]) -> tuple[int, int]:
        """The patches."""
        patch = self.network.config.vision_config.patch_size
        return image_size[0] // patch, image_size[1] // patch

    def encode(self, images: Tensor) -> Tensor:
        """Vectors of the class token and of each patch, (B, 1 + patches, width)."""
        git, side = self.network.git, self.network.config.vision_config.image_size
        other = tuple(images.shape[2:]) != (side, side)
        return git.visual_projection(git.image_encoder(images, interpolate_pos_encoding=other).last_hidden_state)

    # All words at once

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the next word after each token."""
        words = self._embed(tokens, 0)
        mask = _mask(memory.shape[1], tokens.shape[1], memory)
        hidden = self.network.git.encoder(torch.cat([memory, words], 1), attention_mask=mask).last_hidden_state
        return self.network.output(hidden[:, memory.shape[1] :])

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and the last layer's mean weight over its heads, of the places alone, (B, T, N)."""
        places = memory.shape[1]
        with self._watched() as seen:
            logits = self.decode(memory, tokens)
        return logits, _of_places(seen[0][:, :, places:], places)

    def _embed(self, tokens: Tensor, first: int) -> Tensor:
        """Vectors of tokens, the first of which is at this position of its caption."""
        at = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        return self.network.git.embeddings(tokens, position_ids=at[None])

    @contextmanager
    def _watched(self) -> Iterator[list[Tensor]]:
        """The weights of the last layer's attention, (B, heads, from, to), of a pass within."""
        seen: list[Tensor] = []
        last = self.network.git.encoder.layer[-1].attention.self
        handle = last.register_forward_hook(lambda module, arguments, output: seen.append(output[1]))
        try:
            yield seen
        finally:
            handle.remove()

    # One word a step

    def start(self, memory: Tensor) -> State:
        """Keys and values of the picture, of each layer, and of no words."""
        cache = DynamicCache()
        self.network.git.encoder(memory, attention_mask=None, cache=cache)
        words = [(keys[:, :, :0], values[:, :, :0]) for keys, values in pairs(cache)]
        return named("", words) | named("place_", pairs(cache))

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the next word; keys and values have one word more."""
        places, words = of_names("place_", state, self.layers), of_names("", state, self.layers)
        past = [
            tuple(torch.cat([repeated(one, tokens.shape[0]), other], 2) for one, other in zip(seen, said, strict=True))
            for seen, said in zip(places, words, strict=True)
        ]
        cache, count = DynamicCache(past), places[0][0].shape[2]
        with self._watched() as watched:
            word = self._embed(tokens[:, None], words[0][0].shape[2])
            hidden = self.network.git.encoder(word, attention_mask=None, cache=cache).last_hidden_state
        said = [(keys[:, :, count:].contiguous(), values[:, :, count:].contiguous()) for keys, values in pairs(cache)]
        attention = _of_places(watched[0], count)[:, 0]
        return self.network.output(hidden[:, 0]), state | named("", said) | {"attention": attention}


def _mask(places: int, words: int, like: Tensor) -> Tensor:
    """0 where a vector (rows) may attend to another (columns), else the least number, (1, 1, N + T, N + T)."""
    at = torch.arange(places + words, device=like.device)
    allowed = (at[None] < places) | ((at[:, None] >= places) & (at[None] <= at[:, None]))
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, torch.finfo(like.dtype).min)[None, None]


def _of_places(weights: Tensor, places: int) -> Tensor:
    """The mean over the heads of the weights of the first ``places`` vectors, scaled to sum 1, (B, T, N)."""
    weights = weights[..., :places].mean(1)
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
