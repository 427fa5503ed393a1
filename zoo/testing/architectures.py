"""Checks of architectures, by role."""

from __future__ import annotations

import inspect
import io
from copy import deepcopy
from functools import cached_property, partial
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from zoo import contracts, registry
from zoo.architectures.base import Architecture
from zoo.contracts import Role
from zoo.errors import UserError
from zoo.factories import build, takes
from zoo.testing.checks import Failed, as_plain, check, expect, expect_same, one_line, same_bits, tensors
from zoo.testing.inputs import copied, doubles, first_samples, joined

SIZE, CLASSES, WORDS = 32, 5, 7
LABELLED = ("classifier", "segmenter", "detector", "instance_segmenter")
ENCODER = "VGG"  # the encoder or backbone, if an architecture's example does not give one


class ArchitectureCase:
    """An architecture in one of its roles, built from its ``example`` and the facts that the example does not give.

    Args:
        cls: the class.
        role: one word of ``cls.roles``; as a ``backbone`` it is built without classes.
    """

    kind = "architectures"

    def __init__(self, cls: type[Architecture], role: str) -> None:
        self.cls, self.role = cls, role
        self.facts: dict[str, Any] = {
            "num_classes": CLASSES,
            "in_channels": cls.fixed_channels or 3,
            "image_size": [SIZE, SIZE],
            "vocabulary_size": WORDS,
        }
        self.facts |= {k: v for k, v in cls.example.items() if k in self.facts}
        if role == "backbone":
            self.facts["num_classes"] = 0

    @staticmethod
    def roles(cls: type[Architecture]) -> tuple[str, ...]:
        """The class's roles, and ``backbone`` if it has stages."""
        has_stages = cls.stages is not Architecture.stages and "backbone" not in cls.roles
        return (*cls.roles, *(("backbone",) if has_stages else ()))

    def factory(self, **changes: Any) -> partial[Architecture]:
        """The class with all the arguments that it takes."""
        accepted = inspect.signature(self.cls).parameters
        known = {k: v for k, v in {**self.facts, **changes}.items() if k in accepted}
        return partial(self.cls, **{**self.cls.example, **encoders(self.cls), **known})

    def make(self, seed: int = 0, **changes: Any) -> Architecture:
        """A new network in evaluation mode."""
        torch.manual_seed(seed)
        return build(self.factory(**changes)).eval()

    @property
    def contract(self) -> Role:
        """The role's contract."""
        return contracts.role(self.role)

    def sizes(self, **changes: Any) -> dict[str, Any]:
        """The facts that the class takes, and the images' shape."""
        known = {**self.facts, **changes}
        return {k: v for k, v in known.items() if takes(self.cls, k) or k in ("in_channels", "image_size")}

    def ways(self, batch: int = 4, seed: int = 0, **changes: Any) -> list[tuple[Any, ...]]:
        """The arguments of every way to call a network in this role, each starting with the batch."""
        generator = torch.Generator().manual_seed(seed)
        return self.contract.inputs(self._reference, self.sizes(**changes), batch, generator)

    def inputs(self, batch: int = 4, seed: int = 0, **changes: Any) -> tuple[Any, ...]:
        """Arguments of a call, in the first of the ways."""
        return self.ways(batch, seed, **changes)[0]

    @cached_property
    def _reference(self) -> Architecture:
        return self.make()

    def raw(self, network: Architecture, inputs: tuple[Any, ...], seed: int = 0) -> Any:
        """The network's output, unprocessed."""
        torch.manual_seed(seed)
        return self.contract.call(network, inputs)

    def call(self, network: Architecture, inputs: tuple[Any, ...], seed: int = 0) -> list[Tensor]:
        """Every tensor in the network's output; for a backbone the feature maps, too."""
        torch.manual_seed(seed)
        maps = network.features(inputs[0]) if self.role == "backbone" else {}
        return tensors((self.contract.call(network, inputs), maps))

    def of_sample(self, network: Architecture, inputs: tuple[Any, ...], index: int = 0) -> list[Tensor]:
        """The network's output for one sample of a batch."""
        with torch.no_grad():
            if self.contract.of_sample is None:
                return [t[index : index + 1].clone() for t in self.call(network, inputs)]
            return [t.clone() for t in tensors(self.contract.of_sample(self.raw(network, inputs), index))]

    @torch.no_grad()
    def outputs(self, network: Architecture, inputs: tuple[Any, ...], seed: int = 0) -> list[Tensor]:
        """As ``call``, without gradients, copied."""
        return [t.clone() for t in self.call(network, inputs, seed)]

    def trained(self, seed: int = 0, **changes: Any) -> Architecture:
        """A network with all parameters random and running statistics computed from images."""
        network = self.make(seed, **changes)
        randomise(network, seed)
        norms = {m: m.momentum for m in network.modules() if hasattr(m, "running_mean")}
        for norm in norms:
            norm.momentum = 1.0  # type: ignore[assignment]  # else the signal of deep networks overflows in evaluation
        with torch.no_grad():
            network.train()
            self.raw(network, self.inputs(8, seed=seed + 1, **changes))
        for norm, momentum in norms.items():
            norm.momentum = momentum
        return network.eval()


def encoders(cls: type[Architecture]) -> dict[str, Any]:
    """A small registered backbone for the argument ``encoder`` or ``backbone``, if the class's example gives none."""
    open_ = [name for name in ("encoder", "backbone") if takes(cls, name) and name not in cls.example]
    if not open_:
        return {}
    network: Any = registry.find(ENCODER, "architectures")[0].load()
    small = partial(network, **{k: v for k, v in network.example.items() if k != "num_classes"})
    return dict.fromkeys(open_, small)


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Give every parameter random values of a scale that keeps the signal.

    Zero-initialised branches would hide the layers behind them.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            fan_in = max(1, p[0].numel()) if p.dim() > 1 else 1
            noise = torch.randn(p.shape, generator=random)
            p.copy_(noise * (2 / fan_in) ** 0.5 if p.dim() > 1 else 0.2 + 0.5 * noise.abs())


@check("architectures")
def is_built(case: ArchitectureCase) -> None:
    """Its role exists; ``example`` and the facts build it, and it can be called in every way of its role."""
    try:
        contracts.role(case.role)
    except UserError as error:
        raise Failed(str(error)) from error
    for way in case.ways(2):
        expect(case.outputs(case.make(), way), "a call gave no tensor")


@check("architectures", needs_building=False)
def says_what_it_is(case: ArchitectureCase) -> None:
    """Its docstring states shapes; it has a forward, and no training methods."""
    expect("Shape" in (case.cls.__doc__ or ""), "expected a docstring with a section Shape")
    for name in ("training_step", "validation_step", "test_step", "predict_step", "configure_optimizers"):
        inherited = getattr(LightningModule, name)
        expect(getattr(case.cls, name) is inherited, f"{name} belongs to tasks: an architecture has forward only")


@check("architectures")
def takes_the_facts(case: ArchitectureCase) -> None:
    """It takes the facts that its role needs; a network with classes also takes in_channels, or sets fixed_channels."""
    for name in case.contract.needs:
        expect(takes(case.cls, name), f"expected an argument {name}")
    if case.role in LABELLED and case.cls.fixed_channels is None:
        expect(takes(case.cls, "in_channels"), "expected an argument in_channels, or fixed_channels to be set")


@check("architectures")
def rebuilt_from_arguments(case: ArchitectureCase) -> None:
    """Its arguments are plain data, from which a recipe's parser builds the same network."""
    from zoo.parsing import from_spec

    written = as_plain(case.factory(), case.cls.__name__)
    torch.manual_seed(0)
    again, network = from_spec(Architecture, written), case.make()
    expect(type(again) is case.cls, f"rebuilt as {type(again).__name__}, expected {case.cls.__name__}")
    shapes, expected = ({k: tuple(v.shape) for k, v in n.state_dict().items()} for n in (again, network))
    expect(shapes == expected, f"rebuilt from its arguments, other tensors: {_first_other(shapes, expected)}")


def _first_other(a: dict[str, Any], b: dict[str, Any]) -> str:
    others = [f"{k} is {a.get(k)}, expected {b.get(k)}" for k in {**a, **b} if a.get(k) != b.get(k)]
    return others[0] if others else ""


@check("architectures")
def same_seed_same_weights(case: ArchitectureCase) -> None:
    """Its initial weights depend only on the seed, and are finite."""
    first, second = case.make(seed=3).state_dict(), case.make(seed=3).state_dict()
    expect(same_bits(first, second), "two networks of one seed have different weights")
    bad = [k for k, v in first.items() if not torch.isfinite(v).all()]
    expect(not bad, f"expected finite initial weights, {bad[:1]} is not")


@check("architectures")
def deterministic_in_evaluation(case: ArchitectureCase) -> None:
    """In evaluation mode the same input gives the same output, whatever the state of the random generators."""
    network, inputs = case.trained(), case.inputs()
    expect_same(case.outputs(network, inputs, seed=1), case.outputs(network, inputs, seed=2), "two calls", 1e-6)


@check("architectures", after=("deterministic_in_evaluation",))
def saved_and_loaded(case: ArchitectureCase) -> None:
    """Its ``state_dict`` can be loaded as plain data, and another instance then gives the same output."""
    network, file, inputs = case.trained(), io.BytesIO(), case.inputs()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = case.make(seed=9)
    try:
        other.load_state_dict(torch.load(file, weights_only=True))
    except Exception as error:
        raise Failed(f"its saved state does not load: {str(error).splitlines()[0]}") from error
    expect_same(case.outputs(other, inputs), case.outputs(network, inputs), "outputs after saving and loading")


@check("architectures", ("classifier",), after=("takes_the_facts",))
def logits_have_their_shape(case: ArchitectureCase) -> None:
    """Logits (B, num_classes), for any number of classes and of channels."""
    for classes, channels in ((CLASSES, 3), (3, 1), (2, 4)):
        channels = case.cls.fixed_channels or channels
        known = {"num_classes": classes, "in_channels": channels}
        (found, *_) = case.outputs(case.make(**known), case.inputs(2, **known))
        expect(tuple(found.shape) == (2, classes), f"logits {tuple(found.shape)}, expected (2, {classes})")


@check("architectures", after=("takes_the_facts", "logits_have_their_shape"))
def output_has_its_shape(case: ArchitectureCase) -> None:
    """Its output in evaluation mode is what its role specifies, in every way to call it, and is finite."""
    network = case.make()
    for way in case.ways(2):
        with torch.no_grad():
            found = case.raw(network, way)
        try:
            case.contract.check(found, way, case.sizes())
        except contracts.ContractError as error:
            raise Failed(str(error)) from error
        finite = all(bool(torch.isfinite(t).all()) for t in tensors(found) if t.is_floating_point())
        expect(finite, "expected finite values")


@check("architectures")
def gradient_reaches_every_parameter(case: ArchitectureCase) -> None:
    """Every parameter gets a gradient from the output, in training or in evaluation mode; see ``partly_trained``."""
    network, partly = case.trained(), case.cls.partly_trained
    dead = {name for name, p in network.named_parameters() if p.requires_grad and not name.startswith(partly)}
    modes = ((0, False), (1, True), (2, False)) if case.contract.smooth else ((0, True), (1, True), (2, True))
    for seed, training in modes:
        network.train(training).zero_grad()
        found = [t for t in case.call(network, case.inputs(seed=seed)) if t.requires_grad]
        expect(found, "its output has no gradient")
        torch.stack([(t * torch.randn_like(t)).sum() for t in found]).sum().backward()
        dead -= {n for n, p in network.named_parameters() if p.grad is not None and bool(p.grad.any())}
    expect(not dead, f"no gradient reaches {', '.join(sorted(dead)[:3])}{' …' if len(dead) > 3 else ''}")


@check("architectures")
def follows_its_dtype(case: ArchitectureCase) -> None:
    """As a network of float64 it takes and gives float64."""
    for found in case.outputs(case.make().double(), doubles(case.inputs(2))):
        expect(found.dtype in (torch.float64, torch.int64), f"a network of float64 gave {found.dtype}")


# In float64, since deep networks amplify the rounding errors of float32.
@check("architectures", after=("deterministic_in_evaluation", "follows_its_dtype"))
def samples_are_independent(case: ArchitectureCase) -> None:
    """In evaluation mode a sample's output does not depend on the others in its batch, nor on their number."""
    network, inputs = case.trained().double(), doubles(case.inputs(4))
    before = case.of_sample(network, inputs)
    other = joined(first_samples(inputs, 1), doubles(case.inputs(4, seed=5)))
    expect_same(case.of_sample(network, other), before, "the first output after the other samples changed")
    expect_same(case.of_sample(network, first_samples(inputs, 1)), before, "the first sample alone and in a batch")


@check("architectures")
def evaluation_changes_nothing(case: ArchitectureCase) -> None:
    """A call in evaluation mode changes no parameter, buffer, mode or input."""
    network, inputs = case.trained(), case.inputs()
    before, given = deepcopy(network.state_dict()), copied(inputs)
    case.outputs(network, inputs)
    changed = [k for k, v in network.state_dict().items() if not torch.equal(v, before[k])]
    expect(not changed, f"a call in evaluation mode changed {changed[:1]}")
    expect(same_bits(inputs, given), "a call wrote into its own input")
    expect(not any(m.training for m in network.modules()), "a call in evaluation mode switched to training mode")


@check("architectures", ("*", "-detector", "-instance_segmenter"), after=("deterministic_in_evaluation",))
def modes_differ_only_where_they_should(case: ArchitectureCase) -> None:
    """With dropout, stochastic depth and batch statistics disabled, training and evaluation mode agree."""
    network, inputs = case.trained(), case.inputs()
    expected = case.outputs(network, inputs)
    put_to_rest(network.train())
    expect_same(case.outputs(network, inputs), expected, "training and evaluation mode without dropout and statistics")


def put_to_rest(network: nn.Module) -> None:
    """Disable dropout and stochastic depth; batch norm uses its running statistics."""
    for module in network.modules():
        for name in ("p", "drop_prob", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
        if hasattr(module, "running_mean"):
            module.eval()


@check("architectures", after=("deterministic_in_evaluation",))
def copies_are_whole(case: ArchitectureCase) -> None:
    """A deep copy computes the same, shares no memory, and has no reference to a trainer or data."""
    network, inputs, memo = case.trained(), case.inputs(2), {}  # type: ignore[var-annotated]
    copy = deepcopy(network, memo)
    expect_same(case.outputs(copy, inputs), case.outputs(network, inputs), "the outputs of a deep copy", 1e-6)
    own = {p.data_ptr() for p in network.state_dict().values() if p.numel()}
    shared = [k for k, v in copy.state_dict().items() if v.numel() and v.data_ptr() in own]
    expect(not shared, f"a deep copy shares the memory of {shared[:1]}")
    dragged = [type(v).__name__ for v in memo.values() if isinstance(v, Trainer | LightningDataModule)]
    expect(not dragged, f"a deep copy has a reference to a {dragged[:1]}")


@check(
    "architectures",
    ("*", "-backbone", "-detector", "-instance_segmenter"),  # whose arguments are lists
    after=("deterministic_in_evaluation", "follows_its_dtype"),
)
def export_agrees(case: ArchitectureCase) -> None:
    """``torch.export`` gives a program that computes the same, for other inputs and another batch, too."""
    network, inputs = case.trained().double(), doubles(case.inputs(2))
    others = doubles(case.inputs(3, seed=7))
    batches = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    with torch.no_grad():
        found = tensors(torch.export.export(network, inputs, dynamic_shapes=batches).module()(*others))
    expect_same(found, case.outputs(network, others), "the exported program and the network")


@check("architectures", ("classifier",))
def refuses_tiny_images_in_one_line(case: ArchitectureCase) -> None:
    """An image of one pixel works, or raises a one-line error when the network is built."""
    if not takes(case.cls, "image_size"):
        return
    with one_line("image_size [1, 1]", must=False):
        case.call(case.make(image_size=[1, 1]), case.inputs(2, image_size=[1, 1]))


@check("architectures", needs_building=False)
def says_its_licence(case: ArchitectureCase) -> None:
    """If it can load weights, it states their licence."""
    loads = any(takes(case.cls, name) for name in ("pretrained", "weights"))
    expect(not loads or case.cls.licence, "it can load weights: expected their licence as a class attribute")
