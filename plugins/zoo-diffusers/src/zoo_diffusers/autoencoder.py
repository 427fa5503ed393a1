"""The library's variational autoencoder, in two halves as the zoo's task has them.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022, section 3.1 and appendix G. The
network is diffusers' ``AutoencoderKL``; its latent is a map of several channels. Deviations: the task's likelihood
takes the place of the losses in the paper, and sides that are not a multiple of the total downsampling are extended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffusers import AutoencoderKL
from torch import Tensor

from zoo.architectures.base import Architecture, first_line, should_load_pretrained
from zoo.architectures.conditioning import padded
from zoo.errors import UserError
from zoo_diffusers.configs import fields, load, made, quiet

TAKEN = ("sample_size", "in_channels", "out_channels")
FREE = ("sample_size", "scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast")
EXAMPLE: dict[str, Any] = {
    "config": {
        "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
        "latent_channels": 2,
        "norm_num_groups": 4,
    }
}


class Half(Architecture):
    """Base of both halves.

    Attributes:
        other: layers of the library's network that the other half has.
        free: fields of the configuration that are of the other half.
        network: the library's, without these.
        step: image pixels per pixel of the latent, along one side.
    """

    licence: ClassVar[str | None] = "that of the weights"
    example: ClassVar[dict[str, Any]] = EXAMPLE
    other: ClassVar[tuple[str, ...]]
    free: ClassVar[tuple[str, ...]]
    network: Any

    def build(
        self, config: Mapping[str, Any], pretrained: str | None, in_channels: int, image_size: Sequence[int]
    ) -> None:
        """Make the half, and load its weights, if there are to be any; for the constructor.

        Raises:
            UserError: the library can't make it, or the weights do not fit.
        """
        given = {"in_channels": in_channels, "out_channels": in_channels, "sample_size": max(image_size)}
        self.network = made(type(self).__name__, AutoencoderKL, config, TAKEN, **given)
        for name in self.other:
            setattr(self.network, name, None)
        if pretrained is not None and should_load_pretrained():
            load(self.network, pretrained, "vae", (*FREE, *self.free), self.other)
        self.image_size = image_size[0], image_size[1]
        self.step = 2 ** (len(self.network.config.block_out_channels) - 1)
        sides = (-(-side // self.step) for side in image_size)
        self.latent_shape = (self.network.config.latent_channels, *sides)


def whole(encoder: Half, decoder: Half) -> Any:
    """The library's network of two halves.

    Raises:
        UserError: they are not halves of one.
    """
    of_decoder = {name: decoder.network.config[name] for name in KLEncoder.free}
    made_of = {**encoder.network.config, **of_decoder}
    parts = {**encoder.network.state_dict(), **decoder.network.state_dict()}
    try:
        with quiet():
            found: Any = AutoencoderKL(**{name: made_of[name] for name in fields(AutoencoderKL)})
        found.load_state_dict(parts)
    except Exception as error:  # of many types
        raise UserError(f"encoder and decoder are not halves of one AutoencoderKL: {first_line(error)}") from error
    return found.eval()


class KLEncoder(Half):
    """A Gaussian of the latent for each image: the encoder of ``AutoencoderKL``.

    Args:
        config: fields of the library's ``AutoencoderKL`` that differ from its defaults; the same for the decoder.
        pretrained: weights: a folder that the library wrote, or a repository on huggingface.co.
        in_channels: channels of the images.
        image_size: height and width.

    Shape:
        images (B, C, H, W) in [-1, 1] -> mean and logarithm of the variance, both (B, latent_channels, h, w)

    Raises:
        UserError: a field is unknown or wrong, or the weights do not fit.
    """

    roles: ClassVar[tuple[str, ...]] = ("encoder",)
    other = ("decoder", "post_quant_conv")
    free = ("out_channels", "up_block_types")

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        pretrained: str | None = None,
        in_channels: int = 3,
        image_size: Sequence[int] = (32, 32),
    ) -> None:
        super().__init__()
        self.build(config or {}, pretrained, in_channels, image_size)

    def forward(self, images: Tensor, labels: None = None) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance, which is bounded as the library does."""
        mean, log_variance = self.network._encode(padded(images, self.step)).chunk(2, 1)
        return mean, log_variance.clamp(-30.0, 20.0)


class KLDecoder(Half):
    """The parameters of an image's likelihood for each latent: the decoder of ``AutoencoderKL``.

    Args:
        config: fields of the library's ``AutoencoderKL`` that differ from its defaults; the same for the encoder.
        pretrained: weights: a folder that the library wrote, or a repository on huggingface.co.
        in_channels: of the result: the images' channels, times the parameters that the likelihood has.
        image_size: height and width.

    Shape:
        latents (B, latent_channels, h, w) -> (B, C, H, W)

    Raises:
        UserError: a field is unknown or wrong, or the weights do not fit.
    """

    roles: ClassVar[tuple[str, ...]] = ("decoder",)
    other = ("encoder", "quant_conv")
    free = ("in_channels", "down_block_types")

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        pretrained: str | None = None,
        in_channels: int = 3,
        image_size: Sequence[int] = (32, 32),
    ) -> None:
        super().__init__()
        self.build(config or {}, pretrained, in_channels, image_size)

    def forward(self, z: Tensor, labels: None = None) -> Tensor:
        """The parameters, cut to the images' size."""
        height, width = self.image_size
        return self.network._decode(z).sample[..., :height, :width]
