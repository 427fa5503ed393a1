"""Captioning trained on the metric itself: CIDEr-D of sampled captions is the reward (Rennie et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts
from zoo.functional import decoding
from zoo.functional.caption_scores import CiderD, Tokens
from zoo.functional.decoding import Captions, Limits, token_log_probs
from zoo.functional.ptb import ptb_tokens
from zoo.functional.self_critical import mean_of_others, self_critical_loss
from zoo.tasks.captioning import Batch, Captioning
from zoo.training.parameter_groups import ParameterGroup

END = "<end>"  # counts as a word of the reward: captions that break off would be rewarded otherwise


class SelfCriticalCaptioning(Captioning):
    """Trains a captioner to say what CIDEr-D rewards: best from the ``weights`` of one that ``Captioning`` has trained.

    For each picture captions are drawn from the network; their log-probability is raised by how much better they are
    than the baseline. The weights of n-grams come from the references of the training pictures. The network stays in
    evaluation mode, so that what is drawn, what is compared and what is trained is one distribution.

    Args:
        architecture: the captioner.
        optimizer: any optimiser of torch or of a plugin.
        scheduler: learning-rate scheduler; one that takes ``total_steps`` is stepped after every optimiser step.
        samples: captions drawn for each picture.
        baseline: that of the most probable words (``greedy``), or the mean of the picture's other samples (``mean``).
        beam, length_penalty, temperature, top_p, seed, candidates: of evaluation and prediction, as of ``Captioning``.
        max_length: tokens of a caption at most, with its end; of drawn ones, too.
        no_repeat_ngram, prefix, text: of evaluation and prediction, as of ``Captioning``.
        parameter_groups: groups of the architecture's parameters with settings of their own.
        weights: a checkpoint whose tensors are loaded where name and shape agree.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        as of ``Captioning``
    """

    loss_falls = False
    example: ClassVar[dict[str, Any]] = {"max_length": 6, "samples": 2}

    def __init__(
        self,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory = torch.optim.AdamW,
        scheduler: SchedulerFactory | None = None,
        samples: int = 5,
        baseline: Literal["greedy", "mean"] = "mean",
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
        super().__init__(
            architecture,
            optimizer,
            scheduler,
            0.0,
            0.0,
            beam,
            length_penalty,
            temperature,
            top_p,
            seed,
            candidates,
            max_length,
            no_repeat_ngram,
            prefix,
            text,
            parameter_groups,
            weights,
            facts,
        )
        if samples < (least := 2 if baseline == "mean" else 1):
            raise UserError(f"model.samples must be at least {least} with baseline {baseline}, not {samples}")
        self.samples, self.baseline = samples, baseline
        self._cider: CiderD | None = None

    def build(self) -> None:
        """As ``Captioning``'s, with the mean of the logged reward."""
        super().build()
        self.train_reward = MeanMetric(dist_sync_on_step=True)

    def on_fit_start(self) -> None:
        """Count the n-grams of the training pictures' references.

        Raises:
            UserError: the data does not know them.
        """
        super().on_fit_start()
        if not (known := self.training_references()):
            raise UserError("SelfCriticalCaptioning needs references of the training pictures, which the data has not")
        self._cider = CiderD.of([[_ended(one) for one in own] for own in known])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The policy gradient's loss; logged are it and the mean reward."""
        images, _, details = batch
        self.architecture.eval()
        memory = self.training_memory(images)
        drawn = decoding.sample(self.architecture, memory.detach(), self.ids, self._plain, count=self.samples)
        references = [[_ended(one) for one in own["references"]] for own in details]
        rewards = self.rewards(drawn, references)
        baseline = self._compared(memory, rewards, references)
        loss = self_critical_loss(self._log_probs(memory, drawn.tokens), rewards, baseline)
        if self.logs_now:
            self.log("train/loss", self.train_loss(loss.detach(), len(images)), prog_bar=True)
            self.log("train/reward", self.train_reward(rewards.mean(), len(images)), prog_bar=True)
        return loss

    @property
    def _plain(self) -> Limits:
        """No more than a largest length: what else is forbidden would not be in the log-probabilities."""
        return Limits(self.max_length)

    def _log_probs(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities of drawn captions (B, S, T), with gradients, (B, S)."""
        captions = decoding.with_start(tokens, self.ids).flatten(0, 1)
        logits = self.architecture.decode(memory.repeat_interleave(self.samples, 0), captions[:, :-1])
        return token_log_probs(logits, captions[:, 1:], self.ids).sum(-1).unflatten(0, tokens.shape[:2])

    def _compared(self, memory: Tensor, rewards: Tensor, references: Sequence[Sequence[Tokens]]) -> Tensor:
        if self.baseline == "mean":
            return mean_of_others(rewards)
        return self.rewards(decoding.greedy(self.architecture, memory.detach(), self.ids, self._plain), references)

    def rewards(self, captions: Captions, references: Sequence[Sequence[Tokens]]) -> Tensor:
        """CIDEr-D of each picture's captions, with their end as a word, (B, S).

        Args:
            captions: of B pictures, S of each.
            references: the tokens of each picture's references, with their end.
        """
        assert self._cider is not None, "a fit has begun"
        said = [self._said(one) for own in captions.tokens.tolist() for one in own]
        repeated = [own for own in references for _ in range(captions.tokens.shape[1])]
        scores = torch.from_numpy(self._cider.scores(said, repeated))
        return scores.to(captions.log_probs).view(captions.log_probs.shape)

    def _said(self, ids: list[int]) -> list[str]:
        words = ptb_tokens(self.tokenizer.decode(ids))
        return [*words, END] if self.ids.end in ids else words


def _ended(text: str) -> list[str]:
    return [*ptb_tokens(text), END]
