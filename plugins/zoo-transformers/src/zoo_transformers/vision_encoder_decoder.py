"""A vision transformer and a language model that attends to it, each of a family of the library's.

Such are TrOCR (Li et al., "TrOCR: Transformer-based Optical Character Recognition with Pre-trained Models", 2021) and
the captioners of a ViT and GPT-2. The network is transformers' ``VisionEncoderDecoderModel``. Deviations from its
defaults: the language model gives its weights of attention (``eager``), and it learns the padding's vector, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel, VisionEncoderDecoderModel
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from zoo.architectures.base import should_load_pretrained
from zoo.errors import UserError
from zoo_transformers.captioner import CrossCaptioner, takes
from zoo_transformers.configs import NO_TOKENS, configuration, own_fields

MOST_EXTRA = 2  # class and distillation token


class VisionEncoderDecoder(CrossCaptioner):
    """A vision transformer and a language model that attends to it, each of a family of the library's.

    By default a ViT-Base and GPT-2, of the sizes of ``nlpconnect/vit-gpt2-image-captioning``: 239,195,904 parameters at
    50,257 tokens.

    Args:
        encoder: the library's name of a family of vision transformers, such as ``vit``, ``deit`` or ``swin``.
        encoder_options: fields of its configuration that differ from its defaults, such as ``hidden_size``.
            ``image_size`` is that of the position embeddings, by default the larger of the images' sides; images of
            other sizes get them interpolated.
        decoder: of a family of language models with cross-attention, such as ``gpt2``, ``bert`` or ``trocr``.
        decoder_options: fields of its configuration.
        pretrained: weights: a repository on huggingface.co, such as ``nlpconnect/vit-gpt2-image-captioning`` with
            ``encoder_options: {image_size: 224}``, downloaded once, or a folder that ``save_pretrained`` wrote. The
            data need their tokeniser, which ``zoo tokenizer`` writes.
        vocabulary_size: tokens.
        image_size: height and width.

    Shape:
        images (B, 3, H, W), normalised, and tokens (B, T), the start first -> logits (B, T, vocabulary_size)

    Raises:
        UserError: a family or a field is unknown or wrong, or the weights do not fit.
    """

    library = VisionEncoderDecoderModel
    licence: ClassVar[str | None] = "each repository's own"
    example: ClassVar[dict[str, Any]] = {
        "encoder": "vit",
        "encoder_options": {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 8,
        },
        "decoder_options": {"n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 40},
    }

    def __init__(
        self,
        encoder: str = "vit",
        encoder_options: dict[str, Any] | None = None,
        decoder: str = "gpt2",
        decoder_options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        vocabulary_size: int = 50_257,
        image_size: Sequence[int] = (224, 224),
    ) -> None:
        super().__init__()
        eyes = configuration("encoder_options", encoder, encoder_options or {}, image_size=max(image_size))
        role = {"is_decoder": True, "add_cross_attention": True, "use_cache": False}
        options = decoder_options or {}
        config = configuration("decoder_options", decoder, options, vocab_size=vocabulary_size, **role, **NO_TOKENS)
        if not {"add_cross_attention", "cross_attention_hidden_size"} & {*own_fields(config)}:
            raise UserError(f"decoder: {decoder} has no attention to a picture; take gpt2, bert or trocr")
        self.build(lambda: _joined(eyes, config), image_size)
        if pretrained is not None:
            self.mean, self.std = _statistics(eyes)
            if should_load_pretrained():
                self.load(pretrained, vocabulary_size)

    @property
    def language(self) -> PreTrainedModel:
        """The decoder."""
        return self.network.decoder

    @property
    def configs(self) -> dict[str, Any]:
        """Of both parts."""
        config = self.network.config
        return {"encoder_options": config.encoder, "decoder_options": config.decoder}

    @property
    def memory_width(self) -> int:
        """The width that the decoder attends to."""
        config = self.network.config
        other = getattr(config.decoder, "cross_attention_hidden_size", None)
        return config.decoder.hidden_size if other is None else other

    def places(self, image_size: Sequence[int]) -> tuple[int, int]:
        """The patches, or what a hierarchy has merged them to.

        Raises:
            UserError: the memory is not of a grid.
        """
        patch = self.network.config.encoder.patch_size
        with torch.no_grad():
            count = self.encode(torch.zeros(1, 3, *image_size)).shape[1]
        for merged in range(8):
            grid = (image_size[0] // (patch << merged), image_size[1] // (patch << merged))
            if 0 <= count - grid[0] * grid[1] <= MOST_EXTRA:
                self.extra_places = count - grid[0] * grid[1]
                return grid
        raise UserError(f"{count} places are not a grid")

    def encode(self, images: Tensor) -> Tensor:
        """The encoder's vectors, projected to the decoder's width if the two differ, (B, N, width)."""
        encoder, options = self.network.encoder, {}
        size = encoder.config.image_size
        if takes(encoder.forward, "interpolate_pos_encoding"):
            side = [size, size] if isinstance(size, int) else list(size)
            options["interpolate_pos_encoding"] = list(images.shape[2:]) != side
        memory = encoder(images, **options).last_hidden_state
        project = getattr(self.network, "enc_to_dec_proj", None)
        return memory if project is None else project(memory)


def _joined(encoder: Any, decoder: Any) -> VisionEncoderDecoderModel:
    return VisionEncoderDecoderModel(
        encoder=AutoModel.from_config(encoder),
        decoder=AutoModelForCausalLM.from_config(decoder, attn_implementation="eager"),
    )


def _statistics(config: Any) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std by which the library prepares images for this family."""
    processors: Any = IMAGE_PROCESSOR_MAPPING.get(type(config), None) or {}
    for processor in processors.values():
        if getattr(processor, "image_mean", None):
            return tuple(processor.image_mean), tuple(processor.image_std)
    return None, None
