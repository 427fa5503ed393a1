"""What every task is: a training procedure that receives its networks, and all that is common to such procedures."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

from lightning.pytorch import LightningModule
from PIL import Image
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from zoo.architectures.base import Architecture, should_load_pretrained
from zoo.contracts import check_facts
from zoo.data.base import Data
from zoo.errors import UserError
from zoo.factories import build, class_of, plain, pretrained_classes, spec, takes
from zoo.facts import Facts
from zoo.tasks.first_images import show_images
from zoo.tasks.normalize import Normalize
from zoo.training.checkpoints import RUN_KEY
from zoo.training.parameter_groups import (
    ParameterGroup,
    frozen_norms,
    make_optimizer,
    partial_first,
    plain_group,
    split_parameters,
)


class Task(LightningModule, ABC):
    """Base of every task.

    A task takes factories and plain numbers, keeps them by ``self.keep(...)``, builds its networks in ``build`` once
    the data's facts are known, and optimises by one or more groups of parameters.

    Attributes:
        needs: facts without which it can't be built.
        monitor: the metric that chooses the best checkpoint, and ``monitor_mode`` whether more is better.
        batch: the form of a batch, one word of the contracts (``classification``, ``detection``, …).
        network: the role of its ``architecture``, where the form of a batch does not tell it.
        example: arguments of a small instance, for tests.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    monitor: str = "val/loss"
    monitor_mode: str = "min"
    batch: ClassVar[str] = "classification"
    network: ClassVar[str] = ""
    example: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._built = False
        self.factories: dict[str, Any] = {}
        self.parameter_groups: list[ParameterGroup] = []
        self._frozen_norms: list[nn.Module] = []

    def keep(
        self,
        facts: Facts | None = None,
        weights: str | None = None,
        parameter_groups: Sequence[ParameterGroup] | None = None,
        **factories: tuple[Any, type],
    ) -> None:
        """Remember the arguments: every factory checked at the door, everything as hyper-parameters.

        Args:
            facts: what a checkpoint or recipe says of the data; the data module adds what is missing.
            weights: a checkpoint whose tensors are loaded where name and shape agree.
            parameter_groups: the task's argument of this name, where it has one.
            factories: each a pair of the factory (or None) and the class that it must be a subclass of.
        """
        frame = inspect.currentframe()
        assert frame is not None
        self.save_hyperparameters(frame=frame.f_back, logger=False)
        self.factories = {k: None if f is None else plain(f, base) for k, (f, base) in factories.items()}
        for name, factory in self.factories.items():
            if factory is not None and "_class_path" not in self.hparams:
                self.hparams[name] = factory
        self.parameter_groups = [plain_group(group) for group in parameter_groups or ()]
        if "parameter_groups" in self.hparams and "_class_path" not in self.hparams:
            self.hparams["parameter_groups"] = self.parameter_groups or None
        check_facts(facts or {})
        self.hparams["facts"] = dict(facts or {})
        self._weights = weights

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
        """Build the factory of this name with the facts that it accepts."""
        known: dict[str, Any] = {**self.facts, **changes}
        known.setdefault("vocabulary_size", len(known.get("vocabulary") or ()))
        return build(self.factories[name], needs, **known)

    def configure_model(self) -> None:
        """Merge the facts, build once, and load ``weights``; the trainer, weight averaging and ``load`` call it."""
        if self._built:
            return
        self._merge_facts()
        self.build()
        self._built = True
        if self._weights:
            from zoo.training.checkpoints import load_matching

            load_matching(self, self._weights)
            self._weights = None
            self.hparams["weights"] = None  # they are in the task now; its checkpoints stand alone

    def _merge_facts(self) -> None:
        data = self._trainer.datamodule if self._trainer is not None else None  # type: ignore[attr-defined]
        said = dict(getattr(data, "facts", None) or {})
        check_facts(said, f"{type(data).__name__}.facts")
        known = dict(self.facts)
        predicting = self._trainer is not None and self._trainer.predicting
        if (form := getattr(data, "batch", self.batch)) != self.batch and not predicting:
            raise UserError(f"{type(self).__name__} wants data for {self.batch}, {type(data).__name__} is for {form}")
        if known and predicting:
            said = {}  # a person's own pictures: the data's classes have no say
        for name in self.needs:
            if name in said and name in known and said[name] != known[name]:
                raise UserError(
                    f"{type(self).__name__} was made for {name} {_short(known[name])}, "
                    f"the data has {_short(said[name])}"
                )
        merged = self._with_pretrained_classes({**said, **known})
        if missing := [name for name in self.needs if name not in merged]:
            raise UserError(
                f"{type(self).__name__} needs {missing[0]}, which the data does not say: give model.facts.{missing[0]}"
            )
        self.hparams["facts"] = merged

    def _with_pretrained_classes(self, known: dict[str, Any]) -> dict[str, Any]:
        """The facts with the classes of a network's own weights, where nothing else says what its outputs are."""
        if "num_classes" not in self.needs or known.get("class_names") or not should_load_pretrained():
            return known
        names = self.pretrained_classes
        if not names or known.get("num_classes", len(names)) != len(names):
            return known
        return {**known, "num_classes": len(names), "class_names": names}

    @property
    def pretrained_classes(self) -> list[str]:
        """The classes that the first of its networks with ready weights tells apart; empty where none has any."""
        factories = [f for f in self.factories.values() if f is not None and issubclass(class_of(f), Architecture)]
        return next(filter(None, map(pretrained_classes, factories)), [])

    def on_fit_start(self) -> None:
        """Show training images to those parts of the networks that want to see some."""
        normalize = getattr(self, "normalize", None)
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        show_images(self, data, normalize if isinstance(normalize, Normalize) else nn.Identity(), self.device)

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

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's, but weights of another network end in one line.

        Raises:
            UserError: names or shapes differ.
        """
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            raise UserError(f"the checkpoint's weights do not fit this task: {self._misfit(state_dict)}") from error

    def _misfit(self, given: Mapping[str, Any]) -> str:
        own = self.state_dict()
        for name, value in own.items():
            if name in given and given[name].shape != value.shape:
                return f"{name} has shape {list(given[name].shape)} there, {list(value.shape)} here"
        missing, stray = [n for n in own if n not in given], [n for n in given if n not in own]
        parts = [(missing, "not there"), (stray, "without a place here")]
        return (
            ", ".join(f"{len(names)} tensors are {what} ({names[0]} …)" for names, what in parts if names) or "damaged"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the hyper-parameters as plain data, so that the file alone rebuilds the task."""
        cls = type(self)
        values = {"_class_path": f"{cls.__module__}.{cls.__qualname__}", **self.hparams}
        values["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
        checkpoint["hyper_parameters"] = spec(values, cls.__name__)
        data = self._trainer.datamodule if self._trainer is not None else None  # type: ignore[attr-defined]
        if isinstance(data, Data):
            checkpoint.pop("datamodule_hyper_parameters", None)
            checkpoint[RUN_KEY] = {**checkpoint.get(RUN_KEY, {}), "data": data.plain_hparams()}

    # What a task gives back

    def draw(self, images: Any, results: Any, truth: Any = None) -> list[Image.Image]:
        """Pictures of images (floats in [0, 1]) with their results, for W&B, ``zoo predict`` and the gallery alike."""
        raise NotImplementedError(f"{type(self).__name__} draws nothing")

    def as_json(self, results: Any) -> list[dict[str, Any]]:
        """The results of ``predict_step``, one plain dictionary an image."""
        raise NotImplementedError(f"{type(self).__name__} predicts nothing")

    @property
    def logs_now(self) -> bool:
        """Whether this step's values are wanted; at every step they would cost a small network half its speed."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        done = self.trainer.fit_loop.total_batch_idx + 1
        return done % max(1, every) == 0 or self.trainer.is_last_batch


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."
