"""Base of data sets of picture files with captions, in any format."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.annotated_files import held_out
from zoo.data.annotations import Faults
from zoo.data.base import LISTED, Split
from zoo.data.caption_data import CaptionData
from zoo.data.caption_readers import Entry
from zoo.data.files import read_image, whole
from zoo.data.folder import LUMA
from zoo.data.images import EVALUATION, IMAGENET_MEAN, IMAGENET_STD, Part
from zoo.data.part_files import PARTS
from zoo.data.picture_places import PicturePlaces
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.functional.tokenizing import SubwordTokenizer, Tokenizer, WordTokenizer

WORDS, SUBWORDS = "words", "subwords"
SUFFIXES = (".jpg", ".jpeg", ".png")  # of pictures that are given without one


class Captioned(NamedTuple):
    """A picture and its sentences.

    Args:
        path: the file.
        sentences: of it.
        number: COCO's number of the picture, if it has one.
    """

    path: str
    sentences: list[str]
    number: int | None = None


class Collector:
    """The pictures of a part, as entries are read.

    Args:
        places: finds the pictures.
        faults: receives what is wrong with entries, which are left out.
        keep_repeated: whether a sentence that a picture has twice stays twice, as in published sets.

    Attributes:
        repeated: number of sentences that were left out, since the picture had them already.
        without: files of pictures without a caption.
    """

    def __init__(self, places: PicturePlaces, faults: Faults, keep_repeated: bool = True) -> None:
        self.places, self.faults, self.keep_repeated = places, faults, keep_repeated
        self.repeated = 0
        self._pictures: dict[str, Captioned] = {}
        self._found: dict[str, str | None] = {}

    def add(self, entry: Entry, also_called: Sequence[str] = ()) -> None:
        """Add an entry's sentences to its picture.

        Args:
            entry: the entry.
            also_called: other names under which the picture may lie.
        """
        path = self._path(entry, also_called)
        if path is None:
            return
        picture = self._pictures.setdefault(path, Captioned(path, [], entry.number))
        for sentence in entry.sentences:
            text = cleaned(sentence, entry, self.faults)
            if text is None:
                continue
            if not self.keep_repeated and text in picture.sentences:
                self.repeated += 1
            else:
                picture.sentences.append(text)

    def _path(self, entry: Entry, also_called: Sequence[str]) -> str | None:
        if entry.name not in self._found:
            self._found[entry.name] = self._file(entry.name, also_called)
            if self._found[entry.name] is None:
                self.faults.add(f"{entry.where}: its picture {self.places.expected(entry.name)} is missing")
        return self._found[entry.name]

    def _file(self, name: str, also_called: Sequence[str]) -> str | None:
        if os.path.isabs(name) and os.path.isfile(name):  # noqa: PTH113, PTH117  a Path per file takes time
            return name
        names = [os.path.normpath(name), *also_called]
        if not name.isascii():  # macOS writes names decomposed
            names += [unicodedata.normalize(form, names[0]) for form in ("NFC", "NFD")]
        if not os.path.splitext(name)[1]:  # noqa: PTH122
            names += [f"{names[0]}{suffix}" for suffix in SUFFIXES]
        return next(filter(None, map(self.places.find, names)), None)

    @property
    def captioned(self) -> list[Captioned]:
        """The pictures that have sentences."""
        return [one for one in self._pictures.values() if one.sentences]

    @property
    def without(self) -> list[str]:
        """The pictures that have none."""
        return [one.path for one in self._pictures.values() if not one.sentences]


def cleaned(sentence: Any, entry: Entry, faults: Faults) -> str | None:
    """A sentence on one line, without white space around it; None for one that is wrong."""
    what = f"{entry.where}: its caption" if entry.name in entry.where else f"{entry.where}: the caption of {entry.name}"
    if not isinstance(sentence, str):
        faults.add(f"{what} is {str(sentence)[:40]!r}, not a text")
        return None
    text = " ".join(sentence.split())
    try:
        text.encode()
    except UnicodeEncodeError:
        faults.add(f"{what} is not valid Unicode: it has half of a surrogate pair")
        return None
    if not any(c.isprintable() and not c.isspace() for c in text):
        faults.add(f"{what} is empty")
        return None
    return text


class CaptionFiles(CaptionData):
    """Base of data sets of picture files with captions.

    All wrong entries (a missing picture, an empty caption, one that is not a text, two entries of one id, a picture in
    two parts) are found before training, and end the run in one line. White space in captions becomes single spaces.

    Args:
        image_size: side of the square that whole pictures are resized to.
        tokens: ``words``, ``subwords`` (a byte-level BPE trained on the training captions), or a tokeniser's file of
            the library ``tokenizers`` (``tokenizer.json``).
        min_count: words that occur less often in the training captions are unknown.
        vocabulary_size: number of subwords that are trained, at most.
        max_length: of a caption with more tokens, the first ones are used.
        in_channels: 3 for colour, 1 for grey.
        val_fraction: fraction of the training pictures that is held out for validation, if the data has no such part; 0
            disables validation.
        test_fraction: fraction of the pictures for the test, if the data has neither a validation nor a test part; 0
            disables the test.
        split_seed: seed of these choices.
        skip_wrong: leave wrong entries out, instead of ending the run.
        skip_unreadable: leave pictures that can't be read out of training, where each is printed to stderr.
        kwargs: as for every data set with annotations.

    Shape:
        batch: images (B, C, image_size, image_size) in [0, 1]; tokens int64 (B, T), each row a start, the caption, an
            end and padding; a list of B dictionaries with ``references``, ``path`` and, of COCO's pictures,
            ``image_id``
    """

    may_change: ClassVar[tuple[str, ...]] = ("root", "skip_unreadable")
    keep_repeated: ClassVar[bool] = True

    def __init__(
        self,
        image_size: int = 224,
        tokens: str = WORDS,
        min_count: int = 5,
        vocabulary_size: int = 8000,
        max_length: int = 40,
        in_channels: Literal[1, 3] = 3,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        skip_wrong: bool = False,
        skip_unreadable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, number in (("image_size", image_size), ("min_count", min_count), ("max_length", max_length)):
            if number < 1:
                raise UserError(f"data.{name} must be at least 1, not {number}")
        for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 <= fraction < 1:
                raise UserError(f"data.{name} must be at least 0 and below 1, not {fraction}")
        self.image_size, self.in_channels = image_size, in_channels
        self.tokens, self.min_count, self.vocabulary_size = tokens, min_count, vocabulary_size
        self.max_length = max_length
        self.val_fraction, self.test_fraction, self.split_seed = val_fraction, test_fraction, split_seed
        self.skip_wrong, self.skip_unreadable = skip_wrong, skip_unreadable
        self.faults: dict[str, Faults] = {}
        self.left_out: dict[str, int] = {}
        self._parts: dict[str, list[Captioned] | None] = {}
        self._tokenizer: Tokenizer | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokeniser of the training captions."""
        if self._tokenizer is None:
            raise RuntimeError("call setup before the tokenizer is used")
        return self._tokenizer

    @property
    def facts(self) -> Facts:
        """Facts about the data; complete after ``setup``."""
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        if self.in_channels == 1:
            mean, std = ([float(np.dot(LUMA, values))] for values in (mean, std))
        facts = Facts(in_channels=self.in_channels, image_size=[self.image_size] * 2, mirror=False)
        facts |= {"mean": list(mean), "std": list(std)}
        return facts if self._tokenizer is None else Facts(**{**facts, **self._tokenizer.facts()})

    # Reading

    @abstractmethod
    def read(self) -> dict[Part, Collector]:
        """The pictures of each part, with ``self.faults`` of the part; what belongs to no part is in none."""

    def setup(self, stage: str | None = None) -> None:
        """Read all parts, so that a mistake in the test's captions ends a run before training.

        Raises:
            UserError: captions are wrong.
        """
        if stage == "predict":
            return
        if not self._parts:
            self._read()
            self._refuse_wrong()
        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
        if stage in (None, "fit") and (self.augment or self.strong_augment):
            _ = self.augmentation  # tried before anything is trained
        if self.skip_unreadable and stage in (None, "fit"):
            self.refuse_unreadable([split for split in EVALUATION if self._parts[split] is not None])

    def setup_to_check(self) -> None:
        """Read all parts; what is wrong with them is for ``check_samples``."""
        self._read()
        self._tokenizer = self._make_tokenizer()

    def _read(self) -> None:
        self.faults = {part: Faults() for part in PARTS}
        collectors = self.read()
        found: dict[str, list[Captioned] | None] = {
            part: collectors[part].captioned if part in collectors else None for part in PARTS
        }
        if not found["train"]:
            wrong = [*self.faults["train"].wrong, "there is no picture with a caption"]
            raise UserError(f"{type(self).__name__}: nothing to train on: {wrong[0]}")
        self._report_shared(found)
        without = sum(len(collector.without) for collector in collectors.values())
        repeated = sum(collector.repeated for collector in collectors.values())
        self.left_out |= {"pictures without captions": without, "repeated captions": repeated}
        self._parts = self._split(found)

    def _report_shared(self, parts: dict[str, list[Captioned] | None]) -> None:
        """A picture that is in two parts, and is taken out of the later one."""
        known: dict[str, str] = {}
        for part in PARTS:
            for one in parts[part] or ():
                if (other := known.setdefault(one.path, part)) != part:
                    self.faults[part].add(f"{one.path} is in the {other} part, too")
            if parts[part] is not None:
                parts[part] = [one for one in parts[part] or () if known[one.path] == part]

    def _split(self, parts: dict[str, list[Captioned] | None]) -> dict[str, list[Captioned] | None]:
        """Hold out what the data has no part for, always the same pictures."""
        for part, fraction in (("test", self.test_fraction), ("val", self.val_fraction)):
            alone = part == "val" or parts["val"] is None
            if parts[part] is None and fraction and alone:
                known = parts["train"] or []
                kept, held = held_out(len(known), fraction, self.split_seed, f"data.{part}_fraction")
                parts |= {"train": [known[row] for row in kept], part: [known[row] for row in held]}
        return parts

    def _refuse_wrong(self) -> None:
        lines = [line for faults in self.faults.values() for line in faults.wrong]
        count = sum(faults.count for faults in self.faults.values())
        if count and not self.skip_wrong:
            more = f"; and {count - LISTED:,} more (`zoo data check` lists them)" if count > LISTED else ""
            raise UserError(
                f"{type(self).__name__}: {count:,} entries are wrong: {'; '.join(lines[:LISTED])}{more}; "
                "repair them, or leave them out by --data.skip_wrong true"
            )

    def _make_tokenizer(self) -> Tokenizer:
        sentences = (sentence for some in self.references("train") for sentence in some)
        if self.tokens == WORDS:
            return WordTokenizer.build(sentences, self.min_count)
        if self.tokens == SUBWORDS:
            return SubwordTokenizer.train(sentences, self.vocabulary_size)
        if not self.tokens.endswith(".json"):
            raise UserError(f"data.tokens is {WORDS}, {SUBWORDS} or a tokenizer.json, not {self.tokens}")
        return SubwordTokenizer.read(self.tokens)

    # Samples

    def annotated(self, split: Split) -> Any:
        """The split's pictures, without augmentation."""
        if split not in self._parts:
            raise RuntimeError(f"call setup before samples({split!r})")
        found = self._parts[split]
        return None if found is None else CaptionedFiles(found, self.image_size, self.in_channels)

    def references(self, split: Split) -> Iterable[Sequence[str]]:
        """The sentences of each picture of a split."""
        return (one.sentences for one in self._parts[split] or ())

    def identity(self) -> str:
        """Of the pictures' paths, sizes and times, too, and of their captions."""
        digest = hashlib.sha256(super().identity().encode())
        for one in self._parts["train"] or ():
            state = os.stat(one.path)  # noqa: PTH116  a Path per file takes time
            digest.update(repr((one, state.st_size, state.st_mtime_ns)).encode())
        return digest.hexdigest()

    def check_samples(self, split: Split) -> list[str]:
        """Wrong entries, and pictures that can't be read."""
        return [*self.faults[split].lines, *super().check_samples(split)]

    def summary(self) -> str:
        """Vocabulary, pictures and captions of each part, and what was left out or cut."""
        parts = [self._part_summary(split) for split in PARTS]
        left_out = {"wrong entries": sum(faults.count for faults in self.faults.values()), **self.left_out}
        listed = ", ".join(f"{what} ({count:,})" for what, count in left_out.items() if count)
        known = f"vocabulary of {len(self.tokenizer.vocabulary):,}" if self._tokenizer else "no vocabulary"
        long = f"; longer than data.max_length {self.max_length} and cut: {self._long:,} captions" if self._long else ""
        return f"{type(self).__name__}: {known}: {', '.join(parts)}{f'; left out: {listed}' if listed else ''}{long}"

    @property
    def _long(self) -> int:
        """Training captions that are cut."""
        limit, encode = self.max_length or 0, self.tokenizer.encode
        # No token is shorter than a character, so that few captions must be encoded.
        return sum(
            len(text) > limit and len(encode(text)) > limit for some in self.references("train") for text in some
        )

    def _part_summary(self, split: str) -> str:
        part = self._parts[split]
        if part is None:
            return f"no {split}"
        return f"{len(part):,} {split} pictures with {sum(len(one.sentences) for one in part):,} captions"


class CaptionedFiles(Dataset[tuple[Tensor, dict[str, Any]]]):
    """Pictures, resized as a whole: bytes (C, size, size), with their sentences.

    Args:
        pictures: files and sentences.
        size: side of the square.
        channels: 1 or 3.
    """

    def __init__(self, pictures: Sequence[Captioned], size: int, channels: int) -> None:
        self.pictures, self.size, self.channels = pictures, [size] * 2, channels

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        one = self.pictures[index]
        details: dict[str, Any] = {"references": one.sentences, "path": one.path}
        if one.number is not None:
            details["image_id"] = one.number
        return read_image(one.path, self.size, self.channels, whole), details
