"""Feature maps that are kept: training takes the same steps as on pictures, and finds the file again, or another."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from running import quiet_trainer
from torch.optim import SGD
from torchvision.transforms.v2 import RandomHorizontalFlip

from zoo.architectures.backbone_captioner import BackboneCaptioner
from zoo.architectures.lenet import LeNet
from zoo.architectures.show_attend_and_tell import ShowAttendAndTell
from zoo.architectures.vgg import VGG
from zoo.data.caption_folder import CaptionFolder
from zoo.data.mnist import MNIST5k
from zoo.data.scene_captions import SceneCaptions
from zoo.errors import UserError
from zoo.tasks.captioning import Captioning
from zoo.tasks.classification import Classification
from zoo.training.kept_features import KeptFeatures

SMALL: dict[str, Any] = {"image_size": 48, "train_size": 10, "val_size": 4, "test_size": 2, "batch_size": 4}
FROZEN: Any = [{"pattern": "^backbone", "frozen": True}]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "sets"))


def a_task(seed: int = 0, groups: Any = FROZEN) -> Captioning:
    torch.manual_seed(seed)
    backbone = partial(VGG, depth=11, width=0.1)
    network = partial(ShowAttendAndTell, backbone=backbone, width=16, word_width=8, dropout=0.2)
    optimizer = partial(SGD, lr=0.05)
    return Captioning(network, optimizer, parameter_groups=groups, max_length=4)


def fitted(data: Any = None, callbacks: tuple[Any, ...] = (), seed: int = 0, **options: Any) -> tuple[Any, Trainer]:
    task = a_task(seed)
    trainer = quiet_trainer(enable_checkpointing=False, callbacks=list(callbacks), **options)
    trainer.fit(task, datamodule=SceneCaptions(**SMALL) if data is None else data)
    return task, trainer


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "sets" / "features").glob("*"))


def test_training_on_kept_maps_is_training_on_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_pictures, plain = fitted()
    data = SceneCaptions(**SMALL)
    on_maps, trainer = fitted(data, (KeptFeatures(),))
    for (name, kept), expected in zip(on_maps.named_parameters(), on_pictures.parameters(), strict=True):
        torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-6, msg=name)
    assert [path.suffix for path in files(tmp_path)] == [".json", ".npy"]
    assert trainer.callback_metrics["val/loss"] == pytest.approx(float(plain.callback_metrics["val/loss"]), rel=1e-4)
    assert not on_maps.trains_on_maps
    assert data.samples("train")[0][0].shape == (3, 48, 48)

    seen: list[int] = []
    maps = BackboneCaptioner.maps

    def counted(self: Any, images: Any) -> Any:
        seen.append(len(images))
        return maps(self, images)

    monkeypatch.setattr(BackboneCaptioner, "maps", counted)
    fitted(None, (KeptFeatures(),), limit_val_batches=0)
    assert sum(seen) == 1  # the one that is measured when the network is built
    assert len(files(tmp_path)) == 2


def test_whatever_changes_the_maps_makes_another_file(tmp_path: Path) -> None:
    short = {"max_epochs": 1, "limit_val_batches": 0}
    fitted(None, (KeptFeatures(),), **short)
    fitted(SceneCaptions(**SMALL, num_workers=1), (KeptFeatures(),), **short)  # changes nothing
    assert len(files(tmp_path)) == 2
    fitted(None, (KeptFeatures(),), seed=1, **short)
    fitted(SceneCaptions(**SMALL, seed=1), (KeptFeatures(),), **short)
    fitted(None, (KeptFeatures(half=True),), **short)
    assert len(files(tmp_path)) == 8
    sizes = sorted(path.stat().st_size for path in files(tmp_path) if path.suffix == ".npy")
    assert sizes[0] < 0.6 * sizes[1]
    arguments = CaptionFolder.write_example(tmp_path / "own")
    fitted(CaptionFolder(**arguments), (KeptFeatures(),), **short)
    (tmp_path / "own" / "captions.csv").open("a").write("1.png,another\n")
    fitted(CaptionFolder(**arguments), (KeptFeatures(),), **short)
    assert len(files(tmp_path)) == 12


@pytest.mark.parametrize(
    ("groups", "data", "message"),
    [
        (None, {}, r"needs a frozen backbone, but backbone\.\S+ is trained: freeze it by --model.parameter_groups"),
        (FROZEN, {"fresh": True}, "the same training images in every epoch: leave out data.augment and data.fresh"),
        (FROZEN, {"augment": [RandomHorizontalFlip]}, "the same training images in every epoch"),
    ],
)
def test_what_cannot_be_kept_is_refused(groups: Any, data: dict[str, Any], message: str) -> None:
    trainer = quiet_trainer(enable_checkpointing=False, callbacks=[KeptFeatures()])
    with pytest.raises(UserError, match=message):
        trainer.fit(a_task(groups=groups), datamodule=SceneCaptions(**SMALL, **data))


def test_other_tasks_are_refused() -> None:
    trainer = quiet_trainer(enable_checkpointing=False, callbacks=[KeptFeatures()])
    with pytest.raises(UserError, match="for captioners over a backbone, not for LeNet"):
        trainer.fit(Classification(LeNet), datamodule=MNIST5k())  # type: ignore[arg-type]
