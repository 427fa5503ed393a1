"""Base of data sets of pictures with sentences that say what is in them."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor

from zoo.contracts.forms import captions
from zoo.data.base import Split
from zoo.data.loading import EpochSamples
from zoo.data.object_data import AnnotatedImages
from zoo.data.pixels import as_floats
from zoo.errors import UserError
from zoo.functional.tokenizing import Tokenizer, words

FREQUENT = 12  # words that the statistics list
SHOWN = 5  # sentences that are drawn below a picture
LOADING = ("batch_size", "eval_batch_size", "num_workers", "drop_last", "files")  # arguments that change no sample
LOOKED_AT = 8  # samples that are compared to know a set again


class CaptionData(AnnotatedImages):
    """Base of data sets of pictures with captions.

    A subclass reads the samples of a split (``annotated``): images as bytes (C, H, W), all of ``image_size``, and for
    each a dictionary with ``references``, all of its sentences, and whatever else is worth knowing of it. Training
    takes one of the sentences at random at each step, evaluation the first.

    Args:
        kwargs: as for every data set with annotations.

    Attributes:
        max_length: tokens of a caption that are used at most, without start and end; None for all.
        kept: where training finds feature maps in the place of its pictures, if they are kept.

    Shape:
        batch: images (B, C, H, W) in [0, 1]; tokens int64 (B, T), each row a start, the caption, an end and padding; a
            list of B dictionaries with ``references``
    """

    batch: ClassVar[str] = "captioning"
    max_length: int | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept = Kept()

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """The tokeniser; complete after ``setup``."""

    @abstractmethod
    def references(self, split: Split) -> Iterable[Sequence[str]]:
        """The sentences of each picture of a split, without reading the pictures."""

    @property
    def training_size(self) -> list[int] | None:
        """The facts' ``image_size``."""
        return list(self.facts["image_size"])

    def samples(self, split: Split) -> Any:
        """The split's samples with their tokens; None if there is no such split; prediction's are the ``files``.

        Raises:
            UserError: a transform can't be used with this data.
        """
        found = AnnotatedImages.samples(self, split)  # targets for detection are numbered, these are not
        if split == "predict" or found is None:
            return found
        if split == "train":
            return TokenizedSamples(found, self.tokenizer, self.max_length, any_of_them=True, kept=self.kept)
        return TokenizedSamples(found, self.tokenizer, self.max_length)

    @property
    def repeats_images(self) -> bool:
        """Whether a training image is the same in every epoch."""
        return not (self.augment or self.strong_augment)

    def identity(self) -> str:
        """What the training samples depend on, as text: for the name of a file that is made of them.

        It is of the arguments and of the first samples.
        """
        arguments = {k: v for k, v in self.plain_hparams()["init_args"].items() if k not in LOADING}
        samples = self.annotated("train")
        first = [samples[index] for index in range(min(LOOKED_AT, len(samples)))]
        digests = [hashlib.sha256(image.numpy().tobytes() + repr(one).encode()).hexdigest() for image, one in first]
        return json.dumps([type(self).__name__, len(samples), arguments, digests], sort_keys=True, default=str)

    def collate(self, samples: list[Any]) -> Any:
        """Images, padded tokens, and the list of dictionaries."""
        return captions(samples, self.tokenizer.pad_id)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Stored pixels to floats in [0, 1] of the module's dtype."""
        if self.predicting:
            return super().on_after_batch_transfer(batch, dataloader_idx)
        images, *rest = batch
        return as_floats(images, images.shape[-2:], self.dtype), *rest

    def statistics(self, split: Split) -> list[str]:
        """Number, lengths and words of the captions."""
        if not self.has_samples(split):
            return []
        return caption_statistics(self.references(split), self.tokenizer, self.max_length)

    def sample_pictures(self, split: Split, count: int) -> list[Image]:
        """Evenly spaced pictures with their sentences; those that can't be read are left out."""
        from zoo import drawing

        samples, made = self.annotated(split), []
        for index in torch.linspace(0, len(samples) - 1, min(count, len(samples))).long().unique().tolist():
            try:
                image, target = samples[index]
            except UserError:
                continue
            picture = drawing.to_picture(image / 255, side=256)
            wrapped = [drawing.wrap_text(f"- {text}", picture.width - 10) for text in target["references"][:SHOWN]]
            made.append(drawing.captioned(picture, [line for lines in wrapped for line in lines]))
        return made


class Kept:
    """Samples that stand for those of training: an object that loaders hold before it is known whether there are some.

    Attributes:
        samples: map-style, of feature maps and dictionaries with ``references``; None for none.
    """

    samples: Any = None


class TokenizedSamples(EpochSamples):
    """Samples with the tokens of one of their sentences.

    Args:
        samples: map-style, of images and dictionaries with ``references``.
        tokenizer: makes the tokens.
        max_length: of a longer caption, the first tokens are used.
        any_of_them: whether the sentence is drawn at random; otherwise it is the first.
        kept: samples that stand for these, if there are some.
    """

    def __init__(
        self,
        samples: Any,
        tokenizer: Tokenizer,
        max_length: int | None,
        any_of_them: bool = False,
        kept: Kept | None = None,
    ) -> None:
        self.samples, self.tokenizer, self.kept = samples, tokenizer, kept or Kept()
        self.max_length, self.any_of_them = max_length, any_of_them

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
        if isinstance(self.samples, EpochSamples):
            self.samples.epoch = self.epoch
        image, details = (self.samples if self.kept.samples is None else self.kept.samples)[index]
        sentences = details["references"]
        chosen = int(torch.randint(len(sentences), ())) if self.any_of_them else 0
        ids = self.tokenizer.encode(sentences[chosen])[: self.max_length]
        return image, torch.tensor([self.tokenizer.start_id, *ids, self.tokenizer.end_id]), details


def caption_statistics(
    references: Iterable[Sequence[str]], tokenizer: Tokenizer, max_length: int | None = None
) -> list[str]:
    """Lines on the captions of some pictures: their number, lengths and words, and what a tokeniser does not know.

    Args:
        references: the sentences of each picture.
        tokenizer: of the training captions.
        max_length: tokens of a caption that are used.
    """
    sentences = list(map(list, references))
    counts = torch.tensor([len(some) for some in sentences])
    flat = [sentence for some in sentences for sentence in some]
    split = [words(sentence) for sentence in flat]
    encoded = [tokenizer.encode(sentence) for sentence in flat]
    seen = Counter(word for some in split for word in some)
    unknown = sum(ids.count(tokenizer.unknown_id) for ids in encoded)
    total = max(1, sum(map(len, encoded)))
    repeated = sum(len(some) - len(set(some)) for some in sentences)
    lines = [
        f"captions: {len(flat):,}, {_range(counts)} for a picture",
        f"words in a caption: {_range(torch.tensor([len(some) for some in split]))}",
        f"tokens in a caption: {_range(torch.tensor([len(ids) for ids in encoded]))}",
        f"different words: {len(seen):,}, of them {sum(count == 1 for count in seen.values()):,} once",
        f"most frequent: {', '.join(f'{word} ({count:,})' for word, count in seen.most_common(FREQUENT))}",
        f"tokens that are not in the vocabulary of {len(tokenizer.vocabulary):,}: {unknown:,} "
        f"({100 * unknown / total:.2f} %)",
    ]
    if repeated:
        lines.append(f"captions that a picture has twice: {repeated:,}")
    if max_length is not None and (long := sum(len(ids) > max_length for ids in encoded)):
        lines.append(f"captions of more than {max_length} tokens, which are cut: {long:,}")
    return lines


def _range(counts: Tensor) -> str:
    """The least, the greatest and the median number."""
    if not len(counts):
        return "none"
    low, high, middle = int(counts.min()), int(counts.max()), float(counts.double().quantile(0.5))
    return f"{low}" if low == high else f"{low} to {high}, median {middle:g}"
