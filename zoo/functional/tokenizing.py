"""Tokenisers of captions: words, or subwords by the library ``tokenizers``.

Both turn a text into ids and back, and both are made anew from the facts of the data (``tokenizer_of``), so that a
checkpoint reads and writes captions without the data.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.facts import Facts

SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")  # in the order of padding, start, end and unknown
# How published subword tokenisers call the same four.
KNOWN_AS = (
    ("<pad>", "[PAD]", "<|padding|>"),
    ("<start>", "<s>", "[CLS]", "[BOS]", "<bos>", "<|startoftext|>", "[DEC]"),
    ("<end>", "</s>", "[SEP]", "[EOS]", "<eos>", "<|endoftext|>"),
    ("<unknown>", "<unk>", "[UNK]"),
)
JOINERS = "\u200c\u200d"  # invisible characters that belong to a word or an emoji; other invisible ones are left out
BYTES = 256


class Tokenizer(ABC):
    """A text as the ids of tokens, and back.

    Args:
        vocabulary: the tokens, in the order of their ids.
        pad_id: id of the padding.
        start_id: id of a caption's start.
        end_id: id of its end.
        unknown_id: id of whatever the vocabulary lacks.
    """

    def __init__(
        self, vocabulary: Sequence[str], pad_id: int = 0, start_id: int = 1, end_id: int = 2, unknown_id: int = 3
    ) -> None:
        self.vocabulary = list(vocabulary)
        self.pad_id, self.start_id, self.end_id, self.unknown_id = pad_id, start_id, end_id, unknown_id

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids up to the first end, without start, padding and unknown tokens."""
        kept, special = [], (self.start_id, self.pad_id, self.unknown_id)
        for one in map(int, ids):
            if one == self.end_id:
                break
            if one not in special:
                kept.append(one)
        return self._text(kept)

    @abstractmethod
    def _text(self, ids: list[int]) -> str:
        """The text of ids that are not special."""

    def facts(self) -> Facts:
        """The facts from which ``tokenizer_of`` makes it again."""
        return Facts(
            vocabulary=list(self.vocabulary),
            pad_id=self.pad_id,
            start_id=self.start_id,
            end_id=self.end_id,
            unknown_id=self.unknown_id,
        )


# Words


class WordTokenizer(Tokenizer):
    """Words in lower case, punctuation apart, much as in the Penn Treebank: ``it's`` is ``it`` and ``'s``.

    ``decode(encode(text))`` is the text up to upper case and white space, if the vocabulary has all its words. The
    typographic apostrophe becomes the plain one; invisible characters, but those that join letters or emoji, are left
    out. Characters are composed by Unicode's NFC. Texts that are written from right to left are stored in the order of
    reading like all others. Chinese and Japanese have no spaces: each of their characters is a token.

    Args:
        vocabulary: the tokens, in the order of their ids; among them the four special ones.
        ids: ``pad_id``, ``start_id``, ``end_id``, ``unknown_id``; default: the first four.
    """

    def __init__(self, vocabulary: Sequence[str], **ids: int) -> None:
        super().__init__(vocabulary, **ids)
        self._ids = {word: index for index, word in enumerate(self.vocabulary)}

    @classmethod
    def build(cls, sentences: Iterable[str], min_count: int = 1) -> WordTokenizer:
        """A tokeniser of the words that occur at least ``min_count`` times, the most frequent first.

        Raises:
            UserError: no word occurs so often.
        """
        counts = Counter(word for sentence in sentences for word in words(sentence))
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        if not kept:
            raise UserError(f"no word occurs {min_count} times or more: nothing to make a vocabulary of")
        return cls([*SPECIAL, *kept])

    def encode(self, text: str) -> list[int]:
        """The ids of a text's words, without start and end."""
        return [self._ids.get(word, self.unknown_id) for word in words(text)]

    def _text(self, ids: list[int]) -> str:
        return joined([self.vocabulary[one] for one in ids])


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text, in lower case."""
    if text.isascii():
        return _pattern(True).findall(text.lower())
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower()).replace("\u2019", "'")
    text = "".join(c for c in text if c in JOINERS or unicodedata.category(c) != "Cf")
    return _pattern(False).findall(text)


def joined(tokens: Sequence[str]) -> str:
    """Tokens as a text, without spaces before closing punctuation and contractions, and between Chinese characters."""
    text = ""
    for token in tokens:
        attached = not text or re.fullmatch(_ATTACHED, token) or text[-1] in "([{" or _both_unspaced(text[-1], token[0])
        text += token if attached else f" {token}"
    return text


_ATTACHED = re.compile(r"[.,!?;:)\]}%\u2026\u060c\u061b\u061f\u3002\uff0c]|n't|'(?:s|re|ve|ll|d|m)")
_UNSPACED = "\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and Chinese characters


def _both_unspaced(last: str, first: str) -> bool:
    return bool(re.fullmatch(f"[{_UNSPACED}]{{2}}", last + first))


@cache
def _pattern(ascii_only: bool) -> re.Pattern[str]:
    """What a token is, in lower case: ``re`` counts no combining marks among letters, so they are listed here."""
    marks, unspaced = ("", "") if ascii_only else (_combining() + JOINERS, _UNSPACED)
    letter = rf"[\w{marks}]" if not unspaced else rf"(?:(?![{unspaced}])[\w{marks}])"
    follows = rf"(?![\w{marks}])"
    emoji = r"|[^\w\s](?:\u200d[^\w\s]|[\ufe0f\u20e3\U0001f3fb-\U0001f3ff]|[" + marks + "])+" if marks else ""
    short = rf"'(?:s|re|ve|ll|d|m){follows}"
    number = rf"\d+(?:[.,:]\d+)+{follows}"
    negated = rf"n't{follows}|{letter}+?(?=n't{follows})"
    word = rf"{letter}+(?:(?!{short})[-']{letter}+)*"
    character = rf"|[{unspaced}][{marks}]*" if unspaced else ""
    return re.compile(rf"{short}|{negated}|{number}|{word}{character}{emoji}|[^\w\s]")


@cache
def _combining() -> str:
    """All combining marks, as ranges for a class of characters."""
    marks = [c for c in range(0x300, sys.maxunicode + 1) if unicodedata.category(chr(c))[0] == "M"]
    starts = [c for c, before in zip(marks, [0, *marks], strict=False) if c != before + 1]
    ends = [c for c, behind in zip(marks, [*marks[1:], 0], strict=True) if c != behind - 1]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))


# Subwords


class SubwordTokenizer(Tokenizer):
    """Subwords by the library ``tokenizers``, from its JSON text.

    One that was trained here is a byte-level BPE (Sennrich, Haddow and Birch 2016; bytes as in GPT-2):
    ``decode(encode(text))`` is any text, exactly. A tokeniser that changes texts itself (to lower case) gives the
    changed one.

    Args:
        text: the JSON text.
        pad_id: id of the padding; so for the other three.
        start_id: of a caption's start.
        end_id: of its end.
        unknown_id: of what the vocabulary lacks.

    Raises:
        UserError: the library can't read the text.
    """

    def __init__(self, text: str, pad_id: int, start_id: int, end_id: int, unknown_id: int) -> None:
        self._tokenizer = _from_json(text, "the tokeniser")
        self.text = text
        super().__init__(_vocabulary_of(self._tokenizer), pad_id, start_id, end_id, unknown_id)

    @classmethod
    def train(cls, sentences: Iterable[str], vocabulary_size: int = 8000) -> SubwordTokenizer:
        """A byte-level BPE trained on sentences.

        Args:
            sentences: the texts.
            vocabulary_size: number of tokens, at most: few sentences have fewer pairs to merge.

        Raises:
            UserError: the vocabulary has no place for all bytes and the special tokens.
        """
        if vocabulary_size < (least := BYTES + len(SPECIAL)):
            raise UserError(f"a vocabulary of subwords needs at least {least} tokens, not {vocabulary_size}")
        from tokenizers import Tokenizer as Library
        from tokenizers import decoders, models, pre_tokenizers, trainers

        tokenizer: Any = Library(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(sentences, trainer)
        return cls(tokenizer.to_str(), 0, 1, 2, 3)

    @classmethod
    def read(cls, path: str | Path) -> SubwordTokenizer:
        """A tokeniser from a file of ``tokenizers`` (``tokenizer.json``).

        Special tokens are found by their usual names (``[CLS]``, ``</s>``, ``<|endoftext|>``, …); missing ones are
        added.

        Raises:
            UserError: there is no such file, or the library can't read it.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise UserError(f"there is no tokeniser file {path}")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not a text in UTF-8: expected a tokenizer.json") from error
        tokenizer = _from_json(text, str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        pad, start, end, unknown = (_special_id(tokenizer, names) for names in KNOWN_AS)
        return cls(tokenizer.to_str(), pad, start, end, unknown)

    def encode(self, text: str) -> list[int]:
        """The ids of a text's subwords, without start and end; the names of special tokens are text like any other."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def facts(self) -> Facts:
        """As every tokeniser's, with the JSON text as ``tokenizer``."""
        return Facts(**{**super().facts(), "tokenizer": self.text})


def _from_json(text: str, where: str) -> Any:
    from tokenizers import Tokenizer as Library

    try:
        json.loads(text)
        tokenizer = Library.from_str(text)
    except Exception as error:  # the library raises plain exceptions
        raise UserError(f"{where} is not a JSON text of the library tokenizers: {str(error)[:80]}") from error
    tokenizer.encode_special_tokens = True  # "<end>" in a caption is text
    return tokenizer


def _vocabulary_of(tokenizer: Any) -> list[str]:
    """Its tokens by id; an id that no token has gets a name of its own."""
    ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    tokens = [f"<unused {index}>" for index in range(max(ids.values(), default=-1) + 1)]
    for token, index in ids.items():
        tokens[index] = token
    return tokens


def _special_id(tokenizer: Any, names: Sequence[str]) -> int:
    """The id of the first of these special tokens that it has; the first one is added if it has none."""
    for name in names:
        if (found := tokenizer.token_to_id(name)) is not None:
            return int(found)
    tokenizer.add_special_tokens([names[0]])
    return int(tokenizer.token_to_id(names[0]))


def tokenizer_of(facts: Facts) -> Tokenizer:
    """The tokeniser that facts describe: of subwords if there is a ``tokenizer`` among them, else of words.

    Raises:
        UserError: a fact is missing.
    """
    known: Any = facts
    names = ("vocabulary", "pad_id", "start_id", "end_id", "unknown_id")
    if missing := [name for name in names if name not in known]:
        raise UserError(f"there is no tokeniser without the fact {missing[0]}")
    ids = {name: known[name] for name in names[1:]}
    return (
        SubwordTokenizer(known["tokenizer"], **ids)
        if "tokenizer" in known
        else WordTokenizer(known["vocabulary"], **ids)
    )
