"""What every task is: a training procedure that receives its networks, and all that is common to such procedures."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol, Required, Self, TypedDict, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from zoo.architectures.base import Architecture, wants_pretrained
from zoo.checkpoints import RUN_KEY
from zoo.data.base import Data
from zoo.errors import UserError
from zoo.facts import Facts, OptimizerFactory, build, class_of, own_classes, plain, spec, takes
from zoo.optimizers import Together


class ParameterGroup(TypedDict, total=False):
    """Some of a task's parameters, treated apart.

    Args:
        pattern: regular expression that is searched in the parameter's name; the first group that matches has it.
        lr: learning rate, instead of the optimiser's.
        weight_decay: weight decay, instead of the optimiser's.
        optimizer: an optimiser of their own.
        frozen: leave these parameters as they are; and the running statistics of normalisation layers that have no
            others, which then normalise by them.
    """

    pattern: Required[str]
    lr: float
    weight_decay: float
    optimizer: OptimizerFactory
    frozen: bool


class Normalize(nn.Module):
    """Images in [0, 1] as the network wants them: repeated channels where its number is fixed, mean 0 and std 1.

    Args:
        network: gives its own mean and std where it has them, and its number of channels where that is fixed.
        facts: give what the network does not.

    Shape:
        images (B, C, H, W) in [0, 1] -> (B, C', H, W)
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Architecture, facts: Facts) -> None:
        super().__init__()
        channels = facts["in_channels"]
        fixed = network.fixed_channels
        if fixed is not None and channels not in (1, fixed):
            raise UserError(f"{type(network).__name__} takes {fixed} channels, the data has {channels}")
        self.repeat = fixed if fixed is not None and channels == 1 else 1
        for name, default in (("mean", 0.0), ("std", 1.0)):
            values: Sequence[float] = getattr(network, name) or facts.get(name) or [default]  # type: ignore[assignment]
            if len(values) not in (1, channels * self.repeat):
                raise UserError(f"the {name} has {len(values)} channels, the images have {channels * self.repeat}")
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images."""
        if self.repeat > 1:
            images = images.expand(-1, self.repeat, -1, -1)
        return (images - self.mean) / self.std


@runtime_checkable
class SeesImages(Protocol):
    """A network, or a part of one, that wants to see training images before its first step.

    What it makes of them it keeps with its weights, and then wants no more: so a resumed run, a fine-tuned network
    and every process of several see them once, or not at all.
    """

    wants_images: int  # how many; 0 when it has seen them

    def see(self, images: Tensor) -> None:
        """Look at them; as the network's own input, (N, C, H, W)."""
        ...


def still_to_see(network: nn.Module) -> list[SeesImages]:
    """The parts of a network that want to see images and have seen none."""
    return [module for module in network.modules() if isinstance(module, SeesImages) and module.wants_images]


def show_images(network: nn.Module, data: Data, normalize: nn.Module, device: torch.device) -> None:
    """Show training images, the same on every process, to those parts of a network that want to see some.

    Raises:
        UserError: the data has none to show.
    """
    for module in still_to_see(network):
        if not hasattr(data, "first_images"):
            count = module.wants_images
            raise UserError(f"the network wants to see {count} training images, but {type(data).__name__} shows none")
        module.see(normalize(data.first_images(module.wants_images).to(device)))


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
        self.parameter_groups = [_plain_group(group) for group in parameter_groups or ()]
        if "parameter_groups" in self.hparams and "_class_path" not in self.hparams:
            self.hparams["parameter_groups"] = self.parameter_groups or None
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
            from zoo.checkpoints import load_matching

            load_matching(self, self._weights)
            self._weights = None
            self.hparams["weights"] = None  # they are in the task now; its checkpoints stand alone

    def _merge_facts(self) -> None:
        data = self._trainer.datamodule if self._trainer is not None else None  # type: ignore[attr-defined]
        said = dict(getattr(data, "facts", None) or {})
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
        merged = self._with_own_classes({**said, **known})
        if missing := [name for name in self.needs if name not in merged]:
            raise UserError(
                f"{type(self).__name__} needs {missing[0]}, which the data does not say: give model.facts.{missing[0]}"
            )
        self.hparams["facts"] = merged

    def _with_own_classes(self, known: dict[str, Any]) -> dict[str, Any]:
        """The facts with the classes of a network's own weights, where nothing else says what its outputs are."""
        if "num_classes" not in self.needs or known.get("class_names") or not wants_pretrained():
            return known
        names = self.own_classes
        if not names or known.get("num_classes", len(names)) != len(names):
            return known
        return {**known, "num_classes": len(names), "class_names": names}

    @property
    def own_classes(self) -> list[str]:
        """The classes that the first of its networks with ready weights tells apart; empty where none has any."""
        factories = [f for f in self.factories.values() if f is not None and issubclass(class_of(f), Architecture)]
        return next(filter(None, map(own_classes, factories)), [])

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


def partial_first(factory: Any, first: Any) -> Any:
    """The factory with its first argument given by name."""
    name = next(iter(inspect.signature(class_of(factory)).parameters))
    return partial(factory, **{name: first})


def _plain_group(group: ParameterGroup) -> ParameterGroup:
    return {**group, "optimizer": plain(group["optimizer"], Optimizer)} if "optimizer" in group else group


def split_parameters(network: nn.Module, groups: Sequence[ParameterGroup] = ()) -> list[Any]:
    """The trainable parameters for an optimiser: a plain list, or one dictionary a group.

    Parameters that the network itself holds fixed are in none, but a pattern may match them.

    Raises:
        UserError: a group's pattern matches no parameter, or none that is left; a frozen group says how to train it; or
            every parameter is frozen.
    """
    matched, rest = _matches(network, groups)
    made: list[dict[str, Any]] = []
    for group, found in zip(groups, matched, strict=True):
        if group.get("frozen"):
            if meant := sorted(group.keys() & {"lr", "weight_decay", "optimizer"}):
                raise UserError(f"parameter_groups: {group['pattern']!r} is frozen, so {meant[0]} has no meaning there")
            for p in found.values():
                p.requires_grad_(False)
        options = {k: v for k, v in group.items() if k in ("lr", "weight_decay", "optimizer")}
        made.append({"params": [p for p in found.values() if p.requires_grad], **options})
    made.append({"params": [p for p in rest.values() if p.requires_grad]})
    made = [group for group in made if group["params"]]
    if not made:
        raise UserError("parameter_groups freezes every parameter: nothing is left to train")
    return made if groups else made[0]["params"]


def _matches(
    network: nn.Module, groups: Sequence[ParameterGroup]
) -> tuple[list[dict[str, nn.Parameter]], dict[str, nn.Parameter]]:
    """Each group's parameters by name, and those of none; the first match wins."""
    named = dict(network.named_parameters())
    rest, matched = dict(named), []
    for group in groups:
        if not any(re.search(group["pattern"], name) for name in named):
            raise UserError(f"parameter_groups: no parameter's name has {group['pattern']!r} in it")
        matched.append({name: p for name, p in rest.items() if re.search(group["pattern"], name)})
        if not matched[-1]:
            raise UserError(f"parameter_groups: groups before {group['pattern']!r} have all that it matches")
        rest = {name: p for name, p in rest.items() if name not in matched[-1]}
    return matched, rest


def frozen_norms(network: nn.Module, groups: Sequence[ParameterGroup]) -> list[nn.Module]:
    """Layers with running statistics whose every parameter is frozen by the groups.

    One without parameters is judged by those of the smallest module around it that has any.
    """
    matched, _ = _matches(network, groups)
    parts = zip(groups, matched, strict=True)
    frozen = {id(p) for group, found in parts if group.get("frozen") for p in found.values()}
    judged: dict[str, bool] = {}
    for name, module in network.named_modules():
        own = [id(p) in frozen for p in module.parameters()]
        judged[name] = all(own) if own else judged.get(name.rpartition(".")[0], False)
    modules = network.named_modules()
    return [m for name, m in modules if judged[name] and getattr(m, "running_mean", None) is not None]


def make_optimizer(factory: Any, params: Sequence[Any]) -> Optimizer:
    """The optimiser of these parameters or groups; of several where a group brings its own.

    Args:
        factory: of the parameters that bring none.
        params: as ``split_parameters`` makes them.
    """
    own = [group for group in params if isinstance(group, dict) and "optimizer" in group]
    rest = [group for group in params if not (isinstance(group, dict) and "optimizer" in group)]
    made = [factory(rest)] if rest else []
    for group in own:
        made.append(group["optimizer"]([{k: v for k, v in group.items() if k != "optimizer"}]))
    return Together(made) if len(made) > 1 else made[0]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."
