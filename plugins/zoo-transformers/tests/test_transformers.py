"""What is special about this plugin; what every entry must do is asked by the zoo's own kit, in one line."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import BertTokenizer, BlipConfig, GenerationConfig, GPT2Tokenizer
from zoo_transformers import tokenizers
from zoo_transformers.blip import BLIP
from zoo_transformers.captioner import LibraryCaptioner
from zoo_transformers.git import GIT
from zoo_transformers.vision_encoder_decoder import VisionEncoderDecoder

from zoo.architectures.base import skip_pretrained
from zoo.errors import UserError
from zoo.functional.decoding import Limits, SpecialIds, greedy
from zoo.functional.tokenizing import SubwordTokenizer
from zoo.tasks.captioner_export import Encoder, Step
from zoo.testing import conformance

test_everything = conformance("zoo-transformers")

WORDS, SIZE = 11, [32, 48]
PAD, START, END, UNKNOWN = 0, 1, 2, 3
IDS = SpecialIds(pad=PAD, start=START, end=END)
VIT = VisionEncoderDecoder.example
TINY_TEXT = {"hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
OVER_BERT = {**VIT, "decoder": "bert", "decoder_options": TINY_TEXT}
TROCR = {"d_model": 24, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 24}
OVER_TROCR = {**VIT, "decoder": "trocr", "decoder_options": {**TROCR, "cross_attention_hidden_size": 16}}
SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "patch_size": 4}
OVER_SWIN = {**VIT, "encoder": "swin", "encoder_options": SWIN}
DEIT = {**VIT, "encoder": "deit"}

NETWORKS: dict[str, tuple[type[LibraryCaptioner], dict[str, Any]]] = {
    "BLIP": (BLIP, BLIP.example),
    "GIT": (GIT, GIT.example),
    "ViT and GPT-2": (VisionEncoderDecoder, VIT),
    "ViT and BERT": (VisionEncoderDecoder, OVER_BERT),
    "ViT and TrOCR": (VisionEncoderDecoder, OVER_TROCR),
    "Swin and GPT-2": (VisionEncoderDecoder, OVER_SWIN),
    "DeiT and GPT-2": (VisionEncoderDecoder, DEIT),
}


def make(cls: type[LibraryCaptioner], seed: int = 0, std: float = 0.3, **arguments: Any) -> Any:
    """A network whose parameters are all random, in evaluation."""
    torch.manual_seed(seed)
    network = cls(**{"vocabulary_size": WORDS, "image_size": SIZE, **arguments}).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return network


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Any:
    cls, arguments = NETWORKS[request.param]
    return make(cls, **arguments)


def inputs(size: list[int] = SIZE, count: int = 3, length: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 3, *size, generator=generator)
    return images, torch.randint(0, WORDS, (count, length), generator=generator)


def library_logits(network: LibraryCaptioner, images: Tensor, tokens: Tensor) -> Tensor:
    """Logits by the forward pass of the library's own class, from images to words."""
    interpolate = {"interpolate_pos_encoding": True}
    if isinstance(network, VisionEncoderDecoder):
        known = interpolate if network.network.config.encoder.model_type in ("vit", "swin", "deit") else {}
        return network.network(pixel_values=images, decoder_input_ids=tokens, **known).logits
    logits = network.network(pixel_values=images, input_ids=tokens, **interpolate).logits
    return logits[:, -tokens.shape[1] :]  # GIT gives those of the picture, too


@torch.no_grad()
def test_the_librarys_forward_pass_agrees(network: Any) -> None:
    images, tokens = inputs()
    found = network(images, tokens)
    torch.testing.assert_close(found, library_logits(network, images, tokens), rtol=1e-5, atol=1e-5)
    assert found.std() > 0.1


@torch.no_grad()
def test_steps_with_a_cache_agree_with_all_words_at_once(network: Any) -> None:
    images, tokens = inputs()
    memory = network.encode(images)
    expected, attention = network.decode_with_attention(memory, tokens)
    torch.testing.assert_close(expected, network.decode(memory, tokens), rtol=0, atol=1e-6)
    torch.testing.assert_close(attention.sum(-1), torch.ones(3, 6))
    state = network.start(memory)
    for i in range(tokens.shape[1]):
        before = {name: tensor.clone() for name, tensor in state.items()}
        logits, after = network.step(tokens[:, i], state)
        torch.testing.assert_close(logits, expected[:, i], rtol=0, atol=1e-5)
        torch.testing.assert_close(after["attention"], attention[:, i], rtol=0, atol=1e-5)
        assert all(torch.equal(state[name], before[name]) for name in before)  # a search may use it again
        state = after
    weights = network.attention(state)
    assert weights.shape == (3, *network.grid)
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(3))


@torch.no_grad()
def test_a_picture_shares_its_part_of_the_state(network: Any) -> None:
    """Two captions of each picture: one tensor of the picture serves both."""
    images, _ = inputs(count=2)
    memory = network.encode(images)
    state, tokens = network.start(memory), torch.tensor([4, 5, 6, 7])
    assert set(network.picture_state) < set(state)
    several = {k: v if k in network.picture_state else v.repeat_interleave(2, 0) for k, v in state.items()}
    logits, after = network.step(tokens, several)
    assert all(len(after[name]) == 2 for name in network.picture_state)
    alone = network.decode(memory.repeat_interleave(2, 0), tokens[:, None])[:, 0]
    torch.testing.assert_close(logits, alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_greedy_decoding_says_what_the_librarys_generate_says(network: Any) -> None:
    """The zoo's loop over these steps, and the library's own loop and caches."""
    images, _ = inputs([48, 48], count=4)  # what all are built for: ``generate`` takes no other for some
    own = greedy(network, network.encode(images), IDS, Limits(max_length=7)).tokens[:, 0].tolist()
    theirs = generated(network, images, 7)[:, 1:].tolist()
    assert [[t for t in row if t != PAD] for row in own] == [[t for t in row if t != PAD] for row in theirs]


def generated(network: LibraryCaptioner, images: Tensor, length: int) -> Tensor:
    settings = GenerationConfig(
        max_new_tokens=length,
        do_sample=False,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
        decoder_start_token_id=START,
        suppress_tokens=[PAD, START],
    )
    start = torch.full((len(images), 1), START)
    if isinstance(network, BLIP):
        memory = network.encode(images)
        return network.network.text_decoder.generate(start, generation_config=settings, encoder_hidden_states=memory)
    if isinstance(network, GIT):
        return network.network.generate(start, generation_config=settings, pixel_values=images)
    return network.network.generate(images, generation_config=settings)


@torch.no_grad()
@pytest.mark.parametrize("cls", [BLIP, GIT, VisionEncoderDecoder])
def test_images_of_other_sizes_than_it_was_built_for(cls: type[LibraryCaptioner]) -> None:
    network = make(cls, **cls.example)
    images, tokens = inputs([40, 40])
    torch.testing.assert_close(network(images, tokens), library_logits(network, images, tokens), rtol=1e-5, atol=1e-5)
    _, state = network.step(tokens[:, 0], network.start(network.encode(images)))
    assert network.attention(state).shape == (3, 5, 5)


@torch.no_grad()
def test_a_copy_after_a_look_at_attention_is_whole() -> None:
    network = make(BLIP, **BLIP.example)
    images, tokens = inputs()
    memory = network.encode(images)
    _, before = network.decode_with_attention(memory, tokens)
    copied = copy.deepcopy(network)
    for parameter in copied.parameters():
        parameter.mul_(0.5)
    logits, attention = copied.decode_with_attention(copied.encode(images), tokens)
    assert not torch.allclose(attention, before)
    torch.testing.assert_close(network.decode_with_attention(memory, tokens)[1], before)
    torch.testing.assert_close(logits, copied(images, tokens))


def test_poolers_are_kept_and_not_trained() -> None:
    network = VisionEncoderDecoder(**VIT, vocabulary_size=WORDS, image_size=SIZE)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"network.encoder.pooler.dense.weight", "network.encoder.pooler.dense.bias"}


# Weights


@pytest.fixture
def saved(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A network of the library in a folder, as its ``save_pretrained`` leaves it; token 7 starts and ends captions."""
    cls, arguments = request.param
    network = make(cls, seed=5, **arguments)
    config = network.network.config
    for one in (config, *(getattr(config, part, config) for part in ("decoder", "text_config"))):
        one.bos_token_id = one.eos_token_id = 7
    config.decoder_start_token_id = 7
    network.network.save_pretrained(tmp_path / "weights")
    return cls, arguments, network, str(tmp_path / "weights")


every_network = pytest.mark.parametrize("saved", NETWORKS.values(), ids=NETWORKS, indirect=True)


@every_network
@torch.no_grad()
def test_weights_are_loaded_and_more_words_begin_as_the_start(saved: Any) -> None:
    cls, arguments, theirs, folder = saved
    images, tokens = inputs()
    own = cls(**arguments, pretrained=folder, vocabulary_size=WORDS, image_size=SIZE).eval()
    torch.testing.assert_close(own(images, tokens), theirs(images, tokens), rtol=0, atol=1e-6)
    assert own.mean is not None
    assert len(own.mean) == len(own.std) == 3
    larger = cls(**arguments, pretrained=folder, vocabulary_size=WORDS + 2, image_size=SIZE).eval()
    expected = theirs(images, tokens)
    found = larger(images, tokens.masked_fill(tokens == 7, WORDS + 1))
    torch.testing.assert_close(found[..., :WORDS], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found[..., WORDS:], expected[..., [7, 7]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("saved", [(GIT, GIT.example)], indirect=True)
def test_weights_that_do_not_fit_are_refused_in_one_line(saved: Any) -> None:
    cls, arguments, _, folder = saved
    known = {"pretrained": folder, "vocabulary_size": WORDS, "image_size": SIZE}
    wider = {**arguments["text"], "hidden_size": 32, "num_hidden_layers": 1}
    for changes, message in (
        ({"text": wider}, r"give text: \{'hidden_size': 16, 'num_hidden_layers': 2\}"),
        ({"vocabulary_size": 5}, "has 11 tokens, the data have 5: give the data its tokeniser, which `zoo tokenizer"),
        ({"image_size": [64, 64]}, r"position_embedding.weight of .* has shape \[37, 16\], here it has \[65, 16\]"),
        ({"pretrained": str(Path(folder).parent)}, "could not be read"),
    ):
        with pytest.raises(UserError, match=message) as one:
            cls(**{**arguments, **known, **changes})
        assert "\n" not in str(one.value)


def test_without_internet_there_is_one_line_and_a_checkpoint_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def no_internet(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_internet)
    known = {**BLIP.example, "pretrained": "some/captioner", "vocabulary_size": WORDS, "image_size": SIZE}
    with pytest.raises(UserError, match=r"huggingface.co/some/captioner could not be reached \(no route to host\)"):
        BLIP(**known)
    with skip_pretrained():
        assert BLIP(**known).mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
    assert BLIP(**{**known, "pretrained": None}).mean is None


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (BLIP, {"vision": {"hiden_size": 8}}, "vision: BlipVisionConfig has no hiden_size; did you mean hidden_size"),
        (BLIP, {"text": {"vocab_size": 8}}, "text: BlipTextConfig has no vocab_size"),
        (GIT, {"text": {"hidden_size": "wide"}}, "text: GitConfig with .*: .*expected int, got str"),
        (GIT, {"text": {**TINY_TEXT, "num_attention_heads": 5}}, "GIT can't be built: .*multiple of"),
        (GIT, {"image_size": [4, 4]}, "GIT can't take images of 4×4 pixels"),
        (VisionEncoderDecoder, {"encoder": "vitt"}, "encoder_options: transformers has no vitt; did you mean vit"),
        (VisionEncoderDecoder, {"decoder": "llama", "decoder_options": {}}, "decoder: llama has no attention to"),
        (VisionEncoderDecoder, {"encoder": "resnet", "encoder_options": {}}, "can't"),
    ],
)
def test_mistakes_end_in_one_line(cls: type[LibraryCaptioner], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as one:
        cls(**{"vocabulary_size": WORDS, "image_size": SIZE, **cls.example, **arguments})
    assert "\n" not in str(one.value)


# Tokenisers

BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat", "##s", "red"]


def bert() -> Any:
    return BertTokenizer(vocab={token: index for index, token in enumerate(BERT_TOKENS)})


def test_blips_tokeniser_starts_with_a_token_that_it_lacks(tmp_path: Path) -> None:
    """As in Salesforce's files: the start is behind the tokeniser's vocabulary, the end is the separator."""
    config = BlipConfig(text_config={"vocab_size": 12, "bos_token_id": 10, "sep_token_id": 3, "eos_token_id": 2})
    found = tokenizers.converted(bert(), config)
    assert (found.pad_id, found.start_id, found.end_id, found.unknown_id) == (0, 10, 3, 1)
    assert found.vocabulary[:5] == ["<pad>", "<unknown>", "[CLS]", "<end>", "[MASK]"]
    assert len(found.vocabulary) == 12
    check_written(found, tmp_path, "A red dogs zebra", [5, 9, 6, 8, 1])
    assert found.decode([10, 5, 9, 6, 8, 1, 3, 7]) == "a red dogs"


def test_gpt2s_start_gets_a_token_of_its_own(tmp_path: Path) -> None:
    """As in nlpconnect's files: start, end and unknown are one token, and there is no padding."""
    library = GPT2Tokenizer(vocab={"a": 0, "b": 1, "Ġa": 2, "<|endoftext|>": 3, "Ġ": 4}, merges=[("Ġ", "a")])
    words = transformers.GPT2Config(vocab_size=5, bos_token_id=3, eos_token_id=3)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(transformers.ViTConfig(), words)
    found = tokenizers.converted(library, config)
    assert found.vocabulary == ["a", "b", "Ġa", "<end>", "Ġ", "<pad>", "<start>", "<unknown>"]
    assert (found.pad_id, found.start_id, found.end_id, found.unknown_id) == (5, 6, 3, 7)
    check_written(found, tmp_path, "ab a", [0, 1, 2])
    assert found.decode([6, 0, 1, 2, 3, 5]) == "ab a"


def check_written(found: SubwordTokenizer, folder: Path, text: str, ids: list[int]) -> None:
    """The file says all, and the zoo reads it without this plugin."""
    (folder / "tokenizer.json").write_text(found.text, encoding="utf-8")
    read = SubwordTokenizer.read(folder / "tokenizer.json")
    assert {k: v for k, v in read.facts().items() if k != "tokenizer"} == {
        k: v for k, v in found.facts().items() if k != "tokenizer"
    }
    assert read.encode(text) == found.encode(text) == ids


def test_the_command_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from zoo.__main__ import main

    bert().save_pretrained(tmp_path / "weights")
    transformers.GitConfig(vocab_size=10, bos_token_id=2, eos_token_id=3).save_pretrained(tmp_path / "weights")
    assert main(["tokenizer", str(tmp_path / "weights"), str(tmp_path / "file.json")]) == 0
    found = SubwordTokenizer.read(tmp_path / "file.json")
    assert (found.pad_id, found.start_id, found.end_id, found.unknown_id) == (0, 2, 3, 1)
    assert "10 tokens" in capsys.readouterr().out
    assert main(["tokenizer", str(tmp_path / "weights"), str(tmp_path / "file.json")]) == 2


@pytest.mark.slow
def test_the_recipe_trains_and_a_checkpoint_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zoo
    from zoo import registry
    from zoo.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    few = ("--data.train_size=32", "--data.val_size=4", "--data.test_size=4", "--trainer.max_epochs=1")
    assert registry.find_recipe("git_captioning") == registry.find_recipe("zoo-transformers:git_captioning")
    assert main(["fit", "--config", "git_captioning", "--trainer.logger=false", *few]) == 0
    (checkpoint,) = Path("runs/git_captioning").glob("*/checkpoints/last.ckpt")
    task = zoo.load(checkpoint).eval()
    assert isinstance(task.architecture, GIT)
    (results,) = Path("runs/git_captioning").glob("*/results.json")
    assert {"test/cider", "test/bleu_4", "test/content_accuracy"} <= set(json.loads(results.read_text()))


@pytest.mark.parametrize("name", ["BLIP", "GIT"])
def test_can_be_traced_for_any_number_of_pictures_and_words(name: str) -> None:
    """As ``zoo export`` does, whose step takes as many words as the positions allow."""
    cls, arguments = NETWORKS[name]
    network = make(cls, **arguments)
    batch = torch.export.Dim("batch", min=1)
    pictures = torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        state = network.start(network.encode(pictures))
        encoder = Encoder(network, None, [*state])
        program = torch.export.export(encoder, (pictures,), dynamic_shapes=({0: batch},))
        more = torch.rand(3, 3, *SIZE)
        for found, expected in zip(program.module()(more), encoder(more), strict=True):
            torch.testing.assert_close(found, expected)
        said = state
        for token in ([START, START], [4, 5], [6, 7], [8, 9]):
            _, said = network.step(torch.tensor(token), said)
        step = Step(network, IDS, [*state])
        past = torch.export.Dim("past", min=0, max=29)
        axes = tuple({0: batch} if name in network.picture_state else {0: batch, 2: past} for name in state)
        inputs = (torch.tensor([4, 5]), *(said[name] for name in state))
        traced = torch.export.export(step, inputs, dynamic_shapes=({0: batch}, axes)).module()
        first = (torch.full((2,), START), *state.values())
        for found, expected in zip(traced(*first), step(*first), strict=True):
            torch.testing.assert_close(found, expected)
