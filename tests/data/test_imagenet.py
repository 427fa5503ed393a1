import shutil
import tarfile

import pytest
import torch
from torchvision import datasets

from zoo.data import ImageNet
from zoo.data.imagenet import ARCHIVES, DEVKIT, read_ground_truth, read_synsets, unique_names
from zoo.errors import UserError


@pytest.fixture
def example(tmp_path):
    return ImageNet.write_example(tmp_path)


def make(arguments, stage=None, **more):
    data = ImageNet(**{**arguments, **more})
    data.prepare_data()
    data.setup(stage)
    return data


def files(data, split):
    samples = data.samples(split)
    return {path.rpartition("/")[2]: label for path, label in zip(samples.paths, samples.labels.tolist(), strict=True)}


def test_archives_are_read_as_torchvision_reads_them(example, tmp_path, monkeypatch):
    data = make(example, val_fraction=0)
    other = tmp_path / "torchvision"
    other.mkdir()
    meta = datasets.imagenet.ARCHIVE_META
    for (name, _), key in zip(ARCHIVES.values(), ("train", "val", "devkit"), strict=True):
        shutil.copy(tmp_path / name, other)
        monkeypatch.setitem(meta, key, (name, datasets.utils.calculate_md5(other / name)))
    for split, ours in (("train", "train"), ("val", "test")):
        reference = datasets.ImageNet(other, split)
        assert files(data, ours) == {path.rpartition("/")[2]: label for path, label in reference.samples}
        assert data.facts["class_names"] == [names[0] for names in reference.classes]
    assert meta["val"][0] == ARCHIVES["val"][0]
    by_class = make({**example, "root": str(other)}, "test")  # torchvision has sorted val/ into class folders
    assert files(by_class, "test") == files(data, "test")
    assert by_class.facts["class_names"][0] == "tench"


def test_checksums_are_the_published_ones(example):
    meta = datasets.imagenet.ARCHIVE_META
    assert [ARCHIVES[key] for key in ("train", "val", DEVKIT)] == [meta[key] for key in ("train", "val", "devkit")]
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train.tar is not the published file .* --data.check false"):
        make(example, check=True)


def test_parts(example):
    data = make(example)
    parts = {split: files(data, split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 30, "val": 3, "test": 6}
    assert not parts["train"].keys() & parts["val"].keys()
    assert data.facts["class_counts"] == [10, 10, 10]
    assert data.facts["num_classes"] == 3
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64


def test_the_kit_s_numbers_are_not_the_labels(example, tmp_path):
    make(example)
    synsets = read_synsets(tmp_path / DEVKIT)
    assert {number: wnid for number, (wnid, _) in synsets.items()} == {1: "n01443537", 2: "n01440764", 3: "n01484850"}
    assert read_ground_truth(tmp_path / DEVKIT) == [2, 1, 3, 3, 1, 2]


def test_folders_without_the_kit(example, tmp_path):
    make(example)
    shutil.rmtree(tmp_path / DEVKIT)
    (tmp_path / ARCHIVES[DEVKIT][0]).unlink()
    with pytest.raises(
        UserError, match=r"val has no class folders, so its labels are in ILSVRC2012_devkit_t12\.tar\.gz"
    ):
        make(example, "test")
    data = make(example, "fit")
    assert data.facts["class_names"] == ["tench", "goldfish", "great white shark"]


def test_what_is_missing_is_named(example, tmp_path):
    with pytest.raises(UserError, match=r"no .*/train; get ILSVRC2012_img_train.tar from image-net.org") as caught:
        make({"root": str(tmp_path / "nowhere")}, "fit")
    assert str(tmp_path / "nowhere") in str(caught.value)
    make(example)
    (tmp_path / "val" / "ILSVRC2012_val_00000003.JPEG").unlink()
    with pytest.raises(UserError, match=r"holds 5 pictures, .* has labels for 6"):
        make(example, "test")
    shutil.rmtree(tmp_path / "train" / "n01440764")
    with pytest.raises(UserError, match="train/n01440764 holds no pictures"):
        make(example, "fit")
    (tmp_path / DEVKIT / "data" / "meta.mat").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"meta.mat can't be read as the kit's list of classes: [^\n]+$"):
        make(example, "test")


def test_a_damaged_archive_leaves_nothing_behind(example, tmp_path):
    archive = tmp_path / ARCHIVES["train"][0]
    archive.write_bytes(archive.read_bytes()[:15_000])
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar can't be unpacked"):
        make(example)
    assert not (tmp_path / "train").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_archive_can_not_write_elsewhere(example, tmp_path):
    archive = tmp_path / ARCHIVES["train"][0]
    inner = tmp_path / "x.tar"
    picture = tmp_path / "picture"
    picture.write_bytes(b"x")
    with tarfile.open(inner, "w") as tar:
        tar.add(picture, "good.JPEG")
        tar.add(picture, "../../escaped.JPEG")
    with tarfile.open(archive, "w") as tar:
        tar.add(inner, "../n01440764.tar")
    with pytest.raises(UserError, match="can't be unpacked"):
        make(example)
    assert not (tmp_path.parent / "escaped.JPEG").exists()
    assert not (tmp_path / "escaped.JPEG").exists()
    with tarfile.open(inner, "w") as tar:
        tar.add(picture, "escaped.JPEG")
    with tarfile.open(archive, "w") as tar:
        tar.add(inner, "..")
    with pytest.raises(UserError, match="does not name a class"):
        make(example)
    assert not (tmp_path / "escaped.JPEG").exists()


def test_two_cranes_are_told_apart():
    assert unique_names(["a", "b", "c"], ["crane", "crane", "maillot"]) == ["crane (a)", "crane (b)", "maillot"]


def test_prediction_needs_no_archives(example, tmp_path):
    data = ImageNet(root=str(tmp_path / "nowhere"), files=[str(tmp_path / "x.jpg")])
    data.setup("predict")
    assert data.facts["image_size"] == [224, 224]
