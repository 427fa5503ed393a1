"""Creative adversarial networks.

Elgammal, Liu, Elhoseiny and Mazzone, "CAN: Creative Adversarial Networks, Generating 'Art' by Learning About Styles and
Deviating from Style Norms", 2017: the discriminator also learns the style of real images, and the generator is rewarded
for images that it takes for real, but whose style it can't name.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory, class_of, takes
from zoo.facts import Facts
from zoo.functional.adversarial import Name, style_ambiguity
from zoo.tasks.gan import ADAM, GAN


class CAN(GAN):
    """A GAN whose samples look like images of no known style; the classes of the data are the styles.

    Validation and test also log ``style_accuracy``: how often the discriminator knows the style of real images.

    Args:
        generator: noise to images in [-1, 1], without classes.
        discriminator: images to a score and the styles' logits; it takes the number of them as ``outputs``.
        ambiguity: factor of the generator's loss of style; the paper has 1.
        optimizer: as for ``GAN``, like all that follow.
        discriminator_optimizer: another one for the discriminator.
        scheduler: learning-rate scheduler.
        loss: of the scores.
        r1: factor of the gradient penalty at real images.
        r2: factor of the gradient penalty at samples.
        gradient_penalty: factor of the gradient penalty between them.
        discriminator_steps: of the discriminator for each of the generator.
        augment: ``colour``, ``translation``, ``cutout``.
        judge: the classifier that judges samples.
        judge_epochs: of its training.
        test_samples: number of samples that a test makes for it.
        weights: a checkpoint whose tensors are loaded where name and shape agree.
        facts: known properties of the data; the data module adds the missing ones.

    Shape:
        batch: images (B, C, H, W) in [0, 1], styles (B,) -> samples (B, C, H, W) in [0, 1]
    """

    needs = ("in_channels", "image_size", "num_classes")

    def __init__(
        self,
        generator: ArchitectureFactory,
        discriminator: ArchitectureFactory,
        ambiguity: float = 1.0,
        optimizer: OptimizerFactory = ADAM,
        discriminator_optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        loss: Name = "non_saturating",
        r1: float = 0.0,
        r2: float = 0.0,
        gradient_penalty: float = 0.0,
        discriminator_steps: int = 1,
        augment: list[str] | None = None,
        judge: ArchitectureFactory | None = None,
        judge_epochs: int = 8,
        test_samples: int = 1000,
        weights: str | None = None,
        facts: Facts | None = None,
    ) -> None:
        if ambiguity < 0:
            raise UserError(f"model.ambiguity must be at least 0, not {ambiguity:g}")
        super().__init__(
            generator,
            discriminator,
            optimizer,
            discriminator_optimizer,
            scheduler,
            loss,
            r1,
            r2,
            gradient_penalty,
            discriminator_steps,
            augment,
            judge=judge,
            judge_epochs=judge_epochs,
            test_samples=test_samples,
        )
        self.ambiguity = ambiguity

    def build(self) -> None:
        """Build the networks, neither told a class, and the metrics."""
        styles, discriminator = self.facts["num_classes"], self.factories["discriminator"]
        if not takes(discriminator, "outputs"):
            raise UserError(f"CAN needs a discriminator that takes outputs, not {class_of(discriminator).__name__}")
        self.factories["discriminator"] = partial(discriminator, outputs=1 + styles)
        self.generator = self.make("generator", num_classes=0)
        self.discriminator = self.make("discriminator", num_classes=0)
        self.build_turns()
        self.build_evaluation()
        stages = ("val", "test")
        self.style_accuracy = nn.ModuleDict({stage: MulticlassAccuracy(styles, average="micro") for stage in stages})

    def discriminator_loss(self, real: Tensor, made: Tensor, batch: Any) -> Tensor:
        """The scores' loss, and the cross-entropy of the real images' styles."""
        styles = F.cross_entropy(real[:, 1:].to(self.dtype), batch[1])
        return super().discriminator_loss(real, made, batch) + styles

    def generator_loss(self, made: Tensor, real: Tensor | None) -> Tensor:
        """The scores' loss, and the style's ambiguity."""
        return super().generator_loss(made, real) + self.ambiguity * style_ambiguity(made[:, 1:].to(self.dtype))

    def log_outputs(self, stage: str, real: Tensor, batch: Any) -> None:
        """How often the style of a real image is known."""
        accuracy = self.style_accuracy[stage]
        labels = batch[1].argmax(1) if batch[1].dim() == 2 else batch[1]
        accuracy.update(real[:, 1:], labels)  # type: ignore[operator]
        self.log(f"{stage}/style_accuracy", accuracy)  # type: ignore[arg-type]
