"""Augmented CIFAR-shaped images a second: ours in memory against torchvision with PIL transforms in a DataLoader.

Both pad by 4, crop 32x32 at random, reflect with probability 1/2 and end in float batches on the CPU. Files of CIFAR's
format with random pixels are written first, so that no data set is needed. Rounds alternate, so that a busy machine
is busy for both. Run: ``python tests/benchmarks/data_speed.py [--rounds N] [--seconds S]``.
"""

import argparse
import hashlib
import pickle
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import report, spread
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from zoo.data import CIFAR10
from zoo.data.transforms import CropEach, FlipEach


def write_batches(root: Path, images: int) -> None:
    """Training files of CIFAR-10's format with this many random images."""
    folder = root / CIFAR10.folder_name
    folder.mkdir()
    random = np.random.default_rng(0)
    for part in CIFAR10.files_md5.values():
        for name in part:
            count = images // len(part)
            data = random.integers(0, 256, (count, 3072), dtype=np.uint8)
            batch = {"data": data, "labels": (np.arange(count) % 10).tolist(), "batch_label": name}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10.class_names)}, protocol=2))


def ours(root: Path, batch_size: int):
    """Batches as a trainer gets them, after the device's part."""
    augment = [partial(CropEach, padding=4), FlipEach]
    data = CIFAR10(root=str(root), check=False, augment=augment, val_fraction=0, batch_size=batch_size)
    data.setup("fit")
    loader = data.train_dataloader()
    while True:
        for images, labels in loader:
            yield data.augmented(images, labels)


def torchvisions(root: Path, batch_size: int, workers: int):
    """Batches of torchvision's data set through torch's loader, persistent workers, as people write it."""
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]

    class Unchecked(datasets.CIFAR10):  # the pixels are random, so are the checksums
        meta = {**datasets.CIFAR10.meta, "md5": md5(root / CIFAR10.folder_name / "batches.meta")}

        def _check_integrity(self):
            return True

    data = Unchecked(root, transform=transforms.Compose(steps))
    loader = DataLoader(data, batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    while True:
        yield from loader


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def rate(batches, seconds: float) -> float:
    """Images a second, after two batches to warm up."""
    next(batches), next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        images, _ = next(batches)
        assert images.dtype == torch.float32
        assert images.shape[1:] == (3, 32, 32)
        count += len(images)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batch-size", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_batches(Path(folder), 50_000)
        cores = torch.get_num_threads()
        torchvision = [torchvisions(Path(folder), options.batch_size, workers) for workers in (2, 0)]
        here = ours(Path(folder), options.batch_size)
        runs = {
            "ours, 1 thread": (1, here),
            f"ours, {cores} threads": (cores, here),
            "torchvision, 2 workers": (cores, torchvision[0]),
            "torchvision, 0 workers": (cores, torchvision[1]),
        }
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, (threads, batches) in runs.items():
                torch.set_num_threads(threads)
                rates[name].append(rate(batches, options.seconds))
    tell(rates)


def tell(rates: dict[str, list[float]]) -> None:
    """Medians, spreads and how many times as fast the best of ours is."""
    median = {name: statistics.median(values) for name, values in rates.items()}
    best = max(value for name, value in median.items() if name.startswith("ours"))
    rows = [
        {"loader": name, "images a second": spread(values, 0), "ours to this": round(best / median[name], 1)}
        for name, values in rates.items()
    ]
    report("Augmented CIFAR-shaped images a second", __doc__.partition("\n\n")[2].partition(" Run:")[0], rows)


if __name__ == "__main__":
    main()
