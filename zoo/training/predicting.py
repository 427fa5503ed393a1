"""What ``zoo predict`` writes: a picture for each image, and one JSON file of all results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from zoo.data.predicting import Source


class PredictionFiles(BasePredictionWriter):
    """Draws and writes each batch at once, so that memory does not grow with the number of pictures.

    Args:
        folder: where ``pictures/`` and ``predictions.json`` go.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.unreadable: list[str] = []
        self.pictures = 0

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one batch."""
        rows = pl_module.as_json(prediction)  # type: ignore[operator]
        drawn = pl_module.draw(batch[0], prediction)  # type: ignore[operator]
        sources = {str(source): source.name for source in batch[1] if isinstance(source, Source)}
        for row, picture in zip(rows, drawn, strict=True):
            name = str(row.get("name", "image"))
            path = self._place(sources.get(name, Path(name).name), trainer.global_rank)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            self.pictures += 1
            self.rows.append({**row, "picture": str(path.relative_to(self.folder))})
        self.folder.mkdir(parents=True, exist_ok=True)
        pl_module.write_files(self.folder, prediction)  # type: ignore[operator]

    def _place(self, name: str, rank: int) -> Path:
        """A unique, numbered path per picture; subfolders of the name are kept."""
        file = f"{rank:02d}-{self.pictures:05d}-{Path(name).stem}.png"
        return self.folder / "pictures" / Path(name).parent / file

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the JSON file with the rows of all processes."""
        self.unreadable = list(trainer.datamodule.unreadable)  # type: ignore[attr-defined]
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, (self.rows, self.unreadable))
            self.rows = [row for rows, _ in parts for row in rows]
            self.unreadable = [name for _, names in parts for name in names]
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.rows, indent=1, ensure_ascii=False)
            (self.folder / "predictions.json").write_text(text + "\n", encoding="utf-8")
            pl_module.write_summary(self.folder, self.rows)  # type: ignore[operator]

    def report(self) -> None:
        """Print what was written, and what could not be read."""
        print(f"images       {len(self.rows)}")
        if self.rows:
            print(f"pictures     {self.folder / 'pictures'}")
        for path in sorted(self.folder.glob("samples.*")):
            print(f"samples      {path}")
        print(f"predictions  {self.folder / 'predictions.json'}", flush=True)
        if self.unreadable:
            print(f"unreadable   {len(self.unreadable)}: {', '.join(self.unreadable)}", flush=True)
