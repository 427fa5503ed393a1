"""Semantic segmentation against closed forms and hand-made counts, and through whole runs on tiny data."""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from running import zoo
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from zoo.architectures.base import Architecture
from zoo.architectures.fcn import FCN
from zoo.architectures.vgg import VGG
from zoo.data.base import Data
from zoo.data.loading import TensorSource
from zoo.data.object_data import counted
from zoo.data.predicting import Source
from zoo.data.scenes import SceneMasks
from zoo.drawing import NO_CLASS, class_color
from zoo.errors import UserError
from zoo.export import export
from zoo.facts import Facts
from zoo.metrics.segmentation import segmentation_scores
from zoo.tasks.class_weights import balanced_weights
from zoo.tasks.segmented import background_of, draw_segmented, segmented, write_mask
from zoo.tasks.semantic_segmentation import SemanticSegmentation

warnings.filterwarnings("ignore")
NAMES = ["background", "bright", "dark", "nowhere"]
SMALL = partial(VGG, depth=11, width=0.0625, norm="batch")


class Pixelwise(Architecture):
    """Sees each pixel alone."""

    roles = ("segmenter",)

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


class Half(Pixelwise):
    """The same at half the size, and in training with an auxiliary head."""

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__(num_classes, in_channels)
        self.auxiliary = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, images: Tensor) -> Any:
        small = F.avg_pool2d(images, 2)
        return (self.layer(small), self.auxiliary(small)) if self.training else self.layer(small)


class Blocks(Data):
    """Bright and dark blocks on grey; a tenth of the pixels is ignored, and all of every fifth image."""

    batch = "semantic_segmentation"

    def __init__(self, side: int = 12, mirror: bool = True) -> None:
        super().__init__(batch_size=4, eval_batch_size=3)
        self.side, self.mirror = side, mirror

    @property
    def facts(self) -> Facts:
        return {
            "num_classes": 4,
            "class_names": NAMES,
            "in_channels": 1,
            "image_size": [12, 12],
            "mean": [0.5],
            "std": [0.3],
            "mirror": self.mirror,
            "class_counts": [600, 300, 100, 0],
        }

    def samples(self, split: str) -> Any:
        count = {"train": 16, "val": 5, "test": 10, "predict": 2}[split]
        random = torch.Generator().manual_seed(count)
        masks = torch.randint(0, 3, (count, 1, 3, 3), generator=random).float()
        masks = F.interpolate(masks, (self.side, self.side), mode="nearest")[:, 0].long()
        images = (
            torch.tensor([0.5, 0.9, 0.1])[masks][:, None] + 0.1 * torch.rand(masks.shape, generator=random)[:, None]
        )
        masks[torch.rand(masks.shape, generator=random) < 0.1] = 255
        masks[::5] = 255
        return TensorSource(images.clamp(0, 1), masks)


def trainer(**options: Any) -> Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(**{"max_epochs": 2, "accelerator": "cpu", "enable_checkpointing": False, **quiet, **options})


def made(**arguments: Any) -> SemanticSegmentation:
    torch.manual_seed(0)
    return SemanticSegmentation(**{"architecture": Pixelwise, "optimizer": partial(SGD, lr=0.5), **arguments})


def built(data: Blocks | None = None, **arguments: Any) -> SemanticSegmentation:
    task = made(**{"facts": (data or Blocks()).facts, **arguments})
    task.configure_model()
    return task.eval()


def batch(split: str = "test") -> tuple[Tensor, Tensor]:
    images, masks = Blocks().samples(split).fetch(torch.arange(5))
    return images, masks


# Losses


def test_losses_are_weighted_sums() -> None:
    images, masks = batch()
    alone = {name: float(built_loss({name: 1.0}, images, masks)) for name in ("cross_entropy", "dice", "focal")}
    assert len({round(v, 4) for v in alone.values()}) == 3
    found = built_loss({"dice": 2.0, "cross_entropy": 0.5, "focal": 1.0}, images, masks)
    assert float(found) == pytest.approx(2 * alone["dice"] + 0.5 * alone["cross_entropy"] + alone["focal"], rel=1e-5)
    assert float(built_loss({"focal": 1.0}, images, masks, focal_gamma=0.0)) == pytest.approx(alone["cross_entropy"])


def built_loss(losses: dict[str, float], images: Tensor, masks: Tensor, **options: Any) -> Tensor:
    task = built(losses=losses, **options)
    return task.loss(task.terms(task(images), masks))


def test_class_weights_are_of_the_pixels_counts() -> None:
    """600, 300 and 100 pixels, and none of the last: n / (K n_k)."""
    images, masks = batch()
    task = built(class_weights="balanced")
    weight = torch.tensor([1000 / (4 * n) for n in (600, 300, 100, 1)])
    expected = F.cross_entropy(task(images), masks, weight, ignore_index=255)
    torch.testing.assert_close(task.loss(task.terms(task(images), masks)), expected)
    given = built(class_weights=[1.0, 2.0, 0.0, 5.0])
    expected = F.cross_entropy(given(images), masks, torch.tensor([1.0, 2.0, 0.0, 5.0]), ignore_index=255)
    torch.testing.assert_close(given.loss(given.terms(given(images), masks)), expected)


class Uncounted(Blocks):
    """Does not say its counts, but can count; some pixels have a label beyond the classes, which is not 255 alone."""

    @property
    def facts(self) -> Facts:
        return {k: v for k, v in super().facts.items() if k != "class_counts"}  # type: ignore[return-value]

    def count_pixels(self) -> list[int]:
        masks = self.samples("train").fetch(torch.arange(16))[1]
        return counted(iter(masks), 4)


def test_pixels_are_counted_where_the_data_does_not_say_their_number() -> None:
    task = made(class_weights="balanced")
    trainer(max_epochs=1).fit(task, datamodule=Uncounted())
    masks = Blocks().samples("train").fetch(torch.arange(16))[1]
    counts = [int((masks == label).sum()) for label in range(4)]
    assert task.facts["class_counts"] == counts
    assert min(counts[:3]) > 0
    torch.testing.assert_close(task.class_weight, balanced_weights(counts))
    with pytest.raises(UserError, match="balanced needs class_counts"):
        built(class_weights="balanced", facts={k: v for k, v in Blocks().facts.items() if k != "class_counts"})
    scenes = SceneMasks(image_size=64, train_size=3)
    expected = sum(
        torch.bincount(target["mask"].flatten().long(), minlength=14) for _, target in scenes.annotated("train")
    )
    assert scenes.count_pixels() == expected.tolist()


def test_logits_are_resized_to_the_masks_and_auxiliary_heads_count_half(monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks = batch()
    task = built(architecture=Half)
    monkeypatch.setattr(SemanticSegmentation, "logs_now", False)
    head, aux = (
        F.interpolate(found, (12, 12), mode="bilinear", align_corners=False)
        for found in task.architecture.train()(task.normalize(images))
    )
    losses = [F.cross_entropy(logits, masks, ignore_index=255) for logits in (head, aux)]
    torch.testing.assert_close(task.train().training_step((images, masks), 0), losses[0] + 0.5 * losses[1])
    torch.testing.assert_close(task.eval()(images), head)


def test_half_precision_is_computed_in_float32() -> None:
    task, (images, masks) = built(), batch()
    logits = 50 * torch.randn(5, 4, 12, 12)
    expected = task.loss(task.terms(logits.bfloat16().float(), masks))
    assert torch.equal(task.loss(task.terms(logits.bfloat16(), masks)), expected)
    assert task.bfloat16().probabilities(images.bfloat16()).dtype == torch.float32


# Views and windows


def test_flips_and_scales_are_averaged() -> None:
    images = batch()[0]
    task = built(architecture=Half, flip=True, scales=[1.0, 0.5])
    expected = torch.zeros(5, 4, 12, 12)
    for size in ((12, 12), (6, 6)):
        view = F.interpolate(images, size, mode="bilinear", antialias=True)
        for flipped in (False, True):
            found = task(view.flip(-1) if flipped else view).softmax(1)
            found = found.flip(-1) if flipped else found
            expected += F.interpolate(found, (12, 12), mode="bilinear") / 4
    torch.testing.assert_close(task.probabilities(images), expected)
    still = built(Blocks(mirror=False), architecture=Half, flip=True)
    torch.testing.assert_close(still.probabilities(images), still(images).softmax(1))


def test_windows_are_of_the_trained_size() -> None:
    images, sizes = torch.rand(2, 1, 30, 17), []
    task, whole = built(windows=0.25), built()
    task.architecture.register_forward_hook(lambda _m, inputs, _o: sizes.append(tuple(inputs[0].shape[2:])))
    torch.testing.assert_close(task.probabilities(images), whole(images).softmax(1))
    assert set(sizes) == {(12, 12)}
    assert (task.predict_view, whole.predict_view) == ("native", "whole")


# Whole runs


@pytest.fixture(scope="module")
def tested() -> tuple[SemanticSegmentation, dict[str, float]]:
    """A task after a fit and a test with flips, with what both logged."""
    task, run = made(flip=True, losses={"cross_entropy": 1.0, "dice": 1.0}), trainer()
    run.fit(task, datamodule=Blocks())
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    run.test(task, datamodule=Blocks(), verbose=False)
    return task, logged | {name: float(value) for name, value in run.callback_metrics.items()}


def test_metrics_are_those_of_all_pixels(tested: tuple[SemanticSegmentation, dict[str, float]]) -> None:
    task, logged = tested
    images, masks = Blocks().samples("test").fetch(torch.arange(10))
    with torch.no_grad():
        probabilities = task.probabilities(images)
    matrix, known = torch.zeros(4, 4), masks != 255
    for true, found in zip(masks[known].tolist(), probabilities.argmax(1)[known].tolist(), strict=True):
        matrix[true, found] += 1
    assert torch.equal(task._matrix, matrix.long())  # type: ignore[arg-type]
    expected = segmentation_scores(matrix)
    for name in ("miou", "mdice", "pixel_accuracy"):
        assert logged[f"test/{name}"] == pytest.approx(float(expected[name]))
    assert logged["test/iou/bright"] == pytest.approx(float(expected["iou"][1]))
    assert "test/iou/nowhere" not in logged
    assert logged["test/miou"] > 0.7
    assert {"train/loss", "val/loss", "val/miou", "val/pixel_accuracy"} < logged.keys()
    with torch.no_grad():
        terms = task.terms(probabilities.log(), masks)
    assert logged["test/loss"] == pytest.approx(float(task.loss(terms)), rel=1e-5)


def test_pictures_and_overlays_of_a_test(tested: tuple[SemanticSegmentation, dict[str, float]]) -> None:
    task, _ = tested
    made_, overlays = task.pictures(), task.overlays()
    assert set(made_) == {"predictions", "worst", "confusion"}
    assert set(overlays) == {"predictions", "worst"}
    losses = [float(one.caption.split()[1]) for one in overlays["worst"]]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]
    first = overlays["predictions"][0]
    assert first.class_names == NAMES
    assert set(first.masks) == {"prediction", "truth"}
    assert (first.masks["truth"] == NO_CLASS).all()  # the first image is ignored as a whole
    assert first.caption == "loss 0.000"


def test_a_batch_without_a_known_pixel_trains_nothing() -> None:
    task, images = built(losses={"cross_entropy": 1.0, "dice": 1.0}), batch()[0]
    loss = task.loss(task.terms(task(images), torch.full((5, 12, 12), 255)))
    loss.backward()
    assert float(loss) == 0
    assert not any(p.grad.any() for p in task.parameters() if p.grad is not None)


def test_a_wrong_class_is_said() -> None:
    class Wrong(Blocks):
        def samples(self, split: str) -> Any:
            source = super().samples(split)
            return TensorSource(source.fetch(torch.arange(5))[0], torch.full((5, 12, 12), 4))

    with pytest.raises((UserError, ValueError, IndexError)):
        trainer().fit(made(), datamodule=Wrong())


# Predictions


def test_the_classes_of_a_pictures_own_pixels() -> None:
    """A picture of 21×30, of which the task saw all at 12×12: as the probabilities resized at once."""
    torch.manual_seed(0)
    probabilities = torch.randn(4, 3, 3)
    probabilities = F.interpolate(probabilities[None], (12, 12), mode="bilinear")[0].softmax(0)
    source = Source("photos/a.jpg", "a.jpg", (21, 30), (12, 12))
    result = segmented(probabilities, source, "a.png", NAMES)
    large = F.interpolate(probabilities[None], (21, 30), mode="bilinear")[0]
    assert torch.equal(result.mask.long(), large.argmax(0))
    shares = {found.label: found.share for found in result.found}
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    for found in result.found:
        here = result.mask == found.index
        assert found.share == pytest.approx(float(here.float().mean()))
        assert found.confidence == pytest.approx(float(large.max(0).values[here].mean()), rel=1e-5)


def test_masks_are_indexed_pngs_with_a_fixed_palette(tmp_path: Path) -> None:
    mask = torch.tensor([[0, 1, 2], [20, 254, 255]], dtype=torch.uint8)
    write_mask(tmp_path / "deeper" / "m.png", mask)
    with Image.open(tmp_path / "deeper" / "m.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), mask.numpy())
        colors = np.asarray(picture.convert("RGB"))
    assert tuple(colors[0, 1]) == class_color(1)
    assert tuple(colors[1, 0]) == class_color(20)
    assert tuple(colors[1, 2]) == (0, 0, 0)


def test_drawn_classes_keep_the_pictures_proportions() -> None:
    result = segmented(torch.eye(4)[:, :, None].expand(4, 4, 4), Source("a", "a", (20, 60), (4, 4)), "a.png", NAMES)
    picture = draw_segmented(torch.rand(1, 4, 4), result, NAMES, None)
    beside = draw_segmented(torch.rand(1, 4, 4), result, NAMES, result.mask.long())
    assert picture.width >= 320
    assert picture.width / 3 < picture.height < picture.width / 2  # with the legend
    assert beside.width > 3 * picture.width
    assert background_of(["road", "__background__"]) == 1
    assert background_of(["road", "sky"]) is None


def test_files_of_one_stem_get_masks_of_their_own() -> None:
    task = built()
    names = [Source("x/a.jpg", "a.jpg"), Source("x/a.png", "a.png"), Source("x/b/a.jpg", "b/a.jpg"), "somewhere/c.tif"]
    assert [task._mask_file(name) for name in names] == ["a.png", "a.png.png", "b/a.png", "c.png"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run on scenes, and two photographs of other sizes."""
    folder = tmp_path_factory.mktemp("segmentation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model = ["--model.architecture", "UNet", "--model.architecture.padding", "same"]
        model += ["--model.architecture.width", "0.05", "--model.architecture.norm", "batch"]
        small = ["--data.image_size", "48", "--data.train_size", "4", "--data.val_size", "2", "--data.test_size", "2"]
        quiet = ["--trainer.max_epochs", "1", "--trainer.logger", "false", "--trainer.accelerator", "cpu"]
        assert zoo("fit", "--model", "SemanticSegmentation", *model, "--data", "SceneMasks", *small, *quiet) == 0
        next((folder / "runs").glob("*/*")).rename("made")
        rng = np.random.default_rng(0)
        for name, size in (("wide", (40, 100)), ("tall", (130, 30))):
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("options", [[], ["--model.windows", "0.25", "--model.flip", "true"]])
def test_predictions_are_of_the_pictures_own_pixels(
    run: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    checkpoint = str(next(Path("made").rglob("*.ckpt")))
    out = f"out{len(options)}"
    files = ["--data.files", "[wide.png, tall.png]", "--out", out]
    assert zoo("predict", "--ckpt_path", checkpoint, *files, *options) == 0
    rows = json.loads((Path(out) / "predictions.json").read_text())
    assert [(row["height"], row["width"]) for row in rows] == [(40, 100), (130, 30)]
    for row in rows:
        with Image.open(Path(out) / row["mask"]) as mask:
            assert mask.size == (row["width"], row["height"])
            assert int(np.asarray(mask).max()) < 14
        assert sum(found["share"] for found in row["classes"]) == pytest.approx(1)
        assert (Path(out) / row["picture"]).is_file()


# Export


def test_an_exported_file_gives_logits_of_the_images_size(tmp_path: Path) -> None:
    """As ONNX; the kit exports tasks and networks by ``torch.export``."""
    import onnxruntime

    task = built(architecture=Half)
    assert export(task, tmp_path / "task.onnx") is not None
    session = onnxruntime.InferenceSession(tmp_path / "task.onnx")
    images = torch.rand(3, 1, 12, 12)
    (found,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        expected = task(images)
    assert expected.shape == (3, 4, 12, 12)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


# Mistakes


def test_mistakes_end_in_one_line() -> None:
    for arguments, said in (
        ({"losses": {"crossentropy": 1.0}}, "there is no loss crossentropy.*cross_entropy"),
        ({"losses": {"dice": 0.0}}, "one of them above"),
        ({"focal_gamma": -1.0}, "at least 0"),
        ({"scales": [1.0, 0.0]}, "scales must be above 0"),
        ({"windows": 1.0}, "windows must be at least 0 and below 1"),
        ({"architecture": SMALL}, "VGG"),
    ):
        with pytest.raises(UserError, match=said):
            built(**arguments)
    with pytest.raises(UserError, match="3 values, the data 4 classes"):
        built(class_weights=[1.0, 1.0, 1.0])
    with pytest.raises(UserError, match="takes 2 to 255 classes, the data has 300"):
        made(facts=Facts(num_classes=300, in_channels=1, image_size=[12, 12])).configure_model()


def test_a_backbone_can_be_frozen() -> None:
    groups: Any = [{"pattern": "^backbone", "frozen": True}]
    task = made(architecture=partial(FCN, SMALL), parameter_groups=groups)
    facts = {**Blocks().facts, "image_size": [32, 32]}
    task.hparams["facts"] = facts
    task.configure_model()
    before = {name: t.clone() for name, t in task.architecture.state_dict().items()}
    optimizer = task.configure_optimizers()["optimizer"]
    task.train()
    task.loss(task.terms(task(torch.rand(2, 1, 32, 32)), torch.randint(0, 3, (2, 32, 32)))).backward()
    optimizer.step()
    changed = {
        name.split(".")[0] for name, t in task.architecture.state_dict().items() if not torch.equal(t, before[name])
    }
    assert changed == {"classifier"}
