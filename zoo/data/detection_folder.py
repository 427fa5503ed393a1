"""The user's own pictures with boxes or outlines, in any of the usual formats."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from zoo.data.annotations import Annotations, Faults
from zoo.data.base import data_root
from zoo.data.coco import coco_parts
from zoo.data.coco_files import read_coco
from zoo.data.detection_files import DetectionFiles
from zoo.data.example_scenes import example_scene, write_picture
from zoo.data.images import Part
from zoo.data.scan import PARTS as PART_NAMES
from zoo.data.scan import pictures_below
from zoo.data.voc_files import Pair, read_voc
from zoo.data.yolo_files import YoloSet, read_yolo
from zoo.errors import UserError

Format = Literal["coco", "voc", "yolo"]


class DetectionFolder(DetectionFiles):
    """Own pictures with boxes, or with outlines for instance segmentation, in COCO's, VOC's or YOLO's format.

    - ``coco``: JSON files, found as ``CocoDetection`` finds them.
    - ``voc``: an XML file for each picture, beside it, or in ``Annotations`` beside ``JPEGImages`` or ``images``. The
      classes are those that occur in the training part. It has boxes alone.
    - ``yolo``: ``data.yaml`` and a text file for each picture, in ``labels`` in the place of ``images`` or beside it;
      without ``data.yaml``, ``classes.txt`` names the classes. Lines are boxes or polygons.

    Folders ``train``, ``val`` and ``test`` (or ``training``, ``valid``, …) are the parts. Without them, parts are held
    out. A picture without an annotation file has no objects.

    Args:
        root: the folder; default: the environment variable ``ZOO_DATA``, else ``data``.
        format: default: what its files say.
        kwargs: as for every data set of picture files with boxes.
    """

    licence: ClassVar[str] = "your own"
    about: ClassVar[str] = "pictures of any size with boxes or outlines in COCO's, VOC's or YOLO's format"
    example: ClassVar[dict[str, Any]] = {"batch_size": 4, "val_fraction": 0.2}

    def __init__(self, root: str | None = None, format: Format | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.format = data_root(root).expanduser(), format

    def read(self, part: Part, names: Sequence[str] | None, faults: Faults) -> Annotations | None:
        """The part's files, in the format."""
        if not self.root.is_dir():
            raise UserError(f"the folder {self.root} does not exist: give the data's folder by --data.root")
        return {"coco": self._coco, "voc": self._voc, "yolo": self._yolo}[self._format](part, names, faults)

    @cached_property
    def _format(self) -> Format:
        if self.format is not None:
            return self.format
        found = {path.suffix.lower() for path in self.root.glob("*")}
        found |= {path.suffix.lower() for pattern in ("*/*", "*/*/*") for path in self.root.glob(pattern)}
        if {".yaml", ".yml"} & {path.suffix.lower() for path in self.root.glob("*")}:
            return "yolo"
        formats: dict[str, Format] = {".json": "coco", ".xml": "voc", ".txt": "yolo"}
        if (suffix := next((suffix for suffix in formats if suffix in found), None)) is None:
            raise UserError(
                f"{self.root} holds no annotations: expected COCO's JSON, VOC's XML files, or YOLO's text files"
            )
        return formats[suffix]

    def _coco(self, part: Part, names: Sequence[str] | None, faults: Faults) -> Annotations | None:
        found = coco_parts(self.root)
        return read_coco(*found[part], faults, names) if part in found else None

    def _yolo(self, part: Part, names: Sequence[str] | None, faults: Faults) -> Annotations | None:
        yolo = YoloSet(self.root)
        pictures = yolo.pictures(part)
        if pictures is None:
            return None
        for path in (path for path in pictures if not Path(path).is_file()):
            faults.add(f"{path} is missing")
        return read_yolo([path for path in pictures if Path(path).is_file()], yolo.names, faults)

    def _voc(self, part: Part, names: Sequence[str] | None, faults: Faults) -> Annotations | None:
        folders = {one: self._part_folder(one) for one in PART_NAMES}
        lists = self.root / "ImageSets" / "Main"
        wanted = None
        if folders["train"] is not None:
            folder = folders[part]
        else:
            listed = {one: lists / f"{one}.txt" for one in PART_NAMES}
            folder = self.root if part == "train" or listed[part].is_file() else None
            if listed["train"].is_file() and folder:
                wanted = {line.split()[0] for line in listed[part].read_text("utf-8").splitlines() if line.strip()}
        return None if folder is None else read_voc(_pairs(folder, wanted, faults), faults, names)

    def _part_folder(self, part: str) -> Path | None:
        return next((self.root / name for name in PART_NAMES[part] if (self.root / name).is_dir()), None)

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Fifteen pictures with polygons in YOLO's format."""
        for number in range(15):
            scene = example_scene(number)
            height, width = scene.pixels.shape[:2]
            write_picture(root / "images" / f"{number}.png", scene)
            lines = [
                " ".join(map(str, (label, x1 / width, y1 / height, x2 / width, y1 / height, x2 / width, y2 / height,
                                   x1 / width, y2 / height)))
                for label, (x1, y1, x2, y2) in zip(scene.labels, scene.boxes, strict=True)
            ]  # fmt: skip
            (root / "labels").mkdir(exist_ok=True)
            (root / "labels" / f"{number}.txt").write_text("\n".join(lines))
        (root / "data.yaml").write_text("path: .\ntrain: images\nnames: [red, blue]\n")
        return {**cls.example, "root": str(root)}


def _pairs(folder: Path, wanted: set[str] | None, faults: Faults) -> list[Pair]:
    """The pictures of a folder, and the XML file of each; files without a picture are wrong.

    Where the pictures have a folder of VOC's or the usual name, masks in folders beside it are no pictures.
    """
    place = next((folder / name for name in ("JPEGImages", "images") if (folder / name).is_dir()), folder)
    pictures = [path for path in pictures_below(place) if wanted is None or Path(path).stem in wanted]
    files = [path for path in sorted(folder.rglob("*.xml")) if wanted is None or path.stem in wanted]
    beside, by_name = set(files), {path.stem: path for path in files}
    pairs: list[Pair] = []
    for picture in pictures:
        own = Path(picture).with_suffix(".xml")
        pairs.append((picture, own if own in beside else by_name.get(own.stem)))
    for path in sorted(beside - {path for _, path in pairs if path is not None}):
        faults.add(f"{path}: its picture is missing")
    for stem in sorted((wanted or set()) - {Path(picture).stem for picture in pictures} - set(by_name)):
        faults.add(f"{folder}: the picture {stem}, which a list names, is missing")
    return pairs
