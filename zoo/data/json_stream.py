"""Large JSON files, read in pieces: neither the text nor its objects are held in memory at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from zoo.errors import UserError

CHUNK = 1 << 20  # characters that are read at once; grows while a value does not fit
DELIMITERS = tuple(",:]} \t\r\n")  # what may stand behind a value
_decode = json.JSONDecoder().raw_decode


def json_members(path: Path | str) -> Iterator[tuple[str, Any]]:
    """The members of the object in a JSON file, in order; a list's elements come one by one, each with the list's key.

    Raises:
        UserError: the file can't be read, is not JSON, or is not an object.
    """
    try:
        if not Path(path).is_file():
            raise UserError(f"there is no file {path}")
        with open(path, encoding="utf-8-sig") as file:
            yield from _Text(path, file).members()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not JSON: it is not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error


class _Text:
    """The part of a file's text that is not read yet."""

    def __init__(self, path: Path | str, file: TextIO) -> None:
        self.path, self.file = path, file
        self.text, self.at, self.before, self.chunk = "", 0, 0, CHUNK

    def members(self) -> Iterator[tuple[str, Any]]:
        if self._next() != "{":
            raise UserError(f"{self.path}: expected a JSON object ({{…}})")
        for _ in self._separated("}"):
            if self._next() != '"':
                raise self._wrong("expected a key in quotes")
            key = self._value()
            if self._next() != ":":
                raise self._wrong("expected a colon")
            self.at += 1
            if self._next() == "[":
                yield from ((key, self._value()) for _ in self._separated("]"))
            else:
                yield key, self._value()
        if self._next():
            raise self._wrong("expected nothing behind the object")

    def _separated(self, end: str) -> Iterator[None]:
        """Step to each of the values between commas, up to the end of the object or list that starts here."""
        self.at += 1
        if self._next() == end:
            self.at += 1
            return
        while True:
            yield None
            found = self._next()
            if found not in (",", end):
                raise self._wrong(f"expected a comma or {end}")
            self.at += 1
            if found == end:
                return

    def _next(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        found = self.file.read(self.chunk)
        self.before += self.at
        self.text, self.at = self.text[self.at :] + found, 0
        return bool(found)

    def _value(self) -> Any:
        self._next()
        while True:
            start, self.chunk = self.at, CHUNK
            try:
                value, end = _decode(self.text, start)
            except (json.JSONDecodeError, RecursionError) as error:
                self.chunk = max(CHUNK, len(self.text))  # so that a long value is tried a few times only
                if not self._more():
                    message, place = getattr(error, "msg", "nested too deeply"), getattr(error, "pos", start)
                    raise self._wrong(message, place - start) from error
                continue
            if self.text[end : end + 1] in DELIMITERS or not self._more():  # a number may go on
                self.at += end - start
                return value

    def _wrong(self, message: str, further: int = 0) -> UserError:
        place = self.before + self.at + further
        return UserError(f"{self.path} is not valid JSON at character {place:,}: {message}")
