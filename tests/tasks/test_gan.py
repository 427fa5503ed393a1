"""Adversarial training: against plain loops of the same networks, penalties, steps, samples and metrics; CAN."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from running import quiet_trainer
from torch import Tensor
from torch.nn import functional as F
from zoo_toys.networks import ToyGenerator, ToyNet

from zoo.architectures.dcgan import DCGANDiscriminator, DCGANGenerator
from zoo.data.digits import Digits
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.functional.adversarial import LOSSES, between, one_centred_penalty, style_ambiguity, zero_centred_penalty
from zoo.tasks.can import CAN
from zoo.tasks.gan import ADAM, GAN

FACTS = Facts(num_classes=10, in_channels=1, image_size=[8, 8])
NETWORKS = (partial(DCGANGenerator, latent=4, widths=[8, 4]), partial(DCGANDiscriminator, widths=[4, 8], norm="none"))
STEPS, BATCH = 6, 16
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "R3GAN": {"loss": "relativistic", "r1": 0.5, "r2": 0.25},
    "WGAN-GP": {"loss": "wasserstein", "gradient_penalty": 10.0, "discriminator_steps": 2},
}


def built(cls: type[GAN] = GAN, **options: Any) -> Any:
    torch.manual_seed(5)
    task = cls(*NETWORKS, facts=FACTS, **options)
    task.configure_model()
    return task


def trained(**options: Any) -> tuple[GAN, list[Any]]:
    """A task after a few steps, and the batches that it had; each step's noise begins with a seed."""
    task, batches = built(conditional=True, **options), []

    def begin(trainer: Any, task: Any, batch: Any, batch_idx: int) -> None:
        batches.append(batch)
        torch.manual_seed(100 + batch_idx)

    trainer = quiet_trainer(
        max_steps=STEPS, limit_val_batches=0, callbacks=[LambdaCallback(on_train_batch_start=begin)]
    )
    trainer.fit(task, datamodule=Digits(batch_size=BATCH))
    return task, batches


def by_hand(batches: list[Any], way: dict[str, Any]) -> Any:
    """The same networks, by a plain loop."""
    task, loss = built(conditional=True), LOSSES[way.get("loss", "non_saturating")]
    generator, discriminator = task.generator, task.discriminator
    optimizers = [ADAM(network.parameters()) for network in (generator, discriminator)]
    for step, (images, labels) in enumerate(batches):
        torch.manual_seed(100 + step)
        images = (2 * images - 1).requires_grad_()
        made = generator(torch.randn(len(images), 4), labels).detach().requires_grad_()
        real, fake = discriminator(images, labels), discriminator(made, labels)
        total = loss.discriminator(real, fake) + way.get("r1", 0) * zero_centred_penalty(real, images)
        total = total + way.get("r2", 0) * zero_centred_penalty(fake, made)
        if factor := way.get("gradient_penalty"):
            middle = between(images, made, torch.rand(len(images))).detach().requires_grad_()
            total = total + factor * one_centred_penalty(discriminator(middle, labels), middle)
        optimizers[1].zero_grad()
        total.backward()
        optimizers[1].step()
        if (step + 1) % way.get("discriminator_steps", 1):
            continue
        fake = discriminator(generator(torch.randn(len(images), 4), labels), labels)
        optimizers[0].zero_grad()
        loss.generator(fake, discriminator(images, labels)).backward()
        optimizers[0].step()
    return task


@pytest.mark.parametrize("way", WAYS)
def test_as_a_plain_loop(way: str) -> None:
    task, batches = trained(**WAYS[way])
    wanted = by_hand(batches, WAYS[way])
    assert len(batches) == STEPS
    start = built(conditional=True).state_dict()
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(task.state_dict()[name], value, rtol=1e-4, atol=1e-5)
        if "weight" in name and "table" not in name:
            assert not torch.equal(value, start[name]), name


def test_mixed_precision_computes_penalties_in_full() -> None:
    """Where a penalty is asked for, the discriminator sees floats of 32 bits, else of 16."""
    seen: dict[str, list[torch.dtype]] = {}
    for way in ("plain", "R3GAN"):
        task = built(conditional=True, **WAYS[way])
        layer = task.discriminator.halvings[1]
        dtypes = seen.setdefault(way, [])
        layer.register_forward_hook(lambda _m, _a, out, dtypes=dtypes: dtypes.append(out.dtype))
        trainer = quiet_trainer(max_steps=1, limit_val_batches=0, precision="bf16-mixed")
        trainer.fit(task, datamodule=Digits(batch_size=BATCH))
        assert all(torch.isfinite(p).all() for p in task.parameters())
    half, full = torch.bfloat16, torch.float32
    assert seen["plain"] == [half] * 3, "real, samples, and the generator's turn"
    assert seen["R3GAN"] == [full, full, half, half]


def test_augmentation_is_of_all_that_the_discriminator_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = built(augment=["cutout"]), []
    monkeypatch.setattr(
        task.discriminator, "forward", lambda images, labels: seen.append(images) or images[:, 0, 0, :1]
    )
    for turn in task.turns:
        task.turn_loss(turn, (torch.rand(64, 1, 8, 8), torch.zeros(64)), 0)
    assert len(seen) == 3
    for images in seen:
        assert 0.15 < float((images == 0).float().mean()) < 0.3
    assert seen[2].requires_grad, "gradients reach the generator"


def test_a_sample_is_a_function_of_seed_and_number() -> None:
    task = built(conditional=True).eval()
    together = task.sample(torch.tensor([4, 9, 2]), seed=5)
    torch.manual_seed(8)
    torch.testing.assert_close(task.sample(torch.tensor([9]), seed=5), together[1:2])
    assert float((task.sample(torch.tensor([4, 9, 2]), seed=6) - together).abs().max()) > 1e-4
    results = task.predict_step((torch.tensor([[5, 9, -1], [5, 9, 3]]), ["one", "two"]), 0)
    torch.testing.assert_close(results[0].image, together[1])
    assert [r.label for r in results] == ["9", "3"]


class Fixed(ToyGenerator):
    """Makes one picture, whatever the noise."""

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(torch.zeros_like(z)) * 0 - 1


def test_validation_says_how_far_samples_are_from_images() -> None:
    """One black picture instead of digits: the distance is that of the mean and of all the variance."""
    torch.manual_seed(0)
    task = GAN(Fixed, partial(ToyNet, num_classes=1))
    data, trainer = Digits(batch_size=BATCH, eval_batch_size=50), quiet_trainer()
    trainer.validate(task, datamodule=data, verbose=False)
    images = torch.cat([batch[0].float() for batch in trainer.val_dataloaders])
    images = (images / images.max()).double().flatten(1) if images.max() > 1 else images.double().flatten(1)
    rows = images[images.float().double().sum(1).argsort(stable=True)][::2]
    expected = float(rows.mean(0).square().sum() + rows.var(0).sum())
    assert float(trainer.callback_metrics["val/frechet"]) == pytest.approx(expected, rel=0.02)
    assert set(trainer.callback_metrics) == {
        "val/frechet",
        "val/frechet_floor",
        "val/discriminator_loss",
        "val/generator_loss",
    }


# CAN


def test_losses_of_can() -> None:
    task = built(CAN, ambiguity=0.5).eval()
    assert task.discriminator(torch.rand(3, 1, 8, 8)).shape == (3, 11)
    assert task.generator.told.embedding.table is None
    real, made, labels = torch.randn(4, 11), torch.randn(4, 11), torch.tensor([0, 3, 9, 3])
    loss = LOSSES["non_saturating"]
    expected = loss.discriminator(real[:, :1], made[:, :1]) + F.cross_entropy(real[:, 1:], labels)
    torch.testing.assert_close(task.discriminator_loss(real, made, (None, labels)), expected)
    expected = loss.generator(made[:, :1], None) + 0.5 * style_ambiguity(made[:, 1:])
    torch.testing.assert_close(task.generator_loss(made, None), expected)


def test_can_learns_styles_and_says_how_well() -> None:
    torch.manual_seed(0)
    task = CAN(NETWORKS[0], partial(DCGANDiscriminator, widths=[16, 32]), optimizer=partial(torch.optim.Adam, lr=0.003))
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(task, datamodule=Digits(batch_size=32))
    assert float(trainer.callback_metrics["val/style_accuracy"]) > 0.6  # by chance 0.1


# Mistakes


def test_mistakes_end_in_one_line() -> None:
    for options, said in (
        ({"loss": "hinges"}, "loss is one of non_saturating, hinge, relativistic, wasserstein, not hinges"),
        ({"r1": -1.0}, "must be at least 0"),
        ({"discriminator_steps": 0}, "discriminator_steps at least 1"),
        ({"augment": ["color"]}, "augment is a list of colour, translation, cutout; it has color"),
    ):
        with pytest.raises(UserError, match=said):
            built(**options)
    with pytest.raises(UserError, match="ambiguity must be at least 0"):
        built(CAN, ambiguity=-1.0)
    with pytest.raises(UserError, match="CAN needs a discriminator that takes outputs, not ToyNet"):
        CAN(NETWORKS[0], ToyNet, facts=FACTS).configure_model()
