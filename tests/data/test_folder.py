import shutil

import pytest
import torch
from torchvision import datasets
from torchvision.transforms import v2

from zoo.data import ImageFolder
from zoo.data.transforms import CropEach, PCAColor
from zoo.errors import UserError


@pytest.fixture
def photos(tmp_path):
    ImageFolder.write_example(tmp_path)
    return tmp_path


def make(root, **arguments):
    data = ImageFolder(root=str(root), **{"image_size": 16, "resize": 20, **arguments})
    data.setup()
    return data


def files(data, split):
    samples = data.samples(split)
    return dict(zip(samples.paths, samples.labels.tolist(), strict=True))


def test_parts_of_a_plain_folder_are_fixed_and_disjoint(photos):
    data = make(photos)
    parts = {split: files(data, split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 14, "val": 2, "test": 4}
    reference = dict(datasets.ImageFolder(str(photos)).samples)
    assert parts["train"] | parts["val"] | parts["test"] == reference
    assert sum(map(len, parts.values())) == len(reference)
    other = make(photos, split_seed=1)
    assert files(other, "test") == parts["test"]
    assert files(other, "val") != parts["val"]
    assert data.facts["class_names"] == ["circle", "square"]
    assert data.facts["class_counts"] == [7, 7]
    without = make(photos, test_fraction=0, val_fraction=0)
    assert without.samples("test") is without.samples("val") is None
    assert len(without.samples("train")) == 20


def ready(photos, *parts):
    for part in parts:
        for name in ("circle", "square"):
            (photos / "split" / part / name).mkdir(parents=True)
            for number in {"train": range(6), "val": range(6, 8), "test": range(8, 10)}[part]:
                shutil.copy(photos / name / f"{number}.png", photos / "split" / part / name)
    return photos / "split"


def test_a_ready_split_is_kept(photos):
    root = ready(photos, "train", "val", "test")
    data = make(root)
    assert {split: len(files(data, split)) for split in ("train", "val", "test")} == {"train": 12, "val": 4, "test": 4}
    assert all(path.startswith(str(root / "val")) for path in files(data, "val"))


def test_what_a_ready_split_lacks(photos):
    data = make(ready(photos, "train"), val_fraction=0.34)
    assert data.samples("test") is None
    assert len(data.samples("val")) == 4
    assert data.facts["class_counts"] == [4, 4]


def test_other_files_and_hidden_ones_are_left_out(photos):
    (photos / "circle" / "notes.txt").write_text("mine")
    (photos / "circle" / ".hidden.png").write_bytes(b"")
    (photos / ".cache").mkdir()
    (photos / "square" / "deeper").mkdir()
    shutil.move(photos / "square" / "3.png", photos / "square" / "deeper" / "THREE.PNG")
    data = make(photos, test_fraction=0, val_fraction=0)
    assert len(data.samples("train")) == 20
    assert data.facts["num_classes"] == 2


def test_mistakes_are_one_line(photos):
    (photos / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no pictures"):
        make(photos)
    root = ready(photos, "train", "val")
    shutil.rmtree(root / "val" / "circle")
    with pytest.raises(UserError, match="val/circle holds no pictures: every class needs some in every part"):
        make(root)
    (root / "val" / "triangle").mkdir()
    with pytest.raises(UserError, match="val/triangle is a class that the training part does not have"):
        make(root)
    with pytest.raises(UserError, match="holds 0 folders"):
        make(photos / "nowhere")
    with pytest.raises(UserError, match="test_fraction must be"):
        ImageFolder(test_fraction=1.0)
    shutil.rmtree(photos / "empty")
    shutil.rmtree(photos / "split")
    with pytest.raises(UserError, match=r"test_fraction: 0\.01 of 20 images is none"):
        make(photos, test_fraction=0.01)


def test_sizes_of_batches(photos):
    plain = make(photos)
    images, labels = plain.augmented(*next(iter(plain.train_dataloader())))
    assert images.shape[1:] == (3, 16, 16)
    assert labels.dtype == torch.int64
    assert plain.samples("train")[0][0].shape == (3, 16, 16)
    assert plain.samples("val")[0][0].shape == (3, 20, 20)
    cropping = make(photos, augment=[CropEach])
    assert cropping.samples("train")[0][0].shape == (3, 20, 20)
    assert cropping.augmented(*next(iter(cropping.train_dataloader())))[0].shape[1:] == (3, 16, 16)


def test_random_resized_crops_differ_by_epoch_and_not_by_workers(photos):
    data = make(photos, crop="random_resized", batch_size=20)
    assert data.samples("train")[0][0].shape == (3, 16, 16)
    first, again = (next(iter(data.train_dataloader()))[0] for _ in range(2))
    assert torch.equal(first, again)
    whole = make(photos, batch_size=20)
    assert not torch.equal(first, next(iter(whole.train_dataloader()))[0])
    assert torch.equal(data.samples("val")[0][0], whole.samples("val")[0][0])
    workers = make(photos, crop="random_resized", batch_size=20, num_workers=2)
    assert torch.equal(first, next(iter(workers.train_dataloader()))[0])


def test_evaluation_pictures_are_torchvisions(photos):
    data = make(photos)
    transform = v2.Compose([v2.PILToTensor(), v2.Resize(20, antialias=True), v2.CenterCrop(20)])
    reference = datasets.ImageFolder(str(photos), transform)
    for (path, _), (expected, _) in zip(reference.samples, reference, strict=True):
        if path in files(data, "test"):
            index = data.samples("test").paths.index(path)
            assert (data.samples("test")[index][0].int() - expected.int()).abs().max() <= 1


def test_grey_and_colour_components(photos):
    data = make(photos, in_channels=1, mirror=False, augment=[PCAColor])
    assert data.facts["in_channels"] == len(data.facts["mean"]) == len(data.facts["std"]) == 1
    assert data.facts["mirror"] is False
    assert data.augmented(*next(iter(data.train_dataloader())))[0].shape[1:] == (1, 16, 16)
    reference = PCAColor()
    reference.fit(torch.stack([data.samples("train")[i][0] for i in range(14)]))
    assert torch.equal(data.augmentation.transforms[0].axes, reference.axes)
