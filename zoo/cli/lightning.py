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
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.model_summary import ModelSummary

from zoo import registry
from zoo.architectures.base import skip_pretrained
from zoo.data.base import Data
from zoo.errors import UserError
from zoo.factories import class_of, spec, takes
from zoo.parsing import ZooParser, load_recipe, refuse_functions
from zoo.parsing_errors import user_message
from zoo.tasks.base import Task
from zoo.training import checkpoints, restore, run_folder, wandb
from zoo.training.callbacks import PictureWriter, Plateau, RequireValidation, RunCheckpoints, Stopped, progress

COMMANDS = ("fit", "validate", "test", "predict")
# What a resumed run must not change: its optimiser's state, its splits or their order would no longer be its own; how
# weights start, it would not heed.
FIXED_ON_RESUME = (
    "model.class_path",
    "model.init_args.architecture.init_args.init",
    "model.init_args.optimizer",
    "model.init_args.scheduler",
    "model.init_args.parameter_groups",
    "data.class_path",
    "data.init_args.batch_size",
    "data.init_args.drop_last",
    "data.init_args.val_fraction",
    "data.init_args.test_fraction",
    "data.init_args.split_seed",
    "seed_everything",
)


# Arguments of callbacks, loggers and profilers that say where they write.
PLACES = ("dirpath", "dir", "root_dir", "filename", "name", "version", "sub_dir", "prefix", "id")
# What a schedule over the whole run depends on.
LENGTH = ("max_epochs", "max_steps", "accumulate_grad_batches", "limit_train_batches")


class SaveRecipe(SaveConfigCallback):
    """Writes the resolved recipe into the run's folder before the first step, and gives it to the loggers.

    Not before the network is built and a checkpoint's weights are in it: a run that is refused there leaves no file.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, cli: ZooCLI) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.cli = cli

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Nothing: Lightning's writes here."""

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Write it, unless it is there already. Runs on rank zero."""
        text = yaml.safe_dump(self.cli.recipe, sort_keys=False)
        path = self.cli.folder / run_folder.RECIPE
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return
        with checkpoints.whole_file(run_folder.unused_path(path)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Say what runs where, once the network is built; give the loggers the recipe and the network's summary."""
        summary = ModelSummary(pl_module, max_depth=2)
        for logger in trainer.loggers:
            said = {"parameters": summary.total_parameters, "layers": str(summary)}
            logger.log_hyperparams({"recipe": self.cli.recipe, "model_summary": said})
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")
            (self.cli.folder / "model.txt").write_text(f"{summary}\n", encoding="utf-8")
            print(
                f"{type(pl_module).__name__} with {summary.trainable_parameters:,} parameters to train, on "
                f"{type(self.cli.datamodule).__name__}, {trainer.world_size} × {trainer.strategy.root_device.type}\n"
                f"all of it goes to {self.cli.folder}",
                flush=True,
            )


class ZooCLI(LightningCLI):
    """Lightning's command line over tasks and data modules."""

    # Options

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
        argv = list(sys.argv[1:] if args is None else args)
        self.recipe_names = [v for _, v in option_values(argv, "--config", "-c")]
        argv = with_recipe_files(argv)
        self.checkpoint_path, argv = with_checkpoint_file(argv, self.recipe_names)
        self.base: dict[str, Any] = {}
        if self.checkpoint_path:
            self.checkpoint = checkpoints.read(self.checkpoint_path)
            self.base = base_of(self.checkpoint, self.checkpoint_path, argv[0])
        before = {argv[0]: deepcopy(self.base)}  # the parser writes into lists that it is given
        given = parser.parse_object(before, defaults=False) if self.base else None
        self.config = parser.parse_args(argv, namespace=given)

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint override recipes and flags; ``parse_arguments`` has read it already."""

    # Before anything is built

    def before_instantiate_classes(self) -> None:
        """Check that all is there, and settle where the run lies and what logs it."""
        self.save_config_kwargs = {"cli": self}
        config = self.config[self.subcommand]
        for key, flag in (("model", "--model NAME"), ("data", "--data NAME")):
            if config.get(key) is None:
                raise UserError(f"no {key}: give a recipe (--config FILE), {flag}, or a checkpoint (--ckpt_path FILE)")
        refuse_functions(config)
        self.recipe = self._plain_recipe()
        fitting = self.subcommand == "fit"
        label = self._label()
        resumed = self.checkpoint_path if fitting else None
        self.folder = run_folder.folder_for(
            label if fitting else f"{self.subcommand}-{label}", resumed, config.get("out")
        )
        self._go_on_after_restart(config)
        if fitting and self.checkpoint_path:
            self._refuse_changes()
        config.trainer.default_root_dir = str(self.folder)
        self._choose_logger(config.trainer)
        for part in (config.trainer.callbacks, config.trainer.logger, config.trainer.profiler):
            self._keep_inside(part)

    def _plain_recipe(self) -> dict[str, Any]:
        """The resolved recipe under stable names, without what belongs to this one run."""
        try:
            text = self._parser(self.subcommand).dump(
                self.config[self.subcommand], format="yaml", skip_none=False, skip_validation=True
            )
        except yaml.YAMLError as error:  # a class whose default is no plain value, such as Lightning's Timer
            raise UserError(f"the recipe can't be kept as YAML: {error}") from error
        found = yaml.safe_load(text)
        keep = ("seed_everything", "trainer", "model", "data")
        return spec({k: found[k] for k in keep if k in found}, "recipe")

    def _label(self) -> str:
        record = checkpoints.run_record(self.checkpoint) if self.checkpoint_path else {}
        other = str(record.get("recipe_name") or self.recipe["model"]["class_path"].rpartition(".")[2])
        return label_of(self.recipe_names) or other

    def _refuse_changes(self) -> None:
        before = {"seed_everything": self.base.get("seed_everything"), "model": self.base["model"]}
        before["data"] = self.base.get("data")
        for key in FIXED_ON_RESUME:
            old, new = _get(before, key), _get(self.recipe, key)
            if old is not None and old != new:
                name = key.replace(".init_args", "").replace(".class_path", "")
                raise UserError(
                    f"{name} can't change when a run goes on: {_short(old)} in the checkpoint, {_short(new)} now "
                    f"(--model.weights {self.checkpoint_path} starts a new run from these weights)"
                )

    def _go_on_after_restart(self, config: Namespace) -> None:
        """A job that SLURM or torchrun starts again finds its own last checkpoint."""
        last = self.folder / "checkpoints" / "last.ckpt"
        restarted = "SLURM_JOB_ID" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
        if self.subcommand == "fit" and not self.checkpoint_path and restarted and last.is_file():
            self.checkpoint_path, self.checkpoint = last, checkpoints.read(last)
            self.base = base_of(self.checkpoint, last, "fit")
            config.ckpt_path = str(last)

    def _keep_inside(self, part: Any) -> None:
        """Where a callback, logger or profiler says where it writes, that lies in the run's folder.

        Raises:
            UserError: it is to lie elsewhere.
        """
        for one in part if isinstance(part, list) else ():
            self._keep_inside(one)
        if not isinstance(part, Namespace):
            return
        args: Any = part.get("init_args") or Namespace()
        for key in PLACES:
            value = args.get(key)
            if not isinstance(value, str) or value == str(self.folder):
                continue
            if Path(value).is_absolute() or ".." in Path(value).parts:
                raise UserError(f"trainer: {key} {value} lies outside the run's folder; give a path below it")
            if key == "dirpath":
                args[key] = str(self.folder / value)

    def _choose_logger(self, trainer: Namespace) -> None:
        if self.subcommand != "fit":
            trainer.logger = False
        elif trainer.logger is None or trainer.logger is True:
            trainer.logger = [Namespace(class_path="lightning.pytorch.loggers.WandbLogger", init_args=Namespace())]
        if trainer.logger is False:
            return
        chosen = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
        for logger in chosen:
            self._place_logger(logger)
        trainer.logger = chosen

    def _place_logger(self, logger: Namespace) -> None:
        """Everything that a logger writes lies in the run's folder; W&B goes on with the run of the checkpoint."""
        args = logger.init_args if "init_args" in logger else Namespace()
        logger.init_args = args
        args.save_dir = str(self.folder)
        if not logger.class_path.endswith(".WandbLogger"):
            return
        mode = wandb.configure_wandb(self.folder)
        args.project = args.get("project") if args.get("project") not in (None, "lightning_logs") else "zoo"
        args.name = args.get("name") or f"{self._label()}-{self.folder.name}"
        record = checkpoints.run_record(self.checkpoint) if self.checkpoint_path else {}
        if record.get("wandb_id") and self.checkpoint_path and run_folder.owner_of(self.checkpoint_path) is not None:
            args.id = record["wandb_id"]
        if mode == "offline" and args.get("log_model"):
            raise UserError("trainer.logger.log_model uploads checkpoints to W&B, but this run is offline")

    # Building

    def instantiate_classes(self) -> None:
        """Build data, task and trainer; whatever they refuse ends in one line."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, ImportError) as error:
            raise UserError(user_message(error)) from error
        if self.subcommand == "fit":
            self._refuse_synchronising_on_cpus()
        if self.subcommand == "fit" and self.checkpoint_path:
            self._refuse_another_length()

    def _refuse_synchronising_on_cpus(self) -> None:
        """PyTorch's synchronised batch norm would end every process in a traceback of its own."""
        strategy = self.trainer.strategy
        wanted = self.config_init.fit.trainer.sync_batchnorm and isinstance(strategy, ParallelStrategy)
        if wanted and strategy.root_device.type == "cpu":
            raise UserError(
                "trainer.sync_batchnorm: PyTorch synchronises batch norm on GPUs only; several CPU processes train "
                "without it, each with the statistics of its own share of the batch"
            )

    def _refuse_another_length(self) -> None:
        """A schedule over all steps is made for their number: a resumed run can't change it."""
        factory = self.model.factories.get("scheduler")
        if factory is None or not takes(factory, "total_steps"):
            return
        before, now = self.base.get("trainer") or {}, self.recipe["trainer"]
        for key in LENGTH:
            if key in before and before[key] != now[key]:
                raise UserError(
                    f"trainer.{key} can't change when a run goes on with {class_of(factory).__name__}, whose schedule "
                    f"is made for all its steps: {before[key]} in the checkpoint, {now[key]} now"
                )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the checkpoints, pictures, progress and atomic files of every run, where the recipe has not its own."""
        config = self.config_init[self.subcommand]["trainer"]
        plugins = config.get("plugins") or []
        plugins = list(plugins) if isinstance(plugins, list | tuple) else [plugins]
        for plugin in plugins:
            if getattr(plugin, "checkpoint_io", plugin) is None:  # one that wraps another, as AsyncCheckpointIO does
                plugin.checkpoint_io = checkpoints.AtomicCheckpointIO()
        if not any(isinstance(p, CheckpointIO) for p in plugins):
            plugins.append(checkpoints.AtomicCheckpointIO())
        own = config.get("callbacks") or []
        own = list(own) if isinstance(own, list | tuple) else [own]
        callbacks = [*own, *self._callbacks(config, own)]
        bar = any(isinstance(c, ProgressBar) for c in callbacks)
        return super().instantiate_trainer(plugins=plugins, callbacks=callbacks, enable_progress_bar=bar, **kwargs)

    def _callbacks(self, config: Any, own: Sequence[Any]) -> list[Any]:
        self.drawer = PictureWriter(self.folder / "pictures")
        added: list[Any] = [Plateau(), RequireValidation(), self.drawer]
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in own):
            added.append(progress())
        self.saver: RunCheckpoints | None = None
        wanted = config.get("enable_checkpointing") is not False and not config.get("fast_dev_run")
        if self.subcommand == "fit" and wanted and not any(isinstance(c, Checkpoint) for c in own):
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
        with skip_pretrained() if self.checkpoint_path else nullcontext():
            super()._run_subcommand(subcommand)

    def after_fit(self) -> None:
        """Test the chosen checkpoint as a task loaded afresh, then say what there is."""
        results: dict[str, float] = {}
        chosen = self._chosen()
        if chosen is not None and not self.config.fit.no_test and self._tests():
            results = self._test(restore.load(chosen), ckpt_path=None)
        self._report(results, chosen)

    def _chosen(self) -> Path | None:
        """The checkpoint to test: the run's best, else its last, else the complete one that it was to go on from."""
        if self.saver is None:
            return None
        self.trainer.strategy.barrier()
        if self.saver.chosen.is_file() or self.checkpoint_path is None:
            return self.saver.chosen
        print(f"zoo: {self.checkpoint_path} is the end of its run already: there is nothing to train", flush=True)
        return self.checkpoint_path

    def _tests(self) -> bool:
        self.datamodule.setup("test")
        return self.datamodule.samples("test") is not None

    def test(self, model: Task, datamodule: Data, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Test a checkpoint, and write its figures."""
        results = self._test(model, ckpt_path)
        if datamodule.samples("test") is None:
            raise UserError(f"{type(datamodule).__name__} has no test part")
        self._say_untrained(model)
        self._report(results, None)

    def _test(self, task: Task, ckpt_path: str | None) -> dict[str, float]:
        found = self.trainer.test(task, datamodule=self.datamodule, ckpt_path=ckpt_path, verbose=False)
        return dict(found[0]) if found else {}

    def validate(self, model: Task, datamodule: Data, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Validate a checkpoint, and write its figures."""
        found = self.trainer.validate(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False)
        if datamodule.samples("val") is None:
            raise UserError(f"{type(datamodule).__name__} has no validation part")
        self._say_untrained(model)
        self._report(dict(found[0]) if found else {}, None)

    def predict(self, model: Task, datamodule: Data, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Write pictures and a JSON file of predictions."""
        from zoo.training.predicting import PredictionFiles

        files = PredictionFiles(self.folder)
        self.trainer.callbacks.append(files)  # type: ignore[attr-defined]
        self.trainer.predict(model, datamodule=datamodule, ckpt_path=ckpt_path, return_predictions=False)
        self._say_untrained(model)
        if self.trainer.is_global_zero:
            files.report()
        if files.unreadable:
            raise SystemExit(1)

    def _say_untrained(self, task: Task) -> None:
        """Say it where the weights are neither a checkpoint's nor ready ones for these classes."""
        given = self.checkpoint_path or (self.config[self.subcommand].model.get("init_args") or {}).get("weights")
        ready = bool(task.pretrained_classes) and len(task.pretrained_classes) == task.facts.get("num_classes")
        if self.trainer.is_global_zero and not given and not ready:
            print("zoo: without a checkpoint (--ckpt_path FILE) the network is untrained", file=sys.stderr, flush=True)

    def _report(self, results: dict[str, float], checkpoint: Path | None) -> None:
        if not self.trainer.is_global_zero:
            return
        if results:
            path = run_folder.unused_path(self.folder / "results.json")
            path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        for name in sorted(results):
            print(f"{name} {results[name]:.4f}")
        rows = self._places(checkpoint)
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            print(f"{name:<{width}}  {value}", flush=True)

    def _places(self, checkpoint: Path | None) -> list[tuple[str, str]]:
        rows = [("result", str(path)) for path in self.drawer.results]
        rows.append(("run", str(self.folder)))
        if checkpoint is not None:
            rows.append(("checkpoint", str(checkpoint)))
        if any((self.folder / "pictures").glob("*.png")):
            rows.append(("pictures", str(self.folder / "pictures")))
        if place := wandb.where(self.trainer.loggers):
            rows.append(("W&B", place[0]))
            if place[1]:
                rows.append(("upload it", place[1]))
        if checkpoint is not None and hasattr(self.datamodule, "files"):
            short = self.folder if checkpoint.parent.parent == self.folder else checkpoint
            rows.append(("next", f"zoo predict --ckpt_path {short} \\"))
            rows.append(("", "  --data.files 'photos/*.jpg'"))  # a terminal may have 80 columns
        return rows


# Arguments that are read before the parser sees them


def option_values(argv: Sequence[str], *flags: str) -> list[tuple[int, str]]:
    """Position and value of each use of an option, ``--x v`` and ``--x=v`` alike."""
    found = []
    for i, text in enumerate(argv):
        if text in flags and i + 1 < len(argv):
            found.append((i + 1, argv[i + 1]))
        elif text.startswith(tuple(f"{flag}=" for flag in flags if flag.startswith("--"))):
            found.append((i, text.split("=", 1)[1]))
    return found


def _replaced(argv: list[str], at: int, value: str) -> None:
    argv[at] = f"{argv[at].split('=', 1)[0]}={value}" if argv[at].startswith("--") else value


def with_recipe_files(argv: list[str]) -> list[str]:
    """The arguments with every recipe's name replaced by its file."""
    argv = list(argv)
    for at, value in option_values(argv, "--config", "-c"):
        path = registry.find_recipe(value)
        _check_recipe(path)
        _replaced(argv, at, str(path))
    return argv


def _check_recipe(path: Path) -> None:
    try:
        content = load_recipe(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no recipe: it must hold keys (model, data, trainer)")


def with_checkpoint_file(argv: list[str], recipe_names: list[str]) -> tuple[Path | None, list[str]]:
    """The checkpoint's file, and the arguments with it in place of ``last`` or a run folder."""
    argv, found = list(argv), None
    for at, value in option_values(argv, "--ckpt_path"):
        if value == "last":
            found = checkpoints.find_last(Path("runs") / (label_of(recipe_names) or ""))
        elif argv[0] == "fit" and (last := Path(value) / "checkpoints" / "last.ckpt").is_file():
            found = last
        else:
            found = checkpoints.resolve(value)
        _replaced(argv, at, str(found))
    return found, argv


def label_of(recipe_names: list[str]) -> str | None:
    """What runs of these recipes are called: the first one's name that is no overlay; None where all are."""
    named = [n for n in recipe_names if not n.startswith("trainer/") and "/trainer/" not in n]
    if not named:
        return None
    installed = {r.path.resolve(): r.name for r in registry.recipes()}
    stem = Path(named[0].rpartition(":")[2]).name.removesuffix(".yaml")
    return installed.get(registry.find_recipe(named[0]).resolve(), stem)


def base_of(checkpoint: dict[str, Any], path: Path, command: str) -> dict[str, Any]:
    """What a checkpoint says for this command: the task always, the data where it is known, the trainer for a fit."""
    record = checkpoints.run_record(checkpoint)
    keys = ("seed_everything", "trainer", "data") if command == "fit" else ("data",)
    return {
        "model": checkpoints.task_spec(checkpoint, path),
        **{k: record[k] for k in keys if record.get(k) is not None},
    }


def _get(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 100 else f"{text[:97]}..."


def quiet() -> None:
    """Leave out what the libraries say about themselves; ``--debug`` shows it."""
    import logging

    if os.environ.get("ZOO_DEBUG"):
        return
    warnings.filterwarnings("ignore")
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
    status = 1
    try:
        status = _run(argv)
    finally:
        wandb.finish(status)
        run_folder.forget_if_empty()
    return status


def _run(argv: list[str]) -> int:
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    try:
        ZooCLI(
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
        print(f"zoo: {stopped}", flush=True)
        return stopped.status
    except (MisconfigurationException, FileNotFoundError, PermissionError) as error:
        if os.environ.get("ZOO_DEBUG"):
            raise
        raise UserError(" ".join(str(error).split())) from error
    except Exception as error:
        from zoo.training.acceleration import compile_error_message

        if (line := compile_error_message(error)) is None:
            raise
        raise UserError(line) from error
    return 0
