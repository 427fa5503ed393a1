"""DeepDream (Mordvintsev, Olah and Tyka, "Inceptionism: Going Deeper into Neural Networks", 2015).

Whatever a network faintly detects in a picture is amplified: gradient ascent on the pixels raises the mean square of
chosen layers' activations, or chosen classes' outputs, in normalised steps, from octave to octave. Before each step the
picture is rolled by a random number of pixels (jitter), so that the grid of the network's strides falls on a different
place each time. An octave starts from the source at its size plus the detail that the previous octave added.

The code of the paper is in its authors' notebook (google/deepdream, ``dream.ipynb``).

Deviations: any network, without a blur in front of its strides, which would make it see less clearly; the network sees
the picture with a mirrored margin; and the gradient is shaped as in Olah, Mordvintsev and Schubert, "Feature
Visualization", 2017 ("Preconditioning and Parameterization"): its fine frequencies and its colours count as much as
they do in photographs. Without this, a dream is full of fine coloured speckle.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import LBFGS, SGD

from zoo.architectures.base import refuse_bad_size, should_load_pretrained
from zoo.data.loading import derive_seed, run_seed
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, class_of
from zoo.facts import Facts, class_index, class_names
from zoo.functional.style import histogram_distance, spectrum_distance
from zoo.tasks.art.perceptual import layer_shares, resized
from zoo.tasks.art.pixels import PixelTask
from zoo.training.checkpoints import read, resolve

Batch = tuple[Tensor, list[str]]

OCTAVES = (0.364, 0.51, 0.714, 1.0)  # a factor of 1.4, four of them: the notebook's
STEP = 0.012  # mean change of a pixel; the notebook's is half of that, in its ten steps an octave
# Covariance of red, green and blue in 1,000 photographs of ImageNet, relative to their mean variance.
COLORS = ((1.00, 0.86, 0.78), (0.86, 0.95, 0.90), (0.78, 0.90, 1.05))


class DeepDream(PixelTask):
    """Amplifies in a picture what a network detects in it.

    Args:
        perceptual: the network whose activations are raised.
        layers: weights of the layers whose activations are raised, by name as in ``named_modules``; default: the last
            layer of the second-coarsest resolution.
        classes: names or numbers of classes whose outputs are raised, instead of layers.
        noise: standard deviation of noise with the spectrum and colours of photographs, which is added to the picture
            first.
        jitter: pixels by which the picture is rolled at most before a step, down and to the right.
        smoothness: power of the frequency by which the gradient is divided; 0 for its own spectrum.
        greyness: power of the covariance of photographs' colours by which the gradient is multiplied; 0 for its own.
        scales: octaves as fractions of the size, growing to 1; one epoch each.
        optimizer: optimiser of the pixels, whose gradient has a mean absolute value of 1; default: SGD with a learning
            rate of 0.012.
        blur_strides: put a blur in front of the network's strided layers.
        perceptual_weights: checkpoint of any task that trained such a network; its weights are loaded.
        grey: whether the network was trained on grey pictures; it then sees the pictures in grey.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        batch: images in [0, 1], (B, 3, H, W), and their names -> images (B, 3, H, W)
    """

    batch = "pictures"
    example: ClassVar[dict[str, Any]] = {"scales": [0.5, 1.0], "jitter": 2}

    def __init__(
        self,
        perceptual: ArchitectureFactory,
        layers: dict[str, float] | None = None,
        classes: list[str | int] | str | int | None = None,
        noise: float = 0.0,
        jitter: int = 32,
        smoothness: float = 0.7,
        greyness: float = 1.0,
        scales: Sequence[float] = OCTAVES,
        optimizer: OptimizerFactory | None = None,
        blur_strides: bool = False,
        perceptual_weights: str | None = None,
        grey: bool = False,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        if optimizer is None:
            self.factories["optimizer"] = partial(SGD, lr=STEP)
        if layers is not None and classes is not None:
            raise UserError("give model.layers or model.classes, not both")
        if (least := min(noise, jitter, smoothness, greyness)) < 0:
            raise UserError(f"model.noise, jitter, smoothness and greyness must be at least 0, not {least}")
        if issubclass(class_of(self.factories["optimizer"]), LBFGS):
            raise UserError("model.optimizer: LBFGS needs the gradient's length, which is normalised here: give Adam")
        self.layers, self.classes = layers, _listed(classes)
        self.noise, self.jitter, self.smoothness, self.greyness = noise, jitter, smoothness, greyness
        self._shift = (0, 0)

    # Building

    def build(self) -> None:
        """Network and pictures; the layers' shares, or the classes' numbers."""
        if self.classes:
            self.hparams["facts"] = {**self.facts, **self._classes_of_network()}
        super().build()
        if self.classes:
            names = self._class_names()
            self.targeted = [class_index(str(which), names) for which in self.classes]
            channels = 1 if self.grey else self.facts["in_channels"]
            refuse_bad_size(self.perceptual, type(self.perceptual).__name__, channels, self.sizes[0])
        else:
            self.shares = layer_shares(self.perceptual, self.layers, lambda: self.stage_layers()[-2:][:1])

    @property
    def num_outputs(self) -> int:
        """The network's pretrained classes, where ``classes`` asks for some of them."""
        return self.facts["num_classes"] if self.classes else 0

    def _classes_of_network(self) -> Facts:
        """Facts about these classes, from the checkpoint that the weights come from, or from the pretrained weights.

        Raises:
            UserError: neither knows its classes.
        """
        said: Any = {
            "num_classes": len(self.pretrained_classes)
        }  # no names: a thousand slow the reader of a checkpoint
        if self.perceptual_weights and should_load_pretrained():
            said = read(resolve(self.perceptual_weights)).get("hyper_parameters", {}).get("facts") or {}
        found: Any = {k: v for k in ("num_classes", "class_names") if (v := self.facts.get(k, said.get(k)))}
        if "num_classes" not in found:
            raise UserError("model.classes: this network's weights know no classes: give perceptual_weights, or layers")
        return Facts(**found)

    def _class_names(self) -> list[str]:
        own = self.pretrained_classes
        known = "class_names" in self.facts or len(own) != self.facts["num_classes"]
        return class_names(self.facts) if known else own

    # What is dreamt of

    def source(self, batch: Batch) -> Tensor:
        """The initial pictures, with their noise, in [0, 1], (B, 3, H, W).

        Raises:
            UserError: they are empty.
        """
        images = batch[0]
        if self.noise:
            white = torch.randn(images.shape, generator=self.noise_generator()).to(images)
            grain = natural(white, 1.0, 0.5)  # amplitudes of photographs: 1 / frequency, and the covariance's root
            images = images + self.noise * grain / grain.std((1, 2, 3), keepdim=True)
        elif bool((images == images[:, :, :1, :1]).all()):
            raise UserError("an empty canvas has nothing to dream of: give data.picture, or model.noise 0.1")
        return images.clamp(0, 1)

    def start(self, batch: Batch, size: list[int]) -> Tensor:
        """The source at this size."""
        return resized(self.source(batch), size).clamp(0, 1)

    def enlarged(self, scale: int, batch: Batch) -> Tensor:
        """The source at the next octave's size, plus the detail that was added in the last one."""
        added = self.images[scale - 1] - self.start(batch, self.sizes[scale - 1])
        return self.start(batch, self.sizes[scale]) + resized(added, self.sizes[scale])

    def targets(self, batch: Batch, scale: float) -> None:
        """No target: the activations are only raised."""

    def height(self, images: Tensor) -> Tensor:
        """The objective: the mean square of the layers' activations, or the mean of the classes' outputs, (B,)."""
        if self.classes:
            return self._logits(images)[:, self.targeted].mean(1)
        maps, shares = self.maps(images, list(self.shares)), self.shares.items()
        return torch.stack([share * maps[name].square().flatten(1).mean(1) for name, share in shares]).sum(0)

    def _logits(self, images: Tensor) -> Tensor:
        return self.perceptual(self.prepared(images))

    def losses(self, images: Tensor, targets: None) -> dict[str, Tensor]:
        """The objective of the rolled picture, negated."""
        return {"dream": -self.height(torch.roll(images, self._shift, (2, 3)))}

    # Steps

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """One step on the picture rolled by this step's jitter; the result stays within [0, 1]."""
        generator = torch.Generator().manual_seed(derive_seed(run_seed(), 3, self.trainer.fit_loop.total_batch_idx))
        down, right = torch.randint(-self.jitter, self.jitter + 1, (2,), generator=generator).tolist()
        self._shift = down, right
        found = super().training_step(batch, batch_idx)
        with torch.no_grad():
            self.images[self.current_epoch].clamp_(0, 1)
        return found

    def conditioned(self, gradient: Tensor) -> Tensor:
        """The gradient with the requested spectrum and colours, and a mean absolute value of 1 in each picture."""
        shaped = natural(gradient, self.smoothness, self.greyness)
        size = shaped.abs().mean((1, 2, 3), keepdim=True)
        return shaped / size.clamp(min=torch.finfo(shaped.dtype).tiny)

    # Result

    def figures(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Objective, probability of ``classes``, and distances to the source's histogram (in units of the range) and
        spectrum (in decibels).
        """
        figures = {"output" if self.classes else "activation": self.height(images)}
        if self.classes:
            figures["probability"] = self._logits(images).softmax(1)[:, self.targeted].sum(1)
        source = self.source(batch)
        figures["histogram"] = histogram_distance(images, source)
        return figures | {"spectrum": spectrum_distance(images, source)}

    def measured(self, batch: Batch) -> dict[str, Tensor]:
        """Metrics of start and end, and the factor by which the activation has risen."""
        found = super().measured(batch)
        del found["histogram_start"], found["spectrum_start"]  # of the source to itself
        if not self.classes:
            found["activation_ratio"] = found["activation"] / found["activation_start"]
        return found


def _listed(classes: list[str | int] | str | int | None) -> list[str | int]:
    if classes == []:
        raise UserError("model.classes names no class")
    return [] if classes is None else classes if isinstance(classes, list) else [classes]


def natural(images: Tensor, smoothness: float, greyness: float) -> Tensor:
    """Noise or a gradient with frequencies and colours weighted as in photographs.

    Args:
        images: (B, 3, H, W); they wrap around.
        smoothness: power of the frequency (at least one cycle a picture) by which amplitudes are divided.
        greyness: power of the covariance of colours by which they are multiplied.

    Returns:
        (B, 3, H, W)
    """
    shaped = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    if smoothness:
        height, width = shaped.shape[2:]
        y = torch.fft.fftfreq(height, device=shaped.device, dtype=shaped.dtype)
        x = torch.fft.rfftfreq(width, device=shaped.device, dtype=shaped.dtype)
        frequency = (y[:, None].square() + x.square()).sqrt().clamp(min=1 / max(height, width))
        shaped = torch.fft.irfft2(torch.fft.rfft2(shaped) / frequency**smoothness, s=(height, width))
    if greyness:
        values, vectors = torch.linalg.eigh(torch.tensor(COLORS, dtype=torch.float64))
        mixing = (vectors * values**greyness) @ vectors.T
        shaped = torch.einsum("cd,bdhw->bchw", mixing.to(shaped), shaped)
    return shaped.to(images)
