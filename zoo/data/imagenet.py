"""ImageNet, the data of the Large Scale Visual Recognition Challenge 2012.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015. Classes are in the order of their
WordNet ids, as everywhere but in the development kit itself. The labelled 50,000 validation images are the test part
here, since the test images' labels were never published; validation is held out of training.
"""

from __future__ import annotations

import gzip
import io
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from zoo.data.base import data_root
from zoo.data.download import unpack, verify
from zoo.data.folder import encoded, labelled_files
from zoo.data.images import IMAGENET_MEAN, IMAGENET_STD, ImageFiles, Part, example_images
from zoo.data.scan import class_folders, pictures_below
from zoo.errors import UserError

DEVKIT = "ILSVRC2012_devkit_t12"
ARCHIVES = {  # MD5 sums as published on image-net.org
    "train": ("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e"),
    "val": ("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622"),
    DEVKIT: (f"{DEVKIT}.tar.gz", "fa75699e90414af021442c21a62c3abf"),
}


class ImageNet(ImageFiles):
    """1.28 million and 50,000 photographs in 1,000 classes.

    It can't be downloaded without an account at image-net.org. Put its archives (``ILSVRC2012_img_train.tar``,
    ``ILSVRC2012_img_val.tar``, ``ILSVRC2012_devkit_t12.tar.gz``) or what they unpack to into the folder:
    ``train/<wnid>/``, and ``val/`` either with one folder per class or flat with the development kit beside it.
    Archives are unpacked.

    Args:
        root: the folder; default: ``imagenet`` in the environment variable ``ZOO_DATA``'s folder, else in ``data``.
        check: accept only the published archives.
        kwargs: as for every data set of picture files.
    """

    native_size = 224
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    licence: ClassVar[str] = "for non-commercial research and education; the photographs are their owners'"
    about: ClassVar[str] = "1,000 classes of photographs, 732 to 1,300 of each to train and 50 to test, of any size"
    may_change: ClassVar[tuple[str, ...]] = ("root", "check")
    example: ClassVar[dict[str, Any]] = {"batch_size": 4, "image_size": 16, "resize": 20}

    def __init__(
        self,
        root: str | None = None,
        check: bool = True,
        crop: Literal["center", "random_resized"] = "center",
        **kwargs: Any,
    ) -> None:
        super().__init__(crop=crop, **kwargs)
        self.root = data_root(root) if root else data_root(None) / "imagenet"
        self.check = check

    # Files

    def prepare_data(self) -> None:
        """Unpack the archives whose folder is missing; on one process only."""
        for folder, (name, md5) in ARCHIVES.items():
            archive = self.root / name
            if self.predicting or not archive.is_file() or (self.root / folder).exists():
                continue
            if self.check:
                verify(archive, md5)
            print(f"ImageNet: unpacking {archive}", file=sys.stderr, flush=True)
            if folder == "train":
                unpack_nested(archive, self.root / folder)
            else:
                unpack(archive, self.root / folder, DEVKIT if folder == DEVKIT else None)

    def labelled(self, part: Part) -> tuple[Any, Tensor] | None:
        """The training images, or, for the test, the labelled validation images."""
        if part == "val":
            return None
        folder = self.root / {"train": "train", "test": "val"}[part]
        if not folder.is_dir():
            raise UserError(
                f"ImageNet: there is no {folder}; get {ARCHIVES[folder.name][0]} from image-net.org "
                f"(it requires an account) and put it into {self.root}"
            )
        wnids, names = self._classes()
        self.class_names = names
        flat = part == "test" and not class_folders(folder)
        source = self._flat(folder, wnids) if flat else labelled_files(folder, wnids)
        return source, source[1]

    def _classes(self) -> tuple[list[str], list[str]]:
        """WordNet ids in order, and the classes' names: the kit's, or timm's for the existing folders."""
        if (self.root / DEVKIT).is_dir():
            words = dict(read_synsets(self.root / DEVKIT).values())
            wnids = sorted(words)
            return wnids, unique_names(wnids, [words[wnid].split(", ")[0] for wnid in wnids])
        from timm.data import ImageNetInfo

        wnids = class_folders(self.root / "train") or class_folders(self.root / "val")
        info = ImageNetInfo()
        known = set(info.label_names())
        first = [info.label_name_to_description(w).split(", ")[0] if w in known else w for w in wnids]
        return wnids, unique_names(wnids, first)

    def _flat(self, folder: Path, wnids: Sequence[str]) -> tuple[list[str], Tensor]:
        paths = pictures_below(folder)
        kit = self.root / DEVKIT
        if not kit.is_dir():
            raise UserError(
                f"ImageNet: {folder} has no class folders, so its labels are in {ARCHIVES[DEVKIT][0]}, "
                f"which {self.root} lacks"
            )
        synsets = read_synsets(kit)
        truth = read_ground_truth(kit)
        if len(truth) != len(paths):
            raise UserError(f"ImageNet: {folder} holds {len(paths)} pictures, {kit} has labels for {len(truth)}")
        place = {wnid: label for label, wnid in enumerate(wnids)}
        return paths, torch.tensor([place[synsets[number][0]] for number in truth])

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """The three archives, with eleven images of each of three classes to train and two to test."""
        wnids = ["n01443537", "n01440764", "n01484850"]  # the kit's order is not the alphabet's
        root.mkdir(parents=True, exist_ok=True)
        words = ["goldfish, Carassius auratus", "tench, Tinca tinca", "great white shark, white shark, man-eater"]
        train = [
            (f"{wnid}.tar", _tar([(f"{wnid}_{n}.JPEG", _jpeg(label, n)) for n in range(11)]))
            for label, wnid in enumerate(wnids)
        ]
        truth = [2, 1, 3, 3, 1, 2]
        val = [(f"ILSVRC2012_val_{n:08}.JPEG", _jpeg(label - 1, n)) for n, label in enumerate(truth, 1)]
        kit = [
            (f"{DEVKIT}/data/meta.mat", _meta(wnids, words)),
            (f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt", "".join(f"{n}\n" for n in truth).encode()),
        ]
        for folder, members in (("train", train), ("val", val), (DEVKIT, kit)):
            name = ARCHIVES[folder][0]
            content = _tar(members)
            (root / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        return {**cls.example, "root": str(root), "check": False}


# The development kit


def read_synsets(kit: Path) -> dict[int, tuple[str, str]]:
    """WordNet id and words of each of the kit's own class numbers; only of classes, not of their parent nodes.

    Raises:
        UserError: the file is missing or damaged.
    """
    from scipy.io import loadmat

    path = kit / "data" / "meta.mat"
    try:
        rows = loadmat(path, squeeze_me=True)["synsets"]
        return {int(r["ILSVRC2012_ID"]): (str(r["WNID"]), str(r["words"])) for r in rows if r["num_children"] == 0}
    except Exception as error:  # scipy raises many types of errors for a damaged file
        raise UserError(f"{path} can't be read as the kit's list of classes: {error}") from error


def read_ground_truth(kit: Path) -> list[int]:
    """The kit's own class number of each validation image, in the order of the files' names.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = kit / "data" / "ILSVRC2012_validation_ground_truth.txt"
    try:
        return [int(line) for line in path.read_text().split()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as class numbers: {error}") from error


def unique_names(wnids: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names, with the id added where two classes have one (crane, maillot)."""
    return [f"{name} ({wnid})" if names.count(name) > 1 else name for wnid, name in zip(wnids, names, strict=True)]


def unpack_nested(archive: Path, folder: Path) -> None:
    """Unpack an archive that holds one archive per class, and only then rename the folder to its final name.

    Raises:
        UserError: one of them is damaged or unsafe.
    """
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with tarfile.open(archive) as outer:
            for member in outer:
                inner = outer.extractfile(member)
                if inner is None:
                    continue
                with tarfile.open(fileobj=inner) as tar:
                    tar.extractall(partial / _class_of(member), filter="data")
        partial.chmod(0o755)
        partial.replace(folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive} can't be unpacked into {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _class_of(member: tarfile.TarInfo) -> str:
    stem = Path(member.name).stem
    if stem.startswith("."):  # also "..", which would unpack beside the folder
        raise tarfile.TarError(f"{member.name} in it does not name a class")
    return stem


# Small files in the data set's own format


def _tar(members: Sequence[tuple[str, bytes]]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


def _jpeg(label: int, number: int) -> bytes:
    return encoded(example_images(torch.tensor([label, 2]), 24 + number, 3)[0], "JPEG")


def _meta(wnids: Sequence[str], words: Sequence[str]) -> bytes:
    """The kit's list: its classes, and one node above them that has these as children."""
    from scipy.io import savemat

    fields = [
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    ]
    rows = [(n, wnid, w, "", 0, np.array([]), 0, 11) for n, (wnid, w) in enumerate(zip(wnids, words, strict=True), 1)]
    rows.append((len(rows) + 1, "n02512053", "fish", "", len(rows), np.arange(1, len(rows) + 1), 1, 0))
    content = io.BytesIO()
    savemat(content, {"synsets": np.array(rows, dtype=[(field, object) for field in fields])[:, None]})
    return content.getvalue()
