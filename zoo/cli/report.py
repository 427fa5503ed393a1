"""What a run prints and writes: recipe and summary at the start, metrics and the paths of its files at the end."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.utilities.model_summary import ModelSummary

from zoo.training import checkpoints, run_folder, wandb
from zoo.training.pictures import PictureWriter


class SaveRecipe(SaveConfigCallback):
    """Writes the resolved recipe into the run's folder before the first step, and passes it to the loggers.

    Only after the network is built and a checkpoint's weights are loaded, so that a run that fails there leaves no
    file.

    Args:
        parser: Lightning's argument, not used.
        config: Lightning's argument, not used.
        recipe: resolved, as plain data.
        folder: the run's.
    """

    def __init__(
        self, parser: LightningArgumentParser, config: Namespace, recipe: dict[str, Any], folder: Path
    ) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.recipe, self.folder = recipe, folder

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Do nothing, where Lightning's callback writes."""

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Write the recipe, unless it exists already. Runs on rank zero."""
        text = yaml.safe_dump(self.recipe, sort_keys=False)
        path = self.folder / run_folder.RECIPE
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return
        with checkpoints.whole_file(run_folder.unused_path(path)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Print what runs where, once the network is built; pass recipe and summary to the loggers."""
        summary = ModelSummary(pl_module, max_depth=2)
        for logger in trainer.loggers:
            said = {"parameters": summary.total_parameters, "layers": str(summary)}
            logger.log_hyperparams({"recipe": self.recipe, "model_summary": said})
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")
            (self.folder / "model.txt").write_text(f"{summary}\n", encoding="utf-8")
            data = trainer.datamodule  # type: ignore[attr-defined]
            print(
                f"{type(pl_module).__name__} with {summary.trainable_parameters:,} parameters to train, on "
                f"{type(data).__name__}, {trainer.world_size} × {trainer.strategy.root_device.type}\n"
                f"all of it goes to {self.folder}",
                flush=True,
            )


def report(
    trainer: Trainer, folder: Path, drawer: PictureWriter, results: dict[str, float], checkpoint: Path | None = None
) -> None:
    """Write the metrics into the run's folder, and print them and the paths of all files. Runs on rank zero.

    Args:
        trainer: the trainer of the finished run.
        folder: the run's.
        drawer: has the paths of the finished pictures.
        results: the metrics.
        checkpoint: the fit's checkpoint; None for the other commands.
    """
    if not trainer.is_global_zero:
        return
    if results:
        path = run_folder.unused_path(folder / "results.json")
        path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name in sorted(results):
        print(f"{name} {results[name]:.4f}")
    rows = _places(trainer, folder, drawer, checkpoint)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}", flush=True)


def _places(trainer: Trainer, folder: Path, drawer: PictureWriter, checkpoint: Path | None) -> list[tuple[str, str]]:
    rows = [("result", str(path)) for path in drawer.results]
    rows.append(("run", str(folder)))
    if checkpoint is not None:
        rows.append(("checkpoint", str(checkpoint)))
    if any((folder / "pictures").glob("*.png")):
        rows.append(("pictures", str(folder / "pictures")))
    if place := wandb.where(trainer.loggers):
        rows.append(("W&B", place[0]))
        if place[1]:
            rows.append(("upload it", place[1]))
    if checkpoint is not None and trainer.datamodule.predicts_files:  # type: ignore[attr-defined]
        found_by_folder = checkpoint.parent.parent == folder and checkpoint.name in ("best.ckpt", "last.ckpt")
        short = folder if found_by_folder else checkpoint
        rows.append(("next", f"zoo predict --ckpt_path {shlex.quote(str(short))} \\"))
        rows.append(("", "  --data.files 'photos/*.jpg'"))  # a terminal may have 80 columns
    return rows
