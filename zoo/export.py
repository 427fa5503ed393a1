"""A checkpoint as one file that runs without the zoo, in ONNX or as a ``torch.export`` program.

The file takes images in [0, 1] and holds the normalisation, the network, and a description of both: how to prepare a
picture, what the outputs mean, and where all this comes from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from zoo.tasks.base import Task
    from zoo.tasks.normalize import Normalize

Format = Literal["onnx", "torch_export"]

SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch_export": ".pt2"}
EXTRA_FILE = "zoo.json"  # where a .pt2 file keeps its description
# Relative to the largest output. Kernels differ in the order of their sums; a wrong operator differs by far more.
TOLERANCE = 1e-3
ONNX_BYTES = 1536 * 2**20  # from here on torch writes the weights into a second file


def export(
    task: Task | str | Path,
    path: str | Path,
    format: Format = "onnx",
    batch_size: int | None = None,
    resize: Sequence[int] | None = None,
) -> float | None:
    """Write a task's network, normalisation included, into one file that describes itself, and compare the two.

    Args:
        task: a built task, or the checkpoint of one.
        path: the file to write; it must not exist.
        format: ``onnx``, or ``torch_export`` for a ``.pt2`` that ``torch.export.load`` reads.
        batch_size: the only one that the file accepts; left out, it accepts any.
        resize: height and width that pictures had before their centre was cropped to the task's image size, for the
            description; left out, they had that size.

    Returns:
        The largest difference of the file's outputs from the network's, relative to the largest output; None where
        it could not be checked, since onnxruntime is not installed.

    Raises:
        UserError: the task takes no images of one size, something that the format needs is not installed, the file
            is there already, or what came out does not agree with the network (nothing is left behind then).
    """
    from zoo.training.checkpoints import whole_file
    from zoo.training.restore import load

    path = Path(path)
    _check_door(path, format, batch_size)
    task = load(task) if isinstance(task, str | Path) else _own_copy(task)
    described = describe(task, resize)
    program = _traced(task, batch_size)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            _WRITERS[format](program, temporary, described, batch_size)
            return _difference(task, temporary, format, batch_size)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror or error}") from error


def _check_door(path: Path, format: str, batch_size: int | None) -> None:
    if format not in SUFFIXES:
        raise UserError(f"export writes {' or '.join(SUFFIXES)}, not {format}")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}")
    if path.exists():
        raise UserError(f"{path} is there already, and nothing is overwritten: give another name")
    if format == "onnx" and (missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]):
        raise UserError(f"ONNX needs {' and '.join(missing)}: pip install 'lightning-zoo[export]'")


def _own_copy(task: Task) -> Task:
    """A copy on the CPU in float32 and evaluation mode, so that a task in training stays as it is."""
    if not task._built:
        task.configure_model()
    return deepcopy(task).cpu().float().eval()


# What the file says of itself


def describe(task: Task, resize: Sequence[int] | None = None) -> dict[str, str]:
    """Name and text of all that one must know to use the network; what is no text is JSON.

    Args:
        task: a built task.
        resize: as in ``export``.

    Raises:
        UserError: the task takes no images of one size.
    """
    from zoo import __version__
    from zoo.factories import spec
    from zoo.tasks.normalize import Normalize

    size, channels = _image_shape(task)
    normalize = next((m for m in task.modules() if isinstance(m, Normalize)), None)
    values: dict[str, Any] = {
        "zoo_version": __version__,
        "task": spec(type(task))["class_path"],
        "architecture": spec(task.factories.get("architecture")),
        "in_channels": channels,
        "image_size": size,
        "resize": list(resize or size),
        "preprocessing": preprocessing(size, list(resize or size), channels),
        "class_names": task.facts.get("class_names"),
        "output": _OUTPUTS.get(task.batch, "output"),
        "mean": _plain(normalize, "mean"),
        "std": _plain(normalize, "std"),
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items() if v is not None}


# What a single output is called, by the task's batch.
_OUTPUTS = {"classification": "logits", "semantic_segmentation": "logits"}


def _plain(normalize: Normalize | None, name: str) -> list[float] | None:
    values: Any = getattr(normalize, name, None)
    return None if values is None else [round(v, 6) for v in values.flatten().tolist()]


def preprocessing(size: Sequence[int], resize: Sequence[int], channels: int) -> str:
    """What is to be done with a picture, in words."""
    colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    steps = [
        "crop the largest central region of this aspect ratio",
        f"resize to {resize[0]}x{resize[1]} (bilinear, antialiased)",
        f"crop the central {size[0]}x{size[1]}" if list(size) != list(resize) else "",
        f"{colour}, channels first, float32 in [0, 1] (bytes divided by 255)",
        "no further normalisation: mean and std are applied inside",
    ]
    return "; ".join(step for step in steps if step)


def _image_shape(task: Task) -> tuple[list[int], int]:
    from lightning.pytorch import LightningModule

    name = type(task).__name__
    if type(task).forward is LightningModule.forward:
        raise UserError(f"{name} can't be exported: it has no forward that takes images")
    if missing := [fact for fact in ("image_size", "in_channels") if fact not in task.facts]:
        raise UserError(f"{name} can't be exported: {missing[0]} of its images is not known")
    return list(task.facts["image_size"]), task.facts["in_channels"]


# Tracing and writing


def _images(task: Task, count: int, seed: int = 0) -> Tensor:
    import torch

    size, channels = _image_shape(task)
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(seed))


def _traced(task: Task, batch_size: int | None) -> ExportedProgram:
    import torch
    from torch import nn

    class Network(nn.Module):
        """The forward alone: of a task's trainer and metrics nothing is traced."""

        def __init__(self) -> None:
            super().__init__()
            self.task = task

        def forward(self, images: Tensor) -> Any:
            """The task's output."""
            return self.task(images)

    batch = {0: torch.export.Dim("batch", min=1)} if batch_size is None else {}
    try:
        with torch.no_grad(), _quiet():
            # Two images: a batch of one would be taken for a constant.
            return torch.export.export(Network().eval(), (_images(task, batch_size or 2),), dynamic_shapes=(batch,))
    except Exception as error:  # the tracer's errors have no base in common
        remedy = " (--batch_size N fixes the number of images)" if batch_size is None else ""
        raise UserError(f"{type(task).__name__} can't be traced: {_reason(error)}{remedy}") from error


def _write_onnx(program: ExportedProgram, path: Path, described: dict[str, str], batch_size: int | None) -> None:
    import torch

    size = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    if size > ONNX_BYTES:
        raise UserError(
            f"one ONNX file holds at most {ONNX_BYTES / 2**30:.1f} GiB, this network has {size / 2**30:.1f} "
            "(--format torch_export)"
        )
    options: dict[str, Any] = {"input_names": ["images"], "output_names": _output_names(program, described["output"])}
    if batch_size is None:
        options["dynamic_shapes"] = ({0: "batch"},)  # the axis's name; the program says already that it is free
    try:
        with torch.no_grad(), _quiet():
            written = torch.onnx.export(program, dynamo=True, verbose=False, **options)
    except Exception as error:
        raise UserError(f"the network can't be written as ONNX: {_reason(error)} (--format torch_export)") from error
    assert written is not None
    written.model.metadata_props.update(described)
    written.save(path)


def _output_names(program: ExportedProgram, name: str) -> list[str]:
    count = len(program.graph_signature.user_outputs)
    return [name] if count == 1 else [f"{name}_{i}" for i in range(count)]


def _write_torch(program: ExportedProgram, path: Path, described: dict[str, str], batch_size: int | None) -> None:
    import torch

    with path.open("wb") as file, _quiet():
        torch.export.save(program, file, extra_files={EXTRA_FILE: json.dumps(described)})


_WRITERS: dict[str, Callable[..., None]] = {"onnx": _write_onnx, "torch_export": _write_torch}


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say about themselves."""
    import logging
    import warnings

    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# Reading back


def _difference(task: Task, path: Path, format: str, batch_size: int | None) -> float | None:
    """How far the written file is from the network, at two batch sizes where it takes any."""
    if format == "onnx" and find_spec("onnxruntime") is None:
        return None
    try:
        run = _RUNNERS[format](path)
        worst = max(_apart(task, run, count) for count in ((1, 3) if batch_size is None else (batch_size,)))
    except Exception as error:  # whatever a runtime raises, the file is of no use
        raise UserError(f"what was written can't be run: {_reason(error)}") from error
    if not worst <= TOLERANCE:  # also where it is no number
        raise UserError(f"what was written does not agree with the network (relative difference {worst:.1g})")
    return worst


def _apart(task: Task, run: Callable[[Tensor], list[Tensor]], count: int) -> float:
    import torch
    from torch.utils._pytree import tree_leaves

    images = _images(task, count, seed=count)
    with torch.no_grad():
        expected = [leaf for leaf in tree_leaves(task(images)) if isinstance(leaf, torch.Tensor)]
    found = run(images)
    if [t.shape for t in found] != [t.shape for t in expected]:
        return float("inf")
    pairs = zip(found, expected, strict=True)
    return max(float((f - e).abs().max()) / max(float(e.abs().max()), 1e-12) for f, e in pairs)


def _onnx_runner(path: Path) -> Callable[[Tensor], list[Tensor]]:
    import onnxruntime
    import torch

    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(a) for a in session.run(None, {"images": images.numpy()})]


def _torch_runner(path: Path) -> Callable[[Tensor], list[Tensor]]:
    import torch
    from torch.utils._pytree import tree_leaves

    with path.open("rb") as file, _quiet():
        network = torch.export.load(file).module()
    return lambda images: [leaf.detach() for leaf in tree_leaves(network(images))]


_RUNNERS: dict[str, Callable[[Path], Callable[[Tensor], list[Tensor]]]] = {
    "onnx": _onnx_runner,
    "torch_export": _torch_runner,
}
