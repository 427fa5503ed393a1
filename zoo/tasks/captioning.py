"""Captioning: a sentence that says what is in a picture.

Training is by maximum likelihood with the true words so far ("teacher forcing"; Vinyals et al. 2015, "Show and Tell"),
with label smoothing if asked for, and with the doubly stochastic regularisation of attention (Xu et al. 2015, "Show,
Attend and Tell", section 4.2.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal
from zlib import crc32

import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torchmetrics import MeanMetric, Metric

from zoo.architectures.captioner import Captioner
from zoo.data.base import Data
from zoo.drawing import Table
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts
from zoo.functional import decoding
from zoo.functional.decoding import Captions, Limits, SpecialIds
from zoo.functional.tokenizing import tokenizer_of
from zoo.functional.views import at_least_float32
from zoo.metrics.captions import CaptionMetrics
from zoo.metrics.computing import compute_and_reset
from zoo.tasks.base import Task
from zoo.tasks.captioned import Captioned, Sentence, draw_captioned, write_ranking, write_results
from zoo.tasks.captioner_export import exported_captioner
from zoo.tasks.exported import Exported
from zoo.tasks.normalize import Normalize
from zoo.training.parameter_groups import ParameterGroup

Details = Sequence[Mapping[str, Any]]
Batch = tuple[Tensor, Tensor, Details]
IDS = ("pad_id", "start_id", "end_id", "unknown_id")
IGNORED = -100  # target of padding, which may have the end's id


class Captioning(Task):
    """Trains a network to say what is in a picture.

    Args:
        architecture: the captioner, from images and the words so far to logits of the next word.
        optimizer: any optimiser of torch or of a plugin.
        scheduler: learning-rate scheduler; one that takes ``total_steps`` is stepped after every optimiser step.
        label_smoothing: part of the target that is spread over the vocabulary.
        attention_weight: factor of the doubly stochastic regularisation: the attention that each place gets over all
            words shall be 1.
        beam: captions that the search follows at once; 1 takes the most probable word each time.
        length_penalty: captions of the beam are ranked by log-probability / tokens ** length_penalty.
        temperature: draw captions at random instead, from log-probabilities divided by this.
        top_p: draw from the fewest words whose probabilities add up to this.
        seed: of captions that are drawn; each depends on the picture's name, not on the batch.
        candidates: number of captions to predict for a picture; one is evaluated.
        max_length: tokens of a caption at most, with its end.
        no_repeat_ngram: no sequence of this many tokens occurs twice in a caption; 0 allows all.
        prefix: the beginning of every caption.
        text: a caption for which the predicted pictures are ranked, by its log-probability.
        parameter_groups: groups of the architecture's parameters with settings of their own.
        weights: a checkpoint whose tensors are loaded where name and shape agree.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        images (B, C, H, W) in [0, 1] of ``image_size`` and tokens (B, T), the start first -> logits (B, T,
        vocabulary) of the word after each.
    """

    batch = "captioning"
    needs = ("vocabulary", *IDS, "in_channels", "image_size")
    monitor = "val/cider"
    monitor_mode = "max"
    predict_view = "whole"
    may_change = (
        "beam",
        "length_penalty",
        "temperature",
        "top_p",
        "seed",
        "candidates",
        "max_length",
        "no_repeat_ngram",
        "prefix",
        "text",
    )  # used at evaluation and prediction only
    example: ClassVar[dict[str, Any]] = {"label_smoothing": 0.1, "max_length": 6}

    def __init__(
        self,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory = AdamW,
        scheduler: SchedulerFactory | None = None,
        label_smoothing: float = 0.0,
        attention_weight: float = 0.0,
        beam: int = 1,
        length_penalty: float = 1.0,
        temperature: float | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        candidates: int = 1,
        max_length: int = 20,
        no_repeat_ngram: int = 0,
        prefix: str = "",
        text: str | None = None,
        parameter_groups: list[ParameterGroup] | None = None,
        weights: str | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise UserError(f"model.label_smoothing must be from 0 to 1, not {label_smoothing}")
        if attention_weight < 0:
            raise UserError(f"model.attention_weight must be at least 0, not {attention_weight}")
        if temperature is None and top_p != 1:
            raise UserError(f"model.top_p is {top_p}, but nothing is drawn: give model.temperature, such as 1.0, too")
        if temperature is None and candidates > beam:
            raise UserError(f"model.candidates is {candidates}, but a beam of {beam} finds no more than {beam}")
        self.label_smoothing, self.attention_weight = label_smoothing, attention_weight
        self.beam, self.length_penalty = beam, length_penalty
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self.candidates, self.max_length, self.no_repeat_ngram = candidates, max_length, no_repeat_ngram
        self.prefix, self.text = prefix, text
        self.own_metric: Metric | None = None
        self.trains_on_maps = False  # set by KeptFeatures: training batches have feature maps in the place of images

    # Network

    def build(self) -> None:
        """Build the network, its normalisation, the tokeniser and the metrics."""
        self.architecture: Captioner = self.make("architecture", needs=("vocabulary_size",))
        self.normalize = Normalize(self.architecture, self.facts)
        self.tokenizer = tokenizer_of(self.facts)
        self.ids = SpecialIds.of(self.facts)
        self._check_decoding()
        # Computed at the training steps that are logged only, and there of all processes' words together.
        self.train_loss = MeanMetric(dist_sync_on_step=True)
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        self.val_metrics, self.test_metrics = CaptionMetrics(), CaptionMetrics()

    def _check_decoding(self) -> None:
        """Refuse what can't be decoded before training has taken its time."""
        if unknown := [word for word in self._tokens(self.prefix) if word == self.facts["unknown_id"]]:
            raise UserError(f"model.prefix {self.prefix!r} has {len(unknown)} words that are not in the vocabulary")
        if self.beam < 1 or self.candidates < 1 or self.length_penalty < 0:
            raise UserError("model.beam and model.candidates must be at least 1, and model.length_penalty at least 0")
        if (self.temperature is not None and self.temperature <= 0) or not 0 < self.top_p <= 1:
            raise UserError("model.temperature must be above 0, and model.top_p above 0 and at most 1")
        self._limits.check()

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    @property
    def _limits(self) -> Limits:
        prefix = torch.tensor(self._tokens(self.prefix), dtype=torch.int64) if self.prefix else None
        return Limits(self.max_length, prefix, self.no_repeat_ngram)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the word after each of the tokens."""
        return self.architecture(self.normalize(images), tokens)

    def encode(self, images: Tensor) -> Tensor:
        """The network's memory of images in [0, 1]."""
        return self.architecture.encode(self.normalize(images))

    def training_memory(self, images: Tensor) -> Tensor:
        """The same in training; of feature maps, where these are kept."""
        network: Any = self.architecture
        return network.encode_maps(images) if self.trains_on_maps else self.encode(images)

    # Losses

    def word_loss(self, logits: Tensor, words: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy of the words that are not padding.

        Args:
            logits: (B, T, V).
            words: int64 (B, T).
            label_smoothing: part of the target that is spread over the vocabulary.
        """
        said = words.masked_fill(decoding.is_padding(words, self.ids), IGNORED)
        logits = at_least_float32(logits).flatten(0, 1)
        return F.cross_entropy(logits, said.flatten(), ignore_index=IGNORED, label_smoothing=label_smoothing)

    def attention_loss(self, attention: Tensor | None, words: Tensor) -> Tensor:
        """How far the attention over all words is from 1 at each place: the sum of squares, mean over the images.

        Args:
            attention: (B, T, N); None is refused.
            words: int64 (B, T); padding does not count.

        Raises:
            UserError: the network has no attention.
        """
        if attention is None:
            raise UserError(f"model.attention_weight: {type(self.architecture).__name__} has no attention: give 0")
        given = (attention * ~decoding.is_padding(words, self.ids)[..., None]).sum(1)
        return (1 - given).square().sum(1).mean()

    def loss(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The loss that is minimised, and the part of it that is the cross-entropy of the words."""
        words = tokens[:, 1:]
        if not self.attention_weight:
            loss = self.word_loss(self.architecture.decode(memory, tokens[:, :-1]), words, self.label_smoothing)
            return loss, loss
        logits, attention = self.architecture.decode_with_attention(memory, tokens[:, :-1])
        loss = self.word_loss(logits, words, self.label_smoothing)
        return loss + self.attention_weight * self.attention_loss(attention, words), loss

    def _count(self, tokens: Tensor) -> Tensor:
        return (~decoding.is_padding(tokens[:, 1:], self.ids)).sum()

    # Steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss; logged is the words' alone, at logged steps."""
        images, tokens, _ = batch
        loss, words = self.loss(self.training_memory(images), tokens)
        if self.logs_now:
            self.log("train/loss", self.train_loss(words.detach(), self._count(tokens)), prog_bar=True)
        return loss

    def on_validation_start(self) -> None:
        """Ask the data for its own metric."""
        self.own_metric = self._data.own_metric() if self._data is not None else None

    def on_test_start(self) -> None:
        """The same, and for the captions of training."""
        self.on_validation_start()
        if known := self.training_references():
            self.test_metrics = CaptionMetrics(caption for own in known for caption in own)

    def training_references(self) -> list[Sequence[str]]:
        """The references of the training pictures; empty where the data does not know them."""
        return [] if self._data is None else [*self._data.references("train")]

    @property
    def _data(self) -> Data | None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return data if isinstance(data, Data) else None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss of the words, and metrics of captions that take the most probable word each time."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same of captions as they are asked for."""
        self._evaluate("test", batch)

    def _evaluate(self, stage: Literal["val", "test"], batch: Batch) -> None:
        images, tokens, details = batch
        memory = self.encode(images)
        logits = self.architecture.decode(memory, tokens[:, :-1])
        getattr(self, f"{stage}_loss").update(self.word_loss(logits, tokens[:, 1:]), self._count(tokens))
        if stage == "val":
            found = decoding.greedy(self.architecture, memory, self.ids, self._limits)
        else:
            found = self._search(memory, [str(index) for index in range(len(images))])
        said = [self.tokenizer.decode(own[0].tolist()) for own in found.tokens]
        references = [list(one["references"]) for one in details]
        getattr(self, f"{stage}_metrics").update(said, references)
        if self.own_metric is not None:
            self.own_metric.update(said, details)

    def on_validation_epoch_end(self) -> None:
        """The loss and the metrics of all processes' captions."""
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """The same."""
        self._log_evaluation("test")

    def _log_evaluation(self, stage: Literal["val", "test"]) -> None:
        self.log_values(stage, {"loss": compute_and_reset(getattr(self, f"{stage}_loss"))})
        self.log_computed(stage, getattr(self, f"{stage}_metrics"))
        if self.own_metric is not None:
            self.log_computed(stage, self.own_metric)

    def predict_step(self, batch: tuple[Tensor, Sequence[str]], batch_idx: int) -> list[Captioned]:
        """The captions of each picture, with the network's attention to the first."""
        images, names = batch
        memory = self.encode(images)
        found = self._search(memory, names, with_attention=True)
        asked = None if self.text is None else self.log_probability(memory, [self.text] * len(images)).tolist()
        return [
            self._result(found, row, str(name), None if asked is None else asked[row]) for row, name in enumerate(names)
        ]

    def configure_optimizers(self) -> Any:
        """The optimiser, by groups of the architecture's parameters, and the scheduler."""
        return self.optimizers_for(self.architecture, groups=self.parameter_groups)

    # Decoding

    def _search(self, memory: Tensor, names: Sequence[str], with_attention: bool = False) -> Captions:
        """``candidates`` captions of each picture, by the arguments of decoding."""
        common = (self.architecture, memory, self.ids, self._limits, with_attention)
        if self.temperature is not None:
            seeds = [Generator().manual_seed(crc32(f"{self.seed} {name}".encode())) for name in names]
            found = decoding.sample(*common, self.candidates, self.temperature, self.top_p, seeds)
            best = found.log_probs.argsort(dim=1, descending=True, stable=True)
            rows = torch.arange(len(best), device=best.device)[:, None]
            looked = None if found.attention is None else found.attention[rows, best]
            return Captions(found.tokens[rows, best], found.log_probs[rows, best], looked)
        if self.beam == 1:
            return decoding.greedy(*common)
        return decoding.beam(*common, self.beam, self.candidates, self.length_penalty)

    @torch.no_grad()
    def log_probability(self, memory: Tensor, captions: Sequence[str]) -> Tensor:
        """The log-probability of a caption of each picture, the sum over its words and its end, (B,).

        Args:
            memory: of B pictures, as ``encode`` gives it.
            captions: B texts.
        """
        rows = [[self.ids.start, *self._tokens(text), self.ids.end] for text in captions]
        tokens = torch.full((len(rows), max(map(len, rows))), self.ids.pad)
        for row, own in zip(tokens, rows, strict=True):
            row[: len(own)] = torch.tensor(own)
        return decoding.score(self.architecture, memory, tokens.to(memory.device), self.ids)

    def _result(self, found: Captions, row: int, name: str, asked: float | None) -> Captioned:
        every = zip(found.tokens[row].tolist(), found.log_probs[row].tolist(), strict=True)
        captions = [Sentence(self.tokenizer.decode(own), score) for own, score in every if score != -float("inf")]
        said = [one for one in found.tokens[row, 0].tolist() if one not in (self.ids.end, self.ids.pad)]
        looked = None if found.attention is None else found.attention[row, 0, : len(said)].float().cpu()
        return Captioned(name, captions, [self.tokenizer.decode([one]) for one in said], looked, asked)

    # Results and pictures

    def exported(self) -> Exported:
        """Encoder and step as two graphs, and the tokeniser."""
        return exported_captioner(self, self.architecture, self.max_length)

    def as_json(self, results: list[Captioned]) -> list[dict[str, Any]]:
        """One dictionary a picture: ``name``, ``caption``, ``captions`` with log-probabilities, that of ``text``."""
        return [result.as_json() for result in results]

    def draw(
        self, images: Tensor | Sequence[Tensor], results: list[Captioned], truth: Details | None = None
    ) -> list[Image.Image]:
        """Each image with its captions, and with references where they are known, else with a strip of attention.

        Args:
            images: in [0, 1], each (C, H, W).
            results: as ``predict_step`` gives them.
            truth: details with ``references``.
        """
        if truth is None:
            return [draw_captioned(image, result) for image, result in zip(images, results, strict=True)]
        known = [list(one["references"]) for one in truth]
        return [self._draw_known(*one) for one in zip(images, results, known, strict=True)]

    @staticmethod
    def _draw_known(image: Tensor, result: Captioned, references: Sequence[str]) -> Image.Image:
        return draw_captioned(image, Captioned(result.name, result.captions, []), references)

    def tables(self) -> dict[str, Table]:
        """Some pictures of the last evaluation with captions and references."""
        rows = [
            [self._draw_known(image, result, ()), result.captions[0].text, "\n".join(one["references"])]
            for shown in self.shown
            for image, result, one in zip(shown.images, shown.results, shown.truth, strict=True)
        ]
        return {"captions": Table(["picture", "caption", "references"], rows)} if rows else {}

    def write_summary(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """All captions as ``coco-results.json``, and the order of the pictures for ``text`` as ``ranking.json``."""
        write_results(folder / "coco-results.json", rows)
        if self.text is not None:
            write_ranking(folder / "ranking.json", self.text, rows)
