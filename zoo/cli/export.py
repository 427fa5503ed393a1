"""``zoo export``: write the network of a checkpoint as a file that runs without the zoo, and say how it is used."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.parser import Parser
from zoo.errors import UserError
from zoo.export import SUFFIXES, export

if TYPE_CHECKING:
    from zoo.tasks.base import Task


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
        apart = export(task, path, chosen, options.batch_size, _resize_of(record))
    except UserError:
        if options.out is None:
            with suppress(OSError):  # a run's folder that stays empty would tell of a run that was none
                path.parent.rmdir()
        raise
    print("\n".join(_report(task, path, chosen, options.batch_size, apart)))
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


def _report(task: Task, path: Path, chosen: str, batch_size: int | None, apart: float | None) -> list[str]:
    size, channels = task.facts["image_size"], task.facts["in_channels"]
    shape = f"({batch_size or 'any'}, {channels}, {size[0]}, {size[1]})"
    checked = "no: onnxruntime is not installed (pip install 'lightning-zoo[export]')"
    if apart is not None:
        checked = f"agrees with the network {f'to {apart:.0e} of the largest output' if apart else 'exactly'}"
    return [
        f"file     {path}",
        f"input    images, float32 {shape}, in [0, 1]",
        "metadata class names, preprocessing and more, inside the file",
        f"checked  {checked}",
        "use it",
        *(f"  {line}" for line in _USE[chosen].format(path=path).splitlines()),
    ]


_USE = {
    "onnx": """\
import onnxruntime
file = "{path}"
session = onnxruntime.InferenceSession(file)
(logits,) = session.run(None, {{"images": images}})
print(session.get_modelmeta().custom_metadata_map["preprocessing"])""",
    "torch_export": """\
import json, torch
file, described = "{path}", {{"zoo.json": ""}}
network = torch.export.load(file, extra_files=described).module()
logits = network(images)
print(json.loads(described["zoo.json"])["preprocessing"])""",
}
