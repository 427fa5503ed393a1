"""What of a task goes into an exported file: a network, its named inputs and outputs, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from torch import Generator, Tensor, nn
from torchvision.ops import box_iou

from zoo import contracts
from zoo.architectures.base import Architecture
from zoo.errors import UserError
from zoo.factories import class_of, takes
from zoo.tasks.normalize import Normalize

if TYPE_CHECKING:
    from zoo.tasks.base import Task

IMAGES = ("images",)
DETECTORS = ("detector", "instance_segmenter")  # roles whose networks have a traceable form
NEAR = {"iou": 0.99, "score": 1e-3}  # of one object in two runtimes
REORDERED = 0.05  # share of objects that rounding may exchange for others, where scores are almost equal


@dataclass(frozen=True)
class Exported:
    """What ``zoo export`` writes of a task.

    Args:
        network: what is traced; it is called with the inputs in their order, and gives tensors or any nesting of them.
            What follows the network (a softmax, the choice of boxes) is written too where this module does it.
        inputs: takes a number of samples and a generator; gives example inputs by name. Several numbers and generators
            are tried, to compare the file with the network.
        outputs: names of the outputs, in the order of the network's tensors.
        about: what the outputs mean, in a line.
        batched: names of the inputs whose first axis is the batch; left out, all are. With none, the file takes the one
            number of samples that ``inputs`` gives.
        notes: range or unit by name of an input or output.
        image_size: height and width of the images that it takes; None where it takes none.
        resize: height and width that pictures are brought to before their centre is cropped to ``image_size``; left
            out, what the training's data did.
        normalize: the normalisation inside it, for the description.
        part: the factory argument of the task whose network is inside.
        free: names of the sizes of further axes that the file takes at any size, from 0 on, by axis and by input.
        most: the largest size by its name, for those of ``free`` that have one.
        difference: takes the file's outputs and the network's; gives how far they are apart, where 0 is the same. Left
            out, the largest difference relative to the largest value. For outputs that rounding may reorder.
        name: what the file's name ends in before the suffix, where a task writes several.
        others: what is written beside, under names of their own.
        texts: what else is written beside, by what the file's name ends in.
        usage: lines of Python that use the files, by format, with ``{stem}`` for their common name; left out, lines
            that call this one.
    """

    network: nn.Module
    inputs: Callable[[int, Generator], Mapping[str, Tensor]]
    outputs: tuple[str, ...]
    about: str
    batched: tuple[str, ...] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    image_size: Sequence[int] | None = None
    resize: Sequence[int] | None = None
    normalize: Normalize | None = None
    part: str = "architecture"
    free: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)
    difference: Callable[[Sequence[Tensor], Sequence[Tensor]], float] | None = None
    name: str = ""
    others: Sequence[Exported] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    usage: Mapping[str, str] = field(default_factory=dict)


def refusal(task: Task, why: str) -> UserError:
    """The line that says why a task can't be exported, and what can."""
    return UserError(
        f"{type(task).__name__} can't be exported: {why}. What can: a network on images of one size, a generator, "
        "and any task with an `exported` of its own"
    )


def exported_network(task: Task) -> Exported:
    """A task's call with images of the facts' size, or its generator's with noise; its role names the outputs.

    Raises:
        UserError: its network is called with something else, or a fact is missing.
    """
    part = "architecture" if "architecture" in task.factories else _generator_of(task) or "architecture"
    name = task.role_of(part)
    role = contracts.role(name) if name else None
    if role is None or role.input_names == IMAGES:
        return _on_images(task, role)
    if name in DETECTORS and class_of(task.factories.get(part, Architecture)).traceable is not Architecture.traceable:
        return _of_detector(task, part, role)
    if not role.input_names:
        raise refusal(task, f"a {role.name} can't be traced by itself, called as {role.about.split(' -> ')[0]}")
    return _by_role(task, part, role)


def _generator_of(task: Task) -> str | None:
    return next((name for name in task.factories if task.role_of(name) == "generator"), None)


def _has_forward(task: Task) -> bool:
    return type(task).forward is not LightningModule.forward


def _on_images(task: Task, role: contracts.Role | None) -> Exported:
    if not _has_forward(task):
        raise refusal(task, "it has no forward that takes images")
    if missing := [fact for fact in ("image_size", "in_channels") if fact not in task.facts]:
        raise UserError(f"{type(task).__name__} can't be exported: {missing[0]} of its images is not known")
    size, channels = list(task.facts["image_size"]), task.facts["in_channels"]
    return Exported(
        task,
        lambda count, generator: {"images": torch.rand(count, channels, *size, generator=generator)},
        ("output",) if role is None else role.outputs,
        "images -> output" if role is None else role.about,
        notes={"images": "in [0, 1]"},
        image_size=size,
        normalize=next((m for m in task.children() if isinstance(m, Normalize)), None),
    )


def _by_role(task: Task, part: str, role: contracts.Role) -> Exported:
    """A network whose inputs are no pictures, as its role calls it; by the task's forward where it has one."""
    network, sizes = getattr(task, part), dict(task._made[part])
    if not takes(task.factories[part], "num_classes"):
        sizes.pop("num_classes", None)

    def inputs(count: int, generator: Generator) -> dict[str, Tensor]:
        try:
            values = role.inputs(network, sizes, count, generator)[0]
        except KeyError as error:
            raise UserError(f"{type(task).__name__} can't be exported: {error.args[0]} is not known") from error
        return dict(zip(role.input_names, values, strict=False))  # a call without labels has none

    notes: dict[str, Any] = {"z": "standard normal noise"} if role.name == "generator" else {}
    if sizes.get("num_classes"):
        notes["labels"] = f"from 0 to {sizes['num_classes'] - 1}"
    return Exported(task if _has_forward(task) else network, inputs, role.outputs, role.about, notes=notes, part=part)


class OnImages(nn.Module):
    """A network in its traceable form, on images in [0, 1].

    Args:
        normalize: the task's, if it has one.
        network: takes normalised images.
    """

    def __init__(self, normalize: Normalize | None, network: nn.Module) -> None:
        super().__init__()
        self.normalize, self.network = normalize, network

    def forward(self, images: Tensor) -> Any:
        """The network's outputs."""
        return self.network(images if self.normalize is None else self.normalize(images))


def _of_detector(task: Task, part: str, role: contracts.Role) -> Exported:
    """A detector on images of one size: the facts' or, without one, the network's."""
    network = getattr(task, part)
    size = task.facts.get("image_size") or network.traced_size
    if size is None:
        raise UserError(f"{type(task).__name__} can't be exported: image_size of its images is not known")
    channels = task.facts["in_channels"]
    normalize = next((m for m in task.children() if isinstance(m, Normalize)), None)
    return Exported(
        OnImages(normalize, network.traceable(size)),
        lambda count, generator: {"images": torch.rand(count, channels, *size, generator=generator)},
        role.outputs,
        f"images -> {', '.join(role.outputs)} of each object, highest score first",
        batched=None if network.traces_batches else (),
        notes={"images": "in [0, 1]", "boxes": "x1 y1 x2 y2 in pixels of the image", "masks": "probabilities"},
        image_size=list(size),
        normalize=normalize,
        part=part,
        difference=None if network.traces_batches else detections_apart,
    )


def detections_apart(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The share of detections that have no partner of their label, box and score among the others.

    A few are allowed: where scores are almost equal, rounding changes which of two boxes suppresses the other.

    Args:
        found: boxes (N, 4), scores (N,), labels (N,); what follows is compared if the detections are the same in order.
        expected: likewise.
    """
    if any(len(one) != len(found[1]) for one in found):
        return float("inf")
    if not len(found[1]) or not len(expected[1]):
        return float(len(found[1]) != len(expected[1]))
    same = (found[2][:, None] == expected[2]) & ((found[1][:, None] - expected[1]).abs() < NEAR["score"])
    same &= box_iou(found[0].double(), expected[0].double()) > NEAR["iou"]
    apart = 1 - float(torch.stack([same.any(0).double().mean(), same.any(1).double().mean()]).min())
    return 0.0 if apart <= REORDERED else apart
