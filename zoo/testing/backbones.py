"""Checks of architectures with stages, as backbones."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from zoo.architectures.base import Architecture
from zoo.testing.architectures import ArchitectureCase
from zoo.testing.checks import check, expect, one_line, same_bits


@check("architectures", ("backbone",))
def stages_are_as_told(case: ArchitectureCase) -> None:
    """Each stage has the declared channels, and its feature map grows with the image by the declared reduction."""
    network = case.make()
    coarsest = max(stage.reduction for stage in network.stages)
    larger = [n + 2 * coarsest for n in case.facts["image_size"]]
    small = network.features(case.inputs(2)[0])
    big = case.make(image_size=larger).features(case.inputs(2, image_size=larger)[0])
    for layer, channels, reduction in network.stages:
        expect(small[layer].dim() == 4, f"stage {layer} gives {tuple(small[layer].shape)}, expected (B, C, h, w)")
        expect(small[layer].shape[1] == channels, f"stage {layer}: {small[layer].shape[1]} channels, not {channels}")
        grown = big[layer].shape[3] - small[layer].shape[3]
        right = 2 * coarsest == grown * reduction
        expect(
            right,
            f"stage {layer}: {2 * coarsest} pixels more gave {grown} pixels more, the stage says reduction {reduction}",
        )
    told = [stage.reduction for stage in network.stages]
    expect(told == sorted(told), f"expected the finest stage first, reductions are {told}")


@check("architectures", ("backbone",), after=("deterministic_in_evaluation",))
def features_leave_no_trace(case: ArchitectureCase) -> None:
    """Taking feature maps changes no hook, in-place flag or mode, and returns unmodified outputs."""
    network, inputs = case.trained().train(), case.inputs(2)
    before = _marks(network)
    network.features(inputs[0])
    expect(_marks(network) == before, "taking feature maps left a hook, an in-place flag or the mode changed")
    _with_every_layer(case, network.eval(), inputs)


def _marks(network: nn.Module) -> list[Any]:
    return [
        (len(m._forward_hooks), len(m._forward_pre_hooks), getattr(m, "inplace", None), m.training)
        for m in network.modules()
    ]


def _with_every_layer(case: ArchitectureCase, network: Architecture, inputs: tuple[Any, ...]) -> None:
    layers = [stage.layer for stage in network.stages]
    maps = network.features(inputs[0], layers=layers[::-1])
    expect(list(maps) == layers[::-1], f"maps of {layers[::-1]} came as {list(maps)}")
    taken = [t.clone() for t in maps.values()]
    with torch.no_grad():
        network(*inputs)
    expect(same_bits(taken, list(maps.values())), "a later call wrote into the feature maps that were taken")
    with one_line("features of a layer that is not there"):
        network.features(inputs[0], layers=["no_such_layer"])
