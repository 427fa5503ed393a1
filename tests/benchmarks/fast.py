"""Training images a second of ``recipes/cifar10/fast.yaml`` against a plain loop over the same network.

The loop is what one would write for this run alone: normalised floats of the whole set on the device, reflected and
padded once, a batch's crops anew at each step; two optimisers and a line down to 0 by hand.
Run: ``python tests/benchmarks/fast.py [--rounds N]``.
"""

import argparse
import statistics
from typing import Any

from common import WARM_UP, fit, own_folder, report, spread

ABOUT = (
    "Images a second of `zoo fit --config cifar10/fast`, default callbacks included, and of a plain loop of the same "
    "network, optimisers, schedule, precision, layout and augmentation over the same random pictures of 32×32 on the "
    "device; both in one run, rounds alternate."
)
BAR = 0.9


def sizes() -> tuple[int, int]:
    """Batch and steps a round: the recipe's batch where there is a GPU, one that takes about a second elsewhere."""
    import torch

    return (2000, 210) if torch.cuda.is_available() else (500, WARM_UP + 16)


def zoo_seconds(batch_size: int, steps: int) -> tuple[float, float]:
    """Seconds a step of ``zoo fit``, an epoch of random pictures in the place of CIFAR-10."""
    import zoo_bench

    zoo_bench.WATCH.start(WARM_UP, steps - 1)
    words = [
        "--config",
        "cifar10/fast",
        "--data=RandomImages",
        "--data.image_size=32",
        f"--data.batch_size={batch_size}",
    ]
    words += ["--data.val_fraction=0", "--data.drop_last=true", "--data.on_device=true"]
    words += [
        "--data.augment=[FlipAlternately, {class_path: CropEach, init_args: {padding: 2, padding_mode: reflect}}]"
    ]
    fit(*words, f"--data.count={batch_size * steps}", "--trainer.max_epochs=1", "--no-test")
    return zoo_bench.WATCH.per_step()


def plain_optimizers(network: Any) -> list[Any]:
    """The recipe's: filters by Muon, biases and head by SGD with rates of the mean loss."""
    import torch

    from zoo.training.optimizers import Muon

    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    filters = [p for name, p in named.items() if "conv" in name]
    biases = [p for name, p in named.items() if name.endswith("bias")]
    groups = [{"params": biases, "lr": 106.0}, {"params": [network.head.weight], "lr": 1340.0}]
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True, weight_decay=1e-6)
    return [sgd, Muon(filters, lr=0.24, momentum=0.6, steps=3, hold_norm=True)]


def cropped(padded: Any, side: int) -> Any:
    """A random window of each image; one copy a place, of which there are few."""
    import torch

    free = padded.shape[-1] - side + 1
    top, left = torch.randint(free, (2, len(padded)), device=padded.device)
    result = padded.new_empty(*padded.shape[:2], side, side)
    for y in range(free):
        for x in range(free):
            rows = ((top == y) & (left == x)).nonzero().flatten()
            result[rows] = padded[rows, :, y : y + side, x : x + side]
    return result


def plain_seconds(batch_size: int, steps: int) -> tuple[float, float]:
    """Seconds a step of the loop that one would write by hand."""
    import torch
    import zoo_bench
    from torch.nn import functional as F

    from zoo.architectures.cifarnet import CifarNet

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = (t.to(device) for t in zoo_bench.random_images(batch_size * steps, 32))
    images = (images.float() / 255 - 0.5) / 0.25
    network = CifarNet().to(device, memory_format=torch.channels_last).train()
    network.see(images[:5000])
    optimizers = plain_optimizers(network)
    rates = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    flip = torch.rand(len(images), 1, 1, 1, device=device) < 0.5
    padded = F.pad(torch.where(flip, images.flip(-1), images), [2] * 4, mode="reflect")
    zoo_bench.WATCH.start(WARM_UP, steps - 1)
    order = torch.randperm(len(images), device=device)
    for step, rows in enumerate(order.split(batch_size)):
        zoo_bench.WATCH.tick()
        for group, rate in rates:
            group["lr"] = rate * (1 - step / steps)
        batch = cropped(padded[rows], 32).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            loss = F.cross_entropy(network(batch).float(), labels[rows], label_smoothing=0.2)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return zoo_bench.WATCH.per_step()


def measure(rounds: int) -> dict[str, object]:
    """The row: images a second of both, and their ratio."""
    import torch

    batch_size, steps = sizes()
    ours, plain = [], []
    for _ in range(rounds):
        plain.append(plain_seconds(batch_size, steps))
        ours.append(zoo_seconds(batch_size, steps))
    ratios = [b / a for (a, _), (b, _) in zip(ours, plain, strict=True)]
    row: dict[str, object] = {
        "batch": batch_size,
        "plain loop, images/s": spread([batch_size / wall for wall, _ in plain], 0),
        "zoo fit, images/s": spread([batch_size / wall for wall, _ in ours], 0),
        "ratio": spread(ratios),
    }
    if torch.get_num_threads() == 1:  # a busy machine disturbs this clock less
        row["ratio of CPU time"] = spread([b / a for (_, a), (_, b) in zip(ours, plain, strict=True)])
    return {**row, "bar": BAR, "reached": statistics.median(ratios) >= BAR}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with own_folder():
        row = measure(options.rounds)
    report("Fast CIFAR-10 training", ABOUT, [row])


if __name__ == "__main__":
    main()
