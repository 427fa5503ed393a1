"""``zoo fit``, ``validate``, ``test`` and ``predict``: Lightning's command line, with names, runs and checkpoints.

Precedence is defaults < checkpoint < recipes in their order < flags. A checkpoint alone is enough for every command.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from zoo.architectures.base import skip_pretrained
from zoo.cli import own_callbacks, resuming
from zoo.cli.arguments import (
    label_of,
    option_values,
    plain_recipe,
    refuse_other_ways,
    refuse_zero,
    spelt_out,
    with_checkpoint_file,
    with_recipe_files,
)
from zoo.cli.failures import Context, explaining, refused
from zoo.cli.loggers import choose_loggers
from zoo.cli.places import check_built, keep_inside, with_own_checkpoint_io
from zoo.cli.report import SaveRecipe, report
from zoo.cli.streams import outlive_readers
from zoo.data.base import Data
from zoo.errors import UserError
from zoo.parsing import ZooParser, refuse_functions, words_for_enums
from zoo.tasks.base import Task
from zoo.training import checkpoints, prechecks, requeue, restore, run_folder, wandb
from zoo.training.callbacks import Plateau, RequireValidation, ResumeAtEpochEnd, RunCheckpoints, Stopped, progress
from zoo.training.finite import RequireFinite
from zoo.training.loader_states import RestoreLoaders
from zoo.training.pictures import PictureWriter
from zoo.training.prechecks import CheckBatchNorm, CheckMonitors, CheckOptimizerStates, refuse_incomplete
from zoo.training.run_folder import safe_name


class ZooCLI(LightningCLI):
    """Lightning's command line over tasks and data modules.

    Args:
        verb: the command that is run. Its parser alone is built: each takes as long as a small task's whole fit.
        options: Lightning's own.
    """

    def __init__(self, verb: str, **options: Any) -> None:
        self.verb = verb
        super().__init__(**options)

    # Options

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one command, and the arguments of the trainer's method that are no options."""
        return {self.verb: LightningCLI.subcommands()[self.verb]}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Trainer, model and data; the last two may also come from a checkpoint."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{k}": v for k, v in self.trainer_defaults.items()})
        parser.add_lightning_class_args(Task, "model", subclass_mode=True, required=False)
        parser.add_lightning_class_args(Data, "data", subclass_mode=True, required=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of our own."""
        parser.add_argument("--out", type=str, default=None, help="Folder for what this run writes, instead of runs/…")
        parser.add_argument("--no_test", "--no-test", action="store_true", help="fit: leave out the test at the end.")
        parser.add_argument(
            "--checkpoint_every_n_steps",
            type=PositiveInt | None,
            default=None,
            help="fit: also keep step=N.ckpt so often.",
        )

    # Parsing

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Defaults < checkpoint < recipes < flags."""
        argv = spelt_out(sys.argv[1:] if args is None else args)
        self.recipe_names = [v for _, v in option_values(argv, "--config", "-c")]
        argv = with_recipe_files(argv)
        self.checkpoint_path, argv = with_checkpoint_file(argv, self.recipe_names)
        self.base: dict[str, Any] = {}
        self.base_facts: Any = {}
        if self.checkpoint_path:
            self.checkpoint = checkpoints.read(self.checkpoint_path)
            self.base = resuming.base_of(self.checkpoint, self.checkpoint_path, argv[0])
            self.base_facts = checkpoints.facts_in(self.checkpoint)
        before = {argv[0]: deepcopy(self.base)}  # the parser writes into lists that it is given
        given = parser.parse_object(before, defaults=False) if self.base else None
        self.config = parser.parse_args(argv, namespace=given)
        refuse_other_ways(self.config[argv[0]], argv)

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint override recipes and flags; ``parse_arguments`` has read it already."""

    # Before anything is built

    def before_instantiate_classes(self) -> None:
        """Check that all is there, and decide where the run lies and what logs it."""
        config = self.config[self.subcommand]
        for key, flag in (("model", "--model NAME"), ("data", "--data NAME")):
            if config.get(key) is None:
                raise UserError(f"no {key}: give a recipe (--config FILE), {flag}, or a checkpoint (--ckpt_path FILE)")
        refuse_functions(config)
        words_for_enums(config)
        refuse_zero(config.trainer)
        self.recipe = plain_recipe(self._parser(self.subcommand), config)
        self.folder = self._choose_folder(config.get("out"))
        self.save_config_kwargs = {"recipe": self.recipe, "folder": self.folder}
        self._resume_after_restart(config)
        if self.subcommand == "fit" and self.checkpoint_path:
            refuse_incomplete(self.checkpoint, self.checkpoint_path)
            resuming.refuse_changes(self.base, self.recipe, self.checkpoint_path)
        self._place_writers(config.trainer)

    def _choose_folder(self, out: str | None) -> Path:
        doing = json.dumps([self.recipe, str(self.checkpoint_path)], sort_keys=True, default=str)
        label, fits = self._label(), self.subcommand == "fit"
        label = label if fits else f"{self.subcommand}-{label}"
        return run_folder.folder_for(label, self.checkpoint_path if fits else None, out, trains=fits, recipe=doing)

    def _place_writers(self, trainer: Namespace) -> None:
        """All that the trainer, its loggers, callbacks and profiler write lies in the run's folder."""
        if trainer.get("model_registry"):
            raise UserError("trainer.model_registry would upload checkpoints, which a recipe can't ask for")
        trainer.default_root_dir = str(self.folder)
        if self.subcommand == "fit":
            choose_loggers(trainer, self.folder, self._label(), self._wandb_id())
        else:
            trainer.logger = False
        for part in (trainer.callbacks, trainer.profiler, trainer.plugins, trainer.strategy):
            keep_inside(part, self.folder)

    def _label(self) -> str:
        record = checkpoints.run_record(self.checkpoint) if self.checkpoint_path else {}
        other = record.get("recipe_name") or safe_name(self.recipe["model"]["class_path"].rpartition(".")[2])
        return label_of(self.recipe_names) or other

    def _resume_after_restart(self, config: Namespace) -> None:
        """A job that SLURM or torchrun starts again finds its own last checkpoint."""
        if self.subcommand != "fit" or self.checkpoint_path:
            return
        if (last := resuming.checkpoint_after_restart(self.folder)) is not None:
            self.checkpoint_path, self.checkpoint = last, checkpoints.read(last)
            self.base = resuming.base_of(self.checkpoint, last, "fit")
            config.ckpt_path = str(last)

    def _wandb_id(self) -> str | None:
        """The W&B run that goes on: that of the checkpoint, where it lies in its run's folder."""
        if self.checkpoint_path is None or run_folder.owner_of(self.checkpoint_path) is None:
            return None
        return checkpoints.run_record(self.checkpoint).get("wandb_id")

    # Building

    def _dump_config(self) -> None:
        """What a task keeps as its hyper-parameters; all of it is validated already, so not again as in Lightning."""
        if not hasattr(self, "config_dump"):
            wanted = {"skip_link_targets": False, "skip_unset": False, "skip_validation": True}
            text = self.parser.dump(self.config, format="yaml", **wanted)
            self.config_dump = yaml.safe_load(text)[self.subcommand]

    def instantiate_classes(self) -> None:
        """Build data, task and trainer; whatever they refuse ends in one line."""
        try:
            super().instantiate_classes()
            self.model.add_facts(self.base_facts)
        except UserError:
            raise
        except Exception as error:
            raise refused(error, self.config[self.subcommand], self.folder) from error
        if self.subcommand == "fit":
            prechecks.refuse_synchronising_on_cpus(self.trainer, self.config_init.fit.trainer.sync_batchnorm)
        if self.subcommand == "fit" and self.checkpoint_path:
            resuming.refuse_another_length(self.model, self.base, self.recipe)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the checkpoints, pictures, progress and atomic files of every run, where the recipe has not its own."""
        config = self.config_init[self.subcommand]["trainer"]
        plugins = with_own_checkpoint_io(config.get("plugins"), config.get("strategy"), self.folder)
        own = config.get("callbacks") or []
        self.own = own = list(own) if isinstance(own, list | tuple) else [own]
        own_callbacks.refuse_finders(own)
        own_callbacks.place_checkpoints(own, self.folder)
        if self.checkpoint_path and self.subcommand == "fit":
            own_callbacks.say_inexact(own)
        first = [RequireFinite(self.folder, self.checkpoint_path), CheckMonitors()]
        callbacks = [*first, *own, *self._callbacks(config, own)]
        bar = any(isinstance(c, ProgressBar) for c in callbacks)
        trainer = super().instantiate_trainer(plugins=plugins, callbacks=callbacks, enable_progress_bar=bar, **kwargs)
        check_built(trainer, self.folder)
        return trainer

    def _callbacks(self, config: Any, own: Sequence[Any]) -> list[Any]:
        self.drawer = PictureWriter(self.folder / "pictures")
        added: list[Any] = [
            ResumeAtEpochEnd(),
            RestoreLoaders(),
            Plateau(),
            RequireValidation(),
            CheckBatchNorm(),
            self.drawer,
        ]
        if self.subcommand == "fit" and self.checkpoint_path:
            added.append(CheckOptimizerStates(self.checkpoint_path))
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in own):
            added.append(progress())
        self.saver: RunCheckpoints | None = None
        wanted = config.get("enable_checkpointing") is not False and not config.get("fast_dev_run")
        if any(map(own_callbacks.saves, own)):
            added += [
                own_callbacks.RecordRun(self._record),
                *([own_callbacks.SaveWhenStopped(self.folder / "checkpoints")] if wanted else []),
            ]
        elif self.subcommand == "fit" and wanted:
            self.saver = RunCheckpoints(
                self.folder / "checkpoints",
                self.model.monitor,
                self.model.monitor_mode,
                record=self._record,
                every_n_steps=self.config.fit.get("checkpoint_every_n_steps"),
            )
            added.append(self.saver)
        return added

    def _record(self) -> dict[str, Any]:
        run = wandb.run_of(self.trainer.loggers) if self.trainer.is_global_zero else None
        return {
            "recipe_name": self._label(),
            "trainer": self.recipe["trainer"],
            "seed_everything": self.recipe["seed_everything"],
            "wandb_id": getattr(run, "id", None),
        }

    # Running

    def _run_subcommand(self, subcommand: str) -> None:
        """With a checkpoint, every network's weights come from it."""
        config = self.config[subcommand]
        known = Context(config, self.checkpoint_path, self.folder, self.trainer, self.model)
        if self.trainer.world_size > 1 and self.trainer.is_global_zero:  # which may take a minute on a busy machine
            print(f"waiting for all {self.trainer.world_size} processes to start", flush=True)
        with skip_pretrained() if self.checkpoint_path else nullcontext(), explaining(known):
            super()._run_subcommand(subcommand)

    def after_fit(self) -> None:
        """Test the chosen checkpoint as a task loaded afresh, then say what there is."""
        results: dict[str, float] = {}
        if self.checkpoint_path and self.trainer.is_global_zero:
            resuming.say_if_nothing_left(self.trainer, self.checkpoint, self.checkpoint_path)
        chosen = self._chosen()
        if chosen is not None and not self.config.fit.no_test and self._tests():
            results = self._test(restore.load(chosen), ckpt_path=None)
        self._report(results, chosen)

    def _chosen(self) -> Path | None:
        """The checkpoint to test: the run's best, else its last, else the complete one that it was to go on from."""
        if self.saver is None:
            return self._chosen_by_own()
        self.trainer.strategy.barrier()
        return self.saver.chosen if self.saver.chosen.is_file() else self.checkpoint_path or self.saver.chosen

    def _chosen_by_own(self) -> Path | None:
        """What the recipe's own callback has kept; a plugin's may keep it where nobody else finds it."""
        chosen, own = own_callbacks.chosen_by(self.own), [type(c).__name__ for c in self.own if own_callbacks.saves(c)]
        if chosen is None and own and self.trainer.is_global_zero:
            print(f"zoo: no checkpoint of {', '.join(own)} was found to test", flush=True)
        return chosen

    def _tests(self) -> bool:
        self.datamodule.setup("test")
        return self.datamodule.samples("test") is not None

    def test(self, model: Task, datamodule: Data, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Test a checkpoint, and write its metrics."""
        results = self._test(model, ckpt_path)
        if datamodule.samples("test") is None:
            raise UserError(f"{type(datamodule).__name__} has no test part")
        self._say_untrained(model)
        self._report(results)

    def _test(self, task: Task, ckpt_path: str | None) -> dict[str, float]:
        found = self.trainer.test(
            task, datamodule=self.datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True
        )
        return dict(found[0]) if found else {}

    def validate(self, model: Task, datamodule: Data, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Validate a checkpoint, and write its metrics."""
        found = self.trainer.validate(
            model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True
        )
        if datamodule.samples("val") is None:
            raise UserError(f"{type(datamodule).__name__} has no validation part")
        self._say_untrained(model)
        self._report(dict(found[0]) if found else {})

    def predict(self, model: Task, datamodule: Data, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Write pictures and a JSON file of predictions."""
        from zoo.training.predicting import PredictionFiles

        files = PredictionFiles(self.folder)
        self.trainer.callbacks.append(files)  # type: ignore[attr-defined]
        self.trainer.predict(
            model, datamodule=datamodule, ckpt_path=ckpt_path, return_predictions=False, weights_only=True
        )
        self._say_untrained(model)
        if self.trainer.is_global_zero:
            files.report()
        if files.unreadable:
            raise SystemExit(1)

    def _say_untrained(self, task: Task) -> None:
        """Say it where the weights are neither a checkpoint's nor pretrained weights for these classes."""
        given = self.checkpoint_path or (self.config[self.subcommand].model.get("init_args") or {}).get("weights")
        ready = bool(task.pretrained_classes) and len(task.pretrained_classes) == task.facts.get("num_classes")
        if self.trainer.is_global_zero and not given and not ready:
            print("zoo: without a checkpoint (--ckpt_path FILE) the network is untrained", file=sys.stderr, flush=True)

    def _report(self, results: dict[str, float], checkpoint: Path | None = None) -> None:
        report(self.trainer, self.folder, self.drawer, results, checkpoint)


def quiet() -> None:
    """Leave out what the libraries say about themselves; ``--debug`` shows it."""
    import logging

    if os.environ.get("ZOO_DEBUG"):
        return
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("default", message="Error detected in")  # where detect_anomaly found a NaN
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


def run(argv: list[str]) -> int:
    """Run one of the four commands.

    Args:
        argv: the command and its arguments.

    Returns:
        the exit status: 0, or 128 and the signal's number for a run that was asked to stop.

    Raises:
        UserError: something that the user can put right.
    """
    if "LOCAL_RANK" not in os.environ:
        os.environ.pop(run_folder.VARIABLE, None)
    quiet()
    outlive_readers()
    status = 1
    with requeue.listening(argv[0]):
        try:
            status = _run(argv)
        finally:
            wandb.finish(status)
            run_folder.forget_if_empty()
    return status


def _run(argv: list[str]) -> int:
    try:
        with explaining(Context()):
            ZooCLI(
                argv[0],
                save_config_callback=SaveRecipe,
                trainer_defaults={
                    "enable_autolog_hparams": False,
                    "use_distributed_sampler": False,
                    "enable_model_summary": False,
                },
                seed_everything_default=0,
                parser_class=ZooParser,
                auto_configure_optimizers=False,
                args=None if argv == sys.argv[1:] else argv,
            )
    except Stopped as stopped:
        return stopped.leave()
    return 0
