"""A captioner as two exported graphs, one that encodes pictures and one that says a word, with the tokeniser beside.

The encoder gives the state before the first word; each call of the step takes the last tokens and the state, and gives
the next tokens and what has changed of the state. So a dozen lines decode captions without the zoo; ``zoo export``
prints them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from zoo.architectures.captioner import Captioner, State
from zoo.functional.caption_tokens import log_probabilities
from zoo.functional.decoding import SpecialIds
from zoo.functional.tokenizing import tokenizer_of
from zoo.tasks.exported import Exported
from zoo.tasks.normalize import Normalize

if TYPE_CHECKING:
    from zoo.tasks.base import Task

NEXT = "next_"  # what the names of the step's outputs begin with that are the state's next values
SAID = 4  # tokens with that of the traced step: of 0 or 1 before it, the exporter would make constants
PAST = "past"

LOAD = {
    "onnx": """\
import json, numpy, onnxruntime
def load(part):
    session = onnxruntime.InferenceSession(f"{stem}.{{part}}.onnx")
    names = [output.name for output in session.get_outputs()]
    return lambda **given: dict(zip(names, session.run(None, given)))
""",
    "torch_export": """\
import json, numpy, torch
def load(part):
    about = {{"zoo.json": ""}}
    file = torch.export.load(f"{stem}.{{part}}.pt2", extra_files=about)
    about = json.loads(about["zoo.json"])
    inputs, names = ([port["name"] for port in json.loads(about[k])] for k in ("inputs", "outputs"))
    def run(**given):
        return dict(zip(names, file.module()(*(torch.as_tensor(given[name]) for name in inputs))))
    return run
""",
}
DECODE = """\
words = json.load(open("{stem}.tokenizer.json", encoding="utf-8"))
encode, step = load("encoder"), load("step")
state, said = encode(images=images), []
tokens = numpy.full(len(images), words["start_id"])
for _ in range(words["max_length"]):
    found = step(tokens=tokens, **state)
    tokens = found["best"]
    said.append(tokens)
    state.update({{name[5:]: value for name, value in found.items() if name.startswith("next_")}})
for caption in numpy.stack(said, 1).tolist():
    caption = caption[: (caption + [words["end_id"]]).index(words["end_id"])]
    print(" ".join(words["vocabulary"][token] for token in caption if token != words["unknown_id"]))"""


class Encoder(nn.Module):
    """Images in [0, 1] -> the state before the first word, as tensors in the order of ``names``."""

    def __init__(self, network: Captioner, normalize: Normalize | None, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.normalize, self.names = network, normalize, tuple(names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The state."""
        state = self.network.start(self.network.encode(images if self.normalize is None else self.normalize(images)))
        return tuple(state[name] for name in self.names)


class Step(nn.Module):
    """Tokens and the state -> the best next tokens, logits, what changed of the state, and the attention if any."""

    def __init__(self, network: Captioner, ids: SpecialIds, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.ids, self.names = network, ids, tuple(names)
        self.changing = tuple(name for name in names if name not in network.picture_state)

    def forward(self, tokens: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """What is said, and the next state."""
        logits, after = self.network.step(tokens, dict(zip(self.names, state, strict=True)))
        best, looked = log_probabilities(logits, self.ids).argmax(-1), self.network.attention(after)
        found = (best, logits, *(after[name] for name in self.changing))
        return found if looked is None else (*found, looked)


def exported_captioner(task: Task, network: Captioner, max_length: int) -> Exported:
    """What ``zoo export`` writes of a task that trains a captioner: ``encoder``, ``step`` and ``tokenizer.json``.

    Args:
        task: its facts have the vocabulary, and size and channels of the images.
        network: its captioner.
        max_length: tokens of a caption at most, for the lines that show how the files are used.
    """
    size, channels = list(task.facts["image_size"]), task.facts["in_channels"]
    normalize = next((m for m in task.children() if isinstance(m, Normalize)), None)

    def images(count: int, generator: Generator) -> dict[str, Tensor]:
        return {"images": torch.rand(count, channels, *size, generator=generator)}

    def steps(count: int, generator: Generator) -> dict[str, Tensor]:
        tokens = torch.randint(0, len(task.facts["vocabulary"]), (SAID, count), generator=generator)
        return {"tokens": tokens[-1], **_state(network, images(count, generator)["images"], tokens[:-1])}

    first = _state(network, images(1, Generator())["images"], torch.zeros((0, 1), dtype=torch.int64))
    return Exported(
        Encoder(network, normalize, [*first]),
        images,
        (*first,),
        "images -> the state before the first word",
        notes={"images": "in [0, 1]"},
        image_size=size,
        normalize=normalize,
        name="encoder",
        others=(_exported_step(network, SpecialIds.of(task.facts), first, steps, max(max_length, SAID) - 1),),
        texts={"tokenizer.json": json.dumps({**tokenizer_of(task.facts).facts(), "max_length": max_length})},
        usage={format: lines + DECODE for format, lines in LOAD.items()},
    )


def _exported_step(
    network: Captioner, ids: SpecialIds, first: State, steps: Callable[[int, Generator], dict[str, Tensor]], most: int
) -> Exported:
    """The step; ``most`` words are said before it."""
    step, given = Step(network, ids, [*first]), steps(1, Generator())
    grown = {name: _grown(tensor, given[name]) for name, tensor in first.items()}
    outputs = ["best", "logits", *(NEXT + name for name in step.changing)]
    with torch.no_grad():
        has_attention = len(step(*given.values())) > len(outputs)
    return Exported(
        step,
        steps,
        (*outputs, *(["attention"] if has_attention else [])),
        "the last tokens and the state -> the best next tokens, and the state with the last",
        free={name: axes for name, axes in grown.items() if axes},
        most={PAST: most},
        notes={"tokens": "start_id at first", "best": "neither padding nor start", "attention": "of the last tokens"},
        name="step",
    )


@torch.no_grad()
def _state(network: Captioner, images: Tensor, said: Tensor) -> State:
    """The state after tokens (T, B), with the tensors that it begins with."""
    state = network.start(network.encode(images))
    names = [*state]
    for tokens in said:
        _, state = network.step(tokens, state)
    return {name: state[name].contiguous() for name in names}  # a view's strides would become conditions


def _grown(before: Tensor, after: Tensor) -> dict[int, str]:
    """The axes that have grown by the words said; they get the name ``past``."""
    sizes = zip(before.shape, after.shape, strict=True)
    return {axis: PAST for axis, (a, b) in enumerate(sizes) if a != b}
