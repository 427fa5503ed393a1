"""Checks of data sets, by the form of their batches."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from PIL import Image

from zoo import contracts
from zoo.contracts.forms import check_images
from zoo.errors import UserError
from zoo.testing.checks import Failed, Skipped, as_plain, check, expect, one_line, same_bits
from zoo.testing.reading import SPLITS, DataCase, Probe, quiet_trainer, seed_global_generators, size_of, stand_in

# What it declares


@check("data")
def is_set_up(case: DataCase) -> None:
    """With the arguments of ``write_example`` it can be set up and has training samples."""
    expect(case.data.samples("train"), "its example has nothing to train on")


@check("data", ("*", "requests"), needs_building=False)
def says_licence_and_about(case: DataCase) -> None:
    """It states its licence, and one line on classes, number of images and size."""
    for name in ("licence", "about"):
        text = getattr(case.cls, name)
        expect(isinstance(text, str) and text.strip(), f"expected a class attribute {name} that is not empty")
    expect("\n" not in case.cls.about.strip(), "expected one line in about")


@check("data")
def facts_are_complete(case: DataCase) -> None:
    """Its facts are plain, of the right types and ranges, agree with each other, and complete for its tasks."""
    facts = case.data.facts
    as_plain(dict(facts), "facts")
    known = contracts.facts()
    unknown = sorted(set(facts) - set(known))
    expect(not unknown, f"facts: {unknown} is not a fact; known are {', '.join(known)}")
    missing = [name for name in contracts.form(case.role).facts if name not in facts]
    expect(not missing, f"facts: {missing} is missing, which {case.role} needs")
    for name, value in facts.items():
        expect(known[name].check(value, facts), f"facts: {name} is {value!r:.80}, expected {known[name].wanted}")


@check("data")
def arguments_are_plain(case: DataCase) -> None:
    """A checkpoint can hold its arguments, and they build an instance with the same facts."""
    written = as_plain(case.data.plain_hparams(), "data")
    lost = [name for name in case.arguments if name not in written["init_args"]]
    expect(not lost, f"its hyper-parameters lack {lost[:1]}: name them in the constructor")
    again = case.make(**written["init_args"])
    expect(again.facts == case.data.facts, "an instance made from its hyper-parameters has other facts")


# Splits and order


@check("data")
def splits_do_not_overlap(case: DataCase) -> None:
    """No sample is in two splits."""
    if contracts.form(case.role).repeats:
        return  # the same batch is repeated
    found: dict[str, set[str]] = {split: set(case.contents(split)) for split in SPLITS}
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        common = found[a] & found[b]
        expect(not common, f"{len(common)} samples are in {a} and in {b}, expected none")


@check("data")
def splits_are_the_same_twice(case: DataCase) -> None:
    """Another instance has the same facts and splits, whatever the state of the global generators."""
    seed_global_generators(1234)
    other = case.small()
    expect(other.facts == case.data.facts, "a second instance has other facts")
    for split in SPLITS:
        first, second = (Counter(case.contents(split, d)) for d in (case.data, other))
        expect(first == second, f"a second instance has other samples in {split}")


@check("data")
def each_sample_once_an_epoch(case: DataCase) -> None:
    """In training and evaluation every sample comes once per epoch; the last batch is not filled up."""
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
        case.data.trainer = cast(Trainer, stand_in(split))
        told = len(getattr(case.data, f"{split}_dataloader")())
        case.data.trainer = None
        expect(found == told, f"{split}: len is {told} batches, it gave {found}")


@check("data")
def order_is_new_each_epoch(case: DataCase) -> None:
    """Training order differs from epoch to epoch; evaluation's never does."""
    if contracts.form(case.role).repeats:
        return  # the same batch is repeated
    orders = [case.order("train", epoch=e) for e in range(4)]
    expect(
        len({tuple(order) for order in orders}) > 1, "four training epochs have one order, expected it to be reshuffled"
    )
    for split in ("val", "test"):
        first, second = (case.order(split, epoch=e) for e in (0, 1))
        expect(first == second, f"{split} comes in another order in the second epoch")


@check("data")
def order_does_not_depend_on_global_generators(case: DataCase) -> None:
    """A loader's batches depend on seed and position only, not on the global generators of torch, numpy and random."""
    for split in SPLITS:
        first, second = case.read(split, seed=1), case.read(split, seed=2)
        expect(same_bits(first, second), f"{split}: other batches for another state of the global generators")


@check("data", after=("order_does_not_depend_on_global_generators",))
def augmentation_is_repeatable(case: DataCase) -> None:
    """Batches, including augmentation, are the same in two runs with one seed."""
    runs = []
    for seed in (1, 2):
        seed_global_generators(seed)
        runs.append(case.watch()["train"])
    expect(same_bits(*runs), "two runs of one seed gave the task other training batches")


@check("data", after=("order_does_not_depend_on_global_generators",))
def position_is_honoured(case: DataCase) -> None:
    """A training loader resumes where the trainer's counters are."""
    whole = case.read("train", epoch=1)
    if len(whole) < 2:
        raise Skipped("the example has one training batch")
    rest = case.read("train", epoch=1, batch=0)
    expect(same_bits(rest, whole[1:]), "resumed after the first batch, other batches came than without the stop")


@check("data")
def workers_change_nothing(case: DataCase) -> None:
    """Worker processes give the same batches as one process."""
    if case.takes("num_workers"):
        alone, helped = case.read("train"), case.read("train", case.small(num_workers=2))
        expect(same_bits(alone, helped), "two workers gave other training batches than none")


@check("data", after=("each_sample_once_an_epoch", "order_does_not_depend_on_global_generators"))
def ranks_share(case: DataCase) -> None:
    """Two ranks have different samples, together all of them; in training they have the same number of batches."""
    if contracts.form(case.role).repeats:
        return  # the same batch is repeated
    for split in SPLITS:
        whole = Counter(case.order(split))
        shares = [Counter(case.order(split, rank=r, world=2)) for r in (0, 1)]
        missing = whole - (shares[0] + shares[1])
        kept = case.data.batch_size if split == "train" else 0  # a single last sample can't be shared
        expect(missing.total() <= (kept > 0), f"{split}: {missing.total()} samples reach neither of two processes")
        doubled = (shares[0] + shares[1]) - whole
        expect(not doubled, f"{split}: {doubled.total()} samples reach both of two processes, expected each once")
    lengths = [len(case.read("train", rank=r, world=2)) for r in (0, 1)]
    expect(lengths[0] == lengths[1], f"two processes have {lengths[0]} and {lengths[1]} training batches")


# Batches


@check("data")
def batches_have_their_form(case: DataCase) -> None:
    """Batches have the form that ``batch`` declares."""
    form, seen = contracts.form(case.role), case.watch()
    for split in SPLITS:
        expect(seen[split] or case.data.samples(split) is None, f"{split}: no batch reached the task")
        for batch in seen[split]:
            right = isinstance(batch, list | tuple) and len(batch) > 1
            expect(right, f"{split}: expected images and what comes with them, got {type(batch)}")
            try:
                form.check(batch, case.data.facts, split)
            except ValueError as error:  # a contract's, or there are too many parts to unpack
                raise Failed(str(error)) from error


@check("data", ("classification",))
def images_follow_the_dtype(case: DataCase) -> None:
    """Images reach the task in the task's dtype, also after augmentation."""
    for precision, dtype in (("64-true", torch.float64), ("bf16-true", torch.bfloat16)):
        seen = case.watch(precision=precision, limit=1)
        for split in SPLITS:
            for images, _ in seen[split]:
                expect(images.dtype == dtype, f"{split}: images are {images.dtype} for a task of {dtype}")


@check("data", ("classification",))
def predicts_a_persons_files(case: DataCase) -> None:
    """``files`` reads images of any size and mode; an unreadable one is named and skipped.

    Images with more channels than image files have are left to the data set.
    """
    if case.data.facts["in_channels"] not in (1, 3):
        return
    expect(case.takes("files"), "expected an argument files: every image data set reads the user's own images")
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
        check_images(batch[0] if isinstance(batch, list | tuple) else batch, case.data.facts, "predict")
    expect("broken.png" in said.getvalue(), "the picture that can't be read was not named")


@check("data", ("classification",))
def predicts_without_its_training_files(case: DataCase) -> None:
    """Built from a checkpoint's arguments without the training files, it still reads images to predict."""
    if not case.takes("files") or case.data.facts["in_channels"] not in (1, 3):
        return
    with TemporaryDirectory(prefix="zoo-check-") as name:
        folder = Path(name)
        made = case.cls(**case.cls.write_example(folder / "data"))
        shutil.rmtree(folder / "data", ignore_errors=True)
        Image.new("RGB", (40, 30), (250, 10, 20)).save(folder / "one.png")
        arguments = {**made.plain_hparams()["init_args"], "files": [str(folder / "one.png")]}
        probe = Probe()
        try:
            quiet_trainer(folder).predict(probe, datamodule=case.cls(**arguments))
        except UserError as error:
            raise Failed(f"without its training files it can't predict: {error}") from error
        expect(probe.seen["predict"], "without its training files it gave no picture to predict")


@check("data")
def refuses_wrong_arguments_in_one_line(case: DataCase) -> None:
    """Values out of range and missing images end in a one-line error."""
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
    """It saves no state: a run's position follows from the trainer's counters, on any number of processes."""
    expect(case.data.state_dict() == {}, "expected an empty state_dict")
    try:
        case.data.load_state_dict({})
    except Exception as error:
        raise Failed(f"load_state_dict of nothing raised {type(error).__name__}") from error
