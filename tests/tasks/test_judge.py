"""The judge: trained once on the training pictures, the same after a resume, with features of its last layer."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import EfficientNet_B0_Weights
from zoo_toys.data import CLASSES, COUNT, ToyTensors
from zoo_toys.networks import ToyEncoder, ToyNet

from zoo import Facts
from zoo.architectures import TorchVision
from zoo.architectures.efficientnet_lite import EfficientNetLite0
from zoo.data.digits import Digits
from zoo.errors import UserError
from zoo.functional.sample_quality import kernel_distance
from zoo.tasks.judge import Judge, jittered, pictures_of

FACTS: Facts = {"num_classes": CLASSES, "in_channels": 1, "image_size": [6, 6], "mean": [0.35], "std": [0.2]}


def host(rank: int = 0) -> Any:
    strategy = SimpleNamespace(broadcast=lambda value: value)
    trainer = SimpleNamespace(strategy=strategy, is_global_zero=rank == 0)
    return SimpleNamespace(trainer=trainer, device=torch.device("cpu"))


def data() -> ToyTensors:
    made = ToyTensors()
    made.setup("fit")
    made.trainer = SimpleNamespace(training=True)  # type: ignore[assignment]
    return made


def weights(judge: Judge) -> Tensor:
    return torch.cat([p.flatten() for p in judge.network.parameters()])


def test_it_learns_the_training_pictures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    judge = Judge(partial(ToyNet, channels=16, dropout=0.0), FACTS, epochs=60)
    before, state = weights(judge), torch.get_rng_state()
    judge.prepare(host(), data())
    assert not torch.equal(before, weights(judge))
    assert torch.equal(state, torch.get_rng_state()), "the run's own random numbers are as they were"
    assert not judge.training
    assert not any(p.requires_grad for p in judge.parameters())
    images, labels = next(pictures_of(data(), "train"))
    assert len(images) == COUNT
    seen = judge(images)
    assert seen.features.shape == (COUNT, 16)
    assert float((seen.log_probs.argmax(1) == labels).float().mean()) > 0.6  # by chance a third
    assert torch.allclose(judge.network.head(seen.features).log_softmax(1), seen.log_probs, atol=1e-6)

    after = weights(judge)
    judge.prepare(host(), data())
    other = Judge(partial(ToyNet, channels=16, dropout=0.0), FACTS, epochs=60)
    other.load_state_dict(judge.state_dict())
    other.prepare(host(), data())
    assert torch.equal(weights(judge), after), "not twice"
    assert torch.equal(weights(other), after), "nor after a resume"


def test_a_task_that_trains_leaves_it_at_rest() -> None:
    task = nn.ModuleDict({"judge": Judge(ToyNet, FACTS, 1), "other": nn.Dropout()})
    task.train()
    assert task["other"].training
    assert not any(module.training for module in task["judge"].modules())


def test_another_process_takes_the_first_one_s() -> None:
    torch.manual_seed(0)
    first, second, got = Judge(ToyNet, FACTS, 1), Judge(ToyNet, FACTS, 1), {}
    sender, receiver = host(0), host(1)
    sender.trainer.strategy.broadcast = lambda value: got.update(value) or value
    first.prepare(sender, data())
    receiver.trainer.strategy.broadcast = lambda value: got
    second.prepare(receiver, data())
    assert torch.equal(weights(first), weights(second))
    assert bool(second.trained)


def test_weights_of_its_own_are_kept_and_its_classes_are_others() -> None:
    factory = partial(TorchVision, name="efficientnet_b0", weights=EfficientNet_B0_Weights.DEFAULT.name)
    assert len(EfficientNet_B0_Weights.DEFAULT.meta["categories"]) == 1000
    from zoo.architectures.base import skip_pretrained

    with skip_pretrained():
        judge = Judge(factory, {"in_channels": 3, "image_size": [32, 32]}, 1)
    assert bool(judge.trained)
    assert not judge.knows_classes
    assert judge(torch.rand(2, 3, 32, 32)).features.shape == (2, 1280)


def test_what_can_t_judge_is_refused() -> None:
    with pytest.raises(UserError, match="the data has no classes: give it pretrained weights"):
        Judge(ToyNet, {"in_channels": 1, "image_size": [6, 6]}, 1)

    with pytest.raises(UserError, match="needs an architecture of the role classifier"):
        Judge(ToyEncoder, FACTS, 1)

    class Headless(ToyEncoder):
        roles = ("classifier",)

        def __init__(self, num_classes: int, in_channels: int = 1) -> None:
            super().__init__()

    with pytest.raises(UserError, match="Headless has no linear layer"):
        Judge(Headless, FACTS, 1)


def test_jitter_moves_pixels_and_keeps_the_ground() -> None:
    images = torch.zeros(8, 1, 28, 28)
    images[:, :, 10:18, 12:16] = 1
    torch.manual_seed(0)
    moved = jittered(images)
    assert moved.shape == images.shape
    assert not torch.equal(moved, images)
    assert torch.equal(moved[:, :, 0], images[:, :, 0])
    assert moved.sum((1, 2, 3)).tolist() == pytest.approx([32.0] * 8, rel=0.35)


def test_the_packaged_imagenet_network_judges_small_grey_images() -> None:
    """Digits of 8×8 pixels that are shown at 32×32: halves of them are nearer to each other than to noisy ones."""
    data = Digits(image_size=32)
    data.setup("test")
    images = torch.cat([batch[0] for batch in pictures_of(data, "test")])[:240]
    judge = Judge(EfficientNetLite0, Facts(**data.facts), 1)
    assert (bool(judge.trained), judge.knows_classes) == (True, False)
    noise = torch.randn(images[::2].shape, generator=torch.Generator().manual_seed(0))
    noisy = (images[::2] + 0.15 * noise).clamp(0, 1)
    with torch.no_grad():
        one, other, worse = (judge(part).features for part in (images[::2], images[1::2], noisy))
    assert one.shape == (120, 1280)
    assert kernel_distance(one, worse) > 5 * abs(kernel_distance(one, other))
