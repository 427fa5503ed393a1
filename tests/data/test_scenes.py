"""Composed scenes: the same for the same seed and index, nothing hidden, and labels that fit the pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d
from torchvision.ops import masks_to_boxes

from zoo.data.composing import CLASSES, COLOURS, FURTHEST, Composer, Difficulty
from zoo.data.scenes import SceneMasks, Scenes, SceneSamples, classes_of, digits_of
from zoo.errors import UserError

USUAL = Difficulty()


def some(count: int, difficulty: Difficulty = USUAL, **changes: Any) -> SceneSamples:
    return SceneSamples("train", count, **{"seed": 3, "difficulty": difficulty, **changes})


def same(first: tuple[Tensor, dict[str, Tensor]], second: tuple[Tensor, dict[str, Tensor]]) -> bool:
    targets = first[1].keys() == second[1].keys() and all(torch.equal(v, second[1][k]) for k, v in first[1].items())
    return torch.equal(first[0], second[0]) and targets


def test_a_scene_is_a_function_of_seed_split_and_index() -> None:
    samples = some(2)
    torch.manual_seed(1)
    first = samples[0]
    torch.manual_seed(2)
    assert same(samples[0], first)
    others = [samples[1], some(1, seed=4)[0], SceneSamples("val", 1, 3, USUAL)[0]]
    assert not any(torch.equal(image, first[0]) for image, _ in others)
    with pytest.raises(IndexError):
        samples[2]


def test_fresh_scenes_are_a_function_of_the_loaders_key() -> None:
    samples, found = some(1, fresh=True), []
    for key in (1, 2, 1):
        torch.manual_seed(key)
        found.append(samples[0])
    assert same(found[0], found[2])
    assert not torch.equal(found[0][0], found[1][0])
    data = Scenes(fresh=True)
    assert [data.annotated(split).fresh for split in ("train", "val", "test")] == [True, False, False]


def test_no_digit_is_in_two_splits() -> None:
    digits = [{one.tobytes() for one in digits_of(split)[0]} for split in ("train", "val", "test")]
    assert [len(one) for one in digits] == [3600, 400, 1000]
    assert len(set.union(*digits)) == 5000


def around(mask: Tensor) -> Tensor:
    """The pixels at most two away from a mask, without those next to it, whose colours are mixed."""
    wide, narrow = (max_pool2d(mask[None].float(), 2 * r + 1, 1, r)[0] > 0 for r in (3, 1))
    return wide & ~narrow


@pytest.mark.parametrize("difficulty", [USUAL, Difficulty(96, (4, 8), (0.15, 0.5), overlap=0.5, contrast=0.2)])
def test_every_object_can_be_seen(difficulty: Difficulty) -> None:
    seen = 0
    for scene in map(some(60, difficulty).scene, range(60)):
        image = torch.from_numpy(scene.image.astype(np.float32)).permute(2, 0, 1)
        for one in scene.objects:
            mask, colour = torch.from_numpy(one.mask), torch.tensor(COLOURS[one.colour])[:, None]
            own = image[:, mask].median(1).values[:, None]
            assert (own - colour).norm() < 60, one.colour
            distances = (image[:, around(mask)] - own).norm(dim=0)
            share = float((distances > 0.7 * difficulty.contrast * FURTHEST).float().mean())
            assert share > 0.75, f"{CLASSES[one.label]} in {one.colour}: {share}"
            seen += 1
    assert seen > 60 * difficulty.objects[0]


def test_no_more_than_the_given_share_is_covered() -> None:
    """Circles of one size show by their pixels how much of them is left."""
    digits, labels = digits_of("train")
    crowded = Difficulty(objects=(6, 6), scale=(0.35, 0.35), overlap=0.3, contrast=0.1)
    alone = replace(crowded, objects=(1, 1))
    areas: dict[int, list[int]] = {}
    for difficulty in (alone, crowded):
        composer = Composer(digits, labels, difficulty)
        scenes = [composer(np.random.default_rng(i)) for i in range(150)]
        circles = [int(o.mask.sum()) for s in scenes for o in s.objects if CLASSES[o.label] == "circle"]
        areas[difficulty.objects[0]] = circles
    whole = areas[1][0]
    assert set(areas[1]) == {whole}
    assert min(areas[6]) >= 0.7 * whole
    assert min(areas[6]) < 0.9 * whole


def test_labels_fit_the_pixels() -> None:
    samples = some(30)
    for image, target in (samples[i] for i in range(30)):
        boxes, labels, masks = target["boxes"], target["labels"], target["masks"]
        assert image.shape == (3, 128, 128)
        assert image.dtype == torch.uint8
        assert 1 <= len(labels) <= 5
        assert int(masks.sum(0).max()) == 1, "visible parts do not overlap"
        ends = torch.tensor([0.0, 0.0, 1.0, 1.0])
        torch.testing.assert_close(boxes, masks_to_boxes(masks) + ends)  # there the last pixel is the end
        classes = classes_of(target)
        for label, mask in zip(labels, masks, strict=True):
            assert (classes[mask] == label + 1).all()
        assert torch.equal(classes == 0, ~masks.any(0))


def test_scenes_without_objects() -> None:
    _, target = some(1, Difficulty(objects=(0, 0)))[0]
    assert {name: tuple(value.shape) for name, value in target.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "masks": (0, 128, 128),
    }
    assert not classes_of(target).any()


def test_every_class_and_number_occurs() -> None:
    scenes = [some(200).scene(i) for i in range(200)]
    assert {one.label for s in scenes for one in s.objects} == {*range(len(CLASSES))}
    assert {len(s.objects) for s in scenes} == {1, 2, 3, 4, 5}
    assert {one.colour for s in scenes for one in s.objects} == {*COLOURS}


def test_descriptions_fit_the_pixels() -> None:
    """Sizes by scenes in which nothing is covered, places by the pixels' middle third, all as plain data."""
    samples = some(40, Difficulty(objects=(2, 4), overlap=0.0))
    words: dict[str, set[str]] = {"size": set(), "place": set()}
    for scene in map(samples.scene, range(40)):
        described = scene.description()
        assert json.loads(json.dumps(described)) == described
        assert not any(relation["name"] == "behind" for relation in described["relations"])
        for one, said in zip(scene.objects, described["objects"], strict=True):
            rows, columns = np.nonzero(one.mask)
            longer = max(np.ptp(rows), np.ptp(columns)) + 1
            if not 30 <= longer <= 34 and not 41 <= longer <= 45:  # 32 and 43 pixels are the bounds
                assert said["size"] == ("small" if longer < 32 else "large" if longer > 43 else "medium")
            middle = [(int(values.min()) + int(values.max()) + 1) / 2 for values in (rows, columns)]
            vertical, horizontal = ((n > 128 / 3) + (n >= 256 / 3) for n in middle)
            assert ("top" in said["place"], "bottom" in said["place"]) == (vertical == 0, vertical == 2)
            assert ("left" in said["place"], "right" in said["place"]) == (horizontal == 0, horizontal == 2)
            assert (said["place"] == "centre") == (vertical == horizontal == 1)
            assert (said["class"], said["colour"]) == (CLASSES[one.label], one.colour)
            words["size"].add(said["size"])
            words["place"].add(said["place"])
    assert {name: len(found) for name, found in words.items()} == {"size": 3, "place": 9}


def test_relations_fit_the_pixels() -> None:
    """No column of what is left of something is one of its columns; what is behind something touches it."""
    seen = dict.fromkeys(("left of", "above", "behind"), 0)
    for scene in map(some(60, Difficulty(objects=(2, 2))).scene, range(60)):
        if len(scene.objects) < 2:
            continue
        masks = [torch.from_numpy(one.mask) for one in scene.objects]
        holds = {tuple(relation) for relation in scene.relations}
        for i, j in ((0, 1), (1, 0)):
            for name, axis in (("left of", 0), ("above", 1)):
                a, b = (masks[k].any(axis).nonzero() for k in (i, j))
                assert ((i, name, j) in holds) == bool(a.max() < b.min())
                seen[name] += (i, name, j) in holds
        behind = (0, "behind", 1) in holds
        wide = max_pool2d(masks[1][None].float(), 3, 1, 1)[0] > 0
        assert not behind or bool((wide & masks[0]).any())
        assert (1, "behind", 0) not in holds, "the later one is painted over the earlier"
        seen["behind"] += behind
    assert min(seen.values()) > 5, seen


def test_what_is_behind_has_lost_pixels() -> None:
    """Circles of one size are whole, unless the scene says that they are behind something."""
    composer = Composer(*digits_of("train"), Difficulty(objects=(4, 4), scale=(0.35, 0.35)))
    whole, cut = set(), set()
    for scene in (composer(np.random.default_rng(i)) for i in range(80)):
        behind = {relation.first for relation in scene.relations if relation.name == "behind"}
        for i, one in enumerate(scene.objects):
            if CLASSES[one.label] == "circle":
                (cut if i in behind else whole).add(int(one.mask.sum()))
    assert len(whole) == 1
    assert cut
    assert max(cut) < whole.pop()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"image_size": 16}, "image_size must be at least 32, not 16"),
        ({"objects": [3, 2]}, r"objects must be a least and a largest number from 0 on, not \[3, 2\]"),
        ({"objects": [3]}, r"data.objects must be a least and a largest value, not \[3\]"),
        ({"scale": [0.01, 0.5]}, r"scale must be .* from 0.0625 \(8 pixels\) to 0.9"),
        ({"overlap": 1.0}, "overlap must be from 0 to 0.9, not 1.0"),
        ({"contrast": 0.9}, "contrast must be from 0 to 0.4, not 0.9"),
        ({"test_size": 0}, "data.train_size and data.test_size must be at least 1, not 0"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Scenes(**arguments)


def test_batches_of_both_forms() -> None:
    data, masks = Scenes(**Scenes.example), SceneMasks(**SceneMasks.example)
    images, targets = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert [tuple(image.shape) for image in images] == [(3, 64, 64)] * 4
    dense, classes = masks.on_after_batch_transfer(next(iter(masks.train_dataloader())), 0)
    torch.testing.assert_close(dense, torch.stack(images))
    assert torch.equal(classes, torch.stack([classes_of(target) for target in targets]))
    assert masks.facts["class_names"] == ["background", *data.facts["class_names"]]
    assert Scenes(val_size=0).samples("val") is None
    assert len(data.sample_pictures("val", 9)) == 4
