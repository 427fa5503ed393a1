"""Each planted fault of a captioner is caught by the check that is meant for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo import registry
from zoo.architectures.base import Architecture
from zoo.architectures.captioner import Captioner, State
from zoo.testing import runner


class Sound(Captioner):
    """A sum of words with a state. Shape: images (B, C, H, W), tokens (B, T) -> logits (B, T, vocabulary)."""

    picture_state: tuple[str, ...] = ("memory",)

    def __init__(self, vocabulary_size: int = 9, in_channels: int = 3) -> None:
        super().__init__()
        self.words, self.say = nn.Embedding(vocabulary_size, 4), nn.Linear(4, vocabulary_size)
        self.places, self.key = nn.Conv2d(in_channels, 4, 8, 8), nn.Linear(4, 4)

    def encode(self, images: Tensor) -> Tensor:
        return self.places(images).flatten(2).transpose(1, 2)

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        return self.decode_with_attention(memory, tokens)[0]

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.look(memory, self.words(tokens).cumsum(1))

    def look(self, memory: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
        weights = (said @ self.key(memory).transpose(1, 2)).softmax(-1)
        return self.say((said + weights @ memory).tanh()), weights

    def start(self, memory: Tensor) -> State:
        return {"memory": memory, "said": memory.new_zeros(len(memory), 4)}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        said, memory = state["said"] + self.words(tokens), state["memory"]
        logits, weights = self.look(memory, said.unflatten(0, (memory.shape[0], -1)))
        return logits.flatten(0, 1), {"memory": memory, "said": said, "attention": weights.flatten(0, 1)}


class LooksAhead(Sound):
    __doc__ = Sound.__doc__

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        words = self.words(tokens)
        return self.look(memory, words.cumsum(1) + words.mean(1, keepdim=True))


class CountsPadding(Sound):
    """Positions from the end. Shape: images (B, C, H, W), tokens (B, T) -> logits (B, T, vocabulary)."""

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.look(memory, self.words(tokens).cumsum(1) / tokens.shape[1])


class ForgetsTheStart(Sound):
    __doc__ = Sound.__doc__

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        logits, after = super().step(tokens, state)
        return logits, {**after, "said": self.words(tokens)}


class AttendsTooMuch(Sound):
    __doc__ = Sound.__doc__

    def attention(self, state: State) -> Tensor:
        return state["attention"].unflatten(1, (4, 4)).sigmoid()


class PutsTheBatchSecond(Sound):
    __doc__ = Sound.__doc__

    def start(self, memory: Tensor) -> State:
        return {"memory": memory, "said": memory.new_zeros(4, len(memory))}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        logits, after = super().step(tokens, {**state, "said": state["said"].T})
        return logits, {**after, "said": after["said"].T}


class CallsWordsThePictures(Sound):
    __doc__ = Sound.__doc__
    picture_state = ("memory", "said")


class EncodesOneVector(Sound):
    __doc__ = Sound.__doc__

    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).mean(1)

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return super().decode_with_attention(memory[:, None], tokens)


class HasNoSteps(Architecture):
    """One call alone. Shape: images (B, C, H, W), tokens (B, T) -> logits (B, T, vocabulary)."""

    roles = ("captioner",)

    def __init__(self, vocabulary_size: int = 9) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, vocabulary_size)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        return self.words(tokens) + images.mean((1, 2, 3))[:, None, None]


FAULTS: dict[type, str] = {
    LooksAhead: "the_future_has_no_say",
    CountsPadding: "the_future_has_no_say",
    ForgetsTheStart: "steps_give_the_same_as_all_words_at_once",
    AttendsTooMuch: "attention_adds_up_to_one",
    PutsTheBatchSecond: "beams_find_the_same_without_a_cache",
    CallsWordsThePictures: "beams_find_the_same_without_a_cache",
    EncodesOneVector: "a_call_decodes_what_it_encodes",
    HasNoSteps: "is_a_captioner",
}


@pytest.fixture(autouse=True)
def _installed(fake_plugin: Callable[..., Path]) -> None:
    entries = {cls.__name__: f"{__name__}:{cls.__name__}" for cls in (Sound, *FAULTS)}
    fake_plugin("planted-captioners", entries={"architectures": entries})


def outcomes(cls: type) -> list[Any]:
    (entry,) = registry.find(cls.__name__)
    items = runner.items_of(entry)
    own = [item.check for item in items if item.check.roles == ("captioner",)]
    needed = {"is_built", *(name for check in own for name in check.after)}
    return runner.check_items([item for item in items if item.check in own or item.check.name in needed])


def test_a_sound_captioner_passes() -> None:
    found = outcomes(Sound)
    assert [str(o) for o in found if o.status != "passed"] == []
    assert len(found) > 8


@pytest.mark.parametrize(("cls", "meant"), FAULTS.items())
def test_each_fault_is_caught_by_the_check_meant_for_it(cls: type, meant: str) -> None:
    failed = {o.item.check.name: o.reason for o in outcomes(cls) if o.status == "failed"}
    assert meant in failed
    assert "\n" not in failed[meant]


def test_the_checks_leave_no_gradient_switched_off() -> None:
    outcomes(Sound)
    assert torch.is_grad_enabled()
