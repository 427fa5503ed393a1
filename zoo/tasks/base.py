"""What every task is: a training procedure that receives its networks, and all that is common to such procedures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from lightning.pytorch import LightningModule
from PIL import Image
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric, MetricCollection

from zoo import contracts, drawing
from zoo.architectures.base import Architecture, should_load_pretrained
from zoo.architectures.weights import misfit
from zoo.contracts import check_facts
from zoo.data.base import Data
from zoo.errors import UserError
from zoo.factories import KeepsArguments, build, class_of, factory_arguments, pretrained_classes, spec, takes
from zoo.facts import Facts
from zoo.metrics.computing import compute_and_reset
from zoo.metrics.naming import named_values
from zoo.tasks.checks import check_first_output, check_network, merged_facts
from zoo.tasks.exported import Exported, exported_network, refusal
from zoo.tasks.first_images import show_images
from zoo.tasks.normalize import Normalize, statistics_of
from zoo.tasks.shown import Shown, keep_shown
from zoo.training.checkpoints import RUN_KEY
from zoo.training.parameter_groups import (
    ParameterGroup,
    frozen_norms,
    make_optimizer,
    partial_first,
    plain_group,
    split_parameters,
)


class Task(KeepsArguments, LightningModule, ABC):
    """Base of every task.

    A task takes factories and plain numbers, which are kept as hyper-parameters; builds its networks in ``build`` once
    the data's facts are known; and optimises by one or more groups of parameters. Three of its arguments have a meaning
    here, where its constructor has them: ``facts`` (what is known of the data), ``weights`` (a checkpoint whose tensors
    are loaded where name and shape agree), and ``parameter_groups`` (parameters treated apart).

    Attributes:
        needs: facts without which it can't be built.
        monitor: the metric that chooses the best checkpoint, and ``monitor_mode`` whether more is better.
        batch: the form of a batch, one word of the contracts (``classification``, ``detection``, …).
        network: the role of its ``architecture``, where that is not what the form of batch says.
        loss_falls: whether training lowers the training loss; a policy gradient's says nothing.
        averaged: its networks whose weights ``MovingAverage`` averages; all of the task where it names none.
        predict_view: what it wants of a picture to predict: the central part at the size of its images (``center``),
            all of it at that size (``whole``), or the picture as it is, in a list (``native``).
        may_change: arguments that a resumed run may change; any other's change would be ignored, or end in another
            state than without the stop.
        example: arguments of a small instance, for tests.
        factories: its networks, optimisers and schedulers yet to be built, by argument.
        shown: the last evaluation's first images with predictions and truth, for ``pictures`` and ``overlays``.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    monitor: str = "val/loss"
    monitor_mode: str = "min"
    batch: ClassVar[str] = "classification"
    network: ClassVar[str] = ""
    loss_falls: ClassVar[bool] = True
    averaged: ClassVar[tuple[str, ...]] = ()
    predict_view: ClassVar[Literal["center", "whole", "native"]] = "center"
    may_change: ClassVar[tuple[str, ...]] = ("weights",)  # which are in the checkpoint
    example: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._built = False
        self._frozen_norms: list[nn.Module] = []
        self._made: dict[str, dict[str, Any]] = {}
        self.shown: list[Shown] = []
        self.factories: dict[str, Any] = {name: self.hparams.get(name) for name in factory_arguments(type(self))}
        self.parameter_groups = [plain_group(group) for group in self.hparams.get("parameter_groups") or ()]
        if "parameter_groups" in self.hparams:
            self.hparams["parameter_groups"] = self.parameter_groups or None
        self.hparams["facts"] = dict(self.hparams.get("facts") or {})
        check_facts(self.facts)
        self._weights = self.hparams.get("weights")

    # Building

    @abstractmethod
    def build(self) -> None:
        """Make the networks and metrics; ``self.facts`` is complete by now."""

    @property
    def facts(self) -> Facts:
        """What is known of the data."""
        return self.hparams["facts"]

    def add_facts(self, facts: Facts) -> None:
        """Take facts that a checkpoint holds; where the task was given others itself, those count.

        Raises:
            UserError: one of them is not known or not right.
        """
        check_facts(facts)
        self.hparams["facts"] = {**facts, **self.facts}

    def make(self, name: str, needs: tuple[str, ...] = (), **changes: Any) -> Any:
        """Build the factory of this name with the facts that it accepts.

        Args:
            name: the argument that the factory was given as.
            needs: facts that its class must accept.
            changes: facts that are other for this network than for the data.

        Raises:
            UserError: it has another role than the one that it is to play here.
        """
        known: dict[str, Any] = {**self.facts, **changes}
        known.setdefault("vocabulary_size", len(known.get("vocabulary") or ()))
        check_network(self, name)
        self._made[name] = known
        return build(self.factories[name], needs, **known)

    def role_of(self, name: str) -> str:
        """The role of the network that a factory argument builds; empty where any will do."""
        if name == "architecture":
            return self.network or contracts.form(self.batch).role
        return name if contracts.is_role(name) else ""

    def configure_model(self) -> None:
        """Merge the facts, build once, and load ``weights``; the trainer, weight averaging and ``load`` call it."""
        if self._built:
            return
        self.hparams["facts"] = self._with_pretrained_classes(merged_facts(self))
        if missing := [name for name in self.needs if name not in self.facts]:
            raise UserError(
                f"{type(self).__name__} needs {missing[0]}, which the data does not say: give model.facts.{missing[0]}"
            )
        self.build()
        self._built = True
        if self._weights:
            from zoo.training.checkpoints import load_matching

            load_matching(self, self._weights)
            self._weights = None
            self.hparams["weights"] = None  # they are in the task now; its checkpoints stand alone

    def _with_pretrained_classes(self, known: dict[str, Any]) -> dict[str, Any]:
        """The facts with the classes of pretrained weights, where nothing else says what the outputs are."""
        if "num_classes" not in self.needs or known.get("class_names") or not should_load_pretrained():
            return known
        names = self.pretrained_classes
        if not names or known.get("num_classes", len(names)) != len(names):
            return known
        return {**known, "num_classes": len(names), "class_names": names}

    @property
    def pretrained_classes(self) -> list[str]:
        """The classes of the first of its networks that has pretrained weights for some; empty where none has."""
        factories = [f for f in self.factories.values() if f is not None and issubclass(class_of(f), Architecture)]
        return next(filter(None, map(pretrained_classes, factories)), [])

    def on_fit_start(self) -> None:
        """Check each network's first output, and show training images to those parts that want to see some."""
        for name, known in self._made.items():
            check_first_output(self, name, known)
        normalize = next((m for m in self.children() if isinstance(m, Normalize)), nn.Identity())
        show_images(self, self.trainer.datamodule, normalize, self.device)  # type: ignore[attr-defined]

    # Optimising

    def optimizers_for(
        self,
        network: nn.Module,
        optimizer: str = "optimizer",
        scheduler: str | None = "scheduler",
        groups: Sequence[ParameterGroup] = (),
    ) -> dict[str, Any]:
        """An optimiser (and scheduler) as Lightning wants them, from the factories of these names.

        A scheduler that takes ``total_steps`` is stepped after every optimiser step, another after every epoch; one
        that waits for a plateau after every validation, by the task's ``monitor`` and its mode.
        """
        made = make_optimizer(self.factories[optimizer], split_parameters(network, groups))
        self._frozen_norms += frozen_norms(network, groups)
        self._hold_frozen_norms()
        factory = self.factories.get(scheduler) if scheduler else None
        if factory is None:
            return {"optimizer": made}
        by_step, plateau = takes(factory, "total_steps"), class_of(factory) is ReduceLROnPlateau
        factory = partial(factory, mode=self.monitor_mode) if plateau else factory
        schedule = build(partial_first(factory, made), total_steps=self._total_steps() if by_step else 0)
        config: dict[str, Any] = {"scheduler": schedule, "interval": "step" if by_step else "epoch"}
        if plateau:  # not for Lightning to step, nor to ask for the monitor where no validation was due
            config |= {"monitor": self.monitor, "reduce_on_plateau": False}
        return {"optimizer": made, "lr_scheduler": config}

    def _total_steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError("this scheduler needs the length of the run: give trainer.max_epochs or trainer.max_steps")
        return int(steps)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler; those that wait for a plateau are stepped by a callback at the validation's end instead."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

    def train(self, mode: bool = True) -> Self:
        """As every module, but frozen normalisation stays as in evaluation."""
        super().train(mode)
        self._hold_frozen_norms()
        return self

    def _hold_frozen_norms(self) -> None:
        for norm in self._frozen_norms:
            norm.eval()

    # Checkpoints

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # what is left out would change the task
        cls, checkpoint_path: Any, map_location: Any = None, **kwargs: Any
    ) -> Self:
        """Lightning's name for ``zoo.load``: the file alone rebuilds the task, read as data and under the import lists.

        Args:
            checkpoint_path: a checkpoint file or a run folder.
            map_location: the device that its tensors go to; left out, the CPU.
            kwargs: ``weights_only`` and ``strict`` where they are true or None; what else Lightning takes would change
                the task that the file describes.

        Raises:
            UserError: the file can't be read, was written by another class, or an argument is not taken.
        """
        from zoo.training.restore import load

        for name, value in kwargs.items():
            if name not in ("weights_only", "strict") or value not in (True, None):
                raise UserError(f"load_from_checkpoint takes no {name}={value!r}: the file alone says what is built")
        task = load(checkpoint_path, map_location or "cpu")
        if not isinstance(task, cls):
            raise UserError(f"{checkpoint_path} was written by {type(task).__name__}, which is not a {cls.__name__}")
        return task

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's, but weights of another network end in one line.

        Raises:
            UserError: names or shapes differ.
        """
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            reason = misfit(self.state_dict(), state_dict)
            raise UserError(f"the checkpoint's weights do not fit this task: {reason}") from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the hyper-parameters as plain data, so that the file alone rebuilds the task."""
        cls = type(self)
        values = {"_class_path": f"{cls.__module__}.{cls.__qualname__}", **self.hparams}
        values["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
        checkpoint["hyper_parameters"] = spec(values, cls.__name__)
        checkpoint[RUN_KEY] = {**checkpoint.get(RUN_KEY, {}), "statistics": statistics_of(self)}
        data = self._trainer.datamodule if self._trainer is not None else None  # type: ignore[attr-defined]
        if isinstance(data, Data):
            checkpoint.pop("datamodule_hyper_parameters", None)
            checkpoint[RUN_KEY]["data"] = data.plain_hparams()

    # Metrics of several numbers

    def log_computed(self, stage: str, metric: Metric | MetricCollection, **options: Any) -> dict[str, Any]:
        """Compute a metric that gives several numbers, log each as ``stage/name``, and reset it.

        For ``on_validation_epoch_end`` and ``on_test_epoch_end``; a metric that gives one number is better logged as
        such, by ``self.log``. Right on several processes, also where one was given no image: every process calls this.

        Args:
            stage: ``val`` or ``test``.
            metric: whose ``compute`` gives a dictionary; a child of this module, so that it is on its device.
            options: as ``log_values`` takes them.

        Returns:
            What the metric computed.
        """
        values = compute_and_reset(metric)
        self.log_values(stage, values, **options)
        return values

    def log_values(
        self,
        stage: str,
        values: Mapping[str, Any],
        class_names: Sequence[str] = (),
        missing: float | None = None,
        skip: Collection[str] = (),
    ) -> None:
        """Log numbers that are the same on every process, each as ``stage/name``; one for each class of a vector.

        A number that is not defined, for want of ground truth, is logged as NaN, which is never the best; a class's is
        not logged.

        Args:
            stage: ``val`` or ``test``.
            values: numbers or vectors over the classes, by name.
            class_names: of the vectors' entries; without them, vectors are not logged.
            missing: the value that stands for one that is not defined, such as the -1 of mean average precision.
            skip: names that are not logged.
        """
        for name, value in named_values(values, class_names, missing, skip).items():
            name = f"{stage}/{name.removeprefix(f'{stage}/')}"
            # The same on all; by taking the largest, to the last bit, so that all choose the same checkpoint.
            shown = name == self.monitor
            self.log(name, value.to(self.device), prog_bar=shown, sync_dist=True, reduce_fx="max")

    # What a task gives back

    def draw(self, images: Any, results: Any, truth: Any = None) -> list[Image.Image]:
        """Pictures of images with their results, for W&B, ``zoo predict`` and the gallery alike.

        Args:
            images: floats in [0, 1], as they are in a batch.
            results: as ``predict_step`` gives them.
            truth: what is right, as it is in a batch; None where that is not known.
        """
        raise NotImplementedError(f"{type(self).__name__} draws nothing")

    def as_json(self, results: Any) -> list[dict[str, Any]]:
        """The results of ``predict_step``, one plain dictionary an image."""
        raise NotImplementedError(f"{type(self).__name__} predicts nothing")

    def show(self, batch: Any, batch_idx: int) -> None:
        """Look at an evaluated batch for what ``pictures`` is to show; called after each while pictures are wanted.

        Keeps predictions of the first images, where the task can predict and draw and has no ``pictures`` of its own.
        """
        if type(self).pictures is Task.pictures:
            keep_shown(self, self.shown, batch, batch_idx)

    def pictures(self) -> dict[str, list[Image.Image]]:
        """Pictures of the last evaluation by name; as it stands, its first images drawn with their predictions."""
        drawn = [picture for one in self.shown for picture in self.draw(one.images, one.results, one.truth)]
        return {"predictions": [drawing.grid(drawn)]} if drawn else {}

    def overlays(self) -> dict[str, list[drawing.Overlay]]:
        """Images of the last evaluation with boxes or masks, by name, which loggers lay over them; as it stands, none.

        They take the place of ``pictures`` of the same name, except in the run's folder. As ``pictures`` and
        ``tables``, it is asked on the first process alone.
        """
        return {}

    def tables(self) -> dict[str, drawing.Table]:
        """Tables of the last evaluation for loggers, by name; as it stands, none."""
        return {}

    def finished(self) -> list[Image.Image]:
        """The pictures that are the product of a fit, written at its end; none for a task whose product is weights."""
        return []

    def write_files(self, folder: Path, results: Any) -> None:
        """Write further files of a batch of predictions beside ``predictions.json``; as it stands, none.

        Args:
            folder: where ``predictions.json`` goes.
            results: as ``predict_step`` gives them.
        """

    def write_summary(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write further files of all predictions beside ``predictions.json``; as it stands, none.

        Args:
            folder: where ``predictions.json`` lies.
            rows: its content: as ``as_json`` gives it, of all processes.
        """

    def exported(self) -> Exported:
        """What ``zoo export`` writes; as it stands, the call with images, or a generator's with noise.

        A task overrides it to name other inputs and outputs, or to put into the file what follows the network.

        Raises:
            UserError: its network can't be traced by itself, or its product is pictures.
        """
        if type(self).finished is not Task.finished:
            raise refusal(self, "its product is pictures, which a fit has written")
        return exported_network(self)

    @property
    def logs_now(self) -> bool:
        """Whether this step's values are wanted; at every step they would cost a small network half its speed."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        done = self.trainer.fit_loop.total_batch_idx + 1
        return done % max(1, every) == 0 or self.trainer.is_last_batch
