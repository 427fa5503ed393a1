"""Orders of training are pure functions; a run that goes on at any step sees what an uninterrupted one sees."""

import gc
import math
from collections import Counter
from functools import partial
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import Dataset
from torchvision.transforms import v2

from zoo.architectures.lenet import LeNet
from zoo.data import ImageFolder
from zoo.data.digits import Digits
from zoo.data.loading import Loader, TensorSource
from zoo.data.order import (
    alike_together,
    occurrences,
    part_of_each,
    rare_more_often,
    repeat_factors,
    shuffled,
)
from zoo.data.transforms import FlipAlternately
from zoo.errors import UserError
from zoo.tasks.classification import Classification

GROUPS = torch.tensor([3, 1, 1, 2] * 6)[:23]
FACTORS = torch.tensor([1.0, 1.5, 2.25, 1.0, 3.1] * 5)[:23]
ORDERS = {
    "shuffled": shuffled(23),
    "alike": alike_together(GROUPS, 6),
    "rare": rare_more_often(FACTORS),
    "part": part_of_each(shuffled(23), 10),
    "longer": part_of_each(rare_more_often(FACTORS), 50),
}


def trainer(rank=0, world=1, epoch=0, batch_idx=-1):
    return SimpleNamespace(
        global_rank=rank, world_size=world, current_epoch=epoch, fit_loop=SimpleNamespace(batch_idx=batch_idx)
    )


@pytest.mark.parametrize("name", ORDERS)
def test_orders_are_pure_functions_of_seed_and_epoch(name):
    order = ORDERS[name]
    first = order.indices(1, 2)
    torch.manual_seed(5)
    assert torch.equal(order.indices(1, 2), first)
    assert not torch.equal(order.indices(2, 2), first)
    assert not torch.equal(order.indices(1, 3), first)
    for epoch in range(30):
        assert order.indices(7, epoch).shape == (order.length,)


def test_the_plain_order_is_as_it_always_was():
    """Checkpoints of earlier versions go on with it."""
    assert shuffled(8).indices(3, 2).tolist() == [6, 2, 5, 4, 1, 7, 3, 0]


def test_batches_are_alike():
    order = alike_together(GROUPS, 4)
    seen_first = set()
    for epoch in range(8):
        found = order.indices(0, epoch)
        assert sorted(found.tolist()) == list(range(23))
        kinds = [set(GROUPS[batch].tolist()) for batch in found.split(4)]
        mixed = [kind for kind in kinds if len(kind) > 1]
        assert len(mixed) <= 2, "what is left of three groups, less than four of each"
        assert len(found.split(4)[-1]) == 3
        seen_first.add(tuple(kinds[0]))
    assert len(seen_first) > 1, "the groups do not always come in the same order"


def test_factors_are_those_of_the_paper_by_hand():
    """Class 0 is in 4 of 5 images, class 1 in 2, class 2 in 1; t is 0.5."""
    found = repeat_factors([[0], [0, 1], [0, 0], [0, 2, 1], []], 0.5)
    expected = [1, math.sqrt(0.5 / 0.4), 1, math.sqrt(0.5 / 0.2), 1]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64))


def test_rare_samples_come_as_often_as_their_factor_says():
    order, epochs = rare_more_often(FACTORS), 4000
    assert order.length == int(FACTORS.sum())
    counts = torch.zeros(23)
    for epoch in range(epochs):
        found = order.indices(0, epoch).bincount(minlength=23)
        assert ((found - FACTORS).abs() < 2).all(), "a factor rounded up or down; one sample may be cut at the end"
        counts += found
    share = order.length / FACTORS.sum()
    assert torch.allclose(counts / epochs, FACTORS * share, atol=0.04)
    together = {tuple(order.indices(0, e).bincount(minlength=23)[[1, 6]].tolist()) for e in range(400)}
    assert together >= {(1, 1), (1, 2), (2, 1), (2, 2)}, "two samples of factor 1.5 are rounded apart from each other"


def test_a_part_goes_on_where_the_last_one_stopped():
    base, part = shuffled(23), part_of_each(shuffled(23), 10)
    whole = torch.cat([base.indices(4, number) for number in range(5)])
    assert torch.equal(torch.cat([part.indices(4, epoch) for epoch in range(11)]), whole[:110])


def test_occurrences():
    assert occurrences(torch.tensor([4, 1, 4, 4, 2, 1])).tolist() == [0, 0, 1, 2, 0, 1]
    assert occurrences(torch.tensor([3, 1, 2])).tolist() == [0, 0, 0]
    assert occurrences(torch.tensor([], dtype=torch.int64)).tolist() == []


@pytest.mark.parametrize("name", ORDERS)
def test_ranks_share_every_order(name):
    def shares(**position):
        loader = Loader(TensorSource(torch.arange(23)), 6, trainer(epoch=1, **position), True, 3, order=ORDERS[name])
        found = [batch[0].tolist() for batch in loader]
        assert len(found) == len(loader)
        return found

    single, both = shares(), [shares(rank=rank, world=2) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*both, strict=True)] == [sorted(batch) for batch in single]


class Noisy(Dataset):
    def __len__(self):
        return 23

    def __getitem__(self, index):
        return index, torch.rand(()).item()


def run(order, num_workers, epochs=(0, 1, 2), start=0, world=1, rank=0):
    """Batches of these epochs by one loader, as a trainer asks for them; the first epoch from a step on."""
    where = trainer(rank, world)
    loader = Loader(Noisy(), 6, where, True, 3, num_workers, order=order)
    found = []
    for epoch in epochs:
        where.current_epoch, where.fit_loop.batch_idx = epoch, start - 1 if epoch == epochs[0] else -1
        found += [torch.stack(list(map(torch.Tensor.double, batch))) for batch in loader]
    loader.close()
    return found


def same(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_resumed_run_sees_the_same(name, rank):
    order = ORDERS[name]
    whole = run(order, 0, world=2, rank=rank)
    length = len(whole) // 3
    for num_workers, starts in ((0, range(length)), (2, (1,))):
        for start in starts:
            resumed = run(order, num_workers, (1, 2), start, world=2, rank=rank)
            assert same(resumed, whole[length + start :]), f"{name} with {num_workers} workers from step {start}"


def test_repetitions_of_a_sample_differ():
    values = torch.cat(run(rare_more_often(torch.full((23,), 2.0)), 0, (0,)), 1)
    assert Counter(values[0].tolist()) == Counter(list(range(23)) * 2)
    assert len(values[1].unique()) == 46


# Workers


def test_workers_live_on_between_epochs():
    class Where(Noisy):
        def __getitem__(self, index):
            return torch.utils.data.get_worker_info().seed, torch.initial_seed(), __import__("os").getpid()

    where = trainer()
    loader = Loader(Where(), 6, where, True, 3, 2)
    pids = []
    for where.current_epoch in range(3):
        pids.append(set(chain.from_iterable(batch[2].tolist() for batch in loader)))
    assert len(pids[0]) == 2
    assert pids[0] == pids[1] == pids[2]
    workers = list(loader._workers._iterator._workers)
    loader.close()
    assert all(not worker.is_alive() for worker in workers)


@pytest.mark.parametrize("left", [False, True], ids=["finished", "left in the middle"])
def test_a_loader_that_is_dropped_ends_its_workers_at_once(left):
    loader = Loader(Noisy(), 6, num_workers=1)
    next(iter(loader)) if left else list(loader)
    (worker,) = loader._workers._iterator._workers
    gc.disable()  # which would free them in an order in which the wait for each takes five seconds
    try:
        assert worker.is_alive()
        del loader
        assert not worker.is_alive()
    finally:
        gc.enable()


def test_an_epoch_left_in_the_middle_disturbs_no_other():
    whole = run(None, 0)
    where = trainer()
    loader = Loader(Noisy(), 6, where, True, 3, 2)
    left = iter(loader)
    next(left)
    where.current_epoch = 1
    found = [torch.stack(list(map(torch.Tensor.double, batch))) for batch in loader]
    assert same(found, whole[4:8])
    loader.close()


def test_the_run_s_end_ends_its_workers(tmp_path):
    from lightning.pytorch import LightningModule, Trainer

    class Watcher(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.workers = set()

        def training_step(self, batch, batch_idx):
            for loader in self.trainer.datamodule._loaders:
                if loader._workers is not None:
                    self.workers.update(loader._workers._iterator._workers)
            return self.weight * batch[0].mean()

        validation_step = training_step

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    ImageFolder.write_example(tmp_path)
    watcher, data = Watcher(), ImageFolder(root=str(tmp_path), image_size=8, num_workers=1, batch_size=7)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(accelerator="cpu", devices=1, max_epochs=3, num_sanity_val_steps=0, **quiet).fit(watcher, datamodule=data)
    assert len(watcher.workers) == 2, "one for training, one for validation, for all epochs"
    assert not any(worker.is_alive() for worker in watcher.workers)


# A data set's own order


def test_a_folder_shows_rare_classes_more_often(tmp_path):
    ImageFolder.write_example(tmp_path)
    for number in range(2, 10):
        (tmp_path / "square" / f"{number}.png").unlink()
    make = partial(ImageFolder, root=str(tmp_path), image_size=8, test_fraction=0, val_fraction=0, batch_size=4)
    plain, balanced, short = make(), make(repeat_below=0.5), make(repeat_below=0.5, samples_per_epoch=5)

    def labels(data, epoch=0):
        data.setup("fit")
        data.trainer = trainer(epoch=epoch)
        return torch.cat([batch[1] for batch in data.train_dataloader()])

    assert labels(plain).bincount().tolist() == [10, 2]
    assert labels(balanced).bincount().tolist() in ([10, 3], [9, 4], [10, 4]), "2 of 12 come sqrt(0.5 * 6) times each"
    assert len(labels(balanced)) == 13
    assert len(labels(make(repeat_below="even"))) == 13, "half of two classes"
    assert [len(labels(short, epoch)) for epoch in range(3)] == [5, 5, 5]
    for wrong in ({"repeat_below": 0.0}, {"repeat_below": 1.5}, {"samples_per_epoch": 0}):
        with pytest.raises(UserError, match=f"data.{next(iter(wrong))} must be"):
            make(**wrong)


def test_overfit_batches_repeats_the_same_batches() -> None:
    class Sums(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            self.seen.append(float((batch[0].double() * torch.arange(32)).sum()))  # a flip changes it

    found = Sums()
    data = Digits(batch_size=16, image_size=32, augment=[FlipAlternately, v2.RandomErasing])
    settings = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(overfit_batches=2, max_epochs=3, callbacks=[found], num_sanity_val_steps=0, **settings)
    trainer.fit(Classification(LeNet), data)
    assert found.seen[0] != found.seen[1]
    assert found.seen == found.seen[:2] * 3
