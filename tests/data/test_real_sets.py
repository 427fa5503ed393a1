"""The real sets, where ``ZOO_DATA`` has them: what each class says of itself must be true of its files."""

import os
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from torchvision import datasets

from zoo.data import CIFAR10, CIFAR100, MNIST, CocoDetection, FashionMNIST, ImageFolder, ImageNet
from zoo.data.transforms import mean_and_std
from zoo.errors import UserError

pytestmark = pytest.mark.data


def root_of(folder):
    root = os.environ.get("ZOO_DATA")
    if not root or not (Path(root) / folder).is_dir():
        pytest.skip(f"no {folder} below ZOO_DATA")
    return root


def make(cls, **arguments):
    data = cls(root=root_of(getattr(cls, "folder_name", "imagenet")), val_fraction=0, **arguments)
    data.setup()
    return data


def rows(data, split):
    samples = data.samples(split)
    return samples.fetch(torch.arange(len(samples)))


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
def test_mnist(cls):
    data = make(cls)
    images, labels = rows(data, "train")
    reference = getattr(datasets, cls.__name__)(root_of(cls.folder_name))
    assert torch.equal(images[:, 0], reference.data)
    assert torch.equal(labels, reference.targets)
    counts = [torch.bincount(rows(data, split)[1]) for split in ("train", "test")]
    assert [int(count.sum()) for count in counts] == [60_000, 10_000]
    least_and_most = [f"{int(n):,}" for count in counts for n in (count.min(), count.max())]
    assert all(number in cls.about for number in least_and_most), least_and_most
    mean, std = mean_and_std(images)
    assert mean == pytest.approx(cls.mean, abs=1e-4)
    assert std == pytest.approx(cls.std, abs=1e-4)


@pytest.mark.parametrize(("cls", "each"), [(CIFAR10, (5000, 1000)), (CIFAR100, (500, 100))])
def test_cifar(cls, each):
    data = make(cls, check=False)
    for split, count in zip(("train", "test"), each, strict=True):
        assert set(torch.bincount(rows(data, split)[1]).tolist()) == {count}
        assert f"{count:,} " in cls.about
    mean, std = mean_and_std(rows(data, "train")[0])
    published = is_published(cls)
    tolerance = 1e-4 if published else 3e-3  # re-encoded pictures come close
    assert mean == pytest.approx(cls.mean, abs=tolerance)
    assert std == pytest.approx(cls.std, abs=tolerance)


def is_published(cls):
    try:
        cls(root=root_of(cls.folder_name)).setup()
    except UserError as error:
        assert "--data.check false" in str(error)  # noqa: PT017
        return False
    return True


def test_imagenet():
    data = ImageNet(root=str(Path(root_of("imagenet")) / "imagenet"), val_fraction=0)
    data.prepare_data()
    data.setup()
    assert len(data.samples("train")) == 1_281_167
    assert len(data.samples("test")) == 50_000
    assert set(torch.bincount(data.samples("test").labels).tolist()) == {50}
    counts = torch.tensor(data.facts["class_counts"])
    assert (counts.min(), counts.max()) == (732, 1300)
    assert data.facts["class_names"][:2] == ["tench", "goldfish"]


def test_one_photograph_of_each_imagenet_class():
    folder = Path(root_of("imagenet-sample")) / "imagenet-sample"
    data = ImageFolder(root=str(folder), val_fraction=0, test_fraction=0, resize=256, batch_size=100, num_workers=2)
    data.setup()
    assert data.facts["num_classes"] == 1000
    assert data.facts["class_names"] == sorted(path.name for path in folder.iterdir() if path.is_dir())
    mean = torch.stack([images.float().mean((0, 2, 3)) for images, _ in data.train_dataloader()]).mean(0) / 255
    assert mean.tolist() == pytest.approx(data.mean, abs=0.03)


def test_the_first_photographs_of_coco():
    folder = Path(root_of("coco128")) / "coco128"
    data = CocoDetection(root=str(folder), val_fraction=0, test_fraction=0, augment=[])
    data.setup("fit")
    samples = data.samples("train")
    reference = COCO(str(folder / "annotations" / "instances_train2017.json"))
    number = {Path(one["file_name"]).stem: key for key, one in reference.imgs.items()}
    objects, crowds, without = 0, 0, 0
    for index in range(len(samples)):
        image, target = samples[index]
        wanted = reference.imgToAnns[number[Path(samples.path(index)).stem]]
        assert [data.class_names[label] for label in target["labels"]] == [
            reference.cats[one["category_id"]]["name"] for one in wanted
        ]
        for mask, one in zip(target["masks"], wanted, strict=True):
            assert torch.equal(mask, torch.from_numpy(reference.annToMask(one)).bool())
        assert target["masks"].shape[1:] == image.shape[1:]
        objects, crowds = objects + len(wanted), crowds + int(target["iscrowd"].sum())
        without += not wanted
    assert (len(samples), objects, crowds, without) == (128, 939, 10, 2)
