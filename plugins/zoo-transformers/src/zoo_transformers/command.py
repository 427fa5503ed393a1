"""``zoo tokenizer``: the tokeniser of pretrained weights as a file that the zoo's captioning data read."""

from __future__ import annotations

from pathlib import Path

from zoo.cli.parser import Parser
from zoo.errors import UserError


def main(argv: list[str]) -> int:
    """``zoo tokenizer NAME FILE``: write the tokeniser of a repository on huggingface.co.

    Args:
        argv: the arguments after ``zoo tokenizer``.

    Raises:
        UserError: it can't be read, or the file is there already.
    """
    parser = Parser("tokenizer", "Write the tokeniser of pretrained weights as a file for the zoo's captioning data.")
    parser.add_argument("name", help="a repository on huggingface.co, or a folder that save_pretrained wrote")
    parser.add_argument("file", type=Path, help="to write, such as tokenizer.json")
    options = parser.parse_args(argv)
    if options.file.exists():
        raise UserError(f"{options.file} is there already; it is not overwritten")
    from zoo_transformers.tokenizers import read

    found = read(options.name)
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text(found.text, encoding="utf-8")
    print(f"{options.file}: {len(found.vocabulary):,} tokens")
    return 0
