from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Dataset
from zoo_toys.data import ToyTensors

from zoo.data.loading import Loader, Rows, TensorSource, derive_seed, split_indices
from zoo.errors import UserError


def trainer(rank=0, world=1, epoch=0, batch_idx=-1):
    return SimpleNamespace(
        global_rank=rank, world_size=world, current_epoch=epoch, fit_loop=SimpleNamespace(batch_idx=batch_idx)
    )


def batches(loader):
    return [batch[0].tolist() for batch in loader]


def flat(lists):
    return sorted(chain.from_iterable(lists))


def loader(count=23, batch_size=6, **arguments):
    position = {k: arguments.pop(k) for k in ("rank", "world", "epoch", "batch_idx") if k in arguments}
    return Loader(TensorSource(torch.arange(count)), batch_size, trainer(**position), **arguments)


def test_training_order_is_a_pure_function_of_seed_and_epoch():
    first = batches(loader(train=True, seed=1))
    torch.manual_seed(77)
    assert batches(loader(train=True, seed=1)) == first
    assert flat(first) == list(range(23))
    assert batches(loader(train=True, seed=2)) != first
    assert batches(loader(train=True, seed=1, epoch=1)) != first


def test_the_runs_seed_is_the_order_s(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    assert batches(loader(train=True)) == batches(loader(train=True, seed=5))


def test_an_epoch_goes_on_where_the_trainer_stands():
    whole = batches(loader(train=True, seed=1, epoch=3))
    for done in range(len(whole)):
        assert batches(loader(train=True, seed=1, epoch=3, batch_idx=done - 1)) == whole[done:]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [18, 19, 20, 23])
def test_shards_are_disjoint_and_complete(world, count):
    single = batches(loader(count, train=True, seed=1))
    shards = [batches(loader(count, train=True, seed=1, rank=r, world=world)) for r in range(world)]
    assert len({len(shard) for shard in shards}) == 1
    for step, parts in enumerate(zip(*shards, strict=True)):
        assert flat(parts) == sorted(single[step])
    evaluation = [batches(loader(count, rank=r, world=world)) for r in range(world)]
    assert flat(batch for shard in evaluation for batch in shard) == list(range(count))
    for rank, shard in enumerate(evaluation):
        assert len(shard) == len(loader(count, rank=rank, world=world))


def test_a_last_batch_too_small_for_every_process_is_left_out_of_training_only():
    assert [len(loader(19, train=True, rank=r, world=2)) for r in (0, 1)] == [3, 3]
    assert [len(loader(19, rank=r, world=2)) for r in (0, 1)] == [4, 3]


def test_evaluation_gives_no_process_an_empty_batch():
    shares = []
    for rank in range(3):
        data = ToyTensors(batch_size=2)
        data.trainer = trainer(rank=rank, world=3)
        shares += [labels for _, labels in data.val_dataloader()]
    assert all(len(share) for share in shares)
    assert sum(map(len, shares)) == 22


def test_drop_last():
    assert [len(b) for b in batches(loader(train=True, drop_last=True))] == [6, 6, 6]


class Noisy(Dataset):
    """Samples whose values are drawn from every generator that an augmentation may use."""

    def __init__(self, count=10, broken=()):
        self.count, self.broken = count, broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        import random

        import numpy as np

        if index in self.broken:
            raise UserError(f"file {index} is damaged")
        return index, torch.rand(()).item(), random.random(), np.random.rand()


def rows(num_workers=0, epoch=0, batch_idx=-1, **arguments):
    found = Loader(Noisy(), 4, trainer(epoch=epoch, batch_idx=batch_idx), True, 3, num_workers, **arguments)
    return [torch.stack([column.double() for column in batch]) for batch in found]


def test_workers_samples_are_those_of_no_workers():
    plain = rows()
    for other in (rows(num_workers=2), rows(num_workers=1)):
        assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain[2:], rows(num_workers=2, batch_idx=1), strict=True))
    values = torch.cat(plain, 1)
    later = torch.cat(rows(epoch=1), 1)
    order, later_order = values[0].argsort(), later[0].argsort()
    assert (values[1:, order] != later[1:, later_order]).all()
    assert len(values[1].unique()) == 10


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_user_s_mistake_in_a_worker_is_one_line(num_workers):
    with pytest.raises(UserError, match=r"^file 7 is damaged$"):
        list(Loader(Noisy(broken=[7]), 4, num_workers=num_workers))


def test_rows_of_a_source():
    part = Rows(TensorSource(torch.arange(10), torch.arange(10) * 2), torch.tensor([7, 3, 5]))
    assert len(part) == 3
    assert [t.tolist() for t in part.fetch(torch.tensor([2, 0]))] == [[5, 7], [10, 14]]


def test_stratified_split():
    labels = torch.tensor([0] * 10 + [1] * 20 + [2] * 3)[torch.randperm(33, generator=torch.Generator().manual_seed(0))]
    kept, held = split_indices(labels, 0.3, seed=4)
    assert torch.bincount(labels[held]).tolist() == [3, 6, 1]
    assert sorted(torch.cat([kept, held]).tolist()) == list(range(33))
    again = split_indices(labels, 0.3, seed=4)
    assert torch.equal(held, again[1])
    assert not torch.equal(held, split_indices(labels, 0.3, seed=5)[1])
    assert len(split_indices(labels, 0.0, seed=4)[1]) == 0


def test_keys_are_far_apart_and_ordered():
    keys = {derive_seed(a, b) for a in range(60) for b in range(60)}
    assert len(keys) == 3600
    assert all(0 <= k < 2**63 for k in keys)
    assert derive_seed(1, 2) != derive_seed(2, 1)
    bits = sum(bin(derive_seed(1, n) ^ derive_seed(1, n + 1)).count("1") for n in range(200)) / 200
    assert 28 < bits < 35
