"""Reading captions from files: tables, JSON, JSON lines, Flickr's token files, and texts beside pictures.

Each reader gives entries: a picture's file name, its sentences, and where they stand, for messages. What is wrong with
an entry goes to ``Faults``, and it is left out.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zoo.data.annotations import Faults
from zoo.data.files import picture_suffixes
from zoo.data.json_stream import json_members
from zoo.errors import UserError

# The names that people give to columns and keys, in lower case without spaces, dashes and underscores.
IMAGE = ("image", "images", "filename", "file", "imagename", "imagefile", "imagepath", "filepath", "path", "img",
         "picture", "photo")  # fmt: skip
CAPTION = ("caption", "captions", "text", "texts", "sentence", "sentences", "comment", "comments", "description",
           "descriptions", "references", "raw")  # fmt: skip
PART = ("split", "part", "subset")
ROLES: dict[str, tuple[str, ...]] = {"image": IMAGE, "caption": CAPTION, "part": PART}
JSON, LINES, TABLES = (".json",), (".jsonl", ".ndjson"), (".csv", ".tsv", ".txt", ".token")


class Entry(NamedTuple):
    """What a file says of a picture.

    Args:
        name: the picture's file.
        sentences: as they stand there, of any type.
        where: file and line or entry.
        part: the part that the entry names; empty if it names none.
        number: COCO's number of the picture, if it has one.
    """

    name: str
    sentences: Sequence[Any]
    where: str
    part: str = ""
    number: int | None = None


def read_captions(path: Path, faults: Faults, columns: Mapping[str, str] | None = None) -> Iterator[Entry]:
    """The entries of a file, in the format that its name and content say.

    Args:
        path: the file.
        faults: receives what is wrong with entries, which are left out.
        columns: names of the columns or keys ``image``, ``caption`` and ``part``, where they are unusual.

    Raises:
        UserError: the file can't be read, or has no captions.
    """
    names = {role: (_plain(columns[role]),) if role in (columns or {}) else known for role, known in ROLES.items()}  # type: ignore[index]
    if path.suffix.lower() in LINES:
        return _lines(path, faults, names)
    return _json(path, faults, names) if path.suffix.lower() in JSON else _table(path, faults, names)


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it can't be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} is not UTF-8 text: line {line} has the byte {error.object[error.start]:#04x}"
        ) from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error


@lru_cache(1000)  # the keys of every entry are the same
def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]", "", name).lower()


# Tables

_NUMBERED = re.compile(r"#[0-9]+$")


def _table(path: Path, faults: Faults, names: Mapping[str, Sequence[str]]) -> Iterator[Entry]:
    """A table with a header, or without one if its rows begin with pictures: comma-separated, with semicolons, tabs, or
    bars. Flickr's token files (``name.jpg#0``, a tab, a caption) are such tables.
    """
    text = text_of(path)
    delimiter = _delimiter(text.lstrip().partition("\n")[0], names)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter in "\t|" else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    places: dict[str, list[int]] | None = None
    try:
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if places is None:
                places = _columns(row, path, names)
                if _is_header(row):
                    continue
            yield from _row(row, places, delimiter, where, faults)
    except csv.Error as error:
        faults.add(f"{path}: line {reader.line_num}: {error}; the lines behind it are not read")


def _delimiter(first: str, names: Mapping[str, Sequence[str]]) -> str:
    """The character that makes most names of columns, or else of pictures, of the first line; captions have commas."""
    known = {name for some in names.values() for name in some}

    def fitting(one: str) -> tuple[int, int]:
        cells = [cell.strip().strip('"') for cell in first.split(one)]
        return sum(_plain(cell) in known or _is_picture_name(cell) for cell in cells), len(cells)

    return max("\t|;,", key=fitting)


def _is_header(row: Sequence[str]) -> bool:
    return not _is_picture_name(row[0])


def _is_picture_name(text: str) -> bool:
    return Path(_NUMBERED.sub("", text.strip())).suffix.lower() in picture_suffixes()


def _columns(row: Sequence[str], path: Path, names: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """The columns of pictures, captions and parts, by the header."""
    if not _is_header(row):
        if len(row) < 2:
            raise UserError(f"{path} has one column: expected pictures and captions")
        return {"image": [0], "caption": [len(row) - 1], "part": []}
    header = [_plain(name) for name in row]
    found = {role: [i for i, name in enumerate(header) if name in known] for role, known in names.items()}
    if not found["caption"]:  # several columns: caption1, caption2, …
        unnumbered = [re.sub(r"\d+$", "", name) for name in header]
        found["caption"] = [i for i, name in enumerate(unnumbered) if name in names["caption"] and name != header[i]]
    for role in ("image", "caption"):
        if not found[role]:
            listed = ", ".join(name.strip() for name in row)[:100]
            raise UserError(
                f"{path} has no column of {role}s: its first line is {listed!r}; name the columns by "
                "--data.columns '{image: …, caption: …}'"
            )
    return {**found, "image": found["image"][:1]}


def _row(
    row: list[str], places: Mapping[str, list[int]], delimiter: str, where: str, faults: Faults
) -> Iterator[Entry]:
    last = max(max(some, default=0) for some in places.values())
    if len(row) > last + 1 and last in places["caption"]:  # a caption with commas that nobody quoted
        row = [*row[:last], delimiter.join(row[last:])]
    if len(row) == last and last in places["caption"] and (torn := re.match(r"\s*\d+\s+(?=\S)", row[-1])):
        row = [*row[:-1], torn[0], row[-1][torn.end() :]]  # Flickr30k's table lacks a bar in one line
    if len(row) <= last:
        faults.add(f"{where}: it has {len(row)} of the {last + 1} columns")
        return
    name = _NUMBERED.sub("", row[places["image"][0]].strip())
    if not name:
        faults.add(f"{where}: it names no picture")
        return
    cells = [row[place] for place in places["caption"]]
    sentences = cells if len(cells) == 1 else [cell for cell in cells if cell.strip()] or cells[:1]
    yield Entry(name, sentences, where, row[places["part"][0]] if places["part"] else "")


# JSON


def _lines(path: Path, faults: Faults, names: Mapping[str, Sequence[str]]) -> Iterator[Entry]:
    """JSON lines: an object in each, as Hugging Face's ``metadata.jsonl``."""
    for number, line in enumerate(text_of(path).split("\n"), 1):
        where = f"{path}: line {number}"
        if line.strip():
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                faults.add(f"{where} is not JSON: {getattr(error, 'msg', 'nested too deeply')}")
            else:
                yield from _record(record, where, faults, names)


def _json(path: Path, faults: Faults, names: Mapping[str, Sequence[str]]) -> Iterator[Entry]:
    """A list of objects; an object of captions by picture; COCO's captions; or Karpathy's ``dataset_*.json``."""
    if not _is_list(path):
        yield from _members(path, faults, names)
        return
    try:
        records = json.loads(text_of(path))
    except (json.JSONDecodeError, RecursionError) as error:
        place = f" at character {error.pos:,}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path} is not valid JSON{place}: {getattr(error, 'msg', 'nested too deeply')}") from error
    for number, record in enumerate(records, 1):
        yield from _record(record, f"{path}: entry {number}", faults, names)


def _is_list(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(1 << 10).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error


def _members(path: Path, faults: Faults, names: Mapping[str, Sequence[str]]) -> Iterator[Entry]:
    coco, count, found = _Coco(path, faults), 0, False
    for key, value in json_members(path):
        count += 1
        where = f"{path}: entry {count}"
        if isinstance(value, dict) and key in ("images", "annotations") and coco.takes(key, value):
            continue
        if isinstance(value, dict) and _key_of(value, names["image"]) is not None:
            found = True
            yield from _record(value, where, faults, names)
        elif _is_picture_name(key):
            found = True
            given = _value(value, names["caption"]) if isinstance(value, dict) else value
            yield Entry(key, given if isinstance(given, list) else [given], f"{path}: {key}")
    yield from coco.entries()
    if not found and not coco.images:
        raise UserError(f"{path} has no captions: expected COCO's format, a list of objects, or captions by picture")


def _key_of(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    known = {_plain(key): key for key in record}
    return next((known[name] for name in names if name in known), None)


def _value(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    key = _key_of(record, names)
    return None if key is None else record[key]


def _record(record: Any, where: str, faults: Faults, names: Mapping[str, Sequence[str]]) -> Iterator[Entry]:
    """An object with a picture and its captions, which may be objects themselves, as Karpathy's."""
    if not isinstance(record, dict):
        faults.add(f"{where}: it is {str(record)[:40]!r}, not an object")
        return
    name, given = _value(record, names["image"]), _value(record, names["caption"])
    if not isinstance(name, str) or not name.strip():
        faults.add(f"{where}: it names no picture: expected a key as 'image' with a file's name")
        return
    if given is None:
        faults.add(f"{where}: {name} has no captions: expected a key as 'caption'")
        return
    sentences = given if isinstance(given, list) else [given]
    # Karpathy's have the words as tokens, too; the sentence itself is called raw.
    inner = ("raw", *names["caption"], *CAPTION)
    sentences = [_value(one, inner) if isinstance(one, dict) else one for one in sentences]
    if isinstance(folder := record.get("filepath"), str) and "filename" in record:
        name = f"{folder}/{record['filename']}"
    part, number = _value(record, names["part"]), record.get("cocoid")
    known = number if type(number) is int else None
    yield Entry(name, sentences, where, part if isinstance(part, str) else "", known)


class _Coco:
    """The images and annotations of COCO's captions, which refer to each other."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self.path, self.faults = path, faults
        self.images: dict[int, str] = {}
        self.sentences: dict[int, list[tuple[Any, Any]]] = {}  # of each image: its captions' ids, and the captions
        self.ids: set[int] = set()
        self.captions = 0

    def takes(self, key: str, entry: Mapping[str, Any]) -> bool:
        """Whether it is an image or an annotation of COCO's, which is then kept."""
        if key == "annotations":
            if "image_id" not in entry or _key_of(entry, IMAGE) is not None:
                return False
            self._annotation(entry)
            return True
        if "id" not in entry or _key_of(entry, CAPTION) is not None:
            return False
        self._image(entry)
        return True

    def _image(self, entry: Mapping[str, Any]) -> None:
        number, name = entry["id"], entry.get("file_name")
        if type(number) is not int or not isinstance(name, str) or not name:
            self._wrong("image", number, "it needs an id, which is an integer, and a file_name")
        elif number in self.images:
            self._wrong("image", number, "another image has this id, too")
        else:
            self.images[number] = name

    def _annotation(self, entry: Mapping[str, Any]) -> None:
        number, image = entry.get("id"), entry["image_id"]
        if "caption" not in entry:
            return
        self.captions += 1
        if type(image) is not int:
            self._wrong("annotation", number, "its image_id must be an integer")
        elif number in self.ids:
            self._wrong("annotation", number, "another annotation has this id, too")
        else:
            if type(number) is int:
                self.ids.add(number)
            self.sentences.setdefault(image, []).append((number, entry["caption"]))

    def _wrong(self, kind: str, number: Any, what: str) -> None:
        self.faults.add(f"{self.path}: {kind} {str(number)[:40]}: {what}")

    def entries(self) -> Iterator[Entry]:
        """For each caption one, so that messages name it; an image without any has one without sentences."""
        if self.images and not self.captions:
            raise UserError(f"{self.path} has no captions: it is of another kind of COCO's files")
        for image, captions in self.sentences.items():
            if image not in self.images:
                for number, _ in captions:
                    self._wrong("annotation", number, f"its image_id {image} is not among the images")
        for image, name in self.images.items():
            for number, caption in self.sentences.get(image, ()):
                yield Entry(name, [caption], f"{self.path}: annotation {number}", number=image)
            if image not in self.sentences:
                yield Entry(name, [], f"{self.path}: image {image}", number=image)
