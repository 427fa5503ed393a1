"""The same training work by ``zoo fit`` and by a plain loop of timm's own parts, which is kept here to compare with.

CIFAR-shaped images, a random crop and a reflection for each, SGD with Nesterov momentum, label smoothing. timm's side:
its loader (2 workers; its prefetcher where there is a GPU), its augmentation, optimiser factory and loss.
Run: ``python tests/benchmarks/timm_loop.py [--rounds N]``.
"""

import argparse
import statistics
from typing import Any, NamedTuple

from common import WARM_UP, fit, own_folder, report, spread

ABOUT = (
    "Images a second of `zoo fit`, default callbacks and logger included, and of a plain loop of timm's loader "
    "(2 workers), augmentation, optimiser factory and loss: the same network, batch size and random pictures of 32×32, "
    "in one run. Each image is cropped and reflected at random: timm resizes its crop, ours is shifted by up to 4 "
    "pixels."
)


class Case(NamedTuple):
    """One line of the table."""

    name: str
    network: str
    batch_size: int
    steps: int


CASES = (Case("ResNet-18 at 32×32", "ResNet18At32", 64, 30), Case("tiny network", "TinyNet", 128, 300))


def zoo_seconds(case: Case) -> float:
    """Seconds a step of ``zoo fit``."""
    import zoo_bench

    zoo_bench.WATCH.start(WARM_UP, case.steps - 1)
    sgd = "{class_path: SGD, init_args: {lr: 0.01, momentum: 0.9, nesterov: true, weight_decay: 0.0005}}"
    words = ["--model=Classification", f"--model.architecture={case.network}", f"--model.optimizer={sgd}"]
    words += ["--model.label_smoothing=0.1", "--data=RandomImages", "--data.image_size=32", "--data.val_fraction=0"]
    words += ["--data.augment=[{class_path: CropEach, init_args: {padding: 4}}, FlipEach]"]
    words += [f"--data.batch_size={case.batch_size}", f"--data.count={case.batch_size * case.steps}"]
    fit(*words, "--trainer.max_epochs=1", "--no-test")
    return zoo_bench.WATCH.per_step()[0]


def timm_loader(images: Any, labels: Any, batch_size: int, device: Any) -> Any:
    """timm's loader over pictures in memory."""
    import torch
    from PIL import Image
    from timm.data import create_loader

    class Pictures(torch.utils.data.Dataset):
        transform: Any = None

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return self.transform(Image.fromarray(images[index])), labels[index]

    return create_loader(
        Pictures(),
        input_size=(3, 32, 32),
        batch_size=batch_size,
        is_training=True,
        scale=(0.64, 1.0),
        hflip=0.5,
        color_jitter=0.0,
        num_workers=2,
        device=device,
        use_prefetcher=device.type == "cuda",
    )


def timm_seconds(case: Case) -> float:
    """Seconds a step of the loop of timm's parts."""
    import torch
    import zoo_bench
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = zoo_bench.random_images(case.batch_size * case.steps, 32)
    loader = timm_loader(images.permute(0, 2, 3, 1).numpy(), labels.tolist(), case.batch_size, device)
    network = getattr(zoo_bench, case.network)().to(device).train()
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4)
    criterion = LabelSmoothingCrossEntropy(0.1)
    zoo_bench.WATCH.start(WARM_UP, case.steps - 1)
    for batch, targets in loader:
        zoo_bench.WATCH.tick()
        loss = criterion(network(batch.to(device)), targets.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return zoo_bench.WATCH.per_step()[0]


def measure(case: Case, rounds: int) -> dict[str, object]:
    """A row: images a second of both, and their ratio."""
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(case.batch_size / timm_seconds(case))
        ours.append(case.batch_size / zoo_seconds(case))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "network": case.name,
        "timm's parts, images/s": spread(theirs, 0),
        "zoo fit, images/s": spread(ours, 0),
        "ratio": spread(ratios),
        "bar": 1.0,
        "reached": statistics.median(ratios) >= 1.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with own_folder():
        rows = [measure(case, options.rounds) for case in CASES]
    report("Against timm's own parts", ABOUT, rows)


if __name__ == "__main__":
    main()
