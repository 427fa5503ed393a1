"""Every evaluator gives what pycocotools gives, by itself and with a file's dictionaries; written-out cases."""

import contextlib
import io
import os

import numpy as np
import pytest
import torch
from detected import K, Lists, scenes
from torch import Tensor

from zoo.errors import UserError
from zoo.metrics import coco
from zoo.metrics.samples import Samples, as_samples

NAMES = ["map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100"]
NAMES += ["mar_small", "mar_medium", "mar_large"]


def by_files(lists: Lists, kind: str) -> np.ndarray:
    """The twelve metrics by pycocotools, from dictionaries as in COCO's files, read by ``loadRes`` and summarized."""
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entry(one: dict[str, Tensor], i: int, image: int) -> dict[str, object]:
        x1, y1, x2, y2 = one["boxes"][i].double().tolist()
        made = {"image_id": image, "category_id": int(one["labels"][i]) + 10}
        if kind == "bbox":
            return made | {"bbox": [x1, y1, x2 - x1, y2 - y1]}
        mask = one["masks"][i] > 0.5
        return made | {"segmentation": rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))}

    truth = COCO()
    images = [{"id": 100 + i, "height": 250, "width": 260} for i in range(len(lists[0]))]
    truth.dataset = {"images": images, "categories": [{"id": k + 10} for k in range(K)], "annotations": [], "info": {}}
    results = []
    for image, (detection, target) in enumerate(zip(*lists, strict=True)):
        for i in range(len(target["labels"])):
            one = entry(target, i, 100 + image) | {"id": len(truth.dataset["annotations"]) + 1}
            sides = (target["boxes"][i, 2:].double() - target["boxes"][i, :2].double()).tolist()
            own = float(target["masks"][i].sum()) if kind == "segm" else sides[0] * sides[1]
            area = float(target["area"][i]) if "area" in target else own
            truth.dataset["annotations"].append(one | {"area": area, "iscrowd": int(target["iscrowd"][i])})
        for i in range(len(detection["labels"])):
            results.append(entry(detection, i, 100 + image) | {"score": float(detection["scores"][i])})
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.asarray(run.stats)


@pytest.fixture(params=coco.EVALUATORS)
def evaluator(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return request.param


def agrees(samples: Samples, evaluator: str, kind: coco.Kind = "boxes") -> coco.Curves:
    found, wanted = (coco.evaluate(samples, K, kind, name) for name in (evaluator, "pycocotools"))
    for name, one, other in zip(found._fields, found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12, err_msg=name)
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_evaluators_agree_with_pycocotools_from_files(evaluator: str, kind: coco.Kind, seed: int) -> None:
    lists = scenes(found=15 if kind == "masks" else 40, masks=kind == "masks", seed=seed)
    metrics = coco.coco_metrics(agrees(as_samples(*lists, masks=kind == "masks"), evaluator, kind))
    expected = by_files(lists, {"boxes": "bbox", "masks": "segm"}[kind])
    np.testing.assert_allclose([float(metrics[name]) for name in NAMES], expected, rtol=0, atol=1e-9)
    per_class = metrics["map_per_class"]
    assert per_class[2] == -1  # no object
    assert per_class[3] == 0  # never detected
    assert per_class[[0, 1]].min() > 0.05
    assert metrics["map"] == pytest.approx(per_class[per_class > -1].mean(), abs=1e-12)


def test_more_than_a_hundred_detections(evaluator: str) -> None:
    """The hundred best of each class and image count; all are tied, so that those that come first count."""
    true = torch.tensor([[10.0, 10, 60, 60]])
    wrong = (true + 200).expand(120, 4)
    for boxes, expected in ((torch.cat([wrong, true]), 0.0), (torch.cat([true, wrong]), 1.0)):
        found = {"boxes": boxes, "labels": torch.zeros(121).long(), "scores": torch.full((121,), 0.5)}
        samples = as_samples([found], [{"boxes": true, "labels": torch.zeros(1).long()}])
        metrics = coco.coco_metrics(agrees(samples, evaluator))
        assert metrics["mar_100"] == expected
        assert metrics["map"] == pytest.approx(expected)


def test_a_crowd_swallows_detections(evaluator: str) -> None:
    """Detections inside a crowd are neither right nor wrong, as many as there are."""
    boxes = torch.tensor([[0.0, 0, 40, 40], [50, 50, 60, 60], [55, 55, 70, 70], [80, 80, 90, 90]])
    found = {"boxes": boxes, "labels": torch.zeros(4).long(), "scores": torch.tensor([0.5, 0.9, 0.8, 0.7])}
    crowd = {"boxes": torch.tensor([[0.0, 0, 40, 40], [45, 45, 95, 95]]), "labels": torch.zeros(2).long()}
    metrics = {}
    for name, flags in (("crowd", [False, True]), ("object", [False, False])):
        samples = as_samples([found], [crowd | {"iscrowd": torch.tensor(flags)}])
        metrics[name] = coco.coco_metrics(agrees(samples, evaluator))
    assert metrics["crowd"]["map"] == pytest.approx(1)
    assert metrics["object"]["map"] < 0.3


def test_boxes_of_no_area(evaluator: str) -> None:
    """One among the objects is never found; one among the detections is wrong."""
    boxes = torch.tensor([[10.0, 10, 10, 30], [40, 40, 80, 80]])
    truth = {"boxes": boxes, "labels": torch.zeros(2).long()}
    samples = as_samples([truth | {"scores": torch.tensor([0.9, 0.8])}], [truth])
    metrics = coco.coco_metrics(agrees(samples, evaluator))
    assert metrics["mar_100"] == pytest.approx(0.5)
    assert metrics["map"] == pytest.approx(0.5 * 51 / 101)  # precision 1/2 up to a recall of 1/2


@pytest.mark.parametrize("case", ["no images", "nothing", "no objects", "no detections"])
@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_nothing_to_measure(evaluator: str, case: str, kind: coco.Kind) -> None:
    lists = [], []
    if case != "no images":
        lists = scenes(4, masks=True)
        for name, one in (("no objects", lists[1]), ("no detections", lists[0])):
            for image in one if case in (name, "nothing") else []:
                image |= {column: values[:0] for column, values in image.items()}
    metrics = coco.coco_metrics(agrees(as_samples(*lists, masks=True), evaluator, kind))
    assert metrics["map"] == (0 if case == "no detections" else -1)
    assert metrics["map_per_class"].shape == (K,)


def test_the_columns_of_an_image_must_fit() -> None:
    one = {"boxes": torch.zeros(2, 4), "labels": torch.zeros(1).long(), "scores": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"as many of each, got .*'labels': 1"):
        as_samples([one], [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}])


def test_the_fastest_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["hotcoco", "pycocotools"]

    def load(name: str) -> None:
        if name not in there:
            raise ImportError(name)

    monkeypatch.setattr(coco, "import_module", load)
    assert coco.fastest_evaluator() == "hotcoco"
    there.remove("hotcoco")
    assert coco.fastest_evaluator() == "pycocotools"
    there.clear()
    with pytest.raises(UserError, match="pip install hotcoco"):
        coco.fastest_evaluator()


def test_a_forked_process_does_not_wait_for_its_parents_threads() -> None:
    pytest.importorskip("hotcoco")
    samples = as_samples(*scenes(3))
    expected = coco.evaluate(samples, K, evaluator="hotcoco")
    child = os.fork()
    if not child:
        found = coco.evaluate(samples, K)
        os._exit(0 if np.allclose(found.precision, expected.precision) else 1)
    assert os.waitpid(child, 0)[1] == 0
