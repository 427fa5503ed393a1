"""``zoo export``: write the network of a checkpoint as a file that runs without the zoo, and say how it is used."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from zoo.cli.parser import Parser
from zoo.errors import UserError
from zoo.export import Written, write
from zoo.export_formats import BATCH, SUFFIXES, Port

SHOWN = 4  # inputs of a file that are printed


def main(argv: Sequence[str]) -> int:
    """``zoo export --ckpt_path FILE``: write the file, and say where it is and how it is used.

    Returns:
        0.

    Raises:
        UserError: as ``export``, and for a checkpoint that is missing or damaged.
    """
    options = parser().parse_args(argv)
    chosen = _format(options.format, options.out)
    from zoo.training.checkpoints import find_last, read, resolve, run_record
    from zoo.training.restore import load

    checkpoint = find_last(Path("runs")) if options.ckpt_path == "last" else resolve(options.ckpt_path)
    record = run_record(read(checkpoint))
    task = load(checkpoint)
    path = _place(options.out, chosen, str(record.get("recipe_name") or type(task).__name__))
    try:
        written = write(task, path, chosen, options.batch_size, task.exported().resize or _resize_of(record))
    except UserError:
        if options.out is None:
            with suppress(OSError):  # a run's folder that stays empty would tell of a run that was none
                path.parent.rmdir()
        raise
    print("\n".join(_report(chosen, written)))
    return 0


def parser() -> Parser:
    """The command's options, read by shell completion, too."""
    made = Parser(
        "export", "Write the network of a checkpoint, normalisation included, as one file that runs without the zoo."
    )
    made.add_argument("--ckpt_path", required=True, metavar="FILE", help="checkpoint, run folder, or: last")
    made.add_argument("--format", choices=tuple(SUFFIXES), help="default: what --out ends in, else onnx")
    made.add_argument("--out", metavar="PATH", help="file to write; default: runs/export-<recipe>/<time>/model.onnx")
    made.add_argument(
        "--batch_size", type=_batch_size, metavar="N", help="images a call, or: dynamic (the default), for any number"
    )
    return made


def _batch_size(text: str) -> int | None:
    try:
        return None if text == "dynamic" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or dynamic, not {text}") from None


def _format(given: str | None, out: str | None) -> Any:
    by_name = {suffix: name for name, suffix in SUFFIXES.items()}
    said = by_name.get(Path(out).suffix) if out else None
    if given and said and given != said:
        raise UserError(f"--out {out} ends in {SUFFIXES[said]}, but --format is {given}: say only one of them")
    return given or said or "onnx"


def _place(out: str | None, chosen: str, label: str) -> Path:
    from zoo.training.run_folder import new_folder

    name = f"model{SUFFIXES[chosen]}"
    if out is None:
        return new_folder(Path("runs") / f"export-{label}") / name
    return Path(out) if Path(out).suffix and not Path(out).is_dir() else Path(out) / name


def _resize_of(record: dict[str, Any]) -> list[int] | None:
    """The size of the run's evaluation pictures, before their crop."""
    resize = ((record.get("data") or {}).get("init_args") or {}).get("resize")
    return [resize, resize] if isinstance(resize, int) else None


def _report(chosen: str, written: Written) -> list[str]:
    checked, apart = "no: onnxruntime is not installed (pip install 'lightning-zoo[export]')", _apart(written)
    if apart is not None:
        checked = f"agrees with the network {f'to {apart:.0e} of the largest output' if apart else 'exactly'}"
    return [
        *(line for one in _all(written) for line in (f"file     {one.path}", *_inputs(one))),
        *(f"file     {path}" for path in written.texts),
        "metadata class names, preprocessing and more, inside the file",
        f"checked  {checked}",
        "use it",
        *(f"  {line}" for line in (written.usage or _use(written.path, chosen, written)).splitlines()),
    ]


def _all(written: Written) -> list[Written]:
    return [written, *written.others]


def _inputs(written: Written) -> list[str]:
    ports, left_out = written.inputs[:SHOWN], len(written.inputs) - SHOWN
    more = [f"         and {left_out} more, which the description inside lists"] if left_out > 0 else []
    return [*(f"input    {_told(port)}" for port in ports), *more]


def _apart(written: Written) -> float | None:
    return max((one.difference for one in _all(written) if one.difference is not None), default=None)


def _told(port: Port) -> str:
    shape = ", ".join("any" if size == BATCH else str(size) for size in port.shape)
    return f"{port.name}, {port.dtype} ({shape})" + (f", {port.about}" if port.about else "")


def _use(path: Path, chosen: str, written: Written) -> str:
    inputs, outputs = [port.name for port in written.inputs], [port.name for port in written.outputs]
    return _USE[chosen].format(
        path=path,
        inputs=", ".join(inputs),
        feed=", ".join(f'"{name}": {name}' for name in inputs),
        outputs=", ".join(outputs),
        listed=", ".join(outputs) if len(outputs) > 1 else f"({outputs[0]},)",
        key="preprocessing" if "preprocessing" in written.described else "about",
    )


_USE = {
    "onnx": """\
import onnxruntime
file = "{path}"
session = onnxruntime.InferenceSession(file)
{listed} = session.run(None, {{{feed}}})
print(session.get_modelmeta().custom_metadata_map["{key}"])""",
    "torch_export": """\
import json, torch
file, described = "{path}", {{"zoo.json": ""}}
network = torch.export.load(file, extra_files=described).module()
{outputs} = network({inputs})
print(json.loads(described["zoo.json"])["{key}"])""",
}
