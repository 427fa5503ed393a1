"""DiT. Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023.

A vision transformer on patches of a noisy image or latent. Time and class give each block its scales, shifts and gates
(adaLN-Zero, section 3.2); the gates and the output start at zero, so that each block is at first the identity.

Deviations: it predicts one value per input value, without the variances that the paper's network predicts beside them;
images whose sides the patch does not divide are extended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, check_numbers
from zoo.architectures.conditioning import TimeAndClass, padded
from zoo.errors import UserError

FREQUENCIES = 256  # of the time's sinusoids, in the authors' code


class DiT(Architecture):
    """A transformer that is told a time and, optionally, a class; as it stands DiT-S/2.

    The paper's sizes (width, depth, heads): S 384, 12, 6; B 768, 12, 12; L 1024, 24, 16; XL 1152, 28, 16.

    Args:
        num_classes: 0 for none.
        in_channels: channels of the images or latents.
        width: of a token; a multiple of 4 and of heads.
        depth: blocks.
        heads: of self-attention.
        patch: pixels along a patch's side.

    Shape:
        x_t (B, C, H, W), t (B,), labels (B,) or None -> (B, C, H, W)

    Raises:
        UserError: an argument is out of range.
    """

    roles: ClassVar[tuple[str, ...]] = ("denoiser",)
    example: ClassVar[dict[str, Any]] = {"width": 16, "depth": 2, "heads": 2, "patch": 4}

    def __init__(
        self,
        num_classes: int = 0,
        in_channels: int = 3,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch: int = 2,
    ) -> None:
        super().__init__()
        check_numbers("DiT", num_classes, in_channels, width)
        if depth < 1 or heads < 1 or patch < 1 or width % 4 or width % heads:
            raise UserError("DiT: width must be a multiple of 4 and of heads; depth, heads and patch at least 1")
        self.patch = patch
        self.told = TimeAndClass(num_classes, FREQUENCIES, width)
        self.first = nn.Conv2d(in_channels, width, patch, patch)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.modulate = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, in_channels * patch**2)
        self._initialise()

    def _initialise(self) -> None:
        """As in the authors' code: Xavier's uniform weights, N(0, 0.02²) for what is told, zeros at gates and end."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # each has one
        for name, weight in self.named_parameters():
            if name.startswith("told.") and name.endswith("weight"):
                nn.init.normal_(weight, std=0.02)
            if name.endswith("modulate.weight") or name == "last.weight":
                nn.init.zeros_(weight)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the task trains it to predict."""
        told = F.silu(self.told(t, labels))
        maps = self.first(padded(x_t, self.patch))
        height, width = maps.shape[2:]
        tokens = maps.flatten(2).transpose(1, 2) + places(height, width, maps.shape[1]).to(maps)
        for block in self.blocks:
            tokens = block(tokens, told)
        shift, scale = self.modulate(told)[:, None].chunk(2, 2)
        values = self.last(torch.addcmul(shift, normalised(tokens), 1 + scale)).transpose(1, 2)
        found = F.pixel_shuffle(values.unflatten(2, (height, width)), self.patch)
        return found[..., : x_t.shape[2], : x_t.shape[3]]


class Block(nn.Module):
    """Self-attention and an MLP, each normalised, scaled and shifted before, and gated behind, by what is told."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulate = nn.Linear(width, 6 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, told: Tensor) -> Tensor:
        """Tokens (B, N, width), told (B, width) -> (B, N, width)."""
        first, second = self.modulate(told)[:, None].unflatten(2, (2, 3, -1)).unbind(2)
        tokens = _gated(tokens, first, self._attention)
        return _gated(tokens, second, self.mlp)

    def _attention(self, tokens: Tensor) -> Tensor:
        split = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(*split.unbind()).transpose(1, 2).flatten(2))


def _gated(tokens: Tensor, told: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
    shift, scale, gate = told.unbind(2)
    return torch.addcmul(tokens, gate, part(torch.addcmul(shift, normalised(tokens), 1 + scale)))


def normalised(tokens: Tensor) -> Tensor:
    """Layer normalisation without parameters."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)


def places(height: int, width: int, size: int) -> Tensor:
    """Sinusoids of the places of a grid, (1, height · width, size): a half for the column, a half for the row."""
    frequencies = 10_000 ** (-torch.arange(size // 4, dtype=torch.float64) / (size // 4))
    rows, columns = torch.arange(height).double(), torch.arange(width).double()
    row, column = (torch.outer(at, frequencies) for at in (rows, columns))
    row, column = (torch.cat([angle.sin(), angle.cos()], 1) for angle in (row, column))
    grid = torch.cat([column[None].expand(height, -1, -1), row[:, None].expand(-1, width, -1)], 2)
    return grid.reshape(1, height * width, size)
