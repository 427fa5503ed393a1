"""COCO's evaluation of 5,000 images with 500,000 boxes by each evaluator: time, peak memory, agreement.

Run: ``python tests/benchmarks/detection_metrics.py [--images N] [--rounds N]``.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from common import report, spread
from numpy.typing import NDArray

from zoo.metrics.coco import EVALUATORS, coco_metrics, evaluate
from zoo.metrics.detection import DetectionMetrics
from zoo.metrics.samples import Detections, Objects, Samples

BAR = 30
EACH = 100  # detections of an image
CLASSES = 80
METRIC = "DetectionMetrics"
ABOUT = (
    "From columns of numbers to COCO's twelve metrics, each evaluator in a process of its own: median "
    "of the rounds (smallest to largest) of the time and of the CPU time of all its threads; pycocotools runs once. "
    f"`{METRIC}` is the metric with its updates and what it keeps. Peak memory is what the process takes beyond that "
    "before the evaluation. The difference is the largest in any metric. Bar: "
    f"{BAR} times as fast as pycocotools (CPU time), identical to 1e-6."
)


def boxes(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """x1 y1 x2 y2 in images of 640 by 480 pixels."""
    sides = random.uniform(4, 200, (count, 2))
    corner = random.uniform(0, 1, (count, 2)) * ([640, 480] - sides)
    return np.concatenate([corner, corner + sides], 1)


def make(images: int) -> Samples:
    """Up to 14 objects an image, 2 in 100 of them crowds; 30 in 100 detections are near one; scores have ties."""
    random = np.random.default_rng(0)
    objects = random.integers(0, 15, images)
    image, found = np.arange(images).repeat(objects), np.arange(images).repeat(EACH)
    true, label = boxes(len(image), random), random.integers(0, CLASSES, len(image))
    made, guess = boxes(len(found), random), random.integers(0, CLASSES, len(found))
    near = np.flatnonzero((objects[found] > 0) & (random.random(len(found)) < 0.3))
    about = (objects.cumsum() - objects)[found[near]] + random.integers(0, objects[found[near]])
    made[near] = true[about] + random.normal(0, 4, (len(near), 4))
    made[:, 2:] = np.maximum(made[:, 2:], made[:, :2] + 1)
    guess[near] = np.where(random.random(len(near)) < 0.9, label[about], guess[near])
    area = (true[:, 2:] - true[:, :2]).prod(1) * random.uniform(0.5, 1, len(true))
    crowd = random.random(len(true)) < 0.02
    score = random.random(len(found)).round(3)
    made, true = made.astype(np.float32).astype(np.float64), true.astype(np.float32).astype(np.float64)
    score, area = (values.astype(np.float32).astype(np.float64) for values in (score, area))
    return Samples(images, Detections(found, guess, made, score), Objects(image, label, true, crowd, area))


def by_metric(samples: Samples) -> dict[str, NDArray[np.float64]]:
    """By the metric, in batches of eight images."""
    metric, found, true = DetectionMetrics(CLASSES), samples.detections, samples.objects
    parts = [np.searchsorted(one.image, np.arange(samples.images + 1)) for one in (found, true)]
    batch = []
    for i in range(samples.images):
        (a, b), (c, d) = (part[i : i + 2] for part in parts)
        columns = {"boxes": found.boxes[a:b], "labels": found.label[a:b], "scores": found.score[a:b]}
        target = {
            "boxes": true.boxes[c:d],
            "labels": true.label[c:d],
            "iscrowd": true.crowd[c:d],
            "area": true.area[c:d],
        }
        kinds = [{n: torch.from_numpy(v) for n, v in one.items()} for one in (columns, target)]
        batch.append([{n: v.float() if v.dtype == torch.float64 else v for n, v in one.items()} for one in kinds])
        if len(batch) == 8 or i + 1 == samples.images:
            metric.update(*map(list, zip(*batch, strict=True)))
            batch = []
    return {name: value.numpy() for name, value in metric.compute().items() if name != "samples"}


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(name: str, images: int) -> None:
    """Print seconds, CPU seconds, peak memory in MB and the metrics as a line of JSON."""
    samples = make(images)
    evaluate(make(10), CLASSES, evaluator=None if name == METRIC else name)  # imports, threads
    before, start = _resident(), time.perf_counter()
    cpu = time.process_time()
    found = by_metric(samples) if name == METRIC else coco_metrics(evaluate(samples, CLASSES, evaluator=name))
    seconds = [time.perf_counter() - start, time.process_time() - cpu]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before
    print(json.dumps([*seconds, peak, {name: np.asarray(value).tolist() for name, value in found.items()}]))


def run(name: str, images: int) -> tuple[float, float, float, NDArray[np.float64]]:
    """The same in a process of its own; the metrics as one vector."""
    words = [sys.executable, __file__, "--images", str(images), "--only", name]
    with tempfile.TemporaryFile() as said:
        output = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=said).stdout
    seconds, cpu, peak, metrics = json.loads(output.splitlines()[-1])
    return seconds, cpu, peak, np.concatenate([np.ravel(metrics[key]) for key in sorted(metrics)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--only", help="measure this one in this process")
    options = parser.parse_args()
    if options.only:
        return measure(options.only, options.images)
    names = [METRIC, *(name for name in EVALUATORS if find_spec(name))]
    found = {
        name: [run(name, options.images) for _ in range(1 if name == "pycocotools" else options.rounds)]
        for name in names
    }
    (_, slow, _, wanted), rows = found["pycocotools"][0], []
    for name in names:
        seconds, cpu, peaks, values = zip(*found[name], strict=True)
        difference, times = float(np.abs(values[0] - wanted).max()), slow / statistics.median(cpu)
        row = {"evaluator": f"`{name}`", "s": spread(seconds), "CPU s": spread(cpu), "times as fast": round(times, 1)}
        row |= {"peak memory, MB": spread(peaks, 0), "largest difference": f"{difference:.0e}"}
        rows.append(row | {"reached": times >= BAR and difference < 1e-6 if name in (METRIC, "hotcoco") else ""})
    title = f"COCO's metrics of {options.images:,} images with {options.images * EACH:,} boxes"
    return report(title, ABOUT, rows)


if __name__ == "__main__":
    main()
