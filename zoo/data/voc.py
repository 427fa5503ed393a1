"""PASCAL VOC, in the layout in which torchvision has it: ``VOCdevkit/VOC<year>/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from zoo.data.annotations import Annotations, Faults
from zoo.data.base import data_root
from zoo.data.detection_files import DetectionFiles
from zoo.data.example_scenes import example_scene, write_picture
from zoo.data.images import Part
from zoo.data.picture_places import PicturePlaces
from zoo.data.voc_files import VOC_CLASSES, Pair, read_voc
from zoo.errors import UserError

LICENCE = "the photographs are their owners' (Flickr); for research"


class VOCDetection(DetectionFiles):
    """PASCAL VOC: boxes of 20 classes in photographs.

    It is not downloaded: unpack ``VOCtrainval_06-Nov-2007.tar``, ``VOCtest_06-Nov-2007.tar`` and
    ``VOCtrainval_11-May-2012.tar`` from host.robots.ox.ac.uk/pascal/VOC (3 GB) in ``root``, which then has
    ``VOCdevkit/VOC2007`` and ``VOCdevkit/VOC2012``. Objects marked as difficult are ignored, as the challenge does.

    Args:
        root: holds the folder ``VOCdevkit``; default: the environment variable ``ZOO_DATA``, else ``data``.
        train: sets to train on, each a year and the name of a list in ``ImageSets/Main``.
        val: sets for validation; default: a part is held out of training.
        test: sets for the test.
        kwargs: as for every data set of picture files with boxes.
    """

    batch: ClassVar[str] = "detection"
    licence: ClassVar[str] = LICENCE
    about: ClassVar[str] = "20 classes, 47,223 objects in 16,551 photographs to train (2007 and 2012), 4,952 to test"
    example: ClassVar[dict[str, Any]] = {"batch_size": 4, "val_fraction": 0.2}

    def __init__(
        self,
        root: str | None = None,
        train: Sequence[str] = ("2007/trainval", "2012/trainval"),
        val: Sequence[str] = (),
        test: Sequence[str] = ("2007/test",),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = data_root(root).expanduser()
        self.sets: dict[str, Sequence[str]] = {"train": train, "val": val, "test": test}

    def read(self, part: Part, names: Sequence[str] | None, faults: Faults) -> Annotations | None:
        """The XML files of the part's sets."""
        pairs: list[Pair] = []
        for name in self.sets[part]:
            folder, ids = voc_list(self.root, name, "Main")
            places = PicturePlaces([folder / "JPEGImages"])
            for one in ids:
                if (picture := places.find(f"{one}.jpg")) is None:
                    faults.add(f"{name}: the picture {places.expected(f'{one}.jpg')} is missing")
                else:
                    pairs.append((picture, folder / "Annotations" / f"{one}.xml"))
        return read_voc(pairs, faults, VOC_CLASSES) if self.sets[part] else None

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Ten small photographs to train on and five for the test."""
        folder = root / "VOCdevkit" / "VOC2012"
        for name, numbers in (("train", range(10)), ("val", range(10, 15))):
            write_voc_example(folder, name, numbers)
        return {**cls.example, "root": str(root), "train": ["2012/train"], "test": ["2012/val"]}


def voc_list(root: Path, name: str, kind: str) -> tuple[Path, list[str]]:
    """A year's folder, and the ids of the pictures of a list.

    Args:
        root: holds ``VOCdevkit``.
        name: year and list, as ``2012/train``.
        kind: folder in ``ImageSets``.

    Raises:
        UserError: there is no such list.
    """
    year, _, which = name.partition("/")
    if not year.isdigit() or not which:
        raise UserError(f"VOC has sets such as 2012/train (a year and the name of a list), not {name}")
    folder = root / "VOCdevkit" / f"VOC{year}"
    path = folder / "ImageSets" / kind / f"{which}.txt"
    if not path.is_file():
        raise UserError(
            f"VOC: there is no {path}: unpack VOC {year} from host.robots.ox.ac.uk/pascal/VOC in {root}, or name "
            "another folder by --data.root"
        )
    return folder, [line.split()[0] for line in path.read_text("utf-8").splitlines() if line.strip()]


def write_voc_example(folder: Path, name: str, numbers: Sequence[int], kind: str = "Main") -> None:
    """Scenes as photographs, XML files, and a list of them; every fourth object is difficult."""
    for number in numbers:
        scene = example_scene(number)
        write_picture(folder / "JPEGImages" / f"2012_{number:06}.jpg", scene)
        objects = "".join(
            f"<object><name>{('car', 'dog')[label]}</name><difficult>{int(number % 4 == 3)}</difficult><bndbox>"
            f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for label, (x1, y1, x2, y2) in zip(scene.labels, scene.boxes, strict=True)
        )
        height, width = scene.pixels.shape[:2]
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        path = folder / "Annotations" / f"2012_{number:06}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{size}{objects}</annotation>")
    names = folder / "ImageSets" / kind / f"{name}.txt"
    names.parent.mkdir(parents=True, exist_ok=True)
    names.write_text("".join(f"2012_{number:06}\n" for number in numbers))
