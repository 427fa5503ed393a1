"""``zoo diffusers``: trained networks as folders of Hugging Face's diffusers."""

from __future__ import annotations

from pathlib import Path

from zoo.cli.parser import Parser


def parser() -> Parser:
    """The options, with one subcommand."""
    made = Parser("diffusers", "Write trained networks in the format of Hugging Face's diffusers.")
    commands = made.add_subparsers(dest="what", required=True, metavar="COMMAND")
    write = commands.add_parser("write", description="Write network and scheduler of a checkpoint into a folder.")
    write.add_argument("checkpoint", type=Path, help="of a task with a network of this plugin")
    write.add_argument("folder", type=Path, help="to make")
    return made


def main(argv: list[str]) -> int:
    """``zoo diffusers write FILE FOLDER``: a trained network in diffusers' own format.

    Args:
        argv: the arguments after ``zoo diffusers``.

    Raises:
        UserError: the checkpoint can't be read, or has no network of this plugin.
    """
    options = parser().parse_args(argv)
    import zoo
    from zoo_diffusers.folders import write

    remarks = write(zoo.load(options.checkpoint), options.folder)
    print("\n".join([f"{options.folder}: written", *remarks]))
    return 0
