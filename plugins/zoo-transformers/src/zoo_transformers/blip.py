"""BLIP. Li, Li, Xiong and Hoi, "BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language
Understanding and Generation", 2022: a vision transformer, and a BERT whose layers attend to it, as a language model.

The network is transformers' ``BlipForConditionalGeneration``. Deviations from its defaults: the vision transformer's
random weights have a standard deviation of 0.02; the library's configuration says 1e-10, which learns nothing from
random weights; and no token is left out of learning as padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from transformers import BlipConfig, BlipForConditionalGeneration, PreTrainedModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from zoo.architectures.base import should_load_pretrained
from zoo_transformers.captioner import CrossCaptioner
from zoo_transformers.configs import NO_TOKENS, configuration


class BLIP(CrossCaptioner):
    """A vision transformer, and a BERT whose layers attend to it.

    By default of the size of ``Salesforce/blip-image-captioning-base``: 223,971,644 parameters at 30,524 tokens.

    Args:
        vision: fields of the library's ``BlipVisionConfig`` that differ from its defaults, such as ``hidden_size``.
            ``image_size`` is that of the position embeddings, by default of the images; images of other sizes get them
            interpolated.
        text: fields of ``BlipTextConfig``.
        pretrained: weights: a repository on huggingface.co, such as ``Salesforce/blip-image-captioning-base`` with
            ``vision: {image_size: 384}``, downloaded once, or a folder that ``save_pretrained`` wrote. The data need
            their tokeniser, which ``zoo tokenizer`` writes.
        vocabulary_size: tokens.
        image_size: height and width.

    Shape:
        images (B, 3, H, W), normalised, and tokens (B, T), the start first -> logits (B, T, vocabulary_size)

    Raises:
        UserError: a field is unknown or wrong, or the weights do not fit.
    """

    library = BlipForConditionalGeneration
    licence: ClassVar[str | None] = "BSD-3-Clause (Salesforce's weights)"
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
        vocabulary_size: int = 30_524,
        image_size: Sequence[int] = (384, 384),
    ) -> None:
        super().__init__()
        own = {"image_size": max(image_size), "initializer_range": 0.02}
        eyes = configuration("vision", "blip_vision_model", vision or {}, **own)
        words = configuration("text", "blip_text_model", text or {}, vocab_size=vocabulary_size, **NO_TOKENS)
        config = BlipConfig(vision_config=eyes.to_dict(), text_config=words.to_dict())
        self.build(lambda: BlipForConditionalGeneration(config), image_size)
        if pretrained is not None:
            self.mean, self.std = tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD)
            if should_load_pretrained():
                self.load(pretrained, vocabulary_size)

    @property
    def language(self) -> PreTrainedModel:
        """The text decoder."""
        return self.network.text_decoder

    @property
    def configs(self) -> dict[str, Any]:
        """Of both parts."""
        return {"vision": self.network.config.vision_config, "text": self.network.config.text_config}

    @property
    def memory_width(self) -> int:
        """The vision transformer's."""
        return self.network.config.vision_config.hidden_size

    def places(self, image_size: Sequence[int]) -> tuple[int, int]:
        """The patches."""
        patch = self.network.config.vision_config.patch_size
        return image_size[0] // patch, image_size[1] // patch

    def encode(self, images: Tensor) -> Tensor:
        """Vectors of the class token and of each patch, (B, 1 + patches, width)."""
        side = self.network.config.vision_config.image_size
        other = tuple(images.shape[2:]) != (side, side)
        return self.network.vision_model(images, interpolate_pos_encoding=other).last_hidden_state
