"""The library's U-Net of diffusion models: Ho et al. 2020, Song et al. 2021, Dhariwal and Nichol 2021.

The network is diffusers' ``UNet2DModel``, which becomes each of the papers' by its configuration. Deviations: sides
that are not a multiple of the total downsampling are extended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers import UNet2DModel
from torch import Tensor

from zoo.architectures.conditioning import padded
from zoo_diffusers.denoiser import LibraryDenoiser


class UNet2D(LibraryDenoiser):
    """A U-Net that is told a time and, optionally, a class.

    Args:
        config: fields of the library's ``UNet2DModel`` that differ from its defaults, such as ``block_out_channels``,
            ``down_block_types`` and ``norm_num_groups``.
        pretrained: weights: a folder that the library or ``zoo diffusers write`` wrote, or a repository on
            huggingface.co, such as ``google/ddpm-cifar10-32``.
        num_classes: 0 for none; else the class embedding has one more, the last, for "no class".
        in_channels: channels of the images.
        image_size: height and width.
        timestep: factor and offset that make the library's step of a time.

    Shape:
        x_t (B, C, H, W), t (B,), labels (B,) or None -> (B, C, H, W)

    Raises:
        UserError: a field is unknown or wrong, or the weights do not fit.
    """

    library = UNet2DModel
    folder = "unet"
    taken = (
        "sample_size",
        "in_channels",
        "num_class_embeds",
        "class_embed_type",
        "time_embedding_type",
        "num_train_timesteps",
    )
    example: ClassVar[dict[str, Any]] = {
        "config": {
            "block_out_channels": [8, 16],
            "layers_per_block": 1,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
            "norm_num_groups": 4,
        }
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
        classes = num_classes + 1 if num_classes else None
        self.build(
            config or {}, num_classes, in_channels, timestep, sample_size=list(image_size), num_class_embeds=classes
        )
        self.load(pretrained)

    def fitted(self, x: Tensor) -> Tensor:
        """Multiples of what all levels together shrink by."""
        return padded(x, 2 ** (len(self.network.config.block_out_channels) - 1))
