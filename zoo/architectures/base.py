"""What every architecture is: a network with ``forward``, that states its shapes and lends its feature maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from zoo.errors import UserError


class Stage(NamedTuple):
    """Where a backbone's features come out.

    Args:
        layer: the name of a submodule, as in ``named_modules``.
        channels: channels of its output.
        reduction: image pixels to a cell of the map, along one side.
    """

    layer: str
    channels: int
    reduction: int


class _Enough(Exception):  # noqa: N818  ends a forward pass after the last layer that was asked for
    pass


class _OfBackbone:
    """What the weights were trained on; a network that stands on a backbone has the backbone's.

    A class or an instance that states its own value shadows it, since this is no data descriptor.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, network: Architecture | None, owner: type) -> Any:
        backbone = None if network is None else network.find_backbone()
        return None if backbone is None else getattr(backbone, self.name)


class Architecture(LightningModule, ABC):
    """Base of every architecture: built from plain arguments and factories, knowing nothing of trainers or data sets.

    Attributes:
        roles: how it is called (``classifier``, ``segmenter``, ``detector``, ``generator``, ``discriminator``,
            ``denoiser``, ``captioner``, ``transform``, ``stylizer``, ``pattern``); the conformance kit tests it for
            these.
        fixed_channels: the number of channels where it can't be chosen (grey images are then repeated), else None.
        mean, std: the normalisation that its weights were trained with, by channel of images in [0, 1]; None where
            the data's own is right. These three are the backbone's (``find_backbone``) where neither the class nor
            its constructor states others.
        latent_shape: of a sample's noise, where it is a generator.
        may_change: arguments that a resumed run may change, since the network computes the same.
        example: arguments of a small instance, for tests.
        licence: of weights that it can load, where it can.
    """

    roles: ClassVar[tuple[str, ...]] = ("classifier",)
    may_change: ClassVar[tuple[str, ...]] = ()
    example: ClassVar[dict[str, Any]] = {}
    licence: ClassVar[str | None] = None
    latent_shape: tuple[int, ...] = ()
    fixed_channels: int | None = cast(Any, _OfBackbone())
    mean: tuple[float, ...] | None = cast(Any, _OfBackbone())
    std: tuple[float, ...] | None = cast(Any, _OfBackbone())

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output; see the role's call in the documentation."""

    @classmethod
    def pretrained_classes(cls, arguments: Mapping[str, Any]) -> list[str]:
        """Names of the classes that ready weights tell apart, in the order of the output; empty without such weights.

        Args:
            arguments: those that the network is to be built with, and which ask for the weights; defaults left out.
        """
        return []

    def find_backbone(self) -> Architecture | None:
        """The network that it stands on, and whose view of the images it shares: the first architecture that it holds.

        A network that holds several, of which another one sees the images, overrides it.
        """
        return next((module for module in self.children() if isinstance(module, Architecture)), None)

    @property
    def stages(self) -> list[Stage]:
        """The layers that a backbone's features come from, finest first.

        Raises:
            UserError: this network states none.
        """
        raise UserError(f"{type(self).__name__} states no stages, so it can't serve as a backbone")

    def features(self, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Outputs of the named layers, in this order, as each was when its layer had run; stops after the last one.

        What comes behind a layer may write into its output (an in-place activation, a residual sum): the outputs that
        are given back are copies, and are not changed by it.

        Args:
            images: as ``forward`` takes them.
            layers: names as in ``named_modules``; left out, those of ``stages``.

        Raises:
            UserError: there is no layer of that name, or ``forward`` does not call it.
        """
        names = [stage.layer for stage in self.stages] if layers is None else list(layers)
        found = capture(lambda: self._run_layers(images), find_layers(self, names))
        if missing := [name for name in names if name not in found]:
            raise UserError(f"{type(self).__name__} has a layer {missing[0]}, but its forward does not call it")
        return {name: found[name] for name in names}

    def _run_layers(self, images: Tensor) -> None:
        """The pass that ``features`` listens to; a network overrides it whose ``forward`` is made of ``capture``."""
        self._call_impl(images)  # interpreted: a compiled network would not run hooks that came later


def find_layers(network: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The submodules of these names.

    Raises:
        UserError: there is no such submodule.
    """
    known = {name: module for name, module in network.named_modules() if name}
    if missing := [name for name in names if name not in known]:
        from zoo.registry import did_you_mean

        raise UserError(f"{type(network).__name__} has no layer {missing[0]}{did_you_mean(missing[0], list(known))}")
    return {name: known[name] for name in names}


def capture(run: Callable[[], Any], layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Outputs of the layers while ``run`` calls them, copied; it is ended after the last, but where it is exported."""
    found: dict[str, Tensor] = {}

    def hook(name: str, output: Tensor) -> None:
        enough = len(found | {name: output}) == len(layers) and not torch.compiler.is_exporting()
        found[name] = output if enough else output.clone()
        if enough:
            raise _Enough

    handles = [m.register_forward_hook(lambda _m, _a, out, n=n: hook(n, out)) for n, m in layers.items()]
    try:
        run()
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found


def parameter_count(network: nn.Module) -> int:
    """Number of learnt values."""
    return sum(p.numel() for p in network.parameters())


def output_shape(network: nn.Module, *shape: int) -> tuple[int, ...]:
    """Shape of the output for one input of this shape, without gradients and without touching running statistics."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        output = network(torch.zeros(1, *shape))
    network.train(was_training)
    return tuple(output.shape)


def scaled(channels: int, width: float) -> int:
    """Channels of a network that is narrower or wider; at least one."""
    return max(1, round(channels * width))


def check_numbers(name: str, num_classes: int, in_channels: int, width: float) -> None:
    """Refuse numbers that make no network.

    Raises:
        UserError: one of them is out of range.
    """
    if num_classes < 0 or in_channels < 1 or width <= 0:
        raise UserError(f"{name}: num_classes must be at least 0, in_channels at least 1, width above 0")


def check_size(name: str, images: Tensor, smallest: int) -> None:
    """Refuse images of which less than a pixel would be left.

    Raises:
        UserError: height or width is below ``smallest``.
    """
    height, width = images.shape[-2:]
    if height < smallest or width < smallest:
        raise UserError(f"{name} needs images of at least {smallest}×{smallest} pixels, not {height}×{width}")


_SKIP_PRETRAINED: ContextVar[bool] = ContextVar("skip_pretrained", default=False)


@contextmanager
def skip_pretrained() -> Iterator[None]:
    """Networks built in here get all their weights from a checkpoint, so none looks for pretrained ones."""
    token = _SKIP_PRETRAINED.set(True)
    try:
        yield
    finally:
        _SKIP_PRETRAINED.reset(token)


def should_load_pretrained() -> bool:
    """Whether a network that is to start from pretrained weights must find them now; see ``skip_pretrained``."""
    return not _SKIP_PRETRAINED.get()


def by_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Mean or std of other channels than the weights were trained on, to go with ``timm.models.adapt_input_conv``.

    That sums the filters of all colours for one channel, and repeats them in turn for several.
    """
    return (sum(values) / len(values),) if channels == 1 else tuple(values[i % len(values)] for i in range(channels))


def refuse_bad_size(network: nn.Module, name: str, channels: int, image_size: Sequence[int]) -> None:
    """Try one image of zeros, since a library's network says only in its forward that it can't take a size.

    Raises:
        UserError: it can't.
    """
    size = "×".join(map(str, image_size))
    if len(image_size) != 2:
        raise UserError(f"{name}: image_size is height and width, not {list(image_size)}")
    try:
        output_shape(network, channels, *image_size)
    except Exception as error:  # each library's own kinds
        raise UserError(f"{name} can't take images of {size} pixels: {first_line(error)}") from error


def refuse_options(name: str, options: Mapping[str, Any] | None, taken: Sequence[str]) -> None:
    """Further arguments for a library's function must not be those that its adapter gives, or answers for, itself.

    Raises:
        UserError: one of them is.
    """
    if found := [option for option in taken if option in (options or {})]:
        raise UserError(f"{name}: options can't have {found[0]}")


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
