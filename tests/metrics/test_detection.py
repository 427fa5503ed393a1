"""The metric: what it gives, in updates and from several processes, is what the evaluator gives of all at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detected import K, Lists, scenes
from torch import Tensor, distributed, multiprocessing

from zoo.metrics import coco
from zoo.metrics.computing import compute_and_reset
from zoo.metrics.detection import MISSING, NOT_LOGGED, DetectionMetrics
from zoo.metrics.naming import named_values
from zoo.metrics.samples import as_samples


def compute(lists: Lists, images: list[int], size: int = 5) -> dict[str, Any]:
    """What these images give in batches of this size."""
    metric = DetectionMetrics(K, masks=True)
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        metric.update(*([one[i] for i in batch] for one in lists))
    return compute_and_reset(metric)


def numbered(lists: Lists) -> Lists:
    detections, targets = lists
    return detections, [target | {"image_id": torch.tensor(7 * i)} for i, target in enumerate(targets)]


def equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in expected.keys() - {"samples"}:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-12, msg=name)


def test_boxes_and_masks_are_the_evaluators() -> None:
    lists = scenes(found=15, masks=True)
    found, samples = compute(lists, list(range(12))), as_samples(*lists, masks=True)
    for prefix, kind in (("", "boxes"), ("mask_", "masks")):
        for name, value in coco.coco_metrics(coco.evaluate(samples, K, kind)).items():
            np.testing.assert_array_equal(found[f"{prefix}{name}"], value, err_msg=name)
    assert 0.1 < found["map"] != found["mask_map"]
    assert found["samples"].objects.masks == samples.objects.masks


def test_undefined_metrics_are_missing_from_the_log() -> None:
    values = compute(scenes(found=15, masks=True), list(range(12)))
    named = named_values(values, [*"abcd"], missing=MISSING, skip=NOT_LOGGED)
    assert {"map", "mask_map_50", "map_per_class/a", "map_per_class/d"} <= set(named)
    assert "map_per_class/c" not in named  # no object
    assert all(
        value.isnan() for value in named_values(compute(([], []), []), missing=MISSING, skip=NOT_LOGGED).values()
    )


def test_images_are_evaluated_in_the_order_of_their_ids() -> None:
    lists = numbered(scenes(found=15, masks=True))
    mixed = torch.randperm(12, generator=torch.Generator().manual_seed(1)).tolist()
    equal(compute(lists, mixed), compute(lists, list(range(12))))


def test_bfloat16_and_boxes_that_are_not_finite() -> None:
    detections, targets = scenes(4)
    detections[1]["boxes"][0, 2] = torch.nan
    detections[1]["scores"][0] = 1
    detections[2]["scores"][0] = torch.inf
    kept = [{name: value[int(i in (1, 2)) :] for name, value in one.items()} for i, one in enumerate(detections)]
    half = [{name: value.bfloat16() if name == "scores" else value for name, value in one.items()} for one in kept]
    metric = DetectionMetrics(K)
    for one, other in ((detections, kept), (half, half)):
        metric.update(one, targets)
        found = compute_and_reset(metric)
        metric.update([{n: v.float() if n == "scores" else v for n, v in image.items()} for image in other], targets)
        equal(found, compute_and_reset(metric))


def test_masks_are_kept_as_run_lengths() -> None:
    """A mask of a million pixels takes some bytes."""
    masks = torch.zeros(3, 1000, 1000)
    masks[:, 100:400, 200:700] = 0.7
    boxes = torch.tensor([[200.0, 100, 700, 400]]).expand(3, 4)
    one = {"boxes": boxes, "labels": torch.zeros(3).long(), "masks": masks}
    metric = DetectionMetrics(1, masks=True)
    metric.update([one | {"scores": torch.ones(3)}], [one | {"masks": masks > 0.5}])
    states = [t for state in metric.metric_state.values() for t in state if isinstance(t, Tensor)]
    assert sum(t.nbytes for t in states) < 10_000
    assert metric.compute()["mask_map"] == pytest.approx(1)


def _process(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    lists = numbered(scenes(found=15, masks=True))
    shares = {"uneven": [0, 2, 4, 6, 8, 9, 10, 11] if rank else [1, 3, 5, 7], "none": list(range(12)) if rank else []}
    for name, share in shares.items():
        values = compute(lists, share)
        torch.save({k: v for k, v in values.items() if k != "samples"}, f"{folder}/{name}-{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    expected = compute(numbered(scenes(found=15, masks=True)), list(range(12)))
    multiprocessing.start_processes(_process, (str(tmp_path),), nprocs=2, start_method="fork")
    for name in ("uneven", "none"):
        for rank in range(2):
            equal(torch.load(tmp_path / f"{name}-{rank}.pt"), expected)
