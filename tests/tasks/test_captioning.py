"""Captioning: losses by hand, what is logged, predicted and drawn, and the policy gradient by enumeration."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from running import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from zoo import Data, Facts, contracts
from zoo.architectures.captioner import Captioner
from zoo.errors import UserError
from zoo.functional.self_critical import mean_of_others, self_critical_loss
from zoo.metrics.sequences import SampleMetric
from zoo.tasks.captioning import Captioning
from zoo.tasks.self_critical_captioning import SelfCriticalCaptioning

FORM = contracts.form("captioning")
FACTS: Facts = FORM.example_facts or {}
COUNT = 16


class Small(Captioner):
    """Logits from the words so far, their number, and the places that they look at."""

    def __init__(self, vocabulary_size: int, in_channels: int = 3, width: int = 24) -> None:
        super().__init__()
        self.places = nn.Conv2d(in_channels, width, 8, 8)
        self.words = nn.Embedding(vocabulary_size, width)
        self.mixed = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(2 * width, vocabulary_size)

    def encode(self, images: Tensor) -> Tensor:
        return self.places(images).flatten(2).transpose(1, 2)

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        return self.decode_with_attention(memory, tokens)[0]

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        hidden, _ = self.mixed(self.words(tokens))
        looked = (hidden @ memory.transpose(1, 2)).softmax(-1)
        return self.head(torch.cat([hidden, looked @ memory], -1)), looked


class Blind(Small):
    """Without attention."""

    def decode_with_attention(self, memory: Tensor, tokens: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return super().decode_with_attention(memory, tokens)[0], None

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        return self.decode_with_attention(memory, tokens)[0]


class _Samples(Dataset[Any]):
    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        assert FORM.example is not None
        return FORM.example(index)


class RightColour(SampleMetric):
    """The share of captions that say the word that all references of their picture say."""

    def update(self, captions: list[str], details: list[dict[str, Any]]) -> None:
        shared = [set.intersection(*(set(r.split()) for r in one["references"])) - {"image"} for one in details]
        self.keep([bool(own & set(said.split())) for said, own in zip(captions, shared, strict=True)])

    def compute(self) -> dict[str, float]:
        return {"right_colour": sum(right for (right,) in self.samples) / max(1, len(self.samples))}


class Colours(Data):
    """The form's own examples."""

    batch = "captioning"

    @property
    def facts(self) -> Facts:
        return FACTS

    def samples(self, split: str) -> Any:
        return _Samples()

    def collate(self, samples: list[Any]) -> Any:
        return FORM.collate(samples)

    def references(self, split: str) -> list[list[str]]:
        return [_Samples()[i][2]["references"] for i in range(COUNT)]

    def own_metric(self) -> RightColour:
        return RightColour()


def made(network: type[Captioner] = Small, cls: type[Captioning] = Captioning, **options: Any) -> Captioning:
    torch.manual_seed(0)
    task = cls(network, **{"max_length": 6, **options}, facts=FACTS)  # type: ignore[arg-type]
    task.configure_model()
    return task.eval()


def batch(count: int = 4) -> Any:
    return FORM.collate([_Samples()[i] for i in range(2, 2 + count)])


# Losses


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_mean_over_all_words_of_the_batch(smoothing: float) -> None:
    task, (images, tokens, _) = made(label_smoothing=smoothing), batch()
    logits, pad = task(images, tokens[:, :-1]), FACTS["pad_id"]
    each = [
        -(1 - smoothing) * row.log_softmax(0)[word] - smoothing * row.log_softmax(0).mean()
        for own, words in zip(logits, tokens[:, 1:], strict=True)
        for row, word in zip(own, words, strict=True)
        if word != pad
    ]
    loss, logged = task.loss(task.encode(images), tokens)
    torch.testing.assert_close(loss, torch.stack(each).mean())
    assert torch.equal(loss, logged)


def test_padding_changes_no_loss() -> None:
    task, (images, tokens, _) = made(attention_weight=0.5), batch()
    padded = F.pad(tokens, (0, 3), value=FACTS["pad_id"])
    memory = task.encode(images)
    torch.testing.assert_close(task.loss(memory, padded), task.loss(memory, tokens))


def test_the_end_is_learnt_where_it_is_the_padding_too() -> None:
    """As in GPT-2's vocabulary; the loss is that of the same captions with a padding of their own."""
    task, (images, tokens, _) = made(attention_weight=0.5), batch()
    padding = F.pad(tokens[:, 1:] == FACTS["pad_id"], (1, 0))
    memory, expected = task.encode(images), task.loss(task.encode(images), tokens)
    task.ids = task.ids._replace(pad=FACTS["end_id"])
    assert bool(padding.any())
    found = task.loss(memory, tokens.masked_fill(padding, FACTS["end_id"]))
    torch.testing.assert_close(found, expected)


def test_the_attention_of_each_place_is_drawn_to_1() -> None:
    task, (images, tokens, _) = made(attention_weight=0.5), batch()
    memory = task.encode(images)
    _, looked = task.architecture.decode_with_attention(memory, tokens[:, :-1])
    expected = torch.zeros(())
    for one, words in zip(looked, tokens[:, 1:], strict=True):
        for place in range(one.shape[1]):
            given = sum(one[t, place] for t in range(len(words)) if words[t] != FACTS["pad_id"])
            expected = expected + (1 - given) ** 2 / len(images)
    loss, words_alone = task.loss(memory, tokens)
    torch.testing.assert_close(loss - words_alone, 0.5 * expected)
    with pytest.raises(UserError, match="Blind has no attention"):
        made(Blind, attention_weight=0.5).loss(memory, tokens)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"candidates": 3, "beam": 2}, "a beam of 2 finds no more than 2"),
        ({"label_smoothing": 1.5}, "from 0 to 1"),
        ({"attention_weight": -1.0}, "at least 0"),
        ({"prefix": "one zebra"}, "'one zebra' has 1 words that are not in the vocabulary"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"top_p": 0.0, "temperature": 1.0}, "top_p above 0"),
        ({"top_p": 0.9}, "nothing is drawn: give model.temperature"),
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"prefix": "one red image", "max_length": 3}, "leaves none of 3"),
    ],
)
def test_what_can_t_be_is_refused_before_training(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        made(**wrong)


# A whole run


@pytest.fixture(scope="module")
def run() -> Any:
    torch.manual_seed(0)
    data = Colours(batch_size=8)
    task = Captioning(Small, optimizer=_adam(0.02), beam=2, max_length=6)
    trainer = quiet_trainer(max_epochs=15, log_every_n_steps=1, enable_checkpointing=False)
    trainer.fit(task, datamodule=data)
    fitted = dict(trainer.callback_metrics)
    trainer.test(task, datamodule=data, verbose=False)
    return task.eval(), {**fitted, **trainer.callback_metrics}


def _adam(lr: float) -> Any:
    from functools import partial

    return partial(torch.optim.Adam, lr=lr)


def test_it_learns_and_logs_its_metrics_and_the_data_s(run: Any) -> None:
    _, logged = run
    assert logged["test/right_colour"] == logged["val/right_colour"] == 1
    assert logged["test/cider"] > 5
    assert {f"{s}/{n}" for s in ("val", "test") for n in ("loss", "bleu_4", "rouge_l", "distinct_1")} <= logged.keys()
    assert logged["test/seen_in_training"] == 1
    assert logged["train/loss"] < 0.6


def test_predictions_are_drawn_and_written(run: Any, tmp_path: Path) -> None:
    task, _ = run
    task.text, (images, _, details) = "one blue image", batch(3)
    names = ["a/COCO_val2014_000000000007.jpg", "12.jpg", "9.png"]
    results = task.predict_step((images, names), 0)
    rows = task.as_json(results)
    colours = ["blue", "grey", "red"]
    for row, colour, result in zip(rows, colours, results, strict=True):
        assert colour in row["caption"]
        assert row["captions"][0]["caption"] == row["caption"]
        assert result.tokens == row["caption"].split()
        assert result.attention is not None
        assert result.attention.shape == (len(result.tokens), 4, 4)
        torch.testing.assert_close(result.attention.sum((1, 2)), torch.ones(len(result.tokens)))
    task.write_summary(tmp_path, rows)
    assert [one["image_id"] for one in json.loads((tmp_path / "coco-results.json").read_text())] == [7, 12, 9]
    ranking = json.loads((tmp_path / "ranking.json").read_text())
    assert ranking["pictures"][0]["name"] == names[0], "the blue one fits best"
    plain, known = task.draw(images, results), task.draw(images, results, details)
    assert plain[0].height > plain[0].width, "with a strip of attention below"
    assert known[0].height > 256 + 22
    task.text = None
    assert "log_probability" not in task.as_json(task.predict_step((images, names), 0))[0]


def test_a_picture_s_captions_do_not_depend_on_the_batch(run: Any) -> None:
    task, _ = run
    images, names = batch(4)[0], list("abcd")
    for options in ({"beam": 3, "candidates": 2}, {"temperature": 1.0, "candidates": 3}, {"beam": 1}):
        for name, value in {"temperature": None, "candidates": 1, **options}.items():
            setattr(task, name, value)
        together = task.predict_step((images, names), 0)
        alone = [task.predict_step((images[i : i + 1], names[i : i + 1]), 0)[0] for i in range(4)]
        assert [[c.text for c in one.captions] for one in together] == [[c.text for c in one.captions] for one in alone]
        scores = [c.log_probability for one in together for c in one.captions]
        assert scores == pytest.approx([c.log_probability for one in alone for c in one.captions], abs=1e-5)
    task.temperature, task.candidates, task.beam = None, 1, 2


def test_a_given_beginning_is_completed_and_a_caption_scored(run: Any) -> None:
    task, _ = run
    images = batch(2)[0]
    task.prefix = "one grey"
    found = task.predict_step((images, ["a", "b"]), 0)
    task.prefix = ""
    assert all(one.captions[0].text.startswith("one grey") for one in found)
    scored = task.log_probability(task.encode(images), [one.captions[0].text for one in found])
    assert scored.tolist() == pytest.approx([one.captions[0].log_probability for one in found], abs=1e-5)


# Self-critical training


def test_the_gradient_is_that_of_the_expected_reward() -> None:
    """Of all captions of at most three tokens of a vocabulary of three words, with any rewards."""
    words = ["<pad>", "<start>", "<end>", "<unknown>", "a", "b"]
    facts = {**FACTS, "vocabulary": words}
    torch.manual_seed(0)
    task = SelfCriticalCaptioning(Small, max_length=3, facts=facts)  # type: ignore[arg-type]
    task.configure_model()
    task.double().eval()
    pad, _, end = task.ids
    every = []
    for length in (1, 2, 3):
        for said in itertools.product([3, 4, 5], repeat=length - 1):
            every.append([*said, end, *[pad] * (3 - length)])
    every += [list(said) for said in itertools.product([3, 4, 5], repeat=3)]  # cut at the largest length
    tokens, images = torch.tensor([every]), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    task.samples = len(every)
    rewards = torch.rand(1, len(every), dtype=torch.float64)

    def log_probs() -> Tensor:
        return task._log_probs(task.encode(images), tokens)

    assert float(log_probs().exp().sum()) == pytest.approx(1)
    parameters = list(task.architecture.parameters())
    expected = torch.autograd.grad(-(log_probs().exp() * rewards).sum(), parameters)
    probabilities = log_probs().exp().detach()
    found = [torch.zeros_like(p) for p in parameters]
    for k, probability in enumerate(probabilities[0]):
        loss = self_critical_loss(log_probs()[:, k : k + 1], rewards[:, k : k + 1], torch.full((1, 1), 0.3))
        for total, gradient in zip(found, torch.autograd.grad(loss, parameters), strict=True):
            total += probability * gradient
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_the_other_samples_mean_is_an_unbiased_baseline() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0]])
    assert mean_of_others(rewards).tolist() == [[4.0, 3.5, 1.5]]


@pytest.mark.parametrize("baseline", ["greedy", "mean"])
def test_reward_is_learnt(baseline: Any) -> None:
    torch.manual_seed(0)
    task = SelfCriticalCaptioning(Small, optimizer=_adam(0.01), baseline=baseline, samples=4, max_length=6)
    trainer = quiet_trainer(max_epochs=25, log_every_n_steps=1, enable_checkpointing=False, limit_val_batches=0)
    rewards: list[float] = []
    task.on_train_epoch_end = lambda: rewards.append(float(trainer.callback_metrics["train/reward"]))  # type: ignore
    trainer.fit(task, datamodule=Colours(batch_size=16))
    assert sum(rewards[-5:]) > 2 * sum(rewards[:5]) > 0


def test_data_without_references_is_refused() -> None:
    class Unknown(Colours):
        def references(self, split: str) -> list[list[str]]:
            return []

    task = SelfCriticalCaptioning(Small, max_length=6)
    with pytest.raises(UserError, match="needs references of the training pictures"):
        quiet_trainer(max_epochs=1).fit(task, datamodule=Unknown(batch_size=16))
