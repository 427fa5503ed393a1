"""What detection and instance segmentation predict, as plain results and as files of the usual formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from zoo.data.predicting import Source
from zoo.drawing import Boxes, class_color
from zoo.tasks.image_ids import image_ids

MASK_THRESHOLD = 0.5  # probability from which on a pixel belongs to an object


@dataclass
class Detected:
    """The objects that were found in a picture, the most confident first.

    Args:
        name: the picture's file, or its number.
        file: its name in the folder that all pictures of a prediction share.
        size: its height and width in pixels.
        boxes: (N, 4) as x1 y1 x2 y2 in its pixels.
        scores: confidences in [0, 1], (N,).
        labels: class numbers, (N,).
        names: of the objects' classes, N.
        masks: of the objects, bool (N, H, W); None where only boxes are predicted.
    """

    name: str
    file: str
    size: tuple[int, int]
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: list[str]
    masks: Tensor | None = None

    def drawn(self, size: Sequence[int]) -> tuple[Boxes, Tensor | None]:
        """Its boxes and masks for drawing on the image of this height and width that the network saw of the picture."""
        height, width = self.size
        boxes = self.boxes * self.boxes.new_tensor([size[1] / width, size[0] / height] * 2)
        masks = self.masks
        if masks is not None and tuple(size) != self.size:
            masks = interpolate(masks[:, None].float(), (size[0], size[1]), mode="nearest")[:, 0].bool()
        return Boxes(boxes, self.labels, self.scores), masks

    def as_json(self) -> dict[str, Any]:
        """``name``, ``width``, ``height`` and ``objects``, each with ``class``, ``index``, ``confidence``, ``box``.

        A mask is a ``segmentation`` in COCO's run-length encoding.
        """
        objects: list[dict[str, Any]] = [
            {"class": name, "index": index, "confidence": confidence, "box": box}
            for name, index, confidence, box in zip(
                self.names, self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True
            )
        ]
        for one, mask in zip(objects, [] if self.masks is None else self.masks, strict=False):
            one["segmentation"] = run_lengths(mask)
        height, width = self.size
        return {"name": self.name, "width": width, "height": height, "objects": objects}


def detected(
    found: Mapping[str, Tensor], name: str, size: Sequence[int], class_names: Sequence[str], threshold: float
) -> Detected:
    """A picture's detections from a threshold of confidence on, as a plain result.

    Args:
        found: ``boxes``, ``scores``, ``labels``, and maybe ``masks`` as probabilities or bools (N, H, W).
        name: the picture's; a ``Source`` knows its place in its folder, too.
        size: height and width of the image that the network saw.
        class_names: of all classes.
        threshold: least confidence.
    """
    rows = found["scores"].argsort(descending=True, stable=True)
    rows = rows[found["scores"][rows] >= threshold]
    chosen = {key: values[rows].detach().cpu() for key, values in found.items()}
    boxes, masks = chosen["boxes"].float(), binary(chosen["masks"]) if "masks" in chosen else None
    if isinstance(name, Source) and all(name.image_size):  # its picture may have been resized
        boxes, size = name.boxes_to_picture(boxes), name.picture_size
        if masks is not None and masks.shape[1:] != tuple(size):
            masks = name.maps_to_picture(masks.float(), mode="nearest").bool()
    return Detected(
        str(name),
        name.name if isinstance(name, Source) else Path(name).name,
        (int(size[0]), int(size[1])),
        boxes,
        chosen["scores"].float(),
        chosen["labels"],
        [class_names[label] for label in chosen["labels"].tolist()],
        masks,
    )


def binary(masks: Tensor) -> Tensor:
    """Masks as bools; probabilities by ``MASK_THRESHOLD``."""
    return masks >= MASK_THRESHOLD if masks.is_floating_point() else masks.bool()


def run_lengths(mask: Tensor) -> dict[str, Any]:
    """COCO's run-length encoding of a mask (H, W), as JSON holds it."""
    import numpy as np
    from pycocotools.mask import encode

    found = encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8)))
    return {"size": [int(n) for n in found["size"]], "counts": found["counts"].decode("ascii")}


# Files beside predictions.json


def write_yolo(folder: Path, result: Detected) -> None:
    """A picture's objects as YOLO's text: class, centre, width and height relative to the picture's, confidence.

    Args:
        folder: the text goes to ``labels`` in it; a picture without objects has an empty file.
        result: of the picture.
    """
    height, width = result.size
    x1, y1, x2, y2 = result.boxes.unbind(1)
    rows = torch.stack([(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height], 1)
    lines = [
        f"{label} {' '.join(f'{value:.6f}' for value in row)} {score:.4f}"
        for label, row, score in zip(result.labels.tolist(), rows.tolist(), result.scores.tolist(), strict=True)
    ]
    path = _place(folder / "labels", result.file, ".txt")
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_masks(folder: Path, result: Detected) -> None:
    """A picture's masks as one indexed PNG in ``masks``: 0 where no object is, else its number in the JSON file + 1.

    The most confident object is on top. Objects after the first 255 are left out: an indexed PNG has no more colors.
    """
    if result.masks is None:
        return
    numbers = torch.zeros(result.size, dtype=torch.uint8)
    for index in reversed(range(min(255, len(result.masks)))):
        numbers[result.masks[index]] = index + 1
    picture = Image.fromarray(numbers.numpy(), "P")
    colors = [(0, 0, 0), *(class_color(index) for index in range(255))]
    picture.putpalette([value for color in colors for value in color])
    picture.save(_place(folder / "masks", result.file, ".png"))


def _place(folder: Path, file: str, ending: str) -> Path:
    """A new file for a picture; with the picture's own ending in its name where two differ by that alone."""
    path = (folder / file).with_suffix(ending)
    path.parent.mkdir(parents=True, exist_ok=True)
    return folder / f"{file}{ending}" if path.exists() else path


def category_ids(class_names: Sequence[str]) -> list[int]:
    """COCO's own ids, from 1 to 90, where the classes are COCO's 80; else the classes' numbers + 1."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    known = {name: number for number, name in enumerate(FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"])}
    cocos = set(known) - {"N/A", "__background__"}
    return [known[n] for n in class_names] if set(class_names) == cocos else [*range(1, len(class_names) + 1)]


def write_coco(path: Path, rows: Sequence[Mapping[str, Any]], categories: Sequence[int]) -> None:
    """The results of all pictures as COCO's results file.

    ``image_id`` is as ``image_ids`` gives it; ``file_name`` says which picture it is.

    Args:
        path: of the file.
        rows: as ``Detected.as_json`` gives them.
        categories: ``category_id`` of each class.
    """
    results = []
    for row, number in zip(rows, image_ids([row["name"] for row in rows]), strict=True):
        for one in row["objects"]:
            x1, y1, x2, y2 = one["box"]
            result = {
                "image_id": number,
                "file_name": row["name"],
                "category_id": categories[one["index"]],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": one["confidence"],
            }
            results.append({**result, **({"segmentation": one["segmentation"]} if "segmentation" in one else {})})
    path.write_text(json.dumps(results, ensure_ascii=False) + "\n", encoding="utf-8")
