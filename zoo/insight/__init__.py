"""Looking inside a network: filters, activations, signal, attribution."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from zoo.errors import UserError

ABOUT = {
    "filters": "The first convolution's kernels as images, and how colour-specific each is.",
    "activations": "The feature maps of chosen layers for an image.",
    "signal": "Variances of activations and gradients by layer, rates of change, and what residual blocks add.",
    "attribution": "Where in an image the evidence for a class lies: Grad-CAM and integrated gradients.",
}
HELP = """\
usage: zoo inspect WHAT [options]

Look inside a network: pictures, and the numbers as JSON.

{rows}

Of a checkpoint:       zoo inspect filters --ckpt_path FILE
With random weights:   zoo inspect signal --config resnet
Of a network by name:  zoo inspect attribution \\
                         --architecture EfficientNetLite0 \\
                         --architecture.weights imagenet

`zoo inspect WHAT --help` says more.
"""


def main(argv: Sequence[str]) -> int:
    """``zoo inspect``: write images and metrics, and print their paths.

    Returns:
        0.

    Raises:
        UserError: the user made a mistake.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP.format(rows="\n".join(_row(name) for name in ABOUT)), end="")
        return 0
    if argv[0] not in ABOUT:
        from zoo.registry import did_you_mean

        close = did_you_mean(argv[0], list(ABOUT))
        raise UserError(f"zoo inspect shows {', '.join(ABOUT)}, not {argv[0]}{close}")
    from zoo.insight.command import inspect

    return inspect(argv[0], ABOUT[argv[0]], argv[1:])


def parser() -> ArgumentParser:
    """The names of all options, for shell completion."""
    from zoo.insight import options

    return options.parser(ABOUT)


def _row(name: str) -> str:
    import textwrap

    return textwrap.fill(ABOUT[name], 78, initial_indent=f"  {name:<12} ", subsequent_indent=" " * 15)
