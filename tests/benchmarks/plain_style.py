"""Textures and styles in plain torch, as one would write them for one picture: what ``style.py`` measures against."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def feature_maps(network: nn.Module, images: Tensor, layers: Sequence[str], margin: int = 32) -> list[Tensor]:
    """Maps of normalised images by hooks, without the mirrored margin."""
    found: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: found.__setitem__(name, out.clone())  # what follows may be in place
        )
        for name in layers
    ]
    height = images.shape[2] + 2 * margin
    network(F.pad(images * 2 - 1, [margin] * 4, mode="reflect"))
    for handle in handles:
        handle.remove()
    cuts = [round(found[name].shape[2] * margin / height) for name in layers]
    return [found[name][..., cut:-cut, cut:-cut] for name, cut in zip(layers, cuts, strict=True)]


def gram(maps: Tensor) -> Tensor:
    """F F^T / N."""
    f = maps.flatten(2)
    return f @ f.mT / f.shape[2]


def neighbours(images: Tensor) -> Tensor:
    """Correlations of the pixels of 3×3 patches and a constant."""
    columns = F.unfold(images - 0.5, 3)
    columns = torch.cat([columns, torch.full_like(columns[:, :1], 0.2)], 1)
    return columns @ columns.mT / columns.shape[2]


def share(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance as a share of b's."""
    return (a - b).square().sum() / b.square().sum()


def variation(images: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels."""
    return images.diff(dim=2).square().mean() + images.diff(dim=3).square().mean()


def texture_loss(network: nn.Module, texture: Tensor, layers: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """Distance of an image from a texture."""
    with torch.no_grad():
        target, near = [gram(f) for f in feature_maps(network, texture, layers)], neighbours(texture)
        white = torch.linalg.inv(torch.linalg.cholesky(near + 1e-3 * torch.eye(28).to(near)))

    def loss(image: Tensor) -> Tensor:
        maps = feature_maps(network, image, layers)
        apart = sum(share(gram(f), a) for f, a in zip(maps, target, strict=True)) / len(layers)
        patches = (white @ (neighbours(image) - near) @ white.mT).square().sum() / 28
        return apart + 0.15 * patches + 15 * (image - image.clamp(0, 1)).square().mean()

    return loss


def style_loss(
    network: nn.Module, content: Tensor, style: Tensor, layers: Sequence[str], kept: str
) -> Callable[[Tensor], Tensor]:
    """Distance of an image from a style and a content, whose layer is one of the style's."""
    place = list(layers).index(kept)
    with torch.no_grad():
        target, near = [gram(f) for f in feature_maps(network, style, layers)], neighbours(style)
        white = torch.linalg.inv(torch.linalg.cholesky(near + 1e-3 * torch.eye(28).to(near)))
        wanted, smooth = feature_maps(network, content, layers)[place], variation(content)
        spread = (wanted - wanted.mean((2, 3), keepdim=True)).square().sum()

    def loss(image: Tensor) -> Tensor:
        maps = feature_maps(network, image, layers)
        apart = sum(share(gram(f), a) for f, a in zip(maps, target, strict=True)) / len(layers)
        patches = (white @ (neighbours(image) - near) @ white.mT).square().sum() / 28
        away = (maps[place] - wanted).square().sum() / spread
        order = 0.05 * variation(image) / smooth + 15 * (image - image.clamp(0, 1)).square().mean()
        return apart + 0.3 * away + 0.1 * patches + order

    return loss


def descend(image: Tensor, loss: Callable[[Tensor], Tensor]) -> Callable[[], float]:
    """A step of ten iterations of L-BFGS."""
    image.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [image], max_iter=10, history_size=10, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(image)
        value.backward()
        return value

    return lambda: optimizer.step(closure).item()
