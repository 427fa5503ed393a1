"""COCO's captions, with the split of its authors or of Karpathy, and captions made of its instances."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo.data.annotations import Annotations, Faults
from zoo.data.base import data_root
from zoo.data.caption_files import CaptionFiles, Collector
from zoo.data.caption_readers import Entry, read_captions
from zoo.data.coco import OTHERS, coco_parts, write_coco_example
from zoo.data.coco_files import read_coco
from zoo.data.example_scenes import example_scene, write_picture
from zoo.data.images import Part
from zoo.data.part_files import PARTS, Sought, part_files
from zoo.data.picture_places import PicturePlaces
from zoo.errors import UserError
from zoo.functional.counting import counting_sentences

CAPTIONS = Sought(
    "annotations",
    "captions",
    ("instances", "dataset_", *(kind for kind in OTHERS if kind != "captions")),
    published="annotations/captions_train2017.json",
)
KARPATHY: dict[str, Part] = {"train": "train", "restval": "train", "val": "val", "test": "test"}
KINDS = 4  # kinds of things that a sentence made of instances counts


class CocoCaptions(CaptionFiles):
    """COCO's captions: 5 for each of 118,287 photographs to train and 5,000 to test (2017), or those of 2014.

    The published files are expected in ``root`` as ``annotations/captions_train2017.json``,
    ``annotations/captions_val2017.json``, ``train2017/`` and ``val2017/``. They are not downloaded (19 GB, from
    cocodataset.org). The test part is val2017, since the published test has no annotations; validation is held out of
    training. Own files in COCO's format are found as for ``CocoDetection``.

    Papers on captioning state results for Karpathy's split of the pictures of 2014 (113,287 to train, 5,000 and 5,000).

    Args:
        root: the folder; default: ``coco`` in the environment variable ``ZOO_DATA``'s folder, else in ``data``.
        annotations: JSON file of all pictures, or of each part (``train``, ``val``, ``test``), below ``root`` or not.
        karpathy: take parts and captions from Karpathy's ``dataset_coco.json``, in ``root`` or ``annotations``. The
            pictures may be those of 2014 or 2017, which are the same under other names.
        instances: make captions of annotated objects (``instances_*.json``), as "two dogs and a frisbee": at most four
            kinds of things in a sentence, those that cover most first. Pictures without objects are left out.
        kwargs: as for every data set of picture files with captions.
    """

    licence: ClassVar[str] = "annotations CC BY 4.0 (COCO Consortium); the photographs are their owners' (Flickr)"
    about: ClassVar[str] = "616,767 captions of 123,287 photographs: 118,287 to train, 5,000 to test"
    example: ClassVar[dict[str, Any]] = {"batch_size": 4, "image_size": 32, "val_fraction": 0.2, "min_count": 1}

    def __init__(
        self,
        root: str | None = None,
        annotations: str | dict[str, str] | None = None,
        karpathy: bool = False,
        instances: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if karpathy and (instances or annotations is not None):
            raise UserError(
                "data.karpathy names its own file: give neither data.instances nor data.annotations with it"
            )
        self.root = (data_root(root) if root else data_root(None) / "coco").expanduser()
        self.annotations, self.karpathy, self.instances = annotations, karpathy, instances

    def read(self) -> dict[Part, Collector]:
        """JSON files of the parts, or Karpathy's."""
        if self.karpathy:
            path = karpathy_file(self.root, "dataset_coco.json")
            return read_karpathy(path, coco_folders(self.root), self.faults)
        if self.instances:
            return self._of_instances()
        made: dict[Part, Collector] = {}
        for part, (path, folders) in part_files(self.root, CAPTIONS, self.annotations).items():
            made[part] = Collector(PicturePlaces(folders), self.faults[part])
            for entry in read_captions(path, self.faults[part]):
                made[part].add(entry)
        return made

    def _of_instances(self) -> dict[Part, Collector]:
        made: dict[Part, Collector] = {}
        names: Sequence[str] | None = None
        for part, (path, folders) in coco_parts(self.root, self.annotations).items():
            known = read_coco(path, folders, self.faults[part], names)
            names = known.names if part == "train" else names
            made[part] = Collector(PicturePlaces(folders), self.faults[part])
            for entry in counting_entries(known):
                made[part].add(entry)
        return made

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Ten small photographs with two captions each to train on and five for the test, in the published layout."""
        for part, numbers in (("train2017", range(10)), ("val2017", range(10, 15))):
            write_coco_example(root / "annotations" / f"instances_{part}.json", root / part, numbers)
            write_captions_example(root / "annotations" / f"captions_{part}.json", numbers)
        return {**cls.example, "root": str(root)}


def counting_entries(known: Annotations) -> Iterator[Entry]:
    """For each picture sentences that count its objects; none where it has no objects."""
    boxes = known.boxes
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for row, path in enumerate(known.paths):
        objects = known.of(row)
        labels, crowd, covered = known.labels[objects], known.crowd[objects], areas[objects]
        kinds = np.unique(labels)
        kinds = kinds[np.argsort([-covered[labels == kind].sum() for kind in kinds], kind="stable")][:KINDS]
        things = [(known.names[kind], int((labels == kind).sum()), bool(crowd[labels == kind].any())) for kind in kinds]
        yield Entry(str(Path(path).absolute()), counting_sentences(things) if things else [], path)


def coco_folders(root: Path) -> list[Path]:
    """Where COCO's photographs of 2014 and 2017 may be."""
    names = ("train2014", "val2014", "train2017", "val2017")
    return [root, *(place / name for place in (root, root / "images") for name in names), root / "images"]


def karpathy_file(root: Path, name: str) -> Path:
    """Karpathy's file in a folder or its usual folders.

    Raises:
        UserError: it is in none of them.
    """
    for place in (root, root / "annotations", root / "karpathy", root / "caption_datasets"):
        if (place / name).is_file():
            return place / name
    raise UserError(
        f"there is no {root / name}: Karpathy's split is in caption_datasets.zip (36 MB, "
        "cs.stanford.edu/people/karpathy/deepimagesent); put the file there"
    )


def read_karpathy(path: Path, folders: Sequence[Path], faults: dict[str, Faults]) -> dict[Part, Collector]:
    """The parts of a file of Karpathy's; the captions that COCO calls ``restval`` are for training.

    Args:
        path: the file.
        folders: the pictures may be in any of them.
        faults: of each part.
    """
    places = PicturePlaces(folders)
    made: dict[Part, Collector] = {part: Collector(places, faults[part]) for part in PARTS}
    for entry in read_captions(path, faults["train"]):
        if (part := KARPATHY.get(entry.part)) is None:
            faults["train"].add(f"{entry.where}: its split is {entry.part!r}, not one of {', '.join(KARPATHY)}")
            continue
        number = entry.number
        made[part].add(entry, () if number is None else (Path(entry.name).name, f"{number:012}.jpg"))
    return made


def write_captions_example(path: Path, numbers: Iterable[int]) -> None:
    """A JSON file of two captions for each scene that ``write_coco_example`` has written."""
    images, annotations = [], list[dict[str, Any]]()
    for number in numbers:
        images.append({"id": number + 100, "file_name": f"{number:012}.png", "height": 24, "width": 32})
        for caption in example_captions(number):
            annotations.append({"image_id": number + 100, "id": len(annotations) + 1, "caption": caption})
    content = {"info": {}, "images": images, "licenses": [], "annotations": annotations}
    path.write_text(json.dumps(content), encoding="utf-8")


def example_captions(number: int) -> list[str]:
    """Two captions of an example scene."""
    names = ["red" if label == 0 else "blue" for label in example_scene(number).labels]
    things = " and ".join(f"a {name} box" for name in names) or "nothing"
    return [f"There is {things}.", f"{things} on noise"]


def write_karpathy_example(path: Path, folder: Path, dataset: str, numbers: Sequence[int]) -> list[str]:
    """Pictures and a file of Karpathy's; the last three are for validation and the two before for the test.

    Returns:
        the pictures' names
    """
    images, names = [], []
    for number in numbers:
        place = len(numbers) - numbers.index(number)
        split = "val" if place <= 3 else "test" if place <= 5 else "train"
        name = f"{number:010}_{dataset}.jpg"
        write_picture(folder / name, example_scene(number))
        names.append(name)
        sentences = [
            {"tokens": text.lower().rstrip(".").split(), "raw": text, "imgid": number, "sentid": 2 * number + i}
            for i, text in enumerate(example_captions(number))
        ]
        ids = [one["sentid"] for one in sentences]
        images.append({"sentids": ids, "imgid": number, "sentences": sentences, "split": split, "filename": name})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "dataset": dataset}), encoding="utf-8")
    return names
