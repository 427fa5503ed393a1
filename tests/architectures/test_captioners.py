"""Captioners against torch's Transformer decoder and LSTM, and against the papers' formulas written out."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.architectures.base import Architecture, parameter_count
from zoo.architectures.caption_decoder import grid_sinusoids, sinusoids
from zoo.architectures.caption_transformer import CaptionTransformer
from zoo.architectures.captioner import Captioner, Uncached
from zoo.architectures.resnet import ResNet
from zoo.architectures.show_and_tell import ShowAndTell
from zoo.architectures.show_attend_and_tell import ShowAttendAndTell
from zoo.architectures.timm import Timm
from zoo.architectures.vgg import VGG
from zoo.errors import UserError
from zoo.functional.decoding import Limits, SpecialIds, beam, greedy, score, with_start

WORDS, SIDE = 11, 64
IDS = SpecialIds(0, 1, 2)
BACKBONE = partial(VGG, depth=11, width=0.0625, norm="batch")
FACTS: dict[str, Any] = {"vocabulary_size": WORDS, "in_channels": 3, "image_size": [SIDE, SIDE // 2]}
SMALL: dict[type[Captioner], dict[str, Any]] = {
    CaptionTransformer: {"width": 16, "layers": 2, "heads": 2, "mlp_width": 24, "max_length": 12},
    ShowAndTell: {"width": 12},
    ShowAttendAndTell: {"width": 12, "word_width": 10},
}


def make(cls: type[Captioner], backbone: Any = BACKBONE, reduction: int | None = 8, **arguments: Any) -> Any:
    torch.manual_seed(0)
    network = cls(backbone, reduction=reduction, **{**SMALL[cls], **FACTS, **arguments})
    with torch.no_grad():  # larger than they begin, so that captions differ between pictures
        for name, parameter in network.named_parameters():
            if not name.startswith("backbone"):
                parameter.copy_(torch.randn_like(parameter) * (0.5 if parameter.dim() > 1 else 0.2))
    return network.eval().double()


def batch(count: int = 3, length: int = 5) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, *FACTS["image_size"], generator=random, dtype=torch.float64)
    return images, torch.randint(3, WORDS, (count, length), generator=random)


# Against independent computations


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_transformer_is_torchs(tied: bool) -> None:
    ours, (images, tokens) = make(CaptionTransformer, tie_embeddings=tied), batch()
    layer = nn.TransformerDecoderLayer(16, 2, 24, 0.0, "gelu", batch_first=True, norm_first=True)
    theirs = nn.TransformerDecoder(layer, 2).eval().double()
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        for attention, copied in ((mine.words, other.self_attn), (mine.places, other.multihead_attn)):
            copied.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key_value.weight]))
            copied.in_proj_bias.copy_(torch.cat([attention.query.bias, attention.key_value.bias]))
            copied.out_proj.load_state_dict(attention.output.state_dict())
        other.linear1.load_state_dict(mine.mlp[0].state_dict())
        other.linear2.load_state_dict(mine.mlp[3].state_dict())
        for i in (1, 2, 3):
            getattr(other, f"norm{i}").load_state_dict(getattr(mine, f"norm{i}").state_dict())
    theirs.norm = nn.LayerNorm(16).double()
    theirs.norm.load_state_dict(ours.norm.state_dict())
    words = ours.words.weight[tokens] * 4 + ours.positions.weight[:5]
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    memory = ours.encode(images)
    out = theirs(words, memory, tgt_mask=mask, tgt_is_causal=True)
    expected = out @ ours.words.weight.T + ours.bias if tied else ours.classifier(out)
    torch.testing.assert_close(ours(images, tokens), expected)
    maps = ours.backbone.features(images, ["layers.relu4_2"])["layers.relu4_2"]
    places = ours.project(maps.flatten(2).transpose(1, 2))
    torch.testing.assert_close(memory, places + grid_sinusoids(8, 4, 16, places))


def test_sinusoids_are_the_papers() -> None:
    found = sinusoids(torch.arange(7.0), 8)
    for place, i in ((3, 0), (6, 2), (5, 3)):
        angle = place / 10_000 ** (2 * i / 8)
        assert float(found[place, i]) == pytest.approx(math.sin(angle), abs=1e-6)
        assert float(found[place, 4 + i]) == pytest.approx(math.cos(angle), abs=1e-6)
    grid = grid_sinusoids(2, 3, 8, torch.zeros(1)).view(2, 3, 8)
    torch.testing.assert_close(grid[1, 2], torch.cat([sinusoids(torch.tensor([n]), 4)[0] for n in (1.0, 2.0)]))


@torch.no_grad()
def test_show_and_tell_is_an_lstm_that_reads_the_picture_first() -> None:
    ours, (images, tokens) = make(ShowAndTell), batch()
    cell = nn.LSTMCell(12, 12).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in ours.lstm.state_dict().items()})
    maps = ours.backbone.features(images, ["layers.relu4_2"])["layers.relu4_2"]
    state = cell(ours.picture(maps.mean((2, 3))))
    for at, word in enumerate(tokens.unbind(1)):
        state = cell(ours.words.weight[word], state)
        torch.testing.assert_close(ours(images, tokens)[:, at], ours.classifier(state[0]))


@torch.no_grad()
def test_show_attend_and_tell_is_the_papers_formulas() -> None:
    """Place by place and gate by gate, for one picture."""
    ours, (images, tokens) = make(ShowAttendAndTell), batch(1)
    a = ours.backbone.features(images, ["layers.relu4_2"])["layers.relu4_2"][0].flatten(1).T  # annotation vectors
    hidden_layer = ours.summary[0](a.mean(0)).relu()
    h, c = ours.first_hidden(hidden_layer).tanh(), ours.first_cell(hidden_layer).tanh()
    logits, attention = ours.decode_with_attention(ours.encode(images), tokens)
    for t, word in enumerate(tokens[0]):
        e = torch.stack([ours.energy((ours.key(a_i) + ours.query(h)).tanh())[0] for a_i in a])
        alpha = e.exp() / e.exp().sum()
        z = torch.sigmoid(ours.gate(h)) * sum(alpha_i * a_i for alpha_i, a_i in zip(alpha, a, strict=True))
        y = ours.words.weight[word]
        gates = ours.lstm.weight_ih @ torch.cat([y, z]) + ours.lstm.bias_ih + ours.lstm.weight_hh @ h
        i, f, g, o = (gates + ours.lstm.bias_hh).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        deep = (y + ours.from_hidden(h) + ours.from_context(z)).tanh()
        torch.testing.assert_close(logits[0, t], ours.classifier(deep))
        torch.testing.assert_close(attention[0, t], alpha)


def test_parameters_at_the_papers_sizes() -> None:
    """Counted by hand from the layers' widths; VGG-19 has 20,024,384 without its classifier."""
    with torch.device("meta"):
        backbone = partial(VGG, depth=19)
        attend = ShowAttendAndTell(backbone, reduction=16)
        tell = ShowAndTell(backbone)
        transformer = CaptionTransformer(backbone, tie_embeddings=False)
    d, n, m, v = 512, 1800, 512, 10_000
    lstm = 4 * n * (m + d + n + 2)
    heads = d * d + d + 2 * (d * n + n) + d * d + d + n * d + d + n + 1
    assert parameter_count(attend) - 20_024_384 == v * m + heads + lstm + n * m + m + d * m + m + m * v + v
    assert parameter_count(tell) - 20_024_384 == d * d + d + v * d + 4 * d * (2 * d + 2) + d * v + v == 12_613_904
    theirs = nn.TransformerDecoderLayer(512, 8, device="meta")
    decoder = 6 * parameter_count(theirs) + 2 * d
    assert parameter_count(transformer) - 20_024_384 == d * d + d + 2 * d + v * d + 64 * d + decoder + d * v + v


# Steps, masks and attention


@torch.no_grad()
@pytest.mark.parametrize("cls", SMALL)
def test_steps_are_the_same_as_all_words_at_once(cls: type[Captioner]) -> None:
    network, (images, tokens) = make(cls), batch()
    memory = network.encode(images)
    logits, attention = network.decode_with_attention(memory, tokens)
    torch.testing.assert_close(network.decode(memory, tokens), logits)
    state = network.start(memory)
    for at, word in enumerate(tokens.unbind(1)):
        found, state = network.step(word, state)
        torch.testing.assert_close(found, logits[:, at])
        looked = network.attention(state)
        assert (looked is None) == (attention is None)
        if looked is not None:
            assert looked.shape == (3, 8, 4)
            torch.testing.assert_close(looked.flatten(1), attention[:, at])
            torch.testing.assert_close(looked.sum((1, 2)), torch.ones(3, dtype=torch.float64))


@torch.no_grad()
@pytest.mark.parametrize("cls", SMALL)
def test_the_future_and_padding_have_no_say(cls: type[Captioner]) -> None:
    network, (images, tokens) = make(cls), batch()
    logits = network(images, tokens)
    changed = torch.cat([tokens[:, :3], (tokens[:, 3:] + 1) % WORDS, torch.zeros(3, 4, dtype=torch.int64)], 1)
    torch.testing.assert_close(network(images, changed)[:, :3], logits[:, :3])
    assert not torch.allclose(network(images, changed)[:, 3:5], logits[:, 3:])


@torch.no_grad()
@pytest.mark.parametrize("cls", SMALL)
def test_beams_share_the_picture(cls: type[Captioner]) -> None:
    """The state of each picture is kept once."""
    network, (images, _) = make(cls), batch()
    memory = 3 * torch.randn_like(network.encode(images))
    for limits in (Limits(8), Limits(8, torch.tensor([4]), 2)):
        found, expected = (beam(n, memory, IDS, limits, True, width=3, count=3) for n in (network, Uncached(network)))
        assert torch.equal(found.tokens, expected.tokens)
        torch.testing.assert_close(found.log_probs, expected.log_probs)
        assert (found.attention is None) == (cls is ShowAndTell)
        if found.attention is not None:
            torch.testing.assert_close(found.attention, expected.attention)
    assert len({tuple(c) for c in found.tokens[:, 0].tolist()}) > 1  # captions depend on the picture
    said = score(network, memory, with_start(found.tokens[:, 1], IDS), IDS)
    torch.testing.assert_close(said, found.log_probs[:, 1])


def test_doubly_stochastic_regularisation_has_a_gradient() -> None:
    network, (images, tokens) = make(ShowAttendAndTell), batch()
    attention = network.decode_with_attention(network.encode(images), tokens)[1]
    (1 - attention.sum(1)).square().sum().backward()
    assert network.energy.weight.grad.abs().sum() > 0


# Backbones and arguments


@pytest.mark.parametrize("cls", SMALL)
@pytest.mark.parametrize("backbone", [partial(ResNet, depth=8, width=0.5), partial(Timm, "test_vit")])
def test_any_backbone(cls: type[Captioner], backbone: Any) -> None:
    network = make(cls, backbone, None, image_size=[32, 48])
    memory = network.encode(torch.rand(2, 3, 32, 48, dtype=torch.float64))
    found = greedy(network, memory, IDS, Limits(4), with_attention=True)
    if cls is not ShowAndTell:
        assert found.attention is not None
        assert found.attention.shape[3:] == network.grid == ((8, 12) if "ResNet" in str(backbone) else (2, 3))


@pytest.mark.parametrize("cls", SMALL)
def test_kept_feature_maps_give_the_same_memory(cls: type[Captioner]) -> None:
    network, (images, tokens) = make(cls), batch()
    torch.testing.assert_close(network.encode_maps(network.maps(images)), network.encode(images))
    logits = network.decode(network.encode_maps(network.maps(images).detach()), tokens)
    logits.sum().backward()
    assert all(p.grad is None for p in network.backbone.parameters())  # all that is trained comes after


def test_layers_behind_the_feature_map_are_frozen() -> None:
    network: Architecture = ShowAndTell(partial(VGG, depth=11, width=0.0625), reduction=4, **FACTS)
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert all(name.startswith(("backbone.layers.conv4", "backbone.layers.conv5")) for name in frozen)
    assert len(frozen) == 8


def test_a_larger_picture_has_a_larger_grid() -> None:
    network = make(ShowAttendAndTell, image_size=[32, 32])
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    found = greedy(network, network.encode(images), IDS, Limits(2), with_attention=True)
    assert found.attention is not None
    assert found.attention.shape[3:] == (8, 8)


@pytest.mark.parametrize(
    ("cls", "arguments", "said"),
    [
        (CaptionTransformer, {"width": 20, "heads": 3}, "multiple of 4 and of the 3 heads"),
        (CaptionTransformer, {"layers": 0}, "at least 1"),
        (ShowAndTell, {"dropout": 1.0}, "dropout"),
        (ShowAndTell, {"reduction": 3}, "reduction 3: VGG has feature maps of reduction 1, 2, 4, 8, 16, 32"),
        (ShowAttendAndTell, {"image_size": [16, 16]}, "VGG can't take images of 16×16 pixels"),
    ],
)
def test_wrong_arguments_end_in_one_line(cls: type[Captioner], arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(cls, **arguments)


def test_a_caption_that_is_too_long_ends_in_one_line() -> None:
    network, (images, _) = make(CaptionTransformer), batch(1)
    with pytest.raises(UserError, match="13 tokens, max_length is 12"):
        network(images, torch.ones(1, 13, dtype=torch.int64))
    sinusoidal = make(CaptionTransformer, positions="sinusoidal")
    assert sinusoidal(images, torch.ones(1, 13, dtype=torch.int64)).shape == (1, 13, WORDS)
