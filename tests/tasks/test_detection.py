"""Detection and instance segmentation: losses and detections of torchvision's, what is trained on, what is shown."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from running import folder_of, zoo
from torch import Tensor
from torch.optim import SGD

from zoo.architectures.faster_rcnn import FasterRCNN
from zoo.architectures.mask_rcnn import MaskRCNN
from zoo.data.scenes import Scenes
from zoo.drawing import NO_CLASS, to_picture
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.tasks.detection import Detection, classes_of_pixels, trainable, true_objects
from zoo.tasks.instance_segmentation import InstanceSegmentation
from zoo.training.pictures import PictureWriter

FACTS = Facts(num_classes=3, class_names=["cat", "dog", "bird"], in_channels=3)


def tiny(cls: Any = FasterRCNN, **changes: Any) -> Any:
    return partial(cls, **{**cls.example, "score_threshold": 0.0, **changes})


def task(cls: Any = Detection, **arguments: Any) -> Any:
    torch.manual_seed(0)
    network = tiny(MaskRCNN if cls is InstanceSegmentation else FasterRCNN)
    made = cls(**{"architecture": network, "facts": FACTS, **arguments})
    made.configure_model()
    return made


def target(count: int = 2, **more: Any) -> dict[str, Tensor]:
    boxes = torch.tensor([[2.0, 3, 20, 30], [10, 12, 40, 44], [5, 5, 5, 9]])[:count]
    return {"boxes": boxes, "labels": torch.tensor([0, 2, 1])[:count], **more}


def images(count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 48 + 8 * i, 64, generator=generator) for i in range(count)]


# What is trained on


def test_the_loss_is_the_networks_own_on_normalised_images() -> None:
    made = task(facts=Facts(**FACTS, mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.3])).train()  # type: ignore[typeddict-item]
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    targets = [target(), target(1)]
    torch.manual_seed(3)
    found = made.losses((images(), targets))
    torch.manual_seed(3)
    expected = made.architecture([(image - mean) / std for image in images()], targets)
    assert set(found) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert {k: float(v) for k, v in found.items()} == pytest.approx(
        {k: float(v) for k, v in expected.items()}, rel=1e-5
    )


def test_losses_are_weighted_by_name() -> None:
    made = task(loss_weights={"loss_objectness": 0.0, "loss_box_reg": 3.0}).train()
    batch = (images(), [target(), target()])
    torch.manual_seed(3)
    found = made.losses(batch)
    made.loss_weights = {}
    torch.manual_seed(3)
    plain = made.losses(batch)
    assert found["loss_objectness"] == 0
    torch.testing.assert_close(found["loss_box_reg"], 3 * plain["loss_box_reg"])
    made.loss_weights = {"objectness": 2.0}
    with pytest.raises(UserError, match="there is no loss objectness; there are loss_"):
        made.losses(batch)


def test_crowds_and_boxes_of_no_area_are_not_trained_on() -> None:
    masks = torch.zeros(3, 48, 64, dtype=torch.bool)
    kept = trainable(target(3, iscrowd=torch.tensor([True, False, False]), masks=masks, area=torch.ones(3)))
    assert kept["labels"].tolist() == [2]
    assert kept["masks"].shape == (1, 48, 64)
    assert set(kept) == {"boxes", "labels", "masks"}


@pytest.mark.parametrize("cls", [Detection, InstanceSegmentation])
def test_batches_without_objects_train(cls: Any) -> None:
    made = task(cls).train()
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    none["masks"] = torch.zeros(0, 48, 64, dtype=torch.bool)
    other = {**none, "masks": torch.zeros(0, 56, 64, dtype=torch.bool)}
    loss = torch.stack(list(made.losses((images(), [none, other])).values())).sum()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_precisions_that_would_round_boxes_are_refused(precision: Any, tmp_path: Path) -> None:
    trainer = Trainer(precision=precision, accelerator="cpu", default_root_dir=tmp_path, logger=False)
    made = Detection(tiny(), facts=FACTS)
    made._trainer = trainer
    trainer.datamodule = None  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=precision.replace("true", "mixed")):
        made.build()


# Results


def test_results_are_in_the_pictures_own_pixels_and_thresholded() -> None:
    made = task(score_threshold=0.2).eval()
    with torch.no_grad():
        every = made.detect(images())
        found = made.predict_step((images(), ["a.jpg", "b.jpg"]), 0)
    assert [one.size for one in found] == [(48, 64), (56, 64)]
    for raw, one in zip(every, found, strict=True):
        assert len(one.boxes) == int((raw["scores"] >= 0.2).sum())
        assert (one.boxes[:, ::2] <= 64).all()


def test_classes_and_number_of_objects_can_be_chosen() -> None:
    made = task(score_threshold=0.0, shown_classes=["dog", "0"], max_objects=5).eval()
    with torch.no_grad():
        (found,) = made.predict_step((images(1), ["a"]), 0)
        assert len(made.detect(images(1), made.views)[0]["boxes"]) == 5
        raw = made.detect(images(1))[0]["labels"]
    assert set(found.names) <= {"dog", "cat"}
    assert len(found.names) == min(5, int((raw != 2).sum())) > 0, "the limit is that of the chosen classes"
    assert (raw[:5] == 2).any(), "others are among the best five"
    with pytest.raises(UserError, match="there is no class dgo; did you mean dog"):
        task(shown_classes=["dgo"])


@pytest.mark.parametrize(
    ("argument", "value"),
    [("score_threshold", 1.5), ("scales", []), ("scales", [0.0]), ("max_objects", 0), ("window", 3), ("merge_iou", -1)],
)
def test_wrong_arguments_end_in_one_line(argument: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"model\.{argument} must be"):
        Detection(tiny(), **{argument: value})


def test_flips_are_left_out_where_they_change_the_class() -> None:
    assert task(flip=True)._test_views.flip
    assert not task(flip=True, facts=Facts(**FACTS, mirror=False))._test_views.flip  # type: ignore[typeddict-item]


def test_truth_is_drawn_without_what_evaluation_ignores() -> None:
    boxes, masks = true_objects(target(2, iscrowd=torch.tensor([False, True]), masks=torch.ones(2, 4, 4).bool()))
    assert boxes.labels.tolist() == [0]
    assert masks is not None
    assert masks.shape == (1, 4, 4)


def test_classes_of_pixels_have_the_first_object_on_top() -> None:
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, :2], masks[1, 1:3] = True, True
    assert classes_of_pixels(masks, torch.tensor([5, 6]), (4, 4))[:, 0].tolist() == [5, 5, 6, NO_CLASS]


# A run


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Tensor]]:
    """Masks and boxes, after a short fit and a test."""
    folder = tmp_path_factory.mktemp("run")
    data = Scenes(image_size=64, train_size=16, val_size=4, test_size=6, batch_size=4)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, use_distributed_sampler=False, enable_checkpointing=False,
    )  # fmt: skip
    made = InstanceSegmentation(tiny(MaskRCNN), partial(SGD, lr=0.01), score_threshold=0.0)
    trainer.fit(made, datamodule=data)
    logged = dict(trainer.callback_metrics)
    trainer.test(made, datamodule=data, verbose=False)
    return made, {**logged, **trainer.callback_metrics}


def test_a_run_logs_cocos_figures_of_boxes_and_masks(fitted: tuple[Any, dict[str, Tensor]]) -> None:
    logged = fitted[1]
    for stage in ("val", "test"):
        assert {f"{stage}/{kind}{name}" for kind in ("", "mask_") for name in ("map", "map_50", "mar_100")} <= set(
            logged
        )
    assert {"train/loss", "train/loss_mask"} <= set(logged)
    assert any(name.startswith("test/map_per_class/") for name in logged)
    assert not any("samples" in name for name in logged)


def test_after_a_test_there_are_pictures_overlays_and_a_table(tmp_path: Path) -> None:
    data = Scenes(image_size=64, train_size=4, val_size=4, test_size=6, batch_size=4)
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[PictureWriter(tmp_path / "pictures")], **options)
    made = InstanceSegmentation(tiny(MaskRCNN), score_threshold=0.0, max_objects=10)
    trainer.test(made, datamodule=data, verbose=False)
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {f"test-{name}.png" for name in ("predictions", "curves", "confusion", "errors", "worst")}
    (table,) = made.tables().values()
    assert len(table.rows) == 6
    assert [row[3] for row in table.rows] == sorted(row[3] for row in table.rows)
    overlays = made.overlays()["predictions"]
    assert len(overlays) == 6
    assert set(overlays[0].boxes) == set(overlays[0].masks) == {"prediction", "truth"}
    trainer.validate(made, datamodule=data, verbose=False)
    assert set(made.pictures()) == {"predictions"}, "what a test left is not shown again"


@pytest.mark.slow
def test_the_commands_fit_and_predict(workspace: Path) -> None:
    small = ["--data.image_size", "64", "--data.train_size", "4", "--data.val_size", "2", "--data.test_size", "2"]
    network = ["--model.architecture.pyramid_channels", "8", "--model.architecture.box_head_width", "8"]
    limits = ["--trainer.max_epochs", "1", "--data.batch_size", "2", "--trainer.logger", "false"]
    assert zoo("fit", "--config", "instance_segmentation", *small, *network, *limits) == 0
    folder = folder_of("instance_segmentation")
    Path("photos/deep").mkdir(parents=True)
    for index, name in enumerate(("12.jpg", "deep/7.png")):
        to_picture(torch.rand(3, 40, 50 + index), side=1).save(Path("photos") / name)
    options = ["--model.score_threshold", "0.0", "--model.max_objects", "3", "--out", "found"]
    assert zoo("predict", "--ckpt_path", str(folder), "--data.files", "photos/**/*", *options) == 0
    rows = json.loads(Path("found/predictions.json").read_text())
    assert [(row["width"], row["height"]) for row in rows] == [(50, 40), (51, 40)]
    results = json.loads(Path("found/coco-results.json").read_text())
    assert {one["image_id"] for one in results} == {12, 7}
    assert all("segmentation" in one for one in results)
    assert len(Path("found/labels/12.txt").read_text().splitlines()) == len(rows[0]["objects"]) == 3
    assert Path("found/labels/deep/7.txt").is_file()
    assert Path("found/masks/deep/7.png").is_file()
