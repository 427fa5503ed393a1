"""``zoo data check``: reads every file of a data set before a training needs them; ``zoo data export``: writes one with
boxes, masks or classes of pixels in another format.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.parser import Parser
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.data.base import Data, Split

ABOUT = "Read every sample of every part of a data set, list all that is wrong, and count its classes."
EXPORT = "Write a data set with boxes, masks or classes of pixels in another format, for other tools."
FORMATS = ("coco", "yolo", "voc")
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SHOWN = 16  # pictures of each part on a page


def main(argv: Sequence[str]) -> int:
    """``zoo data check`` and ``zoo data export``, of a recipe's data set or of one that ``--data`` names.

    Returns:
        0 if all can be read, else 1.

    Raises:
        UserError: no data set is named, or its folders can't be used.
    """
    words = list(argv)
    if words[:1] == ["export"] and not {"--help", "-h"} & {*words}:
        return export(words[1:])
    if words[:1] != ["check"] or "--help" in words or "-h" in words:
        parser().parse_args(words)
        raise UserError("zoo data: give `zoo data check --config RECIPE`, or --data NAME and its options")
    data, options = _data_and_options(words[1:], "check", _add_page)
    page = options.page
    path = _page_file(page) if page else None
    data.prepare_data()
    data.setup_to_check()
    if summary := data.summary():
        print(summary, flush=True)
    found = sum(_check(data, split) for split in SPLITS)
    if path:
        _write_page(data, path)
    print(_counted(found), flush=True)
    return int(found > 0)


def parser() -> Parser:
    """The command's options, without those of the data set's class."""
    made = Parser("data", "Check or convert a data set.")
    verbs = made.add_subparsers(metavar="WHAT")
    for name, about, add_own in (("check", ABOUT, _add_page), ("export", EXPORT, _add_export)):
        verb = verbs.add_parser(name, description=about)
        verb.add_argument("-c", "--config", help="Recipe's file or name")
        verb.add_argument("--data", help="Data set, with its options as --data.root FOLDER")
        add_own(verb)
    return made


def _add_page(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--page", metavar="FILE", help="Draw samples of each part with their targets to FILE, a new .png"
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="coco", help="Format of the annotations (default: coco)")
    parser.add_argument("--pictures", choices=("png", "jpg"), default="png", help="Format of the pictures")
    parser.add_argument("--out", metavar="FOLDER", help="New folder to write to (default: the data set's name)")


def export(argv: list[str]) -> int:
    """Write every part of a data set, as its samples are before augmentation.

    Raises:
        UserError: the folder exists, or the data has neither boxes nor classes of pixels.
    """
    from zoo.data.caption_data import CaptionData
    from zoo.data.object_data import AnnotatedImages
    from zoo.data.writing import WRITERS

    data, options = _data_and_options(argv, "export", _add_export)
    name = type(data).__name__
    if not isinstance(data, AnnotatedImages) or isinstance(data, CaptionData):
        raise UserError(f"{name} has neither boxes nor classes of pixels: there is nothing to export")
    out = Path(options.out or f"{name}-{options.format}")
    if out.exists():
        raise UserError(f"--out {out} exists already, and nothing is overwritten: give another name")
    data.prepare_data()
    data.setup_to_check()
    if "left out" in (summary := data.summary()):
        print(summary, flush=True)
    writer = WRITERS[options.format](out, list(data.facts["class_names"]), options.pictures)
    for split in SPLITS:
        samples = data.annotated(split)
        print(f"{split}: {'none' if samples is None else f'{writer.write(split, samples):,} pictures'}", flush=True)
    if writer.left_out:
        print("left out: " + ", ".join(f"{count:,} {what}" for what, count in writer.left_out.items()), flush=True)
    print(f"{options.format}  {out}", flush=True)
    return 0


def _data_and_options(
    argv: list[str], verb: str, add_own: Callable[[argparse.ArgumentParser], None]
) -> tuple[Data, Any]:
    """The data set that the arguments name, as ``zoo fit`` builds it, and the verb's own options."""
    from jsonargparse import SUPPRESS, ActionConfigFile

    from zoo.cli.arguments import spelt_out, with_recipe_files
    from zoo.data.base import Data
    from zoo.parsing import ZooParser, refuse_functions
    from zoo.parsing_errors import user_message

    parser = ZooParser(prog=f"zoo data {verb}")
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    parser.add_subclass_arguments(Data, "data", required=False, fail_untyped=False)
    add_own(parser)
    for other in ("model", "trainer", "seed_everything"):  # recipes have them
        parser.add_argument(f"--{other}", type=Any, default=None, help=SUPPRESS)
    options = parser.parse_args(with_recipe_files(spelt_out(argv)))
    refuse_functions(options.data)
    if options.data is None:
        raise UserError("no data: give a recipe (--config FILE) or --data NAME")
    try:
        return parser.instantiate(options).data, options
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(user_message(error)) from error


def _check(data: Data, split: Split) -> int:
    """Print what is wrong with a part's samples; how many problems there are."""
    samples = data.samples(split)
    if samples is None:
        print(f"{split}: none", flush=True)
        return 0
    found = data.check_samples(split)
    for line in found:
        print(f"{split}: {line}", flush=True)
    print(f"{split}: {len(samples):,} samples, {_counted(len(found))}", flush=True)
    for line in data.statistics(split):
        print(f"  {line}", flush=True)
    return len(found)


def _counted(problems: int) -> str:
    return "1 problem" if problems == 1 else f"{problems or 'no'} problems"


def _page_file(name: str) -> Path:
    """Where the page goes: a new file, PNG unless its name says otherwise. Found out before everything is read."""
    from PIL import Image

    path = Path(name)
    path = path if path.suffix else path.with_name(f"{path.name}.png")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise UserError(f"--page {path} can't be written: {path.suffix} is not a picture format; give a name.png")
    if path.exists():
        raise UserError(f"--page {path} exists already, and nothing is overwritten: give another name")
    if not path.parent.is_dir():
        raise UserError(f"--page {path} can't be written: the folder {path.parent} does not exist")
    return path


def _write_page(data: Data, path: Path) -> None:
    from zoo import drawing

    parts = {split: data.sample_pictures(split, SHOWN) for split in SPLITS if data.has_samples(split)}
    drawn = [drawing.captioned(drawing.grid(pictures), [split]) for split, pictures in parts.items() if pictures]
    if not drawn:
        raise UserError(f"{type(data).__name__} draws no samples")
    try:
        drawing.stacked(drawn).save(path)
    except (OSError, ValueError) as error:
        raise UserError(f"--page {path} can't be written: {error}") from error
    print(f"page  {path}", flush=True)
