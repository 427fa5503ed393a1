"""Show, Attend and Tell. Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel and Bengio, "Show, Attend and Tell: Neural
Image Caption Generation with Visual Attention", 2015 (arXiv 1502.03044), with the deterministic "soft" attention.

Before each word an MLP of the LSTM's state weighs the picture's places (equations 4 to 6); their weighted mean, times a
gate beta (section 4.2.1), enters the LSTM along with the last word (equations 1 to 3). The next word is a "deep output"
of last word, state and what was looked at (equation 7). The "doubly stochastic" regularisation (equation 14) needs the
weights, which ``decode_with_attention`` gives.

Where the paper leaves it open, as in the authors' code: tanh in the deep output, a hidden layer in the initial state's
MLP, an MLP of attention as wide as the places' vectors, dropout of 0.5 on the LSTM's output, in the deep output and
in that hidden layer, no dropout in the LSTM.

Deviations: any backbone in place of VGG-19; a start token in place of a vector of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.architectures.backbone_captioner import BackboneCaptioner, check_captioner
from zoo.architectures.captioner import State
from zoo.factories import ArchitectureFactory


class ShowAttendAndTell(BackboneCaptioner):
    """An LSTM that looks at places of the picture before each word.

    Args:
        backbone: any architecture with stages; built without classes. The paper's is VGG-19, at ``reduction`` 16.
        reduction: of the stage whose feature map is decoded; None for the coarsest.
        width: length of the LSTM's state; the authors' on COCO.
        word_width: length of the embedded words.
        dropout: see above.
        vocabulary_size: tokens.
        in_channels: channels of the images.
        image_size: height and width.

    Shape:
        images (B, C, H, W), normalised, and tokens (B, T), the start first -> logits (B, T, vocabulary_size)

    Raises:
        UserError: a number is out of range, or the backbone has no such stage.
    """

    picture_state = ("memory", "keys")
    example: ClassVar[dict[str, Any]] = {"reduction": 8, "width": 12, "word_width": 10}

    def __init__(
        self,
        backbone: ArchitectureFactory,
        reduction: int | None = None,
        width: int = 1800,
        word_width: int = 512,
        dropout: float = 0.5,
        vocabulary_size: int = 10_000,
        in_channels: int = 3,
        image_size: Sequence[int] = (224, 224),
    ) -> None:
        check_captioner("ShowAttendAndTell", vocabulary_size, dropout, width, word_width)
        super().__init__(backbone, reduction, in_channels, image_size)
        places = self.stage.channels
        self.words = nn.Embedding(vocabulary_size, word_width)
        nn.init.normal_(self.words.weight, std=0.01)  # as the authors' code
        self.summary = nn.Sequential(nn.Linear(places, places), nn.ReLU(), nn.Dropout(dropout))
        self.first_hidden, self.first_cell = nn.Linear(places, width), nn.Linear(places, width)
        self.key, self.query = nn.Linear(places, places), nn.Linear(width, places, bias=False)
        self.energy = nn.Linear(places, 1, bias=False)  # the softmax takes no notice of a bias
        self.gate = nn.Linear(width, 1)
        self.lstm = nn.LSTMCell(word_width + places, width)
        self.dropout = nn.Dropout(dropout)
        self.from_hidden, self.from_context = nn.Linear(width, word_width), nn.Linear(places, word_width)
        self.classifier = nn.Linear(word_width, vocabulary_size)

    def encode_maps(self, maps: Tensor) -> Tensor:
        """The vectors of the places, row by row, (B, N, channels)."""
        return maps.flatten(2).transpose(1, 2)

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the next word after each token."""
        return self.decode_with_attention(memory, tokens)[0]

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the weight of each place for each word, (B, T, N)."""
        state, words = self.start(memory), self.words(tokens)
        found = []
        for word in words.unbind(1):
            state, context = self.advance(word, state)
            found.append((state["hidden"], context, state["attention"]))
        hidden, contexts, attention = (torch.stack(one, 1) for one in zip(*found, strict=True))
        return self.say(words, hidden, contexts), attention

    def start(self, memory: Tensor) -> State:
        """The LSTM's first state (B, width), and the places with their keys for the attention."""
        summary = self.summary(memory.mean(1))
        hidden, cell = (layer(summary).tanh() for layer in (self.first_hidden, self.first_cell))
        return {"memory": memory, "keys": self.key(memory), "hidden": hidden, "cell": cell}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the next word, and the state after this one."""
        word = self.words(tokens)
        state, context = self.advance(word, state)
        return self.say(word, state["hidden"], context), state

    def advance(self, word: Tensor, state: State) -> tuple[State, Tensor]:
        """The state after an embedded word (R, word_width), and what was looked at, (R, channels)."""
        context, attention = self.look(state)
        hidden, cell = self.lstm(torch.cat([word, context], 1), (state["hidden"], state["cell"]))
        after = {"memory": state["memory"], "keys": state["keys"], "hidden": hidden, "cell": cell}
        return {**after, "attention": attention}, context

    def look(self, state: State) -> tuple[Tensor, Tensor]:
        """The gated context (R, channels) and the weights of the places (R, N), for R captions of B pictures."""
        memory, hidden = state["memory"], state["hidden"]
        query = self.query(hidden).unflatten(0, (memory.shape[0], -1))[:, :, None]
        weights = self.energy((state["keys"][:, None] + query).tanh())[..., 0].softmax(-1)
        context = (weights @ memory).flatten(0, 1)
        return self.gate(hidden).sigmoid() * context, weights.flatten(0, 1)

    def say(self, word: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Logits of the next word, the deep output of equation 7."""
        deep = word + self.from_hidden(self.dropout(hidden)) + self.from_context(context)
        return self.classifier(self.dropout(deep.tanh()))
