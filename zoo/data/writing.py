"""Writing data sets with boxes, masks or classes of pixels in the formats that other tools read: COCO, YOLO, VOC.

Pictures are named by their number. Coordinates follow each format: COCO's are x, y, width, height from 0; YOLO's are
fractions of the picture; VOC's count pixels from 1, both ends included.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zoo.data.files import UnreadableImage
from zoo.data.pixels import as_floats
from zoo.errors import UserError

IGNORED = 255


class Writer:
    """Base of the formats.

    Args:
        out: a new folder.
        class_names: in the order of the labels.
        kind: file name's end of pictures: ``png`` or ``jpg``.

    Attributes:
        left_out: how many of what the format can't hold.
    """

    needs_boxes: ClassVar[bool] = True

    def __init__(self, out: Path, class_names: list[str], kind: str = "png") -> None:
        self.out, self.class_names, self.kind = out, class_names, kind
        self.left_out: Counter[str] = Counter()

    def write(self, split: str, samples: Any) -> int:
        """Write a part; the number of its pictures. Those that can't be read are left out and counted.

        Raises:
            UserError: the format can't hold such samples.
        """
        written = 0
        for index in range(len(samples)):
            try:
                image, target = samples[index]
            except UnreadableImage:
                self.left_out["pictures that can't be read"] += 1
                continue
            if self.needs_boxes and "boxes" not in target:
                raise UserError("classes of pixels can be written as voc only, not as boxes")
            self.add(split, f"{split}-{index:06d}", image, target)
            written += 1
        self.finish(split)
        return written

    def add(self, split: str, name: str, image: Tensor, target: dict[str, Tensor]) -> None:
        """Write a picture (C, H, W) and what is known of it."""
        raise NotImplementedError

    def finish(self, split: str) -> None:
        """Write what is known of the part as a whole."""

    def save(self, folder: Path, name: str, image: Tensor) -> str:
        """Write a picture; its file's name."""
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (as_floats(image[None], image.shape[-2:], torch.float32)[0] * 255).round().to(torch.uint8)
        array = pixels.permute(1, 2, 0).numpy()
        picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
        options: dict[str, Any] = {"quality": 95} if self.kind == "jpg" else {}
        picture.save(folder / f"{name}.{self.kind}", **options)
        return f"{name}.{self.kind}"


class CocoWriter(Writer):
    """COCO's instances: ``annotations/instances_PART.json`` and a folder of pictures for each part.

    Masks are run lengths (RLE), which keep every pixel. Class i has the id i + 1, as 0 is often taken for background.
    """

    def __init__(self, out: Path, class_names: list[str], kind: str = "png") -> None:
        super().__init__(out, class_names, kind)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, split: str, name: str, image: Tensor, target: dict[str, Tensor]) -> None:
        """A picture, and an annotation for each object."""
        height, width = image.shape[-2:]
        number = len(self._images) + 1
        file = self.save(self.out / split, name, image)
        self._images.append({"id": number, "file_name": file, "height": height, "width": width})
        for i, (x1, y1, x2, y2) in enumerate(target["boxes"].tolist()):
            entry: dict[str, Any] = {"id": len(self._annotations) + 1, "image_id": number}
            entry |= {"category_id": int(target["labels"][i]) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            entry |= {"iscrowd": int("iscrowd" in target and bool(target["iscrowd"][i]))}
            entry |= {"area": float(target["area"][i]) if "area" in target else (x2 - x1) * (y2 - y1)}
            if "masks" in target:
                mask = target["masks"][i].numpy().astype(bool)
                entry |= {"segmentation": {"size": [height, width], "counts": run_lengths(mask)}}
                entry |= {} if "area" in target else {"area": int(mask.sum())}
            self._annotations.append(entry)

    def finish(self, split: str) -> None:
        """The part's JSON file."""
        categories = [{"id": i, "name": name} for i, name in enumerate(self.class_names, 1)]
        content = {"images": self._images, "annotations": self._annotations, "categories": categories}
        path = self.out / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
        self._images, self._annotations = [], []


class YoloWriter(Writer):
    """YOLO's text files: ``images/PART``, ``labels/PART`` and ``data.yaml``.

    With masks a line is a polygon, which has no holes; otherwise a box. Crowds can't be told apart and are left out.
    """

    def add(self, split: str, name: str, image: Tensor, target: dict[str, Tensor]) -> None:
        """A picture and its text file."""
        height, width = image.shape[-2:]
        self.save(self.out / "images" / split, name, image)
        lines = []
        for i, (x1, y1, x2, y2) in enumerate(target["boxes"].tolist()):
            if "iscrowd" in target and bool(target["iscrowd"][i]):
                self.left_out["crowds"] += 1
                continue
            numbers = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
            if "masks" in target:
                numbers = (outline(target["masks"][i].numpy()) / [width, height]).ravel().tolist()
                if not numbers:
                    self.left_out["objects without a pixel"] += 1
                    continue
            lines.append(" ".join([str(int(target["labels"][i])), *(f"{number:.8g}" for number in numbers)]))
        path = self.out / "labels" / split / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def finish(self, split: str) -> None:
        """The folders of all parts so far, and the classes."""
        folders = "".join(f"{part.name}: images/{part.name}\n" for part in sorted((self.out / "images").iterdir()))
        # Without escapes: JSON writes a letter beyond 16 bits as two, which YAML does not join.
        names = "".join(f"  {i}: {json.dumps(name, ensure_ascii=False)}\n" for i, name in enumerate(self.class_names))
        (self.out / "data.yaml").write_text(f"{folders}names:\n{names}", encoding="utf-8")


class VocWriter(Writer):
    """VOC's folders: ``JPEGImages``, ``Annotations``, ``SegmentationObject``, ``SegmentationClass``, ``ImageSets``.

    Masks are indexed PNGs, in which of overlapping objects the later one is seen; classes count from 1, and 0 is
    background. Crowds are written as ``difficult``.
    """

    needs_boxes: ClassVar[bool] = False

    def __init__(self, out: Path, class_names: list[str], kind: str = "png") -> None:
        super().__init__(out, class_names, kind)
        self._names: list[str] = []
        self._folders: set[str] = set()

    def add(self, split: str, name: str, image: Tensor, target: dict[str, Tensor]) -> None:
        """A picture, its XML file and its masks."""
        file = self.save(self.out / "JPEGImages", name, image)
        self._names.append(name)
        if "mask" in target:
            self._indexed("SegmentationClass", name, target["mask"].numpy())
            return
        self._write_xml(name, file, image, target)
        if "masks" in target:
            if max(len(target["masks"]), len(self.class_names)) >= IGNORED:
                raise UserError(f"{name}: an indexed picture holds at most 254 objects or classes")
            objects = np.zeros(tuple(image.shape[-2:]), np.int64)
            for number, mask in enumerate(target["masks"].numpy(), 1):
                objects[mask.astype(bool)] = number
            classes = np.concatenate([[0], target["labels"].numpy() + 1])[objects]
            self._indexed("SegmentationObject", name, objects)
            self._indexed("SegmentationClass", name, classes)

    def _write_xml(self, name: str, file: str, image: Tensor, target: dict[str, Tensor]) -> None:
        tree = ElementTree.Element("annotation")
        ElementTree.SubElement(tree, "filename").text = file
        depth, height, width = image.shape
        _add(ElementTree.SubElement(tree, "size"), width=width, height=height, depth=depth)
        crowds = target["iscrowd"].tolist() if "iscrowd" in target else [False] * len(target["labels"])
        for (x1, y1, x2, y2), label, crowd in zip(
            target["boxes"].tolist(), target["labels"].tolist(), crowds, strict=True
        ):
            entry = ElementTree.SubElement(tree, "object")
            _add(entry, name=self.class_names[label], truncated=0, difficult=int(crowd))
            corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), (x1 + 1, y1 + 1, x2, y2), strict=True))
            _add(ElementTree.SubElement(entry, "bndbox"), **{k: f"{v:g}" for k, v in corners.items()})
        path = self.out / "Annotations" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(tree).write(path, encoding="utf-8")
        self._folders.add("Main")

    def _indexed(self, folder: str, name: str, values: NDArray[Any]) -> None:
        picture = Image.fromarray(values.astype(np.uint8), "P")
        picture.putpalette(voc_palette())
        (self.out / folder).mkdir(parents=True, exist_ok=True)
        picture.save(self.out / folder / f"{name}.png")
        self._folders.add("Segmentation")

    def finish(self, split: str) -> None:
        """The lists of the part's pictures."""
        for folder in self._folders:
            path = self.out / "ImageSets" / folder / f"{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{name}\n" for name in self._names), encoding="utf-8")
        self._names = []


WRITERS: dict[str, type[Writer]] = {"coco": CocoWriter, "yolo": YoloWriter, "voc": VocWriter}


def _add(parent: ElementTree.Element, **texts: Any) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = str(text)


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed RLE: lengths of runs of 0 and 1 in turn, down the columns, starting with 0."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], ends, [mask.size]])).tolist()
    return counts if mask.ravel(order="F")[-1:].tolist() != [True] else counts[:-1]


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One polygon (N, 2) of x, y around a mask, holes filled; its parts are joined by lines of no width."""
    from skimage.measure import find_contours

    contours = find_contours(np.pad(mask.astype(np.float64), 1), 0.5)
    outer = [one[:, ::-1] - 0.5 for one in contours if _area(one) > 0]  # holes run the other way
    if not outer:
        return np.zeros((0, 2))
    back = [one[:1] for one in outer[-2::-1]]
    return np.concatenate([*outer, *back])


def _area(points: NDArray[np.float64]) -> float:
    y, x = points.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def voc_palette() -> list[int]:
    """VOC's colours: bits 0, 1, 2, then 3, 4, 5, … of the index are the high bits of red, green and blue."""
    return [
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))
        for index in range(256)
        for channel in range(3)
    ]
