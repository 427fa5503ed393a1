"""Judged samples: what a test logs of a generator that makes three greys, with and without classes."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from known_denoiser import FACTS, VARIANCE, Known
from PIL import Image
from running import quiet_trainer
from torch import Tensor, nn

from zoo import Data, Facts
from zoo.architectures.base import Architecture
from zoo.data.digits import Digits
from zoo.data.loading import TensorSource
from zoo.errors import UserError
from zoo.tasks.flow_matching import FlowMatching
from zoo.tasks.nearest_pictures import nearest_training

COUNT = 60


class Greys(Data):
    batch = "classification"

    @property
    def facts(self) -> Facts:
        return Facts(**{**FACTS, "mirror": True, "mean": [0.5], "std": [0.2]})

    def samples(self, split: str) -> Any:
        random = torch.Generator().manual_seed(["train", "val", "test"].index(split))
        labels = torch.arange(COUNT) % 3
        noise = torch.randn(COUNT, 1, 4, 4, generator=random) * VARIANCE**0.5
        return TensorSource((((labels - 1) / 2).view(-1, 1, 1, 1) + noise + 1) / 2, labels)


class Brightness(Architecture):
    """A judge of little to learn."""

    roles = ("classifier",)

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU())
        self.head = nn.Linear(24, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def tested(**options: Any) -> dict[str, float]:
    torch.manual_seed(0)
    devices, cls = options.pop("devices", 1), options.pop("cls", FlowMatching)
    task = cls(partial(Known, kind="flow"), judge=Brightness, judge_epochs=120, test_samples=45, steps=24, **options)
    strategy = {"devices": devices, "strategy": "ddp_fork"} if devices > 1 else {}
    trainer = quiet_trainer(max_epochs=1, enable_checkpointing=False, limit_val_batches=0)
    data = Greys(batch_size=20)
    trainer.fit(task, datamodule=data)
    assert bool(task.judge.trained)
    trainer = quiet_trainer(enable_checkpointing=False, **strategy)
    return {k: float(v) for k, v in trainer.test(task, datamodule=data, verbose=False)[0].items()}


@pytest.fixture(scope="module")
def judged() -> dict[str, float]:
    return tested(conditional=True)


def test_samples_of_the_right_class_are_recognised(judged: dict[str, float]) -> None:
    assert judged["test/judge_accuracy"] > 0.95
    assert judged["test/class_accuracy"] > 0.95
    assert judged["test/samples"] == 45
    assert judged["test/compared"] == COUNT / 2
    assert judged["test/spread"] == pytest.approx(1, abs=0.35)


def test_without_classes_they_are_compared_alike(judged: dict[str, float]) -> None:
    found = tested(conditional=False)
    assert found["test/class_accuracy"] != found["test/class_accuracy"], "none was asked for"
    assert found["test/frechet"] > 2 * judged["test/frechet"], "it makes one grey alone"


class Copying(FlowMatching):
    """Makes training pictures, the same on every run."""

    def generate(self, noise: Tensor, labels: Any, generators: Any, callback: Any = None) -> Tensor:
        return self.scaled(Greys().samples("train").tensors[0].clamp(0, 1)[: len(noise)])


def test_copies_are_seen(judged: dict[str, float]) -> None:
    assert judged["test/nearer_to_training"] == pytest.approx(0.5, abs=0.15)
    assert tested(conditional=True, cls=Copying)["test/nearer_to_training"] > 0.98


def test_the_nearest_training_picture_is_shown_beside_each_sample() -> None:
    data = Greys(batch_size=20)
    images = data.samples("train").tensors[0]
    shown, order = images[[7, 59, 30]], torch.tensor([7, 59, 30])
    queries = torch.cat([shown, images[:5] + 0.01]).flatten(1)
    found = nearest_training(data, lambda x: x.flatten(1), queries, shown, torch.device("cpu"))
    assert found is not None
    assert torch.equal(found.pictures, images[order])
    torch.testing.assert_close(found.distances, torch.tensor([0.0] * 3 + [0.04] * 5).double(), atol=1e-6, rtol=0)
    task = FlowMatching(partial(Known, kind="flow"), conditional=True, steps=2, facts=FACTS)
    task.configure_model()
    task._grid, task._trainer = shown, SimpleNamespace(datamodule=data)
    task._compare_with_training(lambda x: x.flatten(1), None)
    (pairs,) = task.pictures()["nearest"]
    left, right = (pairs.crop((8 + i * 56, 8, 64 + i * 56, 64)) for i in range(2))
    assert left.tobytes() == right.tobytes()


def test_a_test_alone_sets_up_the_training_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    images = torch.rand(3, 1, 64)

    def nearest_of(data: Data) -> Any:
        return nearest_training(data, lambda x: x.flatten(1), images.flatten(1), images[:0], torch.device("cpu"))

    data = Digits(image_size=8)
    data.setup("test")
    found = nearest_of(data)
    assert found is not None
    assert bool(found.distances.isfinite().all())

    class Away(Greys):
        def setup(self, stage: str | None = None) -> None:
            if stage == "fit":
                raise UserError("there is no folder train")

    assert nearest_of(Away()) is None
    assert "no nearest training pictures: there is no folder train" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(judged: dict[str, float]) -> None:
    assert tested(devices=2, conditional=True) == pytest.approx(judged, rel=1e-4, abs=1e-6)


def test_prediction_draws_all_samples_a_column_for_each_class(tmp_path: Path) -> None:
    task = FlowMatching(partial(Known, kind="flow"), conditional=True, steps=4, facts=FACTS)
    task.configure_model()
    asked = torch.tensor([[0, index, -1] for index in range(6)])
    results = task.predict_step((asked, [f"sample-{index}" for index in range(6)]), 0)
    rows = []
    for row, picture in zip(task.as_json(results), task.draw(None, results), strict=True):
        picture.save(tmp_path / f"{row['name']}.png")
        rows.append({**row, "picture": f"{row['name']}.png"})
    task.write_summary(tmp_path, rows[::-1])
    with Image.open(tmp_path / "samples.png") as made:
        assert made.size == (3 * (4 + 2) + 2, 2 * (4 + 2) + 2)
        columns = [made.getpixel((2 + 6 * column, 8))[0] for column in range(3)]
    assert columns == sorted(columns), "dark, middle and bright"
    assert columns[2] - columns[0] > 80


def test_classes_are_not_asked_of_a_generator_without() -> None:
    task = FlowMatching(partial(Known, kind="flow"), steps=4, facts=FACTS)
    task.configure_model()
    with pytest.raises(UserError, match=r"data\.classes asks for classes"):
        task.predict_step((torch.tensor([[0, 0, 2]]), ["a"]), 0)
    assert task.predict_step((torch.tensor([[0, 0, -1]]), ["a"]), 0)[0].label is None
