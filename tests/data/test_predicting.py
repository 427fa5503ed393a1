"""What a task sees of a picture, and the way back to the picture's own pixels."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from zoo.data import Digits, ImageFolder
from zoo.data.predicting import PredictFiles, Source, collate_native, collate_pictures


def picture(path, width=40, height=24, turned=None):
    """Red grows to the right, green downwards; with an EXIF tag, as a camera that is held upright stores it."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([x * 6, y * 6, 0 * x], -1).astype(np.uint8)
    options = {}
    if turned:  # 6: the picture as it is to be seen is the stored one turned by 90 degrees clockwise
        pixels = np.ascontiguousarray(np.rot90(pixels))
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return str(path)


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_of_the_centre_by_hand(tmp_path, turned):
    """Of 40x24, the central 24x24 starts at x = 8; as 12x12 every pixel is two."""
    files = PredictFiles([picture(tmp_path / "a.png", turned=turned)], [12, 12], 3)
    pixels, source = files[0]
    assert source.picture_size == (24, 40)
    assert source.image_size == (12, 12)
    assert source.box == (8, 0, 32, 24)
    assert source.boxes_to_picture(torch.tensor([[0.0, 0, 12, 12], [1, 2, 3, 4]])).tolist() == [
        [8, 0, 32, 24],
        [10, 4, 14, 8],
    ]
    assert abs(int(pixels[0, 0, 0]) - 6 * 8.5) <= 2, "the image's first pixel is the mean of columns 8 and 9"


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_of_the_whole_and_the_native_picture(tmp_path, turned):
    path = picture(tmp_path / "a.png", turned=turned)
    pixels, source = PredictFiles([path], [12, 10], 3, "whole")[0]
    assert pixels.shape == (3, 12, 10)
    assert source.boxes_to_picture(torch.tensor([1.0, 2, 5, 6])).tolist() == [4, 4, 20, 12]
    pixels, source = PredictFiles([path], None, 3, "native")[0]
    assert pixels.shape == (3, 24, 40)
    assert (pixels[0, 5, :] == 6 * torch.arange(40)).all()
    assert source.boxes_to_picture(torch.tensor([1.0, 2, 5, 6])).tolist() == [1, 2, 5, 6]


def test_maps_lie_where_the_image_was(tmp_path):
    _, source = PredictFiles([picture(tmp_path / "a.png")], [12, 12], 3)[0]
    classes = torch.zeros(12, 12)
    classes[3, 4] = 7
    laid = source.maps_to_picture(classes, outside=255, mode="nearest")
    assert laid.shape == (24, 40)
    assert (laid[:, :8] == 255).all()
    assert (laid[:, 32:] == 255).all()
    assert (laid == 7).nonzero().tolist() == [[6, 16], [6, 17], [7, 16], [7, 17]]
    logits = torch.rand(2, 5, 12, 12)
    assert source.maps_to_picture(logits).shape == (2, 5, 24, 40)
    even = source.maps_to_picture(torch.full((6, 6), 0.5))  # coarser than the image, as a network's output may be
    assert torch.equal(even[:, 8:32], torch.full((24, 24), 0.5))


def test_a_drafted_jpeg_has_its_own_size(tmp_path):
    image = Image.effect_noise((800, 400), 50).convert("RGB")
    image.save(tmp_path / "a.jpg")
    _, source = PredictFiles([str(tmp_path / "a.jpg")], [20, 20], 3)[0]
    assert source.picture_size == (400, 800)
    assert source.boxes_to_picture(torch.tensor([0.0, 0, 20, 20])).tolist() == [200, 0, 600, 400]


def test_folders_below_stay_in_the_names(tmp_path):
    for name in ("a/1.png", "b/1.png", "b/c/2.png"):
        picture(tmp_path / "photos" / name)

    def names(*patterns):
        data = Digits(files=[str(tmp_path / pattern) for pattern in patterns])
        samples = data.predict_samples()
        return [samples[i][1].name for i in range(len(samples))]

    assert names("photos/**/*.png") == ["a/1.png", "b/1.png", "b/c/2.png"]
    assert names("photos/*/1.png") == ["a/1.png", "b/1.png"]
    assert names("photos/a/1.png", "photos/b/1.png") == ["a/1.png", "b/1.png"]
    assert names("photos/a") == names("photos/a/1.png") == ["1.png"]
    assert names("photos/b/**/*") == ["1.png", "c/2.png"]


def test_a_source_is_a_path_that_travels():
    source = Source("x/y.png", "y.png", (4, 6), (2, 2), (1, 0, 5, 4))
    copy = pickle.loads(pickle.dumps(source))
    assert copy == "x/y.png"
    assert vars(copy) == vars(source)
    plain = Source("x/y.png", picture_size=(4, 6), image_size=(2, 3))
    assert plain.name == "y.png"
    assert plain.boxes_to_picture(torch.tensor([0, 0, 3, 2.0])).tolist() == [0, 0, 6, 4]


def test_unreadable_pictures_leave_the_others(tmp_path):
    good = picture(tmp_path / "good.png")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"x")
    files = PredictFiles([good, str(bad), good], [8, 10], 3)
    pixels, names, failures = collate_pictures([files[i] for i in range(3)])
    assert pixels.shape == (2, 3, 8, 10)
    assert names == [good, good]
    assert [name for name, _ in failures] == [str(bad)]
    assert str(bad) in failures[0][1]
    assert collate_native([files[1]])[:2] == ([], [])


class Seer(LightningModule):
    def __init__(self, view):
        super().__init__()
        self.predict_view, self.seen = view, []
        self.facts = {"image_size": [16, 16], "in_channels": 3}

    def predict_step(self, batch, batch_idx):
        self.seen.append(batch)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_task_chooses_its_view(tmp_path, num_workers):
    for name, width in (("a/1.png", 40), ("b/1.png", 30)):
        picture(tmp_path / name, width)
    (tmp_path / "b/2.png").write_bytes(b"x")
    found = {}
    for view in ("center", "whole", "native"):
        data = ImageFolder(image_size=8, resize=10, files=f"{tmp_path}/**/*.png", num_workers=num_workers)
        seer = Seer(view)
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = Trainer(accelerator="cpu", devices=1, **quiet)
        trainer.predict(seer, datamodule=data, return_predictions=False)
        ((found[view], sources),) = seer.seen
        assert [source.name for source in sources] == ["a/1.png", "b/1.png"]
        assert data.unreadable == [f"{tmp_path}/b/2.png"]
    assert found["center"].shape == found["whole"].shape == (2, 3, 20, 20)
    assert not torch.equal(found["center"], found["whole"])
    assert [image.shape for image in found["native"]] == [(3, 24, 40), (3, 24, 30)]
    assert 0 < found["native"][0].max() <= 1
    assert found["native"][0].dtype == torch.float32


def test_pictures_are_reduced_to_a_longer_side(tmp_path: Path) -> None:
    """Boxes go back to the picture's own pixels."""
    Image.new("RGB", (80, 40)).save(tmp_path / "large.png")
    Image.new("RGB", (30, 20)).save(tmp_path / "small.png")
    paths = [str(tmp_path / f"{name}.png") for name in ("large", "small")]
    samples = PredictFiles(paths, None, 3, "native", longest=40)
    (large, source), (small, _) = samples[0], samples[1]
    assert isinstance(source, Source)
    assert large.shape == (3, 20, 40)  # type: ignore[union-attr]
    assert small.shape == (3, 20, 30)  # type: ignore[union-attr]
    assert source.boxes_to_picture(torch.tensor([[10.0, 5, 20, 10]])).tolist() == [[20, 10, 40, 20]]
