"""Giving pictures, overlays and tables to loggers: as W&B's own boxes, masks and tables, and drawn for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image
from torch.nn import functional as F

from zoo.drawing import NO_CLASS, Boxes, Overlay, Table, to_picture
from zoo.drawing_objects import draw_overlay


@dataclass
class Media:
    """What a task gives of an evaluation, by name.

    Args:
        pictures: finished ones.
        overlays: a logger that shows them gets them in place of pictures of the same name.
        tables: for W&B as such, for TensorBoard as text.
    """

    pictures: Mapping[str, list[Image.Image]]
    overlays: Mapping[str, Sequence[Overlay]]
    tables: Mapping[str, Table]

    def give(self, logger: Logger, stage: str, step: int) -> None:
        """Give a logger what it can show, each under ``stage/name``; one that shows no pictures gets nothing."""
        if isinstance(logger, WandbLogger):
            self._give_wandb(logger, stage)
        elif isinstance(logger, TensorBoardLogger):
            self._give_tensorboard(logger, stage, step)
        elif hasattr(logger, "log_image"):
            for name, pictures in self.pictures.items():
                logger.log_image(f"{stage}/{name}", pictures)

    def _give_wandb(self, logger: WandbLogger, stage: str) -> None:
        """At W&B's own steps, since the curves' step may be behind."""
        for name, pictures in self.pictures.items():
            if name not in self.overlays:
                logger.log_image(f"{stage}/{name}", pictures)
        for name, overlays in self.overlays.items():
            padded = _of_one_size(overlays)
            options: dict[str, Any] = _wandb_options(padded)
            logger.log_image(f"{stage}/{name}", [to_picture(o.image, 0) for o in padded], **options)
        for name, table in self.tables.items():
            logger.log_table(f"{stage}/{name}", list(table.columns), [_wandb_row(row) for row in table.rows])

    def _give_tensorboard(self, logger: TensorBoardLogger, stage: str, step: int) -> None:
        drawn = {name: [draw_overlay(overlay) for overlay in overlays] for name, overlays in self.overlays.items()}
        for name, pictures in {**self.pictures, **drawn}.items():
            for i, picture in enumerate(pictures):
                pixels = np.asarray(picture.convert("RGB"))
                logger.experiment.add_image(f"{stage}/{name}/{i}", pixels, step, dataformats="HWC")
        for name, table in self.tables.items():
            logger.experiment.add_text(f"{stage}/{name}", _markdown(table), step)


def _of_one_size(overlays: Sequence[Overlay]) -> list[Overlay]:
    """The overlays padded at the right and below: W&B takes the first one's size for all."""
    height, width = (max((o.image.shape[axis] for o in overlays), default=0) for axis in (1, 2))

    def padded(overlay: Overlay) -> Overlay:
        margin = (0, width - overlay.image.shape[2], 0, height - overlay.image.shape[1])
        masks = {name: F.pad(mask, margin, value=NO_CLASS) for name, mask in overlay.masks.items()}
        return replace(overlay, image=F.pad(overlay.image, margin, value=0.5), masks=masks)

    return [padded(overlay) for overlay in overlays]


def _wandb_options(overlays: Sequence[Overlay]) -> dict[str, list[Any]]:
    """The options of ``wandb.Image``, one entry an overlay."""
    return {
        "boxes": [{k: _wandb_boxes(b, o.class_names) for k, b in o.boxes.items()} or None for o in overlays],
        "masks": [{k: _wandb_mask(m, o.class_names) for k, m in o.masks.items()} or None for o in overlays],
        "caption": [o.caption or None for o in overlays],
    }


def _wandb_boxes(boxes: Boxes, names: Sequence[str]) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    for i, (x1, y1, x2, y2) in enumerate(boxes.corners.tolist()):
        box: dict[str, Any] = {
            "position": {"minX": x1, "minY": y1, "maxX": x2, "maxY": y2},
            "domain": "pixel",
            "class_id": int(boxes.labels[i]),
            "box_caption": boxes.text(i, names),
        }
        if boxes.scores is not None:
            box["scores"] = {"score": float(boxes.scores[i])}
        found.append(box)
    return {"box_data": found, **_labels(names)}


def _wandb_mask(mask: Any, names: Sequence[str]) -> dict[str, Any]:
    return {"mask_data": mask.cpu().numpy().astype(np.uint8), **_labels(names)}


def _labels(names: Sequence[str]) -> dict[str, Any]:
    return {"class_labels": dict(enumerate(names))} if names else {}


def _wandb_row(row: Sequence[Any]) -> list[Any]:
    import wandb

    return [wandb.Image(cell) if isinstance(cell, Image.Image) else cell for cell in row]


def _markdown(table: Table) -> str:
    """A table in Markdown, without its pictures."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in rows)


def _cell(value: Any) -> str:
    return "" if isinstance(value, Image.Image) else str(value).replace("|", "\\|").replace("\n", " ")
