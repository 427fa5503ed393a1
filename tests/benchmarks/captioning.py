"""Captions a second: beam search with cached keys and values, without, and by transformers' ``generate``.

Run: ``python tests/benchmarks/captioning.py [--pictures N] [--width N] [--layers N] [--rounds N]``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from common import report, spread
from torch import Tensor
from torch.nn import functional as F

from zoo.architectures.caption_transformer import CaptionTransformer
from zoo.architectures.captioner import Uncached
from zoo.architectures.resnet import ResNet
from zoo.functional.decoding import Limits, SpecialIds, beam, greedy

IDS = SpecialIds(pad=0, start=1, end=2)
WORDS, LENGTH, BEAM, SIDE = 10_000, 20, 3, 224
ABOUT = (
    "A Transformer decoder of random weights over 7 by 7 places, 10,000 tokens, all captions of 20 tokens (the end has "
    "no probability): captions a second from the memory on, on one thread and by its CPU time, median of the rounds "
    "(smallest to largest), which take turns. Beam search has a width of 3. transformers' decoder is Pegasus's with "
    "the same weights, which is the same function; the row says how many of the captions are the same, too. Training "
    "steps are forward and backward with a frozen ResNet-50: on pictures, and on its kept feature maps. Bar: not "
    "slower than transformers."
)


def make(width: int, layers: int) -> Any:
    """A captioner of random weights whose captions do not end."""
    torch.manual_seed(0)
    network = CaptionTransformer(
        partial(ResNet, depth=50),
        width=width,
        layers=layers,
        mlp_width=4 * width,
        positions="sinusoidal",
        vocabulary_size=WORDS,
        image_size=[SIDE, SIDE],
    )
    network.backbone.requires_grad_(False)
    with torch.no_grad():
        network.bias.normal_(0, 0.5)
        network.bias[IDS.end] = -1e4
    return network.eval()


def pegasus(network: Any, width: int, layers: int) -> Any:
    """transformers' decoder with the network's weights."""
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    config = PegasusConfig(
        vocab_size=WORDS,
        d_model=width,
        encoder_layers=1,
        decoder_layers=layers,
        decoder_attention_heads=8,
        decoder_ffn_dim=4 * width,
        scale_embedding=True,
        max_position_embeddings=64,
        pad_token_id=IDS.pad,
        eos_token_id=IDS.end,
        decoder_start_token_id=IDS.start,
        forced_eos_token_id=None,
    )
    model = PegasusForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.model.shared.weight.copy_(network.words.weight)
        model.final_logits_bias.copy_(network.bias)
        model.model.decoder.layer_norm.load_state_dict(network.norm.state_dict())
        for ours, theirs in zip(network.layers, model.model.decoder.layers, strict=True):
            for attention, other in ((ours.words, theirs.self_attn), (ours.places, theirs.encoder_attn)):
                other.q_proj.load_state_dict(attention.query.state_dict())
                other.out_proj.load_state_dict(attention.output.state_dict())
                for projection, of in zip((other.k_proj, other.v_proj), (0, 1), strict=True):
                    projection.weight.copy_(attention.key_value.weight.chunk(2)[of])
                    projection.bias.copy_(attention.key_value.bias.chunk(2)[of])
            theirs.fc1.load_state_dict(ours.mlp[0].state_dict())
            theirs.fc2.load_state_dict(ours.mlp[3].state_dict())
            norms = (theirs.self_attn_layer_norm, theirs.encoder_attn_layer_norm, theirs.final_layer_norm)
            for own, norm in zip((ours.norm1, ours.norm2, ours.norm3), norms, strict=True):
                norm.load_state_dict(own.state_dict())
    return model


def generate(model: Any, memory: Tensor, width: int) -> Tensor:
    """transformers' captions, without the start."""
    from transformers.modeling_outputs import BaseModelOutput

    found = model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=memory),
        num_beams=width,
        max_new_tokens=LENGTH,
        do_sample=False,
        length_penalty=1.0,
        suppress_tokens=[IDS.pad, IDS.start],
    )
    return found[:, 1:]


def timed(calls: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """CPU seconds of each round and the results of the last, of calls that take turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    found: dict[str, Any] = {}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.process_time()
            found[name] = call()
            if number:  # the first is not counted
                taken[name].append(time.process_time() - start)
    return taken, found


def decoding(network: Any, pictures: int, width: int, layers: int, rounds: int) -> list[dict[str, Any]]:
    """Captions a second, greedily and by beam search."""
    memory, limits = torch.randn(pictures, 49, width), Limits(LENGTH)
    calls: dict[str, Callable[[], Any]] = {}
    for kind, search, beams in (("greedy", greedy, 1), ("beam", partial(beam, width=BEAM), BEAM)):
        calls[f"{kind}, cached"] = lambda s=search: s(network, memory, IDS, limits).tokens[:, 0]
        calls[f"{kind}, uncached"] = lambda s=search: s(Uncached(network), memory, IDS, limits).tokens[:, 0]
        if find_spec("transformers"):
            model = pegasus(network, width, layers)
            calls[f"{kind}, transformers"] = lambda m=model, b=beams: generate(m, memory, b)
    with torch.no_grad():
        taken, found = timed(calls, rounds)
    rows = []
    for name, seconds in taken.items():
        own = f"{name.partition(',')[0]}, cached"
        rows.append(
            {
                "decoding": name,
                "captions/s": spread([pictures / s for s in seconds], 1),
                "times as fast as cached": f"{statistics.median(taken[own]) / statistics.median(seconds):.2f}",
                "same captions": f"{int((found[name] == found[own]).all(1).sum())} of {pictures}",
            }
        )
    return rows


def training(network: Any, pictures: int, rounds: int) -> list[dict[str, Any]]:
    """Training steps a second on pictures and on kept feature maps."""
    images, tokens = torch.rand(pictures, 3, SIDE, SIDE), torch.randint(3, WORDS, (pictures, LENGTH + 1))
    with torch.no_grad():
        kept = network.maps(images)

    def step(maps: Callable[[], Tensor]) -> None:
        logits = network.decode(network.encode_maps(maps()), tokens[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        network.zero_grad()

    taken, _ = timed(
        {"pictures": lambda: step(lambda: network.maps(images)), "kept": lambda: step(lambda: kept)}, rounds
    )
    return [{"training on": name, "steps/s": spread([1 / s for s in seconds])} for name, seconds in taken.items()]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("pictures", 16), ("width", 512), ("layers", 3), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = make(options.width, options.layers)
    rows = decoding(network, options.pictures, options.width, options.layers, options.rounds)
    report("captioning", ABOUT, [*rows, *training(network, options.pictures, options.rounds)])


if __name__ == "__main__":
    main()
