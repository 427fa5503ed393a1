"""The conformance kit: sound entries pass it, and each planted fault is caught by the check meant for it alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam
from torch.utils.data import get_worker_info
from torchmetrics import MeanMetric

from zoo import registry, testing
from zoo.architectures.base import Architecture, Stage
from zoo.architectures.captioner import Captioner
from zoo.cli.check import main
from zoo.data.base import Data
from zoo.data.folder import ImageFolder
from zoo.data.images import InMemoryImages
from zoo.data.loading import Loader
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory
from zoo.facts import Facts
from zoo.tasks.art.texture import TextureSynthesis
from zoo.tasks.base import Task
from zoo.testing import checks, runner

SLOW = ("export_agrees", "a_few_steps_lower_the_loss", "checkpoint_is_enough")  # run for a fault only where it is meant


# Sound entries, with all that a careless check would take for a fault


class SoundNet(Architecture):
    """Batch statistics, dropout, in-place activations, and a branch that starts at zero.

    Shape:
        images (B, C, H, W) -> logits (B, num_classes), or the last map without classes
    """

    example = {"width": 4}

    def __init__(
        self, num_classes: int = 5, in_channels: int = 3, image_size: tuple[int, int] = (32, 32), width: int = 4
    ) -> None:
        super().__init__()
        if min(image_size) < 4:
            raise UserError(f"SoundNet needs 4 pixels, image_size is {list(image_size)}")
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.branch = nn.Conv2d(width, width, 3, 1, 1)
        nn.init.zeros_(self.branch.weight)
        self.down = nn.Conv2d(width, 2 * width, 2, 2)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(2 * width, num_classes) if num_classes else None

    @property
    def stages(self) -> list[Stage]:
        width = self.branch.out_channels
        return [Stage("stem.1", width, 2), Stage("down", 2 * width, 4)]

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = self.down(x + self.branch(x))
        return x if self.head is None else self.head(self.dropout(x.mean((2, 3))))


class SoundData(InMemoryImages):
    """Noise with a bar, in memory; 33 to train, 6 to validate, 13 to test."""

    native_size = 8
    in_channels = 1
    class_names = ("a", "b", "c")
    mean, std = (0.3,), (0.2,)
    licence = "made on the spot"
    about = "3 classes, 13 images of each to train, 8x8"
    example = {"val_fraction": 0.15}
    loader_class: type[Loader] = Loader

    def read(self, part: str) -> tuple[Tensor, Tensor]:
        count = 39 if part == "train" else 13
        generator = torch.Generator().manual_seed(count)
        images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return images, torch.arange(count) % 3

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, rest = super().on_after_batch_transfer(batch, dataloader_idx)
        return (images * (0.9 + 0.1 * torch.rand_like(images)) if self.trainer.training else images), rest

    def loader(self, split: Any) -> Any:
        made = super().loader(split)
        if isinstance(made, Loader) and split != "predict":
            made.__class__ = self.loader_class
        return made


class SoundTask(Task):
    """Cross-entropy with everything that a task must have."""

    needs = ("num_classes", "in_channels", "image_size")
    example = {"architecture": SoundNet}

    def __init__(
        self, architecture: ArchitectureFactory, optimizer: OptimizerFactory = Adam, facts: Facts | None = None
    ) -> None:
        super().__init__()

    def build(self) -> None:
        self.architecture = self.make("architecture", needs=("num_classes",))
        self.figure = MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        return self.architecture(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def _evaluate(self, batch: Any, name: str) -> None:
        self.figure.update(F.cross_entropy(self(batch[0]), batch[1], reduction="none"))
        self.log(name, self.figure)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, "val/loss")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, "test/loss")

    def predict_step(self, batch: Any, batch_idx: int) -> list[dict[str, Any]]:
        scores = self(batch[0]).softmax(1)
        return [{"name": n, "scores": s.tolist()} for n, s in zip(batch[1], scores, strict=True)]

    def as_json(self, results: Any) -> list[dict[str, Any]]:
        return results

    def draw(self, images: Any, results: Any, truth: Any = None) -> list[Image.Image]:
        return [Image.new("RGB", (8, 8)) for _ in results]

    def configure_optimizers(self) -> Any:
        return self.optimizers_for(self.architecture)


class _Convolution(Architecture):
    def __init__(self, num_classes: int = 5, in_channels: int = 3) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, num_classes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images)


class SoundSegmenter(_Convolution):
    """A class a pixel. Shape: images (B, C, H, W) -> logits (B, num_classes, H, W)."""

    roles = ("segmenter",)


class SoundTransform(_Convolution):
    """Images to images. Shape: images (B, 3, H, W) -> the same."""

    roles = ("transform",)
    example = {"num_classes": 3}


class SoundDiscriminator(_Convolution):
    """Real or made. Shape: images (B, C, H, W) -> (B,)."""

    roles = ("discriminator",)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(images).mean((1, 2, 3))


class SoundDenoiser(_Convolution):
    """The noise in an image. Shape: x_t (B, C, H, W), t (B,) -> like x_t."""

    roles = ("denoiser",)
    example = {"num_classes": 3}

    def __init__(self, num_classes: int = 3, in_channels: int = 3) -> None:
        super().__init__(in_channels, in_channels)
        self.kinds = nn.Embedding(num_classes + 1, in_channels)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        kinds = self.kinds.weight[-1:] if labels is None else self.kinds(labels)
        return super().forward(x_t) * (1 + t.view(-1, 1, 1, 1)) + kinds[:, :, None, None]


class SoundCaptioner(Captioner):
    """The next word. Shape: images (B, C, H, W), tokens (B, T) -> logits (B, T, vocabulary)."""

    def __init__(self, vocabulary_size: int = 9, in_channels: int = 3) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, 4)
        self.look, self.say = nn.Conv2d(in_channels, 4, 2), nn.Linear(4, vocabulary_size)

    def encode(self, images: Tensor) -> Tensor:
        return self.look(images).flatten(2).transpose(1, 2)

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        return self.say((self.words(tokens).cumsum(1) + memory.mean(1, keepdim=True)).tanh())


class SoundMix(SoundData):
    """Soft labels in training."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, labels = super().on_after_batch_transfer(batch, dataloader_idx)
        return images, F.one_hot(labels, 3).to(images.dtype) if self.trainer.training else labels


class SoundBoxes(Data):
    """Lists of images of two sizes, with one box or none each."""

    batch = "detection"
    licence = "made on the spot"
    about = "2 classes, 10 images to train, 4 to validate, 4 to test"
    width = 4.0

    def __init__(self, batch_size: int = 3, eval_batch_size: int | None = None, num_workers: int = 0) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers)

    @property
    def facts(self) -> Facts:
        return {"num_classes": 2, "class_names": ["a", "b"], "in_channels": 3}

    def samples(self, split: Any) -> Any:
        counts = {"train": range(10), "val": range(10, 14), "test": range(14, 18)}
        return [self.sample(n) for n in counts[split]] if split in counts else None

    def sample(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = torch.full((3, 6, 6 + number % 2), 0.2 + 0.01 * number)
        boxes = torch.tensor([[1.0, 1.0, self.width, 5.0]])[: number % 3]
        return image, {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64)}

    def collate(self, samples: list[Any]) -> Any:
        images, targets = zip(*samples, strict=True)
        return list(images), list(targets)


# Faults of architectures


class MixesSamples(SoundNet):
    __doc__ = SoundNet.__doc__

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(0, keepdim=True))


class NormalisesByTheBatchInEvaluation(SoundNet):
    __doc__ = SoundNet.__doc__

    def __init__(self, num_classes: int = 5, in_channels: int = 3, width: int = 4) -> None:
        super().__init__(num_classes, in_channels, width=width)
        self.stem[1] = nn.BatchNorm2d(width, track_running_stats=False)


class HasADeadParameter(SoundNet):
    __doc__ = SoundNet.__doc__

    def __init__(self, num_classes: int = 5, in_channels: int = 3, width: int = 4) -> None:
        super().__init__(num_classes, in_channels, width=width)
        self.forgotten = nn.Linear(2, 2)


class HasOneLogitTooMany(SoundNet):
    __doc__ = SoundNet.__doc__

    def __init__(self, num_classes: int = 5, in_channels: int = 3, width: int = 4) -> None:
        super().__init__(num_classes + 1 if num_classes else 0, in_channels, width=width)


class HasStateThatIsNotSaved(SoundNet):
    __doc__ = SoundNet.__doc__

    def __init__(self, num_classes: int = 5, in_channels: int = 3, width: int = 4) -> None:
        super().__init__(num_classes, in_channels, width=width)
        self.scale = 1 + torch.rand(())

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * self.scale)


class IsRandomInEvaluation(SoundNet):
    __doc__ = SoundNet.__doc__

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + torch.randn_like(images))


class IsAnotherNetworkInTraining(SoundNet):
    __doc__ = SoundNet.__doc__

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * 2 if self.training else images)


class TellsWrongChannels(SoundNet):
    __doc__ = SoundNet.__doc__

    @property
    def stages(self) -> list[Stage]:
        return [Stage("stem.1", 7, 2), Stage("down", 8, 4)]


class TellsWrongReduction(SoundNet):
    __doc__ = SoundNet.__doc__

    @property
    def stages(self) -> list[Stage]:
        return [Stage("stem.1", 4, 4), Stage("down", 8, 4)]


class LeavesAHook(SoundNet):
    __doc__ = SoundNet.__doc__

    def features(self, images: Tensor, layers: Any = None) -> dict[str, Tensor]:
        self.down.register_forward_hook(lambda *_: None)
        return super().features(images, layers)


class LeavesInPlaceOff(SoundNet):
    __doc__ = SoundNet.__doc__

    def features(self, images: Tensor, layers: Any = None) -> dict[str, Tensor]:
        found = super().features(images, layers)
        self.stem[2].inplace = False
        return found


class GivesMapsThatAreOverwritten(SoundNet):
    __doc__ = SoundNet.__doc__

    def features(self, images: Tensor, layers: Any = None) -> dict[str, Tensor]:
        found = super().features(images, layers)
        self._kept = found
        return found

    def forward(self, images: Tensor) -> Tensor:
        for map_ in getattr(self, "_kept", {}).values():
            map_.detach().zero_()
        return super().forward(images)


class TakesATensor(SoundNet):
    __doc__ = SoundNet.__doc__
    example = {"scale": torch.ones(())}

    def __init__(self, num_classes: int = 5, in_channels: int = 3, scale: Any = None) -> None:
        super().__init__(num_classes, in_channels)


class WritesIntoItsInput(SoundNet):
    __doc__ = SoundNet.__doc__

    def forward(self, images: Tensor) -> Tensor:
        images.data.relu_()
        return super().forward(images)


class CountsInEvaluation(SoundNet):
    __doc__ = SoundNet.__doc__

    def __init__(self, num_classes: int = 5, in_channels: int = 3, width: int = 4) -> None:
        super().__init__(num_classes, in_channels, width=width)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images)


class InsistsOnSinglePrecision(SoundNet):
    __doc__ = SoundNet.__doc__

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).float()


class HoldsData(SoundNet):
    __doc__ = SoundNet.__doc__

    def __init__(self, num_classes: int = 5, in_channels: int = 3, width: int = 4) -> None:
        super().__init__(num_classes, in_channels, width=width)
        self.source = SoundData()


class FailsSomewhereOnTinyImages(SoundNet):
    __doc__ = SoundNet.__doc__
    example = {}

    def __init__(self, num_classes: int = 5, in_channels: int = 3, image_size: tuple[int, int] = (32, 32)) -> None:
        super().__init__(num_classes, in_channels)
        nn.init.normal_(torch.empty(min(image_size) - 2))


class BranchesOnItsInput(SoundNet):
    __doc__ = SoundNet.__doc__

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.sum() > 0 else images + 1)


class TrainsItself(SoundNet):
    __doc__ = SoundNet.__doc__

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0]).sum()


class HasWeightsOfUnknownLicence(SoundNet):
    __doc__ = SoundNet.__doc__
    example = {}

    def __init__(self, num_classes: int = 5, in_channels: int = 3, pretrained: bool = False) -> None:
        super().__init__(num_classes, in_channels)


class NeedsFixedChannelsSilently(SoundNet):
    __doc__ = SoundNet.__doc__

    def __init__(self, num_classes: int = 5, width: int = 4) -> None:
        super().__init__(num_classes, 3, width=width)


class IsInitialisedOutsideTheSeed(SoundNet):
    __doc__ = SoundNet.__doc__

    def __init__(self, num_classes: int = 5, in_channels: int = 3, width: int = 4) -> None:
        super().__init__(num_classes, in_channels, width=width)
        self.branch.bias.data = torch.from_numpy(np.random.default_rng().random(width, dtype=np.float32))


class SegmentsIntoTooMany(Architecture):
    """One class too many.

    Shape:
        images (B, 3, H, W) -> logits (B, num_classes, H, W)
    """

    roles = ("segmenter",)

    def __init__(self, num_classes: int = 5, in_channels: int = 3) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, num_classes + 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images)


class DefaultsToAFunction(SoundNet):
    __doc__ = SoundNet.__doc__

    def __init__(
        self, num_classes: int = 5, in_channels: int = 3, width: int = 4, act: Callable[[Tensor], Tensor] = torch.relu
    ) -> None:
        super().__init__(num_classes, in_channels, width=width)


class CannotBeBuilt(SoundNet):
    __doc__ = SoundNet.__doc__

    def __init__(self, num_classes: int = 5, in_channels: int = 3, width: int = 4) -> None:
        raise ValueError("no")


NETS: dict[type, str] = {
    DefaultsToAFunction: "defaults_are_plain",
    MixesSamples: "samples_are_independent",
    NormalisesByTheBatchInEvaluation: "samples_are_independent",
    HasADeadParameter: "gradient_reaches_every_parameter",
    HasOneLogitTooMany: "logits_have_their_shape",
    HasStateThatIsNotSaved: "saved_and_loaded",
    IsRandomInEvaluation: "deterministic_in_evaluation",
    IsAnotherNetworkInTraining: "modes_differ_only_where_they_should",
    TellsWrongChannels: "stages_are_as_told",
    TellsWrongReduction: "stages_are_as_told",
    LeavesAHook: "features_leave_no_trace",
    LeavesInPlaceOff: "features_leave_no_trace",
    GivesMapsThatAreOverwritten: "features_leave_no_trace",
    TakesATensor: "rebuilt_from_arguments",
    WritesIntoItsInput: "evaluation_changes_nothing",
    CountsInEvaluation: "evaluation_changes_nothing",
    InsistsOnSinglePrecision: "follows_its_dtype",
    HoldsData: "copies_are_whole",
    FailsSomewhereOnTinyImages: "refuses_tiny_images_in_one_line",
    BranchesOnItsInput: "export_agrees",
    TrainsItself: "says_what_it_is",
    HasWeightsOfUnknownLicence: "says_its_licence",
    IsInitialisedOutsideTheSeed: "same_seed_same_weights",
    NeedsFixedChannelsSilently: "takes_the_facts",
    SegmentsIntoTooMany: "output_has_its_shape",
    CannotBeBuilt: "is_built",
}


# Faults of data


class OverlapsByOne(SoundData):
    """A validation image is trained on."""

    def setup(self, stage: str | None = None) -> None:
        new = "train" not in self._splits
        super().setup(stage)
        if not new or stage != "fit":
            return
        source, kept = self._splits["train"]
        self._splits["val"] = source, torch.cat((self._splits["val"][1], kept[:1]))


class SplitsByChance(SoundData):
    """Splits anew each time."""

    def setup(self, stage: str | None = None) -> None:
        new = "train" not in self._splits
        super().setup(stage)
        if new and stage == "fit":
            order = torch.randperm(39)
            self._splits |= {"train": (self._splits["train"][0], order[6:]), "val": (self._splits["val"][0], order[:6])}


class CountsLabelsFromOne(SoundData):
    """Labels from 1 to 3."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, labels = super().on_after_batch_transfer(batch, dataloader_idx)
        return images, labels + 1 if isinstance(labels, Tensor) else labels


class NormalisesImages(SoundData):
    """What is the task's to do."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, labels = super().on_after_batch_transfer(batch, dataloader_idx)
        return ((images - 0.3) / 0.2 if isinstance(labels, Tensor) else images), labels


class _Padding(Loader):
    def __iter__(self) -> Iterator[Any]:
        for images, labels in super().__iter__():
            more = self.batch_size - len(images) if not self.train else 0
            yield torch.cat((images, images[:more])), torch.cat((labels, labels[:more]))


class PadsEvaluation(SoundData):
    """The last batch is filled up."""

    loader_class = _Padding


class _Global(Loader):
    def indices(self, epoch: int = 0, start: int = 0) -> Iterator[Tensor]:
        shares = list(super().indices(epoch, start))
        order = torch.randperm(len(self.samples)) if self.train else torch.arange(len(self.samples))
        yield from (order[share] for share in shares)


class ShufflesByTheGlobalGenerator(SoundData):
    """Order depends on who drew before."""

    loader_class = _Global


class _FirstEpoch(Loader):
    def _position(self) -> tuple[int, int]:
        return 0, super()._position()[1]


class ShufflesOnce(SoundData):
    """Every epoch in one order."""

    loader_class = _FirstEpoch


class _FromTheStart(Loader):
    def _position(self) -> tuple[int, int]:
        return super()._position()[0], 0


class StartsAgain(SoundData):
    """A resumed epoch begins anew."""

    loader_class = _FromTheStart


class _Alone(Loader):
    @property
    def _rank(self) -> int:
        return 0

    @property
    def _world(self) -> int:
        return 1


class IgnoresRanks(SoundData):
    """Every process has everything."""

    loader_class = _Alone


class _Long(Loader):
    def __len__(self) -> int:
        return super().__len__() + 1

    def __iter__(self) -> Iterator[Any]:
        yield from list(super().__iter__())[:-1]  # the last one is empty


class TellsAWrongLength(SoundData):
    """One batch more than there are."""

    loader_class = _Long


class NamesTwoOfThreeClasses(SoundData):
    """Names and number disagree."""

    @property
    def facts(self) -> Facts:
        return {**super().facts, "class_names": ["a", "b"]}


class HasNoLicence(SoundData):
    """Nothing is said."""

    licence = ""


class AugmentsByNumpy(SoundData):
    """By a generator that no key seeds."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, labels = super().on_after_batch_transfer(batch, dataloader_idx)
        return (images * float(np.random.uniform(0.5, 1)) if self.trainer.training else images), labels


class GivesSinglePrecision(SoundData):
    """Whatever the task's precision is."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, labels = super().on_after_batch_transfer(batch, dataloader_idx)
        return images.float(), labels


class _Samples(torch.utils.data.Dataset):
    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index] // (2 if get_worker_info() else 1), self.labels[index]


class DependsOnWorkers(SoundData):
    """Darker when workers read it."""

    def subset(self, source: Any, rows: Tensor, split: Any) -> Any:
        return _Samples(*source.fetch(rows))


class ForgetsItsArguments(SoundData):
    """A checkpoint can't tell how it was made."""

    def plain_hparams(self) -> dict[str, Any]:
        return {"class_path": "ForgetsItsArguments", "init_args": {}}


class StopsAtABrokenPicture(SoundData):
    """The rest is not done."""

    def predict_dataloader(self) -> Any:
        return self.loader("predict")


class AcceptsBatchesOfNothing(SoundData):
    """Fails later, in another place."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "batch_size": kwargs.get("batch_size") or 1})


class DrawsBoxesOutside(SoundBoxes):
    """Boxes wider than their image."""

    width = 7.5


class SharesAFile(ImageFolder):
    """A photograph in two splits, cropped at random in training."""

    def setup(self, stage: str | None = None) -> None:
        new = "train" not in self._splits
        super().setup(stage)
        if new and stage == "fit":
            source, kept = self._splits["train"]
            self._splits["val"] = source, torch.cat((self._splits["val"][1], kept[:1]))


class ReadsClassesWhenItIsMade(ImageFolder):
    """From folders that are not there when a checkpoint is used elsewhere."""

    example = {**ImageFolder.example, "mirror": False}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.class_names = sorted(path.name for path in self.root.iterdir())


class SavesAPosition(SoundData):
    """On another number of processes it is wrong."""

    def state_dict(self) -> dict[str, Any]:
        return {"batch": 3}


class HasNothingToTrainOn(SoundData):
    """An example without images."""

    def samples(self, split: Any) -> Any:
        return None


SETS: dict[type, str] = {
    ReadsClassesWhenItIsMade: "predicts_without_its_training_files",
    OverlapsByOne: "splits_do_not_overlap",
    SplitsByChance: "splits_are_the_same_twice",
    CountsLabelsFromOne: "batches_have_their_form",
    NormalisesImages: "batches_have_their_form",
    PadsEvaluation: "each_sample_once_an_epoch",
    ShufflesByTheGlobalGenerator: "order_does_not_depend_on_global_generators",
    ShufflesOnce: "order_is_new_each_epoch",
    StartsAgain: "position_is_honoured",
    IgnoresRanks: "ranks_share",
    TellsAWrongLength: "loader_says_its_length",
    NamesTwoOfThreeClasses: "facts_are_complete",
    HasNoLicence: "says_licence_and_about",
    AugmentsByNumpy: "augmentation_is_repeatable",
    GivesSinglePrecision: "images_follow_the_dtype",
    DependsOnWorkers: "workers_change_nothing",
    ForgetsItsArguments: "arguments_are_plain",
    StopsAtABrokenPicture: "predicts_a_persons_files",
    AcceptsBatchesOfNothing: "refuses_wrong_arguments_in_one_line",
    DrawsBoxesOutside: "batches_have_their_form",
    SharesAFile: "splits_do_not_overlap",
    SavesAPosition: "keeps_no_position",
    HasNothingToTrainOn: "is_set_up",
}


# Faults of tasks


class LosesItsState(SoundTask):
    """State outside its parameters is not in the checkpoint."""

    def build(self) -> None:
        super().build()
        self.scale = torch.ones(())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.scale = self.scale + 1
        return super().training_step(batch, batch_idx)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * (1.0 if self.training else self.scale)


class TrainsByAHiddenCounter(SoundTask):
    """A resumed run starts counting anew."""

    steps = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.steps += 1
        return super().training_step(batch, batch_idx) * (1 + self.steps)


class TakesAModule(SoundTask):
    """A loss that a checkpoint can't hold."""

    example = {"architecture": SoundNet, "criterion": nn.CrossEntropyLoss()}

    def __init__(self, architecture: ArchitectureFactory, criterion: Any, facts: Facts | None = None) -> None:
        super().__init__(architecture, facts=facts)


class Climbs(SoundTask):
    """The loss with the wrong sign."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return 2 * loss.detach() - loss


class Recedes(TextureSynthesis):
    """The pixels go the wrong way."""

    example = {**TextureSynthesis.example, "optimizer": partial(Adam, lr=0.02)}

    def losses(self, images: Tensor, targets: Any) -> dict[str, Tensor]:
        return {name: 2 * loss.detach() - loss for name, loss in super().losses(images, targets).items()}


class MonitorsWhatItDoesNotLog(SoundTask):
    """Its best checkpoint can't be chosen."""

    monitor = "val/top1"


class AveragesAverages(SoundTask):
    """A last small batch weighs as much as a full one."""

    def _evaluate(self, batch: Any, name: str) -> None:
        self.log(name, F.cross_entropy(self(batch[0]), batch[1]), batch_size=1)


class GivesTensorsAsJson(SoundTask):
    """Which can't be written."""

    def as_json(self, results: Any) -> list[dict[str, Any]]:
        return [{"scores": torch.tensor(r["scores"])} for r in results]


class DrawsTooFew(SoundTask):
    """One picture for all."""

    def draw(self, images: Any, results: Any, truth: Any = None) -> list[Image.Image]:
        return [Image.new("RGB", (8, 8))]


class HoldsItsData(SoundTask):
    """A copy for weight averaging copies the data."""

    def on_fit_start(self) -> None:
        self.source = self.trainer.datamodule


class LearnsInValidation(SoundTask):
    """Its state depends on how often it was validated."""

    def build(self) -> None:
        super().build()
        self.register_buffer("seen", torch.zeros(()))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen += len(batch[0])
        super().validation_step(batch, batch_idx)


class TakesAnyClass(SoundTask):
    """Not only architectures."""

    def __init__(self, architecture: Any, optimizer: OptimizerFactory = Adam, facts: Facts | None = None) -> None:
        Task.__init__(self)
        self.factories["architecture"] = architecture


class NeedsMoreThanItSays(SoundTask):
    """A fact that is missing is a traceback."""

    def build(self) -> None:
        super().build()
        self.names = list(self.facts["class_names"])


class DoesNotTrain(SoundTask):
    """Its optimiser has nothing of the network."""

    def configure_optimizers(self) -> Any:
        return Adam(self.architecture.parameters(), lr=0.0)


class ModeIsUnknown(SoundTask):
    """Neither more nor less is better."""

    monitor_mode = "up"


class BranchesOnImages(SoundTask):
    """Can't be exported."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.sum() > 0 else images + 1)


class BelievesTheDataAlone(SoundTask):
    """What it was made for is forgotten."""

    def configure_model(self) -> None:
        data = self._trainer.datamodule if self._trainer is not None else None
        if data is not None and not self._built:
            self.hparams["facts"] = dict(data.facts)
        super().configure_model()


class GivesProbabilitiesOfTwo(SoundTask):
    """A call gives something else than logits of all classes."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if self._trainer is not None else logits[:, :2]


class MisspellsAHook(SoundTask):
    """Which nobody calls."""

    def on_validation_epoch_ends(self) -> None:
        pass


class ShowsNothing(SoundTask):
    """Though it can draw."""

    def pictures(self) -> dict[str, list[Image.Image]]:
        return {}


TASKS: dict[type, str] = {
    LosesItsState: "checkpoint_is_enough",
    TrainsByAHiddenCounter: "resume_is_exact",
    TakesAModule: "arguments_are_plain",
    Climbs: "a_few_steps_lower_the_loss",
    Recedes: "each_epoch_comes_nearer",
    MonitorsWhatItDoesNotLog: "monitor_is_logged",
    AveragesAverages: "figures_do_not_depend_on_batches",
    GivesTensorsAsJson: "predictions_are_plain",
    DrawsTooFew: "draws_pictures",
    HoldsItsData: "copies_drag_nothing",
    LearnsInValidation: "evaluation_changes_nothing",
    TakesAnyClass: "wrong_factories_end_in_one_line",
    NeedsMoreThanItSays: "missing_facts_end_in_one_line",
    DoesNotTrain: "a_fit_runs",
    ModeIsUnknown: "says_what_it_needs",
    BranchesOnImages: "export_agrees",
    BelievesTheDataAlone: "other_facts_end_in_one_line",
    MisspellsAHook: "hooks_are_spelt_right",
    ShowsNothing: "an_evaluation_has_pictures",
    GivesProbabilitiesOfTwo: "a_call_gives_what_its_role_promises",
}


class Imagines(SoundNet):
    __doc__ = SoundNet.__doc__
    roles = ("clasifier",)


SOUND = (
    SoundNet,
    SoundSegmenter,
    SoundTransform,
    SoundDiscriminator,
    SoundDenoiser,
    SoundCaptioner,
    SoundData,
    SoundMix,
    SoundBoxes,
    SoundTask,
)
FAULTS = {**NETS, **SETS, **TASKS}
KINDS: dict[type, str] = {Architecture: "architectures", Data: "data", Task: "tasks"}


@pytest.fixture(autouse=True)
def _installed(fake_plugin: Callable[..., Path]) -> None:
    """Every class of this file, registered as a distribution would."""
    entries: dict[str, dict[str, str]] = {}
    for cls in (*SOUND, Imagines, *FAULTS):
        kind = next(kind for base, kind in KINDS.items() if issubclass(cls, base))
        entries.setdefault(kind, {})[cls.__name__] = f"{__name__}:{cls.__name__}"
    fake_plugin("planted-faults", entries=entries)


def failures(cls: type, leave_out: tuple[str, ...] = ()) -> dict[str, str]:
    (entry,) = registry.find(cls.__name__)
    outcomes = runner.check_items([item for item in runner.items_of(entry) if item.check.name not in leave_out])
    return {o.item.check.name: o.reason for o in outcomes if o.status == "failed"}


@pytest.mark.parametrize("cls", SOUND)
def test_what_is_sound_passes_everything(cls: type) -> None:
    (entry,) = registry.find(cls.__name__)
    outcomes = testing.check_entry(entry)
    assert [str(o) for o in outcomes if o.status != "passed"] == []
    assert len(outcomes) > 14


@pytest.mark.parametrize(("cls", "meant"), FAULTS.items())
def test_each_fault_is_caught_by_the_check_meant_for_it(cls: type, meant: str) -> None:
    found = failures(cls, tuple(name for name in SLOW if name != meant))
    assert set(found) == {meant}, found
    assert "\n" not in found[meant]
    assert found[meant]


def test_every_check_has_a_fault_that_it_catches() -> None:
    """Those of one role alone have their faults in ``test_captioner_checks`` and ``test_denoiser_checks``."""
    others = (("captioner",), ("denoiser",))
    assert {check.name for check in testing.CHECKS if check.roles not in others} == set(FAULTS.values())


def test_what_a_check_stands_on_is_made_before_it() -> None:
    for kind in KINDS.values():
        seen: set[str] = set()
        for check in (c for c in testing.CHECKS if c.kind == kind):
            assert set(check.after) <= seen, check.name
            seen.add(check.name)


def test_parts_and_broken_entries_are_loaded_only(fake_plugin: Callable[..., Path]) -> None:
    files = {"breaks.py": "raise OSError('no licence')", "mute.py": "class Mute: pass"}
    entries = {"architectures": {"Broken": "breaks:Broken", "Mute": "mute:Mute"}, "parts": {"Mute": "mute:Mute"}}
    fake_plugin("broken-zoo", files=files, entries=entries)
    reasons = [str(o) for e in runner.entries_of(["broken_zoo"]) for o in testing.check_entry(e)]
    assert len(reasons) == 3
    assert "FAILED Broken loads" in reasons[0]
    assert "OSError: no licence" in reasons[0]
    assert "expected a subclass of Architecture" in reasons[1]
    assert "expected a docstring" in reasons[2]


def test_command_ends_with_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["SoundNet"]) == 0
    count = len(runner.items_of(registry.find("SoundNet")[0]))
    assert capsys.readouterr().out.splitlines()[-1] == f"{count} checks, {count} passed, 0 skipped"


def test_command_names_what_failed_and_what_was_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["IsRandomInEvaluation"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("FAILED")]
    skipped = [line for line in lines if line.startswith("SKIPPED")]
    assert failed[0].startswith(
        "FAILED IsRandomInEvaluation (classifier) deterministic_in_evaluation: two calls: expected"
    )
    assert (
        "SKIPPED IsRandomInEvaluation (classifier) saved_and_loaded: deterministic_in_evaluation did not pass"
        in skipped
    )
    total = len(runner.items_of(registry.find("IsRandomInEvaluation")[0]))
    passed = total - len(failed) - len(skipped)
    assert last == f"{total} checks, {passed} passed, {len(skipped)} skipped, {len(failed)} failed"


def test_command_takes_a_distribution_and_refuses_what_is_not_there() -> None:
    names = {entry.name for entry in runner.entries_of(["Planted.Faults"])}
    assert names == {cls.__name__ for cls in (*SOUND, Imagines, *FAULTS)}
    with pytest.raises(UserError, match="nothing installed is called SoundNett; did you mean SoundNet"):
        main(["SoundNett"])


def test_a_plugin_tests_everything_by_one_line() -> None:
    test_everything = testing.conformance("SoundNet", "DrawsTooFew")
    (mark,) = test_everything.pytestmark  # type: ignore[attr-defined]
    items = {str(item): item for item in mark.args[1]}
    assert {mark.kwargs["ids"](item) for item in items.values()} == set(items)
    test_everything(items["SoundNet-classifier-saved_and_loaded"])
    with pytest.raises(testing.Failed, match="a picture for each of three images"):
        test_everything(items["DrawsTooFew-classification-draws_pictures"])


def test_an_unknown_role_is_told_with_what_is_close() -> None:
    outcomes = [o for o in testing.check_entry(registry.find("Imagines")[0]) if o.item.role == "clasifier"]
    assert [o.reason for o in outcomes if o.status == "failed"] == [
        "there is no role called clasifier; did you mean classifier?"
    ]
    assert {o.status for o in outcomes} == {"passed", "failed", "skipped"}


def test_checks_leave_the_random_generators_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), float(np.random.rand()), random.random()

    pl.seed_everything(5, verbose=False)
    expected = draw()
    pl.seed_everything(5, verbose=False)
    testing.check_entry(registry.find("HasNoLicence")[0])
    assert draw() == expected


# The two things that a careless reader of tensors gets wrong


def test_difference_is_relative_and_infinite_for_other_shapes() -> None:
    assert checks.difference(torch.tensor([1000.0, 1.0]), torch.tensor([1001.0, 1.0])) == pytest.approx(1 / 1001)
    assert checks.difference(torch.zeros(2), torch.zeros(3)) == float("inf")
    assert checks.difference(torch.zeros(2), torch.full((2,), float("nan"))) == float("inf")
    assert checks.difference({"a": [torch.ones(2)]}, {"a": [torch.ones(2)]}) == 0


def test_arguments_behind_keywords_are_found() -> None:
    assert {"val_fraction", "batch_size", "files"} <= checks.accepted(SoundData)
    assert checks.accepted(SoundNet) == {"num_classes", "in_channels", "image_size", "width"}
