"""What every data set must do, by the form of its batches."""

from __future__ import annotations

import hashlib
import io
import random
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from zoo.data.base import Data, Split
from zoo.data.loading import InMemory
from zoo.facts import KNOWN, Facts
from zoo.testing.checks import Failed, Skipped, accepted, as_plain, check, expect, one_line, same_bits

BATCH = 3  # samples: an epoch of a small example has several batches, and most often a last one that is not full
# Forms of tasks whose parameter is an image; the same pictures come again and again, and are measured at the end.
PIXELS = ("pictures", "style_transfer", "texture")
# There, there is no order, nothing to share and nothing to hold out.
SHUFFLED = ("*", *(f"-{form}" for form in PIXELS))
SPLITS: tuple[Split, ...] = ("train", "val", "test")
# Facts that a data set must say, by the form of its batches.
FACTS: dict[str, tuple[str, ...]] = {
    "classification": ("num_classes", "class_names", "in_channels", "image_size", "mean", "std", "mirror"),
    "detection": ("num_classes", "class_names", "in_channels"),
    "instance_segmentation": ("num_classes", "class_names", "in_channels"),
    "semantic_segmentation": ("num_classes", "class_names", "in_channels", "image_size"),
    "captioning": ("vocabulary", "in_channels", "image_size"),
    "stylization": ("in_channels", "image_size"),
    **dict.fromkeys(PIXELS, ("in_channels", "image_size", "num_images")),
}


class Probe(LightningModule):
    """Stands in a task's place and keeps the batches that reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[Any]] = {"train": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Keep the batch."""
        self.seen["train"].append(batch)
        return self.weight * 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Keep the batch."""
        self.seen["val"].append(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Keep the batch."""
        self.seen["test"].append(batch)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Keep the batch."""
        self.seen["predict"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One that changes nothing."""
        return torch.optim.SGD(self.parameters(), lr=0.0)


class _Recording(Dataset):
    def __init__(self, samples: Any, seen: list[Any]) -> None:
        self.samples, self.seen = samples, seen

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        self.seen.append(index)
        return self.samples[index]


def _recording(samples: Any, seen: list[Any]) -> Any:
    return samples if samples is None or isinstance(samples, InMemory) else _Recording(samples, seen)


class DataCase:
    """A data set, read from small files in its own format, in batches so small that an epoch has several.

    Args:
        cls: the class.
        role: its ``batch``.
    """

    kind = "data"

    def __init__(self, cls: type[Data], role: str) -> None:
        self.cls, self.role = cls, role

    @staticmethod
    def roles(cls: type[Data]) -> tuple[str, ...]:
        """The form of its batches."""
        return (cls.batch,)

    @cached_property
    def folder(self) -> Path:
        """Where the example's files are; removed with the case."""
        self._folder = TemporaryDirectory(prefix="zoo-check-")
        return Path(self._folder.name)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """What reads the example."""
        return dict(self.cls.write_example(self.folder))

    def make(self, **changes: Any) -> Data:
        """A new instance, set up."""
        data = self.cls(**{**self.arguments, **changes})
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
        return data

    def takes(self, name: str) -> bool:
        """Whether the class has an argument of this name."""
        return name in accepted(self.cls)

    def small(self, **changes: Any) -> Data:
        """A new instance with small batches."""
        known = {"batch_size": BATCH, "eval_batch_size": BATCH, "num_workers": 0, "drop_last": False}
        return self.make(**{**{k: v for k, v in known.items() if self.takes(k)}, **changes})

    @cached_property
    def data(self) -> Data:
        """One instance for the checks that only read."""
        return self.small()

    def read(self, split: Split, data: Data | None = None, seed: int = 0, **position: int) -> list[Any]:
        """What the split's loader gives, told by a stand-in for the trainer where it is.

        Args:
            split: which one.
            data: another instance than ``data``.
            seed: of the global generators, on which nothing may depend.
            position: ``rank``, ``world``, ``epoch`` and ``batch`` (the last one done).
        """
        data = data or self.data
        _seed_everything_global(seed)
        data.trainer = cast(Trainer, _stand_in(split, **position))
        try:
            return list(getattr(data, f"{split}_dataloader")())
        finally:
            data.trainer = None

    @cached_property
    def has_files(self) -> bool:
        """Whether each sample is read from files of its own."""
        return len(set(opened_files(lambda: self.read("train")))) > 1

    def contents(self, split: Split, data: Data | None = None) -> list[str]:
        """The split's samples, in the order in which its loader gives them: their files, else a digest of each."""
        if self.has_files:
            return opened_files(lambda: self.read(split, data))
        return [digest for batch in self.read(split, data) for digest in digests(batch)]

    def order(self, split: Split, **position: int) -> list[Any]:
        """The split's samples, in order, by what stays the same while augmentation changes them.

        That is the file, the number in a map-style data set, or what is in memory.
        """
        if self.has_files:
            return opened_files(lambda: self.read(split, None, **position))
        recorded: list[Any] = []
        samples = self.data.samples
        vars(self.data)["samples"] = lambda which: _recording(samples(which), recorded)
        try:
            batches = self.read(split, None, **position)
        finally:
            del vars(self.data)["samples"]
        return recorded or [digest for batch in batches for digest in digests(batch)]

    def watch(self, precision: Any = "32-true", limit: int = 2) -> dict[str, list[Any]]:
        """What a task gets to see in a run, by split."""
        probe, trainer = Probe(), quiet_trainer(self.folder, precision=precision, limit=limit)
        trainer.fit(probe, datamodule=self.data)
        trainer.test(probe, datamodule=self.data, verbose=False)
        self.data.trainer = None
        return probe.seen


def quiet_trainer(folder: Path, limit: int | None = None, **options: Any) -> Trainer:
    """A trainer on the CPU that writes nothing by itself, and stops after one epoch unless told otherwise."""
    limits = {f"limit_{split}_batches": limit for split in SPLITS} if limit else {}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    known: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "num_sanity_val_steps": 0,
        **quiet,
        **limits,
    }
    return Trainer(**{**known, "default_root_dir": folder, **options})


def _stand_in(split: Split, rank: int = 0, world: int = 1, epoch: int = 0, batch: int = -1) -> SimpleNamespace:
    loop = SimpleNamespace(batch_idx=batch, total_batch_idx=batch)
    states = {
        "training": split == "train",
        "validating": split == "val",
        "testing": split == "test",
        "predicting": False,
    }
    return SimpleNamespace(global_rank=rank, world_size=world, current_epoch=epoch, fit_loop=loop, **states)


def _seed_everything_global(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


# Which sample is it?

_opened: list[str] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes):
        _opened.append(str(arguments[0]))


sys.addaudithook(_listen)  # can't be removed; costs nothing measurable while nobody listens


def opened_files(read: Callable[[], Any]) -> list[str]:
    """The files that were opened meanwhile, but for Python's own."""
    global _opened
    _opened = []
    try:
        read()
        return [name for name in _opened if not name.endswith((".py", ".pyc", ".so"))]
    finally:
        _opened = None


def digests(batch: Any) -> list[str]:
    """A digest of each sample of a batch: its image, and its label where that is one number."""
    first, second = (batch[0], batch[1]) if isinstance(batch, list | tuple) and len(batch) > 1 else (batch, None)
    labels = second.tolist() if isinstance(second, Tensor) and second.dim() == 1 else [""] * len(first)
    return [f"{_digest(image)}{label}" for image, label in zip(first, labels, strict=True)]


def _digest(image: Tensor) -> str:
    return hashlib.sha1(image.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def size_of(batch: Any) -> int:
    """Samples in a batch."""
    return len(batch[0] if isinstance(batch, list | tuple) else batch)


# What it says of itself


@check("data")
def is_set_up(case: DataCase) -> None:
    """The arguments that ``write_example`` gives make an instance that can be set up, with something to train on."""
    expect(case.data.samples("train"), "its example has nothing to train on")


@check("data", needs_building=False)
def says_licence_and_about(case: DataCase) -> None:
    """Its licence, and one line on classes, number of images and size."""
    for name in ("licence", "about"):
        text = getattr(case.cls, name)
        expect(isinstance(text, str) and text.strip(), f"expected a class attribute {name} that is not empty")
    expect("\n" not in case.cls.about.strip(), "expected one line in about")


@check("data")
def facts_are_complete(case: DataCase) -> None:
    """Its facts are plain, of the right types and ranges, agree with each other, and are all that its tasks need."""
    facts = case.data.facts
    as_plain(dict(facts), "facts")
    unknown = sorted(set(facts) - set(KNOWN))
    expect(not unknown, f"facts: {unknown} is no fact; known are {', '.join(KNOWN)}")
    missing = [name for name in FACTS.get(case.role, ()) if name not in facts]
    expect(not missing, f"facts: {missing} is missing, which {case.role} needs")
    for name, value in facts.items():
        right, wanted = _RIGHT_FACTS[name]
        expect(right(value, facts), f"facts: {name} is {value!r:.80}, expected {wanted}")


def _numbers(count: str, low: float, high: float) -> Callable[[Any, Facts], bool]:
    def right(value: Any, facts: Facts) -> bool:
        if not (isinstance(value, list) and len(value) == facts.get(count, len(value))):
            return False
        return all(isinstance(v, int | float) and low <= v <= high for v in value)

    return right


def _words(value: Any, facts: Facts) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) and v for v in value) and len(set(value)) == len(value)


def _named_classes(value: Any, facts: Facts) -> bool:
    return _words(value, facts) and len(value) == facts.get("num_classes", len(value))


def _count(value: Any, facts: Facts) -> bool:
    return type(value) is int and value >= 1


def _size(value: Any, facts: Facts) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_count(n, facts) for n in value)


_RIGHT_FACTS: dict[str, tuple[Callable[[Any, Facts], bool], str]] = {
    "num_classes": (_count, "an integer of at least 1"),
    "class_names": (_named_classes, "a list of num_classes different names"),
    "in_channels": (_count, "an integer of at least 1"),
    "image_size": (_size, "a list of height and width"),
    "num_images": (_count, "an integer of at least 1"),
    "vocabulary": (_words, "a list of different tokens"),
    "mean": (_numbers("in_channels", 0, 1), "a list of in_channels numbers from 0 to 1"),
    "std": (_numbers("in_channels", 1e-6, 1), "a list of in_channels numbers above 0, at most 1"),
    "mirror": (lambda value, _: isinstance(value, bool), "true or false"),
    "class_counts": (_numbers("num_classes", 0, float("inf")), "a list of num_classes numbers"),
}


@check("data")
def arguments_are_plain(case: DataCase) -> None:
    """A checkpoint can hold its arguments, and they make an instance with the same facts."""
    written = as_plain(case.data.plain_hparams(), "data")
    lost = [name for name in case.arguments if name not in written["init_args"]]
    expect(not lost, f"its hyper-parameters lack {lost[:1]}")
    again = case.make(**written["init_args"])
    expect(again.facts == case.data.facts, "an instance made from its hyper-parameters has other facts")


# Splits and order


@check("data", SHUFFLED)
def splits_do_not_overlap(case: DataCase) -> None:
    """No sample is in two splits."""
    found: dict[str, set[str]] = {split: set(case.contents(split)) for split in SPLITS}
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        common = found[a] & found[b]
        expect(not common, f"{len(common)} samples are in {a} and in {b}, expected none")


@check("data")
def splits_are_the_same_twice(case: DataCase) -> None:
    """Another instance has the same facts and the same samples in its splits, whatever the global generators say."""
    _seed_everything_global(1234)
    other = case.small()
    expect(other.facts == case.data.facts, "a second instance has other facts")
    for split in SPLITS:
        first, second = (Counter(case.contents(split, d)) for d in (case.data, other))
        expect(first == second, f"a second instance has other samples in {split}")


@check("data")
def each_sample_once_an_epoch(case: DataCase) -> None:
    """In training and evaluation every sample comes once, the last batch is not filled up."""
    for split in SPLITS:
        samples = case.data.samples(split)
        found = sum(size_of(batch) for batch in case.read(split))
        expected = 0 if samples is None else len(samples)
        expect(found == expected, f"{split} gave {found} samples in an epoch, it has {expected}")
        names = Counter(case.order(split))
        again = Counter(case.order(split, epoch=1))
        expect(names == again, f"{split}: the second epoch has other samples than the first")


@check("data")
def loader_says_its_length(case: DataCase) -> None:
    """``len`` of a loader is the number of its batches (schedulers and progress bars rely on it)."""
    for split in SPLITS:
        found = len(case.read(split))
        case.data.trainer = cast(Trainer, _stand_in(split))
        told = len(getattr(case.data, f"{split}_dataloader")())
        case.data.trainer = None
        expect(found == told, f"{split}: {told} batches told, {found} came")


@check("data", SHUFFLED)
def order_is_new_each_epoch(case: DataCase) -> None:
    """Training order differs from epoch to epoch; evaluation's never does."""
    orders = [case.order("train", epoch=e) for e in range(4)]
    expect(
        len({tuple(order) for order in orders}) > 1, "four training epochs have one order, expected it shuffled anew"
    )
    for split in ("val", "test"):
        first, second = (case.order(split, epoch=e) for e in (0, 1))
        expect(first == second, f"{split} comes in another order in the second epoch")


@check("data")
def order_does_not_depend_on_global_generators(case: DataCase) -> None:
    """What a loader gives is a function of seed and position: the states of torch, numpy and random have no say."""
    for split in SPLITS:
        first, second = case.read(split, seed=1), case.read(split, seed=2)
        expect(same_bits(first, second), f"{split}: other batches for another state of the global generators")


@check("data", after=("order_does_not_depend_on_global_generators",))
def augmentation_is_repeatable(case: DataCase) -> None:
    """What reaches the task, augmentation included, is the same in two runs of one seed."""
    runs = []
    for seed in (1, 2):
        _seed_everything_global(seed)
        runs.append(case.watch()["train"])
    expect(same_bits(*runs), "two runs of one seed gave the task other training batches")


@check("data", after=("order_does_not_depend_on_global_generators",))
def position_is_honoured(case: DataCase) -> None:
    """A training loader goes on where the trainer's counters stand."""
    whole = case.read("train", epoch=1)
    if len(whole) < 2:
        raise Skipped("the example has one training batch")
    rest = case.read("train", epoch=1, batch=0)
    expect(same_bits(rest, whole[1:]), "resumed after the first batch, other batches came than without the stop")


@check("data")
def workers_change_nothing(case: DataCase) -> None:
    """Worker processes give the batches that one process gives."""
    if case.takes("num_workers"):
        alone, helped = case.read("train"), case.read("train", case.small(num_workers=2))
        expect(same_bits(alone, helped), "two workers gave other training batches than none")


@check("data", SHUFFLED, after=("each_sample_once_an_epoch", "order_does_not_depend_on_global_generators"))
def ranks_share(case: DataCase) -> None:
    """Two processes have different samples, together all of them; in training they have as many batches."""
    for split in SPLITS:
        whole = Counter(case.order(split))
        shares = [Counter(case.order(split, rank=r, world=2)) for r in (0, 1)]
        missing = whole - (shares[0] + shares[1])
        kept = case.data.batch_size if split == "train" else 0  # a last sample alone can't be shared
        expect(missing.total() <= (kept > 0), f"{split}: {missing.total()} samples reach neither of two processes")
        doubled = (shares[0] + shares[1]) - whole
        expect(not doubled, f"{split}: {doubled.total()} samples reach both of two processes, expected each once")
    lengths = [len(case.read("train", rank=r, world=2)) for r in (0, 1)]
    expect(lengths[0] == lengths[1], f"two processes have {lengths[0]} and {lengths[1]} training batches")


# Batches


@check("data")
def batches_have_their_form(case: DataCase) -> None:
    """What reaches a task has the form that its ``batch`` promises."""
    if case.role not in FORMS:
        raise Skipped(f"the kit knows no form of batches called {case.role} yet")
    seen = case.watch()
    for split in SPLITS:
        expect(seen[split] or case.data.samples(split) is None, f"{split}: no batch reached the task")
        for batch in seen[split]:
            expect(isinstance(batch, list | tuple) and len(batch) == 2, f"{split}: expected a pair, got {type(batch)}")
            FORMS[case.role](batch, case.data.facts, split)


def _classification(batch: Any, facts: Facts, split: str) -> None:
    images, labels = batch
    _images(images, facts, split)
    classes, count = facts["num_classes"], len(images)
    if labels.dim() == 1:
        expect(labels.dtype == torch.int64, f"{split}: labels are {labels.dtype}, expected int64")
        right = len(labels) == count and int(labels.min()) >= 0 and int(labels.max()) < classes
        expect(right, f"{split}: labels must be one an image, from 0 to {classes - 1}; found up to {int(labels.max())}")
    else:
        sums = labels.sum(1)
        right = labels.shape == (count, classes) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2)
        expect(right and split == "train", f"{split}: soft labels are for training, ({count}, {classes}), sum 1")


def _images(images: Tensor, facts: Facts, split: str) -> None:
    expect(images.is_floating_point(), f"{split}: images are {images.dtype}, expected floats")
    low, high = float(images.min()), float(images.max())
    expect(low >= 0 and high <= 1, f"{split}: images from {low:.3g} to {high:.3g}, expected within [0, 1]")
    expect(high > 2 / 255, f"{split}: no pixel is brighter than {high:.2g}, expected the range [0, 1]")
    channels, *size = images.shape[1:]
    expect(channels == facts["in_channels"], f"{split}: {channels} channels, the facts say {facts['in_channels']}")
    wanted = facts["image_size"]
    fits = size == wanted if split == "train" else all(n >= w for n, w in zip(size, wanted, strict=True))
    expect(fits, f"{split}: images of {size} pixels, image_size is {wanted}")


def _lists(batch: Any, facts: Facts, split: str) -> None:
    images, targets = batch
    expect(isinstance(images, list | tuple), f"{split}: expected a list of images, got {type(images).__name__}")
    expect(len(images) == len(targets), f"{split}: {len(images)} images, {len(targets)} targets")
    for image, target in zip(images, targets, strict=True):
        right = image.is_floating_point() and image.dim() == 3 and float(image.min()) >= 0 and float(image.max()) <= 1
        expect(right and image.shape[0] == facts["in_channels"], f"{split}: expected images (C, H, W) within [0, 1]")
        _boxes(target, image.shape[-2:], facts["num_classes"], split)


def _boxes(target: dict[str, Tensor], size: Any, classes: int, split: str) -> None:
    boxes, labels = target["boxes"], target["labels"]
    expect(boxes.shape == (len(labels), 4), f"{split}: boxes {tuple(boxes.shape)} for {len(labels)} labels")
    if not len(labels):
        return
    inside = (boxes >= 0).all() and (boxes[:, ::2] <= size[1]).all() and (boxes[:, 1::2] <= size[0]).all()
    expect(inside and (boxes[:, 2:] > boxes[:, :2]).all(), f"{split}: boxes must be x1 y1 x2 y2 inside the image")
    right = labels.dtype == torch.int64 and int(labels.min()) >= 0 and int(labels.max()) < classes
    expect(right, f"{split}: expected labels from 0 to {classes - 1}, without a background class")


def _style_transfer(batch: Any, facts: Facts, split: str) -> None:
    content, styles = batch
    _pixels(content, facts["in_channels"], split)
    expect(len(content) == facts["num_images"], f"{split}: {len(content)} pictures, num_images {facts['num_images']}")
    expect(list(content.shape[2:]) == facts["image_size"], f"{split}: contents {tuple(content.shape)} and image_size")
    for style in styles:
        _pixels(style.image[None], facts["in_channels"], split)
        fits = style.mask is None or style.mask.shape == (1, *facts["image_size"])
        expect(fits, f"{split}: expected masks (1, H, W) of the content's size")
    total = sum(style.weight for style in styles)
    expect(abs(total - 1) < 1e-6, f"{split}: the styles' weights add up to {total:.4g}, expected 1")


def _stylization(batch: Any, facts: Facts, split: str) -> None:
    contents, styles = batch
    _images(contents, facts, split)
    _images(styles, facts, split)
    expect(len(contents) == len(styles), f"{split}: {len(contents)} contents, {len(styles)} styles")


def _texture(batch: Any, facts: Facts, split: str) -> None:
    images, names = batch
    for image in images:
        _pixels(image[None], facts["in_channels"], split)
    expect(
        len(images) == len(names) == facts["num_images"],
        f"{split}: {len(images)} textures, {len(names)} names, num_images {facts['num_images']}",
    )


def _pictures(batch: Any, facts: Facts, split: str) -> None:
    images, names = batch
    _pixels(images, facts["in_channels"], split)
    counts = len(images), len(names), facts["num_images"]
    expect(len({*counts}) == 1, f"{split}: {counts[0]} pictures, {counts[1]} names, num_images {counts[2]}")
    expect(list(images.shape[2:]) == facts["image_size"], f"{split}: pictures {tuple(images.shape)} and image_size")


def _pixels(images: Tensor, channels: int, split: str) -> None:
    right = images.is_floating_point() and images.dim() == 4 and images.shape[1] == channels
    expect(right, f"{split}: expected floats with {channels} channels, found {images.dtype} {tuple(images.shape)}")
    low, high = float(images.min()), float(images.max())
    expect(low >= 0 and 2 / 255 < high <= 1, f"{split}: pixels from {low:.3g} to {high:.3g}, expected within [0, 1]")


FORMS: dict[str, Callable[[Any, Facts, str], None]] = {
    "classification": _classification,
    "detection": _lists,
    "instance_segmentation": _lists,
    "pictures": _pictures,
    "style_transfer": _style_transfer,
    "stylization": _stylization,
    "texture": _texture,
}


@check("data", ("classification",))
def images_follow_the_dtype(case: DataCase) -> None:
    """Images reach the task in its own dtype, after augmentation too."""
    for precision, dtype in (("64-true", torch.float64), ("bf16-true", torch.bfloat16)):
        seen = case.watch(precision=precision, limit=1)
        for split in SPLITS:
            for images, _ in seen[split]:
                expect(images.dtype == dtype, f"{split}: images are {images.dtype} for a task of {dtype}")


@check("data", ("classification",))
def predicts_a_persons_files(case: DataCase) -> None:
    """``files`` reads pictures of any size and mode; a broken one is named and left out, the rest is done."""
    expect(case.takes("files"), "expected an argument files: every image data set reads a person's own pictures")
    good = {"grey.png": Image.new("L", (40, 30), 200), "colour.jpg": Image.new("RGB", (33, 70), (250, 10, 20))}
    folder = case.folder / "own"
    folder.mkdir(exist_ok=True)
    for name, picture in good.items():
        picture.save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    probe, said = Probe(), io.StringIO()
    files = [str(folder / name) for name in ("grey.png", "broken.png", "colour.jpg")]
    with redirect_stderr(said):
        quiet_trainer(case.folder).predict(probe, datamodule=case.cls(**{**case.arguments, "files": files}))
    count = sum(size_of(batch) for batch in probe.seen["predict"])
    expect(count == len(good), f"{count} of {len(good)} readable pictures reached the task")
    for batch in probe.seen["predict"]:
        _images(batch[0] if isinstance(batch, list | tuple) else batch, case.data.facts, "predict")
    expect("broken.png" in said.getvalue(), "the picture that can't be read was not named")


@check("data")
def refuses_wrong_arguments_in_one_line(case: DataCase) -> None:
    """Values out of range and pictures that are not there end in one line."""
    wrong: dict[str, Any] = {"batch_size": 0, "eval_batch_size": 0, "val_fraction": 1.5}
    for name in filter(case.takes, wrong):
        with one_line(f"{name}={wrong[name]!r}"):
            case.make(**{name: wrong[name]})
    if case.takes("files"):
        with one_line("files that match nothing"):
            data = case.cls(**{**case.arguments, "files": ["no/such/*.png"]})
            data.setup("predict")
            list(data.predict_dataloader())


@check("data")
def keeps_no_position(case: DataCase) -> None:
    """It saves no state: where a run stands follows from the trainer's counters, on any number of processes."""
    expect(case.data.state_dict() == {}, "expected an empty state_dict")
    try:
        case.data.load_state_dict({})
    except Exception as error:
        raise Failed(f"load_state_dict of nothing raised {type(error).__name__}") from error
