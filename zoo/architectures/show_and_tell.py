"""Show and Tell. Vinyals, Toshev, Bengio and Erhan, "Show and Tell: A Neural Image Caption Generator", 2015
(arXiv 1411.4555).

The picture is the first word of an LSTM: the mean of a feature map's places, embedded as words are (equations 10 to
12), and seen once.

Initialisation and dropout are those of the authors' later code (im2txt): weights uniform in ±0.08, no biases but 1 for
the forget gate, dropout of 0.3 on what enters and leaves the LSTM.

Deviations: any backbone in place of GoogLeNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.architectures.backbone_captioner import BackboneCaptioner, check_captioner
from zoo.architectures.captioner import State
from zoo.factories import ArchitectureFactory

RANGE = 0.08  # of initial weights


class ShowAndTell(BackboneCaptioner):
    """An LSTM that reads the picture before any word; 12,613,904 parameters beside VGG-19's, at 10,000 tokens.

    Args:
        backbone: any architecture with stages; built without classes.
        reduction: of the stage whose feature map is decoded; None for the coarsest.
        width: length of the LSTM's state and of the embedded words.
        dropout: on the LSTM's inputs and outputs.
        vocabulary_size: tokens.
        in_channels: channels of the images.
        image_size: height and width.

    Shape:
        images (B, C, H, W), normalised, and tokens (B, T), the start first -> logits (B, T, vocabulary_size)

    Raises:
        UserError: a number is out of range, or the backbone has no such stage.
    """

    example: ClassVar[dict[str, Any]] = {"reduction": 8, "width": 12}

    def __init__(
        self,
        backbone: ArchitectureFactory,
        reduction: int | None = None,
        width: int = 512,
        dropout: float = 0.3,
        vocabulary_size: int = 10_000,
        in_channels: int = 3,
        image_size: Sequence[int] = (224, 224),
    ) -> None:
        check_captioner("ShowAndTell", vocabulary_size, dropout, width)
        super().__init__(backbone, reduction, in_channels, image_size)
        self.picture = nn.Linear(self.stage.channels, width)
        self.words = nn.Embedding(vocabulary_size, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, vocabulary_size)
        for layer in (self.picture, self.words, self.lstm, self.classifier):
            _initialise(layer)

    def encode_maps(self, maps: Tensor) -> Tensor:
        """The embedded picture, (B, 1, width)."""
        return self.picture(maps.mean((2, 3)))[:, None]

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the next word after each token."""
        said = self.lstm(self.dropout(torch.cat([memory, self.words(tokens)], 1)))[0]
        return self.classifier(self.dropout(said[:, 1:]))

    def start(self, memory: Tensor) -> State:
        """The LSTM's state after the picture: hidden and cell (B, width)."""
        _, (hidden, cell) = self.lstm(self.dropout(memory))
        return {"hidden": hidden[0], "cell": cell[0]}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the next word, and the LSTM's state after this one."""
        before = state["hidden"][None], state["cell"][None]
        said, (hidden, cell) = self.lstm(self.dropout(self.words(tokens)[:, None]), before)
        return self.classifier(self.dropout(said[:, 0])), {"hidden": hidden[0], "cell": cell[0]}


def _initialise(layer: nn.Module) -> None:
    for name, values in layer.named_parameters():
        if name.startswith("weight"):
            nn.init.uniform_(values, -RANGE, RANGE)
        else:
            nn.init.zeros_(values)
    if isinstance(layer, nn.LSTM):  # two biases are added; the gates are input, forget, cell and output
        bias: Any = layer.bias_ih_l0
        nn.init.ones_(bias.data[layer.hidden_size : 2 * layer.hidden_size])
