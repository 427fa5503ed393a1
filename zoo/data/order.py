"""Training orders: which samples an epoch has, in which order, as pure functions of seed and epoch.

Every epoch has the same number of samples, so that schedules know the run's length. The position follows from the
trainer's counters alone, and every process takes its part of each batch, so a resumed run is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.seeds import derive_seed
from zoo.errors import UserError


class Order(NamedTuple):
    """A training order.

    Args:
        length: samples per epoch.
        indices: function of the seed and the epoch that returns the indices of the epoch's samples, int64 (length,).
    """

    length: int
    indices: Callable[[int, int], Tensor]


def _generator(*parts: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*parts))


def shuffled(count: int) -> Order:
    """Each sample once per epoch, reshuffled every epoch."""
    return Order(count, partial(_shuffled, count))


def _shuffled(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=_generator(seed, epoch))


def alike_together(groups: Sequence[int] | Tensor, batch_size: int) -> Order:
    """Each sample once per epoch, in batches of one group: images of similar aspect ratio, which need little padding.

    The groups' remainders, each less than a batch, form batches of neighbouring groups.

    Args:
        groups: number of each sample's group, (N,); groups with close numbers are similar.
        batch_size: samples per step, over all processes.
    """
    return Order(len(groups), partial(_alike_together, torch.as_tensor(groups), batch_size))


def _alike_together(groups: Tensor, batch_size: int, seed: int, epoch: int) -> Tensor:
    order = _shuffled(len(groups), seed, epoch)
    order = order[groups[order].argsort(stable=True)]
    full, rest = [], []
    for members in order.split(groups.unique(return_counts=True)[1].tolist()):
        whole = len(members) // batch_size * batch_size
        full.append(members[:whole])
        rest.append(members[whole:])
    lined = torch.cat([*full, *rest])
    whole = len(lined) // batch_size * batch_size
    batches = lined[:whole].view(-1, batch_size)
    batches = batches[torch.randperm(len(batches), generator=_generator(seed, epoch, 1))]
    return torch.cat([batches.flatten(), lined[whole:]])  # the incomplete batch comes last


def repeat_factors(classes: Sequence[Sequence[int]], threshold: float) -> Tensor:
    """How often each image is used per epoch, by its rarest class.

    Gupta, Dollár and Girshick, "LVIS: A Dataset for Large Vocabulary Instance Segmentation", 2019, section on repeat
    factor sampling: ``r(c) = max(1, sqrt(t / f(c)))`` with the share f(c) of images that hold class c, and of an
    image the largest of its classes.

    Args:
        classes: of each image; none for an image without objects, which is seen once.
        threshold: t: classes in fewer images than this share are repeated.

    Returns:
        float64, (N,), at least 1
    """
    if not 0 <= threshold <= 1:
        raise UserError(f"a class's share of the images is at least 0 and at most 1, not {threshold}")
    held = [sorted(set(one)) for one in classes]
    share = torch.bincount(torch.tensor([c for one in held for c in one], dtype=torch.int64)).double() / len(held)
    factor = (threshold / share.clamp_min(1e-300)).sqrt().clamp_min(1)
    return torch.tensor([max((float(factor[c]) for c in one), default=1.0) for one in held], dtype=torch.float64)


def rare_more_often(factors: Tensor) -> Order:
    """Each sample as often as its factor says, randomly rounded up or down in every epoch.

    The probability of rounding up is the factor's fractional part, as in Gupta et al. 2019. Deviation: roundings are
    drawn together (systematic sampling, Madow 1949), so that every epoch has the same number of samples, the factors'
    sum; each sample's probability is unchanged.

    Args:
        factors: at least 0, (N,).
    """
    return Order(int(factors.double().sum() + 1e-6), partial(_rare_more_often, factors.double()))


def _rare_more_often(factors: Tensor, seed: int, epoch: int) -> Tensor:
    generator = _generator(seed, epoch)
    start = torch.rand((), dtype=torch.float64, generator=generator)
    order = torch.randperm(len(factors), generator=generator)
    length = int(factors.sum() + 1e-6)
    ends = (factors[order].cumsum(0) + start).floor().long()
    ends[-1].clamp_(min=length)  # sums of floats depend on their order
    times = ends.diff(prepend=ends.new_zeros(1))
    repeated = order.repeat_interleave(times)
    return repeated[torch.randperm(len(repeated), generator=generator)[:length]]


def part_of_each(order: Order, size: int) -> Order:
    """A fixed number of samples per epoch, continuing where the last epoch stopped: short epochs of a large data set,
    or long epochs of a small one.

    Args:
        order: the order of each pass over the whole data set.
        size: samples per epoch.
    """
    return Order(size, partial(_part_of_each, order, size))


def _part_of_each(order: Order, size: int, seed: int, epoch: int) -> Tensor:
    first, skipped = divmod(epoch * size, order.length)
    last = (epoch * size + size - 1) // order.length
    passes = torch.cat([order.indices(seed, number) for number in range(first, last + 1)])
    return passes[skipped : skipped + size]


def occurrences(indices: Tensor) -> Tensor:
    """How often each index occurred before, (N,); distinguishes the repetitions of a sample."""
    if not len(indices) or int(indices.bincount().max()) < 2:
        return torch.zeros_like(indices)
    ordered, places = indices.sort(stable=True)
    found = torch.empty_like(indices)
    found[places] = torch.arange(len(indices)) - torch.searchsorted(ordered, ordered)
    return found
