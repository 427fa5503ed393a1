"""Flickr8k and Flickr30k: photographs with five captions each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from zoo.data.base import data_root
from zoo.data.caption_files import CaptionFiles, Collector
from zoo.data.caption_readers import read_captions, text_of
from zoo.data.coco_captions import example_captions, karpathy_file, read_karpathy, write_karpathy_example
from zoo.data.example_scenes import example_scene, write_picture
from zoo.data.images import Part
from zoo.data.picture_places import PicturePlaces
from zoo.errors import UserError


class FlickrCaptions(CaptionFiles):
    """Base of both.

    Args:
        root: the folder; default: one of the set's name in the environment variable ``ZOO_DATA``'s folder, else in
            ``data``.
        karpathy: take parts and captions from Karpathy's file, in ``root``.
        kwargs: as for every data set of picture files with captions.

    Attributes:
        folder_name: name of the default folder.
        tables: names of the files with captions, one of which is expected.
        folders: where the pictures may be.
        karpathys: name of Karpathy's file.
        wanted: what is missing where there are no captions, and where it can be had.
    """

    folder_name: ClassVar[str]
    tables: ClassVar[Sequence[str]]
    folders: ClassVar[Sequence[str]]
    karpathys: ClassVar[str]
    wanted: ClassVar[str]
    licence: ClassVar[str] = "for non-commercial research and teaching; the photographs are their owners' (Flickr)"
    example: ClassVar[dict[str, Any]] = {"batch_size": 4, "image_size": 32, "min_count": 1}

    def __init__(self, root: str | None = None, karpathy: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = (data_root(root) if root else data_root(None) / self.folder_name).expanduser()
        self.karpathy = karpathy

    def read(self) -> dict[Part, Collector]:
        """The table of captions with the lists of parts, or Karpathy's file."""
        places = [self.root, *(self.root / name for name in self.folders)]
        if self.karpathy:
            return read_karpathy(karpathy_file(self.root, self.karpathys), places, self.faults)
        path = next((self.root / name for name in self.tables if (self.root / name).is_file()), None)
        if path is None:
            raise UserError(f"{type(self).__name__}: {self.root} has no {self.tables[0]}: {self.wanted}")
        part_of = self.lists()
        parts: tuple[Part, ...] = ("train", "val", "test") if part_of else ("train",)
        found = PicturePlaces(places)
        made = {part: Collector(found, self.faults[part]) for part in parts}
        seen: set[str] = set()
        for entry in read_captions(path, self.faults["train"]):
            seen.add(entry.name)
            part = part_of.get(entry.name) if part_of else "train"
            if part is not None:  # the published table has captions of pictures that are in no list and do not exist
                made[part].add(entry)
        for name in part_of.keys() - seen:
            self.faults[part_of[name]].add(f"{path}: the picture {name}, which a list names, has no captions")
        return made

    def lists(self) -> Mapping[str, Part]:
        """The part of each picture; empty if there are no lists, so that parts are held out."""
        return {}


class Flickr8k(FlickrCaptions):
    """Flickr8k: 6,000 photographs to train, 1,000 for validation and 1,000 for the test, with five captions each.

    Hodosh, Young and Hockenmaier, "Framing Image Description as a Ranking Task", 2013. It is not downloaded: unpack
    ``Flickr8k_text.zip`` (2 MB) and ``Flickr8k_Dataset.zip`` (1 GB) in ``root``, which then has ``Flickr8k.token.txt``,
    ``Flickr_8k.trainImages.txt``, ``Flickr_8k.devImages.txt``, ``Flickr_8k.testImages.txt`` and ``Flicker8k_Dataset/``.
    Kaggle's ``captions.txt`` with ``Images/`` is read, too; without the lists, parts are held out.
    """

    about: ClassVar[str] = "40,000 captions of 8,000 photographs: 6,000 to train, 1,000 to validate, 1,000 to test"
    folder_name: ClassVar[str] = "flickr8k"
    tables: ClassVar[Sequence[str]] = ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt", "captions.txt")
    folders: ClassVar[Sequence[str]] = (
        "Flicker8k_Dataset",
        "Flickr8k_Dataset",
        "Flickr8k_Dataset/Flicker8k_Dataset",
        "Images",
        "images",
    )
    karpathys: ClassVar[str] = "dataset_flickr8k.json"
    wanted: ClassVar[str] = (
        "it is in Flickr8k_text.zip (2 MB); the photographs are in Flickr8k_Dataset.zip (1 GB); both are given on "
        "request at hockenmaier.cs.illinois.edu; put them there, or name their folder by --data.root"
    )

    def lists(self) -> Mapping[str, Part]:
        """The published lists."""
        names: dict[Part, str] = {"train": "trainImages", "val": "devImages", "test": "testImages"}
        found: dict[str, Part] = {}
        for part, name in names.items():
            places = (self.root / folder / f"Flickr_8k.{name}.txt" for folder in ("", "Flickr8k_text"))
            path = next((place for place in places if place.is_file()), None)
            if path is None:
                continue
            for line in filter(None, map(str.strip, text_of(path).splitlines())):
                if found.setdefault(line, part) != part:
                    self.faults[part].add(f"{path}: {line} is in the list of the {found[line]} part, too")
        return found

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Fifteen small photographs with two captions each, in the published layout."""
        names = [f"{number:010}_flickr.jpg" for number in range(15)]
        lines = []
        for number, name in enumerate(names):
            write_picture(root / "Flicker8k_Dataset" / name, example_scene(number))
            lines += [f"{name}#{i}\t{text}\n" for i, text in enumerate(example_captions(number))]
        lines.append("2258277193_586949ec62.jpg.1#0\tpeople waiting for the subway\n")  # as in the published file
        (root / "Flickr8k.token.txt").write_text("".join(lines), encoding="utf-8")
        for part, some in (("train", names[:9]), ("dev", names[9:12]), ("test", names[12:])):
            (root / f"Flickr_8k.{part}Images.txt").write_text("\n".join(some) + "\n")
        return {**cls.example, "root": str(root)}


class Flickr30k(FlickrCaptions):
    """Flickr30k: 31,783 photographs with five captions each; by Karpathy's split 29,000 to train, 1,014 for
    validation and 1,000 for the test.

    Young, Lai, Hodosh and Hockenmaier, "From Image Descriptions to Visual Denotations", 2014. It is not downloaded: put
    ``results_20130124.token`` (or Kaggle's ``results.csv``) and the photographs in ``flickr30k-images`` into ``root``.
    They have no parts: papers use Karpathy's ``dataset_flickr30k.json``; without it, parts are held out.
    """

    about: ClassVar[str] = "158,915 captions of 31,783 photographs; Karpathy's split is of 29,000, 1,014 and 1,000"
    folder_name: ClassVar[str] = "flickr30k"
    tables: ClassVar[Sequence[str]] = ("results_20130124.token", "results.csv", "flickr30k_images/results.csv")
    folders: ClassVar[Sequence[str]] = (
        "flickr30k-images",
        "flickr30k_images",
        "flickr30k_images/flickr30k_images",
        "Images",
        "images",
    )
    karpathys: ClassVar[str] = "dataset_flickr30k.json"
    wanted: ClassVar[str] = (
        "captions and photographs (4 GB) are given on request at hockenmaier.cs.illinois.edu; put them there, or name "
        "their folder by --data.root"
    )

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Fifteen small photographs with two captions each, with Karpathy's file."""
        folder = root / "flickr30k-images"
        names = write_karpathy_example(root / cls.karpathys, folder, "flickr30k", range(15))
        lines = [f"{name}#{i}\t{text}\n" for n, name in enumerate(names) for i, text in enumerate(example_captions(n))]
        (root / "results_20130124.token").write_text("".join(lines), encoding="utf-8")
        return {**cls.example, "root": str(root), "karpathy": True}
