"""Own pictures with a folder of masks, and PASCAL VOC's masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from zoo.data.annotations import Faults
from zoo.data.base import data_root
from zoo.data.example_scenes import example_scene, write_picture
from zoo.data.images import Part
from zoo.data.mask_files import MaskTable, Value
from zoo.data.picture_places import PicturePlaces
from zoo.data.scan import PARTS as PART_NAMES
from zoo.data.scan import pictures_below
from zoo.data.segmentation_files import Pairs, SegmentationFiles
from zoo.data.voc import LICENCE, voc_list, write_voc_example
from zoo.data.voc_files import VOC_CLASSES
from zoo.errors import UserError


class MaskFolder(SegmentationFiles):
    """Own pictures with a class for each pixel: a folder of pictures and one of masks of the same names.

    They are ``images`` and ``masks`` in ``root``. If ``images`` has folders ``train`` (and ``val``, ``test``), or
    ``root`` has such folders with ``images`` and ``masks`` in each, these are the parts. Without them, parts are held
    out. Masks are indexed or grey pictures, whose values are the classes, or coloured ones.

    Args:
        root: the folder; default: the environment variable ``ZOO_DATA``, else ``data``.
        table: of each class the value of its pixels, or their red, green and blue. Default: ``classes.txt`` in
            ``root``, which names the classes from value 0 on, one per line.
        ignored: values or colours of pixels that are ignored, unless the table has them.
        images: name of the pictures' folder.
        masks: name of the masks' folder.
        kwargs: as for every data set of pictures with masks.
    """

    licence: ClassVar[str] = "your own"
    about: ClassVar[str] = "pictures of any size with indexed, grey or coloured masks"
    example: ClassVar[dict[str, Any]] = {"batch_size": 4, "image_size": 32, "val_fraction": 0.2}

    def __init__(
        self,
        root: str | None = None,
        table: dict[str, int | list[int]] | None = None,
        ignored: list[int | list[int]] | None = None,
        images: str = "images",
        masks: str = "masks",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root, self.values = data_root(root).expanduser(), table
        self.ignored: list[Value] = [255] if ignored is None else list(ignored)
        self.images, self.masks = images, masks

    def table(self) -> MaskTable:
        """The given one, or that of ``classes.txt``."""
        if self.values is not None:
            return MaskTable(self.values, self.ignored)
        path = self.root / "classes.txt"
        if not path.is_file():
            raise UserError(
                f"{self.root} has no classes.txt: name the classes by data.table, as {{background: 0, road: 1}}"
            )
        names = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
        return MaskTable({name: value for value, name in enumerate(names)}, self.ignored)

    def pairs(self, part: Part, faults: Faults) -> Pairs | None:
        """The pictures of a part, and the mask of the same name for each."""
        folders = self._folders(part)
        if folders is None:
            return None
        images, masks = folders
        made, known = list[tuple[str, str]](), _by_name(masks)
        for picture in pictures_below(images):
            name = Path(picture).relative_to(images).with_suffix("").as_posix()
            if (mask := known.pop(name, None)) is None:
                faults.add(f"{picture}: there is no mask {masks / name}.png")
            else:
                made.append((picture, mask))
        for mask in known.values():
            faults.add(f"{mask}: there is no picture of this name in {images}")
        return made

    def _folders(self, part: Part) -> tuple[Path, Path] | None:
        images, masks = self.root / self.images, self.root / self.masks
        parted = any((images / name).is_dir() for name in PART_NAMES["train"])
        for name in PART_NAMES[part]:
            if parted and (images / name).is_dir():
                return images / name, masks / name
            if (self.root / name / self.images).is_dir():
                return self.root / name / self.images, self.root / name / self.masks
        if part != "train":
            return None
        for folder in (images, masks):
            if not folder.is_dir():
                raise UserError(f"there is no folder {folder}: expected pictures in {images}, their masks in {masks}")
        return images, masks

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Some pictures with indexed masks."""
        (root / "masks").mkdir(parents=True)
        for number in range(17):
            scene = example_scene(number)
            write_picture(root / "images" / f"{number}.jpg", scene)
            Image.fromarray(scene.classes).save(root / "masks" / f"{number}.png")
        (root / "classes.txt").write_text("background\nred\nblue\n")
        return {**cls.example, "root": str(root)}


def _by_name(folder: Path) -> dict[str, str]:
    """Masks by their path below the folder without its ending; ``_mask`` at the end of a name is left out."""
    names = ((path, Path(path).relative_to(folder).with_suffix("").as_posix()) for path in pictures_below(folder))
    return {name.removesuffix("_mask"): path for path, name in names}


class VOCSegmentation(SegmentationFiles):
    """PASCAL VOC: 20 classes and background for each pixel; the contours of objects are ignored.

    It is not downloaded: unpack ``VOCtrainval_11-May-2012.tar`` (2 GB, host.robots.ox.ac.uk/pascal/VOC) in ``root``,
    which then has ``VOCdevkit/VOC2012``.

    Args:
        root: holds the folder ``VOCdevkit``; default: the environment variable ``ZOO_DATA``, else ``data``.
        train: sets to train on, each a year and the name of a list in ``ImageSets/Segmentation``.
        val: sets for validation; default: a part is held out of training.
        test: sets for the test.
        kwargs: as for every data set of pictures with masks.
    """

    licence: ClassVar[str] = LICENCE
    about: ClassVar[str] = "20 classes and background by pixel, 1,464 photographs to train and 1,449 to test (2012)"
    example: ClassVar[dict[str, Any]] = {"batch_size": 4, "image_size": 32, "val_fraction": 0.2}

    def __init__(
        self,
        root: str | None = None,
        train: Sequence[str] = ("2012/train",),
        val: Sequence[str] = (),
        test: Sequence[str] = ("2012/val",),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = data_root(root).expanduser()
        self.sets: dict[str, Sequence[str]] = {"train": train, "val": val, "test": test}

    def table(self) -> MaskTable:
        """Background is 0, then the classes; contours are 255."""
        return MaskTable({name: value for value, name in enumerate(("background", *VOC_CLASSES))})

    def pairs(self, part: Part, faults: Faults) -> Pairs | None:
        """The pictures and masks of the part's sets."""
        made: Pairs = []
        for name in self.sets[part]:
            folder, ids = voc_list(self.root, name, "Segmentation")
            places = PicturePlaces([folder])
            for one in ids:
                wanted = f"JPEGImages/{one}.jpg", f"SegmentationClass/{one}.png"
                found = [places.find(file) for file in wanted]
                for file in (file for file, path in zip(wanted, found, strict=True) if path is None):
                    faults.add(f"{name}: the file {folder / file} is missing")
                if found[0] is not None and found[1] is not None:
                    made.append((found[0], found[1]))
        return made if self.sets[part] else None

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Ten small photographs with masks to train on and five for the test."""
        folder = root / "VOCdevkit" / "VOC2012"
        (folder / "SegmentationClass").mkdir(parents=True)
        for name, numbers in (("train", range(10)), ("val", range(10, 15))):
            write_voc_example(folder, name, numbers, "Segmentation")
            for number in numbers:
                classes = np.array([0, 7, 12, 255], np.uint8)[example_scene(number).classes]  # car, dog
                classes[0] = 255
                mask = Image.fromarray(classes, "P")
                mask.putpalette([*range(256)] * 3)
                mask.save(folder / "SegmentationClass" / f"2012_{number:06}.png")
        return {**cls.example, "root": str(root)}
