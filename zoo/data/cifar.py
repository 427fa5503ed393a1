"""CIFAR-10 and CIFAR-100: photographs of 32x32 pixels.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from zoo.data.download import PublishedImages, Remote, fetch, unpack
from zoo.data.images import Part, example_images
from zoo.errors import UserError

_HOST = "https://www.cs.toronto.edu/~kriz"
_BYTES = 3 * 32 * 32
_FINE_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
    dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
    leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
    otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
    road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""


class CIFAR10(PublishedImages):
    """50,000 and 10,000 photographs in ten classes, as the pickled batches in ``cifar-10-batches-py``.

    The files are read without running what a pickle could hold.
    """

    native_size = 32
    class_names: Sequence[str] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the 50,000
    folder_name = "cifar-10-batches-py"
    licence = "none stated by its authors, who ask to cite the report"
    about = "10 classes of photographs, 5,000 of each to train and 1,000 to test, 32x32 colour"
    example: ClassVar[dict[str, Any]] = {"batch_size": 8}
    remotes = (Remote(f"{_HOST}/cifar-10-python.tar.gz", 170498071, "c58f30108f718f92721af3b95e74349a"),)
    files_md5: ClassVar[dict[Part, dict[str, str]]] = {
        "train": {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
    }
    labels_key: ClassVar[str] = "labels"
    meta: ClassVar[tuple[str, str]] = ("batches.meta", "label_names")

    def missing(self) -> list[str]:
        """Names of missing batches."""
        return [name for part in self.files_md5.values() for name in part if not (self.folder / name).is_file()]

    def obtain(self) -> None:
        """Download the archive, if requested and missing, and unpack it."""
        (remote,) = self.remotes
        archive = self.folder.parent / remote.name
        if archive.is_file():
            self.verified(archive, remote.md5)
        elif self.download:
            fetch(remote, archive.parent, type(self).__name__, self.licence)
        if archive.is_file() and not self.folder.exists():
            unpack(archive, self.folder, self.folder_name)

    def read(self, part: Part) -> tuple[Tensor, Tensor]:
        """The part's batches, one after the other."""
        self.refuse_missing()
        batches = [self._batch(self.verified(self.folder / n, md5)) for n, md5 in self.files_md5[part].items()]
        images, labels = zip(*batches, strict=True)
        return torch.cat(images), torch.cat(labels)

    def _batch(self, path: Path) -> tuple[Tensor, Tensor]:
        content = read_pickle(path)
        data, labels = content.get("data"), content.get(self.labels_key)
        if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and isinstance(labels, list)):
            raise UserError(
                f"{path} is not a batch of {type(self).__name__}: bytes in 'data' and a list in '{self.labels_key}'"
            )
        if data.shape != (len(labels), _BYTES) or not all(0 <= n < len(self.class_names) for n in labels):
            raise UserError(f"{path} is damaged: images {list(data.shape)} with {len(labels)} labels")
        return torch.from_numpy(data).view(-1, 3, 32, 32), torch.tensor(labels)

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Four images per class to train and two to test, in the data set's own format."""
        folder = root / cls.folder_name
        folder.mkdir(parents=True, exist_ok=True)
        classes = len(cls.class_names)
        for part, files in cls.files_md5.items():
            each = 4 if part == "train" else 2
            for number, (name, rows) in enumerate(_shares(list(files), each * classes)):
                labels = rows % classes
                data = example_images(labels, 32, 3, seed=10 * each + number).flatten(1).numpy()
                batch = {"batch_label": f"batch {number}", cls.labels_key: labels.tolist(), "data": data}
                (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        file, key = cls.meta
        (folder / file).write_bytes(pickle.dumps({key: list(cls.class_names)}, protocol=2))
        return {**cls.example, "root": str(root), "check": False, "val_fraction": 0.25}


class CIFAR100(CIFAR10):
    """50,000 and 10,000 photographs in a hundred classes (the fine labels), as pickles in ``cifar-100-python``."""

    class_names = tuple(_FINE_CLASSES.split())
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # of the 50,000
    folder_name = "cifar-100-python"
    about = "100 classes of photographs, 500 of each to train and 100 to test, 32x32 colour"
    remotes = (Remote(f"{_HOST}/cifar-100-python.tar.gz", 169001437, "eb9058c3a382ffc7106e4002c42a8d85"),)
    files_md5: ClassVar[dict[Part, dict[str, str]]] = {
        "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
        "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    }
    labels_key = "fine_labels"
    meta = ("meta", "fine_label_names")


def _shares(names: list[str], count: int) -> list[tuple[str, Tensor]]:
    return list(zip(names, torch.arange(count).tensor_split(len(names)), strict=True))


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 pickles bytes for Python 2; no other codec is looked up."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding}")
    return codecs.encode(text, "latin1")


_RECONSTRUCT: Any = np.ndarray(0, np.uint8).__reduce__()[0]  # its module differs between numpy versions


class _ArraysOnly(pickle.Unpickler):
    """Reads dictionaries, lists, numbers, text and arrays of bytes; anything else is refused, and no code is run."""

    allowed: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it would import {module}.{name}")
        return self.allowed[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """A pickled dictionary of plain values and arrays; byte strings among its keys as text.

    Raises:
        UserError: the file is damaged, or contains anything else.
    """
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
        return {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(f"{path} can't be read as a batch of images: {error or type(error).__name__}") from error
