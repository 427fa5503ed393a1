"""The library's DiT: Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023.

The network is diffusers' ``DiTTransformer2DModel``. Deviations from it: gates, modulation and output start at zero
(adaLN-Zero, section 3.2), which the library leaves to weights that are loaded; labels are not dropped within the
network, since the tasks drop them; and images that are not square are extended, since the library takes squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers import DiTTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import UserError
from zoo_diffusers.denoiser import LibraryDenoiser


class DiTTransformer2D(LibraryDenoiser):
    """A transformer that is told a time and a class; as it stands DiT-XL/2.

    Args:
        config: fields of the library's ``DiTTransformer2DModel`` that differ from its defaults, such as ``num_layers``,
            ``num_attention_heads`` and ``attention_head_dim``.
        pretrained: weights: a folder that the library or ``zoo diffusers write`` wrote, or a repository on
            huggingface.co, such as ``facebook/DiT-XL-2-256/transformer``.
        num_classes: 0 for none; the class embedding has one more, the last, for "no class".
        in_channels: channels of the images or latents.
        image_size: height and width.
        timestep: factor and offset that make the library's step of a time.

    Shape:
        x_t (B, C, H, W), t (B,), labels (B,) or None -> (B, C, H, W)

    Raises:
        UserError: a field is unknown or wrong, or the weights do not fit.
    """

    library = DiTTransformer2DModel
    folder = "transformer"
    taken = ("sample_size", "in_channels", "num_embeds_ada_norm")
    example: ClassVar[dict[str, Any]] = {
        "config": {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "patch_size": 4}
    }

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        pretrained: str | None = None,
        num_classes: int = 0,
        in_channels: int = 3,
        image_size: Sequence[int] = (32, 32),
        timestep: Sequence[float] = (1000.0, 0.0),
    ) -> None:
        super().__init__()
        side = _side((config or {}).get("patch_size", 2), image_size)
        self.build(config or {}, num_classes, in_channels, timestep, sample_size=side, num_embeds_ada_norm=num_classes)
        self._begin()
        self.load(pretrained)

    def _begin(self) -> None:
        """Zeros at modulation, gates and end; no labels dropped."""
        network = self.network
        for layer in (network.proj_out_1, network.proj_out_2, *(b.norm1.linear for b in network.transformer_blocks)):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for block in network.transformer_blocks:
            block.norm1.emb.class_embedder.dropout_prob = 0.0

    def told(self, t: Tensor, labels: Tensor | None) -> Tensor | None:
        """Without classes, too, there is an embedding of "no class"."""
        found = super().told(t, labels)
        return t.new_zeros(len(t)).long() if found is None else found

    def fitted(self, x: Tensor) -> Tensor:
        """A square whose side the patch divides."""
        height, width = x.shape[2:]
        side = _side(self.network.config.patch_size, (height, width))
        if height == width == side:
            return x
        return F.pad(x, (0, side - width, 0, side - height), mode="replicate")


def _side(patch: int, image_size: Sequence[int]) -> int:
    """Of the smallest square of whole patches that has room for an image.

    Raises:
        UserError: the patch is not a number of pixels.
    """
    if not isinstance(patch, int) or patch < 1:
        raise UserError(f"config: patch_size is a number of pixels, not {patch}")
    return math.ceil(max(image_size) / patch) * patch
