"""IoU, Dice and accuracy against numpy written out and torchmetrics; ignored pixels, absent classes, processes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import DiceScore

from zoo.metrics.computing import compute_and_reset
from zoo.metrics.naming import named_values
from zoo.metrics.segmentation import SegmentationMetrics

K = 5


def batches(count: int = 6, classes: int = K - 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Logits and masks; the last class is in no mask; a tenth of the pixels is ignored."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(count):
        masks = torch.randint(0, classes, (1 + i % 3, 9, 7), generator=generator)
        logits = torch.randn(len(masks), K, 9, 7, generator=generator)
        logits.scatter_add_(1, masks[:, None], torch.full((len(masks), 1, 9, 7), 1.5))
        masks[torch.rand(masks.shape, generator=generator) < 0.1] = 255
        made.append((logits, masks))
    return made


def compute(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
    metric = SegmentationMetrics(K)
    for logits, masks in batches:
        metric.update(logits, masks)
    return compute_and_reset(metric)


def test_against_numpy_written_out() -> None:
    found = compute(batches())
    preds = np.concatenate([logits.argmax(1).numpy().ravel() for logits, _ in batches()])
    truth = np.concatenate([masks.numpy().ravel() for _, masks in batches()])
    preds, truth = preds[truth != 255], truth[truth != 255]
    iou, dice = [], []
    for k in range(K):
        both, either = ((preds == k) & (truth == k)).sum(), ((preds == k) | (truth == k)).sum()
        iou.append(both / either)
        dice.append(2 * both / ((preds == k).sum() + (truth == k).sum()))
    assert iou[-1] == 0  # predicted, but in no mask
    np.testing.assert_allclose(found["iou"], iou, rtol=1e-12)
    np.testing.assert_allclose(found["dice"], dice, rtol=1e-12)
    np.testing.assert_allclose(found["miou"], np.mean(iou), rtol=1e-12)
    np.testing.assert_allclose(found["mdice"], np.mean(dice), rtol=1e-12)
    np.testing.assert_allclose(found["pixel_accuracy"], (preds == truth).mean(), rtol=1e-12)
    accuracy = [(preds[truth == k] == k).mean() for k in range(K - 1)]
    np.testing.assert_allclose(found["accuracy"], [*accuracy, np.nan], rtol=1e-12)


def test_against_torchmetrics() -> None:
    jaccard, dice = MulticlassJaccardIndex(K, average=None, ignore_index=255), DiceScore(K, average=None)
    for logits, masks in batches():
        jaccard.update(logits, masks)
    whole = [(logits, masks.where(masks != 255, 0)) for logits, masks in batches()]
    # torchmetrics averages Dice over images: all pixels as one image are their sum.
    preds, truth = (
        torch.cat([t.flatten() for t in one]) for one in zip(*((x.argmax(1), m) for x, m in whole), strict=True)
    )
    dice.update(*(torch.nn.functional.one_hot(t, K).T[None, :, :, None] for t in (preds, truth)))
    torch.testing.assert_close(compute(batches())["iou"].float(), jaccard.compute())
    torch.testing.assert_close(compute(whole)["dice"].float(), dice.compute())


def test_a_class_that_is_nowhere_is_left_out() -> None:
    masks = torch.tensor([[[0, 0, 1, 255]]])
    found = compute([(torch.tensor([[[0, 1, 1, 4]]]), masks)])
    assert found["iou"].tolist()[:2] == [0.5, 0.5]
    assert found["iou"][2:].isnan().all()
    assert found["miou"] == 0.5
    assert found["pixel_accuracy"] == pytest.approx(2 / 3)
    named = named_values(found, [*"abcde"], skip=("confusion",))
    assert {"miou", "iou/a", "iou/b", "accuracy/b"} <= set(named)
    assert "iou/c" not in named


def test_without_counted_pixels_all_is_undefined() -> None:
    found = compute([(torch.zeros(1, K, 2, 2), torch.full((1, 2, 2), 255))])
    assert all(found[name].isnan().all() for name in found if name != "confusion")


def test_a_mask_of_an_unknown_class() -> None:
    with pytest.raises(ValueError, match="class 7, expected 0 to 4, or 255"):
        SegmentationMetrics(K).update(torch.zeros(1, K, 1, 2), torch.tensor([[[1, 7]]]))


def _process(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(compute(batches()[:4] if rank else []), f"{folder}/{rank}.pt")
    torch.save(compute(batches()[:4] if rank else batches()[4:]), f"{folder}/{rank}-uneven.pt")
    distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    multiprocessing.start_processes(_process, (str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        for name, expected in {f"{rank}.pt": compute(batches()[:4]), f"{rank}-uneven.pt": compute(batches())}.items():
            torch.testing.assert_close(torch.load(tmp_path / name), expected, rtol=0, atol=0, equal_nan=True)
