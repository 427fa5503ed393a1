"""Which loggers a run has, what a recipe may tell them, and where they write: everything in the run's folder.

A recipe may come from anyone, and a logger may send what it is given, with the user's key. So a recipe says how a run
is called and described; the server, the account and whether anything is sent come from the user's environment
(``WANDB_MODE``, ``WANDB_BASE_URL``, ``WANDB_ENTITY``, ``MLFLOW_TRACKING_URI`` …).
"""

from __future__ import annotations

import inspect
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from zoo.cli.places import arguments_of, refuse_path
from zoo.errors import UserError
from zoo.training import wandb

WANDB = "lightning.pytorch.loggers.WandbLogger"
# What a recipe may tell each logger of Lightning.
ALLOWED = {
    "WandbLogger": ("project", "name", "group", "tags", "notes", "job_type", "log_model", "prefix", "checkpoint_name"),
    "CSVLogger": ("name", "version", "prefix", "flush_logs_every_n_steps"),
    "TensorBoardLogger": ("name", "version", "sub_dir", "prefix", "log_graph", "default_hp_metric"),
    "MLFlowLogger": ("experiment_name", "run_name", "tags", "log_model", "prefix"),
    "CometLogger": ("project", "name", "tags", "prefix"),
    "LitLogger": ("name", "metadata", "store_step", "log_model", "checkpoint_name"),
}
FOLDERS = ("save_dir", "root_dir")  # replaced by the run's
PLACES = ("name", "version", "sub_dir", "prefix", "checkpoint_name", "experiment_name", "run_name")


def choose_loggers(trainer: Namespace, folder: Path, label: str, wandb_id: str | None) -> None:
    """Settle the loggers of a fit.

    Args:
        trainer: its parsed configuration; ``logger`` becomes a list, or stays False.
        folder: the run's.
        label: what runs of this recipe are called.
        wandb_id: of the W&B run that goes on, where one does.

    Raises:
        UserError: a logger is given an argument that is not a recipe's to give.
    """
    if trainer.logger is None or trainer.logger is True:
        trainer.logger = [Namespace(class_path=WANDB, init_args=Namespace())]
    if trainer.logger is False:
        return
    chosen = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    for logger in chosen:
        refuse_arguments(logger)
        logger.init_args = logger.init_args if "init_args" in logger else Namespace()
        for key in FOLDERS:
            if key in inspect.signature(class_of(logger)).parameters:
                logger.init_args[key] = str(folder)
        if logger.class_path.endswith(".WandbLogger"):
            _place_wandb(logger.init_args, folder, label, wandb_id)
    trainer.logger = chosen


def refuse_arguments(logger: Namespace) -> None:
    """Refuse what is not on the list of a logger, and names that are paths to elsewhere.

    Raises:
        UserError: an argument is not a recipe's to give.
    """
    cls = class_of(logger)
    known = next((base for base in cls.__mro__ if _is_lightnings(base)), None)
    for key, value in arguments_of(logger).items():
        if known is not None and not _may_say(cls, known, key, value):
            takes = ", ".join(_allowed(known)) or "nothing"
            raise UserError(
                f"trainer.logger.{key} is not allowed: {cls.__name__} takes {takes} here; "
                "account, server and mode come from your environment (docs: security)"
            )
        if isinstance(value, str) and (key in PLACES or known is None):
            refuse_path(f"logger.{key}", value)


def class_of(logger: Namespace) -> type:
    """The class of a logger's spec; the parser has found and imported it."""
    module, _, name = logger.class_path.rpartition(".")
    return getattr(import_module(module), name)


def _is_lightnings(cls: type) -> bool:
    return cls.__module__.startswith("lightning.pytorch.loggers.") and cls.__name__ != "Logger"


def _allowed(cls: type) -> tuple[str, ...]:
    return ALLOWED.get(cls.__name__, ())


def _may_say(cls: type, known: type, key: str, value: Any) -> bool:
    """Whether an argument is on the list, keeps its default, or is one that a plugin's logger has added."""
    if key in FOLDERS or key in _allowed(known):
        return True
    if key in (defaults := _defaults(known)):
        return bool(value == defaults[key])
    return cls is not known and key in inspect.signature(cls).parameters


def _defaults(cls: type) -> dict[str, Any]:
    """As the parser fills them in, those that Lightning's logger passes on to its library included."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "logger", fail_untyped=False)
    return vars(parser.get_defaults()["logger"])


def _place_wandb(args: Namespace, folder: Path, label: str, wandb_id: str | None) -> None:
    mode = wandb.configure_wandb(folder)
    environment = os.environ.get
    args.project = args.get("project") or environment("WANDB_PROJECT") or "zoo"
    args.name = args.get("name") or environment("WANDB_NAME") or f"{label}-{folder.name}"
    if wandb_id:
        args.id = wandb_id
    if mode == "offline" and args.get("log_model"):
        raise UserError("trainer.logger.log_model uploads checkpoints to W&B, but this run is offline")
