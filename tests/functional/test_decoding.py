"""Decoding against enumeration: every caption of a tiny vocabulary, with its probability by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zoo.architectures.captioner import Captioner, State
from zoo.errors import UserError
from zoo.functional.decoding import (
    Captions,
    Limits,
    SpecialIds,
    beam,
    greedy,
    is_padding,
    pick,
    sample,
    score,
    with_start,
)

IDS = SpecialIds(pad=0, start=1, end=2)
WORDS, LONGEST = 5, 4  # two words beside the special tokens; tokens of a caption, at most
Search = Callable[..., Captions]
beam3 = partial(beam, width=3)


class StandIn(Captioner):
    """Logits that depend on all words so far and their order; with the base's steps."""

    def __init__(self, vocabulary_size: int = WORDS, seed: int = 0, scale: float = 2.0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        weights = (torch.randn(n, 6, generator=random, dtype=torch.float64) for n in (vocabulary_size, 6))
        self.words, self.past = (nn.Parameter(w) for w in weights)
        self.scale = scale

    def encode(self, images: Tensor) -> Tensor:
        return images.flatten(2).transpose(1, 2)

    def hidden(self, before: Tensor, tokens: Tensor) -> Tensor:
        return torch.tanh(before @ self.past + self.words[tokens])

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        return self.decode_with_attention(memory, tokens)[0]

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        before, hidden, looked = memory.mean(1), [], []
        for one in tokens.unbind(1):
            before = self.hidden(before, one)
            hidden.append(before)
            looked.append((memory @ before[..., None])[..., 0].softmax(-1))
        return self.scale * torch.stack(hidden, 1) @ self.words.T, torch.stack(looked, 1)


class Cached(StandIn):
    """The same with a state, of which the pictures' part is kept once for all captions of a picture."""

    picture_state = ("memory",)

    def start(self, memory: Tensor) -> State:
        return {"memory": memory, "hidden": memory.mean(1)}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, memory = self.hidden(state["hidden"], tokens), state["memory"]
        looked = memory @ hidden.view(len(memory), -1, hidden.shape[1]).transpose(1, 2)
        attention = looked.softmax(1).transpose(1, 2).flatten(0, 1)
        return self.scale * hidden @ self.words.T, {"memory": memory, "hidden": hidden, "attention": attention}


NETWORKS = [StandIn(), Cached()]


def memory(pictures: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(pictures, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every_caption(words: int = WORDS, longest: int = LONGEST) -> Tensor:
    """All captions, padded: those that end, and those that are cut."""
    spoken = range(3, words)
    found = [[*c, IDS.end] for n in range(longest) for c in itertools.product(spoken, repeat=n)]
    found += [[*c] for c in itertools.product(spoken, repeat=longest)]
    return torch.tensor([c + [IDS.pad] * (longest - len(c)) for c in found])


def scores(network: StandIn, one: Tensor, captions: Tensor) -> Tensor:
    return score(network, one.expand(len(captions), -1, -1), with_start(captions, IDS), IDS)


def by_hand(network: StandIn, one: Tensor, caption: list[int]) -> float:
    """Log-probability of a caption, token by token, by the definition of the softmax."""
    total, said = 0.0, [IDS.start]
    for token in caption:
        logits = network.decode(one[None], torch.tensor([said]))[0, -1].exp()
        total += float((logits[token] / logits[2:].sum()).log())
        said.append(token)
    return total


def same(found: Captions, expected: Captions, rows: slice = slice(None)) -> None:
    """Captions as expected, up to padding."""
    length = min(found.tokens.shape[2], expected.tokens.shape[2])
    assert torch.equal(found.tokens[..., :length], expected.tokens[rows, :, :length])
    assert not found.tokens[..., length:].any()
    assert not expected.tokens[rows, :, length:].any()
    torch.testing.assert_close(found.log_probs, expected.log_probs[rows])


def test_probabilities_of_all_captions_add_up_to_one() -> None:
    captions = every_caption()
    for one in memory():
        assert float(scores(NETWORKS[0], one, captions).exp().sum()) == pytest.approx(1)


def test_score_is_the_product_of_its_words_probabilities() -> None:
    (one,), caption = memory(1), [3, 4, 4, IDS.end]
    found = score(NETWORKS[0], one[None], torch.tensor([[IDS.start, *caption, IDS.pad]]), IDS)
    assert float(found) == pytest.approx(by_hand(NETWORKS[0], one, caption))


def test_score_has_a_finite_gradient_with_padding() -> None:
    network = StandIn()
    score(network, memory(2), torch.tensor([[1, 3, 2, 0], [1, 3, 4, 2]]), IDS).sum().backward()
    assert network.words.grad is not None
    assert bool(network.words.grad.isfinite().all())


@pytest.mark.parametrize("network", NETWORKS, ids=["uncached", "cached"])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_exhaustive_beam_finds_the_best_captions(network: StandIn, penalty: float) -> None:
    captions, pictures = every_caption(), memory()
    found = beam(network, pictures, IDS, Limits(LONGEST), width=len(captions), count=5, length_penalty=penalty)
    lengths = (captions != IDS.pad).sum(1)
    for row, one in enumerate(pictures):
        total = scores(network, one, captions)
        best = (total / lengths**penalty).topk(5).indices
        assert torch.equal(found.tokens[row], captions[best])
        torch.testing.assert_close(found.log_probs[row], total[best])


def test_a_beam_with_more_places_than_captions() -> None:
    captions = every_caption()
    count = len(captions) + 2
    found = beam(NETWORKS[1], memory(1), IDS, Limits(LONGEST), width=count, count=count)
    assert bool(found.log_probs[0, -2:].isneginf().all())
    assert not found.tokens[0, -2:].any()
    assert {tuple(c) for c in found.tokens[0, :-2].tolist()} == {tuple(c) for c in captions.tolist()}


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beam_of_width_one_is_greedy(penalty: float) -> None:
    for seed in range(5):
        network, pictures = Cached(9, seed), memory(8, seed)
        same(beam(network, pictures, IDS, width=1, length_penalty=penalty), greedy(network, pictures, IDS))


def test_greedy_takes_the_most_probable_word() -> None:
    network, one = Cached(9), memory(1)
    found = greedy(network, one, IDS, Limits(6)).tokens[0, 0].tolist()
    said = [IDS.start]
    for token in found:
        assert token == int(network.decode(one, torch.tensor([said]))[0, -1, 2:].argmax()) + 2
        said.append(token)
    assert IDS.end in found or len(found) == 6


@pytest.mark.parametrize("search", [greedy, beam3, partial(beam, width=4, count=3)])
def test_cached_and_uncached_give_the_same(search: Search) -> None:
    for limits in (Limits(8), Limits(8, torch.tensor([4, 3]), 2)):
        found, expected = (search(kind(9), memory(), IDS, limits, True) for kind in (Cached, StandIn))
        same(found, expected)
        assert found.attention is not None
        assert expected.attention is not None
        said = found.tokens != IDS.pad
        torch.testing.assert_close(found.attention[said], expected.attention[said])


@pytest.mark.parametrize("search", [greedy, beam3, partial(beam, width=4, count=3)])
def test_attention_is_that_of_each_word(search: Search) -> None:
    network, pictures = Cached(9), memory()
    found = search(network, pictures, IDS, Limits(7), with_attention=True)
    assert found.attention is not None
    assert found.attention.shape == (*found.tokens.shape, 2, 2)
    for row, place in itertools.product(range(len(pictures)), range(found.tokens.shape[1])):
        tokens = found.tokens[row, place]
        looked = network.decode_with_attention(pictures[row, None], with_start(tokens, IDS)[None, :-1])[1]
        assert looked is not None
        said = tokens != IDS.pad
        torch.testing.assert_close(found.attention[row, place].flatten(1)[said], looked[0][said])


@pytest.mark.parametrize("search", [greedy, beam3, partial(beam, width=4, count=3)])
@pytest.mark.parametrize("limits", [Limits(9), Limits(9, torch.tensor([[3, 0], [4, 5], [0, 0]])), Limits(9, None, 2)])
def test_log_probs_are_the_scores_of_the_captions(search: Search, limits: Limits) -> None:
    network, pictures = Cached(9), memory()
    found = search(network, pictures, IDS, limits)
    for row, one in enumerate(pictures):
        torch.testing.assert_close(found.log_probs[row], scores(network, one, found.tokens[row]))


@pytest.mark.parametrize("search", [greedy, beam3, partial(beam, width=4, count=3)])
def test_the_rest_of_the_batch_has_no_say(search: Search) -> None:
    network, pictures = Cached(9, seed=3), memory(12)
    prefix = torch.tensor([[3, 0], [4, 5], [0, 0]]).repeat(4, 1)
    together = search(network, pictures, IDS, Limits(9, prefix, 3))
    lengths = (together.tokens != IDS.pad).sum(-1)
    assert len(lengths.unique()) > 2  # captions of several lengths, or nothing is padded
    for row in range(12):
        alone = search(network, pictures[row : row + 1], IDS, Limits(9, prefix[row : row + 1], 3))
        same(alone, together, slice(row, row + 1))


class Brief(Cached):
    """Ends soon, and counts its steps."""

    steps = 0

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        logits, state = super().step(tokens, state)
        self.steps += 1
        return logits + 1.5 * torch.eye(logits.shape[1], dtype=logits.dtype)[IDS.end], state


@pytest.mark.parametrize("search", [greedy, beam3, partial(sample, generator=torch.Generator().manual_seed(0))])
def test_decoding_stops_when_all_captions_have_ended(search: Search) -> None:
    network = Brief(9, seed=3)
    tokens = search(network, memory(12), IDS, Limits(100)).tokens
    assert network.steps < 50
    assert bool((tokens == IDS.end).any(-1).all())
    after = (tokens == IDS.end).cumsum(-1) - (tokens == IDS.end).long()
    assert torch.equal(after > 0, tokens == IDS.pad)


@pytest.mark.parametrize(("ids", "left_out"), [(SpecialIds(1, 0, 1), 1), (SpecialIds(0, 0, 0), 2)])
@pytest.mark.parametrize("search", [greedy, beam3, partial(beam, width=60, length_penalty=0.0), sample])
@torch.no_grad()
def test_padding_and_start_may_be_the_end(search: Search, ids: SpecialIds, left_out: int) -> None:
    """As in GPT-2's vocabulary: the captions are those of a vocabulary where they are tokens of their own."""
    apart, merged, pictures = Cached(6, seed=8), Cached(6 - left_out), memory(24)
    apart.words[IDS.start] = apart.words[left_out + ids.start]
    merged.words.copy_(apart.words[left_out:])
    merged.past.copy_(apart.past)
    limits = Limits(7, torch.tensor([5]), 2), Limits(7, torch.tensor([5 - left_out]), 2)
    draw = {"generator": seeded(0)} if search is sample else {}
    expected = search(apart, pictures, IDS, limits[0], **draw)
    draw = {"generator": seeded(0)} if search is sample else {}
    found = search(merged, pictures, ids, limits[1], **draw)
    padding = expected.tokens == IDS.pad
    assert bool(padding.any())
    assert torch.equal(is_padding(found.tokens, ids), padding)
    assert torch.equal((found.tokens + left_out).masked_fill(padding, IDS.pad), expected.tokens)
    torch.testing.assert_close(found.log_probs, expected.log_probs)
    torch.testing.assert_close(
        score(merged, pictures, with_start(found.tokens[:, 0], ids), ids), expected.log_probs[:, 0]
    )


# Beginnings and repetitions


@pytest.mark.parametrize("search", [greedy, beam3, sample])
def test_given_beginnings_are_completed(search: Search) -> None:
    network, pictures = Cached(9), memory(2)
    for prefix in (torch.tensor([5, 3]), torch.tensor([[5, 3], [4, 0]])):
        found = search(network, pictures, IDS, Limits(9, prefix)).tokens[:, 0]
        given = prefix.expand(2, -1)
        assert torch.equal(found[:, :2][given != IDS.pad], given[given != IDS.pad])
        assert found.shape[1] > 2


def test_exhaustive_beam_completes_to_the_best_caption() -> None:
    captions, (one,) = every_caption(), memory(1)
    captions = captions[(captions[:, 0] == 4) & (captions[:, 1] == 3)]
    found = beam(NETWORKS[1], one[None], IDS, Limits(LONGEST, torch.tensor([4, 3])), width=8, length_penalty=0)
    best = scores(NETWORKS[1], one, captions).argmax()
    assert torch.equal(found.tokens[0, 0], captions[best][: found.tokens.shape[2]])


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("search", [greedy, beam3, partial(sample, generator=torch.Generator().manual_seed(0))])
def test_no_ngram_is_said_twice(search: Search, n: int) -> None:
    network = Cached(6, scale=5.0)  # three words, so that something must be repeated
    assert any(repeated(c, n) for c in search(network, memory(8), IDS, Limits(16)).tokens[:, 0].tolist())
    found = search(network, memory(8), IDS, Limits(16, None, n)).tokens[:, 0].tolist()
    assert not any(repeated(c, n) for c in found)


def repeated(caption: list[int], n: int) -> bool:
    words = [t for t in caption if t != IDS.pad]
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(grams) > len(set(grams))


def test_ngram_rule_leaves_the_best_of_the_others() -> None:
    captions, (one,) = every_caption(), memory(1)
    captions = captions[[not repeated(c, 1) for c in captions.tolist()]]
    found = beam(NETWORKS[1], one[None], IDS, Limits(LONGEST, None, 1), width=8, count=len(captions), length_penalty=0)
    total = scores(NETWORKS[1], one, captions)
    assert torch.equal(found.tokens[0, :, : captions.shape[1]], captions[total.argsort(descending=True)][:, :3])


# Sampling


def test_samples_are_as_frequent_as_they_are_probable() -> None:
    captions, (one,), count = every_caption(), memory(1), 20_000
    found = sample(NETWORKS[1], one[None], IDS, Limits(LONGEST), count=count, generator=seeded(0))
    expected = scores(NETWORKS[1], one, captions).exp()
    seen = (found.tokens[0][:, None] == captions).all(-1).double().mean(0)
    assert float((seen - expected).abs().max()) < 4 * (0.25 / count) ** 0.5
    torch.testing.assert_close(found.log_probs[0], scores(NETWORKS[1], one, found.tokens[0]))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nucleus_and_temperature() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.15, 0.25])
    logits = probabilities.log().expand(40_000, -1)
    uniform = torch.rand(40_000, generator=seeded(0))
    nucleus = pick(logits, uniform, top_p=0.7).bincount(minlength=4) / 40_000
    torch.testing.assert_close(nucleus, torch.tensor([0, 2 / 3, 0, 1 / 3]), atol=0.01, rtol=0)
    cold = pick(logits / 0.5, uniform).bincount(minlength=4) / 40_000
    torch.testing.assert_close(cold, probabilities**2 / (probabilities**2).sum(), atol=0.01, rtol=0)
    assert pick(logits[:1], torch.tensor([1 - 2**-24]), top_p=0.7).item() == 3
    assert pick(logits[:1], torch.tensor([0.999]), top_p=1e-6).item() == 1


def test_sampling_repeats_itself_and_depends_on_no_other_picture() -> None:
    network, pictures = Cached(9), memory(4)
    one, two = (sample(network, pictures, IDS, count=2, generator=seeded(5)) for _ in range(2))
    same(one, two)
    together = sample(network, pictures, IDS, count=2, generator=[seeded(i) for i in range(4)])
    for row in range(4):
        alone = sample(network, pictures[row : row + 1], IDS, count=2, generator=[seeded(row)])
        same(alone, together, slice(row, row + 1))


@pytest.mark.parametrize(
    "call",
    [
        partial(greedy, limits=Limits(0)),
        partial(greedy, limits=Limits(3, torch.tensor([3, 3, 3]))),
        partial(beam, width=2, count=3),
        partial(beam, length_penalty=-1.0),
        partial(sample, temperature=0.0),
        partial(sample, top_p=1.5),
    ],
)
def test_wrong_numbers_are_refused(call: Search) -> None:
    with pytest.raises(UserError):
        call(NETWORKS[1], memory(1), IDS)


def test_a_grid_that_is_not_known_is_refused() -> None:
    network = StandIn()
    assert network.grid_of(9) == (3, 3)
    with pytest.raises(UserError, match="12 places"):
        network.grid_of(12)
