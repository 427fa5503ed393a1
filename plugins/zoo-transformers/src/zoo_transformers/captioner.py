"""What the library's captioners share here: attention over the places of a picture, and caches as tensors.

Networks and initialisation are the library's, and so are the parameters' names below ``network``: its files fit.
Parameters that no caption depends on (poolers) are frozen. The library keeps keys and values in objects that it
changes; the state of the zoo's captioners is a dictionary of tensors that belong to no one, so that a search may copy,
reorder and drop its rows.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache

from zoo.architectures.base import first_line
from zoo.architectures.captioner import Captioner, State
from zoo.errors import UserError
from zoo_transformers.configs import differences, start_and_end
from zoo_transformers.hub import enlarge, fetched, quiet, take_over

PROBE = 2  # tokens of the caption that shows which parameters are used

Pairs = list[tuple[Tensor, Tensor]]  # keys and values of each layer, (B, heads, length, width of a head)


class LibraryCaptioner(Captioner):
    """Base of the library's captioners.

    Attributes:
        library: the library's class.
        network: an object of it.
    """

    fixed_channels = 3
    extra_places = 1  # the class token
    library: ClassVar[Any]
    network: Any

    # Building

    def build(self, make: Any, image_size: Sequence[int]) -> None:
        """Make the network, and freeze what no caption depends on.

        Args:
            make: takes nothing and gives the network.
            image_size: height and width of the images that it is tried with.

        Raises:
            UserError: the library can't make it, or it can't take such images.
        """
        name, size = type(self).__name__, "×".join(map(str, image_size))
        try:
            with quiet():
                self.network = make()
        except Exception as error:  # of many types
            raise UserError(f"{name} can't be built: {first_line(error)}") from error
        try:
            with torch.enable_grad():
                self.grid = self.places(image_size)
                self._freeze_unused(torch.zeros(1, 3, *image_size))
        except Exception as error:
            raise UserError(f"{name} can't take images of {size} pixels: {first_line(error)}") from error

    def _freeze_unused(self, images: Tensor) -> None:
        training = self.training
        logits = self.eval()(images, torch.zeros(1, PROBE, dtype=torch.int64))
        self.train(training)
        parameters = list(self.parameters())
        grads = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.requires_grad_(grad is not None)

    @property
    @abstractmethod
    def language(self) -> PreTrainedModel:
        """The network's part that has the words."""

    @property
    @abstractmethod
    def configs(self) -> dict[str, Any]:
        """The network's configurations by the argument that sets them."""

    def load(self, name: str, vocabulary_size: int) -> None:
        """Load weights from huggingface.co or a folder.

        Raises:
            UserError: they can't be reached, or are of another network.
        """
        theirs = type(self).__new__(type(self))
        nn.Module.__init__(theirs)
        theirs.network = fetched(self.library.from_pretrained, name)
        for argument, config in theirs.configs.items():
            if "model_type" in (needed := differences(self.configs[argument], config)):
                raise UserError(f"pretrained: {name} has a {needed['model_type']}: {argument} are of another family")
            if needed:
                raise UserError(f"pretrained: {name} was built otherwise: give {argument}: {needed}")
        start, _ = start_and_end(theirs.network.config)
        enlarge(theirs.language, vocabulary_size, start or 0, name)
        take_over(self.network, theirs.network, name)

    # Places

    @abstractmethod
    def places(self, image_size: Sequence[int]) -> tuple[int, int]:
        """Height and width of the grid of places of images of this size."""

    def grid_of(self, places: int) -> tuple[int, int]:
        """That of the image size that it was built for; of other sizes only squares are known."""
        return self.grid if places == self.grid[0] * self.grid[1] else super().grid_of(places)


class CrossCaptioner(LibraryCaptioner):
    """Base of those whose words attend to the picture in layers of their own.

    Attributes:
        decoder: the library's language model.
    """

    @property
    def decoder(self) -> Any:
        """The language model."""
        return self.language

    @property
    def picture_state(self) -> tuple[str, ...]:  # type: ignore[override]
        """Keys and values of the picture, of each layer."""
        layers = self.decoder.config.num_hidden_layers
        return tuple(f"place_{name}_{i}" for i in range(layers) for name in ("keys", "values"))

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the next word after each token."""
        return self.decoder(input_ids=tokens, encoder_hidden_states=memory, use_cache=False).logits

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and the last layer's mean weight over its heads, (B, T, N)."""
        found = self.decoder(input_ids=tokens, encoder_hidden_states=memory, use_cache=False, output_attentions=True)
        return found.logits, found.cross_attentions[-1].mean(1)

    def start(self, memory: Tensor) -> State:
        """Keys and values of the picture, and of no words.

        The library computes the picture's with the first word; any word will do.
        """
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        word = torch.zeros(memory.shape[0], 1, dtype=torch.int64, device=memory.device)
        self.decoder(input_ids=word, encoder_hidden_states=memory, use_cache=True, cache=cache)
        words = [(keys[:, :, :0], values[:, :, :0]) for keys, values in pairs(cache.self_attention_cache)]
        return named("", words) | named("place_", pairs(cache.cross_attention_cache))

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the next word; keys and values have one word more."""
        layers, rows = self.decoder.config.num_hidden_layers, tokens.shape[0]
        places = [tuple(repeated(one, rows) for one in pair) for pair in of_names("place_", state, layers)]
        cache = EncoderDecoderCache(DynamicCache(of_names("", state, layers)), DynamicCache(places))
        length = places[0][0].shape[2]
        # The picture's keys and values are known: only its number of places is asked for.
        picture = state["place_keys_0"].new_zeros(1, 1, 1).expand(rows, length, self.memory_width)
        found = self.decoder(
            input_ids=tokens[:, None],
            encoder_hidden_states=picture,
            use_cache=True,
            cache=cache,
            output_attentions=True,
        )
        after = state | named("", pairs(cache.self_attention_cache))
        return found.logits[:, -1], after | {"attention": found.cross_attentions[-1][:, :, -1].mean(1)}

    @property
    @abstractmethod
    def memory_width(self) -> int:
        """Length of the memory's vectors."""


# Caches


def pairs(cache: Cache) -> Pairs:
    """Keys and values of each layer."""
    layers: Any = cache.layers  # of several classes, some of which hold other things
    return [(layer.keys, layer.values) for layer in layers]


def named(prefix: str, pairs: Pairs) -> State:
    """Keys and values as a state's tensors."""
    return {f"{prefix}{n}_{i}": one for i, pair in enumerate(pairs) for n, one in zip(NAMES, pair, strict=True)}


def of_names(prefix: str, state: State, layers: int) -> Pairs:
    """A state's tensors as keys and values."""
    return [(state[f"{prefix}keys_{i}"], state[f"{prefix}values_{i}"]) for i in range(layers)]


NAMES = ("keys", "values")


def repeated(tensor: Tensor, rows: int) -> Tensor:
    """A tensor of B pictures for R rows, R / B of each picture."""
    return tensor if tensor.shape[0] == rows else tensor.repeat_interleave(rows // tensor.shape[0], 0)


def takes(function: Any, argument: str) -> bool:
    """Whether a function of the library names this argument."""
    return argument in inspect.signature(function).parameters
