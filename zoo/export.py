"""A checkpoint as one file that runs without the zoo, in ONNX or as a ``torch.export`` program.

The task says what is written (``Task.exported``): as a rule its network on images in [0, 1], normalisation included.
The file also holds a description: how to prepare a picture, what inputs and outputs are, and where all this comes from.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from zoo.errors import UserError
from zoo.export_formats import BATCH, RUNNERS, SUFFIXES, WRITERS, Port, first_line, quiet, tensors_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from zoo.tasks.base import Task
    from zoo.tasks.exported import Exported

Format = Literal["onnx", "torch_export"]

# Relative to the largest output. Kernels differ in the order of their sums; a wrong operator differs by far more.
TOLERANCE = 1e-3


class Written(NamedTuple):
    """A file that was written.

    Args:
        difference: as ``export`` returns it.
        inputs: in the order of the call.
        outputs: in their order.
        described: what the file says of itself.
        path: where it is.
        others: further files of the same task.
        texts: where the texts beside are.
        usage: lines of Python that use them; empty where calling this file is all.
    """

    difference: float | None
    inputs: list[Port]
    outputs: list[Port]
    described: dict[str, str]
    path: Path
    others: Sequence[Written] = ()
    texts: Sequence[Path] = ()
    usage: str = ""


@dataclass(frozen=True)
class _Plan:
    """What is traced: of which task, with how many samples, and which inputs accept any number."""

    task: Task
    exported: Exported
    count: int
    free: tuple[str, ...]


def export(
    task: Task | str | Path,
    path: str | Path,
    format: Format = "onnx",
    batch_size: int | None = None,
    resize: Sequence[int] | None = None,
) -> float | None:
    """Write what a task says is to be exported into one file that describes itself, and compare the two.

    Args:
        task: a built task, or the checkpoint of one.
        path: the file to write; it must not exist. A task of several files has them beside it, each with its name.
        format: ``onnx``, or ``torch_export`` for a ``.pt2`` that ``torch.export.load`` reads.
        batch_size: the only one that the file accepts; left out, it accepts any.
        resize: height and width that pictures had before their centre was cropped to the task's image size, for the
            description; left out, what the task says, else they had that size.

    Returns:
        The largest difference of the file's outputs from the network's, relative to the largest output; None where
        it could not be checked, since onnxruntime is not installed.

    Raises:
        UserError: the task has nothing that can be exported, something that the format needs is not installed, the
            file is there already, or what came out does not agree with the network (nothing is left behind then).
    """
    written = write(task, path, format, batch_size, resize)
    found = [one.difference for one in (written, *written.others)]
    return max((one for one in found if one is not None), default=None)


def write(
    task: Task | str | Path,
    path: str | Path,
    format: Format = "onnx",
    batch_size: int | None = None,
    resize: Sequence[int] | None = None,
) -> Written:
    """As ``export``, and give back what it has written; the arguments are the same."""
    from zoo.training.restore import load

    path = Path(path)
    _check_door(format, batch_size)
    task = load(task) if isinstance(task, str | Path) else _own_copy(task)
    first = task.exported()
    plans = {_beside(path, one.name): _plan(task, one, batch_size) for one in (first, *first.others)}
    texts = {path.with_name(f"{path.stem}.{name}"): text for name, text in first.texts.items()}
    if there := [one for one in (*plans, *texts) if one.exists()]:
        raise UserError(f"{there[0]} is there already, and nothing is overwritten: give another name")
    try:
        written, *others = [_write(plan, one, format, resize) for one, plan in plans.items()]
        for one, text in texts.items():
            one.write_text(text, encoding="utf-8")
    except BaseException as error:
        for one in (*plans, *texts):
            one.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"{path} can't be written: {error.strerror or error}") from error
        raise
    usage = first.usage.get(format, "").format(stem=path.with_suffix(""))
    return written._replace(others=others, texts=[*texts], usage=usage)


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}{path.suffix}") if name else path


def _write(plan: _Plan, path: Path, format: Format, resize: Sequence[int] | None) -> Written:
    from zoo.training.checkpoints import whole_file

    program = _traced(plan)
    inputs, outputs = _ports(program, plan)
    described = describe(plan.task, plan.exported, inputs, outputs, resize)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        WRITERS[format](program, temporary, described, inputs, outputs)
        return Written(_difference(plan, temporary, format), inputs, outputs, described, path)


def _check_door(format: str, batch_size: int | None) -> None:
    if format not in SUFFIXES:
        raise UserError(f"export writes {' or '.join(SUFFIXES)}, not {format}")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}")
    if format == "onnx" and (missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]):
        raise UserError(f"ONNX needs {' and '.join(missing)}: pip install 'lightning-zoo[export]'")


def _own_copy(task: Task) -> Task:
    """A copy on the CPU in float32 and evaluation mode, so that a task in training stays as it is."""
    if not task._built:
        task.configure_model()
    return deepcopy(task).cpu().float().eval()


def _plan(task: Task, exported: Exported, batch_size: int | None) -> _Plan:
    """One of the files that the task says are exported, checked.

    Raises:
        UserError: it says nothing, its names are not fit for a file, or its number of samples is fixed.
    """
    name = type(task).__name__
    inputs = list(exported.inputs(1, _generator(0)))
    for found in (names := [*inputs, *exported.outputs]):
        if not found.isidentifier() or names.count(found) > 1:
            raise UserError(f"{name}.exported: {found!r} is not a name of one input or output alone, as Python's are")
    batched = tuple(inputs) if exported.batched is None else exported.batched
    if stray := [n for n in batched if n not in inputs]:
        raise UserError(f"{name}.exported: batched names {stray[0]}, but the inputs are {', '.join(inputs)}")
    if not batched and batch_size is not None:
        raise UserError(f"batch_size: a file of {name} takes the one number of samples that the task says")
    # Two samples: a batch of one would be taken for a constant.
    return _Plan(task, exported, batch_size or (2 if batched else 1), batched if batch_size is None else ())


# What the file says of itself


def describe(
    task: Task,
    exported: Exported,
    inputs: Sequence[Port] = (),
    outputs: Sequence[Port] = (),
    resize: Sequence[int] | None = None,
) -> dict[str, str]:
    """Name and text of all that one must know to use the file; what is no text is JSON.

    Args:
        task: a built task.
        exported: what is written of it.
        inputs: of the file.
        outputs: of the file.
        resize: as in ``export``.
    """
    from zoo import __version__
    from zoo.factories import spec

    values: dict[str, Any] = {
        "zoo_version": __version__,
        "task": spec(type(task))["class_path"],
        "architecture": spec(task.factories.get(exported.part)),
        "in_channels": task.facts.get("in_channels"),
        "image_size": exported.image_size or task.facts.get("image_size"),
        **_picture_facts(task, exported, resize),
        "class_names": task.facts.get("class_names"),
        "inputs": [port._asdict() for port in inputs],
        "outputs": [port._asdict() for port in outputs],
        "output": ", ".join(port.name for port in outputs),
        "about": exported.about,
        "mean": _plain(exported, "mean"),
        "std": _plain(exported, "std"),
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items() if v is not None}


def _picture_facts(task: Task, exported: Exported, resize: Sequence[int] | None) -> dict[str, Any]:
    """How a picture becomes an input, where the file takes images of one size."""
    if exported.image_size is None:
        return {}
    size, channels = list(exported.image_size), task.facts.get("in_channels", 3)
    center = task.predict_view == "center"
    before = list(resize or exported.resize or size) if center else size
    return {"resize": before, "preprocessing": preprocessing(size, before, channels, center)}


def _plain(exported: Exported, name: str) -> list[float] | None:
    if exported.normalize is None:
        return None
    values: Tensor = getattr(exported.normalize, name)
    return [round(v, 6) for v in values.flatten().tolist()]


def preprocessing(size: Sequence[int], resize: Sequence[int], channels: int, center: bool = True) -> str:
    """What is to be done with a picture, in words.

    Args:
        size: height and width of the network's images.
        resize: the same before the crop.
        channels: of the images.
        center: the network sees the central part of a picture, else all of it, whatever its proportions.
    """
    colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    steps = [
        "crop the largest central region of this aspect ratio" if center else "",
        f"resize {'' if center else 'all of it '}to {resize[0]}x{resize[1]} (bilinear, antialiased)",
        f"crop the central {size[0]}x{size[1]}" if list(size) != list(resize) else "",
        f"{colour}, channels first, float32 in [0, 1] (bytes divided by 255)",
        "no further normalisation: mean and std are applied inside",
    ]
    return "; ".join(step for step in steps if step)


def _ports(program: ExportedProgram, plan: _Plan) -> tuple[list[Port], list[Port]]:
    """The program's inputs and outputs.

    Raises:
        UserError: there are not as many outputs as the task names.
    """
    found = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    inputs = [found[str(name)] for name in program.graph_signature.user_inputs]
    outputs = [found[str(name)] for name in program.graph_signature.user_outputs]
    names = plan.exported.outputs
    if len(names) == 1 < len(outputs):
        names = tuple(f"{names[0]}_{i}" for i in range(len(outputs)))
    if len(names) != len(outputs):
        raise UserError(f"{type(plan.task).__name__} gives {len(outputs)} outputs, but names {', '.join(names)}")
    given = list(_inputs(plan, plan.count))
    sizes: dict[str, str] = {}
    for name, tensor in zip(given, inputs, strict=True):
        axes = {**plan.exported.free.get(name, {}), **({0: BATCH} if name in plan.free else {})}
        sizes |= {str(tensor.shape[axis]): size for axis, size in axes.items()}

    def port(name: str, tensor: Tensor) -> Port:
        shape: list[int | str] = [n if isinstance(n, int) else sizes.get(str(n), "any") for n in tensor.shape]
        return Port(name, str(tensor.dtype).removeprefix("torch."), shape, plan.exported.notes.get(name, ""))

    return [port(*one) for one in zip(given, inputs, strict=True)], [port(*o) for o in zip(names, outputs, strict=True)]


# Tracing and writing


def _generator(seed: int) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)


def _inputs(plan: _Plan, count: int, seed: int = 0) -> dict[str, Tensor]:
    return dict(plan.exported.inputs(count, _generator(seed)))


def _with_names(network: nn.Module, names: Sequence[str]) -> nn.Module:
    """The call alone, of a task's trainer and metrics nothing; with named arguments, and tensors only in its output."""
    from torch import nn

    class Network(nn.Module):
        """What is traced."""

        def __init__(self) -> None:
            super().__init__()
            self.task = network

        def forward(self, *inputs: Tensor) -> Any:
            """The output, or a tuple of several."""
            found = tensors_of(self.task(*inputs))
            return found[0] if len(found) == 1 else found

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in ("self", *names)]
    Network.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # torch.export's names
    return Network().eval()


def _traced(plan: _Plan) -> ExportedProgram:
    import torch

    inputs, free = _inputs(plan, plan.count), plan.exported.free
    batch, sizes = torch.export.Dim("batch", min=1), {size for axes in free.values() for size in axes.values()}
    others = {size: torch.export.Dim(size, min=0, max=plan.exported.most.get(size)) for size in sizes}
    shapes = {name: {axis: others[size] for axis, size in free.get(name, {}).items()} for name in inputs}
    for name in plan.free:
        shapes[name][0] = batch
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(
                _with_names(plan.exported.network, list(inputs)), tuple(inputs.values()), dynamic_shapes=shapes
            )
    except Exception as error:  # the tracer's errors have no base in common
        remedy = " (--batch_size N fixes the number of images)" if plan.free else ""
        raise UserError(f"{type(plan.task).__name__} can't be traced: {first_line(error)}{remedy}") from error


# Reading back


def _difference(plan: _Plan, path: Path, format: str) -> float | None:
    """How far the written file is from the network, on other inputs, at two batch sizes where it takes any."""
    if format == "onnx" and find_spec("onnxruntime") is None:
        return None
    try:
        run = RUNNERS[format](path)
        worst = max(_apart(plan, run, count) for count in ((1, 3) if plan.free else (plan.count,)))
    except Exception as error:  # whatever a runtime raises, the file is of no use
        raise UserError(f"what was written can't be run: {first_line(error)}") from error
    if not worst <= TOLERANCE:  # also where it is no number
        raise UserError(f"what was written does not agree with the network (relative difference {worst:.1g})")
    return worst


def _apart(plan: _Plan, run: Any, count: int) -> float:
    import torch

    inputs = _inputs(plan, count, seed=count)
    with torch.no_grad():
        expected = tensors_of(plan.exported.network(*inputs.values()))
    found = run(inputs)
    if plan.exported.difference is not None:
        return plan.exported.difference(found, expected)
    if [(t.shape, t.dtype) for t in found] != [(t.shape, t.dtype) for t in expected]:
        return float("inf")
    return max(_tensors_apart(*pair) for pair in zip(found, expected, strict=True))


def _tensors_apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference relative to the largest value; of whole numbers the share of those that differ."""
    if not expected.numel():
        return 0.0
    if not expected.is_floating_point():
        return float((found != expected).double().mean())
    return float((found - expected).abs().max()) / max(float(expected.abs().max()), 1e-12)
