"""The two formats that ``export`` writes: how a traced program becomes a file, and how the file is run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch_export": ".pt2"}
EXTRA_FILE = "zoo.json"  # where a .pt2 file keeps its description
ONNX_BYTES = 1536 * 2**20  # from here on torch writes the weights into a second file
BATCH = "batch"  # in a shape, the number of samples

Runner = Callable[[Mapping[str, "Tensor"]], "Sequence[Tensor]"]


class Port(NamedTuple):
    """An input or output of a file.

    Args:
        name: of it.
        dtype: of its values, as ``float32``.
        shape: its sizes; ``batch`` where they are the number of samples, ``any`` where they depend on the values; other
            words for sizes that are free.
        about: its range or unit; empty where none is told.
    """

    name: str
    dtype: str
    shape: list[int | str]
    about: str


def tensors_of(found: Any) -> tuple[Tensor, ...]:
    """The tensors of a network's output, whatever they are nested in, in its order."""
    import torch
    from torch.utils._pytree import tree_leaves

    return tuple(leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor))


def _write_onnx(
    program: ExportedProgram, path: Path, described: dict[str, str], inputs: list[Port], outputs: list[Port]
) -> None:
    import torch

    size = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    if size > ONNX_BYTES:
        raise UserError(
            f"one ONNX file holds at most {ONNX_BYTES / 2**30:.1f} GiB, this network has {size / 2**30:.1f} "
            "(--format torch_export)"
        )
    options: dict[str, Any] = {"input_names": [p.name for p in inputs], "output_names": [p.name for p in outputs]}
    named = [{axis: n for axis, n in enumerate(port.shape) if isinstance(n, str)} for port in inputs]
    if any(named):  # the axes' names; the program says already that they are free
        options["dynamic_shapes"] = tuple(named)
    try:
        with torch.no_grad(), quiet():
            written = torch.onnx.export(program, dynamo=True, verbose=False, **options)
    except Exception as error:
        raise UserError(f"the network can't be written as ONNX: {first_line(error)} (--format torch_export)") from error
    assert written is not None
    written.model.metadata_props.update(described)
    written.save(path)


def _write_torch(
    program: ExportedProgram, path: Path, described: dict[str, str], inputs: list[Port], outputs: list[Port]
) -> None:
    import torch

    with path.open("wb") as file, quiet():
        torch.export.save(program, file, extra_files={EXTRA_FILE: json.dumps(described)})


WRITERS: dict[str, Callable[..., None]] = {"onnx": _write_onnx, "torch_export": _write_torch}


def first_line(error: BaseException) -> str:
    """What a library's error says, shortened to a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
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


def _onnx_runner(path: Path) -> Runner:
    import onnxruntime
    import torch

    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: [
        torch.from_numpy(a) for a in session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    ]


def _torch_runner(path: Path) -> Runner:
    import torch

    with path.open("rb") as file, quiet():
        network = torch.export.load(file).module()
    return lambda inputs: [tensor.detach() for tensor in tensors_of(network(*inputs.values()))]


RUNNERS: dict[str, Callable[[Path], Runner]] = {"onnx": _onnx_runner, "torch_export": _torch_runner}
