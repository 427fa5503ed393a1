"""Tokenisers: a caption read back is the caption, whatever its script; special tokens can't be written in a text."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from zoo.contracts import check_facts
from zoo.errors import UserError
from zoo.functional.tokenizing import SPECIAL, SubwordTokenizer, WordTokenizer, joined, tokenizer_of, words

CAPTIONS = [
    "A dog isn't chasing the man's well-worn frisbee.",
    "Two cats (both grey), 3.5 metres from a “No parking” sign!",
    "It's 10:30 o'clock; they're at 1,000 m & can't stop...",
    "",
    "   A\ttab and\nnew  lines ",
    "<start> a picture of <end> <pad>",
    "Ein Mädchen läuft über die Straße.",
    "Девочка и её собака.",
    "שָׁלוֹם, כלב רץ על החוף!",  # Hebrew with vowel signs
    "كلبٌ يركض على الشاطئ؟",  # Arabic
    "می‌خواهم یک سگ",  # Persian with a zero-width non-joiner
    "एक हिन्दी वाक्य, कुत्ता।",  # Devanagari: vowel signs are combining marks
    "สุนัขวิ่งบนชายหาด",  # Thai
    "一只狗在海滩上奔跑。",
    "犬がビーチを走っている。3匹",
    "개가 해변에서 달린다.",
    "a 👩‍👩‍👧 and a 👍🏽 ☕️ 🇩🇪",
    "don’t use the caf\u0065\u0301's “smart” quotes",
    "x_1 = 5% of $20 + #tag @ me / you",
]


def bare(text: str) -> str:
    """What word tokens keep of a text."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower()).replace("’", "'")
    return "".join(text.split())


@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_caption_read_back_by_words_is_the_caption(caption: str) -> None:
    tokenizer = WordTokenizer.build(CAPTIONS)
    assert bare(tokenizer.decode(tokenizer.encode(caption))) == bare(caption)
    assert not set(tokenizer.encode(caption)) & {0, 1, 2, 3}


def test_random_unicode_read_back_by_words_is_the_text() -> None:
    drawn = random.Random(0)
    blocks = [(0x20, 0x7F), (0xA1, 0x250), (0x300, 0x370), (0x590, 0x700), (0x900, 0x980), (0x3040, 0x3100)]
    blocks += [(0x4E00, 0x4F00), (0xAC00, 0xAD00), (0x1F300, 0x1F650), (0xFE00, 0xFE10), (0x10900, 0x10910)]
    letters = ["".join(chr(drawn.randrange(*drawn.choice(blocks))) for _ in range(30)) for _ in range(300)]
    texts = ["".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc", "Cs")) for text in letters]
    tokenizer = WordTokenizer.build(texts)
    for text in texts:
        assert bare(tokenizer.decode(tokenizer.encode(text))) == bare(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dog isn't the man's.", ["the", "dog", "is", "n't", "the", "man", "'s", "."]),
        ("can't they're we've I'll", ["ca", "n't", "they", "'re", "we", "'ve", "i", "'ll"]),
        ("a well-known T-shirt, at 10:30 o'clock", ["a", "well-known", "t-shirt", ",", "at", "10:30", "o'clock"]),
        ("'dogs' - 1,000.5 5.", ["'", "dogs", "'", "-", "1,000.5", "5", "."]),
        ("一只 dog", ["一", "只", "dog"]),
        ("שָׁלוֹם!", ["שָׁלוֹם", "!"]),
        ("👩‍👩‍👧👍🏽", ["👩‍👩‍👧", "👍🏽"]),
        ("\ufeffa\u200e b\u00adc", ["a", "bc"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == [unicodedata.normalize("NFC", word) for word in expected]


@pytest.mark.parametrize("text", ["the man's dog isn't (very) big, is it? no.", "一只狗。", "a 'dog' :"])
def test_joined_words_are_spaced_as_people_space_them(text: str) -> None:
    assert joined(words(text)).replace("' dog '", "'dog'").replace(":", " :") == text


def test_a_vocabulary_has_frequent_words_in_the_order_of_their_frequency() -> None:
    tokenizer = WordTokenizer.build(["b b b", "a a c", "B d"], min_count=2)
    assert tokenizer.vocabulary == [*SPECIAL, "b", "a"]
    assert tokenizer.encode("a b c") == [5, 4, tokenizer.unknown_id]
    with pytest.raises(UserError, match="no word occurs 9 times"):
        WordTokenizer.build(["a"], 9)


def test_decoding_stops_at_the_end() -> None:
    tokenizer = WordTokenizer.build(["a dog"])
    a, dog = tokenizer.encode("a dog")
    assert tokenizer.decode([1, a, 3, dog, 0, 2, a, a]) == "a dog"


@pytest.fixture(scope="module")
def subwords() -> SubwordTokenizer:
    """Trained on captions."""
    return SubwordTokenizer.train(CAPTIONS * 3, 400)


@pytest.mark.parametrize("caption", [*CAPTIONS, "never seen: ΑΒΓ \u200f\u0007 ✂"])
def test_a_caption_read_back_by_subwords_is_the_caption(subwords: SubwordTokenizer, caption: str) -> None:
    ids = subwords.encode(caption)
    assert subwords.decode([subwords.start_id, *ids, subwords.end_id, subwords.pad_id]) == caption
    assert not set(ids) & {0, 1, 2, 3}


def test_subwords_are_shorter_than_bytes_and_the_same_twice(subwords: SubwordTokenizer) -> None:
    assert len(subwords.encode(CAPTIONS[0])) < 0.6 * len(CAPTIONS[0])
    assert len(subwords.vocabulary) == 400
    assert SubwordTokenizer.train(CAPTIONS * 3, 400).text == subwords.text
    with pytest.raises(UserError, match="at least 260 tokens, not 100"):
        SubwordTokenizer.train(CAPTIONS, 100)


@pytest.mark.parametrize("kind", ["words", "subwords"])
def test_facts_make_the_same_tokeniser(kind: str, subwords: SubwordTokenizer) -> None:
    tokenizer = subwords if kind == "subwords" else WordTokenizer.build(CAPTIONS)
    facts = json.loads(json.dumps(tokenizer.facts()))
    check_facts(facts)
    again = tokenizer_of(facts)
    assert type(again) is type(tokenizer)
    assert again.facts() == facts
    assert [again.encode(text) for text in CAPTIONS] == [tokenizer.encode(text) for text in CAPTIONS]
    with pytest.raises(UserError, match="without the fact pad_id"):
        tokenizer_of({k: v for k, v in facts.items() if k != "pad_id"})  # type: ignore[arg-type]


def published(path: Path) -> Path:
    """A file as BERT's: word pieces in lower case, cut at 4 tokens and padded."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "run", "##s"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=16)
    tokenizer.add_special_tokens(pieces[:4])
    tokenizer.save(str(path))
    return path


def test_a_published_tokeniser_is_read(tmp_path: Path) -> None:
    tokenizer = SubwordTokenizer.read(published(tmp_path / "tokenizer.json"))
    assert (tokenizer.pad_id, tokenizer.unknown_id, tokenizer.start_id, tokenizer.end_id) == (0, 1, 2, 3)
    assert tokenizer.encode("A dog runs") == [4, 5, 6, 7]  # neither cut nor padded
    assert tokenizer.decode([2, 4, 5, 6, 7, 3, 0]) == "a dog runs"
    assert tokenizer_of(tokenizer.facts()).encode("A dog runs") == [4, 5, 6, 7]


def test_special_tokens_that_a_file_lacks_are_added(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE({"a": 0, "b": 1, "<|endoftext|>": 2}, [])).save(str(tmp_path / "t.json"))
    tokenizer = SubwordTokenizer.read(tmp_path / "t.json")
    assert tokenizer.vocabulary == ["a", "b", "<|endoftext|>", "<pad>", "<start>", "<unknown>"]
    assert (tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id, tokenizer.unknown_id) == (3, 4, 2, 5)


@pytest.mark.parametrize("content", [b"{}", b"not JSON", b"\xff\xfe", None])
def test_a_file_that_is_no_tokeniser_ends_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(UserError, match=r"t\.json") as caught:
        SubwordTokenizer.read(tmp_path / "t.json")
    assert "\n" not in str(caught.value)


def test_words_need_no_library() -> None:
    code = "import sys; from zoo.functional.tokenizing import WordTokenizer as W; W.build(['a']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "tokenizers" not in loaded
    assert "torch" not in loaded
