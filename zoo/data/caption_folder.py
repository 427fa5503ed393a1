"""The user's own pictures with captions, in any of the usual formats."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from zoo.data.annotations import Faults
from zoo.data.base import data_root
from zoo.data.caption_files import CaptionFiles, Collector
from zoo.data.caption_readers import Entry, read_captions, text_of
from zoo.data.coco_captions import KARPATHY, example_captions
from zoo.data.example_scenes import example_scene, write_picture
from zoo.data.images import Part
from zoo.data.part_files import PARTS, Sought, candidates, part_files, part_of
from zoo.data.picture_places import PicturePlaces
from zoo.data.scan import pictures_below
from zoo.errors import UserError

FILES = Sought(
    "captions",
    "captions",
    ("instances", "person_keypoints", "stuff", "panoptic", "image_info"),
    (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".token"),
)
TEXTS = (".txt", ".caption")  # of files beside pictures


class CaptionFolder(CaptionFiles):
    """Own pictures with captions: a table, a JSON file, or a text file beside each picture.

    - A table (``.csv``, ``.tsv``, or lines as ``name.jpg#0``, tab, caption) has a column of pictures and one of
      captions, a row for each caption; a column ``split`` names the part. Without a header, the first column is the
      picture, the second the caption.
    - JSON is a list of objects as ``{"image": "a.jpg", "caption": "a dog"}``, where ``captions`` may be a list; an
      object of captions by picture; COCO's format; or Karpathy's. JSON lines (``.jsonl``) have an object in each line.
    - Without such a file, ``photo.txt`` (or ``photo.caption``) beside ``photo.jpg`` holds its captions, one per line.

    A file with ``train`` (``val``, ``test``) in its name or its folder's is of that part. Pictures are found in the
    part's folder, ``root``, ``images``, or beside the file. Folders of pictures named ``train``, ``val`` and ``test``
    are the parts where captions are beside the pictures. Without parts, they are held out.

    A caption that a picture has twice is used once; pictures without a caption are left out. Both are counted.

    Args:
        root: the folder; default: the environment variable ``ZOO_DATA``, else ``data``.
        captions: the file of all captions, or of each part (``train``, ``val``, ``test``), below ``root`` or not.
        columns: names of the columns or keys ``image``, ``caption`` and ``part``, if they are unusual.
        min_count: words that occur less often in the training captions are unknown.
        kwargs: as for every data set of picture files with captions.
    """

    licence: ClassVar[str] = "your own"
    about: ClassVar[str] = "pictures of any size with captions in a table, JSON, or text files beside them"
    example: ClassVar[dict[str, Any]] = {"batch_size": 4, "image_size": 32, "val_fraction": 0.2, "min_count": 1}
    keep_repeated: ClassVar[bool] = False

    def __init__(
        self,
        root: str | None = None,
        captions: str | dict[str, str] | None = None,
        columns: dict[str, str] | None = None,
        min_count: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(min_count=min_count, **kwargs)
        self.root, self.captions, self.columns = data_root(root).expanduser(), captions, columns
        if unknown := set(columns or ()) - {"image", "caption", "part"}:
            raise UserError(f"data.columns names the columns image, caption and part, not {sorted(unknown)[0]}")

    def read(self) -> dict[Part, Collector]:
        """The files of captions, or the texts beside the pictures."""
        if not self.root.is_dir():
            raise UserError(f"the folder {self.root} does not exist: give the pictures' folder by --data.root")
        if self.captions is None and not candidates(self.root, FILES):
            table = next(
                (self.root / name for name in ("captions.txt", "results.txt") if (self.root / name).is_file()), None
            )
            if table is None:
                return self._beside()
            return self._files(str(table))
        return self._files(self.captions)

    def _files(self, captions: str | dict[str, str] | None) -> dict[Part, Collector]:
        made: dict[Part, Collector] = {}
        for part, (path, folders) in part_files(self.root, FILES, captions).items():
            places = PicturePlaces(folders)
            for entry in read_captions(path, self.faults[part], self.columns):
                own = self._part(entry, part)
                if own is not None:
                    made.setdefault(own, Collector(places, self.faults[own], self.keep_repeated)).add(entry)
        return made

    def _part(self, entry: Entry, of_file: Part) -> Part | None:
        if not entry.part.strip():
            return of_file
        found = KARPATHY.get(entry.part.strip().lower()) or part_of(entry.part)
        if found is None:
            self.faults[of_file].add(f"{entry.where}: its part is {entry.part!r}, expected train, val or test")
        return found

    def _beside(self) -> dict[Part, Collector]:
        """Texts beside pictures, in the folders of the parts if there are some."""
        folders = {part_of(folder.name): folder for folder in sorted(self.root.iterdir()) if folder.is_dir()}
        parts = {part: folders[part] for part in PARTS if part in folders} if "train" in folders else {}
        made: dict[Part, Collector] = {}
        for part, folder in (parts or {"train": self.root}).items():
            made[part] = Collector(PicturePlaces([folder]), self.faults[part], self.keep_repeated)
            for entry in entries_beside(folder, self.faults[part]):
                made[part].add(entry)
        if not any(one.captioned for one in made.values()):
            raise UserError(
                f"{self.root} has no captions: expected a .csv, .tsv, .json or .jsonl file (or name it by "
                "--data.captions), or a text file beside each picture, as photo.txt beside photo.jpg"
            )
        return made

    @classmethod
    def write_example(cls, root: Path) -> dict[str, Any]:
        """Fifteen pictures and a table of two captions each."""
        for number in range(15):
            write_picture(root / "images" / f"{number}.png", example_scene(number))
        with (root / "captions.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", "caption"])
            table.writerows([f"{number}.png", text] for number in range(15) for text in example_captions(number))
        return {**cls.example, "root": str(root)}


def entries_beside(folder: Path, faults: Faults) -> Iterator[Entry]:
    """The captions of texts beside pictures, one per line; a text without a picture is wrong where others have one."""
    pictures = pictures_below(folder)
    stems = {str(Path(picture).with_suffix("")) for picture in pictures}
    for picture in pictures:
        name = Path(picture).relative_to(folder).as_posix()
        texts = [path for suffix in TEXTS if (path := Path(picture).with_suffix(suffix)).is_file()]
        if not texts:
            yield Entry(name, [], picture)
        for path in texts:
            try:
                lines = [line for line in text_of(path).split("\n") if line.strip()]
            except UserError as error:
                faults.add(str(error))
            else:
                yield Entry(name, lines or [""], f"{path} (beside {name})")
    for suffix in TEXTS:
        for path in sorted(folder.rglob(f"*{suffix}")):
            if str(path.with_suffix("")) not in stems and not _is_note(path):
                faults.add(f"{path}: there is no picture beside it")


def _is_note(path: Path) -> bool:
    """Whether a text is more likely about the folder than about a picture."""
    return path.stem.lower() in ("readme", "license", "licence", "notes", "classes", "about", "requirements")
