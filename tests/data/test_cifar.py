import pickle

import pytest
import torch
from torchvision import datasets

from zoo.data import CIFAR10, CIFAR100
from zoo.errors import UserError


def torchvisions(cls, root, train):
    class Unchecked(getattr(datasets, cls.__name__)):
        def _check_integrity(self):
            return True

        def _load_meta(self):
            self.classes = pickle.loads((root / self.base_folder / self.meta["filename"]).read_bytes())[
                self.meta["key"]
            ]

    return Unchecked(root, train=train)


@pytest.mark.parametrize("cls", [CIFAR10, CIFAR100])
def test_it_reads_what_torchvision_reads(cls, tmp_path):
    data = cls(**cls.write_example(tmp_path))
    data.setup()
    test = data.samples("test")
    images, labels = test.fetch(torch.arange(len(test)))
    reference = torchvisions(cls, tmp_path, train=False)
    assert torch.equal(images, torch.from_numpy(reference.data).permute(0, 3, 1, 2))
    assert labels.tolist() == reference.targets
    assert list(cls.class_names) == reference.classes
    trained = torchvisions(cls, tmp_path, train=True)
    ours = {split: data.samples(split).fetch(torch.arange(len(data.samples(split)))) for split in ("train", "val")}
    everything = torch.cat([images for images, _ in ours.values()]).permute(0, 2, 3, 1)
    assert sorted(map(bytes, everything.numpy())) == sorted(map(bytes, trained.data))
    assert torch.bincount(ours["val"][1]).tolist() == [1] * len(cls.class_names)
    assert data.facts["num_classes"] == len(set(cls.class_names)) == len(cls.class_names)


@pytest.mark.parametrize("cls", [CIFAR10, CIFAR100])
def test_checksums_are_torchvisions(cls):
    reference = getattr(datasets, cls.__name__)
    assert [[name, md5] for name, md5 in cls.files_md5["train"].items()] == reference.train_list
    assert [[name, md5] for name, md5 in cls.files_md5["test"].items()] == reference.test_list
    (remote,) = cls.remotes
    assert (remote.url, remote.name, remote.md5) == (reference.url, reference.filename, reference.tgz_md5)
    assert cls.folder_name == reference.base_folder


@pytest.mark.parametrize("keys", [str, str.encode])
def test_pickles_of_python_2_and_3_are_read(tmp_path, keys):
    arguments = CIFAR10.write_example(tmp_path)
    path = tmp_path / CIFAR10.folder_name / "test_batch"
    batch = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({keys(key): value for key, value in batch.items()}, protocol=2))
    data = CIFAR10(**arguments)
    data.setup("test")
    assert len(data.samples("test")) == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0]}, "images \\[20, 3072\\] with 1 labels"),
        ({"labels": [10] * 20}, "is damaged"),
        ({"labels": None}, "is not a batch of CIFAR10"),
        ({"data": [0]}, "is not a batch of CIFAR10"),
    ],
)
def test_damaged_batches_are_named(tmp_path, change, message):
    arguments = CIFAR10.write_example(tmp_path)
    path = tmp_path / CIFAR10.folder_name / "test_batch"
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()) | change, protocol=2))
    with pytest.raises(UserError, match=message) as caught:
        CIFAR10(**arguments).setup("test")
    assert str(path) in str(caught.value)


def test_a_batch_that_is_cut_off_is_named(tmp_path):
    arguments = CIFAR10.write_example(tmp_path)
    path = tmp_path / CIFAR10.folder_name / "data_batch_3"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"data_batch_3 can't be read as a batch of images: [^\n]+$"):
        CIFAR10(**arguments).setup("fit")
