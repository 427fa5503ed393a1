"""Which loggers a run has, and where they write: W&B where nothing is said, everything in the run's folder."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from zoo.errors import UserError
from zoo.training import wandb

WANDB = "lightning.pytorch.loggers.WandbLogger"


def choose_loggers(trainer: Namespace, folder: Path, label: str, wandb_id: str | None) -> None:
    """Settle the loggers of a fit.

    Args:
        trainer: its parsed configuration; ``logger`` becomes a list, or stays False.
        folder: the run's.
        label: what runs of this recipe are called.
        wandb_id: of the W&B run that goes on, where one does.
    """
    if trainer.logger is None or trainer.logger is True:
        trainer.logger = [Namespace(class_path=WANDB, init_args=Namespace())]
    if trainer.logger is False:
        return
    chosen = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    for logger in chosen:
        logger.init_args = logger.init_args if "init_args" in logger else Namespace()
        logger.init_args.save_dir = str(folder)
        if logger.class_path.endswith(".WandbLogger"):
            _place_wandb(logger.init_args, folder, label, wandb_id)
    trainer.logger = chosen


def _place_wandb(args: Namespace, folder: Path, label: str, wandb_id: str | None) -> None:
    mode = wandb.configure_wandb(folder)
    args.project = args.get("project") if args.get("project") not in (None, "lightning_logs") else "zoo"
    args.name = args.get("name") or f"{label}-{folder.name}"
    if wandb_id:
        args.id = wandb_id
    if mode == "offline" and args.get("log_model"):
        raise UserError("trainer.logger.log_model uploads checkpoints to W&B, but this run is offline")
