"""Checks of denoisers."""

from __future__ import annotations

from zoo.testing.architectures import ArchitectureCase
from zoo.testing.checks import check, expect, expect_same, same_bits


@check("architectures", ("denoiser",))
def no_class_is_the_last_label(case: ArchitectureCase) -> None:
    """If it has classes, a label of ``num_classes`` is the same as none, and a class is not."""
    network, ways = case.trained(), case.ways()
    if len(ways) == 1:
        return
    with_class, without, last = (case.outputs(network, way) for way in ways)
    expect_same(last, without, f"labels of {case.facts['num_classes']} and no labels", 1e-6)
    expect(not same_bits(with_class, without), "labels do not change its output")


@check("architectures", ("denoiser",))
def times_are_of_each_sample(case: ArchitectureCase) -> None:
    """Its output depends on the time, in and beyond [0, 1], and each sample's on its own."""
    network, (images, times, *labels) = case.trained(), case.inputs()
    for shift in (0.1, -2.0):
        moved = times.clone()
        moved[1] += shift
        before, after = (case.outputs(network, (images, t, *labels))[0] for t in (times, moved))
        expect(bool((after[1] != before[1]).any()), "its output is the same at another time")
        expect_same([after[::2]], [before[::2]], "the outputs of samples whose time stayed", 1e-5)
