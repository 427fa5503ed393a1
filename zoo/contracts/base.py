"""The classes in which a contract is stated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Generator
from torch.utils.data import default_collate

from zoo.facts import Facts

Inputs = tuple[Any, ...]
Sizes = Mapping[str, Any]  # num_classes, in_channels, image_size, vocabulary_size: what a network is built for


class ContractError(ValueError):
    """A batch or an output is not what its form or role promises; the text is one line."""


def expect(true: Any, message: str) -> None:
    """Raise a ``ContractError`` with the message unless it is true."""
    if not true:
        raise ContractError(message)


def images_and_names(batch: Any, names: Sequence[str]) -> Any:
    """A batch for prediction made of one for evaluation: the images, and a name for each in place of the labels."""
    return batch[0], list(names)


@dataclass(frozen=True)
class Form:
    """A form of batch: what data give to tasks.

    Args:
        name: the word that data and tasks have as ``batch``.
        about: what a batch is, in a line or two; and what ``predict_step`` gets, where that is not images and names.
        facts: those that data of this form must say of themselves.
        check: takes a batch as a task gets it, the facts and the split (``train``, ``val``, ``test``); raises
            ``ContractError``.
        role: of the network that a task of this form trains, where the task does not say it.
        example_facts: of a tiny data set that tests tasks; left out, an installed data set's example does.
        example: a sample of that data set, a pure function of its index.
        collate: makes a batch of such samples.
        to_predict: makes a batch for ``predict_step`` of one for evaluation and names.
        accepts: other forms whose batches serve a task of this form, too.
        repeats: the same batch comes again and again (the task's parameter is an image): without order and splits.
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
    """A role of a network: how tasks call it.

    Args:
        name: the word among an architecture's ``roles``.
        about: how it is called and what it gives, in a line.
        inputs: takes the network, the sizes that it was built for, a number of samples and a generator; gives the ways
            to call it, each a tuple of arguments that are tensors or lists with the samples in front. The first way is
            the one that most checks use.
        check: takes an output in evaluation mode, the arguments and the sizes; raises ``ContractError``.
        outputs: names of the outputs in an exported file; other than those of the inputs.
        needs: arguments that its class must have.
        call: calls it; left out, ``network(*inputs)``.
        of_sample: the tensors of one sample in an output; left out, its row in every tensor.
        input_names: of the arguments in an exported file; none where a call can't be traced by itself (a list of
            images, a loop around it), so that only a task's own ``exported`` can say what is written.
        smooth: its output has a gradient in evaluation mode (detections have none).
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
