"""Matching against COCO's, errors against hotcoco's and by hand, VOC's rules and F1 written out."""

import numpy as np
import pytest
import torch
from detected import K, Lists, scenes

from zoo.metrics import coco
from zoo.metrics.computing import compute_and_reset
from zoo.metrics.detection import DetectionMetrics
from zoo.metrics.detection_analysis import Errors, confusion, curve, curves, errors, image_ap
from zoo.metrics.matching import match, overlaps
from zoo.metrics.samples import Samples, as_samples
from zoo.metrics.voc import voc_metrics

Row = tuple[float, float, float, float, int, float]  # x1 y1 x2 y2 label score


def image(found: list[Row], true: list[tuple[float, float, float, float, int]], crowd: tuple[int, ...] = ()) -> Lists:
    """One image's dictionaries."""
    a, b = torch.tensor(found).reshape(-1, 6), torch.tensor(true).reshape(-1, 5)
    flags = torch.tensor([i in crowd for i in range(len(b))], dtype=torch.bool)
    detections = {"boxes": a[:, :4], "labels": a[:, 4].long(), "scores": a[:, 5]}
    return [detections], [{"boxes": b[:, :4], "labels": b[:, 4].long(), "iscrowd": flags}]


def samples_of(*images: Lists) -> Samples:
    return as_samples([d for one in images for d in one[0]], [t for one in images for t in one[1]])


@pytest.mark.parametrize("kind", ["boxes", "masks"])
@pytest.mark.parametrize("seed", range(2))
def test_the_matching_gives_cocos_ap(kind: coco.Kind, seed: int) -> None:
    """Crowds, ties, and more than a hundred detections of a class in an image."""
    lists = scenes(found=330 if kind == "boxes" else 30, masks=kind == "masks", seed=seed)
    samples = as_samples(*lists, masks=kind == "masks")
    wanted = coco.evaluate(samples, K, kind).precision[..., 0, -1]
    for t, threshold in ((0, 0.5), (5, 0.75)):
        matches = match(samples, overlaps(samples, kind), threshold)
        found = [curve(samples, matches, k).ap for k in range(K)]
        np.testing.assert_allclose(np.nan_to_num(found, nan=-1), wanted[t].mean(0), rtol=0, atol=1e-12)
        assert max(found) > 0.1


def test_overlaps_are_all_pairs_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks as at once, and as torchvision computes them."""
    from torchvision.ops import box_iou

    lists = scenes(crowds=0)
    samples = as_samples(*lists)
    pairs = overlaps(samples, least=0.1)
    expected = [box_iou(d["boxes"].double(), t["boxes"].double()) for d, t in zip(*lists, strict=True)]
    wanted = torch.cat([iou[iou >= 0.1] for iou in expected]).numpy()
    np.testing.assert_allclose(pairs.iou, wanted, atol=1e-12)
    monkeypatch.setattr("zoo.metrics.matching._AT_ONCE", 50)
    for one, other in zip(overlaps(samples, least=0.1), pairs, strict=True):
        np.testing.assert_array_equal(one, other)


# Errors by kind

OBJECTS = [(0.0, 0, 100, 100, 0), (200.0, 0, 300, 100, 1), (400.0, 0, 500, 100, 0)]
CASES: dict[str, Row] = {
    "class": (0, 0, 100, 100, 1, 0.9),
    "place": (0, 60, 100, 160, 0, 0.9),  # IoU 0.25
    "both": (0, 60, 100, 160, 1, 0.9),
    "background": (0, 300, 100, 400, 0, 0.9),
}
FOUND = [(200.0, 0, 300, 100, 1, 0.8), (400.0, 0, 500, 100, 0, 0.7)]


def judged(found: list[Row], crowd: tuple[int, ...] = ()) -> Errors:
    samples = samples_of(image(found, OBJECTS, crowd))
    return errors(samples, overlaps(samples))


@pytest.mark.parametrize("kind", CASES)
def test_one_error(kind: str) -> None:
    made = judged([CASES[kind], *FOUND])
    missed = int(kind in ("both", "background"))  # no mistake of class or place is about the first object
    assert made.counts == dict.fromkeys(made.counts, 0) | {kind: 1, "missed": missed}
    assert made.missed.tolist() == [bool(missed), False, False]
    assert made.cost[kind] > 0.1


def test_what_errors_cost() -> None:
    """Class 1 has the right detection behind a wrong one: AP 1/2. Class 0 has one of two objects: AP 51/101."""
    ap = (0.5 + 51 / 101) / 2
    made = judged([CASES["class"], *FOUND])
    assert made.ap == pytest.approx(ap)
    assert made.cost["class"] == pytest.approx(1 - ap)
    assert all(made.cost[name] == pytest.approx(0) for name in ("place", "both", "duplicate", "background", "missed"))
    made = judged([CASES["both"], *FOUND])
    assert made.cost["both"] == pytest.approx((1 + 51 / 101) / 2 - ap)
    assert made.cost["missed"] == pytest.approx((0.5 + 1) / 2 - ap)


def test_duplicates_and_the_best_of_several() -> None:
    twice = (400.0, 0, 500, 90, 0, 0.6)
    made = judged([*FOUND, twice, CASES["class"], (0, 0, 100, 90, 1, 0.95)])
    assert made.counts["duplicate"] == 1
    assert made.counts["class"] == 2  # of which one is put right, the other left out
    assert made.of_detection.tolist() == [-1, -1, 3, 0, 0]
    assert made.cost["class"] == pytest.approx(1 - made.ap)


def test_errors_in_a_crowd_are_none() -> None:
    made = judged([(*CASES["place"][:4], 0, 0.9), (10, 10, 60, 60, 0, 0.95), *FOUND], crowd=(0,))
    assert made.of_detection.tolist()[1] == -1
    assert made.counts["missed"] == made.counts["place"] == 0


def test_nothing_detected_is_all_missed() -> None:
    made = judged([])
    assert made.counts == dict.fromkeys(made.counts, 0) | {"missed": 3}
    assert (made.ap, made.cost["missed"]) == (0, 1)


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_hotcocos(seed: int) -> None:
    """Without crowds, which it treats otherwise."""
    hotcoco = pytest.importorskip("hotcoco")
    samples = as_samples(*scenes(seed=seed, crowds=0))
    made = errors(samples, overlaps(samples))
    true, found = samples.objects, samples.detections
    columns = [(one.image + 1, one.label + 1, coco._with_sides(one.boxes)) for one in (true, found)]
    images, classes = coco._images(samples), coco._categories(K)
    truth = hotcoco.COCO.from_arrays(images, classes, *columns[0], area=np.ones(len(true)))
    image, label, boxes = columns[1]
    run = hotcoco.COCOeval(truth, truth.load_res(np.column_stack([image, boxes, found.score, label])), "bbox")
    run.evaluate()
    theirs = run.tide_errors()
    names = {"class": "Cls", "place": "Loc", "both": "Both", "duplicate": "Dupe", "background": "Bkg", "missed": "Miss"}
    assert made.counts == {name: theirs["counts"][other] for name, other in names.items()}
    assert min(made.counts.values()) > 0
    assert made.ap == pytest.approx(theirs["ap_base"], abs=1e-9)
    for name, other in names.items():
        assert made.cost[name] == pytest.approx(theirs["delta_ap"][other], abs=1e-9), name


# Confusion, curves and single images


def test_confusion_with_background() -> None:
    twice = (400.0, 0, 500, 90, 0, 0.6)
    samples = samples_of(image([CASES["class"], *FOUND, twice, (600, 0, 650, 50, 2, 0.5)], OBJECTS), image([], OBJECTS))
    matrix = confusion(samples, overlaps(samples), 3)
    assert matrix.tolist() == [[1, 1, 0, 2], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0]]
    assert confusion(samples, overlaps(samples), 3, confidence=0.75).tolist()[0] == [0, 1, 0, 3]


def test_its_own_class_comes_before_another() -> None:
    """A detection of another class with a higher score does not take an object away."""
    samples = samples_of(image([(0, 0, 100, 100, 1, 0.9), (0, 0, 100, 80, 0, 0.5)], [(0.0, 0, 100, 100, 0)]))
    assert confusion(samples, overlaps(samples), 2).tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_confusion_leaves_crowds_out() -> None:
    samples = samples_of(image([(10, 10, 60, 60, 0, 0.9)], OBJECTS[:1], crowd=(0,)))
    assert confusion(samples, overlaps(samples), 2).sum() == 0


def test_f1_is_the_best_over_all_thresholds() -> None:
    lists = scenes(images=8, found=10, crowds=0)
    for one in (*lists[0], *lists[1]):
        one["labels"] %= 2
    metric = DetectionMetrics(2)
    metric.update(*lists)
    found = compute_and_reset(metric)
    samples = as_samples(*lists)
    best = []
    for threshold in np.unique(samples.detections.score):  # the metric of those left alone, without any curve
        kept = [{n: v[one["scores"].double() >= threshold] for n, v in one.items()} for one in lists[0]]
        left = as_samples(kept, lists[1])
        right = match(left, overlaps(left)).right.sum()
        best.append((2 * right / (len(left.detections) + len(left.objects)), threshold))
    assert float(found["f1"]) == pytest.approx(max(best)[0])
    assert float(found["f1_threshold"]) == pytest.approx(max(best)[1])
    assert "f1" not in DetectionMetrics(3).compute()


def test_f1_without_objects_is_missing() -> None:
    metric = DetectionMetrics(1)
    metric.update(*image([(0, 0, 10, 10, 0, 0.9)], []))
    assert float(compute_and_reset(metric)["f1"]) == -1


def test_curves_of_classes() -> None:
    samples = samples_of(image([*FOUND, CASES["background"]], OBJECTS))
    first, second, third = curves(samples, overlaps(samples), 3)
    assert first.precision.tolist() == [0, 0.5]
    assert first.recall.tolist() == [0, 0.5]
    assert second.best() == (1.0, pytest.approx(0.8))
    assert third.objects == 0
    assert np.isnan(third.best()[0])


def test_each_images_ap() -> None:
    right = [(0.0, 0, 100, 100, 0, 0.9), (200, 0, 300, 100, 1, 0.8), (400, 0, 500, 100, 0, 0.7)]
    samples = samples_of(image(right, OBJECTS), image([], []), image([CASES["both"], *FOUND], OBJECTS))
    ap = image_ap(samples, overlaps(samples))
    assert ap[0] == 1
    assert np.isnan(ap[1])
    assert ap[2] == pytest.approx(2 / 3 * 67 / 101)


# VOC


def written_out(lists: Lists, label: int) -> tuple[float, float]:
    """AP of one class by the 2007 and the 2010 rule, as the development kit goes about it."""
    images, wanted = [], 0
    for target in lists[1]:
        mine = target["labels"] == label
        images.append((target["boxes"][mine].tolist(), target["iscrowd"][mine].tolist(), [False] * int(mine.sum())))
        wanted += int((mine & ~target["iscrowd"]).sum())
    found = [
        (-float(one["scores"][i]), image, i, one["boxes"][i].tolist())
        for image, one in enumerate(lists[0])
        for i in torch.nonzero(one["labels"] == label).flatten().tolist()
    ]
    hits = misses = 0
    points = []
    for _, image, _, box in sorted(found):
        boxes, difficult, taken = images[image]
        best, place = 0.0, -1
        for j, other in enumerate(boxes):
            width = min(box[2], other[2]) - max(box[0], other[0])
            height = min(box[3], other[3]) - max(box[1], other[1])
            if width > 0 and height > 0:
                areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
                iou = width * height / (sum(areas) - width * height)
                if iou > best:
                    best, place = iou, j
        if best >= 0.5 and difficult[place]:
            continue
        if best >= 0.5 and not taken[place]:
            hits, taken[place] = hits + 1, True
        else:
            misses += 1
        points.append((hits / wanted, hits / (hits + misses)))
    eleven = [max([p for r, p in points if r >= t / 10], default=0) for t in range(11)]
    area, before = 0.0, 0.0
    for recall, _ in points:
        area += (recall - before) * max(p for r, p in points if r >= recall)
        before = recall
    return sum(eleven) / 11, area


@pytest.mark.parametrize("seed", range(3))
def test_voc_against_its_rules_written_out(seed: int) -> None:
    lists = scenes(seed=seed, crowds=0.3)
    found = voc_metrics(as_samples(*lists), K)
    for k in (0, 1, 3):
        expected = written_out(lists, k)
        assert found["voc_2007_per_class"][k] == pytest.approx(expected[0], abs=1e-9)
        assert found["voc_2010_per_class"][k] == pytest.approx(expected[1], abs=1e-9)
    assert found["voc_2010_per_class"][2] == -1
    assert found["voc_2010"] == pytest.approx(found["voc_2010_per_class"][[0, 1, 3]].mean())
    assert found["voc_2007"] != pytest.approx(float(found["voc_2010"]))


def test_voc_judges_by_the_nearest_object_alone() -> None:
    """The second detection overlaps another, free object enough, too: right for COCO, wrong for VOC."""
    lists = image(
        [(0, 0, 100, 100, 0, 0.9), (0, 10, 100, 110, 0, 0.8)], [(0.0, 0, 100, 100, 0), (0.0, 35, 100, 135, 0)]
    )
    samples = as_samples(*lists)
    assert curve(samples, match(samples, overlaps(samples))).recall.tolist() == [0.5, 1]
    assert voc_metrics(samples, 1)["voc_2010"] == pytest.approx(0.5)


def test_the_metric_adds_vocs() -> None:
    metric = DetectionMetrics(K, voc=True)
    metric.update(*scenes())
    found = metric.compute()
    assert float(found["voc_2007"]) == voc_metrics(found["samples"], K)["voc_2007"]
    assert "voc_2007" not in DetectionMetrics(K).compute()
    assert float(DetectionMetrics(K, voc=True).compute()["voc_2010"]) == -1
