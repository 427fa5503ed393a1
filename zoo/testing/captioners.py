"""Checks of captioners: a caption is the same, whether it is decoded at once or word by word, in any company."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.architectures.captioner import Captioner, Uncached, of_places
from zoo.functional.decoding import Limits, SpecialIds, beam
from zoo.testing.architectures import ArchitectureCase
from zoo.testing.checks import check, expect, expect_same
from zoo.testing.inputs import doubles

ROLE = ("captioner",)
IDS = SpecialIds(pad=0, start=1, end=2)


@check("architectures", ROLE, needs_building=False)
def is_a_captioner(case: ArchitectureCase) -> None:
    """It is a subclass of ``Captioner``, whose methods tasks decode captions with."""
    base = f"{Captioner.__module__}.{Captioner.__name__}"
    expect(issubclass(case.cls, Captioner), f"expected a subclass of {base}, which has what captions are decoded with")


# In float64, since what must be the same is summed in another order.
def _given(case: ArchitectureCase) -> tuple[Any, Tensor, Tensor]:
    """A network, the memory of four pictures, and tokens (4, T)."""
    images, tokens = doubles(case.inputs(4))
    network: Any = case.trained().double()
    return network, network.encode(images), tokens


AFTER = ("is_a_captioner", "deterministic_in_evaluation", "follows_its_dtype", "output_has_its_shape")


@check("architectures", ROLE, after=AFTER)
@torch.no_grad()
def a_call_decodes_what_it_encodes(case: ArchitectureCase) -> None:
    """The memory is (B, N, D); a call is ``decode`` of ``encode``, and so are the logits beside the attention."""
    network, memory, tokens = _given(case)
    right = memory.dim() == 3 and len(memory) == len(tokens)
    expect(right, f"encode of 4 images gave {tuple(memory.shape)}, expected (4, N, D)")
    logits = network.decode(memory, tokens)
    expect_same(logits, network(doubles(case.inputs(4))[0], tokens), "decode of encode, and a call")
    expect_same(network.decode_with_attention(memory, tokens)[0], logits, "logits with and without attention")


@check("architectures", ROLE, after=AFTER)
@torch.no_grad()
def steps_give_the_same_as_all_words_at_once(case: ArchitectureCase) -> None:
    """Said word by word, from the state after the words before, a caption has the logits of ``decode``."""
    network, memory, tokens = _given(case)
    logits, state = network.decode(memory, tokens), network.start(memory)
    for at, word in enumerate(tokens.unbind(1)):
        found, state = network.step(word, state)
        expect_same(found, logits[:, at], f"logits of step {at + 1} and of all words at once")


@check("architectures", ROLE, after=AFTER)
@torch.no_grad()
def the_future_has_no_say(case: ArchitectureCase) -> None:
    """Other words behind a word do not change its logits, nor does their number: padding has no say either."""
    network, memory, tokens = _given(case)
    logits, (count, length) = network.decode(memory, tokens), tokens.shape
    for kept in range(1, length):
        others = (tokens[:, kept:] + 1) % case.facts["vocabulary_size"]
        changed = torch.cat([tokens[:, :kept], others], 1)
        found = network.decode(memory, changed)[:, :kept]
        expect_same(found, logits[:, :kept], f"the first {kept} logits after the tokens behind them changed")
    padded = torch.cat([tokens, tokens.new_zeros(count, 2)], 1)
    expect_same(network.decode(memory, padded)[:, :length], logits, "logits after padding was put behind")


@check("architectures", ROLE, after=AFTER)
@torch.no_grad()
def attention_adds_up_to_one(case: ArchitectureCase) -> None:
    """If it says where it looks, the weights of a word are at least 0, add up to 1, and are those of its step."""
    network, memory, tokens = _given(case)
    weights, state = network.decode_with_attention(memory, tokens)[1], network.start(memory)
    if weights is not None:
        wanted = (*tokens.shape, memory.shape[1])
        expect(tuple(weights.shape) == wanted, f"attention {tuple(weights.shape)}, expected {wanted}")
    for at, word in enumerate(tokens.unbind(1)):
        _, state = network.step(word, state)
        looked = network.attention(state)
        expect((looked is None) == (weights is None), "expected attention of steps and of all words, or of neither")
        if looked is None:
            return
        right = looked.dim() == 3 and len(looked) == len(tokens) and float(looked.min()) >= 0
        expect(right, f"attention of a step {tuple(looked.shape)}, expected (B, h, w) of at least 0")
        expect_same(looked.sum((1, 2)), torch.ones_like(looked[:, 0, 0]), "the sum of a word's attention and 1")
        expect_same(
            looked.flatten(1),
            of_places(weights[:, at], network.extra_places),
            f"attention of step {at + 1} and of all words at once",
        )


@check("architectures", ROLE, after=(*AFTER, "steps_give_the_same_as_all_words_at_once"))
@torch.no_grad()
def beams_find_the_same_without_a_cache(case: ArchitectureCase) -> None:
    """The state's tensors have the batch first, or are the pictures' alone, so that a beam can reorder them."""
    network, memory, tokens = _given(case)
    limits = Limits(tokens.shape[1])
    found, expected = (beam(n, memory, IDS, limits, width=3, count=3) for n in (network, Uncached(network)))
    expect_same(found.log_probs, expected.log_probs, "scores of a beam's captions with and without a cache")
    expect(torch.equal(found.tokens, expected.tokens), "a beam gives other captions with a cache than without")
