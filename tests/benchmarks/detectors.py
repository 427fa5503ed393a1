"""Training and inference of Faster R-CNN and U-Net by the zoo and by the lines of torchvision's reference scripts.

Both train the same network on the same scenes of 128 pixels, read by the training process, with SGD. torchvision's
side is the loop of its ``references/detection`` and ``references/segmentation``: a ``DataLoader``, the losses, one
step, without its logger. Run: ``python tests/benchmarks/detectors.py [--rounds N]``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from common import WARM_UP, fit, own_folder, report, spread

ABOUT = (
    "Images a second of `zoo fit`, default callbacks and logger included, and of the few lines of torchvision's "
    "reference scripts around the same network: Faster R-CNN over ResNet-18 with a feature pyramid, and a U-Net of 16 "
    "channels, on scenes of 128×128 pixels that are composed while they are read, in one run. Inference is the task's "
    "`detect` or `probabilities`, and the network's call."
)
STEPS, SIZE, CLASSES = 30, 128, 13


class Case(NamedTuple):
    """One line of the table."""

    name: str
    batch_size: int
    words: tuple[str, ...]
    loop: Callable[[int], float]
    inference: Callable[[], tuple[float, float]]


def zoo_seconds(case: Case) -> float:
    """Seconds a step of ``zoo fit``."""
    import zoo_bench

    zoo_bench.WATCH.start(WARM_UP, STEPS - 1)
    sizes = ["--data.val_size=0", f"--data.batch_size={case.batch_size}"]
    sizes += [f"--data.train_size={case.batch_size * STEPS}"]
    sgd = "--model.optimizer={class_path: SGD, init_args: {lr: 0.001, momentum: 0.9}}"
    fit(*case.words, sgd, *sizes, "--trainer.max_epochs=1", "--no-test")
    return zoo_bench.WATCH.per_step()[0]


def _scenes(batch_size: int, data: Any) -> Any:
    """A loader of training scenes, as torchvision's scripts make one."""
    import torch

    samples = data.samples("train")
    return torch.utils.data.DataLoader(samples, batch_size, shuffle=True, collate_fn=data.collate)


# Faster R-CNN


def _torchvision_detector() -> Any:
    from torch import nn
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    return FasterRCNN(backbone, CLASSES + 1, min_size=SIZE, max_size=SIZE, image_mean=[0] * 3, image_std=[1] * 3)


def detector_seconds(batch_size: int) -> float:
    """Seconds a step of torchvision's loop."""
    import torch
    from zoo_bench import WATCH, TimedScenes

    network = _torchvision_detector().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    WATCH.start(WARM_UP, STEPS - 1)
    for images, targets in _scenes(batch_size, TimedScenes(train_size=batch_size * STEPS)):
        WATCH.tick()
        floats = [image / 255 for image in images]
        labelled = [{"boxes": one["boxes"], "labels": one["labels"] + 1} for one in targets]
        loss = sum(network(floats, labelled).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return WATCH.per_step()[0]


def _detection() -> Any:
    from functools import partial

    from zoo.architectures.faster_rcnn import FasterRCNN
    from zoo.architectures.resnet import ResNet
    from zoo.tasks.detection import Detection

    network = partial(FasterRCNN, backbone=partial(ResNet, depth=18), min_size=SIZE, max_size=SIZE)
    return Detection(network, facts={"num_classes": CLASSES, "in_channels": 3})


def detector_inference() -> tuple[float, float]:
    """Seconds of a call: the task's and torchvision's."""
    import torch

    images = list(torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))
    return _called(_detection(), _torchvision_detector(), images, lambda task: task.detect)


# U-Net


def _unet() -> Any:
    from zoo.architectures.unet import UNet

    return UNet(CLASSES + 1, 3, width=0.25, padding="same")


def segmenter_seconds(batch_size: int) -> float:
    """Seconds a step of torchvision's loop."""
    import torch
    from zoo_bench import WATCH, TimedSceneMasks

    network = _unet().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    WATCH.start(WARM_UP, STEPS - 1)
    for images, masks in _scenes(batch_size, TimedSceneMasks(train_size=batch_size * STEPS)):
        WATCH.tick()
        loss = torch.nn.functional.cross_entropy(network(images / 255), masks, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return WATCH.per_step()[0]


def segmenter_inference() -> tuple[float, float]:
    """Seconds of a call: the task's and the network's."""
    from functools import partial

    import torch

    from zoo.architectures.unet import UNet
    from zoo.tasks.semantic_segmentation import SemanticSegmentation

    facts = {"num_classes": CLASSES + 1, "in_channels": 3, "image_size": [SIZE, SIZE]}
    task = SemanticSegmentation(partial(UNet, width=0.25, padding="same"), facts=facts)
    images = torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return _called(task, _unet(), images, lambda task: task.probabilities)


def _called(task: Any, network: Any, images: Any, method: Callable[[Any], Any], times: int = 5) -> tuple[float, float]:
    import torch

    task.configure_model()
    calls = (method(task.eval()), network.eval())
    seconds: list[list[float]] = [[], []]
    with torch.no_grad():
        for call in calls:
            call(images)
        for _ in range(times):
            for call, taken in zip(calls, seconds, strict=True):
                start = time.perf_counter()
                call(images)
                taken.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


DETECTOR = (
    "--model=Detection",
    "--model.architecture=FasterRCNN",
    "--model.architecture.backbone={class_path: ResNet, init_args: {depth: 18}}",
    f"--model.architecture.min_size={SIZE}",
    f"--model.architecture.max_size={SIZE}",
    "--data=TimedScenes",
)
SEGMENTER = (
    "--model=SemanticSegmentation",
    "--model.architecture=UNet",
    "--model.architecture.width=0.25",
    "--model.architecture.padding=same",
    "--data=TimedSceneMasks",
)
CASES = (
    Case("Faster R-CNN, ResNet-18", 4, DETECTOR, detector_seconds, detector_inference),
    Case("U-Net, 16 channels", 8, SEGMENTER, segmenter_seconds, segmenter_inference),
)


def measure(case: Case, rounds: int) -> dict[str, object]:
    """A row: images a second of both, and the ratios of training and of inference."""
    ours, theirs, inference = [], [], []
    for _ in range(rounds):
        theirs.append(case.batch_size / case.loop(case.batch_size))
        ours.append(case.batch_size / zoo_seconds(case))
        task, network = case.inference()
        inference.append(network / task)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "network": case.name,
        "torchvision's lines, images/s": spread(theirs, 1),
        "zoo fit, images/s": spread(ours, 1),
        "ratio": spread(ratios),
        "inference, ratio": spread(inference),
        "bar": 1.0,
        "reached": statistics.median(ratios) >= 1.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with own_folder():
        rows = [measure(case, options.rounds) for case in CASES]
    report("Against torchvision's reference loops", ABOUT, rows)


if __name__ == "__main__":
    main()
