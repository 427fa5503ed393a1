"""The classes that define contracts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Generator
from torch.utils.data import default_collate

from zoo.facts import Facts

Inputs = tuple[Any, ...]
Sizes = Mapping[str, Any]  # num_classes, in_channels, image_size, vocabulary_size of a network


class ContractError(ValueError):
    """A batch or an output violates its form or role; the message is one line."""


def expect(true: Any, message: str) -> None:
    """Raise a ``ContractError`` with the message unless it is true."""
    if not true:
        raise ContractError(message)


def images_and_names(batch: Any, names: Sequence[str]) -> Any:
    """A batch for prediction from one for evaluation: names instead of labels."""
    return batch[0], list(names)


@dataclass(frozen=True)
class Form:
    """A form of batch that data give to tasks.

    Args:
        name: the value of ``batch`` in data and tasks.
        about: the batch in a line or two; and what ``predict_step`` gets, if that is not images and names.
        facts: names of the facts that data of this form must declare.
        check: takes a batch as a task gets it, the facts and the split (``train``, ``val``, ``test``); raises
            ``ContractError``.
        role: role of the network that a task of this form trains, unless the task declares it.
        example_facts: facts of a tiny data set for testing tasks; by default an installed data set's example is used.
        example: a sample of that data set, a pure function of its index.
        collate: makes a batch of such samples.
        to_predict: makes a batch for ``predict_step`` of one for evaluation and names.
        accepts: other forms whose batches a task of this form can use, too.
        repeats: the same batch is repeated (the task's parameter is an image), without order and splits.
        loss_falls: training lowers the training loss; an adversarial one's may rise.
    """

    name: str
    about: str
    facts: tuple[str, ...]
    check: Callable[[Any, Facts, str], None]
    role: str = ""
    example_facts: Facts | None = None
    example: Callable[[int], Any] | None = None
    collate: Callable[[list[Any]], Any] = default_collate
    to_predict: Callable[[Any, Sequence[str]], Any] = images_and_names
    accepts: tuple[str, ...] = ()
    repeats: bool = False
    loss_falls: bool = True


@dataclass(frozen=True)
class Role:
    """A role of a network: how tasks call it, and what it returns.

    Args:
        name: the name in an architecture's ``roles``.
        about: input and output in one line.
        inputs: takes the network, the sizes that it was built for, a number of samples and a generator; returns the
            ways to call it, each a tuple of arguments that are batched tensors or lists. Most checks use the first.
        check: takes an output in evaluation mode, the arguments and the sizes; raises ``ContractError``.
        outputs: names of the outputs in an exported file; other than those of the inputs.
        needs: arguments that its class must have.
        call: calls it; by default ``network(*inputs)``.
        of_sample: the tensors of one sample in an output; by default its row in every tensor.
        input_names: names of the arguments in an exported file; none if a call can't be traced by itself (a list of
            images, a loop around it), so that only a task's ``exported`` can define what is written.
        smooth: whether its output has a gradient in evaluation mode (detections have none).
    """

    name: str
    about: str
    inputs: Callable[[Any, Sizes, int, Generator], list[Inputs]]
    check: Callable[[Any, Inputs, Sizes], None]
    outputs: tuple[str, ...] = ("output",)
    needs: tuple[str, ...] = ()
    call: Callable[[Any, Inputs], Any] = lambda network, inputs: network(*inputs)
    of_sample: Callable[[Any, int], Any] | None = None
    input_names: tuple[str, ...] = ("images",)
    smooth: bool = True
