"""Captioning trained on the metric itself: CIDEr-D of sampled captions is the reward (Rennie et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.functional import decoding
from zoo.functional.caption_scores import CiderD, Tokens
from zoo.functional.decoding import Captions, Limits, token_log_probs
from zoo.functional.ptb import ptb_tokens
from zoo.functional.self_critical import mean_of_others, self_critical_loss
from zoo.tasks.captioning import Batch, Captioning

END = "<end>"  # counts as a word of the reward: captions that break off would be rewarded otherwise


class SelfCriticalCaptioning(Captioning):
    """Trains a captioner to say what CIDEr-D rewards: best from the ``weights`` of one that ``Captioning`` has trained.

    For each picture captions are drawn from the network; their log-probability is raised by how much better they are
    than the baseline. The weights of n-grams come from the references of the training pictures. The network stays in
    evaluation mode, so that what is drawn, what is compared and what is trained is one distribution.

    Args:
        architecture: the captioner.
        optimizer: as of ``Captioning``.
        scheduler: likewise.
        samples: captions drawn for each picture.
        baseline: that of the most probable words (``greedy``), or the mean of the picture's other samples (``mean``).
        kwargs: as for ``Captioning``; ``label_smoothing`` and ``attention_weight`` have no meaning here.

    Shape:
        as of ``Captioning``
    """

    example: ClassVar[dict[str, Any]] = {"max_length": 6, "samples": 2}

    def __init__(
        self,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory = torch.optim.AdamW,
        scheduler: SchedulerFactory | None = None,
        samples: int = 5,
        baseline: Literal["greedy", "mean"] = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(architecture, optimizer, scheduler, **kwargs)
        if samples < (2 if baseline == "mean" else 1):
            raise UserError(f"model.samples must be at least {2 if baseline == 'mean' else 1} with baseline {baseline}")
        if self.label_smoothing or self.attention_weight:
            raise UserError("SelfCriticalCaptioning takes neither label_smoothing nor attention_weight")
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
        memory = self.encode(images)
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
