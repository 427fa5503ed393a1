"""The base class of architectures: a network with ``forward`` that declares its stages and gives its feature maps."""

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
    """A layer whose output is a backbone's feature map.

    Args:
        layer: the name of a submodule, as in ``named_modules``.
        channels: channels of its output.
        reduction: image pixels per pixel of the feature map, along one side.
    """

    layer: str
    channels: int
    reduction: int


class _Enough(Exception):  # noqa: N818  ends a forward pass after the last layer that was asked for
    pass


class _OfBackbone:
    """An attribute that describes the weights; a network with a backbone takes the backbone's value.

    A class or an instance that sets the attribute shadows it, since this is not a data descriptor.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, network: Architecture | None, owner: type) -> Any:
        backbone = None if network is None else network.find_backbone()
        return None if backbone is None else getattr(backbone, self.name)


class Architecture(LightningModule, ABC):
    """Base of every architecture: built from plain arguments and factories, independent of trainers and data sets.

    Attributes:
        roles: how tasks call it (``classifier``, ``segmenter``, ``detector``, ``generator``, ``discriminator``,
            ``encoder``, ``decoder``, ``denoiser``, ``captioner``, ``transform``, ``stylizer``, ``pattern``); the
            conformance kit tests it in each of these roles.
        fixed_channels: the number of input channels where it can't be chosen (grey images are then repeated), else
            None.
        mean, std: the normalisation that its weights were trained with, per channel of images in [0, 1]; None to use
            the data's. These three are the backbone's (``find_backbone``) unless the class or its constructor sets
            them.
        latent_shape: shape of one sample's noise or latent, for generators, encoders and decoders.
        may_change: arguments that a resumed run may change, since the network still computes the same function.
        example: arguments of a small instance for tests.
        licence: licence of the pretrained weights, if there are any.
        partly_trained: what the names of parameters begin with that some images do not train, such as those of a
            detector's levels without an object; the conformance kit does not expect a gradient there.
        traces_batches: whether ``traceable`` takes any number of images, else one.
    """

    roles: ClassVar[tuple[str, ...]] = ("classifier",)
    may_change: ClassVar[tuple[str, ...]] = ()
    example: ClassVar[dict[str, Any]] = {}
    licence: ClassVar[str | None] = None
    partly_trained: ClassVar[tuple[str, ...]] = ()
    traces_batches: ClassVar[bool] = False
    latent_shape: tuple[int, ...] = ()
    fixed_channels: int | None = cast(Any, _OfBackbone())
    mean: tuple[float, ...] | None = cast(Any, _OfBackbone())
    std: tuple[float, ...] | None = cast(Any, _OfBackbone())

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output; see the role's call in the documentation."""

    @classmethod
    def pretrained_classes(cls, arguments: Mapping[str, Any]) -> list[str]:
        """Names of the classes that pretrained weights classify, in the order of the output; empty without such
        weights.

        Args:
            arguments: arguments that the network is to be built with, including those that choose the weights;
                without defaults.
        """
        return []

    def statistics(self) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
        """Mean and std of the images that its weights were trained with, where they are not the data's.

        They are written into checkpoints, for who takes the weights of a part from there. Override this in a network
        that normalises images for a part of it itself.

        Returns:
            Mean and std by the part's name; the network's own by the empty name.
        """
        return {"": (self.mean, self.std)} if self.mean and self.std else {}

    def traceable(self, image_size: Sequence[int]) -> nn.Module:
        """For networks that take lists, what ``zoo export`` writes: a module of tensors in and tensors out.

        A detector's takes images (B, C, *image_size), normalised, and gives ``boxes`` in their pixels, ``scores`` and
        ``labels``, as its role names them: those of one image, (N, …), or with ``traces_batches`` the same number for
        each, (B, N, …).

        Raises:
            UserError: this network has no such form.
        """
        raise UserError(f"{type(self).__name__} can't be exported: it has no form that can be traced")

    @property
    def traced_size(self) -> list[int] | None:
        """Height and width to export for if the data have no size of their own; None if nothing suggests one."""
        return None

    def find_backbone(self) -> Architecture | None:
        """The backbone, which shares this network's input normalisation: the first submodule that is an architecture.

        Override this in a network with several architectures if another one takes the images.
        """
        return next((module for module in self.children() if isinstance(module, Architecture)), None)

    @property
    def head_layers(self) -> Sequence[str]:
        """The names of the layers that give the output from features: as it stands, the last linear or convolution.

        Over pretrained weights they are new, and need a higher learning rate.
        """
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
        return [name for name, module in self.named_modules() if isinstance(module, kinds)][-1:]

    @property
    def stages(self) -> list[Stage]:
        """The layers that a backbone's feature maps come from, finest first.

        Raises:
            UserError: this network has no stages.
        """
        raise UserError(f"{type(self).__name__} has no stages, so it can't be used as a backbone")

    def features(self, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Outputs of the named layers, in this order; the forward pass stops after the last of them.

        Later layers may modify an output in place (an in-place activation, a residual sum), so copies are returned.

        Args:
            images: as ``forward`` takes them.
            layers: names as in ``named_modules``; by default those of ``stages``.

        Raises:
            UserError: there is no layer of this name, or ``forward`` does not call it.
        """
        names = [stage.layer for stage in self.stages] if layers is None else list(layers)
        found = capture(lambda: self._run_layers(images), find_layers(self, names))
        if missing := [name for name in names if name not in found]:
            raise UserError(f"{type(self).__name__} has a layer {missing[0]}, but its forward does not call it")
        return {name: found[name] for name in names}

    def _run_layers(self, images: Tensor) -> None:
        """The forward pass that ``features`` hooks into; override it where ``forward`` itself uses ``capture``."""
        self._call_impl(images)  # not compiled: a compiled network would not run hooks registered later


def find_layers(network: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The submodules with these names.

    Raises:
        UserError: there is no such submodule.
    """
    known = {name: module for name, module in network.named_modules() if name}
    if missing := [name for name in names if name not in known]:
        from zoo.registry import did_you_mean

        raise UserError(f"{type(network).__name__} has no layer {missing[0]}{did_you_mean(missing[0], list(known))}")
    return {name: known[name] for name in names}


def capture(run: Callable[[], Any], layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Copies of the layers' outputs while ``run`` calls them; it stops after the last one, except during export."""
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
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())


def output_shape(network: nn.Module, *shape: int) -> tuple[int, ...]:
    """Shape of the output for one input of this shape; running statistics do not change."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        output = network(torch.zeros(1, *shape))
    network.train(was_training)
    return tuple(output.shape)


def scaled(channels: int, width: float) -> int:
    """The number of channels times the width factor, rounded; at least one."""
    return max(1, round(channels * width))


def check_numbers(name: str, num_classes: int, in_channels: int, width: float) -> None:
    """Check the arguments that most networks share.

    Raises:
        UserError: one of them is out of range.
    """
    if num_classes < 0 or in_channels < 1 or width <= 0:
        raise UserError(f"{name}: num_classes must be at least 0, in_channels at least 1, width above 0")


def check_size(name: str, images: Tensor, smallest: int) -> None:
    """Check that images are large enough for the network's downsampling.

    Raises:
        UserError: height or width is below ``smallest``.
    """
    height, width = images.shape[-2:]
    if height < smallest or width < smallest:
        raise UserError(f"{name} needs images of at least {smallest}×{smallest} pixels, not {height}×{width}")


_SKIP_PRETRAINED: ContextVar[bool] = ContextVar("skip_pretrained", default=False)


@contextmanager
def skip_pretrained() -> Iterator[None]:
    """Networks built in this context get all weights from a checkpoint, so they do not load pretrained ones."""
    token = _SKIP_PRETRAINED.set(True)
    try:
        yield
    finally:
        _SKIP_PRETRAINED.reset(token)


def should_load_pretrained() -> bool:
    """Whether a network with pretrained weights has to load them now; see ``skip_pretrained``."""
    return not _SKIP_PRETRAINED.get()


def by_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Mean or std for another number of channels, to match ``timm.models.adapt_input_conv``.

    That function sums the filters over the colours for one channel and repeats them cyclically for several.
    """
    return (sum(values) / len(values),) if channels == 1 else tuple(values[i % len(values)] for i in range(channels))


def refuse_bad_size(network: nn.Module, name: str, channels: int, image_size: Sequence[int]) -> None:
    """Run the network on one image of zeros, since many libraries check the image size only in ``forward``.

    Raises:
        UserError: the network can't take this size.
    """
    size = "×".join(map(str, image_size))
    if len(image_size) != 2:
        raise UserError(f"{name}: image_size is height and width, not {list(image_size)}")
    try:
        output_shape(network, channels, *image_size)
    except Exception as error:  # the types differ by library
        raise UserError(f"{name} can't take images of {size} pixels: {first_line(error)}") from error


def refuse_options(name: str, options: Mapping[str, Any] | None, taken: Sequence[str]) -> None:
    """Check that extra options for a library's function are not arguments that the adapter sets itself.

    Raises:
        UserError: one of them is.
    """
    if found := [option for option in taken if option in (options or {})]:
        raise UserError(f"{name}: options can't have {found[0]}")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
