"""The network that ``zoo inspect`` inspects: from a checkpoint, a recipe or by its name, with its data and facts.

The arguments are those of ``zoo fit``, parsed by the same parser, so that anything that can be trained can be
inspected.
"""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ActionConfigFile, Namespace
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Subset

from zoo.architectures.base import Architecture, skip_pretrained
from zoo.cli.arguments import label_of, option_values, spelt_out, with_checkpoint_file, with_recipe_files
from zoo.cli.resuming import base_of
from zoo.data.base import Data
from zoo.data.files import read_image, upright_size
from zoo.data.loading import InMemory, Rows
from zoo.errors import UserError
from zoo.facts import Facts, class_names
from zoo.functional.views import crops
from zoo.insight.options import add_common_options
from zoo.parsing import ZooParser, refuse_functions
from zoo.parsing_errors import user_message
from zoo.registry import did_you_mean
from zoo.tasks.base import Task
from zoo.tasks.first_images import show_images, still_to_see
from zoo.tasks.normalize import Normalize
from zoo.training import checkpoints

IMAGE_SIZE = [224, 224]  # for a network given by its name, unless it defines a size


@dataclass
class Report:
    """Results of an inspection.

    Args:
        numbers: plain data, for the JSON file.
        pictures: images by name.
        lines: the main numbers as text.
    """

    numbers: dict[str, Any]
    pictures: dict[str, Image.Image]
    lines: list[str] = field(default_factory=list)


@dataclass
class Subject:
    """A network to inspect.

    Args:
        network: in evaluation mode.
        facts: facts about its input images.
        normalize: normalises images in [0, 1] for the network.
        label: its name in the output folder's name.
        data: the checkpoint's or recipe's data, if any; set up when images are needed.
    """

    network: Architecture
    facts: Facts
    normalize: nn.Module
    label: str
    data: Data | None = None

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    def deviation(self, channels: int) -> Tensor:
        """The normalisation's standard deviation, (1, channels, 1, 1); 1 without normalisation."""
        found = [m.std for m in self.normalize.modules() if isinstance(m, Normalize)]
        return found[0].cpu().float() if found else torch.ones(1, channels, 1, 1)

    def batches(self, count: int, size: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and labels of the data's test split (else its validation split).

        They are a fixed random sample: files are often sorted by class, so the first ones would be of one class.

        Args:
            count: maximum number of images.
            size: maximum batch size; the data's batch size is a limit, too.

        Raises:
            UserError: there is no such data.
        """
        for images, labels in islice(self._pictures(size, drawn=True), -(-count // size)):
            kept = min(len(images), count)
            count -= kept
            yield self.normalize(images[:kept].to(self.device)), labels[:kept].to(self.device)

    def _pictures(self, size: int, drawn: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Images in [0, 1] at the network's size and labels, in batches of ``size``; the last may be smaller."""
        data, split = self._evaluation_part()
        data.eval_batch_size = size
        loader = data.loader(split)
        if drawn:
            loader.samples = _shuffled(loader.samples)  # type: ignore[union-attr]
        for batch in loader:
            images, labels = data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)
            yield crops(images, self.facts["image_size"])[0], labels

    def _evaluation_part(self) -> tuple[Data, Any]:
        if self.data is None:
            raise UserError(
                "there are no images to measure with: give --data NAME, or a recipe or checkpoint with data"
            )
        if self.data.batch != "classification":
            raise UserError(f"{type(self.data).__name__} gives no labelled images, which are needed here")
        self.data.prepare_data()
        for stage, split in (("test", "test"), ("validate", "val")):
            self.data.setup(stage)
            if self.data.samples(split) is not None:  # type: ignore[arg-type]
                self._refuse_other_facts(self.data.facts)
                return self.data, split
        raise UserError(f"{type(self.data).__name__} has neither a test nor a validation part")

    def _refuse_other_facts(self, said: Facts) -> None:
        for name in ("in_channels", "num_classes"):
            own, others = self.facts.get(name), said.get(name)
            if own is not None and others is not None and own != others:
                network = type(self.network).__name__
                raise UserError(f"{network} was made for {name} {own}, {type(self.data).__name__} has {others}")

    def image(self, file: str | None, whole: bool = False) -> Tensor:
        """An image as the task takes it, in [0, 1], (C, H, W).

        Args:
            file: an image file; by default the data's first test image, else scikit-image's cat.
            whole: the whole image with the shorter side as the network's size, instead of the centre crop.

        Raises:
            UserError: it can't be read, or the network does not take this size.
        """
        if file is None and self.data is not None:
            if whole:
                raise UserError("--whole needs your own image (--image FILE), or a network without data")
            return next(self._pictures(1))[0][0]
        size, channels = self.facts["image_size"], self.facts["in_channels"]
        if channels not in (1, 3):
            raise UserError(f"the network wants {channels} channels; picture files have 1 or 3")
        source: Any = file if file is not None else cat_file()
        image = read_image(source, _whole_size(source, size) if whole else size, channels).float() / 255
        if whole:
            self._try(image)
        return image

    def _try(self, image: Tensor) -> None:
        try:
            with torch.no_grad():
                self.network(self.normalize(image[None].to(self.device)))
        except (RuntimeError, AssertionError) as error:  # what torch and timm raise for a size that does not fit
            raise UserError(f"--whole: {type(self.network).__name__} takes images of one size only") from error

    @property
    def class_names(self) -> list[str]:
        """Names of the outputs' classes: the data's, or the pretrained classes; else their numbers."""
        return class_names(self.facts)


def _shuffled(samples: Any) -> Any:
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    return Rows(samples, order) if isinstance(samples, InMemory) else Subset(samples, order.tolist())


def cat_file() -> Path:
    """The photograph of a cat that scikit-image includes."""
    import skimage

    return Path(skimage.__file__).parent / "data" / "chelsea.png"


def _whole_size(file: str | Path, size: Sequence[int]) -> list[int]:
    """Height and width of a whole image with the shorter side as in ``size``; multiples of 32 for strides."""
    sides = upright_size(file)
    scale = min(size) / min(sides)
    return [max(32, round(side * scale / 32) * 32) for side in sides]


# From arguments


def parser_for(what: str, about: str) -> ZooParser:
    """The options that every subcommand of ``zoo inspect`` has."""
    parser = ZooParser(prog=f"zoo inspect {what}", description=about)
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="Recipe's file or name: random weights")
    add_common_options(parser)
    parser.add_subclass_arguments(Architecture, "architecture", required=False, fail_untyped=False)
    parser.add_subclass_arguments(Task, "model", required=False, fail_untyped=False)
    parser.add_subclass_arguments(Data, "data", required=False, fail_untyped=False)
    parser.add_argument("--trainer", type=dict[str, Any] | None, default=None, help=SUPPRESS)  # recipes have it
    parser.add_argument("--seed_everything", type=bool | int, default=0, help="Seed of random weights")
    return parser


def parse(parser: ZooParser, argv: Sequence[str]) -> tuple[Namespace, Callable[[], Subject]]:
    """The options, and a function that builds the subject from them.

    Raises:
        UserError: not exactly one network is named, or an option does not apply here.
    """
    if stray := next((word for word in argv if word.startswith("--trainer")), None):
        raise UserError(f"{stray.partition('=')[0]}: nothing is trained here, so trainer options do not apply")
    argv = spelt_out(argv)
    argv = spelt_out(argv)
    names = [value for _, value in option_values(argv, "--config", "-c")]
    path, words = with_checkpoint_file(["inspect", *with_recipe_files(argv)], names)
    checkpoint = checkpoints.read(path) if path else None
    base = base_of(checkpoint, path, "test") if checkpoint and path else None
    given = parser.parse_object(base, defaults=False) if base else None
    options = parser.parse_args(words[1:], namespace=given)
    refuse_functions(options)
    if (options.architecture is None) == (options.model is None):
        raise UserError(
            "say which network: --ckpt_path FILE, --config RECIPE, or --architecture NAME"
            if options.model is None
            else "--architecture names a network by itself: leave out the recipe, checkpoint or --model"
        )
    if options.architecture is not None and options.network is not None:
        raise UserError("--network chooses among the networks of a task; --architecture names one by itself")
    record = checkpoints.run_record(checkpoint) if checkpoint else {}
    label = label_of(names) or record.get("recipe_name")
    return options, lambda: _subject(parser, options, label, checkpoint)


def _subject(parser: ZooParser, options: Namespace, label: Any, checkpoint: dict[str, Any] | None) -> Subject:
    from lightning.pytorch import seed_everything

    seed_everything(int(options.seed_everything), verbose=False)
    try:
        built = parser.instantiate(options)
        if options.architecture is not None:
            return _by_name(built, options.architecture)
        _build(built.model, built.data, checkpoint)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(user_message(error)) from error
    task = built.model.eval()
    network = named_network(task, options.network)
    normalize = next((m for m in task.modules() if isinstance(m, Normalize)), nn.Identity())
    return _placed(Subject(network, task.facts, normalize, str(label or type(task).__name__), built.data))


def _by_name(built: Namespace, spec: Namespace) -> Subject:
    network: Architecture = built.architecture.eval()
    said = spec.get("init_args") or {}
    facts = Facts(
        in_channels=said.get("in_channels") or network.fixed_channels or 3,
        image_size=list(said.get("image_size") or IMAGE_SIZE),
        num_classes=said.get("num_classes") or 0,
    )
    names = network.pretrained_classes(said)
    if len(names) == facts["num_classes"]:
        facts["class_names"] = names
    return _placed(Subject(network, facts, Normalize(network, facts), type(network).__name__, built.data))


def _build(task: Task, data: Data | None, checkpoint: dict[str, Any] | None) -> None:
    """Build the task's networks: with the checkpoint's weights, or random ones for the data."""
    if checkpoint is not None:
        task.add_facts(checkpoints.facts_in(checkpoint))
    if data is not None and any(fact not in task.facts for fact in task.needs):
        data.prepare_data()
        data.setup("validate")
        task.hparams["facts"] = {**data.facts, **task.facts}
    with skip_pretrained() if checkpoint is not None else nullcontext():
        task.configure_model()
    if checkpoint is not None:
        task.on_load_checkpoint(checkpoint)
        task.load_state_dict(checkpoint["state_dict"])


def named_network(task: Task, name: str | None) -> Architecture:
    """The task's network of this name; by default its only one.

    Raises:
        UserError: there is no network of this name, or there are several and no name was given.
    """
    found = {n: net for n in task.factories if isinstance(net := getattr(task, n, None), Architecture)}
    if name is not None and name not in found:
        known = " and ".join(found) or "none"
        raise UserError(f"{type(task).__name__} has no network {name}{did_you_mean(name, list(found))}: it has {known}")
    if name is None and len(found) != 1:
        raise UserError(f"{type(task).__name__} has {len(found)} networks: say --network {' or '.join(found)}")
    return found[name or next(iter(found))]


def _placed(subject: Subject) -> Subject:
    """Move to the device, and show a new network the images that its first filters are computed from."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is not None:
        subject.network.to(device)
        subject.normalize.to(device)
    if subject.data is not None and still_to_see(subject.network):
        subject.data.prepare_data()
        subject.data.setup("validate")
        show_images(subject.network, subject.data, subject.normalize, subject.device)
    return subject
